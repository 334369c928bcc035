"""Measure one trained network by one protocol, whichever it is: a network and datasets in, a result record out."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.core import layout
from ltpa.core.errors import ConfigError, RecordError
from ltpa.core.hashing import digest
from ltpa.core.learned import outcomes
from ltpa.core.per_image import save_hits
from ltpa.core.schema import read_plain
from ltpa.core.specs import ProtocolSpec, companion_seed
from ltpa.data.arrays import PreparedDataset
from ltpa.protocols.base import Context, Measurement, Target
from ltpa.protocols.registry import find
from ltpa.stages.common import make_record, naming, save_record, trained_network, without_maps

if TYPE_CHECKING:
    import torch

    from ltpa.core.records import Record
    from ltpa.models.base import AttentionClassifier


def run(spec: ProtocolSpec, results: Path, seed: int) -> None:
    """Measure the network of one seed and write its record.

    A network whose training failed gives a `failed` record that names the reason. The record holds the protocol's
    settings as `extra["protocol"]`, and as `extra["networks"]` what the networks behind it err
    (`ltpa.core.learned.Outcome`).

    Raises:
        ConfigError: a setting is wrong.
        ModelError: the model file is missing, lacks the maps that are measured, or belongs to another training.
        NotFiniteError: the network gives numbers that are not finite; the message names its file.
        RecordError: the network or its companion was not trained.
    """
    from ltpa.stages.device import compute_device, describe_device

    started = time.perf_counter()
    protocol = find(spec.protocol, spec.file)
    settings = read_plain(protocol.Settings, spec.settings, spec.protocol)
    targets = [Target(**target) for target in spec.targets]
    datasets = [PreparedDataset.open(layout.data_dir(results, target.name)) for target in targets]
    trained = trained_network(results, spec.dataset, spec.variant, seed, spec.training)
    companion = _companion(results, spec, seed)
    folder = layout.run_dir(results, spec.protocol, spec.dataset, spec.variant, seed)
    found, behind, reason = Measurement([]), [trained], ""
    with compute_device(spec.device, spec.threads) as device:
        if trained.status != "ok":
            reason, behind = f"training failed: {trained.reason}", []
        else:
            path = layout.run_dir(results, "train", spec.dataset, spec.variant, seed) / layout.MODEL
            model = _load(results, trained, device)
            if protocol.lacks_maps(model, spec.inputs):
                raise without_maps(path, spec.variant)
            other, no_companion = None, "not asked for"
            if companion is not None and companion.status == "ok":
                other, no_companion = _load(results, companion, device), ""
                behind.append(companion)
            elif companion is not None:
                no_companion = f"training of {companion.variant} failed: {companion.reason}"
            boxes = layout.boxes_path(results, spec.dataset, spec.patches, seed) if spec.patches else None
            context = Context(targets, spec.inputs, seed, folder, trained, boxes, other, no_companion)
            with naming(path):
                found = protocol.measure(model, datasets, settings, context)
        hits = {"hits": save_hits(folder, found.hits)} if protocol.per_image else {}
        networks = [dataclasses.asdict(outcome) for record in behind for outcome in outcomes(record)]
        record = make_record(
            __name__,
            spec,
            seed,
            stage=spec.protocol,
            metrics=found.metrics,
            data_hash=digest([dataset.data_hash for dataset in datasets]),
            device=describe_device(device),
            seconds=time.perf_counter() - started,
            reason=reason,
            extra={"protocol": {**settings.of_job(), **spec.inputs}, "networks": networks, **found.extra, **hits},
        )
        save_record(results, record, [__name__, *spec.code])


def _load(results: Path, trained: "Record", device: "torch.device") -> "AttentionClassifier":
    from ltpa.models import load

    path = layout.run_dir(results, "train", trained.dataset, trained.variant, trained.seed) / layout.MODEL
    return load(path, expect_variant=trained.variant, expect_sha256=trained.extra.get("model_sha256")).to(device)


def _companion(results: Path, spec: ProtocolSpec, seed: int) -> "Record | None":
    """The record of the network that is read beside the one measured; None where none is asked for."""
    if spec.companion is None:
        return None
    try:
        variant, training = spec.companion["variant"], spec.companion["training"]
    except KeyError as error:
        raise ConfigError(f"{spec.protocol}: companion lacks {error}; give variant and training") from error
    try:
        return trained_network(results, spec.dataset, variant, companion_seed(spec.companion_seeds, seed), training)
    except RecordError as error:
        raise RecordError(
            f"{error}; {spec.protocol} of {spec.variant} also reads the network of {variant}: train it first, or "
            f"change protocols.{spec.protocol}"
        ) from error
