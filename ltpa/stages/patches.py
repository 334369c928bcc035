"""Patch boxes from attention maps, for every split of one target: `boxes.parquet` and a record.

There is one target, `{"name"}`. Protocol keys: those of `PatchSettings`, and `saliency` (the variant's declaration).
No label is read.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpa.core.errors import ConfigError
from ltpa.core.files import atomic_path
from ltpa.core.hashing import sha256_file
from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation import patches
from ltpa.evaluation.patches import ATTENTION, CENTER, RANDOM, Boxes, PatchSettings
from ltpa.evaluation.saliency import Saliency, upsample
from ltpa.stages.common import Measurement, evaluate_each, read_settings

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

BOXES = "boxes.parquet"
_BLOCK = 256  # images whose maps are upsampled at a time, to bound memory


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Extract boxes with the network of each seed; write `boxes.parquet` and the record beside it.

    Raises:
        ConfigError: the variant declares no saliency map, or a setting or the number of targets is wrong.
        DataError: a map is not finite.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Boxes of all splits, written into `folder`, and how well they and the controls hit the test split's objects."""
    protocol = dict(spec.protocol)
    saliency = Saliency.from_declaration(protocol.pop("saliency", None), "patches")
    settings = read_settings(PatchSettings, "patches", protocol)
    if len(datasets) != 1:
        raise ConfigError(f"patches: {len(datasets)} targets; give one, for there is one {BOXES}")
    dataset = datasets[0]
    found = {name: _extract(model, saliency, split.images, settings) for name, split in dataset.splits.items()}
    path = folder / BOXES
    write_boxes(path, dataset, found)
    count = sum(boxes.repeated.size for boxes in found.values())
    metrics = [Metric("boxes", count, sum(map(len, dataset.splits.values())), dataset.name, ATTENTION)]
    metrics += _quality(dataset.name, dataset.split("test"), found["test"].boxes, settings)
    repeated = sum(int(boxes.repeated.sum()) for boxes in found.values())
    return Measurement(metrics, {"sha256": sha256_file(path), "repeated_boxes": repeated})


def _extract(model: "AttentionClassifier", saliency: Saliency, images: np.ndarray, settings: PatchSettings) -> Boxes:
    levels = saliency.maps(model, images, settings.batch_size)
    size = images.shape[1:3]
    parts = []
    for start in range(0, len(images), _BLOCK):
        grown = {name: upsample(maps[start : start + _BLOCK], size) for name, maps in levels.items()}
        parts.append(patches.attention_boxes(saliency.combine(grown), settings))
    return Boxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.repeated for part in parts]),
    )


def _quality(name: str, test: Split, boxes: np.ndarray, settings: PatchSettings) -> list[Metric]:
    """Share of box area on the object, and of the part covered, where known, for attention and the controls."""
    count, size = len(test), test.images.shape[1:3]
    modes = {
        ATTENTION: boxes,
        CENTER: patches.center_boxes(count, size, settings),
        RANDOM: patches.random_boxes(count, size, settings, name),
    }
    metrics = []
    for mode, rows in modes.items():
        inside = None
        if test.masks is not None:
            inside = patches.inside_masks(rows, test.masks)
        elif test.boxes is not None:
            inside = patches.inside_boxes(rows, test.boxes)
        if inside is not None:
            metrics.append(Metric("inside_object_pct", 100 * float(inside.mean()), inside.size, name, mode))
        if test.parts is not None:
            covered = patches.part_coverage(rows, test.parts)
            metrics.append(Metric("part_coverage_pct", 100 * float(covered.mean()), count, name, mode))
    return metrics


def write_boxes(path: Path, dataset: PreparedDataset, found: dict[str, Boxes]) -> None:
    """Write the boxes of all splits as one Parquet table, atomically, one row per image and rank.

    Columns: index (row in the split, int32), id, split (text), rank (int16, 0 is best), x0, y0, x1, y1 (int32 pixels,
    right and lower edge exclusive), score (float64, the map's value at the peak).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pa.table(_columns(name, dataset.splits[name].ids, boxes)) for name, boxes in found.items()]
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)


def _columns(split: str, ids: np.ndarray, found: Boxes) -> dict[str, Any]:
    count, ranks = found.scores.shape
    corners = found.boxes.reshape(-1, 4).astype(np.int32)
    return {
        "index": np.repeat(np.arange(count, dtype=np.int32), ranks),
        "id": np.repeat(ids, ranks).tolist(),
        "split": [split] * (count * ranks),
        "rank": np.tile(np.arange(ranks, dtype=np.int16), count),
        **{name: corners[:, column] for column, name in enumerate(("x0", "y0", "x1", "y1"))},
        "score": found.scores.ravel(),
    }
