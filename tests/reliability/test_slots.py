"""Slots under fire: many processes, few slots, kills; never two holders."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ltpa.core.errors import LtpaError
from ltpa.core.slots import gpu_names, hold_slot

WORKER = """
import os, sys, time
from pathlib import Path
from ltpa.core.slots import hold_slot
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
with hold_slot(folder, ["0", "1"]) as name:
    with open(log, "a") as stream:
        stream.write(f"start {name} {os.getpid()}\\n")
        stream.flush()
        time.sleep(0.05)
        stream.write(f"end {name} {os.getpid()}\\n")
"""


def test_sixty_processes_over_two_slots_with_ten_kills_never_overlap(tmp_path):
    log = tmp_path / "log"
    chooser = random.Random(0)
    processes = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path / "slots"), str(log)]) for _ in range(60)]
    killed = set()
    while len(killed) < 10:
        time.sleep(0.1)
        running = [p for p in processes if p.poll() is None and p.pid not in killed]
        if not running:
            break
        victim = chooser.choice(running)
        os.kill(victim.pid, signal.SIGKILL)
        killed.add(victim.pid)
    for process in processes:
        process.wait(timeout=120)
    holder: dict[str, str | None] = {"0": None, "1": None}
    finished = 0
    for line in log.read_text().splitlines():
        event, name, pid = line.split()
        if event == "start":
            assert holder[name] is None or int(holder[name]) in killed, "two processes held one slot"
            holder[name] = pid
        else:
            assert holder[name] == pid
            holder[name] = None
            finished += 1
    assert len(killed) == 10 and finished >= 50


def test_shares_allow_as_many_holders_as_declared(tmp_path):
    with hold_slot(tmp_path, ["0"], share=2) as first, hold_slot(tmp_path, ["0"], share=2) as second:
        assert first == second == "0"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0.lock", "0-1.lock"]


def test_preset_devices_are_honoured(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert gpu_names(8) == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_names(8) == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_names(2) == ["0", "1"]


def test_nothing_to_hold_is_an_error(tmp_path):
    with pytest.raises(LtpaError, match="no slots"), hold_slot(tmp_path, []):
        pass
