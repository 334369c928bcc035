"""The recipe of networks over pixels, as plain data. Free of torch."""

from typing import ClassVar, Literal

from ltpa.training.recipe import UpdateRoutine


class PixelRecipe(UpdateRoutine):
    """How a network learns to say how likely each pixel is.

    Attributes:
        split: what the network is tested on: the `test` images, or for choices the `validation` images.
    """

    job: ClassVar[str] = "ltpa.stages.pixels:PixelJob"

    learning: Literal["likelihood"]
    split: Literal["test", "validation"] = "test"
