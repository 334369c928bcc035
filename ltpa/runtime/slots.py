"""Slots: a fixed number of places that processes of one machine take in turn, for example one training per GPU.

Each GPU is cut into `UNITS` equal units, each a file that its holder keeps locked; a process that takes the whole GPU
locks all of them, one that takes a quarter locks a quarter. So processes of different shares never take more than there
is. The kernel frees the locks when the process ends, however it ends.

Processes queue, with a locked ticket for each GPU that would do; only the first in a queue may take units of that GPU.
So a process that needs all of it is not overtaken by ever new ones that need a part.
"""

import contextlib
import fcntl
import glob
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ltpa.core.errors import LtpaError
from ltpa.runtime.lock import POLL_SECONDS, try_lock

UNITS = 8
SHARES = (1, 2, 4, 8)


def slot_folder() -> Path:
    """Folder of the current user's slot files; the same for every run on this machine, so that runs share the GPUs."""
    return Path(tempfile.gettempdir()) / f"ltpa-slots-{os.getuid()}"


@contextlib.contextmanager
def hold_slot(
    folder: Path,
    names: Sequence[str],
    share: int = 1,
    say: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Wait for a free slot, hold it for the life of the block, and yield the name it belongs to.

    Args:
        folder: where the lock files lie; processes that share slots name the same one.
        names: what is shared out, for example GPU names; each has `share` slots.
        share: one of `SHARES`; how many processes of this kind fit on one of `names` at a time.
        say: called once if there is a wait.
        check: called again and again while waiting. What either of the two raises ends the wait.

    Raises:
        LtpaError: there is nothing to share out, or the folder cannot be written.
    """
    if not names or share not in SHARES:
        raise LtpaError(f"{folder}: no slots to wait for ({len(names)} names, {share} slots each, of {SHARES})")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptors, name = _wait(folder, names, share, say, check)
    except OSError as error:
        raise LtpaError(f"{folder}: cannot keep slot files here ({error.strerror}); set TMPDIR elsewhere") from error
    try:
        yield name
    finally:
        _release(descriptors)


def _wait(
    folder: Path, names: Sequence[str], share: int, say: Callable[[], None], check: Callable[[], None]
) -> tuple[list[int], str]:
    """Descriptors of the first slot's units that could all be locked, and the slot's name; all are tried in turn."""
    size, said = UNITS // share, False
    with contextlib.ExitStack() as queues:
        tickets = {name: queues.enter_context(_ticket(folder, name)) for name in names}
        while True:
            first_in = [name for name in names if _is_first(folder, name, tickets[name])]
            for first in range(0, UNITS, size):
                for name in first_in:
                    held = _take(folder, name, range(first, first + size))
                    if held:
                        return held, name
            if not said:
                say()
            said = True
            check()
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _ticket(folder: Path, name: str) -> Iterator[Path]:
    """A place at the end of the queue for `name`: a file, locked as long as its owner stands there.

    It is locked before it gets its name, so that nobody takes it for one whose owner is gone. Names sort by time since
    the machine started, which is the same clock for all its processes.
    """
    handle, draft = tempfile.mkstemp(prefix=".ticket-", dir=folder)
    path = Path(draft)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        stamp = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        path = path.rename(folder / f"{_plain(name)}.ticket-{stamp:020d}-{os.getpid()}")
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_first(folder: Path, name: str, ticket: Path) -> bool:
    """Whether no living process stands before the owner of `ticket`; tickets that the dead left are removed."""
    earlier = sorted(path for path in folder.glob(f"{glob.escape(_plain(name))}.ticket-*") if path.name < ticket.name)
    for path in earlier:
        try:
            descriptor = try_lock(path, create=False)
        except FileNotFoundError:
            continue
        if descriptor is None:
            return False
        path.unlink(missing_ok=True)
        os.close(descriptor)
    return True


def _plain(name: str) -> str:
    return name.replace("/", "_")


def _take(folder: Path, name: str, units: range) -> list[int]:
    """Descriptors of the units' locked files; none where another process holds one of them."""
    held: list[int] = []
    for unit in units:
        descriptor = try_lock(folder / f"{_plain(name)}-{unit}.lock")
        if descriptor is None:
            _release(held)
            return []
        held.append(descriptor)
    return held


def _release(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
