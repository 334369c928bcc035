"""Resumable state on disk: checked before use, never half-written, the previous one kept until the next is proven."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ltpa.core.errors import TrainingError
from ltpa.core.files import atomic_path, write_text
from ltpa.core.hashing import sha256_file

_LOG = logging.getLogger(__name__)
KEPT = 2


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock for the life of the block (released by the kernel even after a crash).

    Raises:
        TrainingError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                f"{folder}: another process trains this network; wait for it to end, or stop it"
            ) from error
        yield


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def save(folder: Path, step: int, payload: dict[str, Any]) -> Path:
    """Save tensors and plain values as `step-<step>.pt`, digest beside it; older than the two newest are removed."""
    path = folder / f"step-{step:09d}.pt"
    with atomic_path(path) as temporary:
        torch.save(payload, temporary)
    write_text(_digest_path(path), sha256_file(path) + "\n")
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        _digest_path(old).unlink(missing_ok=True)
        old.unlink()
    return path


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest intact checkpoint's payload, or None when there is none.

    A damaged one is named in the log and passed over; nothing is unpickled before its digest matches.
    """
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        digest = _digest_path(path)
        if not digest.is_file() or digest.read_text().strip() != sha256_file(path):
            _LOG.warning("%s: damaged checkpoint ignored (its SHA-256 does not match)", path)
            continue
        payload: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return payload
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints of a finished run; the lock file stays."""
    for path in folder.glob("step-*"):
        path.unlink()
