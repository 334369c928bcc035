"""What the seeds of a configuration can tell apart: the power of Welch's test between two networks, by their spread."""

import math

from ltpa.plan.plan import Plan
from ltpa.plan.views import table_spec
from ltpa.tables.declaration import parse_declaration
from ltpa.tables.frame import tidy_rows
from ltpa.tables.paired import compare
from ltpa.tables.published import from_dicts
from ltpa.tables.statistics import FEWEST, t_quantile

GAP = 0.3  # points, the size of the paper's smaller differences
SPREADS = (0.05, 0.10, 0.15, 0.20)  # standard deviations over seeds; the paper's own are .04 to .26
_ERROR = 0.05
_STEPS = 100  # of the integral over the ratio of the two measured variances


def power(gap: float, sd: float, seeds: int, tests: int = 1) -> float:
    """The chance that Welch's two-sided test at 5 % tells two networks apart, and which is the better one.

    Args:
        gap: the true difference of their means.
        sd: standard deviation of either network over seeds, in the unit of `gap`.
        seeds: seeds of either network; below 3 there is no test, and the power is 0.
        tests: tests of the table; the power is that of the smallest of so many p values, the hardest step of Holm's
            correction.
    """
    if seeds < FEWEST:
        return 0.0
    from scipy.special import betaincinv, nctdtr

    # With equal numbers of seeds the statistic has a noncentral t distribution with 2 (n - 1) degrees of freedom. The
    # critical value depends on the sample's degrees of freedom (Welch-Satterthwaite), and these on the share of one
    # network in the sum of the two variances alone, which is beta distributed and independent of the statistic.
    own, noncentrality = seeds - 1, gap / (sd * math.sqrt(2 / seeds))
    found = 0.0
    for step in range(_STEPS):
        share = betaincinv(own / 2, own / 2, (step + 0.5) / _STEPS)
        critical = t_quantile(1 - _ERROR / (2 * tests), own / (share**2 + (1 - share) ** 2))
        found += float(1 - nctdtr(2 * own, noncentrality, critical)) / _STEPS
    return found


def markdown(plan: Plan) -> str:
    """A Markdown table: a line for one test alone, and one for the first of the tests of each table by Holm."""
    seeds = len(plan.config.seeds)
    if seeds < FEWEST:
        return f"Power: none. Tests between networks and verdicts are withheld below {FEWEST} seeds; here are {seeds}."
    tests = {table: _tests(plan, table) for table in plan.config.tables}
    named = {f"{table}, first of {count} by Holm": count for table, count in tests.items() if count}
    lines = ["| power | " + " | ".join(f"sd {sd:.2f}" for sd in SPREADS) + " |", "|---|" + "---:|" * len(SPREADS)]
    for name, count in {"one test alone": 1, **named}.items():
        lines.append(f"| {name} | " + " | ".join(f"{power(GAP, sd, seeds, count):.2f}" for sd in SPREADS) + " |")
    note = (
        f"Power: the chance that {seeds} seeds tell two networks apart whose true means are {GAP:g} points apart "
        "(Welch's two-sided test at 5 %), by the standard deviation of either network over seeds."
    )
    return "\n".join([*lines, "", note])


def _tests(plan: Plan, table: str) -> int:
    """Networks that a table tests against their baselines, in the panels that carry verdicts."""
    spec = table_spec(plan, table)
    declaration = parse_declaration(spec.declaration, table)
    if declaration.kind != "metrics":
        return 0
    collected = tidy_rows(spec, declaration, from_dicts(spec.published), {})
    compared = compare(collected, declaration.baselines(spec.baselines))
    return sum(not collected[position].slot.secondary for position in compared)
