"""Patch boxes over images, by rank: all of an image's boxes in one cell, then each patch by itself."""

from pathlib import Path

import numpy as np

from ltpa.core.text import figure_text
from ltpa.report.overlays import grid, save_figure

_MOST_PATCHES = 10


def draw_boxes(
    path: Path, images: np.ndarray, boxes: np.ndarray, row_labels: list[str], parts: np.ndarray | None = None
) -> None:
    """Write a PNG: per image its boxes, coloured from the best rank (yellow) to the last (violet), then the patches.

    Args:
        path: the file.
        images: (N, H, W, 3) uint8.
        boxes: (N, n, 4) y0, x0, y1, x1 in pixels, best first; the first ten patches are shown by themselves.
        row_labels: N texts.
        parts: (N, 4) x0, y0, x1, y1 of the part that matters, drawn dashed in white; None where unknown.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    ranks = boxes.shape[1]
    columns = min(ranks, _MOST_PATCHES)
    colours = colormaps["plasma_r"](np.linspace(0.05, 0.85, ranks))
    figure = grid(len(images), columns + 1)
    for row, image in enumerate(images):
        axes = figure.axes[row * (columns + 1) :]
        axes[0].imshow(image)
        axes[0].set_ylabel(figure_text(row_labels[row]), fontsize=7)
        for rank in range(ranks - 1, -1, -1):
            y0, x0, y1, x1 = boxes[row, rank]
            frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colours[rank])
            axes[0].add_patch(frame)
        if parts is not None:
            left, top, right, bottom = parts[row]
            outline = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, linestyle=":")
            outline.set_edgecolor("white")
            axes[0].add_patch(outline)
        for rank in range(columns):
            y0, x0, y1, x1 = boxes[row, rank]
            axes[rank + 1].imshow(image[y0:y1, x0:x1])
            if row == 0:
                axes[rank + 1].set_title(f"rank {rank + 1}", fontsize=6)
    save_figure(figure, path)
