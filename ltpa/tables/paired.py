"""Networks against their baselines, seed by seed: paired t-tests with Holm's correction."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from ltpa.tables.frame import SlotRows
from ltpa.tables.slots import Address
from ltpa.tables.statistics import estimate

FEWEST = 3  # seeds; with fewer a paired test has next to no power, and its p value misleads
OTHERS = " (panels of other readings are corrected each by itself)"

Place = tuple[int, str, str, str, str, str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network beside its baseline.

    Attributes:
        baseline: label of the baseline's row or column.
        n: seeds that both have a number for.
        delta: mean over these seeds of the network's number minus the baseline's; None for n = 0.
        p: of the two-sided paired t-test; None where it is withheld.
        p_holm: `p` after Holm's correction for all tests of its family: the panels that carry verdicts together, each
            secondary panel by itself.
    """

    baseline: str
    n: int
    delta: float | None
    p: float | None
    p_holm: float | None = None


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p value of Student's t-test that the mean difference is 0.

    None for fewer than `FEWEST` differences, and where all are equal: their spread, estimated as 0, tests nothing.
    """
    if len(differences) < FEWEST:
        return None
    found = estimate(differences)
    if not found.sd or found.sd <= 1e-12 * abs(found.mean):
        return None
    from scipy.special import stdtr

    return 2 * float(stdtr(found.n - 1, -abs(found.mean) / (found.sd / math.sqrt(found.n))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the k-th smallest of m times m - k + 1, never falling, at most 1."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda position: p_values[position])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def compare(collected: Sequence[SlotRows], baselines: Mapping[str, str]) -> dict[int, Comparison]:
    """The comparisons of a table, by position in `collected`.

    A network's number is compared where the baseline's number for the same panel, source, target and condition stands
    in the table too.
    """
    by_variant = {
        (_place(item), item.slot.entry.variant): item for item in collected if isinstance(item.address, Address)
    }
    found: dict[int, Comparison] = {}
    families: dict[int | None, list[int]] = {}
    for position, item in enumerate(collected):
        if not isinstance(item.address, Address):
            continue
        base = by_variant.get((_place(item), baselines.get(item.slot.entry.variant, "")))
        if base is not None:
            found[position] = _compare(item, base)
            if found[position].p is not None:
                families.setdefault(_family(item), []).append(position)
    for tested in families.values():
        corrected = holm([p for position in tested if (p := found[position].p) is not None])
        for position, p in zip(tested, corrected, strict=True):
            found[position] = dataclasses.replace(found[position], p_holm=p)
    return found


def _family(item: SlotRows) -> int | None:
    """Tests that are corrected together: other readings neither cost the headline its power nor lend it theirs."""
    return item.slot.panel if item.slot.secondary else None


def notes(items: Iterable[tuple[SlotRows, Comparison]], panels: Sequence[str]) -> list[str]:
    """What stands below the table: the test, or why there is none, then a line per network and panel.

    `panels` are the titles of the panels, by number.
    """
    listed = list(items)
    if not listed:
        return []
    if all(comparison.n < FEWEST for _, comparison in listed):
        most = max(comparison.n for _, comparison in listed)
        return [f"Paired test against the baseline: withheld below {FEWEST} seeds; here are {most}."]
    tests = sum(comparison.p is not None for item, comparison in listed if not item.slot.secondary)
    others = any(comparison.p is not None for item, comparison in listed if item.slot.secondary)
    lines = [
        f"Against the baseline: two-sided paired t-test over seeds, p after Holm's correction for the {tests} tests of "
        f"this table{OTHERS if others else ''}; withheld below {FEWEST} common seeds, and where all differences are "
        "equal."
    ]
    grouped: dict[str, list[str]] = {}
    for item, comparison in listed:
        panel = panels[item.slot.panel]
        head = f"{item.slot.entry.label} against {comparison.baseline}" + (f" ({panel})" if panel else "")
        grouped.setdefault(head, []).append(_text(item, comparison))
    return lines + [f"{head}: {'; '.join(texts)}" for head, texts in grouped.items()]


def _place(item: SlotRows) -> Place:
    entry = item.slot.entry
    return item.slot.panel, item.slot.metric, item.slot.measure, entry.source, entry.target, entry.condition


def _compare(item: SlotRows, base: SlotRows) -> Comparison:
    ours, theirs = (
        {row.seed: row.value for row in each.rows if row.seed is not None and row.value is not None}
        for each in (item, base)
    )
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    delta = estimate(differences).mean if differences else None
    return Comparison(base.slot.entry.label, len(differences), delta, paired_p(differences))


def _text(item: SlotRows, comparison: Comparison) -> str:
    entry = item.slot.entry
    where = " ".join(filter(None, (entry.source, entry.condition)))
    if comparison.delta is None:
        return f"{where} no seed in common"
    p = "withheld" if comparison.p_holm is None else f"p = {comparison.p_holm:.2g}"
    return f"{where} {comparison.delta:+.2f}, n={comparison.n}, {p}"
