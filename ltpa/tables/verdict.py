"""The verdict on measured values beside a published one; one rule for every table.

Two one-sided t-tests (TOST) at 5 % ask whether the difference lies within the tolerance: `reproduced`. A 95 % interval
of the difference that lies wholly beyond the tolerance says `better` or `worse`. Everything else is `undecided`.
"""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from ltpa.core.errors import ConfigError, RecordError
from ltpa.tables.statistics import FEWEST, estimate, t_quantile, welch_df

Direction = Literal["lower", "higher"]

REPRODUCED, BETTER, WORSE, UNDECIDED = "reproduced", "better", "worse", "undecided"
PUBLISHED_RUNS = 5  # assumed behind a published mean and sd where the publication does not say
ERROR = 0.05  # of each one-sided test: how often a difference just at the tolerance is called reproduced
_MOST = 1000  # seeds more; beyond that a cell says that seeds will not settle it
_SAME_SIZE = 3  # largest ratio of spreads that are pooled


@dataclasses.dataclass(frozen=True)
class Pooled:
    """A standard deviation pooled over the networks of a column, and its degrees of freedom."""

    sd: float
    df: int


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        word: `reproduced`, `better`, `worse` or `undecided`.
        delta: mean of the values minus the published value; NaN without values.
        low, high: 95 % interval of `delta`; None where no spread is known.
        df: degrees of freedom (Welch-Satterthwaite); None where no spread is known.
        more_seeds: how many seeds more would settle an undecided cell if mean and spread stayed as they are: the
            fewest that are known to be needed where the spread is not known; None where 1,000 would not do, where
            nothing can be said, and for every other verdict.
        reason: why there can be no verdict (`n < 3`, `sd 0`); else empty.
        pooled: whether the spread is that of the column.
    """

    word: str
    delta: float
    low: float | None = None
    high: float | None = None
    df: float | None = None
    more_seeds: int | None = None
    reason: str = ""
    pooled: bool = False

    @property
    def text(self) -> str:
        """The verdict as a cell shows it: `undecided (n < 3, +2 seeds)`."""
        facts = [self.reason] * bool(self.reason)
        if self.more_seeds is not None:
            facts.append(f"+{self.more_seeds} seed{'s' * (self.more_seeds > 1)}")
        elif self.word == UNDECIDED and not self.reason:
            facts.append(f"over {_MOST} seeds more")
        facts += ["pooled sd"] * self.pooled
        return self.word + (f" ({', '.join(facts)})" if facts else "")


def judge(
    values: Sequence[float],
    published: float,
    published_sd: float | None,
    tolerance: float,
    direction: Direction,
    *,
    published_n: int = PUBLISHED_RUNS,
    pooled: Pooled | None = None,
) -> str:
    """`reproduced`, `better`, `worse` or `undecided`: the word of `assess`, which explains arguments and errors."""
    _check(values, published, published_sd, tolerance, direction, published_n)
    cell = _Cell(values, published, published_sd, tolerance, direction, published_n, pooled)
    return UNDECIDED if cell.reason else cell.word()


def assess(
    values: Sequence[float],
    published: float,
    published_sd: float | None,
    tolerance: float,
    direction: Direction,
    *,
    published_n: int = PUBLISHED_RUNS,
    pooled: Pooled | None = None,
) -> Judgement:
    """Judge the values of `n` seeds, of mean m and standard deviation s, beside a published value.

    d = m - published; se^2 = s^2/n + published_sd^2/published_n, with Welch-Satterthwaite degrees of freedom.
    Reproduced: |d| + t(.95) se <= tolerance. Better or worse: |d| - t(.975) se > tolerance. Undecided otherwise, and
    always for n < 3 or s = 0, unless `pooled` gives the spread. Both margins are at least what the published spread
    alone gives, so that more spread of our own never turns an undecided cell into a decided one.

    Args:
        values: one number per seed, in the unit of the table; seeds that failed are left out (and named elsewhere).
        published_sd: standard deviation over runs; None where it is not published: the value is taken as exact.
        tolerance: largest difference, 0 or more, that does not count.
        direction: whether `lower` or `higher` numbers are better.
        published_n: runs behind `published` and `published_sd`, 2 or more.
        pooled: the spread to use where `values` have none of their own.

    Raises:
        RecordError: a value is not finite.
        ConfigError: another argument is not what it must be.
    """
    _check(values, published, published_sd, tolerance, direction, published_n)
    cell = _Cell(values, published, published_sd, tolerance, direction, published_n, pooled)
    word = UNDECIDED if cell.reason else cell.word()
    if cell.sd is None:
        return Judgement(word, cell.delta, more_seeds=max(FEWEST - cell.n, 0) or None, reason=cell.reason)
    half, df = cell.half(0.975)
    more = cell.more() if word == UNDECIDED else None
    return Judgement(word, cell.delta, cell.delta - half, cell.delta + half, df, more, cell.reason, cell.borrowed)


class _Cell:
    """The rule for one cell.

    Attributes:
        n: number of values; `delta` their mean less the published value, NaN without values.
        sd, df: the spread that serves, and its degrees of freedom; None and 0 where there is none.
        reason: why there is no verdict whatever the numbers are; else empty.
        borrowed: whether `sd` is the pooled one.
    """

    def __init__(
        self,
        values: Sequence[float],
        published: float,
        published_sd: float | None,
        tolerance: float,
        direction: Direction,
        published_n: int,
        pooled: Pooled | None,
    ) -> None:
        self.n, self.tolerance, self.direction = len(values), tolerance, direction
        self.published, self.published_df = (published_sd or 0.0) ** 2 / published_n, published_n - 1
        ours = estimate(values) if self.n else None
        spread = ours is not None and ours.has_spread
        self.delta = math.nan if ours is None else ours.mean - published
        self.sd, self.df = (ours.sd, self.n - 1) if ours is not None and spread else (None, 0)
        self.reason = f"n < {FEWEST}" if self.n < FEWEST else "" if spread else "sd 0"
        self.borrowed = bool(self.reason and self.n and pooled)
        if self.borrowed and pooled is not None:
            self.sd, self.df, self.reason = pooled.sd, pooled.df, ""

    def half(self, p: float, more: int = 0) -> tuple[float, float]:
        """t(p) times the standard error of the difference, and its degrees of freedom; with `more` seeds more."""
        assert self.sd is not None
        own, own_df = self.sd**2 / (self.n + more), self.df + more
        df = welch_df(own, own_df, self.published, self.published_df)
        half = t_quantile(p, df) * math.sqrt(own + self.published)
        if self.published:
            half = max(half, t_quantile(p, self.published_df) * math.sqrt(self.published))
        return half, df

    def word(self, more: int = 0) -> str:
        """The verdict, with `more` seeds more that leave mean and spread as they are."""
        distance = abs(self.delta)
        if distance + self.half(1 - ERROR, more)[0] <= self.tolerance:
            return REPRODUCED
        if distance - self.half(0.975, more)[0] > self.tolerance:
            return BETTER if (self.delta < 0) == (self.direction == "lower") else WORSE
        return UNDECIDED

    def more(self) -> int | None:
        """The fewest further seeds with which the verdict is decided, or None."""
        tries = range(max(1, FEWEST - self.n), _MOST + 1)
        place = bisect.bisect_left(tries, True, key=lambda more: self.word(more) != UNDECIDED)
        return tries[place] if place < len(tries) else None


def pool(columns_values: Sequence[Sequence[float]]) -> Pooled | str:
    """The standard deviation pooled over the networks of a column, each weighted by its degrees of freedom.

    Networks with one value add nothing; one whose values are all equal counts with its 0. Where the others' spreads
    are not of one size (the largest at least 3 times the smallest), or fewer than 2 degrees of freedom or no spread
    come together, the result is a text that says so.
    """
    estimates = [estimate(values) for values in columns_values if len(values) > 1]
    spreads = [item.sd for item in estimates if item.sd is not None and item.has_spread]
    df = sum(item.n - 1 for item in estimates)
    if not spreads or df < FEWEST - 1:
        return "too few values with a spread"
    if max(spreads) >= _SAME_SIZE * min(spreads):
        return f"spreads from {min(spreads):.2g} to {max(spreads):.2g} are not of one size"
    squares = math.fsum((item.n - 1) * item.sd**2 for item in estimates if item.sd is not None)
    return Pooled(math.sqrt(squares / df), df)


def withheld(scale: str) -> str:
    """The text in place of a verdict where the scale's numbers are not comparable with the paper's."""
    return f"withheld ({scale} scale)"


def rule(
    direction: str, tolerance: float, unit: str, *, published_runs: str, taken_as_exact: bool, pooled_sd: bool
) -> str:
    """The rule in words, for the foot of a table.

    Args:
        published_runs: how many runs the published means and sds stand for; empty where no sd is published.
        taken_as_exact: whether some published value has no sd.
        pooled_sd: whether the table asks for pooled spreads.
    """
    error = ["ours sd²/n"]
    if published_runs:
        error.append(f"published sd²/n ({published_runs})")
    exact = [f"published value taken as exact{' where no sd is published' if published_runs else ''}"] * taken_as_exact
    pooled = ", unless the sd pooled over the column serves (marked)" if pooled_sd else ""
    return (
        f"Verdict: reproduced when two one-sided t-tests (5 %) place delta, ours minus published, within "
        f"±{tolerance:g} {unit}; better or worse ({direction} is better) when its 95 % interval lies wholly beyond; "
        f"undecided otherwise, with the number of seeds more that would settle it, and always below {FEWEST} seeds or "
        f"at sd 0{pooled}. Squared standard error of delta: {' + '.join(error)}, Welch–Satterthwaite degrees of "
        f"freedom{''.join(f'; {text}' for text in exact)}."
    )


def expected_errors(verdicts: int) -> str:
    """The number of verdicts of a table and what to expect of them, for its foot."""
    return (
        f"{verdicts} verdicts. Were every true difference just at the tolerance, {ERROR * verdicts:.2g} of them would "
        "be called reproduced by chance."
    )


def _check(
    values: Sequence[float],
    published: float,
    published_sd: float | None,
    tolerance: float,
    direction: str,
    published_n: int,
) -> None:
    for value in values:
        if not math.isfinite(value):
            raise RecordError(f"a verdict on {value}: measured values must be finite; remake the record that holds it")
    if not math.isfinite(published):
        raise ConfigError(f"a verdict beside {published}: the published value must be finite; correct its CSV file")
    if published_sd is not None and not (math.isfinite(published_sd) and published_sd >= 0):
        raise ConfigError(f"published sd is {published_sd}; it must be 0 or more, or nothing; correct its CSV file")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"tolerance is {tolerance}; it must be 0 or more; correct the table's declaration")
    if direction not in ("lower", "higher"):
        raise ConfigError(f"direction is {direction!r}; it must be 'lower' or 'higher'")
    if published_n < 2:
        raise ConfigError(
            f"published_n is {published_n}; it must be 2 or more, for a spread comes from 2 runs at least"
        )
