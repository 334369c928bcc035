"""Training on images and classes alone (Jetley et al. 2018)."""

from pathlib import Path
from typing import Any

import torch

from ltpa.core.records import Metric
from ltpa.core.seeds import derive
from ltpa.core.specs import TrainSpec
from ltpa.models import build_model, save_model, warm_start
from ltpa.models.base import AttentionClassifier
from ltpa.stages.preprocessing import fitted_normaliser
from ltpa.stages.state import Identity
from ltpa.stages.training import TEST_ERROR, Ready, TrainingJob, memory_for_data
from ltpa.training.arrays import Arrays
from ltpa.training.engine import Trainer
from ltpa.training.loop import EpochRow
from ltpa.training.recipe import Recipe


class CrossEntropyJob(TrainingJob):
    """The trainings of one network on images and classes."""

    recipe: Recipe

    def start(self, seed: int) -> tuple[dict[str, str] | None, Any]:
        """The facts of the network that this one starts from."""
        return self.start_facts(seed), None

    def make_ready(
        self, seed: int, name: str, device: torch.device, state: Path, identity: Identity, given: Any
    ) -> Ready:
        """The training of one seed."""
        spec, dataset = self.spec, self.dataset
        recipe = self.recipe
        train, test = dataset.split("train"), dataset.split("test")
        facts = self.savable(seed, recipe.normalise)
        preprocessing = fitted_normaliser(self.results, dataset, recipe.normalise)
        torch.manual_seed(derive(seed, "init"))
        model = build_model(spec.architecture, spec.num_classes, spec.image_size).to(device)
        arrays = []
        for split in (train, test):
            size = split.images.size * (1 if preprocessing.pointwise else 4)
            with memory_for_data(name, len(split.images), size, device):
                arrays.append(
                    Arrays.prepare(split.images, split.labels, preprocessing, device, lambda: self.check(name))
                )

        def save(path: Path) -> None:
            model.preprocessing = preprocessing
            save_model(path, model.cpu(), **facts)

        trainer = Trainer(model, arrays[0], arrays[1], recipe, seed, state, name=name, key=identity.key)

        return Ready(
            trainer,
            save,
            lambda history: _metrics(spec, history[-1], len(test.labels), len(train.labels)),
            lambda logits: logits.argmax(1) == test.labels,
            {"recipe": recipe.plain(), "architecture": spec.architecture},
            lambda: self._begin(model, identity.start, seed),
        )

    def _begin(self, model: AttentionClassifier, start: dict[str, str] | None, seed: int) -> None:
        """Give the network the weights of the one it starts from."""
        if start is not None:
            self.refuse_failed(start, seed)
            warm_start(model, self.source(start, seed))


def _metrics(spec: TrainSpec, last: EpochRow, test_images: int, train_images: int) -> list[Metric]:
    chance = 100 * (1 - 1 / spec.num_classes)
    return [
        Metric(TEST_ERROR, last.test_error_pct, test_images, spec.dataset),
        Metric("chance_error_pct", chance, test_images, spec.dataset),
        Metric("train_error_pct", last.train_error_pct, train_images, spec.dataset),
        Metric("train_loss", last.train_loss, train_images, spec.dataset),
    ]
