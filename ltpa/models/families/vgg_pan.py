"""VGG-PAN: progressive attention (Seo et al. 2016)."""

from typing import ClassVar, Literal, Self

from ltpa.models.families.vgg import PoolOptions


class Options(PoolOptions):
    """`compatibility` is that of the last level; the gate's is always pc, through a sigmoid."""

    builder: ClassVar[str] = "ltpa.models.pan:build_pan"
    single_pass: ClassVar[bool] = False
    named_by: ClassVar[tuple[str, ...]] = ("compatibility",)

    compatibility: Literal["pc", "local"] = "pc"

    @property
    def map_levels(self) -> tuple[str, ...]:
        """The gate's map and the last level's."""
        return ("conv10", "conv13")

    @property
    def takes_other_maps(self) -> bool:
        """The gate's, too."""
        return True

    @property
    def query_levels(self) -> tuple[str, ...]:
        """The gate has a global vector of its own whatever the last level has."""
        return self.map_levels if self.compatibility == "pc" else ("conv10",)

    def without_dead_branch(self) -> Self:
        """The last level's branch cannot matter, the gate's does."""
        return self.model_copy(update={"compatibility": "local"})

    @property
    def smallest_image(self) -> int:
        """Five halvings, of which for birds the first is a division by 5."""
        return 41 if self.pools == "cub" else 17
