"""Patch boxes of one patch source, for every split of one dataset: `boxes.parquet`, its sidecar, and a record.

The spec's `variant` is the source's name. No label of a test image is read but to check released boxes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ltpa.core import layout
from ltpa.core.code import code_hash
from ltpa.core.hashing import sha256_file
from ltpa.core.patches import PatchSettings, PatchSource
from ltpa.core.provenance import computing_libraries, library_versions, processor
from ltpa.core.records import Metric
from ltpa.core.schema import read_plain
from ltpa.core.specs import PatchSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import Boxes, flag_counts, write_boxes
from ltpa.evaluation.patch_quality import statistics
from ltpa.runtime.stopping import StopRequest
from ltpa.stages.common import make_record, save_record, trained_network
from ltpa.stages.device import compute_device, describe_device
from ltpa.stages.patch_sources import MODES, Job
from ltpa.stages.prototypes import forget, state_folder
from ltpa.stages.state import Identity
from ltpa.training.loop import EpochRow

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

BOXES_METRIC, STATISTIC = "boxes", "patch_statistic"


def run(
    spec: PatchSpec,
    results: Path,
    seeds: Sequence[int],
    stop: StopRequest | None = None,
    on_epoch: Callable[[int, EpochRow], None] = lambda seed, row: None,
) -> None:
    """Extract the boxes of one source for each seed; where a network is behind it, with that of the seed.

    Args:
        stop: asked after each step of a training; a signal also ends what follows, between batches of images.
        on_epoch: called with the seed and row of each finished epoch of a training of prototypes.

    Raises:
        ConfigError: a setting is wrong, or the source and its network do not go together.
        DataError: a map is not finite, or released arrays do not fit.
        ModelError: the network is missing, trained otherwise, or lacks what the source reads.
        TrainingError: the loss of prototypes stopped being finite.
        Stopped: `stop` said so; the same call goes on, with prototypes from where their training was.
    """
    source = read_plain(PatchSource, spec.source, "patches")
    settings = read_plain(PatchSettings, spec.settings, "patches")
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
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
            identity: Identity | None = None
            if not reason:
                identity = _identity(spec, seed, dataset, origin, device)
                model = None if model is None else model.to(device)
                job = Job(dataset, source, settings, model, seed, identity, results, stop or StopRequest(), on_epoch)
                found, facts = MODES[source.mode](job)
                write_boxes(path, dataset, found, _facts(spec, source, seed) | origin | facts)
                metrics = list(_metrics(dataset, found))
                extra = {"sha256": sha256_file(path), "flags": flag_counts(found["test"].flags), **origin, **facts}
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
            save_record(results, record, [__name__, *spec.code])
            if identity is not None:
                forget(state_folder(results, identity))


def epochs(spec: PatchSpec) -> int:
    """How many epochs the training behind a source has; none where prototypes are not trained."""
    training = read_plain(PatchSource, spec.source, "patches").protopnet
    return 0 if training is None else training.epochs


def _identity(
    spec: PatchSpec, seed: int, dataset: PreparedDataset, origin: dict[str, Any], device: torch.device
) -> Identity:
    return Identity(
        spec.dataset,
        spec.variant,
        seed,
        spec.hash(),
        dataset.data_hash,
        code_hash([__name__, *spec.code]),
        origin or None,
        computing_libraries(),
        describe_device(device),
        processor(),
    )


def _network(
    spec: PatchSpec, source: PatchSource, results: Path, seed: int
) -> tuple["AttentionClassifier | None", str, dict[str, Any]]:
    """The network behind the source, why there is none, and what the sidecar says of it."""
    from ltpa.models import load

    trained = trained_network(results, spec.dataset, source.network, seed, spec.training)
    if trained.status != "ok":
        return None, f"training failed: {trained.reason}", {}
    path = layout.run_dir(results, "train", spec.dataset, source.network, seed) / layout.MODEL
    model = load(path, source.network, expect_sha256=trained.extra.get("model_sha256"))
    return model, "", {"network": source.network, "network_sha256": sha256_file(path), "training_hash": spec.training}


def _facts(spec: PatchSpec, source: PatchSource, seed: int) -> dict[str, Any]:
    hashes = {name: sha256_file(Path(path)) for name, path in (source.released or {}).items()}
    return {
        "source": spec.variant,
        "mode": source.mode,
        "map": source.map,
        "seed": seed,
        "settings": {**spec.settings, **spec.source},
        "config_hash": spec.hash(),
        "code_hash": code_hash([__name__, *spec.code]),
        "released_sha256": hashes if source.mode == "released" else {},
        "libraries": library_versions(),
    }


def _metrics(dataset: PreparedDataset, found: dict[str, Boxes]) -> Iterator[Metric]:
    """The number of boxes, and the statistics of every split's."""
    yield Metric(BOXES_METRIC, sum(b.scores.size for b in found.values()), sum(map(len, dataset.splits.values())))
    for name, boxes in found.items():
        for statistic, value in statistics(boxes, dataset.split(name)).items():
            yield Metric(STATISTIC, value, len(boxes.boxes), f"{dataset.name}/{name}", statistic)
