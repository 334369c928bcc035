"""Is this the declared archive? Size, checksum, first bytes; and trust on first use where no SHA-256 is published.

The lock file holds the SHA-256 that an archive had when it was first seen here. A different one is refused later.
"""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from ltpa.archives.declare import Archive
from ltpa.core.errors import DataError
from ltpa.core.files import write_text
from ltpa.runtime.lock import exclusive

LOCK_FILE = "archives.lock.json"
_FORMAT = 1
_CHUNK = 1 << 20
_SIGNATURES = {"tar.gz": b"\x1f\x8b", "zip": b"PK", "rar": b"Rar!\x1a\x07"}


class Mismatch(DataError):
    """A file is not the archive whose name it bears."""


class Trust:
    """The lock file `path` of SHA-256 digests by archive name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self, name: str) -> str | None:
        """SHA-256 recorded for an archive; None if it was never seen.

        Raises:
            DataError: the lock file cannot be read.
        """
        return self._entries().get(name)

    def record(self, name: str, sha256: str) -> None:
        """Remember an archive's digest; other entries, also of concurrent processes, stay."""
        with exclusive(self.path.with_name(f".{self.path.name}.lock")):
            entries = {**self._entries(), name: sha256}
            content = {"format": _FORMAT, "sha256": dict(sorted(entries.items()))}
            write_text(self.path, json.dumps(content, indent=1) + "\n")

    def _entries(self) -> dict[str, str]:
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}")
            return dict(content["sha256"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}: not a lock file of archive digests ({error!r}); restore it, or delete it to trust "
                "the archives anew"
            ) from error


def _looks_like_html(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:14].lower()
    return start.startswith((b"<!doctype html", b"<html"))


def verify(path: Path, archive: Archive, trust: Trust) -> None:
    """Check that `path` is the declared archive, and record its SHA-256 where none is declared.

    Raises:
        Mismatch: size, checksum, recorded digest or first bytes differ; the message says which.
        DataError: the lock file cannot be read.
    """
    unseen = check(path, archive, trust)
    if unseen is not None:
        trust.record(archive.name, unseen)


def check(path: Path, archive: Archive, trust: Trust) -> str | None:
    """As `verify`, but nothing is recorded: returns the SHA-256 where it is neither declared nor recorded yet."""
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise Mismatch(f"{path}: has {size:,} bytes, not the {archive.size:,} of {archive.name}")
    if size == 0:
        raise Mismatch(f"{path}: is empty, not {archive.name}")
    _check_head(path, archive)
    sha256, md5 = _digests(path, with_md5=archive.md5 is not None)
    for label, digest, expected in (("SHA-256", sha256, archive.sha256), ("MD5", md5, archive.md5)):
        if expected is not None and digest != expected:
            raise Mismatch(f"{path}: has {label} {digest}, not the {expected} of {archive.name}")
    if archive.sha256 is not None:
        return None
    known = trust.known(archive.name)
    if known is not None and known != sha256:
        raise Mismatch(
            f"{path}: has SHA-256 {sha256}, but {archive.name} had {known} when first seen; if its publisher changed "
            f"it and you trust that, delete its line in {trust.path}"
        )
    return sha256 if known is None else None


def _check_head(path: Path, archive: Archive) -> None:
    with open(path, "rb") as stream:
        head = stream.read(tarfile.BLOCKSIZE)
    if _looks_like_html(head):
        raise Mismatch(f"{path}: is a web page, not {archive.name}")
    if not archive.hashed and not _begins_like(head, archive.kind):
        raise Mismatch(f"{path}: does not begin like a {archive.kind} file, so it is not {archive.name}")


def _begins_like(head: bytes, kind: str) -> bool:
    if kind != "tar":
        return head.startswith(_SIGNATURES.get(kind, b""))
    try:  # old tar files have no signature, but every header has a checksum
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _digests(path: Path, with_md5: bool) -> tuple[str, str | None]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(_CHUNK):
            sha256.update(block)
            if with_md5:
                md5.update(block)
    return sha256.hexdigest(), md5.hexdigest() if with_md5 else None
