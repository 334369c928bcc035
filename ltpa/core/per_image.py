"""What a network says of every test image, as .npy files beside its record; the record holds their SHA-256.

`hits.npy` is (metrics, N) bool: which images are classified correctly, a row for each metric that is the share of
images of which one prediction is right, or wrong. `extra["hits"]` of the record names the rows. `logits.npy` is (N, C)
float32. Images are in the order of the dataset's test split.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.core import layout
from ltpa.core.artefacts import sha256_of
from ltpa.core.errors import RecordError
from ltpa.core.files import write_bytes
from ltpa.core.hashing import sha256_file
from ltpa.core.records import Record


def save_hits(folder: Path, hits: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    """Write `hits.npy` into `folder` and give what the record must say of it, for its `extra["hits"]`.

    `hits` maps metric name and condition to (N,) bool, N the same for all; a run that failed has none.
    """
    rows = np.stack(list(hits.values())).astype(bool) if hits else np.zeros((0, 0), bool)
    return {"sha256": _save(folder / layout.HITS, rows), "rows": [list(key) for key in hits]}


def save_logits(folder: Path, logits: np.ndarray) -> dict[str, Any]:
    """Write `logits.npy`, (N, C) float32, into `folder` and give what the record must say of it (`extra["logits"]`)."""
    return {"sha256": _save(folder / layout.LOGITS, np.asarray(logits, np.float32))}


def load_hits(folder: Path, record: Record, metric: str, condition: str) -> np.ndarray | None:
    """Which test images are classified correctly, (N,) bool; None where the record of `folder` does not know.

    Raises:
        RecordError: the file is missing, or is not the one that the record was written with.
    """
    facts = record.extra.get("hits")
    if facts is None or [metric, condition] not in facts["rows"]:
        return None
    path = Path(folder) / layout.HITS
    if sha256_of(path) != facts["sha256"]:
        raise RecordError(
            f"{path}: missing, or not the file that {layout.RECORD} beside it tells of; delete {layout.RECORD} and run "
            "again to remake both"
        )
    found: np.ndarray = np.load(path)[facts["rows"].index([metric, condition])]
    return found


def _save(path: Path, array: np.ndarray) -> str:
    stream = io.BytesIO()
    np.save(stream, array)
    write_bytes(path, stream.getvalue())
    return sha256_file(path)
