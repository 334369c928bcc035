"""Pictures of what the local stream looks at: one row per test image, one column per step."""

from pathlib import Path

import numpy as np

from ltpa.core.files import atomic_path
from ltpa.core.text import figure_text


def draw_steps(
    path: Path,
    images: np.ndarray,
    boxes: np.ndarray,
    patches: np.ndarray,
    rows: list[tuple[str, np.ndarray, list[str]]],
    caption: str,
) -> None:
    """Write a PNG.

    Args:
        images: (N, S, S, 3) uint8, shown with their best box (N, 4), y first.
        patches: (N, P, P, 3) uint8, what the maps lie over.
        rows: for each image one or more (name, maps (T, h, w) in 0-1, titles of its T columns), in the order of images.
        caption: below the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    steps = rows[0][1].shape[0]
    per_image = len(rows) // len(images)
    figure, axes = plt.subplots(
        len(rows), steps + 2, figsize=(1.15 * (steps + 2), 1.25 * len(rows) + 0.4), squeeze=False
    )
    for number, (name, maps, titles) in enumerate(rows):
        image, patch = images[number // per_image], patches[number // per_image]
        y0, x0, y1, x1 = boxes[number // per_image]
        axes[number, 0].imshow(image)
        axes[number, 0].add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor="red"))
        axes[number, 0].set_title(figure_text(name), fontsize=7)
        axes[number, 1].imshow(patch)
        side = patch.shape[0] - 0.5
        for step in range(steps):
            axis = axes[number, step + 2]
            axis.imshow(patch)
            axis.imshow(maps[step], cmap="jet", alpha=0.5, vmin=0, vmax=1, extent=(-0.5, side, side, -0.5))
            axis.set_title(figure_text(titles[step]), fontsize=7)
        for axis in axes[number]:
            axis.set_axis_off()
    figure.text(0.01, 0.005, figure_text(caption), fontsize=7)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)
