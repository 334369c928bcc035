"""Networks against their baselines over seeds: Welch's t-test, or a paired one where seeds go together; with Holm.

A seed gives two networks the same order of images and nothing else that is common to their shapes, so that their
numbers hardly rise and fall together, and pairing would halve the degrees of freedom for nothing. Which test is made
follows from the measured correlation alone, never from the p values.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from ltpa.tables.frame import SlotRows
from ltpa.tables.slots import Address
from ltpa.tables.statistics import FEWEST, estimate, t_two_sided, welch_df

OTHERS = " (panels of other readings are corrected each by itself)"
WELCH, PAIRED = "welch", "paired"
_CORRELATED = 0.3  # above it a paired test gains more by the pairing than it loses by half the degrees of freedom
_FEWEST_TO_CORRELATE = 5

Place = tuple[int, str, str, str, str, str]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The numbers of one network less those of another, and whether that is more than chance.

    Attributes:
        test: `welch` over all seeds of both, or `paired` over those that both have, where at least 5 such seeds
            correlate by more than .3.
        n, other_n: seeds of either network that enter.
        delta: difference of the means of these seeds; None where one network has none.
        p: two-sided; None where the test is withheld.
        correlation: Pearson's, over the common seeds; None below 5 of them, and where one network has no spread.
    """

    test: str
    n: int
    other_n: int
    delta: float | None
    p: float | None
    correlation: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network beside its baseline.

    Attributes:
        baseline: label of the baseline's row or column.
        difference: the network's numbers less the baseline's, and the test.
        p_holm: its p after Holm's correction for all tests of its family: the panels that carry verdicts together, each
            secondary panel by itself; None where the test is withheld.
    """

    baseline: str
    difference: Difference
    p_holm: float | None = None


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare the numbers of two networks, each by seed."""
    common = [seed for seed in ours if seed in theirs]
    first, second = [ours[seed] for seed in common], [theirs[seed] for seed in common]
    correlation = _correlation(first, second) if len(common) >= _FEWEST_TO_CORRELATE else None
    if correlation is not None and correlation > _CORRELATED:
        differences = [one - other for one, other in zip(first, second, strict=True)]
        mean = estimate(differences).mean
        return Difference(PAIRED, len(common), len(common), mean, paired_p(differences), correlation)
    first, second = list(ours.values()), list(theirs.values())
    delta = estimate(first).mean - estimate(second).mean if first and second else None
    return Difference(WELCH, len(first), len(second), delta, welch_p(first, second), correlation)


def welch_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p value of Welch's t-test that two means are equal.

    None where one has fewer than `FEWEST` values, and where neither has a spread.
    """
    if min(len(first), len(second)) < FEWEST:
        return None
    one, other = estimate(first), estimate(second)
    if one.sd is None or other.sd is None or not (one.has_spread or other.has_spread):
        return None
    own, its = one.sd**2 / one.n, other.sd**2 / other.n
    return t_two_sided((one.mean - other.mean) / math.sqrt(own + its), welch_df(own, one.n - 1, its, other.n - 1))


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p value of Student's t-test that the mean difference is 0.

    None for fewer than `FEWEST` differences, and where all are equal: their spread, estimated as 0, tests nothing.
    """
    if len(differences) < FEWEST:
        return None
    summary = estimate(differences)
    if summary.sd is None or not summary.has_spread:
        return None
    return t_two_sided(summary.mean / (summary.sd / math.sqrt(summary.n)), summary.n - 1)


def _correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    if not (estimate(first).has_spread and estimate(second).has_spread):
        return None
    return statistics.correlation(first, second)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the k-th smallest of m times m - k + 1, never falling, at most 1."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda position: p_values[position])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def holm_of(p_values: Sequence[float | None]) -> list[float | None]:
    """`holm` of the tests that were made; None stays for those that were withheld."""
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(corrected) for p in p_values]


def compare(collected: Sequence[SlotRows], baselines: Mapping[str, str]) -> dict[int, Comparison]:
    """The comparisons of a table, by position in `collected`.

    A network's number is compared where the baseline's number for the same panel, source, target and condition stands
    in the table too.
    """
    by_variant = {
        (place_of(item), item.slot.entry.variant): item for item in collected if isinstance(item.address, Address)
    }
    comparisons: dict[int, Comparison] = {}
    families: dict[int | None, list[int]] = {}
    for position, item in enumerate(collected):
        if not isinstance(item.address, Address):
            continue
        base = by_variant.get((place_of(item), baselines.get(item.slot.entry.variant, "")))
        if base is not None:
            compared = difference(by_seed(item), by_seed(base))
            comparisons[position] = Comparison(base.slot.entry.label, compared)
            families.setdefault(_family(item), []).append(position)
    for tested in families.values():
        corrected = holm_of([comparisons[position].difference.p for position in tested])
        for position, p in zip(tested, corrected, strict=True):
            comparisons[position] = dataclasses.replace(comparisons[position], p_holm=p)
    return comparisons


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
    compared = [comparison.difference for _, comparison in listed]
    if all(min(each.n, each.other_n) < FEWEST for each in compared):
        most = max(min(each.n, each.other_n) for each in compared)
        return [f"Test against the baseline: withheld below {FEWEST} seeds; here are {most}."]
    tests = sum(comparison.p_holm is not None for item, comparison in listed if not item.slot.secondary)
    others = any(comparison.p_holm is not None for item, comparison in listed if item.slot.secondary)
    lines = [
        f"Against the baseline: Welch's two-sided t-test over seeds, a paired one where at least "
        f"{_FEWEST_TO_CORRELATE} common seeds correlate by more than {_CORRELATED:g}; p after Holm's correction for "
        f"the {tests} tests of this table{OTHERS if others else ''}; withheld below {FEWEST} seeds, and where nothing "
        "varies."
    ]
    grouped: dict[str, list[str]] = {}
    for item, comparison in listed:
        panel = panels[item.slot.panel]
        head = f"{item.slot.entry.label} against {comparison.baseline}" + (f" ({panel})" if panel else "")
        grouped.setdefault(head, []).append(_text(item, comparison))
    return lines + [f"{head}: {'; '.join(texts)}" for head, texts in grouped.items()]


def place_of(item: SlotRows) -> Place:
    """What two networks' numbers must have in common to be compared."""
    entry = item.slot.entry
    return item.slot.panel, item.slot.metric, item.slot.measure, entry.source, entry.target, entry.condition


def by_seed(item: SlotRows) -> dict[int, float]:
    """The numbers of the seeds that have one."""
    return {row.seed: row.value for row in item.rows if row.seed is not None and row.value is not None}


def _text(item: SlotRows, comparison: Comparison) -> str:
    entry, difference = item.slot.entry, comparison.difference
    where = " ".join(filter(None, (entry.source, entry.condition)))
    if difference.delta is None:
        return f"{where} no seed of one of them"
    p = "withheld" if comparison.p_holm is None else f"p = {comparison.p_holm:.2g}"
    paired = f"paired (r = {difference.correlation:.2f}), " if difference.test == PAIRED else ""
    n = f"n={difference.n}" if difference.n == difference.other_n else f"n={difference.n} and {difference.other_n}"
    return f"{where} {difference.delta:+.2f}, {n}, {paired}{p}"
