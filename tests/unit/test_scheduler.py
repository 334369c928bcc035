"""Which jobs go back to SLURM's queue by themselves; tests/cluster preempts real ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ltpa
from ltpa.runtime.scheduler import requeue_if_preempted

TERMINATED = "os.kill(os.getpid(), signal.SIGTERM); "
PREEMPTED = "JobId=7 JobState=RUNNING Reason=None Requeue=1 PreemptTime=2026-01-01T00:00:00 Comment=PreemptTime=None"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stand-in for scontrol was asked; it prints the file `shown` beside it."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n[ "$1" != show ] || cat {tmp_path}/shown\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "shown").write_text(PREEMPTED)
    return tmp_path / "calls"


def test_a_preempted_job_goes_back_to_the_queue(calls: Path):
    assert requeue_if_preempted()
    assert calls.read_text().splitlines() == ["show job --oneliner 7", "requeue 7"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PreemptTime=2026-01-01T00:00:00", "PreemptTime=None"),
        ("JobState=RUNNING", "JobState=CANCELLED"),
        ("JobState=RUNNING", "JobState=PENDING"),
        ("Requeue=1", "Requeue=0"),
        (PREEMPTED, ""),
    ],
)
def test_no_other_job_does(calls: Path, old: str, new: str):
    (calls.parent / "shown").write_text(PREEMPTED.replace(old, new, 1))
    assert not requeue_if_preempted()
    assert "requeue" not in calls.read_text()


def test_outside_slurm_nothing_is_asked(calls: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not requeue_if_preempted()
    assert not calls.exists()


def test_without_an_answer_the_job_ends_as_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not requeue_if_preempted()


@pytest.mark.parametrize("stop", ["raise Stopped('cut')", TERMINATED + "time.sleep(60)", "import loads"])
def test_a_stopped_command_asks_for_it_and_keeps_its_exit_code(calls: Path, stop: str):
    script = (
        "import os, signal, sys, time; from ltpa import __main__; from ltpa.cli import views\n"
        "from ltpa.runtime.stopping import Stopped\n"
        f"def stop(options): {stop}\n"
        "views._status = stop; sys.exit(__main__.run(['status']))"
    )
    (calls.parent / "loads.py").write_text(f"import os, signal, time\n{TERMINATED}time.sleep(60)\n")
    path = {**os.environ, "PYTHONPATH": f"{calls.parent}{os.pathsep}{Path(ltpa.__file__).parents[1]}"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=path)
    assert done.returncode == 75, done.stderr
    assert "SLURM starts the job again" in done.stderr
    assert "requeue 7" in calls.read_text()
