"""Members of a RAR file, through whichever tool is installed: bsdtar, 7-Zip or unrar.

The tools only list the archive and write members to a pipe; none of them writes a file. bsdtar turns the whole archive
into a tar stream. 7-Zip and unrar write the members one after the other, so their lists say where each one ends.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ltpa.archives.containers import tar_members
from ltpa.archives.members import CHUNK, Member, Members, Readable
from ltpa.archives.rar_headers import NO_CRC, rar_headers
from ltpa.core.errors import DataError

_REMEDY = "install bsdtar (package libarchive-tools), 7z or RARLAB's unrar"
_SEVEN_ZIP = ("7z", "7zz", "7za")


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A line of a tool's list. `crc` is `NO_CRC` where the archive has none."""

    name: str
    folder: bool
    size: int
    crc: int
    refusal: str


def rar_members(path: Path) -> Members:
    """Members of a RAR file; each must be read before the next one is asked for.

    Raises:
        DataError: no tool is installed, or the one that is cannot read the file.
    """
    if tool := shutil.which("bsdtar"):
        yield from _through_bsdtar(tool, path)
    elif tool := next(filter(None, map(shutil.which, _SEVEN_ZIP)), None):
        with _output([tool, "l", "-slt", "-ba", "-p-", "--", str(path)], path) as stream:
            entries = [_seven_zip_entry(fields) for fields in _blocks(_text(stream), " = ", "Path")]
        with _output([tool, "x", "-so", "-bd", "-p-", "--", str(path)], path) as stream:
            yield from _pieces(entries, stream)
    elif tool := shutil.which("unrar"):
        with _output([tool, "lt", "-p-", "--", str(path)], path) as stream:
            listed = _text(stream)
        if "unrar-free" in listed.partition("\n\n")[0]:
            raise DataError(f"{path}: {tool} is unrar-free, which does not tell sizes and types apart; {_REMEDY}")
        entries = [_unrar_entry(fields) for fields in _blocks(listed, ": ", "Name")]
        with _output([tool, "p", "-inul", "-p-", "--", str(path)], path) as stream:
            yield from _pieces(entries, stream)
    else:
        raise DataError(f"{path}: cannot be unpacked; {_REMEDY}")


def _through_bsdtar(tool: str, path: Path) -> Members:
    """Its tar stream, held against the archive's own headers: encryption first, then the CRC of each member."""
    crcs = {}
    for header in rar_headers(path):
        if header.encrypted:
            yield Member(header.name, None, "is encrypted")
        crcs[header.name] = header.crc
    with _output([tool, "-c", "-f", "-", "--format=pax", f"@{path}"], path) as stream:
        for member in tar_members(stream):
            if member.open is None or crcs.get(member.name, NO_CRC) == NO_CRC:
                yield member
            else:
                yield dataclasses.replace(member, open=functools.partial(_Checked, member, crcs[member.name]))


@contextlib.contextmanager
def _output(command: Sequence[str], path: Path) -> Iterator[IO[bytes]]:
    """Standard output of a tool, which must end well."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        assert process.stdout is not None
        try:
            yield process.stdout
            rest = process.stdout.read(1)
            process.stdout.close()
            failed = process.wait() != 0 or bool(rest)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if failed:
            errors.seek(0)
            said = " ".join(errors.read(400).decode(errors="replace").split()) or f"status {process.returncode}"
            raise DataError(f"{path}: {Path(command[0]).name} cannot read it ({said}); get the archive anew")


def _text(stream: IO[bytes]) -> str:
    return stream.read().decode("utf-8", errors="surrogateescape")


def _blocks(text: str, separator: str, first: str) -> Iterator[dict[str, str]]:
    """Fields of each entry of a list; an entry begins with the field `first`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.strip().partition(separator)
        if not found:
            continue
        if key == first and fields:
            yield fields
            fields = {}
        if key == first or fields:
            fields[key] = value
    if fields:
        yield fields


def _seven_zip_entry(fields: dict[str, str]) -> _Entry:
    links = any(fields.get(key) for key in ("Symbolic Link", "Hard Link", "Copy Link"))
    refusal = "is a link" if links or " l" in fields.get("Attributes", "") else ""
    return _Entry(
        name=fields["Path"],
        folder=fields.get("Folder") == "+" or fields.get("Attributes", "").startswith("D"),
        size=int(fields.get("Size") or 0),
        crc=int(fields["CRC"], 16) if fields.get("CRC") else NO_CRC,
        refusal="is encrypted" if fields.get("Encrypted") == "+" else refusal,
    )


def _unrar_entry(fields: dict[str, str]) -> _Entry:
    kind = fields.get("Type", "")
    refusal = "" if kind in ("File", "Directory") else f"is no regular file ({kind})"
    return _Entry(
        name=fields["Name"],
        folder=kind == "Directory",
        size=int(fields.get("Size") or 0),
        crc=int(fields["CRC32"], 16) if fields.get("CRC32") else NO_CRC,
        refusal="is encrypted" if "encrypted" in fields.get("Flags", "") else refusal,
    )


def _pieces(entries: Sequence[_Entry], stream: IO[bytes]) -> Members:
    for entry in entries:
        if entry.folder or entry.refusal:
            yield Member(entry.name, None, entry.refusal)
            continue
        piece = _Piece(entry, stream)
        yield Member(entry.name, functools.partial(_same, piece))
        while piece.read(CHUNK):
            pass


def _same(piece: Readable) -> Readable:
    return piece


class _Piece:
    """The bytes of one member out of the pipe; its CRC is checked at the end."""

    def __init__(self, entry: _Entry, stream: IO[bytes]) -> None:
        self._entry, self._stream = entry, stream
        self._left, self._crc = entry.size, 0

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(min(size, self._left))
        self._left -= len(block)
        self._crc = zlib.crc32(block, self._crc)
        if not block and (self._left or self._entry.crc not in (NO_CRC, self._crc)):
            raise EOFError(f"member {self._entry.name!r} is cut or damaged")
        return block


class _Checked:
    """The bytes of a member that hands them out unchecked; its CRC is checked at the end."""

    def __init__(self, member: Member, crc: int) -> None:
        assert member.open is not None
        self._name, self._stream, self._expected, self._crc = member.name, member.open(), crc, 0

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(size)
        self._crc = zlib.crc32(block, self._crc)
        if not block and self._crc != self._expected:
            raise EOFError(f"member {self._name!r} is damaged")
        return block
