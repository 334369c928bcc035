"""Training of two-stream networks on images and patches of them (Shroff 2020)."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltpa.core import layout
from ltpa.core.errors import ModelError
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.records import Metric
from ltpa.core.seeds import derive
from ltpa.core.specs import TrainSpec
from ltpa.evaluation.twostream import JOINT, joint_logits, random_ranks
from ltpa.models.registry import build_model
from ltpa.models.store import save_model
from ltpa.models.twostream.network import TwoStream
from ltpa.models.twostream.trunks import Trunk
from ltpa.models.twostream.weights import start_trunk
from ltpa.stages.state import Identity
from ltpa.stages.training import TEST_ERROR, Ready, TrainingJob
from ltpa.training.fine_data import FineData, fine_splits
from ltpa.training.loop import EpochRow
from ltpa.training.two_stream_recipe import TwoStreamRecipe
from ltpa.training.twostream import TwoStreamTrainer


class TwoStreamJob(TrainingJob):
    """The trainings of one two-stream network."""

    recipe: TwoStreamRecipe

    def start(self, seed: int) -> tuple[dict[str, str], Any]:
        """Hashes of the weights' facts and of the boxes; the untrained network, those facts, and the data."""
        spec, recipe = self.spec, self.recipe
        boxes = layout.boxes_path(self.results, spec.dataset, recipe.patches, seed) if recipe.patches else None
        train, test = fine_splits(self.dataset, boxes, recipe.boxes, recipe.split)
        torch.manual_seed(derive(seed, "init"))
        model = build_model(spec.architecture, spec.num_classes, spec.image_size)
        assert isinstance(model, TwoStream)
        weights = _start(model, recipe.weights)
        facts = {"weights": digest(weights), "boxes": sha256_file(boxes) if boxes else ""}
        return facts, (model, weights, train, test)

    def make_ready(
        self, seed: int, name: str, device: torch.device, state: Path, identity: Identity, given: Any
    ) -> Ready:
        """The training of one seed."""
        spec, recipe = self.spec, self.recipe
        model, weights, train, test = given
        assert identity.start is not None
        facts = self.savable(seed)
        return Ready(
            TwoStreamTrainer(
                model,
                train,
                test.labels,
                _predict(test, seed),
                recipe,
                seed,
                state,
                device,
                name=name,
                key=identity.key,
            ),
            lambda path: save_model(path, model, **facts),
            lambda history: _metrics(spec, recipe.split, history, len(test.labels), len(train.labels)),
            lambda logits: logits.argmax(1) == test.labels,
            {
                "recipe": recipe.plain(),
                "architecture": model.architecture,
                "weights": weights,
                "patches": {"source": recipe.patches, "boxes": recipe.boxes, "sha256": identity.start["boxes"]},
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


def _predict(data: FineData, seed: int) -> Callable[[TwoStream, slice], np.ndarray]:
    """Joint logits of the images of a slice, each seen with one random patch: the released code's way of testing.

    The patch is the first draw of the policy `random1`.
    """
    boxes = data.boxes
    if boxes is not None:
        boxes = boxes[np.arange(len(boxes)), random_ranks(seed, boxes)[0]][:, None]
    return lambda model, part: joint_logits(model, data.images[part], None if boxes is None else boxes[part])


def _metrics(spec: TrainSpec, split: str, history: list[EpochRow], test_images: int, train_images: int) -> list[Metric]:
    last = history[-1]
    best = min(row.test_error_pct for row in history if not math.isnan(row.test_error_pct))
    target = spec.dataset if split == "test" else f"{spec.dataset}/{split}"
    return [
        Metric(TEST_ERROR, last.test_error_pct, test_images, target),
        Metric("parity_best_test_accuracy_pct", 100 - best, test_images, target, JOINT),
        Metric("chance_error_pct", 100 * (1 - 1 / spec.num_classes), test_images, target),
        Metric("train_error_pct", last.train_error_pct, train_images, spec.dataset),
        Metric("train_loss", last.train_loss, train_images, spec.dataset),
    ]
