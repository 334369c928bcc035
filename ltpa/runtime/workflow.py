"""What Snakemake's own process does when it is asked to end, and what it says about the lock of one that was killed."""

import atexit
import contextlib
import fcntl
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from ltpa.runtime.stopping import INTERRUPTED, REQUEUE, drop_lost_terminal, importing, tell

_FOLDER = Path(".snakemake")
_RUNNING = "ltpa-running.lock"  # held, shared, by every Snakemake of this folder that is alive


def guard(workflow: Any) -> None:
    """Make the process of a Snakefile heed signals from here on, and name a stale lock. Call it before slow imports.

    Before jobs are scheduled Ctrl-C, SIGTERM and SIGHUP end Snakemake without a traceback, its folder unlocked. After
    that they do what Snakemake does: Ctrl-C ends the jobs, SIGTERM starts no further ones; SIGHUP (a terminal that is
    gone) counts as SIGTERM, unless `nohup` has it ignored. A scheduler sends SIGUSR1 to all processes of a job
    when its time is nearly over: a training saves its state and stops, the Snakemake around it must not die of it.
    """

    def heed(number: int, frame: FrameType | None) -> None:
        drop_lost_terminal()
        if workflow.scheduler is None:
            tell(f"{signal.Signals(number).name}: stopped before any job was started")
            code = INTERRUPTED if number == signal.SIGINT else REQUEUE
            if importing(frame) and not _locked():
                os._exit(code)  # an exception that meets an import may be dropped there
            raise SystemExit(code)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGTERM)  # by now Snakemake has a handler of its own

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, heed)
    if workflow.is_main_process:
        _watch_lock()


def _watch_lock() -> None:
    """Say at the end that the folder is locked by a process that is gone, if it is so now and still is then."""
    with contextlib.suppress(OSError):  # a folder that cannot be written: Snakemake says so itself
        _FOLDER.mkdir(exist_ok=True)
        descriptor = os.open(_FOLDER / _RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _locked():
                atexit.register(_name_stale_lock)
        except BlockingIOError:
            pass  # another Snakemake runs here, and the locks may be its own
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def _locked() -> bool:
    return any((_FOLDER / "locks").glob("*.lock"))


def _name_stale_lock() -> None:
    if _locked():
        locks = _FOLDER / "locks"
        tell(f"{locks}: left by a Snakemake that is gone; `snakemake --unlock`, then the same command goes on")
