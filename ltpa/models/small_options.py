"""Options of the small networks of the survey, which look at grey images. Free of torch."""

from typing import ClassVar, Literal

from ltpa.core.errors import ModelError
from ltpa.models.options import MAX_SIDE, NetworkOptions


class SmallOptions(NetworkOptions):
    """What they share.

    Attributes:
        width: factor on every number of units, 1 for the published networks.
        channels: `grey`, the mean of red, green and blue, as the published counts of parameters have it, or `rgb`.
    """

    recipes: ClassVar[str] = "survey"
    layers: ClassVar[tuple[str, ...]] = ()
    smallest_image: ClassVar[int] = 8

    channels: Literal["grey", "rgb"] = "grey"

    @property
    def inputs(self) -> int:
        """Channels that the network looks at."""
        return 1 if self.channels == "grey" else 3

    def units(self, full: int) -> int:
        """Units of a layer that has `full` at width 1, at least 4."""
        return max(4, round(full * self.width))

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless the network takes images of `size` x `size` pixels."""
        if not isinstance(size, int) or not self.smallest_image <= size <= MAX_SIDE:
            raise ModelError(
                f"{self.family} cannot take images of size {size!r}; use a whole number from {self.smallest_image} to "
                f"{MAX_SIDE}"
            )
