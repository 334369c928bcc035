"""One process at a time: an advisory lock on a file that is gone afterwards."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ltpa.core.errors import LtpaError


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`; other processes wait here until it is released, also by the death of the holder.

    `waiting` is called once if another process holds it. The lock file is removed on release.

    Raises:
        LtpaError: the folder cannot be written, or its file system knows no locks.
    """
    handle = _acquire(path, waiting)
    try:
        yield
    finally:
        # Removed while still held: whoever waits on this file sees that it is gone and opens the next one.
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, waiting: Callable[[], None] | None) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LtpaError(f"{path}: cannot write here ({error.strerror}); choose another folder") from error
        try:
            waiting = _lock(handle, waiting)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass  # removed between the two looks: try again
        except OSError as error:
            os.close(handle)
            raise LtpaError(f"{path}: cannot be locked ({error.strerror}); choose a folder on a local disk") from error
        os.close(handle)


def _lock(handle: int, waiting: Callable[[], None] | None) -> Callable[[], None] | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            waiting()
            waiting = None
        fcntl.flock(handle, fcntl.LOCK_EX)
    return waiting
