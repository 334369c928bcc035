import os
import subprocess
import sys
import threading
import time

import pytest

from ltpa.core.errors import LtpaError
from ltpa.runtime.lock import exclusive, exclusive_folder, in_use


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


def test_released_after_an_error_and_a_wait_is_announced_once(tmp_path):
    lock, said, checks, entered = tmp_path / "lock", [], [], threading.Event()

    def wait():
        with exclusive(lock, said.append, lambda: checks.append(1)):
            entered.set()

    waiter = threading.Thread(target=wait)
    with pytest.raises(ZeroDivisionError), exclusive(lock):
        waiter.start()
        while len(checks) < 3:
            time.sleep(0.01)
        assert not entered.is_set()
        raise ZeroDivisionError
    waiter.join(10)
    assert entered.is_set()
    assert said == [f"another process ({os.getpid()})"]
    assert not lock.exists()


def test_unwritable_folder_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LtpaError, match="cannot write here"), exclusive(tmp_path / "file" / "lock"):
        pass


HOLD = """
import os, sys, time
from pathlib import Path
from ltpa.runtime.lock import exclusive_folder
with exclusive_folder(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_is_named_while_it_lives_and_forgotten_afterwards(tmp_path):
    class Held(Exception):
        pass

    def refuse(holder):
        raise Held(holder)

    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        number = process.stdout.readline().strip()
        assert in_use(tmp_path)
        with pytest.raises(Held, match=rf"another process \({number}\)"), exclusive_folder(tmp_path, refuse):
            pass
        (tmp_path / ".draft.tmp").touch()
        process.kill()
    assert (tmp_path / "lock").read_text() == f"{number}\n" and not in_use(tmp_path)
    with exclusive_folder(tmp_path, refuse):
        assert in_use(tmp_path) and [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert not in_use(tmp_path)
