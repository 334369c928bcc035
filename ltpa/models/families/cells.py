"""A small classifier of single objects wherever they lie: five convolutions, the largest value of each channel."""

from typing import ClassVar

from ltpa.models.options import ClassifierOptions

STRIDE = 4  # pixels from cell to cell


class Options(ClassifierOptions):
    """Its trunk is what captioners read (`ltpa.models.families.captioner`); it learns from single objects alone."""

    builder: ClassVar[str] = "ltpa.models.cells:build_cells"
    recipes: ClassVar[str] = "cells"
    trained_on: ClassVar[str] = "objects"
    layers: ClassVar[tuple[str, ...]] = ("cells",)
    size_multiple: ClassVar[int] = STRIDE

    @property
    def smallest_image(self) -> int:
        """Two cells by two."""
        return 2 * STRIDE
