"""Pre-activation residual networks of depth 9 x `blocks_per_stage` + 2, with or without attention."""

from typing import Annotated, ClassVar

from pydantic import Field

from ltpa.models.options import AttentionOptions


class Options(AttentionOptions):
    """Without `levels` it is the plain baseline. `blocks_per_stage` is 18 in the paper; 200 are 1,802 layers."""

    size_multiple: ClassVar[int] = 4
    builder: ClassVar[str] = "ltpa.models.resnet:build_resnet"
    recipes: ClassVar[str] = "resnet"
    layers: ClassVar[tuple[str, ...]] = ("stage2", "stage3")
    known_levels: ClassVar[tuple[str, ...]] = ("stage2", "stage3")

    def built_by(self) -> str:
        """The baseline needs no code of attention."""
        return "ltpa.models.resnet_attention:build_resnet_attention" if self.levels else self.builder

    blocks_per_stage: Annotated[int, Field(ge=1, le=200)] = 18
