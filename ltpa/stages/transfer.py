"""Cross-domain classification (paper section 5.3, table 3): a linear SVM on frozen features, or the network's own head.

Targets are `{"name", "kind": "svm"}`, all of whose images are pooled and split into folds, and `{"name",
"kind": "direct", "splits": [...], "class_map": [...] or null}`. Protocol keys: `SvmSettings`, all of which the record
repeats. The network sees all targets first; the classifiers come after it. Each target's features are forgotten once
its classifiers are done.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpa.core.errors import ConfigError, DataError, NotFiniteError
from ltpa.core.files import write_errors
from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.normalise import fit_normaliser
from ltpa.evaluation.direct import direct_accuracies
from ltpa.evaluation.inference import extract_features, network_pixels, predict
from ltpa.evaluation.svm import CrossValidation, SvmSettings, cross_validate
from ltpa.stages.common import Measurement, evaluate_each, read_settings

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

KINDS = ("svm", "direct")
FEATURES = "features"  # folder of feature files inside the run's folder while it works


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Evaluate the network of each seed on every target and write its record.

    Raises:
        ConfigError: a target or setting is wrong.
        DataError: a target cannot be cross-validated.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Metrics of one network on all targets; the folds' accuracies and the solver's facts go to the extra facts."""
    settings = read_settings(SvmSettings, "transfer", spec.protocol)
    for target in spec.targets:
        if target.get("kind") not in KINDS:
            raise ConfigError(
                f"transfer: target {target['name']} is of kind {target.get('kind')!r}; use {' or '.join(KINDS)}"
            )
    metrics: list[Metric] = []
    extra: dict[str, dict[str, Any]] = {
        "protocol": dataclasses.asdict(settings), "fold_accuracies_pct": {}, "unconverged_fits": {},
        "liblinear_fallbacks": {}, "largest_duality_gap": {},
    }  # fmt: skip
    with _feature_store(settings.storage, folder) as store:
        for target, dataset in zip(spec.targets, datasets, strict=True):
            if target["kind"] == "direct":
                metrics += _direct(model, target, dataset, settings)
            else:
                store.put(dataset.name, _features(model, dataset, settings))
        for target, dataset in zip(spec.targets, datasets, strict=True):
            if target["kind"] == "svm":
                for normalise, found in _cross_validated(model, dataset, store.take(dataset.name), settings).items():
                    key, count = f"{dataset.name}/{normalise}", sum(len(split) for split in dataset.splits.values())
                    metrics.append(Metric("svm_accuracy_pct", found.accuracy_pct, count, dataset.name, normalise))
                    extra["fold_accuracies_pct"][key] = found.fold_accuracies_pct
                    extra["unconverged_fits"][key] = found.unconverged
                    extra["liblinear_fallbacks"][key] = found.fallbacks
                    extra["largest_duality_gap"][key] = found.largest_gap
    return Measurement(metrics, extra)


class _InMemory:
    """Features by target, float32."""

    def __init__(self) -> None:
        self.held: dict[str, np.ndarray] = {}

    def put(self, name: str, features: np.ndarray) -> None:
        self.held[name] = features

    def take(self, name: str) -> np.ndarray:
        return self.held.pop(name)


class _HalfFiles:
    """Features by target in float16 files of a folder, each removed when it is taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, features: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            half = features.astype(np.float16)
        if np.isinf(half).any() and not np.isinf(features).any():
            raise DataError(f"dataset {name}: features beyond 65,504 do not fit float16; set storage to memory")
        path = self.folder / f"{name}.npy"
        with write_errors(path, needed=half.nbytes):
            np.save(path, half)

    def take(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        features = np.load(path).astype(np.float32)
        path.unlink()
        return features


@contextlib.contextmanager
def _feature_store(storage: str, folder: Path) -> Iterator[_InMemory | _HalfFiles]:
    """Where features wait; nothing is left of it afterwards, and what a cut-off run left is removed."""
    place = folder / FEATURES
    shutil.rmtree(place, ignore_errors=True)
    if storage == "memory":
        yield _InMemory()
        return
    place.mkdir(parents=True)
    try:
        yield _HalfFiles(place)
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def _seen_through(model: "AttentionClassifier", images: np.ndarray, settings: SvmSettings) -> Iterator[None]:
    """Give the network the preprocessing that the settings ask for while the block lasts."""
    own = model.preprocessing
    if settings.preprocessing == "zca":
        whitening = fit_normaliser("gcn-zca", network_pixels(model, images, settings.batch_size))
        model.preprocessing = whitening.to(next(model.parameters()).device).eval()
    try:
        yield
    finally:
        model.preprocessing = own


def _features(model: "AttentionClassifier", dataset: PreparedDataset, settings: SvmSettings) -> np.ndarray:
    pooled = dataset.pooled()
    if len(pooled) == 0:
        raise DataError(f"dataset {dataset.name}: no images; check its declaration and prepare it again")
    with _seen_through(model, pooled.images, settings):
        features = extract_features(model, pooled.images, settings.batch_size)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise NotFiniteError(
            f"its features of {len(bad)} images of {dataset.name} are not finite (the first is {pooled.ids[bad[0]]}); "
            "retrain the network"
        )
    return features


def _cross_validated(
    model: "AttentionClassifier", dataset: PreparedDataset, features: np.ndarray, settings: SvmSettings
) -> dict[str, CrossValidation]:
    splits = dataset.splits.values()
    labels, ids = np.concatenate([split.labels for split in splits]), np.concatenate([split.ids for split in splits])
    known = [split.groups for split in splits if split.groups is not None]
    groups = np.concatenate(known) if len(known) == len(splits) else None
    device = next(model.parameters()).device
    return {
        normalise: cross_validate(
            features, labels, settings, normalise, dataset.name, ids=ids, groups=groups, device=device
        )
        for normalise in settings.normalise
    }


def _direct(
    model: "AttentionClassifier", target: dict[str, Any], dataset: PreparedDataset, settings: SvmSettings
) -> list[Metric]:
    metrics = []
    for name in target["splits"]:
        split = dataset.split(name)
        if len(split) == 0:
            raise DataError(f"dataset {dataset.name}, split {name}: no images; prepare it again")
        with _seen_through(model, split.images, settings):
            predicted = predict(model, split.images, settings.batch_size)
        accuracies = direct_accuracies(predicted, split.labels, target["class_map"], dataset.name)
        metrics += [
            Metric("direct_accuracy_pct", value, count, f"{dataset.name}/{name}", condition)
            for condition, (value, count) in accuracies.items()
        ]
    return metrics
