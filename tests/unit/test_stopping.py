"""Requests to stop, and what a training does when memory runs out; what it writes for those who follow it."""

import json
import math
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training import SmallNet, arrays, recipe, trainer

import ltpa
from ltpa.core.errors import MemoryFullError
from ltpa.runtime import checkpoint
from ltpa.runtime.lock import exclusive_folder, in_use
from ltpa.runtime.progress import Progress
from ltpa.runtime.slots import hold_slot
from ltpa.runtime.stopping import Stopped, StopRequest, stop_requests
from ltpa.training.engine import Trainer
from ltpa.training.journal import LOG, METRICS, PROGRESS, Journal
from ltpa.training.loop import Diverged, EpochRow, Interrupted, Watch

STUCK = """
import signal, sys, time
from ltpa.runtime.stopping import stop_requests
with stop_requests(grace=0.3 if sys.argv[1] == "stuck" else 20) as stop:
    print("ready", flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (stop() and sys.argv[1] == "heeds"):
        time.sleep(0.01 if sys.argv[1] == "heeds" else 60)
sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("behaviour", ["heeds", "stuck"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_a_process_leaves_in_time_whatever_it_does(behaviour, number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, behaviour], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else 75)
    assert ("leaving with what was last saved" in errors) == (behaviour == "stuck")


HANGS_UP = """
import sys, time
from pathlib import Path
from ltpa.runtime.stopping import leaving_on_request, stop_requests
with leaving_on_request(), stop_requests() as stop:
    print("ready", flush=True)
    while not stop():
        time.sleep(0.01)
    print("says something to a terminal that is gone", flush=True)
    print("and here", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text(stop.reason)
sys.exit(stop.exit_code)
"""


def test_a_terminal_that_is_gone_is_a_request_like_any_other(tmp_path):
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", HANGS_UP, str(tmp_path / "saved")])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_nohup_is_respected():
    code = "import signal\nfrom ltpa.runtime.stopping import *\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += "with leaving_on_request(), stop_requests() as stop:\n    signal.raise_signal(signal.SIGHUP)\nexit(stop())"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_command_that_is_asked_while_it_imports_leaves_without_an_exception(tmp_path):
    """Libraries in C++ abort the process when an exception meets them as they load; so does this module."""
    (tmp_path / "loads.py").write_text(
        "import os, time\nprint('loading', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    os.abort()\n"
    )
    code = "from ltpa.runtime.stopping import leaving_on_request\nwith leaving_on_request():\n    import loads"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    path = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(ltpa.__file__).parents[1]}"}
    with subprocess.Popen([sys.executable, "-c", code], text=True, env=path, **pipes) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert errors == "ltpa: SIGTERM: stopped; the same command starts again\n"


def test_signals_are_as_before_outside_of_the_block():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with stop_requests() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGUSR1)
        assert stop() and stop.reason == "SIGUSR1"
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


def test_a_time_limit_asks_to_be_requeued():
    stop = StopRequest(max_seconds=0)
    time.sleep(0.001)
    with pytest.raises(Stopped, match=r"work: stopped \(time limit\)") as caught:
        stop.check("work")
    assert caught.value.exit_code == 75


def test_whoever_waits_for_a_slot_or_a_state_heeds_a_request(tmp_path):
    stop = StopRequest(max_seconds=0.05)
    second = hold_slot(tmp_path / "slots", ["0"], check=lambda: stop.check("waiting"))
    with hold_slot(tmp_path / "slots", ["0"]), pytest.raises(Stopped), second:
        pass
    holders = []

    with exclusive_folder(tmp_path / "state"), pytest.raises(Stopped):
        assert in_use(tmp_path / "state")
        with exclusive_folder(tmp_path / "state", holders.append, lambda: stop.check("waiting")):
            pass
    assert holders == [f"another process ({os.getpid()})"] and not in_use(tmp_path / "state")


def test_a_request_during_evaluation_saves_and_resumes_to_the_same_bits(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.run()
    asked = []
    cut = trainer(tmp_path / "cut")
    cut.watch = Watch(lambda: bool(asked.append(cut.step) or (cut.step == 4 and cut.epoch == 2 and asked[-2] == 4)))
    with pytest.raises(Interrupted):
        cut.run()
    assert checkpoint.load_newest(tmp_path / "cut", "")["step"] == 4 == cut.steps_per_epoch
    resumed = trainer(tmp_path / "cut")
    resumed.run()
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


class Hungry(SmallNet):
    """Runs out of memory above `limit` images."""

    image_size = 8

    def __init__(self, limit, error):
        super().__init__()
        self.limit, self.error = limit, error

    def loss_and_logits(self, x, targets):
        if len(x) > self.limit:
            raise self.error
        return super().loss_and_logits(x, targets)


GPU_IS_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")
MACHINE_IS_FULL = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize(
    ("limit", "error", "advice"),
    [
        (9, GPU_IS_FULL, "a batch of 8 would fit: set batch_size"),
        (2, MACHINE_IS_FULL, "a batch of 2 would fit"),
        (1, GPU_IS_FULL, "not even two images fit"),
    ],
)
def test_out_of_memory_is_one_line_with_a_batch_that_fits(tmp_path, limit, error, advice):
    with pytest.raises(MemoryFullError, match=advice) as caught:
        Trainer(Hungry(limit, error), arrays(), arrays(30, 1), recipe(), 0, tmp_path, name="a run").run()
    assert "a run: batches of 16 do not fit into memory (" in str(caught.value)
    assert "\n" not in str(caught.value)


class Halved(Hungry):
    """What fits depends on the number format: twice as much in bfloat16."""

    def loss_and_logits(self, x, targets):
        self.limit = 8 if torch.is_autocast_enabled("cpu") else 4
        return super().loss_and_logits(x, targets)


@pytest.mark.parametrize(("precision", "fits"), [("fp32", 4), ("bf16", 8)])
def test_what_fits_is_tried_as_the_recipe_has_it(tmp_path, precision, fits):
    model = Halved(0, torch.OutOfMemoryError("CUDA out of memory."))
    t = Trainer(model, arrays(), arrays(30, 1), recipe(precision=precision), 0, tmp_path)
    with pytest.raises(MemoryFullError, match=f"a batch of {fits} would fit"):
        t.run()
    assert all(velocity is not None for velocity in t.stepper.optimizers[0].velocities), "they take memory, too"


def test_velocities_that_do_not_fit_beside_a_batch_count(tmp_path, monkeypatch):
    t = trainer(tmp_path)
    update = t.stepper.update.step

    def step(rate):
        if len(t.stepper._chosen) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        update(rate)

    monkeypatch.setattr(t.stepper.update, "step", step)
    with pytest.raises(MemoryFullError, match="a batch of 4 would fit"):
        t.run()


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path):
    with pytest.raises(RuntimeError, match="something else"):
        Trainer(Hungry(0, RuntimeError("something else")), arrays(), arrays(), recipe(), 0, tmp_path).run()


def test_a_diverged_run_keeps_its_last_good_state(tmp_path):
    t = trainer(tmp_path, checkpoint_epochs=1)

    def spoil(row):
        if row.epoch == 2:
            t.stepper.train.images.fill_(math.nan)

    t.watch = Watch(on_epoch=spoil)
    with pytest.raises(Diverged, match=r"not finite in epoch 3 at learning rate 0\.025"):
        t.run()
    assert checkpoint.load_newest(tmp_path, "")["epoch"] == 3


def test_states_are_saved_by_epochs_and_by_seconds(tmp_path):
    for name, changes, states in (
        ("never", {}, 0),
        ("epochs", {"checkpoint_epochs": 2, "epochs": 5}, 2),
        ("seconds", {"checkpoint_seconds": 0.0}, 12),
    ):
        saved = []
        t = trainer(tmp_path / name, **changes)
        save = t._save
        t._save = lambda saved=saved, save=save: (saved.append(1), save())[1]
        t.run()
        assert len(saved) >= states and (states > 0 or not saved), name


def row(epoch, seconds=2.0):
    return EpochRow(epoch, 0.1, 1.5, 50.0, math.nan, seconds)


def test_followers_see_each_epoch_once_and_resuming_cuts_back(tmp_path):
    with Journal(tmp_path, 100) as journal:
        journal.start([])
        for epoch in (1, 2, 3):
            journal.epoch(row(epoch))
        journal.progress(Progress(3, 5, 1, 4, 0.5, 10.0, 50.0, math.nan))
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[0]["images_per_second"] == 50 and lines[0]["test_error_pct"] is None
    assert json.loads((tmp_path / PROGRESS).read_text())["seconds_left"] is None
    with Journal(tmp_path, 100) as journal:
        journal.start([row(1)])
        journal.epoch(row(2))
    assert [json.loads(line)["epoch"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2]
    log = (tmp_path / LOG).read_text()
    assert log.count("started") == 1 and log.count("resumed after epoch 1") == 1 and log.count("epoch 2: ") == 2


def test_a_disk_that_takes_no_lines_does_not_stop_a_training(tmp_path):
    (tmp_path / METRICS).mkdir()
    with Journal(tmp_path, 100) as journal:
        journal.start([])
        journal.epoch(row(1))
        (tmp_path / METRICS).rmdir()
        journal.epoch(row(2))
    assert [json.loads(line)["epoch"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2]
