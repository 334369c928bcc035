import threading
import time

import pytest

from ltpa.core.errors import LtpaError
from ltpa.runtime.exclusive import exclusive


def test_one_at_a_time_and_no_file_left(tmp_path):
    counter, lock = tmp_path / "counter", tmp_path / "lock"
    counter.write_text("0")
    inside = []

    def count():
        for _ in range(40):
            with exclusive(lock):
                inside.append(1)
                assert len(inside) == 1
                value = int(counter.read_text())
                time.sleep(0)
                counter.write_text(str(value + 1))
                inside.pop()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counter.read_text() == "320"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_released_after_an_error_and_waiting_is_told_once(tmp_path):
    lock, told, entered = tmp_path / "lock", [], threading.Event()

    def wait():
        with exclusive(lock, lambda: told.append(1)):
            entered.set()

    waiter = threading.Thread(target=wait)
    with pytest.raises(ZeroDivisionError), exclusive(lock):
        waiter.start()
        while not told:
            time.sleep(0.01)
        assert not entered.is_set()
        raise ZeroDivisionError
    waiter.join(10)
    assert entered.is_set()
    assert told == [1]
    assert not lock.exists()


def test_unwritable_folder_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LtpaError, match="cannot write here"), exclusive(tmp_path / "file" / "lock"):
        pass
