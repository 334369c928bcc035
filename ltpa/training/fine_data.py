"""What two-stream networks learn from and are tested on: images, and the boxes of one patch source laid over them."""

import dataclasses
from pathlib import Path

import numpy as np

from ltpa.core.errors import ConfigError
from ltpa.core.seeds import derive
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import read_boxes

TEST, VALIDATION = "test", "validation"
HELD_OUT = 0.1  # of every class
_HELD_OUT_SEED = 0  # the same images for every network and seed, so that choices compare


@dataclasses.dataclass(frozen=True, eq=False)
class FineData:
    """Images (N, S, S, 3) uint8, labels (N,) int64, and boxes (N, n, 4) int64 of their patches, best first.

    Without boxes it serves networks without a local stream.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None = None

    def choose(self, mask: np.ndarray) -> "FineData":
        """Only the images of `mask` (N,) bool."""
        return FineData(self.images[mask], self.labels[mask], None if self.boxes is None else self.boxes[mask])


def fine_splits(dataset: PreparedDataset, path: Path | None, boxes: int, split: str) -> tuple[FineData, FineData]:
    """Training images, and those that stand for the test: the test split, or images held out of training.

    Args:
        path: the file of the patch boxes; None without patches.
        boxes: how many of each image's boxes are used.
        split: `test` or `validation`.

    Raises:
        DataError: the boxes are missing, damaged, too few, or belong to other images or another order of them.
        ConfigError: a class too small to hold images out.
    """

    def read(name: str) -> FineData:
        images = dataset.split(name)
        found = None if path is None else read_boxes(path, dataset, name, boxes)
        return FineData(images.images, np.asarray(images.labels), found)

    train = read("train")
    if split == TEST:
        return train, read("test")
    mask = held_out(train.labels, HELD_OUT, _HELD_OUT_SEED)
    return train.choose(~mask), train.choose(mask)


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Mask (N,) of a stratified validation split: `share` of every class, at least one image, by a fixed seed.

    Raises:
        ConfigError: a class has one image only.
    """
    rng = np.random.default_rng(derive(seed, "validation"))
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ConfigError(f"class {label} has one training image; a validation split needs two of every class")
        mask[members[: max(1, round(share * len(members)))]] = True
    return mask
