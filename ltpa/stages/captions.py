"""Training of captioners on scenes and their captions (Xu et al. 2015), over the trunk of a network trained before."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ltpa.core.errors import DataError
from ltpa.core.records import Metric
from ltpa.core.seeds import derive
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import Split
from ltpa.data.normalise import Normaliser
from ltpa.models import build_model, save_model, warm_start
from ltpa.models.captioner import Captioner
from ltpa.stages.state import Identity
from ltpa.stages.training import TEST_ERROR, Ready, TrainingJob, memory_for_data
from ltpa.training.arrays import Arrays
from ltpa.training.caption_recipe import CaptionRecipe
from ltpa.training.captions import Captioned, CaptionTrainer
from ltpa.training.loop import EpochRow


class CaptionJob(TrainingJob):
    """The trainings of one captioner."""

    recipe: CaptionRecipe

    def start(self, seed: int) -> tuple[dict[str, str] | None, Any]:
        """The facts of the network that gives the trunk, or all weights."""
        return self.start_facts(seed), None

    def make_ready(
        self, seed: int, name: str, device: torch.device, state: Path, identity: Identity, given: Any
    ) -> Ready:
        """The training of one seed."""
        spec, recipe = self.spec, self.recipe
        train, test = (self._captioned(split) for split in ("train", recipe.split))
        source = self.source(identity.start, seed)
        preprocessing = cast(Normaliser, source.preprocessing)  # that of the trunk
        facts = self.savable(seed, source.metadata["normalisation"])
        torch.manual_seed(derive(seed, "init"))
        model = build_model(spec.architecture, spec.num_classes, spec.image_size).to(device)
        assert isinstance(model, Captioner)
        parts = [Captioned(_captions(split, model, name).to(device), torch.empty(0)) for split in (train, test)]

        def begin() -> None:
            self.refuse_failed(identity.start, seed)
            warm_start(model, source)
            for split, part in zip((train, test), parts, strict=True):
                with memory_for_data(name, len(split.images), split.images.size * 4, device):
                    arrays = Arrays.prepare(split.images, split.labels, preprocessing, device, lambda: self.check(name))
                    part.look(model, arrays.inputs(arrays.images), recipe.evaluation_batch)

        def save(path: Path) -> None:
            model.preprocessing = preprocessing
            save_model(path, model.cpu(), **facts)

        wanted = parts[1].captions.cpu().numpy()
        return Ready(
            CaptionTrainer(model, parts[0], parts[1], recipe, seed, state, name=name, key=identity.key),
            save,
            lambda history: _metrics(spec, recipe.split, history[-1], train, test),
            lambda outputs: (outputs == wanted).all(1),
            {"recipe": recipe.plain(), "architecture": spec.architecture},
            begin,
        )

    def _captioned(self, name: str) -> Split:
        split = self.dataset.split(name)
        if "captions" not in split.more:
            raise DataError(
                f"dataset {self.dataset.name}: its images have no captions; train captioners on a set of use captions"
            )
        return split


def _captions(split: Split, model: Captioner, name: str) -> torch.Tensor:
    """The captions of a split as the network takes them."""
    captions = np.asarray(split.more["captions"], dtype=np.int64)
    longest = int((captions >= 0).sum(1).max())
    if longest > model.options.length:
        raise DataError(
            f"{name}: a caption has {longest} words with its end, and the network says at most {model.options.length}; "
            "raise the option length"
        )
    if captions.max() >= model.num_classes:
        raise DataError(f"{name}: a caption has word {captions.max()}, and there are {model.num_classes} words")
    padded = np.full((len(captions), model.options.length), -1, np.int64)
    width = min(padded.shape[1], captions.shape[1])
    padded[:, :width] = captions[:, :width]
    return torch.from_numpy(padded)


def _metrics(spec: TrainSpec, split: str, last: EpochRow, train: Split, test: Split) -> list[Metric]:
    target = spec.dataset if split == "test" else f"{spec.dataset}/{split}"
    possible = len(np.unique(np.asarray(train.more["captions"]), axis=0))
    return [
        Metric(TEST_ERROR, last.test_error_pct, len(test), target),
        Metric("chance_error_pct", 100 * (1 - 1 / max(2, possible)), len(test), target),
        Metric("train_error_pct", last.train_error_pct, len(train), spec.dataset),
        Metric("train_loss", last.train_loss, len(train), spec.dataset),
    ]
