"""Reliability diagrams: how often networks are right over how sure they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ltpa.report.overlays import add_text, every_format, save_figure

Bins = Sequence[Sequence[float]]  # of one network: images, mean confidence and share right (0-1) of each bin
_COLUMNS = 4


def draw_reliability(path: Path, networks: Mapping[str, tuple[Bins, float]], caption: str = "") -> None:
    """Draw a panel for each network: share right over mean confidence of every bin, images per bin below.

    Writes `path`, a PNG, and SVG and PDF beside it.

    `networks` maps a title to the bins and the calibration error (%), which is added to the title. `caption` stands
    below.
    """
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, gridspec_kw={"height_ratios": [3, 1] * rows})
    for axis in grid.flat:
        axis.set_visible(False)
    for number, (title, (bins, error)) in enumerate(networks.items()):
        above, below = (grid[2 * (number // columns) + part, number % columns] for part in (0, 1))
        edges = [position / len(bins) for position in range(len(bins))]
        used = [(sure, right) for count, sure, right in bins if count]
        above.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
        above.plot(*zip(*used, strict=True), marker=".", linewidth=1)
        above.set(ylim=(0, 1), xlim=(0, 1))
        above.set_title(f"{title}\nECE {error:.1f} %", fontsize=6)
        below.bar(edges, [count for count, _, _ in bins], width=1 / len(bins), align="edge")
        for axis in (above, below):
            axis.set_visible(True)
            axis.tick_params(labelsize=5)
        below.set_xlabel("confidence", fontsize=6)
        if number % columns == 0:
            above.set_ylabel("share right", fontsize=6)
            below.set_ylabel("images", fontsize=6)
    add_text(figure, caption=caption)
    save_figure(figure, *every_format(path))
