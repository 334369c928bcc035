"""Attention overlays: one row per image, one column per network, one colour scale.

All cells of a picture are one array, drawn as one image: a figure of as many axes takes twenty times as long.
"""

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpa.core.files import atomic_path
from ltpa.core.layout import FIGURE_SUFFIXES
from ltpa.core.text import figure_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCHES = 1.15
_LETTERS_PER_INCH = 24  # of the caption
_TITLE_LETTERS_PER_INCH = 20
_LABEL_INCHES = 0.2  # beside the rows
_GAP = 9  # pixels between cells
_OPACITY = 0.65  # of maps over images
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
    cells = np.stack([images, *(_laid_over(images, stack) for stack in maps.values())], axis=1)
    height, width = images.shape[1:3]
    factor = max(1, round(CELL_PIXELS / height))
    cells = cells.repeat(factor, axis=2).repeat(factor, axis=3)
    if masks is not None:
        cells[:, 0][_border(masks.astype(bool).repeat(factor, axis=1).repeat(factor, axis=2))] = 255
    spaced = np.pad(cells, ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    pixels = np.concatenate(np.concatenate(spaced, axis=1), axis=1)[:-_GAP, :-_GAP]
    save_figure(_mosaic(pixels, (height * factor, width * factor), row_labels, ["", *maps], caption), path)


def _laid_over(images: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 3) uint8 with their maps (N, H, W) over them, as uint8."""
    from matplotlib import colormaps

    relative = np.stack([relative_to_uniform(each) for each in saliency])
    colours = colormaps["inferno"](np.clip(relative / BRIGHTEST, 0, 1))[..., :3]
    return np.rint((1 - _OPACITY) * images + _OPACITY * 255 * colours).astype(np.uint8)


def _border(masks: np.ndarray) -> np.ndarray:
    """The outermost pixels of objects (N, H, W), two wide; none at the edge of the image."""
    inside = np.pad(masks, ((0, 0), (2, 2), (2, 2)), mode="edge")
    height, width = masks.shape[1:]
    kept = [
        inside[:, y : y + height, x : x + width]
        for y, x in ((0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3))
    ]
    return masks & ~np.logical_and.reduce(kept)


def _mosaic(pixels: np.ndarray, cell: tuple[int, int], rows: list[str], columns: list[str], caption: str) -> "Figure":
    """A figure that shows `pixels` (H, W, 3), cells of `cell` (height, width) with `_GAP` between them, one to one."""
    from matplotlib.figure import Figure

    height, width = pixels.shape[:2]
    left = round(_LABEL_INCHES * _DPI)
    lines = textwrap.wrap(caption, int(_LETTERS_PER_INCH * (left + width) / _DPI))
    letters = int(_TITLE_LETTERS_PER_INCH * cell[1] / _DPI)
    titles = ["\n".join(map(figure_text, textwrap.wrap(title, letters))) for title in columns]
    above = round((0.06 + 0.11 * max(title.count("\n") + 1 for title in titles)) * _DPI)
    below = round((0.03 + 0.12 * len(lines)) * _DPI)
    whole = (left + width, above + height + below)
    figure = Figure(figsize=(whole[0] / _DPI, whole[1] / _DPI))
    axis = figure.add_axes((left / whole[0], below / whole[1], width / whole[0], height / whole[1]))
    axis.imshow(pixels, aspect="auto", interpolation="none")
    axis.set_axis_off()
    for number, label in enumerate(rows):
        middle = whole[1] - above - number * (cell[0] + _GAP) - cell[0] / 2
        place: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 90, "fontsize": 7}
        figure.text(left / 2 / whole[0], middle / whole[1], figure_text(label), **place)
    for number, title in enumerate(titles):
        middle = left + number * (cell[1] + _GAP) + cell[1] / 2
        place = {"ha": "center", "va": "bottom", "fontsize": 6}
        figure.text(middle / whole[0], 1 - (above - 4) / whole[1], title, **place)
    figure.text(0.01, 4 / whole[1], "\n".join(map(figure_text, lines)), ha="left", va="bottom", fontsize=5.5)
    return figure


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
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, and not anew for every format
        for path in paths:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=_DPI, metadata=undated[path.suffix[1:]])
