"""VGG-att, att2, att3: attention at one to three levels of a 17-layer VGG."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ltpa.core.schema import ListOf
from ltpa.models.families.vgg import PoolOptions
from ltpa.models.options import AttentionOptions


class Options(PoolOptions, AttentionOptions):
    """`global_branches`: one g `shared` by all levels (the paper), or one branch `per-level`."""

    builder: ClassVar[str] = "ltpa.models.vgg_attention:build_vgg_attention"
    known_levels: ClassVar[tuple[str, ...]] = ("conv7", "conv10", "conv13")
    named_by: ClassVar[tuple[str, ...]] = (*AttentionOptions.named_by, "global_branches")

    levels: Annotated[ListOf[str], Field(min_length=1)] = ("conv10", "conv13")
    global_branches: Literal["shared", "per-level"] = "shared"

    @property
    def smallest_image(self) -> int:
        """As PAN; but for birds conv7's map is cut to 32 x 32 before it is attended to, and never enlarged."""
        if self.pools == "cub" and "conv7" in self.levels:
            return 32
        if self.compatibility == "local":  # without a global branch there are two pools
            return super().smallest_image
        return 41 if self.pools == "cub" else 17
