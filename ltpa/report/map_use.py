"""One figure of what attention is for: accuracy with and without the map, beside where the map looks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltpa.report.overlays import add_text, every_format, save_figure

# Colours of Okabe and Ito, which all kinds of colour vision tell apart; the markers differ, too.
_ACCURACY = (
    ("own", "with its own map", "o", "#0072B2"),
    ("uniform", "with a uniform map", "s", "#D55E00"),
    ("refitted", "with a uniform map and a refitted readout", "D", "#009E73"),
)
_PLACE = (
    ("pointing", "its map", "o", "#0072B2"),
    ("centre", "always the centre", "^", "#000000"),
    ("chance", "a random pixel", "|", "#767676"),
)
_ROW_INCHES = 0.34
_KEY = "Large markers are means over n seeds, small ones seeds; lines reach over all seeds."


@dataclasses.dataclass(frozen=True)
class MapUse:
    """What is known of a network: a percentage per seed each, empty where it was not measured.

    Attributes:
        own, uniform, refitted: accuracy with its own maps, with uniform ones, and with these and a readout fitted anew.
        pointing, centre, chance: how often the peak of its map, the centre, and a random pixel lie on the object.
    """

    own: Sequence[float]
    uniform: Sequence[float]
    refitted: Sequence[float]
    pointing: Sequence[float] = ()
    centre: Sequence[float] = ()
    chance: Sequence[float] = ()


def draw_map_use(path: Path, networks: Mapping[str, MapUse], titles: tuple[str, str], caption: str = "") -> None:
    """Draw one row per network.

    Writes `path`, a PNG, and SVG and PDF beside it. `titles` stand above the two halves, `caption` below.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.9 + _ROW_INCHES * max(len(networks), 3)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axis, kinds, title in ((left, _ACCURACY, titles[0]), (right, _PLACE, titles[1])):
        for number, (key, label, marker, colour) in enumerate(kinds):
            seeds = [getattr(each, key) for each in networks.values()]
            rows = [row + 0.16 * (number - 1) for row in range(len(seeds))]
            known = [(row, values) for row, values in zip(rows, seeds, strict=True) if values]
            means = [sum(values) / len(values) for _, values in known]
            style = {"marker": marker, "color": colour}
            axis.plot(means, [row for row, _ in known], linestyle="", markersize=6, label=label, **style)
            for row, values in known:
                axis.plot([min(values), max(values)], [row, row], color=colour, linewidth=1)
                axis.plot(values, [row] * len(values), linestyle="", markersize=2.5, alpha=0.6, **style)
        axis.set_title(title, fontsize=8)
        axis.set_xlim(0, 100)
        axis.tick_params(labelsize=7)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        if networks:
            axis.legend(fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)
        else:
            axis.text(0.5, 0.5, "nothing was measured", ha="center", fontsize=8, transform=axis.transAxes)
    left.set_xlabel("accuracy (%)", fontsize=8)
    right.set_xlabel("peaks on the object (%)", fontsize=8)
    left.set_yticks(
        range(len(networks)), [f"{name}, n = {len(each.own)}" for name, each in networks.items()], fontsize=7
    )
    left.invert_yaxis()
    add_text(figure, caption=f"{_KEY} {caption}".strip())
    save_figure(figure, *every_format(path))
