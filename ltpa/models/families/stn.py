"""A Spatial Transformer before a small CNN (Jaderberg et al. 2015)."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.models.small_options import SmallOptions


class Options(SmallOptions):
    """How the window is chosen (`ltpa.models.stn`).

    Attributes:
        transform: `affine` (6 numbers), `attention` (one scale and a translation), or `translation` at a fixed `zoom`.
        zoom: side of the window of `translation` as a share of the image's.
        output: side of what is cut out, in pixels.
    """

    builder: ClassVar[str] = "ltpa.models.stn:build_stn"
    named_by: ClassVar[tuple[str, ...]] = ("transform", "zoom", "output", "channels")
    smallest_image: ClassVar[int] = 12

    transform: Literal["affine", "attention", "translation"] = "translation"
    zoom: Annotated[float, Field(gt=0, le=1)] = 1.0
    output: Annotated[int, Field(ge=4, le=512)] = 20

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.zoom != 1 and self.transform != "translation":
            raise ValueError(f"zoom is fixed for transform translation alone, {self.transform} learns it; leave it out")
        return self

    @property
    def map_levels(self) -> tuple[str, ...]:
        """Where the window lies."""
        return ("window",)

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless the network takes such images, and the output is no larger."""
        super().check_image_size(size)
        if self.output > size:
            raise ModelError(f"output is {self.output} pixels, and images have {size}; make it smaller")
