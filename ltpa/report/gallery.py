"""Grids of pictures for reading and for print: images, maps over images, masks, differences, each with its caption."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltpa.report.overlays import BRIGHTEST, grid, relative_to_uniform, save_figure

_STEEPEST = 3.0  # times a uniform map, for differences of two maps


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One picture of a grid.

    Attributes:
        image: (H, W, 3) uint8, or a mask (H, W) of bool.
        saliency: (H, W) laid over the image, not negative; or None.
        difference: (H, W) laid over the image, of either sign, in units of a uniform map; or None.
        outline: (H, W) whose border is drawn in white, or None.
        caption: text below the picture.
    """

    image: np.ndarray
    saliency: np.ndarray | None = None
    difference: np.ndarray | None = None
    outline: np.ndarray | None = None
    caption: str = ""


def draw_gallery(
    paths: Sequence[Path], titles: Sequence[str], row_labels: Sequence[str], rows: Sequence[Sequence[Cell]]
) -> None:
    """Write one grid to every path; the suffix tells the format (png, svg, pdf).

    Colours mean the same in all cells: maps run from zero to `BRIGHTEST` times a uniform map.
    """
    figure = grid(len(rows), len(titles))
    for row, (label, cells) in enumerate(zip(row_labels, rows, strict=True)):
        axes = figure.axes[row * len(titles) : (row + 1) * len(titles)]
        axes[0].set_ylabel(label, fontsize=6)
        for axis, cell, title in zip(axes, cells, titles, strict=True):
            axis.imshow(cell.image, cmap="gray", vmin=0, vmax=1)
            if cell.saliency is not None:
                shown = relative_to_uniform(cell.saliency)
                axis.imshow(shown, cmap="inferno", alpha=0.65, vmin=0, vmax=BRIGHTEST)
            if cell.difference is not None:
                axis.imshow(cell.difference, cmap="coolwarm", alpha=0.75, vmin=-_STEEPEST, vmax=_STEEPEST)
            if cell.outline is not None and cell.outline.any() and not cell.outline.all():
                axis.contour(cell.outline, levels=[0.5], colors="white", linewidths=0.8)
            if cell.caption:
                axis.set_xlabel(cell.caption, fontsize=5, labelpad=1)
            if row == 0:
                axis.set_title(title, fontsize=5)
    save_figure(figure, *paths)
