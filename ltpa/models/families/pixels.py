"""Networks that say how likely each pixel is after those before it: PixelCNN, gated PixelCNN, Image Transformer."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.models.options import MAX_SIDE, NetworkOptions, Positive

Count = Annotated[int, Field(ge=1, le=4096)]
_CONVOLVES = ("pixelcnn", "gated")


class Options(NetworkOptions):
    """One network over pixels of some levels, in reading order; the classes of its dataset are the levels.

    Attributes:
        kind: `pixelcnn` (van den Oord et al., ICML 2016), `gated` (van den Oord et al., NeurIPS 2016), or `attention`
            (Parmar et al. 2018, local attention in one dimension).
        hidden: h of a PixelCNN, whose stream has 2h channels; channels of a gated one; d of a transformer.
        depth: residual blocks of a PixelCNN, layers of the others.
        first_kernel: side of the first convolution, which does not see the pixel itself; odd.
        kernel: side of the other convolutions; odd.
        heads: of attention; they divide `hidden`.
        inner: channels of the feed-forward part behind attention.
        block: positions of a block of queries (l_q).
        memory: positions before a block that it sees besides itself (l_m); `all` for full attention.
        position_sd: deviation of the learned positions at first.
    """

    builder: ClassVar[str] = "ltpa.models.pixels:build_pixels"
    recipes: ClassVar[str] = "pixels"
    learning: ClassVar[str] = "likelihood"
    trained_on: ClassVar[str] = "pixels"
    named_by: ClassVar[tuple[str, ...]] = ("kind", "first_kernel", "kernel", "block", "memory")

    kind: Literal["pixelcnn", "gated", "attention"]
    hidden: Count = 20
    depth: Annotated[int, Field(ge=1, le=100)] = 4
    first_kernel: Annotated[int, Field(ge=3, le=99)] = 5
    kernel: Annotated[int, Field(ge=3, le=99)] = 3
    heads: Count = 4
    inner: Count = 64
    block: Count = 8
    memory: Annotated[int, Field(ge=0, le=10**6)] | Literal["all"] = "all"
    position_sd: Positive = 0.7

    @property
    def channels(self) -> int:
        """`hidden` under the factor `width`; of a transformer a multiple of its heads."""
        unit = self.heads if self.kind == "attention" else 1
        return unit * max(1, round(self.hidden * self.width / unit))

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless images have a side of 1 to `MAX_SIDE` pixels."""
        if not (isinstance(size, int) and 1 <= size <= MAX_SIDE):
            raise ModelError(f"pixels cannot read images of size {size!r}; use a whole number from 1 to {MAX_SIDE}")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Kernels have a middle, heads share the channels evenly."""
        for name in ("first_kernel", "kernel"):
            if self.kind in _CONVOLVES and getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be odd, so that a pixel is in its middle")
        if self.kind == "attention" and self.hidden % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {self.hidden} channels; choose heads that do")
        return self
