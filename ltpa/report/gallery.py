"""Grids of pictures for reading and for print: images, maps over images, masks, differences, each with its caption."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.text import figure_text
from ltpa.report.overlays import BRIGHTEST, add_text, grid, relative_to_uniform, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEEPEST = 3.0  # times a uniform map, for differences of two maps
_BAR_INCHES = 0.6
_SCALES = {"saliency": ("inferno", 0.0, BRIGHTEST), "difference": ("coolwarm", -_STEEPEST, _STEEPEST)}


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
    paths: Sequence[Path],
    titles: Sequence[str],
    row_labels: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    heading: str = "",
    caption: str = "",
) -> None:
    """Write one grid to every path; the suffix decides the format (png, svg, pdf).

    Colours mean the same in all cells, as the bars beside them say: maps run from zero to `BRIGHTEST` times a uniform
    map. They lie over the image in grey, so that no colour is the image's own.
    """
    figure = grid(len(rows), len(titles))
    for row, (label, cells) in enumerate(zip(row_labels, rows, strict=True)):
        axes = figure.axes[row * len(titles) : (row + 1) * len(titles)]
        axes[0].set_ylabel(figure_text(label), fontsize=6.5)
        for axis, cell, title in zip(axes, cells, titles, strict=True):
            over = cell.saliency is not None or cell.difference is not None
            axis.imshow(_grey(cell.image) if over else cell.image, cmap="gray", vmin=0, vmax=1)
            if cell.saliency is not None:
                _lay_over(axis, relative_to_uniform(cell.saliency), "saliency")
            if cell.difference is not None:
                _lay_over(axis, cell.difference, "difference")
            if cell.outline is not None and cell.outline.any() and not cell.outline.all():
                for colour, width in (("black", 1.8), ("white", 0.8)):  # to be seen on any ground
                    axis.contour(cell.outline, levels=[0.5], colors=colour, linewidths=width)
            if cell.caption:
                axis.set_xlabel(figure_text(cell.caption), fontsize=5.5, labelpad=1)
            if row == 0:
                axis.set_title(figure_text(title), fontsize=6)
    cells = [cell for row in rows for cell in row]
    _add_bars(figure, [kind for kind in _SCALES if any(getattr(cell, kind) is not None for cell in cells)])
    add_text(figure, heading, caption)
    save_figure(figure, *paths)


def _grey(image: np.ndarray) -> np.ndarray:
    """Luminance (H, W) of an image, 0-1."""
    return image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255 if image.ndim == 3 else image


def _lay_over(axis: "Axes", values: np.ndarray, kind: str) -> None:
    colours, low, high = _SCALES[kind]
    axis.imshow(values, cmap=colours, alpha=0.65, vmin=low, vmax=high)


def _add_bars(figure: "Figure", kinds: Sequence[str]) -> None:
    """A bar of colours at the right for each kind of map that is shown, for which the figure grows."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    cells = figure.axes
    figure.set_figwidth(figure.get_figwidth() + _BAR_INCHES * len(kinds))
    inches = figure.get_figwidth()
    names = {"saliency": "map, times a uniform one", "difference": "query's minus own, times a uniform map"}
    for kind in kinds:
        colours, low, high = _SCALES[kind]
        scale = ScalarMappable(Normalize(low, high), colours)
        extend = "max" if kind == "saliency" else "both"
        bar = figure.colorbar(scale, ax=cells, fraction=0.12 / inches, aspect=30, pad=0.06 / inches, extend=extend)
        bar.set_label(names[kind], fontsize=6)
        bar.ax.tick_params(labelsize=5.5)
