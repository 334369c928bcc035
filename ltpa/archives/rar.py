"""Members of a RAR file, read by `rarfile`: headers and stored members by itself, compressed ones through a tool.

The tool (unrar, unar or 7-Zip) writes one member to a pipe, and no file; `rarfile` checks its size and CRC. bsdtar is
left out: `rarfile` 4.5 calls it in a way that it does not understand (`-f --`).
"""

import functools
import stat
from pathlib import Path

import rarfile

from ltpa.archives.members import Member, Members
from ltpa.core.errors import DataError

_REMEDY = "install unar, 7z or RARLAB's unrar (unrar-free does not do)"
_SPLIT = rarfile.RAR_FILE_SPLIT_BEFORE | rarfile.RAR_FILE_SPLIT_AFTER


def rar_members(path: Path) -> Members:
    """Members of a RAR file of version 3 to 5; each must be read before the next one is asked for.

    Raises:
        DataError: members are compressed, and no tool that could read them is installed.
        EOFError: the file is damaged, or no RAR file.
    """
    blocks: list[rarfile.RarInfo] = []
    try:
        archive = rarfile.RarFile(path, info_callback=blocks.append, errors="strict", part_only=True)
        if any(info.compress_type != rarfile.RAR_M0 for info in archive.infolist()):
            rarfile.tool_setup(bsdtar=False, force=True)
    except rarfile.RarCannotExec as error:
        raise DataError(f"{path}: cannot be unpacked; {_REMEDY}") from error
    except Exception as error:  # damaged headers can fail in any way
        raise EOFError(" ".join(str(error).split())) from error
    if archive.needs_password() and not archive.infolist():
        yield Member("(all names)", None, "is encrypted")
    for info in archive.infolist():
        opener = None if info.is_dir() else functools.partial(_Stream, archive, info)
        yield Member(info.filename, opener, _refusal(info))
    for end in blocks[-1:]:  # some damage looks like an end to rarfile
        if end.type != rarfile.RAR_BLOCK_ENDARC and end.data_offset + end.add_size < path.stat().st_size:
            raise EOFError("a header is damaged")


def _refusal(info: rarfile.RarInfo) -> str:
    if info.needs_password():
        return "is encrypted"
    if info.is_symlink() or info.file_redir:
        return "is a link"
    if info.flags & _SPLIT:
        return "goes on in another volume"
    kind = stat.S_IFMT(info.mode) if info.host_os == rarfile.RAR_OS_UNIX else 0
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a device, pipe or other special file"


class _Stream:
    """The bytes of one member, with errors of the kind that other archives raise."""

    def __init__(self, archive: rarfile.RarFile, info: rarfile.RarInfo) -> None:
        self._archive, self._info = archive, info
        self._stream: rarfile.RarExtFile | None = None

    def read(self, size: int, /) -> bytes:
        try:
            self._stream = self._stream or self._archive.open(self._info)
            return self._stream.read(size)
        except rarfile.Error as error:
            raise EOFError(f"{error}; another tool may read it: {_REMEDY}") from error
