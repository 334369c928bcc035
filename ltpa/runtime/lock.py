"""One process at a time: lock files that the kernel frees when their holder ends, however it ends (`flock`).

The `filelock` package is no substitute: it does not name the holder, it can fall back to locks that outlive their
process, and the queue for GPU slots has to lock a file before the file gets its name.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ltpa.core.errors import LtpaError
from ltpa.core.files import remove_drafts, write_errors

POLL_SECONDS = 0.2
_LOCK = "lock"


def try_lock(path: Path, create: bool = True) -> int | None:
    """Lock the file `path`: a descriptor that holds the lock until it is closed, or None where somebody else holds it.

    Raises:
        OSError: the file cannot be opened.
        LtpaError: its file system knows no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # the second: the holder removed the file after it was opened here
    except OSError as error:
        os.close(descriptor)
        raise LtpaError(f"{path}: cannot be locked ({error.strerror}); choose a folder on a local disk") from error
    os.close(descriptor)
    return None


@contextlib.contextmanager
def exclusive(
    path: Path, say: Callable[[str], None] = lambda holder: None, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock file `path` for the life of the block; while another process holds it, wait.

    The file contains its holder's process id, and is removed on release.

    Args:
        say: called once if there is a wait, with its holder (`another process (4711)`).
        check: called again and again while waiting. What either of the two raises ends the wait.

    Raises:
        LtpaError: the folder cannot be written, or its file system knows no locks.
    """
    said = False
    while (descriptor := _attempt(path)) is None:
        if not said:
            say(_holder(path))
        said = True
        check()
        time.sleep(POLL_SECONDS)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its owner's name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still held: whoever waits sees that it is gone and makes a new one
        os.close(descriptor)


@contextlib.contextmanager
def exclusive_folder(
    folder: Path, say: Callable[[str], None] = lambda holder: None, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """As `exclusive`, for a state folder: one process at a time trains there. Removes what killed processes left."""
    with exclusive(folder / _LOCK, say, check):
        remove_drafts(folder)
        yield


def in_use(folder: Path) -> bool:
    """Whether a process holds the lock of a state folder at this moment."""
    try:
        descriptor = try_lock(folder / _LOCK, create=False)
    except OSError:
        return False
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def _attempt(path: Path) -> int | None:
    with write_errors(path, "cannot write here"):
        path.parent.mkdir(parents=True, exist_ok=True)
        return try_lock(path)


def _holder(path: Path) -> str:
    try:
        text = path.read_bytes()[:32].decode("ascii", "replace").strip()
    except OSError:
        text = ""
    return f"another process ({text})" if text.isdigit() else "another process"
