"""Fully connected networks: the baselines FC-64 and FC-256 of Mnih et al. 2014."""

from typing import Annotated, ClassVar

from pydantic import Field

from ltpa.models.small_options import SmallOptions


class Options(SmallOptions):
    """`hidden`: units of each of the two hidden layers."""

    builder: ClassVar[str] = "ltpa.models.small:build_mlp"
    named_by: ClassVar[tuple[str, ...]] = ("hidden", "channels")

    hidden: Annotated[int, Field(ge=1, le=4096)] = 256
