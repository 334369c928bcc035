"""The verdict: its rule against SciPy, its errors by simulation, and what it must never say."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from ltpa.core.errors import ConfigError, RecordError
from ltpa.tables.verdict import Pooled, assess, expected_errors, judge, pool, rule, withheld

TOLERANCE = 0.5
values = st.lists(st.floats(-50, 50), min_size=1, max_size=8)
sds = st.one_of(st.none(), st.floats(0, 5))


def sample(mean, sd, n):
    """`n` values of exactly this mean and standard deviation."""
    if n == 1:
        return [mean]
    spread = np.arange(n) - (n - 1) / 2
    return (mean + sd * spread / spread.std(ddof=1)).tolist()


@pytest.mark.parametrize(
    ("mean", "sd", "n", "published", "published_sd", "expected"),
    [
        (20.40, 6.51, 2, 7.77, 0.08, "undecided"),  # two seeds
        (10.60, 0.85, 2, 5.86, 0.05, "undecided"),
        (3.60, 0.00, 2, 5.23, 0.04, "undecided"),
        (20.40, 6.51, 5, 7.77, 0.08, "worse"),
        (7.80, 0.10, 5, 7.77, 0.08, "reproduced"),
        (7.80, 6.51, 5, 7.77, 0.08, "undecided"),  # spread never helps
        (6.50, 0.10, 5, 7.77, 0.08, "better"),
        (8.27, 0.10, 5, 7.77, 0.08, "undecided"),  # just at the tolerance
        (7.77, 0.00, 5, 7.77, 0.08, "undecided"),  # no spread: nothing is known of it
        (7.77, 0.00, 1, 7.77, 0.08, "undecided"),
        (90.0, 0.00, 1, 7.77, 0.08, "undecided"),
    ],
)
def test_cells_by_hand(mean, sd, n, published, published_sd, expected):
    assert judge(sample(mean, sd, n), published, published_sd, TOLERANCE, "lower") == expected


def test_a_cell_says_how_many_seeds_more_would_settle_it():
    """d = .2, s = .4, n = 3: t(.95, n' - 1) .4 / sqrt(n') <= .3 holds from n' = 7 on (6: .329; 7: .294)."""
    found = assess(sample(7.97, 0.4, 3), 7.77, None, TOLERANCE, "lower")
    assert (found.word, found.more_seeds, found.text) == ("undecided", 4, "undecided (+4 seeds)")
    wanted = next(n for n in itertools.count(4) if student.ppf(0.95, n - 1) * 0.4 / math.sqrt(n) <= 0.3)
    assert wanted == 3 + found.more_seeds
    assert judge(sample(7.97, 0.4, 7), 7.77, None, TOLERANCE, "lower") == "reproduced"
    assert judge(sample(7.97, 0.4, 6), 7.77, None, TOLERANCE, "lower") == "undecided"
    at_the_margin = assess(sample(8.27, 0.4, 3), 7.77, None, TOLERANCE, "lower")
    assert (at_the_margin.more_seeds, at_the_margin.text) == (None, "undecided (over 1000 seeds more)")
    assert assess([7.8], 7.77, 0.1, TOLERANCE, "lower").text == "undecided (n < 3, +2 seeds)"
    assert assess([7.8] * 4, 7.77, 0.1, TOLERANCE, "lower").text == "undecided (sd 0)"
    assert judge([], 7.77, 0.1, TOLERANCE, "lower") == "undecided"


@given(st.lists(st.integers(-400, 400), min_size=3, max_size=8), st.floats(0.1, 5))
def test_an_exact_published_value_agrees_with_scipys_two_one_sided_tests(numbers, tolerance):
    ours = np.array(numbers) / 100
    if np.ptp(ours) == 0:
        return
    above = ttest_1samp(ours, -tolerance, alternative="greater").pvalue
    below = ttest_1samp(ours, tolerance, alternative="less").pvalue
    beyond = ttest_1samp(ours, math.copysign(tolerance, ours.mean())).pvalue
    found = judge(ours.tolist(), 0.0, None, tolerance, "higher")
    if abs(max(above, below) - 0.05) > 1e-9:
        assert (found == "reproduced") == (max(above, below) < 0.05)
    if abs(beyond - 0.05) > 1e-9:
        outside = abs(ours.mean()) > tolerance and beyond < 0.05
        assert (found in ("better", "worse")) == outside
        assert not outside or found == ("better" if ours.mean() > 0 else "worse")


def test_a_published_spread_enters_as_welch_has_it():
    """The interval of the difference of two samples of known means and standard deviations, from SciPy."""
    from scipy.stats import ttest_ind_from_stats

    found = assess(sample(8.1, 0.3, 4), 7.77, 0.2, TOLERANCE, "lower", published_n=6)
    test = ttest_ind_from_stats(8.1, 0.3, 4, 7.77, 0.2, 6, equal_var=False)
    se = (8.1 - 7.77) / test.statistic
    assert 2 * student.sf(test.statistic, found.df) == pytest.approx(test.pvalue)
    half = student.ppf(0.975, found.df) * se
    assert (found.low, found.high) == pytest.approx((8.1 - 7.77 - half, 8.1 - 7.77 + half))
    exact = assess(sample(8.1, 0.3, 4), 7.77, None, TOLERANCE, "lower")
    assert exact.df == 3


@pytest.mark.parametrize("published_sd", [None, 0.08])
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("sd", [0.05, 0.5, 6.5])
def test_at_the_margin_at_most_six_of_a_hundred_are_called_reproduced(sd, n, published_sd):
    draws = np.random.default_rng(n).normal(7.77 + TOLERANCE, sd, (2500, n))
    words = [judge(row.tolist(), 7.77, published_sd, TOLERANCE, "lower") for row in draws]
    assert words.count("reproduced") <= 0.06 * len(words)


@pytest.mark.parametrize(("sd", "power"), [(0.05, 1.0), (0.2, 0.99), (0.5, 0.29), (2.0, 0.0)])
def test_without_a_difference_small_spreads_reproduce_and_large_ones_stay_undecided(sd, power):
    draws = np.random.default_rng(0).normal(7.77, sd, (600, 5))
    words = [judge(row.tolist(), 7.77, None, TOLERANCE, "lower") for row in draws]
    assert words.count("reproduced") / 600 == pytest.approx(power, abs=0.06)
    assert words.count("undecided") >= 600 * (1 - power) - 40


@given(st.floats(-3, 3), st.floats(0.01, 4), st.floats(1, 3), st.integers(3, 8), sds, st.integers(2, 9))
def test_more_spread_of_our_own_never_decides(delta, sd, factor, n, published_sd, published_n):
    arguments = (10.0, published_sd, TOLERANCE, "lower")
    wide = judge(sample(10 + delta, sd * factor, n), *arguments, published_n=published_n)
    if wide != "undecided":
        assert judge(sample(10 + delta, sd, n), *arguments, published_n=published_n) == wide


def test_where_the_published_spread_leads_a_little_noise_does_not_narrow_the_margin():
    """Welch's degrees of freedom rise faster at first than the standard error does."""
    margins = []
    for sd in np.geomspace(1e-4, 1, 200):
        found = assess(sample(8.0, sd, 10), 8.0, 0.1, TOLERANCE, "lower", published_n=3)
        margins.append(found.high - found.delta)
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(margins))


@given(values, st.floats(-50, 50), sds)
def test_signs_and_directions_mirror_each_other(ours, published, published_sd):
    lower = assess(ours, published, published_sd, TOLERANCE, "lower")
    mirrored = assess([-value for value in ours], -published, published_sd, TOLERANCE, "higher")
    assert (lower.word, lower.more_seeds) == (mirrored.word, mirrored.more_seeds)
    other = judge(ours, published, published_sd, TOLERANCE, "higher")
    assert other == {"better": "worse", "worse": "better"}.get(lower.word, lower.word)
    assert len(ours) >= 3 or lower.word == "undecided"


def test_a_pooled_spread_serves_cells_that_have_none_of_their_own():
    """Variances .04 and .16 of 2 and 4 degrees of freedom, and a network whose seeds agree: (.08 + .64 + 0) / 8."""
    shared = pool([sample(5, 0.2, 3), sample(6, 0.4, 5), [7.0, 7.0, 7.0], [8.0]])
    assert isinstance(shared, Pooled)
    assert (shared.sd, shared.df) == (pytest.approx(0.3), 8)
    alone = assess([7.8, 7.8], 7.77, 0.08, TOLERANCE, "lower", pooled=shared)
    assert (alone.word, alone.pooled) == ("reproduced", True)
    assert alone.text == "reproduced (pooled sd)"
    assert alone.high - alone.delta > student.ppf(0.975, 8) * 0.3 / math.sqrt(2)
    own = assess(sample(7.8, 0.1, 3), 7.77, 0.08, TOLERANCE, "lower", pooled=shared)
    assert own == assess(sample(7.8, 0.1, 3), 7.77, 0.08, TOLERANCE, "lower") and not own.pooled


def test_spreads_of_different_size_are_not_pooled():
    assert pool([sample(5, 0.1, 3), sample(6, 0.3, 3)]) == "spreads from 0.1 to 0.3 are not of one size"
    assert pool([[1.0], [2.0]]) == pool([[1.0, 1.0, 1.0]]) == pool([[1.0, 1.1]]) == "too few values with a spread"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(RecordError, match="must be finite; remake the record") as caught:
        judge([1.0, bad, 2.0], 1.0, 0.1, TOLERANCE, "lower")
    assert "\n" not in str(caught.value)
    for arguments in ((bad, 0.1, TOLERANCE), (1.0, bad, TOLERANCE), (1.0, 0.1, bad)):
        with pytest.raises(ConfigError, match="correct"):
            judge([1.0, 1.1, 2.0], *arguments, "lower")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"direction": "up"}, "'lower' or 'higher'"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"published_sd": -1.0}, "published sd is -1.0"),
        ({"published_n": 1}, "published_n is 1"),
    ],
)
def test_bad_arguments_are_named(changes, says):
    plain = {"published": 1.0, "published_sd": 0.1, "tolerance": 0.5, "direction": "lower"}
    with pytest.raises(ConfigError, match=says):
        judge([1.0, 1.1, 1.2], **plain | changes)


def test_texts():
    assert withheld("demo") == "withheld (demo scale)"
    text = rule("lower", 0.5, "%", published_runs="5 runs assumed", taken_as_exact=True, pooled_sd=True)
    assert "within ±0.5 %" in text and "lower is better" in text and "published sd²/n (5 runs assumed)" in text
    assert "published value taken as exact where no sd is published" in text and "pooled over the column" in text
    plain = rule("lower", 0.5, "%", published_runs="", taken_as_exact=True, pooled_sd=False)
    assert "published value taken as exact." in plain and "pooled" not in plain
    assert expected_errors(22).startswith("22 verdicts.") and "1.1 of them" in expected_errors(22)
