"""One convolution and one hidden layer: the convolutional baseline of Mnih et al. 2014."""

from typing import Annotated, ClassVar

from pydantic import Field

from ltpa.models.small_options import SmallOptions

WINDOW, STRIDE = 10, 5  # of the convolution, in pixels


class Options(SmallOptions):
    """`filters`: of the convolution; `hidden`: units of the layer behind it."""

    builder: ClassVar[str] = "ltpa.models.small:build_conv2"
    named_by: ClassVar[tuple[str, ...]] = ("filters", "hidden", "channels")
    smallest_image: ClassVar[int] = WINDOW

    filters: Annotated[int, Field(ge=1, le=512)] = 8
    hidden: Annotated[int, Field(ge=1, le=4096)] = 256
