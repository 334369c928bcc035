"""Slots under fire: many processes, few slots, kills; never two holders."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from ltpa.core.errors import LtpaError
from ltpa.runtime.slots import POLL_SECONDS, hold_slot

WORKER = """
import os, sys, time
from pathlib import Path
from ltpa.runtime.slots import hold_slot
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
        with open(log, "a") as stream:  # from here on its slot may be another's, and not before
            stream.write(f"kill - {victim.pid}\n")
        os.kill(victim.pid, signal.SIGKILL)
        killed.add(victim.pid)
    for process in processes:
        process.wait(timeout=120)
    holder: dict[str, str | None] = {"0": None, "1": None}
    finished, dying = 0, set()
    for line in log.read_text().splitlines():
        event, name, pid = line.split()
        if event == "kill":
            dying.add(pid)
        elif event == "start":
            assert holder[name] is None or holder[name] in dying, "two processes held one slot"
            holder[name] = pid
        else:
            assert holder[name] == pid
            holder[name] = None
            finished += 1
    assert len(killed) == 10 and finished >= 50


def test_who_needs_all_is_not_passed_by_those_who_need_a_part(tmp_path):
    order = []

    def work(label, share):
        with hold_slot(tmp_path, ["0"], share):
            order.append(label)

    def queue(label, share):
        """Start it, and wait until it stands in the queue."""
        before = len(list(tmp_path.glob("0.ticket-*")))
        thread = threading.Thread(target=work, args=(label, share))
        thread.start()
        while len(list(tmp_path.glob("0.ticket-*"))) == before:
            time.sleep(0.01)
        return thread

    with hold_slot(tmp_path, ["0"], 2):
        threads = [queue("whole", 1), queue("part", 4), queue("part", 8)]
        time.sleep(3 * POLL_SECONDS)
        assert order == [], "half of it is free, but not to those who came later"
        with hold_slot(tmp_path, ["0", "1"], 1, at_once) as other:
            assert other == "1", "who waits for one thing holds nobody from another"
    for thread in threads:
        thread.join(timeout=60)
    assert order[0] == "whole" and sorted(order[1:]) == ["part", "part"]
    assert not list(tmp_path.glob("*ticket*"))


def test_a_place_in_the_queue_ends_with_its_owner(tmp_path):
    left = tmp_path / f"0.ticket-{1:020d}-1"
    left.touch()
    with hold_slot(tmp_path, ["0"], 1, at_once) as name:
        assert name == "0" and not left.exists()


def test_shares_allow_as_many_holders_as_declared(tmp_path):
    with contextlib.ExitStack() as held:
        names = [held.enter_context(hold_slot(tmp_path, ["0"], share, at_once)) for share in (2, 4, 8, 8)]
        assert names == ["0"] * 4
        for share in (1, 2, 4, 8):
            with pytest.raises(Taken), hold_slot(tmp_path, ["0"], share, at_once):
                pass
        with hold_slot(tmp_path, ["0", "1"], 1, at_once) as other:
            assert other == "1"
    with hold_slot(tmp_path, ["0"], 1, at_once), pytest.raises(Taken), hold_slot(tmp_path, ["0"], 8, at_once):
        pass


class Taken(Exception):
    pass


def at_once():
    """Raised out of the wait for a slot: there is none free."""
    raise Taken


GPU_JOB = """
import os, sys, time, types
import torch
from ltpa.stages import device
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(uuid="the-only-one")
def job(log):
    with device.compute_device("cuda", 1), open(log, "a") as stream:
        stream.write("start\\n"); stream.flush(); time.sleep(0.05); stream.write("end\\n")
for _ in range(8):
    if os.fork() == 0:
        job(sys.argv[1])
        os._exit(0)
for _ in range(8):
    assert os.wait()[1] == 0
"""


@pytest.mark.parametrize(("share", "at_most"), [("1", 1), ("4", 4)])
def test_eight_jobs_on_one_gpu_take_turns(tmp_path, share, at_most):
    """What Snakemake starts under --cores 8 without limits on resources; the GPU is a fake, the slots are not."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "LTPA_GPU_SHARE": share}
    subprocess.run([sys.executable, "-c", GPU_JOB, str(tmp_path / "log")], env=environment, check=True, timeout=120)
    running = most = 0
    for line in (tmp_path / "log").read_text().split():
        running += 1 if line == "start" else -1
        most = max(most, running)
    assert running == 0 and most <= at_most


def test_nothing_to_hold_is_an_error(tmp_path):
    with pytest.raises(LtpaError, match="no slots"), hold_slot(tmp_path, []):
        pass
