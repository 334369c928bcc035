"""The lock of a state folder: one process at a time trains there."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ltpa.core.errors import LtpaError
from ltpa.core.files import remove_drafts, write_errors

_LOCK = "lock"
POLL_SECONDS = 0.2


@contextlib.contextmanager
def exclusive(folder: Path, waiting: Callable[[int], None] = lambda holder: None) -> Iterator[None]:
    """Hold the folder's lock for the life of the block; while another process holds it, wait.

    The kernel frees the lock when its holder ends, however it ends.

    Args:
        waiting: called again and again while waiting, with the holder's process id (0 where it is not known); what it
            raises ends the wait.

    Raises:
        LtpaError: the folder cannot be written, or its file system knows no locks.
    """
    descriptor = _open_lock(folder)
    try:
        while not (_try_lock(folder, descriptor) and _is_the_lock(folder, descriptor)):
            waiting(_holder(descriptor))
            time.sleep(POLL_SECONDS)
            os.close(descriptor)
            descriptor = _open_lock(folder)
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its owner's name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        remove_drafts(folder)
        yield
    finally:
        os.close(descriptor)


def _open_lock(folder: Path) -> int:
    with write_errors(folder / _LOCK, "cannot write here"):
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _is_the_lock(folder: Path, descriptor: int) -> bool:
    """Whether the locked file is still the folder's: who removes a state folder removes its lock while holding it."""
    try:
        return os.path.samestat(os.fstat(descriptor), (folder / _LOCK).stat())
    except FileNotFoundError:
        return False


def in_use(folder: Path) -> bool:
    """Whether a process holds the folder's lock at this moment."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(folder, descriptor)
    finally:
        os.close(descriptor)


def _try_lock(folder: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise LtpaError(f"{folder}: cannot be locked ({error.strerror}); choose a folder on a local disk") from error
    return True


def _holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
