"""Writing files so that a reader never sees half of one: temporary name, fsync, rename, fsync of the folder."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ltpa.core.errors import DiskFullError, LtpaError

FULL = (errno.ENOSPC, errno.EDQUOT)
_HIDDEN = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # in small letters; left behind by Windows and macOS
LITTLE = 1 << 16  # bytes; no disk that is not full has so little


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name (no path) is an operating system's or editor's own, and nobody's data."""
    return name.startswith(".") or name.lower() in _HIDDEN


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
        DiskFullError: the file does not fit; the message names the path, and how many bytes it takes, at least.
        LtpaError: the folder cannot be written; the message names the path.
    """
    path = Path(path)
    with write_errors(path, "cannot write here", needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with write_errors(path, "cannot write", needed, temporary):
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
def write_errors(
    path: Path, what: str = "cannot write", needed: int | None = None, draft: Path | None = None
) -> Iterator[None]:
    """Turn what goes wrong with a disk within the block into one line that begins with `path`.

    Args:
        needed: bytes that the file takes, where that is known beforehand.
        draft: the file being written; where `needed` is not known its size says what is needed at least.

    Raises:
        DiskFullError: the disk is full; the message says how many bytes are needed, and how many are free.
        LtpaError: anything else of `OSError`.
    """
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
        # NumPy says only that fewer bytes were written than it wished to.
        if error.errno not in FULL and (error.errno is not None or free >= max(needed or 0, LITTLE)):
            reason = error.strerror or error
            raise LtpaError(f"{path}: {what} ({reason}); free space or choose another folder") from error
        size = "" if needed is None else f"{needed} bytes are needed and "
        if needed is None and draft is not None:
            least = draft.stat().st_size if draft.is_file() else free  # a library may have removed it
            size = f"more than {least} bytes are needed and "
        raise DiskFullError(
            f"{path}: {what} ({os.strerror(error.errno or errno.ENOSPC)}); free space and run the same command "
            f"again: {size}{free} are free, and nothing that was there is lost"
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
