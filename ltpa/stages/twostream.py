"""Train one row of the two-stream network, one network per seed: model.safetensors, history.csv, result.json each."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltpa.core.errors import ModelError
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.records import Metric
from ltpa.core.seeds import derive
from ltpa.core.specs import TwoStreamSpec
from ltpa.evaluation.twostream import JOINT, TOP1, random_ranks, score
from ltpa.models.registry import build_model
from ltpa.models.store import check_savable, save_model
from ltpa.models.twostream.network import TwoStream
from ltpa.models.twostream.trunks import Trunk
from ltpa.models.twostream.weights import start_trunk
from ltpa.runtime.stopping import StopRequest
from ltpa.stages.finedata import boxes_path, fine_splits
from ltpa.stages.state import Identity
from ltpa.stages.training import Ready, TrainingJob, Watcher
from ltpa.training.loop import EpochRow
from ltpa.training.recipe import TwoStreamRecipe
from ltpa.training.twostream import FineData, TwoStreamTrainer


def run(
    spec: TwoStreamSpec,
    results: Path,
    seeds: Sequence[int],
    stop: StopRequest | None = None,
    tolerate_failure: bool = False,
    watcher: Watcher | None = None,
) -> None:
    """Train the spec's network for each seed and write its artefacts; see `TrainingJob` and `TrainingJob.run`.

    Raises:
        DataError: boxes are missing or do not belong to these images.
        ModelError: the weights to start from are missing or of another trunk.
    """
    _Job(spec, results, stop, tolerate_failure, watcher).run(seeds)


class _Job(TrainingJob):
    module = "ltpa.stages.twostream"

    def __init__(self, spec: TwoStreamSpec, results: Path, *more: Any) -> None:
        super().__init__(spec, results, *more)
        self.spec = spec

    def start(self, seed: int) -> tuple[dict[str, str], Any]:
        """Hashes of the weights' facts and of the boxes; the untrained network, those facts, and the data."""
        spec = self.spec
        train, test = fine_splits(spec, self.results, self.dataset, seed)
        boxes = sha256_file(boxes_path(self.results, spec.dataset, spec.patches, seed)) if spec.patches else ""
        torch.manual_seed(derive(seed, "init"))
        model = build_model(spec.architecture, spec.num_classes, spec.architecture["image_size"])
        assert isinstance(model, TwoStream)
        weights = _start(model, spec.weights)
        return {"weights": digest(weights), "boxes": boxes}, (model, weights, train, test)

    def make_ready(
        self, seed: int, name: str, device: torch.device, state: Path, identity: Identity, given: Any
    ) -> Ready:
        """The training of one seed."""
        spec = self.spec
        model, weights, train, test = given
        facts: dict[str, Any] = {
            "variant": spec.variant,
            "architecture": spec.architecture,
            "num_classes": spec.num_classes,
            "image_size": model.image_size,
            "classes": self.dataset.classes,
            "extra": {"dataset": spec.dataset, "seed": seed, "spec": spec.hash()},
        }
        check_savable(None, **facts)
        recipe = TwoStreamRecipe.from_dict(spec.recipe, f"recipe of {name}")
        assert identity.start is not None
        return Ready(
            TwoStreamTrainer(
                model,
                train,
                len(test.labels),
                _count_wrong(test, seed),
                recipe,
                seed,
                state,
                device,
                name=name,
                key=identity.key,
            ),
            lambda path: save_model(path, model, **facts),
            lambda history: _metrics(spec, history, len(test.labels), len(train.labels)),
            {
                "recipe": recipe.plain(),
                "architecture": model.architecture,
                "weights": weights,
                "patches": {"source": spec.patches, "boxes": spec.boxes, "sha256": identity.start["boxes"]},
                "split": spec.split,
            },
        )


def _start(model: TwoStream, source: str) -> dict[str, dict[str, str]]:
    """Give both trunks their pretrained weights, and say for the record where they come from."""
    facts = {}
    for stream, trunk in (("global", model.global_trunk), ("local", model.local_trunk)):
        if not isinstance(trunk, Trunk):
            continue
        facts[stream] = start_trunk(trunk, model.options.trunk_of(stream), source)
    if not facts:
        raise ModelError("two-stream: no trunk to start")
    return facts


def _count_wrong(data: FineData, seed: int) -> Callable[[TwoStream, slice], int]:
    """How many images of a slice a network gets wrong by its joint prediction, the released code's way of testing.

    Each image is seen with one random patch, the first draw of the policy `random1`.
    """
    boxes = data.boxes
    if boxes is not None:
        boxes = boxes[np.arange(len(boxes)), random_ranks(seed, boxes)[0]][:, None]

    def count(model: TwoStream, part: slice) -> int:
        seen = None if boxes is None else boxes[part]
        hits = score(model, data.images[part], data.labels[part], seen, seed).correct[TOP1, JOINT]
        return int((~hits).sum())

    return count


def _metrics(spec: TwoStreamSpec, history: list[EpochRow], test_images: int, train_images: int) -> list[Metric]:
    last = history[-1]
    best = min(row.test_error_pct for row in history if not math.isnan(row.test_error_pct))
    target = spec.dataset if spec.split == "test" else f"{spec.dataset}/{spec.split}"
    return [
        Metric("test_error_pct", last.test_error_pct, test_images, target),
        Metric("parity_best_test_accuracy_pct", 100 - best, test_images, target, JOINT),
        Metric("chance_error_pct", 100 * (1 - 1 / spec.num_classes), test_images, target),
        Metric("train_error_pct", last.train_error_pct, train_images, spec.dataset),
        Metric("train_loss", last.train_loss, train_images, spec.dataset),
    ]
