"""The training engine: network, arrays, recipe and seed in; a trained network and its history out."""

from pathlib import Path

from torch import Tensor

from ltpa.models.base import AttentionClassifier
from ltpa.training.arrays import Arrays, evaluation_logits
from ltpa.training.loop import Loop, Watch
from ltpa.training.recipe import Recipe
from ltpa.training.step import Stepper


class Trainer(Loop):
    """Trains `model` on `train` and reports the error on `test`.

    Args:
        model: a network of `ltpa.models`.
        recipe, seed: what to do; with the arrays they fix the result's bits on one machine.
        folder, watch, name, key: as in `Loop`.
    """

    stepper: Stepper

    def __init__(
        self,
        model: AttentionClassifier,
        train: Arrays,
        test: Arrays,
        recipe: Recipe,
        seed: int,
        folder: Path,
        watch: Watch | None = None,
        name: str = "training",
        key: str = "",
    ) -> None:
        stepper = Stepper(model, train, recipe, seed)
        super().__init__(model, stepper, recipe, len(test.labels), folder, watch or Watch(), name, key)
        self.test_arrays = test

    def wrong(self, part: slice) -> Tensor:
        """How many of these test images the network gets wrong; in the last epoch their logits are kept."""
        logits = evaluation_logits(self.model, self.test_arrays, part)
        self.keep(logits)
        return (logits.argmax(1) != self.test_arrays.labels[part]).sum()
