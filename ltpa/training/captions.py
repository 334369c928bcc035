"""Training of captioners: the cells of all images once, then steps on captions.

The trunk is not trained, so what it makes of an image is the same at every step.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from ltpa.models.captioner import Captioner, greedy, word_log_p
from ltpa.training.caption_recipe import CaptionRecipe
from ltpa.training.eager import EagerStepping
from ltpa.training.loop import Loop, Watch


@dataclasses.dataclass
class Captioned:
    """Captions (N, T) int64 with -1 behind the end, and the cells (N, L, D) of their images; both on the device.

    `cells` is empty until the trunk has its weights (`look`).
    """

    captions: Tensor
    cells: Tensor

    @torch.no_grad()
    def look(self, model: Captioner, inputs: Tensor, batch: int) -> None:
        """Fill `cells` from network inputs (N, 3, S, S), `batch` images at a time."""
        was_training = model.training
        model.eval()
        self.cells = torch.cat([model.cells(part.to(self.captions.device)) for part in inputs.split(batch)])
        model.train(was_training)


class CaptionStepper(EagerStepping):
    """Takes the steps of a captioner on `train`. Sums -log p of captions, and counts those with a wrong word."""

    model: Captioner
    recipe: CaptionRecipe

    def __init__(self, model: Captioner, train: Captioned, recipe: CaptionRecipe, seed: int) -> None:
        super().__init__(model, len(train.captions), recipe, seed, train.captions.device)
        self.train = train

    def loss(self, rows: Tensor) -> Tensor:
        """As in `EagerStepping`."""
        captions = self.train.captions[rows]
        loss, log_p = self.model.caption_loss(self.train.cells[rows], captions)
        log_p = log_p.detach()
        self._loss_sum.add_(-word_log_p(log_p, captions).sum(1).mean())
        self._wrong.add_(((log_p.argmax(2) != captions) & (captions >= 0)).any(1).sum())
        return loss


class CaptionTrainer(Loop):
    """Trains `model` on `train`; a test caption is wrong unless the greedy one equals it, word by word.

    `outputs` are the words of the greedy captions, (N, T), -1 behind the end.

    Args:
        folder, watch, name, key: as in `Loop`.
    """

    model: Captioner
    recipe: CaptionRecipe

    def __init__(
        self,
        model: Captioner,
        train: Captioned,
        test: Captioned,
        recipe: CaptionRecipe,
        seed: int,
        folder: Path,
        watch: Watch | None = None,
        name: str = "training",
        key: str = "",
    ) -> None:
        stepper = CaptionStepper(model, train, recipe, seed)
        super().__init__(model, stepper, recipe, len(test.captions), folder, watch or Watch(), name, key)
        self.test = test

    def wrong(self, part: slice) -> Tensor:
        """How many of these test scenes get another caption than theirs; in the last epoch the captions are kept."""
        was_training = self.model.training
        words = greedy(self.model.eval(), self.test.cells[part]).words
        self.model.train(was_training)
        self.keep(words)
        return (words != self.test.captions[part]).any(1).sum()
