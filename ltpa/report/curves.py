"""Learning curves and attack curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ltpa.core.text import figure_text
from ltpa.report.overlays import add_text, every_format, save_figure


def draw_learning_curves(
    path: Path, histories: Mapping[str, Sequence[Sequence[tuple[int, float]]]], chance: float, caption: str = ""
) -> None:
    """Draw test error (%) over epochs: one colour per network, one line per seed, chance dashed.

    Writes `path`, a PNG, and SVG and PDF beside it.

    `histories` maps a network's title to its seeds' points (epoch, error); an epoch without evaluation has no point.
    `caption` stands below.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    colours = colormaps["tab20"]
    for index, (title, seeds) in enumerate(histories.items()):
        for number, points in enumerate(seeds):
            label = figure_text(title) if number == 0 else None
            axis.plot(*zip(*points, strict=True), color=colours(index % 20), marker=".", linewidth=1, label=label)
    axis.axhline(chance, color="grey", linestyle="--", linewidth=0.8, label="chance")
    axis.set(xlabel="epoch", ylabel="test error (%)", ylim=(0, 100))
    axis.legend(fontsize=6, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    add_text(figure, caption=caption)
    save_figure(figure, *every_format(path))


def draw_attack_curves(
    path: Path,
    curves: Mapping[str, Mapping[float, Sequence[float]]],
    published: Mapping[str, Mapping[float, float]],
    title: str,
    caption: str = "",
) -> None:
    """Draw fooling rate (%) over the perturbation's norm: our mean and every seed as a dot, published dashed.

    `caption` stands below.
    Writes `path`, a PNG, and SVG and PDF beside it.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_title(figure_text(title), fontsize=7)
    for index, (network, rates) in enumerate(curves.items()):
        colour = colormaps["tab10"](index)
        norms = sorted(rates)
        means = [sum(rates[norm]) / len(rates[norm]) for norm in norms]
        axis.plot(norms, means, color=colour, label=figure_text(f"{network}, mean over seeds"))
        for norm in norms:
            axis.plot([norm] * len(rates[norm]), rates[norm], ".", color=colour)
        if network in published:
            points = zip(*sorted(published[network].items()), strict=True)
            axis.plot(*points, "--", color=colour, label=figure_text(f"{network}, paper"))
    axis.set_xscale("symlog", base=2, linthresh=1)
    ticks = sorted({norm for rates in (*curves.values(), *published.values()) for norm in rates})
    axis.set_xticks(ticks, [f"{norm:g}" for norm in ticks])
    axis.set(xlabel="L-infinity norm of the perturbation (0-255 scale)", ylabel="fooling rate (%)", ylim=(0, 100))
    axis.legend(fontsize=7)
    add_text(figure, caption=caption)
    save_figure(figure, *every_format(path))
