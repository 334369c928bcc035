"""Members of archives, and the one place that decides what is written where.

Archives are read member by member in their own order; readers (`containers`, `rar`) write nothing themselves.
"""

import dataclasses
import fnmatch
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

from ltpa.archives.declare import Archive
from ltpa.core.errors import DataError
from ltpa.core.files import is_hidden

CHUNK = 1 << 18
_DRIVE = re.compile(r"^[A-Za-z]:")


class Readable(Protocol):
    """What a member's bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


@dataclasses.dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: as the archive spells it.
        open: opens the bytes of a regular file; None for a folder.
        refusal: why no archive with this entry is accepted ("is a symbolic link"); empty for files and folders.
    """

    name: str
    open: Callable[[], Readable] | None
    refusal: str = ""


Members = Generator[Member, None, None]
Taken = dict[str, tuple[str, bool]]  # path in folded letters -> its spelling, and whether it is a file


class Intake:
    """Writes the wanted members of one archive below `folder`, within the declared limits.

    `taken` holds the names that are in use there; archives extracted to the same folder share it.
    """

    def __init__(self, archive: Archive, source: Path, folder: Path, taken: Taken) -> None:
        self.archive, self.source, self.folder = archive, source, folder
        self.files = self.bytes = self.backslashes = 0
        self._taken = taken

    def admit(self, member: Member, prefix: str) -> str:
        """The member's path below the target: `prefix` and its cleaned name, backslashes read as slashes.

        Some programs on Windows write backslashes between folders; `backslashes` counts such members.

        Raises:
            DataError: the member is no regular file or folder, is encrypted, or its name is hostile.
        """
        refusal = member.refusal or _hostile_name(member.name)
        if refusal:
            raise self._refused(prefix + member.name, refusal)
        name = member.name.replace("\\", "/")
        self.backslashes += name != member.name
        return prefix + "/".join(part for part in name.split("/") if part not in ("", "."))

    def wants(self, name: str) -> bool:
        """Whether the allow-list has a pattern for `name`, and no part of it is hidden (`._a.jpg`, `__MACOSX`)."""
        if any(is_hidden(part) for part in name.split("/")):
            return False
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.archive.members or ())

    def nests(self, name: str) -> bool:
        """Whether `name` is declared as a nested archive."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.archive.nested or ())

    def write(self, name: str, stream: Readable) -> None:
        """Write one wanted member.

        Raises:
            DataError: the name was there already, in this or another letter case, or is not UTF-8; a limit is passed;
                the disk is full.
        """
        if any(unicodedata.category(letter) == "Cs" for letter in name):
            raise self._refused(name, "has a name that is not UTF-8")
        self._reserve(name)
        self.files += 1
        if self.files > (self.archive.limit_files or 1):
            raise self._refused(name, f"is one file more than the allowed {self.archive.limit_files}")
        self.bytes += self.copy(name, stream, self.folder / name, self.bytes)

    def copy(self, name: str, stream: Readable, target: Path, used: int = 0) -> int:
        """Copy a member's bytes to `target` and return their number; `used` counts towards `limit_bytes`."""
        written = 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as output:
                for block in self._blocks(name, stream, used):
                    written += output.write(block)
        except OSError as error:
            raise self._unwritable(name, error) from error
        return written

    def _blocks(self, name: str, stream: Readable, used: int) -> Iterator[bytes]:
        """The bytes of a member while they stay within `limit_bytes`, however many its header claims."""
        limit = self.archive.limit_bytes
        try:
            while block := stream.read(CHUNK):
                used += len(block)
                if limit is not None and used > limit:
                    raise self._refused(name, f"passes the allowed {limit:,} bytes")
                yield block
        except OSError as error:  # gzip reports damage so; not to be taken for a full disk
            raise EOFError(f"member {name!r}: {error}") from error

    def link(self, name: str) -> None:
        """Take the archive itself, a plain file, as `name`: linked where the disk allows it, else copied."""
        limit, size = self.archive.limit_bytes, self.source.stat().st_size
        if limit is not None and size > limit:
            raise self._refused(name, f"passes the allowed {limit:,} bytes")
        self._reserve(name)
        target = self.folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.source.resolve(), target)
            except OSError:  # another disk, or one without hard links
                shutil.copyfile(self.source, target)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _reserve(self, name: str) -> None:
        """Note a file and its folders; on disks that ignore letter case, two of them must not become one."""
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path, is_file = "/".join(parts[:depth]), depth == len(parts)
            folded = unicodedata.normalize("NFC", path).casefold()
            if folded not in self._taken:
                self._taken[folded] = (path, is_file)
                continue
            spelling, was_file = self._taken[folded]
            if spelling != path:
                raise self._refused(name, f"differs only in letter case from {spelling!r}")
            if is_file or was_file:
                raise self._refused(name, "stands there twice")

    def _refused(self, name: str, why: str) -> DataError:
        return DataError(
            f"{self.source}: member {name!r} {why}; nothing was extracted; get the archive anew, or correct its entry "
            "in config/datasets"
        )

    def _unwritable(self, name: str, error: OSError) -> DataError:
        return DataError(
            f"{self.folder}: cannot write {name!r} of {self.source.name} ({error.strerror}); the extraction takes up "
            f"to {self.archive.limit_bytes or self.source.stat().st_size:,} bytes; free space or choose another folder"
        )


def _hostile_name(name: str) -> str:
    """Why a member must not have this name; empty if it may."""
    if name.startswith(("/", "\\")):
        return "has an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "leads out of its folder"
    if _DRIVE.match(name):
        return "has a drive in its name"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return "has a control character in its name"
    return ""
