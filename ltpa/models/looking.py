"""What networks offer that look at an image step by step: RAM's glimpses, the steps of a reader."""

import abc
from typing import NamedTuple

from torch import Tensor


class Walk(NamedTuple):
    """How images were looked at.

    Attributes:
        logits: (N, steps, classes), what is known after each step; the last row is the network's answer.
        locations: (N, steps, 2), where each glimpse was taken: (x, y), (0, 0) the centre, (-1, -1) the top left corner.
    """

    logits: Tensor
    locations: Tensor


class Glimpsing(abc.ABC):
    """A network that sees glimpses of an image, one after the other."""

    glimpses: int

    @abc.abstractmethod
    def walk(self, x: Tensor, path: Tensor | None = None) -> Walk:
        """Look at images along `path` (N, glimpses, 2), or where the network itself wants to look.

        Draws nothing: its own locations are the means of its policy.
        """


class Reading(abc.ABC):
    """A network that reads a map of features by weighing its cells, step by step.

    Attributes:
        steps: how often it reads.
        cells: (rows, columns) of the map.
    """

    steps: int
    cells: tuple[int, int]

    @abc.abstractmethod
    def read(self, x: Tensor, way: str, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, steps, classes) and weights (N, steps, rows, columns) of images read in one `way`.

        Args:
            way: `expectation` of the features under the weights, the cell of the largest weight (`argmax`), or a
                `sample` of the cells.
            noise: (N, steps, cells) numbers in (0, 1) for `sample`.
        """
