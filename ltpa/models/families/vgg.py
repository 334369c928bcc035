"""VGG: the 15-layer baseline without attention."""

from typing import ClassVar, Literal

from ltpa.models.options import ClassifierOptions


class PoolOptions(ClassifierOptions):
    """`pools`: where a VGG network pools; `cub` places pools as the 80 x 80 networks for birds do."""

    recipes: ClassVar[str] = "vgg"
    layers: ClassVar[tuple[str, ...]] = ("conv7", "conv10", "conv13")

    pools: Literal["cifar", "cub"] = "cifar"


class Options(PoolOptions):
    """The baseline."""

    builder: ClassVar[str] = "ltpa.models.vgg:build_vgg"

    @property
    def smallest_image(self) -> int:
        """Five halvings, for birds six; the last needs at least 2 x 2 values."""
        return 33 if self.pools == "cub" else 17
