"""What the stages of the two-stream network read: images, and the boxes of one patch source laid over them."""

from pathlib import Path

import numpy as np

from ltpa.core import layout
from ltpa.core.errors import ConfigError
from ltpa.core.specs import TwoStreamSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import read_boxes
from ltpa.training.twostream import FineData, held_out

TEST, VALIDATION = "test", "validation"
HELD_OUT = 0.1  # of every class
_HELD_OUT_SEED = 0  # the same images for every row and seed, so that choices compare


def boxes_path(results: Path, dataset: str, source: str, seed: int) -> Path:
    """Where the boxes of a patch source lie."""
    return layout.run_dir(results, "patches", dataset, source, seed) / layout.BOXES


def fine_splits(spec: TwoStreamSpec, results: Path, dataset: PreparedDataset, seed: int) -> tuple[FineData, FineData]:
    """Training images, and those that stand for the test: the test split, or images held out of training.

    Raises:
        DataError: the boxes are missing, damaged, too few, or belong to other images or another order of them.
        ConfigError: a split that is neither `test` nor `validation`, or a class too small to hold images out.
    """
    if spec.split not in (TEST, VALIDATION):
        raise ConfigError(f"two-stream: split is {spec.split!r}; use {TEST} or {VALIDATION}")
    train, test = (_read(spec, results, dataset, name, seed) for name in ("train", "test"))
    if spec.split == TEST:
        return train, test
    mask = held_out(train.labels, HELD_OUT, _HELD_OUT_SEED)
    return _choose(train, ~mask), _choose(train, mask)


def _read(spec: TwoStreamSpec, results: Path, dataset: PreparedDataset, split: str, seed: int) -> FineData:
    found = dataset.split(split)
    boxes = None
    if spec.patches:
        path = boxes_path(results, spec.dataset, spec.patches, seed)
        boxes = read_boxes(path, dataset, split, spec.boxes)
    return FineData(found.images, np.asarray(found.labels), boxes)


def _choose(data: FineData, mask: np.ndarray) -> FineData:
    return FineData(data.images[mask], data.labels[mask], None if data.boxes is None else data.boxes[mask])
