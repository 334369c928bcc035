"""Evaluate two-stream networks: every readout under every patch policy, from one pass of each trained network.

The spec's one target is the dataset. Protocol keys: `training`, the plain data of the `TwoStreamSpec`; `overlap`, path
of a list of test images (one id a line) that the pretraining has seen, or nothing.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltpa.core import layout
from ltpa.core.errors import ConfigError, ModelError
from ltpa.core.hashing import sha256_file
from ltpa.core.per_image import save_hits
from ltpa.core.records import Metric, read_record
from ltpa.core.specs import EvaluationSpec, TwoStreamSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.twostream import JOINT, MEAN_N, RANDOM1, TOP1, Scores, holds_part, score
from ltpa.models.store import load
from ltpa.models.twostream.network import TwoStream
from ltpa.stages.common import Measurement, make_record, save_record
from ltpa.stages.device import compute_device, describe_device
from ltpa.stages.finedata import VALIDATION, fine_splits

_MODULE = "ltpa.stages.finegrained"
_TRAINED = "twostream"


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Evaluate the network of each seed and write its record; one whose training failed gives a `failed` record.

    Raises:
        DataError: boxes are missing or do not belong to these images, or an overlap list fits no image.
        ModelError: the network is missing, damaged, or trained under another configuration.
    """
    training = TwoStreamSpec(**spec.protocol["training"])
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    with compute_device(spec.device, spec.threads) as device:
        for seed in seeds:
            started = time.perf_counter()
            source = layout.run_dir(results, _TRAINED, spec.dataset, spec.variant, seed)
            folder = layout.run_dir(results, "finegrained", spec.dataset, spec.variant, seed)
            trained = read_record(source / layout.RECORD)
            if trained.config_hash != spec.training:
                raise ModelError(
                    f"{source}: trained under another configuration than asked for; "
                    f"delete {source / layout.RECORD} and run again to retrain it"
                )
            reason, found, hits = "", Measurement([]), {}
            if trained.status == "ok":
                network = trained.extra["model_sha256"]
                model = load(source / layout.MODEL, spec.variant, expect_sha256=network).to(device)
                assert isinstance(model, TwoStream)
                _, test = fine_splits(training, results, dataset, seed)
                scores = score(model, test.images, test.labels, test.boxes, seed)
                found = _measure(spec, training, dataset, test.boxes, scores)
                hits = _hits(scores)
                best = [m for m in trained.metrics if m.name == "parity_best_test_accuracy_pct"]
                origin = {key: trained.extra[key] for key in ("weights", "patches")}
                found = Measurement([*found.metrics, *best], {**found.extra, **origin, "network_sha256": network})
            else:
                reason = f"training failed: {trained.reason}"
            record = make_record(
                _MODULE,
                spec,
                seed,
                metrics=found.metrics,
                data_hash=dataset.data_hash,
                device=describe_device(device),
                seconds=time.perf_counter() - started,
                reason=reason,
                extra={**found.extra, "hits": save_hits(folder, hits)},
            )
            save_record(results, record, [_MODULE, *spec.code])


def _measure(
    spec: EvaluationSpec,
    training: TwoStreamSpec,
    dataset: PreparedDataset,
    boxes: np.ndarray | None,
    scores: Scores,
) -> Measurement:
    """Accuracies in percent by policy (metric name) and readout (condition)."""
    target = spec.dataset if training.split == "test" else f"{spec.dataset}/{training.split}"
    metrics: list[Metric] = []
    for (policy, readout), correct in scores.correct.items():
        images = correct.shape[-1]
        metrics.append(Metric(f"{policy}_accuracy_pct", 100 * float(correct.mean()), images, target, readout))
        if policy == RANDOM1 and readout == JOINT and correct.ndim == 2:
            spread = float(correct.mean(axis=1).std(ddof=1))
            metrics.append(Metric("random1_draws_sd_pct", 100 * spread, len(correct), target, readout))
    chance = 100 / training.num_classes
    metrics.append(Metric("chance_accuracy_pct", chance, len(scores.correct[MEAN_N, JOINT]), target))
    if training.split != VALIDATION:
        metrics += _part_metrics(dataset, boxes, scores, target)
        metrics += _without_overlap(spec, dataset, scores, target)
    return Measurement(metrics)


def _hits(scores: Scores) -> dict[tuple[str, str], np.ndarray]:
    """Which images are right, by metric name and condition, where an image has one prediction."""
    return {(f"{policy}_accuracy_pct", JOINT): scores.correct[policy, JOINT] for policy in (MEAN_N, TOP1)}


def _part_metrics(dataset: PreparedDataset, boxes: np.ndarray | None, scores: Scores, target: str) -> list[Metric]:
    """Where parts are known: how many patches hold the whole part, and what the streams score on those pairs."""
    parts = dataset.split("test").parts
    if parts is None or boxes is None:
        return []
    held = holds_part(boxes, np.asarray(parts))
    metrics = [Metric("part_held_pct", 100 * float(held.mean()), held.size, target)]
    for readout, correct in scores.patches.items():
        for name, chosen in (("part_held_accuracy_pct", held), ("part_missed_accuracy_pct", ~held)):
            if chosen.any():
                metrics.append(Metric(name, 100 * float(correct[chosen].mean()), int(chosen.sum()), target, readout))
    return metrics


def _without_overlap(spec: EvaluationSpec, dataset: PreparedDataset, scores: Scores, target: str) -> list[Metric]:
    """The headline accuracy without test images that the pretraining has seen, where a list names them."""
    listed = spec.protocol.get("overlap")
    if not listed:
        return []
    try:
        seen = {line.strip() for line in Path(listed["path"]).read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{listed['path']}: cannot read the overlap list ({error}); correct twostream.overlap"
        ) from error
    ids = dataset.split("test").ids
    kept = np.array([not any(f"/{image}".endswith(f"/{name}") for name in seen) for image in ids])
    if kept.all():
        raise ConfigError(f"{listed['path']}: names no test image of {dataset.name}; list image paths, one a line")
    correct = scores.correct[MEAN_N, JOINT][kept]
    return [Metric("mean_n_accuracy_pct", 100 * float(correct.mean()), int(kept.sum()), target, "joint_minus_overlap")]


def overlap_facts(path: Path) -> dict[str, str]:
    """Path and SHA-256 of an overlap list, for a spec.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return {"path": str(path), "sha256": sha256_file(path)}
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the overlap list ({error.strerror}); correct twostream.overlap"
        ) from error
