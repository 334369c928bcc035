"""Features of whole datasets, and where they wait until a classifier needs them."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import DataError, NotFiniteError
from ltpa.core.files import write_errors
from ltpa.data.arrays import PreparedDataset
from ltpa.data.normalise import fit_normaliser
from ltpa.evaluation.inference import extract_features, network_pixels

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

_FOLDER = "features"  # of feature files, inside the run's folder while it works


@dataclasses.dataclass(frozen=True)
class View:
    """How a network sees images: `network`, through the preprocessing it was trained with, or `zca`, through contrast
    normalisation and whitening fitted to the very images; and how many at a time.
    """

    preprocessing: str
    batch_size: int


class InMemory:
    """Features by target, float32."""

    def __init__(self) -> None:
        self.held: dict[str, np.ndarray] = {}

    def put(self, name: str, features: np.ndarray) -> None:
        """Keep the features (N, d) of a target."""
        self.held[name] = features

    def take(self, name: str) -> np.ndarray:
        """Give the features of a target back, float32, and forget them."""
        return self.held.pop(name)


class HalfFiles:
    """Features by target in float16 files of a folder, each removed when it is taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, features: np.ndarray) -> None:
        """Keep the features (N, d) of a target."""
        with np.errstate(over="ignore"):
            half = features.astype(np.float16)
        if np.isinf(half).any() and not np.isinf(features).any():
            raise DataError(f"dataset {name}: features beyond 65,504 do not fit float16; set storage to memory")
        path = self.folder / f"{name}.npy"
        with write_errors(path, needed=half.nbytes):
            np.save(path, half)

    def take(self, name: str) -> np.ndarray:
        """Give the features of a target back, float32, and forget them."""
        path = self.folder / f"{name}.npy"
        features = np.load(path).astype(np.float32)
        path.unlink()
        return features


@contextlib.contextmanager
def feature_store(storage: str, folder: Path) -> Iterator[InMemory | HalfFiles]:
    """Where features wait; nothing is left of it afterwards, and what a cut-off run left is removed."""
    place = folder / _FOLDER
    shutil.rmtree(place, ignore_errors=True)
    if storage == "memory":
        yield InMemory()
        return
    place.mkdir(parents=True)
    try:
        yield HalfFiles(place)
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def seen_through(model: "AttentionClassifier", images: np.ndarray, view: View) -> Iterator[None]:
    """While the block lasts, the network sees the images as `view` says."""
    own = model.preprocessing
    if view.preprocessing == "zca":
        whitening = fit_normaliser("gcn-zca", network_pixels(model, images, view.batch_size))
        model.preprocessing = whitening.to(next(model.parameters()).device).eval()
    try:
        yield
    finally:
        model.preprocessing = own


def pooled_features(model: "AttentionClassifier", dataset: PreparedDataset, view: View) -> np.ndarray:
    """Features (N, d) of all images of a dataset, its splits one after the other.

    Raises:
        DataError: there are no images.
        NotFiniteError: a feature is not finite.
    """
    pooled = dataset.pooled()
    if len(pooled) == 0:
        raise DataError(f"dataset {dataset.name}: no images; check its declaration and prepare it again")
    with seen_through(model, pooled.images, view):
        features = extract_features(model, pooled.images, view.batch_size)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise NotFiniteError(
            f"its features of {len(bad)} images of {dataset.name} are not finite (the first is {pooled.ids[bad[0]]}); "
            "retrain the network"
        )
    return features


def pooled_labels(dataset: PreparedDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Labels, names and groups, (N,) each, of the images that `pooled_features` sees; None without groups."""
    splits = dataset.splits.values()
    labels, ids = np.concatenate([split.labels for split in splits]), np.concatenate([split.ids for split in splits])
    known = [split.groups for split in splits if split.groups is not None]
    return labels, ids, np.concatenate(known) if len(known) == len(splits) else None
