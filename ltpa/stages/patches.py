"""Patch boxes of one patch source, for every split of one dataset: `boxes.parquet`, its sidecar, and a record.

The spec's `variant` is the source's name. There is one target, `{"name"}`. Protocol keys: those of `PatchSettings`, and
`source` (its declaration: `mode`, `map`), `network` (the variant behind it, or none), `saliency` (that variant's
declaration), `released` (array file by split), `protopnet` (settings of its training). No label of a test image is read
but to check released boxes.
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpa.core import layout
from ltpa.core.errors import ConfigError
from ltpa.core.hashing import sha256_file
from ltpa.core.provenance import code_hash, library_versions
from ltpa.core.records import Metric, write_record
from ltpa.core.seeds import derive
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import Boxes, flag_counts, write_boxes
from ltpa.data.released import read_released
from ltpa.evaluation import patches, prototypes, trunk
from ltpa.evaluation.inference import pixel_batches
from ltpa.evaluation.patch_quality import statistics
from ltpa.evaluation.patches import PARITY, Candidate, PatchSettings
from ltpa.stages.common import make_record, read_settings, trained_network
from ltpa.stages.device import compute_device, describe_device
from ltpa.training.protopnet import PrototypeTraining
from ltpa.training.protopnet import train as train_prototypes

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

BOXES_METRIC, STATISTIC = "boxes", "patch_statistic"


@dataclasses.dataclass(frozen=True)
class Source:
    """What a source needs besides settings; checked against what its mode asks for.

    Attributes:
        mode: how boxes come about, one of `MODES`.
        map: the saliency map of mode `cam_window`.
        network: the variant behind it; empty for sources without.
        saliency: that variant's declaration of its attention maps.
        released: array file by split, of mode `released`.
        protopnet: settings of the training of mode `protopnet`.
    """

    mode: str
    map: str = ""
    network: str = ""
    saliency: dict[str, Any] | None = None
    released: dict[str, str] | None = None
    protopnet: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"patches: mode is {self.mode!r}; use one of {', '.join(MODES)}")
        if (self.mode in NETWORK_MODES) != bool(self.network):
            needs = "needs the network behind it" if self.mode in NETWORK_MODES else "has no network behind it"
            raise ConfigError(f"patches: mode {self.mode} {needs}; correct protocols.patches.sources")
        if (self.mode == "cam_window") != (self.map in trunk.MAPS):
            raise ConfigError(
                f"patches: mode {self.mode} with map {self.map!r}; cam_window has {', '.join(trunk.MAPS)}"
            )
        if self.mode == "released" and not self.released:
            raise ConfigError("patches: mode released needs your copy of the arrays; set protocols.patches.released")


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Extract the boxes of one source for each seed; where a network is behind it, with that of the seed.

    Raises:
        ConfigError: a setting is wrong, or the source and its network do not go together.
        DataError: a map is not finite, or released arrays do not fit.
        ModelError: the network is missing, trained otherwise, or lacks what the source reads.
    """
    source, settings = _read_protocol(spec)
    if len(spec.targets) != 1:
        raise ConfigError(f"patches: {len(spec.targets)} targets; give one, for there is one table of boxes")
    dataset = PreparedDataset.open(layout.data_dir(results, spec.targets[0]["name"]))
    with compute_device(spec.device, spec.threads) as device:
        for seed in seeds:
            started = time.perf_counter()
            path = layout.boxes_path(results, spec.dataset, spec.variant, seed)
            model: AttentionClassifier | None = None
            reason, origin = "", dict[str, Any]()
            if source.network:
                model, reason, origin = _network(spec, source, results, seed)
            metrics: list[Metric] = []
            extra: dict[str, Any] = {}
            if not reason:
                found, facts = extract(dataset, source, settings, None if model is None else model.to(device), seed)
                write_boxes(path, dataset, found, _facts(spec, source, seed) | origin | facts)
                metrics = list(_metrics(dataset, found))
                extra = {"sha256": sha256_file(path), "flags": flag_counts(found["test"].flags), **facts}
            record = make_record(
                __name__,
                spec,
                seed,
                metrics=metrics,
                data_hash=dataset.data_hash,
                device=describe_device(device),
                seconds=time.perf_counter() - started,
                reason=reason,
                extra=extra,
            )
            write_record(path.with_name(layout.RECORD), record)


def _read_protocol(spec: EvaluationSpec) -> tuple[Source, PatchSettings]:
    protocol = dict(spec.protocol)
    given = {key: protocol.pop(key, None) for key in ("network", "saliency", "released", "protopnet")}
    declared = protocol.pop("source", None) or {}
    source = read_settings(Source, "patches", {**declared, **given, "network": given["network"] or ""})
    return source, read_settings(PatchSettings, "patches", protocol)


def _network(
    spec: EvaluationSpec, source: Source, results: Path, seed: int
) -> tuple["AttentionClassifier | None", str, dict[str, Any]]:
    """The network behind the source, why there is none, and what the sidecar says of it."""
    from ltpa.models import load

    trained = trained_network(results, spec.dataset, source.network, seed, spec.training)
    if trained.status != "ok":
        return None, f"training failed: {trained.reason}", {}
    path = layout.run_dir(results, "train", spec.dataset, source.network, seed) / layout.MODEL
    origin = {"network": source.network, "network_sha256": sha256_file(path), "training_hash": spec.training}
    return load(path, expect_variant=source.network), "", origin


def _facts(spec: EvaluationSpec, source: Source, seed: int) -> dict[str, Any]:
    hashes = {name: sha256_file(Path(path)) for name, path in (source.released or {}).items()}
    return {
        "source": spec.variant,
        "mode": source.mode,
        "map": source.map,
        "seed": seed,
        "settings": spec.protocol,
        "config_hash": spec.hash(),
        "code_hash": code_hash(__name__),
        "released_sha256": hashes if source.mode == "released" else {},
        "libraries": library_versions(),
    }


def extract(
    dataset: PreparedDataset,
    source: Source,
    settings: PatchSettings,
    model: "AttentionClassifier | None",
    seed: int,
) -> tuple[dict[str, Boxes], dict[str, Any]]:
    """Boxes of every split by name, and small facts worth keeping (the number of prototypes)."""
    return MODES[source.mode](dataset, source, settings, model, seed)


Extracted = tuple[dict[str, Boxes], dict[str, Any]]


def _protolite(dataset: PreparedDataset, _: Source, settings: PatchSettings, model: Any, seed: int) -> Extracted:
    """Prototypes from the cells of the training images, then boxes of all."""
    train = dataset.split("train").images
    generator = np.random.default_rng(derive(seed, "patches", "protolite"))
    cells, owners = prototypes.foreground_cells(_maps(model, train, settings), settings.cells_per_image, generator)
    centroids, assigned = prototypes.spherical_kmeans(cells, settings.clusters, settings.iterations, generator)
    kept = prototypes.common(centroids, assigned, owners, len(train), settings.min_share)
    found = {}
    for name, split in dataset.splits.items():
        batches = (prototypes.similarity_maps(maps, kept) for maps in _maps(model, split.images, settings))
        found[name] = _boxes_of_maps(batches, dataset.image_size, settings)
    return found, {"prototypes": len(kept)}


def _maps(model: Any, images: np.ndarray, settings: PatchSettings) -> Iterator[np.ndarray]:
    return trunk.feature_maps(model, images, settings.batch_size, settings.grid, settings.level)


def _boxes_of_maps(batches: Iterator[np.ndarray], size: int, settings: PatchSettings) -> Boxes:
    return patches.stack(
        [
            patches.fill(patches.map_candidates(maps, size, settings), size, settings)
            for batch in batches
            for maps in batch
        ]
    )


def _protopnet(dataset: PreparedDataset, source: Source, settings: PatchSettings, model: Any, seed: int) -> Extracted:
    """Prototypes trained on the training images and their labels, then boxes of all images, from all prototypes."""
    import torch

    chosen = read_settings(PrototypeTraining, "patches.protopnet", source.protopnet or {})
    train = dataset.split("train")
    classes = len(dataset.classes)
    network, history = train_prototypes(
        model, train.images, train.labels, classes, chosen, seed, settings.grid, settings.level
    )

    def maps(images: np.ndarray) -> Iterator[np.ndarray]:
        for pixels in pixel_batches(model, images, settings.batch_size):
            with torch.inference_mode():
                yield network.similarity_maps(model.preprocessing(pixels)).float().cpu().numpy()

    found = {
        name: _boxes_of_maps(maps(split.images), dataset.image_size, settings) for name, split in dataset.splits.items()
    }
    weights = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().numpy().tobytes())
    facts = {"prototypes": len(network.prototypes), "prototype_losses": [round(loss, 6) for loss in history]}
    return found, {**facts, "prototype_network_sha256": weights.hexdigest()}


def _cam_window(dataset: PreparedDataset, source: Source, settings: PatchSettings, model: Any, _: int) -> Extracted:
    size = dataset.image_size
    found = {}
    for name, split in dataset.splits.items():
        maps = trunk.saliency_maps(
            model, split.images, settings.batch_size, source.map, source.saliency, settings.level
        )
        rows = [patches.fill(patches.window_candidates(each, size, settings), size, settings) for each in maps]
        found[name] = patches.stack(rows)
    return found, {}


def _center(dataset: PreparedDataset, _: Source, settings: PatchSettings, __: Any, ___: int) -> Extracted:
    size = dataset.image_size
    return {name: patches.center_boxes(len(split), size, settings) for name, split in dataset.splits.items()}, {}


def _random(dataset: PreparedDataset, _: Source, settings: PatchSettings, __: Any, seed: int) -> Extracted:
    size = dataset.image_size
    return {
        name: patches.random_boxes(len(split), size, settings, seed, f"{dataset.name}/{name}")
        for name, split in dataset.splits.items()
    }, {}


def _full(dataset: PreparedDataset, _: Source, settings: PatchSettings, __: Any, ___: int) -> Extracted:
    size = dataset.image_size
    return {name: patches.full_boxes(len(split), size, settings) for name, split in dataset.splits.items()}, {}


def _released(dataset: PreparedDataset, source: Source, settings: PatchSettings, __: Any, ___: int) -> Extracted:
    """The user's arrays as they are: no box is cleaned."""
    parity = dataclasses.replace(settings, cleaning=PARITY)
    files = source.released or {}
    found = {}
    for name, split in dataset.splits.items():
        if name not in files:
            raise ConfigError(f"protocols.patches.released: no file for split {name}; add {name}: PATH")
        boxes = read_released(Path(files[name]), split, settings.boxes)
        rows = [[Candidate((y0, x0, y1, x1), 0.0, -1) for y0, x0, y1, x1 in each] for each in boxes.tolist()]
        found[name] = patches.stack([patches.fill(row, dataset.image_size, parity) for row in rows])
    return found, {}


MODES = {
    "protolite": _protolite,
    "protopnet": _protopnet,
    "cam_window": _cam_window,
    "center": _center,
    "random": _random,
    "full": _full,
    "released": _released,
}
NETWORK_MODES = ("protolite", "protopnet", "cam_window")


def _metrics(dataset: PreparedDataset, found: dict[str, Boxes]) -> Iterator[Metric]:
    """The number of boxes, and the statistics of every split's."""
    yield Metric(BOXES_METRIC, sum(b.scores.size for b in found.values()), sum(map(len, dataset.splits.values())))
    for name, boxes in found.items():
        for statistic, value in statistics(boxes, dataset.split(name)).items():
            yield Metric(STATISTIC, value, len(boxes.boxes), f"{dataset.name}/{name}", statistic)
