"""Attention overlays: one row per image, one column per network, one colour scale."""

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.files import atomic_path
from ltpa.core.layout import FIGURE_SUFFIXES
from ltpa.core.text import figure_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCHES = 1.15
_LETTERS_PER_INCH = 24  # of the caption
_DPI = 150
CELL_PIXELS = round(CELL_INCHES * _DPI)
BRIGHTEST = 6.0  # times a uniform map


def draw_overlays(
    path: Path,
    images: np.ndarray,
    masks: np.ndarray | None,
    row_labels: list[str],
    maps: dict[str, np.ndarray],
    caption: str = "",
) -> None:
    """Write a PNG grid: image, object outline where known, then each network's map over the image.

    Colours run from zero to `BRIGHTEST` times a uniform map, the same everywhere, so that all cells can be compared.

    Args:
        images: (N, H, W, 3) uint8.
        masks: (N, H, W) 0/1 or None.
        row_labels: N texts.
        maps: column title -> (N, H, W) saliency.
        caption: text below the grid.
    """
    figure = grid(len(images), len(maps) + 1)
    for row, image in enumerate(images):
        axes = figure.axes[row * (len(maps) + 1) :]
        axes[0].imshow(image)
        axes[0].set_ylabel(figure_text(row_labels[row]), fontsize=7)
        if masks is not None and masks[row].any():
            axes[0].contour(masks[row], levels=[0.5], colors="white", linewidths=0.8)
        for axis, (title, stack) in zip(axes[1:], maps.items(), strict=False):
            axis.imshow(image)
            axis.imshow(relative_to_uniform(stack[row]), cmap="inferno", alpha=0.65, vmin=0, vmax=BRIGHTEST)
            if row == 0:
                axis.set_title(figure_text(title), fontsize=6)
    add_text(figure, caption=caption)
    save_figure(figure, path)


def relative_to_uniform(saliency: np.ndarray) -> np.ndarray:
    """A map divided by its mean: 1 everywhere for a uniform one."""
    mean = float(saliency.mean())
    return saliency / mean if mean > 0 else np.zeros_like(saliency)


def grid(rows: int, columns: int) -> "Figure":
    """A figure of cells without ticks, row by row in `axes`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * CELL_INCHES, rows * CELL_INCHES + 0.3), layout="constrained")
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def add_text(figure: "Figure", heading: str = "", caption: str = "") -> None:
    """The heading above and the caption below, for which the figure grows."""
    letters = int(_LETTERS_PER_INCH * figure.get_figwidth())
    lines = textwrap.wrap(caption, letters)
    title = textwrap.wrap(heading, int(0.75 * letters))
    figure.set_figheight(figure.get_figheight() + 0.12 * len(lines) + 0.16 * len(title))
    if title:
        figure.suptitle("\n".join(map(figure_text, title)), fontsize=8)
    if lines:
        figure.supxlabel("\n".join(map(figure_text, lines)), fontsize=5.5, x=0.01, ha="left")


def every_format(path: Path) -> list[Path]:
    """`path` with the suffix of each format a figure is written in."""
    return [path.with_suffix(f".{suffix}") for suffix in FIGURE_SUFFIXES]


def save_figure(figure: "Figure", *paths: Path) -> None:
    """Write a figure to every path by way of temporary names; the same figure gives the same bytes.

    The suffix decides the format: png to look at, svg and pdf for print.
    """
    import matplotlib

    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "ltpa"}):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box, which is plain to see
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, and not anew for every format
        for path in paths:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=_DPI, metadata=undated[path.suffix[1:]])
