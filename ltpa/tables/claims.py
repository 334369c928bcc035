"""The published order of networks as claims: which of two has the lower number, and whether ours say the same."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from ltpa.tables.frame import SlotRows
from ltpa.tables.paired import Difference, by_seed, difference, holm_of, place_of
from ltpa.tables.slots import Address
from ltpa.tables.statistics import FEWEST
from ltpa.tables.verdict import ERROR, UNDECIDED

KEPT, REVERSED = "kept", "reversed"
_GAP = 3  # published standard deviations of the difference
_SHOWN = 8  # undecided orders that are named; the CSV has all


@dataclasses.dataclass(frozen=True)
class Claim:
    """One published order of two networks with numbers of ours in the same panel and column.

    Attributes:
        item: the network of the lower published number; `other` that of the higher one.
        gap, sd: `item` less `other` as published, negative, and its standard deviation.
        ours: the same difference of ours, and the test.
        p_holm: its p after Holm's correction for all claims of the table; None where the test is withheld.
    """

    item: SlotRows
    other: SlotRows
    gap: float
    sd: float
    ours: Difference
    p_holm: float | None = None

    @property
    def word(self) -> str:
        """`kept`, `reversed` or `undecided`."""
        if self.p_holm is None or self.ours.delta is None or self.p_holm >= ERROR:
            return UNDECIDED
        return KEPT if self.ours.delta < 0 else REVERSED


def claims(collected: Sequence[SlotRows]) -> list[Claim]:
    """Every published order of the panels that carry verdicts whose gap is above 3 sd of the difference.

    Both numbers must have a published sd and a place in this scale. Orders are in the table's order of columns.
    """
    places: dict[tuple[object, ...], list[SlotRows]] = {}
    for item in collected:
        entry = item.slot.entry
        if isinstance(item.address, Address) and not item.slot.secondary and entry.sd is not None:
            places.setdefault(place_of(item), []).append(item)
    pairs = [pair for items in places.values() for pair in itertools.combinations(items, 2)]
    claims = [claim for one, other in pairs if (claim := _claim(one, other)) is not None]
    claims.sort(key=lambda claim: (claim.item.slot.panel, claim.item.slot.column))
    corrected = holm_of([claim.ours.p for claim in claims])
    return [dataclasses.replace(claim, p_holm=p) for claim, p in zip(claims, corrected, strict=True)]


def _claim(one: SlotRows, other: SlotRows) -> Claim | None:
    low, high = sorted((one, other), key=lambda item: item.slot.entry.value or 0.0)
    first, second = low.slot.entry, high.slot.entry
    if first.value is None or second.value is None or first.sd is None or second.sd is None:
        return None
    gap, sd = first.value - second.value, math.hypot(first.sd, second.sd)
    if -gap <= _GAP * sd:
        return None
    return Claim(low, high, gap, sd, difference(by_seed(low), by_seed(high)))


def lines(claims: Sequence[Claim], panels: Sequence[str], columns: Sequence[str], decimals: int) -> list[str]:
    """The claims in words: what they are, then for each panel and column the counts, the reversed ones by name first.

    `panels` and `columns` are titles. Empty without claims.
    """
    if not claims:
        return []
    tests = sum(claim.p_holm is not None for claim in claims)
    texts = [
        f"Pairs of networks whose published numbers lie more than {_GAP} sd of their difference apart. Kept or "
        f"reversed: the test over seeds says so at {100 * ERROR:g} %, after Holm's correction for the {tests} tests of "
        f"this block; else undecided. Without a test below {FEWEST} seeds."
    ]
    for place, group in itertools.groupby(claims, lambda claim: (claim.item.slot.panel, claim.item.slot.column)):
        title = ", ".join(filter(None, (panels[place[0]], columns[place[1]])))
        texts.append(f"{title}: {_counts(list(group), decimals)}")
    return texts


def _counts(group: Sequence[Claim], decimals: int) -> str:
    words = [claim.word for claim in group]
    counts = ", ".join(f"{words.count(word)} {word}" for word in (KEPT, REVERSED, UNDECIDED))
    parts = [f"{len(group)} orders: {counts}."]
    if turned := [claim for claim in group if claim.word == REVERSED]:
        parts.append(f"Reversed: {'; '.join(_numbers(claim, decimals) for claim in turned)}.")
    if open_ := [_names(claim) for claim in group if claim.word == UNDECIDED]:
        more = f" and {len(open_) - _SHOWN} more (see the CSV)" if len(open_) > _SHOWN else ""
        parts.append(f"Undecided: {'; '.join(open_[:_SHOWN])}{more}.")
    return " ".join(parts)


def _names(claim: Claim) -> str:
    return f"{claim.item.slot.entry.label} below {claim.other.slot.entry.label}"


def _numbers(claim: Claim, decimals: int) -> str:
    return (
        f"{_names(claim)} (published {claim.gap:+.{decimals}f}, ours {claim.ours.delta:+.{decimals}f}, "
        f"p = {claim.p_holm:.2g})"
    )
