"""VGG with a block that relates positions: non-local, SAGAN, local self-attention, or a convolution as a control."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.models.families import vgg

_OWN = {  # the options of each kind of block; those of others must be left out
    "nonlocal": ("block_function", "block_pool", "block_scale"),
    "sagan": ("block_pool",),
    "local": ("block_window", "block_heads"),
    "conv": (),
}


class Options(vgg.Options):
    """The baseline with a block behind one of its layers (`ltpa.models.relational`).

    Attributes:
        block: its kind.
        block_after: the layer whose map it gets, before the pool.
        block_function: how a non-local block compares positions.
        block_pool: side of the windows that keys and values are pooled by; 1 for no pooling.
        block_scale: of the scores of `embedded`: `sqrt` divides them by the root of the inner width.
        block_window: side of the window of local attention, odd.
        block_heads: its heads, which divide the channels.
    """

    builder: ClassVar[str] = "ltpa.models.vgg_block:build_vgg_block"
    named_by: ClassVar[tuple[str, ...]] = (
        "block",
        "block_after",
        *dict.fromkeys(option for options in _OWN.values() for option in options),
    )

    block: Literal["nonlocal", "sagan", "local", "conv"]
    block_after: Literal["conv7", "conv10", "conv13"] = "conv7"
    block_function: Literal["gaussian", "embedded", "dot", "concatenation"] = "embedded"
    block_pool: Literal[1, 2] = 2
    block_scale: Literal["none", "sqrt"] = "none"
    block_window: Annotated[int, Field(ge=1, le=99)] = 5
    block_heads: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for option in self.named_by[2:]:
            if option not in _OWN[self.block] and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option} is no option of block {self.block}; leave it out")
        if self.block_scale == "sqrt" and self.block_function != "embedded":
            raise ValueError(f"block_scale sqrt goes with block_function embedded, not {self.block_function}")
        if self.block_window % 2 == 0:
            raise ValueError(f"block_window is {self.block_window}; it must be odd")
        channels = self.channels(256 if self.block_after == "conv7" else 512)
        if self.block == "local" and channels % self.block_heads:
            raise ValueError(f"block_heads {self.block_heads} does not divide the {channels} channels of its map")
        return self

    @property
    def map_levels(self) -> tuple[str, ...]:
        """The block's map of received attention; the control has none."""
        return () if self.block == "conv" else (self.block_after,)

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless the network takes such images, and the block's map is large enough for it."""
        super().check_image_size(size)
        side = size
        for _ in range({"conv7": 2, "conv10": 3, "conv13": 4}[self.block_after]):
            side = -(-side // 2)
        if self.block in ("nonlocal", "sagan") and side < self.block_pool:
            raise ModelError(
                f"block_pool is 2, and the map of {self.block_after} has {side} x {side} positions for images of "
                f"{size} pixels; set it to 1, or block_after to an earlier layer"
            )
        if self.block == "local" and self.block_window > 2 * side - 1:
            raise ModelError(
                f"block_window is {self.block_window}, and from one end of {self.block_after}'s map of {side} x {side} "
                f"to the other a window of {2 * side - 1} reaches; make it smaller"
            )
