"""Charts as inline SVG: they take the page's colours and fonts, and are the same bytes each time.

Every chart is drawn in a box of fixed size; `Canvas` refuses what would lie outside.
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ltpa.core.text import html_text, shortened

_LETTER = 0.6  # widest mean width of a letter, in units of the size of the font
_SMALL = 11.0


class Canvas:
    """Shapes in a box of `width` times `height`."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def _inside(self, *points: tuple[float, float]) -> None:
        for x, y in points:
            if not (-0.01 <= x <= self.width + 0.01 and -0.01 <= y <= self.height + 0.01):
                raise ValueError(f"{self.title}: ({x:g}, {y:g}) lies outside of {self.width:g} x {self.height:g}")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line."""
        self._inside((x1, y1), (x2, y2))
        self._parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def polyline(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        self._inside(*points)
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline class="{kind}" points="{text}"/>')

    def area(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A filled polygon."""
        self._inside(*points)
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polygon class="{kind}" points="{text}"/>')

    def dot(self, x: float, y: float, radius: float, kind: str) -> None:
        """A disc."""
        self._inside((x - radius, y - radius), (x + radius, y + radius))
        self._parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "start", size: float = _SMALL) -> None:
        """A text, cut to what fits between `x` and the border."""
        room = {"start": self.width - x, "end": x, "middle": 2 * min(x, self.width - x)}[anchor]
        shown = text if len(text) * size * _LETTER <= room else shortened(text, max(int(room / size / _LETTER) - 4, 1))
        self._inside((x, y))
        whole = f"<title>{html_text(text)}</title>" if shown != text else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}"'
        self._parts.append(f"<text {place}>{html_text(shown)}{whole}</text>")

    def svg(self, kind: str = "") -> Markup:
        """The whole picture."""
        return Markup(  # every text in it went through `html_text`
            f'<svg class="chart {kind}" viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" '
            f'height="{self.height:g}" role="img" aria-label="{html_text(self.title)}">{"".join(self._parts)}</svg>'
        )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most `most`."""
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step + 0.0 for index in range(first, math.floor(high / step + 1e-9) + 1)]


def forest(
    rows: Sequence[tuple[str, float, float | None, float | None, str]], margin: float, unit: str, title: str
) -> Markup:
    """Differences from published values, each with its interval and verdict, over the margin that does not count.

    `rows` are (label, difference, low, high, kind of verdict). An interval that reaches beyond the axis ends in an
    arrow; the axis is as wide as the differences ask for, not the intervals.
    """
    left, width, step, top = 290.0, 760.0, 18.0, 8.0
    height = top + step * len(rows) + 34
    canvas = Canvas(width, height, title)
    reach = 1.15 * max([*(abs(delta) for _, delta, *_ in rows), 2 * margin, 1e-9])
    narrow = [abs(end) for _, _, low, high, _ in rows if low is not None for end in (low, high) if end is not None]
    reach = max([reach, *(end * 1.05 for end in narrow if end <= 2 * reach)])

    def place(value: float) -> float:
        return left + (min(max(value, -reach), reach) + reach) / (2 * reach) * (width - left - 14)

    bottom = top + step * len(rows) + 4
    if margin:
        corners = [(-margin, top), (margin, top), (margin, bottom), (-margin, bottom)]
        canvas.area([(place(x), y) for x, y in corners], "margin")
    for value in ticks(-reach, reach):
        canvas.line(place(value), top, place(value), bottom, "zero" if value == 0 else "grid")
        canvas.text(place(value), bottom + 13, f"{value:+g}".replace("-", "−") if value else "0", "middle", 10)
    canvas.text(left + (width - left) / 2, height - 4, f"ours minus published ({unit})", "middle", 10)
    for index, (label, delta, low, high, kind) in enumerate(rows):
        y = top + step * (index + 0.5)
        canvas.text(left - 8, y + 4, label, "end")
        if low is not None and high is not None:
            canvas.line(place(low), y, place(high), y, f"whisker {kind}")
            for end, sign in ((low, -1), (high, 1)):
                if abs(end) > reach:
                    x = place(end)
                    canvas.area([(x, y), (x - 5 * sign, y - 3), (x - 5 * sign, y + 3)], f"dot {kind}")
        canvas.dot(place(delta), y, 4, f"dot {kind}")
    return canvas.svg("forest")


def curves(
    series: Mapping[int, Sequence[tuple[float, float]]],
    *,
    title: str,
    across: str,
    top: float = 100.0,
    dashed: float | None = None,
    dashed_label: str = "",
    published: Sequence[tuple[float, float]] = (),
    even: bool = False,
) -> Markup:
    """Lines of all seeds, their mean and the band between the lowest and the highest, from 0 to `top`.

    Args:
        series: seed to points (x, y); the mean and the band stand where all seeds have a point.
        across: what the x axis shows.
        dashed: a level to compare with.
        published: points of a published curve.
        even: put the x values at even distances, whatever they are.
    """
    width, height = 250.0, 150.0
    left, right, high, low = 30.0, 40.0, 10.0, 30.0
    canvas = Canvas(width, height, title)
    xs = sorted({x for points in (*series.values(), published) for x, _ in points})
    if not xs:
        canvas.text(width / 2, height / 2, "no curve", "middle")
        return canvas.svg("curves")
    spread = [float(xs.index(x)) for x in xs] if even else xs
    where = dict(zip(xs, spread, strict=True))

    def place(x: float, y: float) -> tuple[float, float]:
        share = (where[x] - spread[0]) / ((spread[-1] - spread[0]) or 1)
        return left + share * (width - left - right), high + (1 - min(max(y / top, 0), 1)) * (height - high - low)

    for value in ticks(0, top, 3):
        y = place(xs[0], value)[1]
        canvas.line(left, y, width - right, y, "grid")
        canvas.text(left - 4, y + 3.5, f"{value:g}", "end", 9)
    for x, side in ((xs[0], "start"), (xs[-1], "end")) if len(xs) > 1 else ((xs[0], "start"),):
        canvas.text(place(x, 0)[0], height - low + 12, f"{x:g}", side, 9)
    canvas.text(left + (width - left - right) / 2, height - 4, across, "middle", 9)
    if dashed is not None:
        y = place(xs[0], dashed)[1]
        canvas.line(left, y, width - right, y, "dashed")
        canvas.text(width - right + 3, y + 3, dashed_label, "start", 9)
    values = {x: [y for points in series.values() for at, y in points if at == x] for x in xs}
    common = [x for x in xs if series and len(values[x]) == len(series)]
    if len(series) > 1 and len(common) > 1:
        band = [place(x, max(values[x])) for x in common] + [place(x, min(values[x])) for x in reversed(common)]
        canvas.area(band, "band")
    for points in series.values():
        canvas.polyline([place(x, y) for x, y in points], "seed")
    if published:
        canvas.polyline([place(x, y) for x, y in sorted(published)], "published")
    if common:
        means = [place(x, sum(values[x]) / len(values[x])) for x in common]
        canvas.polyline(means, "mean")
        canvas.dot(*means[-1], 2.5, "dot")
        canvas.text(width - right + 5, means[-1][1] - 3, f"{sum(values[common[-1]]) / len(series):.1f}", "start", 10)
    return canvas.svg("curves")
