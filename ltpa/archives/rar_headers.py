"""The file headers of a RAR archive, versions 4 and 5: what bsdtar does not say, or does not hold against the data.

bsdtar hands out encrypted members of version 4 as they are stored, and checks no CRC of members without compression.
"""

import dataclasses
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

NO_CRC = -1
_VERSION_4, _VERSION_5 = b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00"
_ARCHIVE, _FILE = 0x73, 0x74  # block kinds of version 4
_FILE_5 = 2
_LONGEST = 2 << 20  # bytes of a header; the format allows no more in version 5


@dataclasses.dataclass(frozen=True)
class Header:
    """One member. `crc` is that of its bytes, `NO_CRC` where none is stored or the member spans volumes."""

    name: str
    crc: int
    encrypted: bool = False


def rar_headers(path: Path) -> Iterator[Header]:
    """Headers up to the first that is damaged; none where the file is no RAR archive."""
    with open(path, "rb") as stream:
        mark = stream.read(len(_VERSION_4))
        if mark == _VERSION_4:
            yield from _version_4(stream)
        elif mark + stream.read(1) == _VERSION_5:
            yield from _version_5(stream)


def _version_4(stream: IO[bytes]) -> Iterator[Header]:
    while len(head := stream.read(7)) == 7:
        _, kind, flags, length = struct.unpack("<HBHH", head)
        body = stream.read(max(0, length - 7))
        if kind == _ARCHIVE and flags & 0x80:
            yield Header("(all names)", NO_CRC, encrypted=True)
        if kind == _FILE and len(body) >= 25:
            packed, _, _, crc = struct.unpack_from("<IIBI", body)
            wide = 8 if flags & 0x100 else 0  # two more size fields, of files above 4 GiB
            name = body[25 + wide :].partition(b"\0")[0].decode(errors="replace").replace("\\", "/")
            yield Header(name, NO_CRC if flags & 0x3 else crc, bool(flags & 0x4))
            high = int.from_bytes(body[25:29], "little") if wide else 0
            _skip(stream, packed + (high << 32))
        elif flags & 0x8000 and len(body) >= 4:
            _skip(stream, int.from_bytes(body[:4], "little"))


def _version_5(stream: IO[bytes]) -> Iterator[Header]:
    while len(stream.read(4)) == 4:  # the header's own CRC
        try:
            length = _number(stream)
            if length > _LONGEST:
                return
            header = io.BytesIO(stream.read(length))
            kind, flags = _number(header), _number(header)
            if flags & 0x1:
                _number(header)  # size of the extra area
            data = _number(header) if flags & 0x2 else 0
            if kind == _FILE_5:
                yield _file_5(header, whole=not flags & 0x18)
        except EOFError:
            return
        _skip(stream, data)


def _file_5(header: IO[bytes], whole: bool) -> Header:
    flags, _, _ = _number(header), _number(header), _number(header)  # then size and attributes
    if flags & 0x2:
        header.read(4)  # modification time
    crc = int.from_bytes(header.read(4), "little") if flags & 0x4 else NO_CRC
    _number(header), _number(header)  # compression, system
    name = header.read(_number(header)).decode(errors="replace")
    return Header(name, crc if whole else NO_CRC)


def _skip(stream: IO[bytes], count: int) -> None:
    """Go on `count` bytes, at most to the end: a damaged count may be more than a file can be long."""
    here = stream.tell()
    stream.seek(min(here + count, stream.seek(0, os.SEEK_END)))


def _number(stream: IO[bytes]) -> int:
    """Seven bits a byte, lowest first; the eighth says that more follow."""
    value = 0
    for shift in range(0, 63, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise EOFError("no number")
