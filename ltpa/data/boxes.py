"""Patch boxes on disk: one Parquet table for all splits of a dataset, and a sealed sidecar that says whose they are.

Boxes are y0, x0, y1, x1 in whole pixels of the prepared images, last row and column exclusive. The table's bytes depend
on images and settings alone; the hash of the data, labels included, stands in the sidecar.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ltpa.core.errors import DataError
from ltpa.core.files import atomic_path
from ltpa.core.hashing import sha256_file
from ltpa.core.schema import PLAIN
from ltpa.core.sealed import read_sealed, write_sealed
from ltpa.data.arrays import PreparedDataset

FORMAT = 1
_SEAL = "seal"
_CORNERS = ("y0", "x0", "y1", "x1")


class _Sidecar(BaseModel):
    """What a sidecar certainly holds; what else it holds is free."""

    model_config = ConfigDict(**{**PLAIN, "extra": "allow"})

    dataset: str
    data_hash: str
    image_size: int
    images: dict[str, int]
    boxes_per_image: Annotated[int, Field(ge=1)]
    flags: dict[str, dict[str, int]]
    sha256: dict[str, str]


class Flag(IntFlag):
    """Properties of a box; the values are part of the format."""

    FULL = 1  # the whole image
    MULTIBLOB = 2  # the map had further regions above the threshold
    TINY = 4  # grown, for one of its sides was too short
    BORDER = 8  # touches the edge of the image
    DUP = 16  # the same box has a better rank
    REPEAT = 32  # taken again, for there were no further boxes
    FALLBACK = 64  # no map gave a box


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of N images, n for each, best first.

    Attributes:
        boxes: (N, n, 4) int64, y0, x0, y1, x1.
        scores: (N, n) float32, the value the boxes were ranked by; zero where there was none.
        map_ids: (N, n) int32, number of the prototype, cluster or window behind a box; -1 where there was none.
        flags: (N, n) int16, sums of `Flag`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    map_ids: np.ndarray
    flags: np.ndarray


def sidecar_path(path: Path) -> Path:
    """The sidecar of a table of boxes."""
    return Path(path).with_suffix(".json")


def write_boxes(path: Path, dataset: PreparedDataset, splits: Mapping[str, Boxes], facts: dict[str, Any]) -> None:
    """Write the boxes of the splits of `dataset` to `path`, and the sidecar, last. What is wrong is not written.

    One row per image and rank. Columns: split and id (text), index (row in the split, int32), rank (int16, 0 is best),
    y0, x0, y1, x1 (int32), score (float32), map_id (int32), flags (int16). `facts` is plain JSON on their origin.

    Raises:
        DataError: a split has boxes of another number of images, or a box is empty or not within the image.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, boxes in splits.items():
        images = len(dataset.split(name))
        if len(boxes.boxes) != images:
            raise DataError(
                f"{path}: boxes of {len(boxes.boxes)} images for {images} of split {name} of {dataset.name}; "
                "give every image its boxes, in the order of the split"
            )
        check_boxes(path, boxes.boxes, dataset.image_size, "correct the boxes of this patch source")
    tables = [pa.table(_columns(name, dataset.split(name).ids, boxes)) for name, boxes in splits.items()]
    sidecar_path(path).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
    content = {
        "format": FORMAT,
        "dataset": dataset.name,
        "data_hash": dataset.data_hash,
        "image_size": dataset.image_size,
        "images": {name: len(boxes.boxes) for name, boxes in splits.items()},
        "boxes_per_image": next(iter(splits.values())).boxes.shape[1],
        "flags": {name: flag_counts(boxes.flags) for name, boxes in splits.items()},
        "sha256": {Path(path).name: sha256_file(path)},
        **facts,
    }
    write_sealed(sidecar_path(path), content, _SEAL)


def flag_counts(flags: np.ndarray) -> dict[str, int]:
    """How many boxes have each flag, by the flag's name."""
    counts = Counter({flag: int((flags & flag.value != 0).sum()) for flag in Flag})
    return {str(flag.name): count for flag, count in counts.items()}


def _columns(split: str, ids: np.ndarray, boxes: Boxes) -> dict[str, Any]:
    count, ranks = boxes.scores.shape
    corners = boxes.boxes.reshape(-1, 4).astype(np.int32)
    return {
        "split": [split] * (count * ranks),
        "id": np.repeat(ids, ranks).tolist(),
        "index": np.repeat(np.arange(count, dtype=np.int32), ranks),
        "rank": np.tile(np.arange(ranks, dtype=np.int16), count),
        **{name: corners[:, column] for column, name in enumerate(_CORNERS)},
        "score": boxes.scores.astype(np.float32).ravel(),
        "map_id": boxes.map_ids.astype(np.int32).ravel(),
        "flags": boxes.flags.astype(np.int16).ravel(),
    }


def read_sidecar(path: Path) -> dict[str, Any]:
    """What the sidecar of the boxes in `path` says, without its seal.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    missing = "no such file; run `ltpa patches` for these boxes"
    read = read_sealed(
        sidecar_path(path), _Sidecar, DataError, version=FORMAT, missing=missing, remedy=_remedy(path), seal=_SEAL
    )
    return read.model_dump()


def read_boxes(path: Path, dataset: PreparedDataset, split: str, count: int | None = None) -> np.ndarray:
    """Boxes of one split, (N, count, 4) int64: y0, x0, y1, x1, best first, rows in the order of the split's images.

    Args:
        path: a file that `write_boxes` made.
        dataset: the dataset they are to be laid over.
        split: one of its splits.
        count: the boxes wanted of each image; default: all there are.

    Raises:
        DataError: the file is missing or damaged, belongs to other images or another order of them, holds fewer boxes
            than wanted, or a box that is empty or not within the image.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    facts = read_sidecar(path)
    images = dataset.split(split)
    _check_belongs(path, facts, dataset, split)
    available = int(facts["boxes_per_image"])
    wanted = available if count is None else count
    if not 1 <= wanted <= available:
        raise DataError(
            f"{path}: {available} boxes per image, {wanted} wanted; ask for at most {available}, or set "
            f"protocols.patches.boxes to {wanted} and extract them again"
        )
    try:
        intact = sha256_file(path) == facts["sha256"].get(path.name)
        rows = pq.read_metadata(path).num_rows if intact else 0
        if rows > (most := available * sum(facts["images"].values())):  # before memory is taken for them
            raise DataError(f"{path}: {rows} rows, of which {sidecar_path(path).name} knows {most}; {_remedy(path)}")
        table = pq.read_table(path, filters=[("split", "=", split)]) if intact else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; {_remedy(path)}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); {_remedy(path)}") from error
    if table is None:
        raise DataError(f"{path}: does not match its SHA-256 in {sidecar_path(path).name}; {_remedy(path)}")
    if table.num_rows != len(images) * available:
        raise DataError(f"{path}: {table.num_rows} rows for {len(images)} images of {split}; {_remedy(path)}")
    _check_columns(path, table)
    ids = np.array(table["id"].to_pylist()).reshape(len(images), available)
    ranks = table["rank"].to_numpy().reshape(len(images), available)
    if (ids != images.ids[:, None]).any() or (ranks != np.arange(available)).any():
        first = int((ids != images.ids[:, None]).any(axis=1).argmax())
        raise DataError(
            f"{path}: rows are not in the order of split {split} of {dataset.name} (image {first} is "
            f"{str(images.ids[first])!r}, its boxes are of {str(ids[first, 0])!r}); {_remedy(path)}"
        )
    boxes = np.stack([table[name].to_numpy() for name in _CORNERS], axis=-1).astype(np.int64)
    boxes = boxes.reshape(len(images), available, 4)
    check_boxes(path, boxes, dataset.image_size, _remedy(path))
    return boxes[:, :wanted]


def check_boxes(where: Path, boxes: np.ndarray, size: int, remedy: str) -> None:
    """Raise `DataError` naming `where` and `remedy` unless all boxes (N, n, 4) have an area within `size` pixels."""
    low, high = boxes[..., :2], boxes[..., 2:]
    for problem, bad in (
        ("has no area", (high <= low).any(axis=-1)),
        (f"is not within {size} x {size} pixels", (low < 0).any(axis=-1) | (high > size).any(axis=-1)),
    ):
        if bad.any():
            image, rank = np.argwhere(bad)[0]
            corners = boxes[image, rank].tolist()
            raise DataError(f"{where}: box {rank} of image {image}, {corners}, {problem}; {remedy}")


def _check_columns(path: Path, table: Any) -> None:
    """Raise `DataError` unless the table has what is read of it, whole numbers for corners and ranks."""
    import pyarrow as pa

    for name in ("id", "rank", *_CORNERS):
        if name not in table.column_names:
            raise DataError(f"{path}: no column {name!r}; {_remedy(path)}")
        column = table[name]
        fits = pa.types.is_string(column.type) if name == "id" else pa.types.is_integer(column.type)
        if column.null_count or not fits:
            kind = "text" if name == "id" else "whole numbers"
            raise DataError(f"{path}: column {name!r} is not of {kind}, or misses some; {_remedy(path)}")


def _check_belongs(path: Path, facts: dict[str, Any], dataset: PreparedDataset, split: str) -> None:
    if facts["dataset"] != dataset.name:
        raise DataError(f"{path}: boxes of dataset {facts['dataset']}, not {dataset.name}; name the boxes of that one")
    if split not in facts["images"]:
        raise DataError(f"{path}: no boxes of split {split!r}, only {', '.join(facts['images'])}; {_remedy(path)}")
    if facts["images"][split] != len(dataset.split(split)):
        raise DataError(
            f"{path}: boxes of {facts['images'][split]} images, split {split} of {dataset.name} has "
            f"{len(dataset.split(split))}; {_remedy(path)}"
        )
    if facts["data_hash"] != dataset.data_hash:
        raise DataError(
            f"{path}: made from another preparation of {dataset.name} (data hash {facts['data_hash'][:12]}, now "
            f"{dataset.data_hash[:12]}); {_remedy(path)}"
        )


def _remedy(path: Path) -> str:
    return f"delete {Path(path).parent} and run `ltpa patches` again"
