"""Writing files so that a reader never sees half of one: temporary name, fsync, rename, fsync of the folder."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ltpa.core.errors import DiskFullError, LtpaError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_there(path: Path) -> bool:
    """Whether this user can see something there; in a folder closed to them nothing is, where `Path.exists` raises."""
    try:
        path.stat()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def atomic_path(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place.

    On any error the temporary file is removed and an existing `path` keeps its bytes.

    Args:
        needed: the file's size in bytes where it is known beforehand, for the message when the disk is full.

    Raises:
        DiskFullError: the file does not fit; the message names the path, and how many bytes it takes.
        LtpaError: the folder cannot be written; the message names the path.
    """
    path = Path(path)
    with _write_errors(path, "cannot write here", needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _write_errors(path, "cannot write", needed):
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _write_errors(path: Path, what: str, needed: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise LtpaError(f"{path}: {what} ({error.strerror}); free space or choose another folder") from error
        size = "" if needed is None else f"{needed} bytes are needed and "
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.is_dir())).free
        raise DiskFullError(
            f"{path}: {what} ({error.strerror}); free space and run the same command again: {size}{free} are free, "
            "and nothing that was there is lost"
        ) from error


def remove_drafts(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`. For who holds the folder alone."""
    for path in folder.glob(".*.tmp*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a file renamed in it keeps its name through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` by way of a temporary name."""
    with atomic_path(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 by way of a temporary name."""
    write_bytes(path, text.encode())
