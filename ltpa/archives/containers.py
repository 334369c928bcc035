"""Members of tar and zip files, with every check their formats need."""

import functools
import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from ltpa.archives.members import CHUNK, Member, Members, Readable

_BLOCK = 512  # bytes of a tar header
_LONGEST_READ = 1 << 20  # a header that asks for more is hostile: tarfile reads it into memory in one piece
_LONGEST_PADDING = 1 << 24


class _Forward(io.RawIOBase):
    """A stream for `tarfile` that never goes back and never reads much at once.

    tarfile takes negative and huge sizes from headers at their word. `last` is the latest piece read.
    """

    def __init__(self, stream: Readable) -> None:
        super().__init__()
        self._stream, self._position = stream, 0
        self.last = b""

    def read(self, size: int = -1, /) -> bytes:
        """Exactly `size` bytes, less only at the end."""
        if not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header asks for {size} bytes at once")
        pieces, missing = [], size
        while missing and (piece := self._stream.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        self.last = b"".join(pieces)
        self._position += len(self.last)
        return self.last

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Skip forward to `position`."""
        if whence or position < self._position:
            raise tarfile.ReadError(f"a header leads back to byte {position}")
        while self._position < position:
            if not self.read(min(CHUNK, position - self._position)):
                raise tarfile.ReadError("unexpected end of data")
        return self._position


def tar_members(stream: Readable) -> Members:
    """Members of an uncompressed tar stream; each must be read before the next one is asked for.

    Raises:
        tarfile.TarError: a header is damaged, or the stream ends without an end mark.
    """
    forward = _Forward(stream)
    with tarfile.open(fileobj=forward, mode="r:") as archive:
        while (info := archive.next()) is not None:
            opener = functools.partial(_tar_file, archive, info) if info.isreg() else None
            yield Member(info.name, opener, _tar_refusal(info))
    if forward.last != bytes(_BLOCK):
        raise tarfile.ReadError("a header is damaged, or the end is missing")
    padding = 0
    while block := stream.read(CHUNK):  # to the end, where gzip has its checksum
        padding += len(block)
        if padding > _LONGEST_PADDING:
            raise tarfile.ReadError("goes on after its end mark")


def targz_members(path: Path) -> Members:
    """Members of a gzip-compressed tar file."""
    with gzip.open(path, "rb") as stream:
        yield from tar_members(stream)


def plain_tar_members(path: Path) -> Members:
    """Members of a tar file."""
    with open(path, "rb") as stream:
        yield from tar_members(stream)


def zip_members(path: Path) -> Members:
    """Members of a zip file; zipfile checks the CRC of each at its end."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            folder = info.is_dir() or info.orig_filename.endswith("\\")  # as programs on Windows may write it
            opener = None if folder else functools.partial(archive.open, info)
            yield Member(info.orig_filename, opener, _zip_refusal(info))


def _tar_file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info)
    if stream is None:
        raise tarfile.ReadError(f"{info.name} is no regular file")
    return stream


def _tar_refusal(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return f"is a link to {info.linkname!r}"
    if not (info.isreg() or info.isdir()):
        return "is a device, pipe or other special file"
    if info.size < 0:
        return "has a negative size"
    return "is a sparse file" if info.issparse() else ""


def _zip_refusal(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x1:
        return "is encrypted"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a device, pipe or other special file"
