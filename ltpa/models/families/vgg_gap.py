"""VGG-GAP: 13 convolutions, global average pooling, class activation maps."""

from typing import ClassVar

from ltpa.models.families.vgg import PoolOptions


class Options(PoolOptions):
    """No options of its own."""

    builder: ClassVar[str] = "ltpa.models.vgg:build_gap"
