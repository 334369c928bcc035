"""Training of networks over pixels (van den Oord et al. 2016; Parmar et al. 2018)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltpa.core.records import Metric
from ltpa.core.seeds import derive
from ltpa.core.specs import TrainSpec
from ltpa.data.levels import levels_of
from ltpa.evaluation.codes import context_bits
from ltpa.models import build_model, save_model
from ltpa.models.pixels import PixelNetwork
from ltpa.stages.state import Identity
from ltpa.stages.training import TEST_ERROR, Ready, TrainingJob
from ltpa.training.pixel_recipe import PixelRecipe
from ltpa.training.pixels import NATS_PER_BIT, PixelRow, PixelTrainer


class PixelJob(TrainingJob):
    """The trainings of one network over pixels.

    Its test error is the share of images that cost no fewer bits than under the left and upper pixel as context
    (`ltpa.evaluation.codes`); a network that has learned nothing fails at all of them.
    """

    recipe: PixelRecipe

    def start(self, seed: int) -> tuple[dict[str, str] | None, Any]:
        """Nothing: weights are random at first."""
        return None, None

    def make_ready(
        self, seed: int, name: str, device: torch.device, state: Path, identity: Identity, given: Any
    ) -> Ready:
        """The training of one seed."""
        spec, recipe = self.spec, self.recipe
        train, test = (self._levels(split) for split in ("train", recipe.split))
        facts = self.savable(seed)
        torch.manual_seed(derive(seed, "init"))
        model = build_model(spec.architecture, spec.num_classes, spec.image_size).to(device)
        assert isinstance(model, PixelNetwork)
        tensors = [torch.from_numpy(levels.astype(np.int64)).to(device) for levels in (train, test)]
        for levels in tensors:
            model.logits(levels[:1])  # refuses levels and sizes that the network does not know
        limit = context_bits(train, test, spec.num_classes, "left-upper").sum((1, 2))

        def right(outputs: np.ndarray) -> np.ndarray:
            return outputs.astype(np.float64).sum(1) / NATS_PER_BIT < limit

        trainer = PixelTrainer(model, tensors[0], tensors[1], recipe, seed, state, name=name, key=identity.key)
        return Ready(
            trainer,
            lambda path: save_model(path, model.cpu(), **facts),
            lambda history: _metrics(spec, recipe.split, history[-1], right(trainer.test_logits().numpy()), len(train)),
            right,
            {"recipe": recipe.plain(), "architecture": spec.architecture},
        )

    def _levels(self, name: str) -> np.ndarray:
        return levels_of(self.dataset.split(name), self.dataset.name)


def _metrics(spec: TrainSpec, split: str, last: Any, right: np.ndarray, trained_on: int) -> list[Metric]:
    assert isinstance(last, PixelRow)
    target = spec.dataset if split == "test" else f"{spec.dataset}/{split}"
    return [
        Metric(TEST_ERROR, 100 * float((~right).mean()), len(right), target),
        Metric("chance_error_pct", 100.0, len(right), target),
        Metric("test_bits_per_dim", last.test_bits_per_dim, len(right), target),
        Metric("train_loss", last.train_loss, trained_on, spec.dataset),
    ]
