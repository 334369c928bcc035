"""Resumable state on disk: checked before use, never half-written, the previous one kept until the next is proven.

A state is `step-<n>.pt` and, beside it, its SHA-256 and the key of its run in `step-<n>.sha256`. Saving writes the file
under a temporary name, flushes and renames it, does the same with the digest, reads the file back and compares it with
the digest; only then does it remove what is older than the state before. Whenever a process dies, one whole state is
left.
"""

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ltpa.core.errors import DiskFullError, TrainingError
from ltpa.core.files import atomic_path, write_text
from ltpa.core.hashing import sha256_file

_LOG = logging.getLogger(__name__)
_KEY = "key"
_BLOCK = 1 << 20


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _states(folder: Path) -> list[Path]:
    """The states in `folder`, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def save(folder: Path, step: int, payload: dict[str, Any], key: str = "") -> Path:
    """Save tensors and plain values as the state after `step` of the run that `key` names; give its path.

    Of the other states the last intact one of this run is kept; the rest is removed once the new one has been read back
    from the disk. An intact state of the same step is left as it is.

    Raises:
        DiskFullError: the state does not fit; those before it are intact.
        TrainingError: what was read back differs from what was written; those before it are intact.
    """
    path = folder / f"step-{step:09d}.pt"
    if _belongs(path, key):
        return path
    stream = io.BytesIO()
    torch.save({**payload, _KEY: key}, stream)
    data = stream.getbuffer()
    digest = hashlib.sha256(data).hexdigest()
    with atomic_path(path, len(data)) as temporary, open(temporary, "wb") as file:
        for start in range(0, len(data), _BLOCK):
            file.write(data[start : start + _BLOCK])
    write_text(_digest_path(path), f"{digest} {key}\n")
    if _read_back(path) != digest:
        remove(path)
        raise TrainingError(f"{path}: not read back as it was written; check this disk (the state before is kept)")
    older = [state for state in reversed(_states(folder)) if state.name < path.name]
    before = next((state for state in older if _belongs(state, key)), None)
    for state in _states(folder):
        if state not in (path, before):
            remove(state)
    return path


def save_if_it_fits(folder: Path, step: int, payload: dict[str, Any], key: str = "") -> str:
    """As `save`; where the disk is full a warning in the log, and given back, so that training can go on without it."""
    try:
        save(folder, step, payload, key)
    except DiskFullError as error:
        _LOG.warning("%s", error)
        return str(error)
    return ""


def _read_back(path: Path) -> str:
    """SHA-256 of the file, from the disk rather than from the page cache where the system allows that."""
    with open(path, "rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return sha256_file(path)


def remove(path: Path) -> None:
    """Remove a state and its digest."""
    path.unlink(missing_ok=True)
    _digest_path(path).unlink(missing_ok=True)


def load_newest(folder: Path, key: str = "") -> dict[str, Any] | None:
    """The newest intact state of the run that `key` names, or None when there is none.

    A damaged or foreign one is named in the log and passed over; nothing is unpickled before its digest matches.
    """
    for path in reversed(_states(folder)):
        data = _sealed_content(path)
        if data is None:
            _LOG.warning("%s: saved state refused, its SHA-256 does not match; the one before is used", path)
            continue
        payload: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if payload.pop(_KEY, None) == key:
            return payload
        _LOG.warning("%s: saved state refused, it belongs to another run; the one before is used", path)
    return None


def _sealed_content(path: Path) -> bytes | None:
    """The bytes of a state if they match its digest; None where they differ, or one of the two files is missing."""
    try:
        data, seal = path.read_bytes(), _digest_path(path).read_bytes()
    except OSError:
        return None
    return data if seal.partition(b" ")[0] == hashlib.sha256(data).hexdigest().encode() else None


def _belongs(path: Path, key: str) -> bool:
    """Whether a state is intact and, by what is written beside it, of the run that `key` names."""
    try:
        named = _digest_path(path).read_bytes().partition(b" ")[2]
    except OSError:
        return False
    return named == f"{key}\n".encode() and _sealed_content(path) is not None


def has_states(folder: Path) -> bool:
    """Whether there are saved states in `folder`, whole or not."""
    return bool(_states(folder))
