"""Trainings that are killed, stopped and doubled end with the bits of an unbroken one.

LTPA_FULL=1 kills them more often.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from trainings import copy_data, learning_of, model_hash, small_spec, small_two_stream

FULL = bool(os.environ.get("LTPA_FULL"))
KILLS = {"cross-entropy": 20, "two-stream": 8} if FULL else {"cross-entropy": 6, "two-stream": 3}  # run by one loop
REQUESTS = {"cross-entropy": 3, "two-stream": 1} if FULL else {"cross-entropy": 1, "two-stream": 1}


@pytest.fixture(scope="module")
def durations(server, data, tmp_path_factory) -> dict[str, float]:
    """Seconds an unbroken training of each kind takes now."""
    found = {}
    for spec in (small_spec(), small_two_stream()):
        results = copy_data(data, tmp_path_factory.mktemp("timed") / "results")
        started = time.monotonic()
        assert server.train(spec, results).wait() == 0
        found[learning_of(spec)] = time.monotonic() - started
    return found


def wait_for_handlers(pid: int) -> None:
    """Until the process catches SIGTERM: the interpreter itself cannot obey while it starts."""
    status, caught = Path(f"/proc/{pid}/status"), 0
    while status.exists() and not caught & 1 << signal.SIGTERM - 1:
        caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name
)
def test_training_goes_on_from_wherever_it_was_cut_off(server, data, trained, durations, tmp_path, number):
    """SIGKILL many times; the signals that ask must be obeyed in time and with the right code."""
    (spec, unbroken), chooser = trained, random.Random(number)
    learning = learning_of(spec)
    for kill in range((KILLS if number == signal.SIGKILL else REQUESTS)[learning]):
        results, code, latest = tmp_path / str(kill), 0, 0.95
        while code == 0:  # it had ended already: choose an earlier moment
            shutil.rmtree(results, ignore_errors=True)
            child = server.train(spec, copy_data(data, results))
            if number != signal.SIGKILL:
                wait_for_handlers(child.pid)
            time.sleep(chooser.uniform(0, latest) * durations[learning])
            os.kill(child.pid, number)
            asked = time.monotonic()
            code, latest = child.wait(), latest * 0.8
        assert time.monotonic() - asked < 10
        expected = {signal.SIGKILL: -9, signal.SIGINT: 130}.get(number, 75)
        assert code == expected, child.output.read_text()
        resumed = server.train(spec, results)
        assert resumed.wait() == 0, resumed.output.read_text()
        assert model_hash(results, spec) == unbroken
        assert not list(results.rglob("*.tmp*")), "a half-written file was left behind"
        (state,) = (results / "state" / "train").iterdir()
        epochs = [json.loads(line)["epoch"] for line in (state / "metrics.jsonl").read_text().splitlines()]
        assert epochs == [1, 2, 3, 4], "a line an epoch, cut back to where it went on"


def test_a_second_training_of_the_same_network_waits_and_finds_it_done(server, data, trained, tmp_path):
    spec, unbroken = trained
    results = copy_data(data, tmp_path / "results")
    children = [server.train(spec, results) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0], children[0].output.read_text()
    text = children[0].output.read_text()
    assert text.count("waiting: another process (") == 2 and text.count("trained already") == 2
    assert text.count("epoch 1/4") == 1
    assert model_hash(results, spec) == unbroken
    (log,) = results.glob("state/*/*/train.log")
    assert len({line.split()[2] for line in log.read_text().splitlines()}) == 1, "two processes wrote"
