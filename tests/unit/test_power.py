"""The power that `ltpa plan` prints: against a simulation, and beside Student's test."""

import numpy as np
import pytest
from scipy.special import nctdtr
from scipy.stats import t as student
from scipy.stats import ttest_ind

from ltpa.core.declared import config_dir
from ltpa.plan import Plan
from ltpa.plan.config import load_config
from ltpa.plan.power import markdown, power


@pytest.mark.parametrize(("seeds", "sd"), [(3, 0.05), (3, 0.2), (5, 0.1), (5, 0.2), (10, 0.15)])
def test_agrees_with_a_simulation(seeds, sd):
    random = np.random.default_rng(seeds)
    ours, theirs = random.normal(0.3, sd, (20_000, seeds)), random.normal(0.0, sd, (20_000, seeds))
    p = ttest_ind(ours, theirs, axis=1, equal_var=False).pvalue
    for tests in (1, 10, 20):
        assert power(0.3, sd, seeds, tests) == pytest.approx((p < 0.05 / tests).mean(), abs=0.012)


@pytest.mark.parametrize(
    ("sd", "alone", "of_10", "of_20"),
    [(0.05, 1.00, 1.00, 1.00), (0.10, 0.98, 0.77, 0.65), (0.15, 0.79, 0.35, 0.24), (0.20, 0.55, 0.16, 0.10)],
)
def test_lies_a_little_below_that_of_a_test_that_knows_the_spreads_to_be_equal(sd, alone, of_10, of_20):
    """Student's pooled test at 5 seeds, 2 (n - 1) = 8 degrees of freedom, which Welch's test has at best."""
    for tests, pooled in ((1, alone), (10, of_10), (20, of_20)):
        noncentrality, critical = 0.3 / (sd * np.sqrt(2 / 5)), student.ppf(1 - 0.025 / tests, 8)
        assert 1 - nctdtr(8, noncentrality, critical) == pytest.approx(pooled, abs=0.0051)
        assert pooled - 0.1 < power(0.3, sd, 5, tests) <= pooled + 0.0051


def test_power_rises_with_seeds_and_is_none_without_a_test():
    found = [power(0.3, 0.1, seeds) for seeds in range(1, 12)]
    assert found[:2] == [0.0, 0.0] and found == sorted(found) and found[-1] == pytest.approx(1, abs=1e-4)
    assert power(0.3, 0.001, 5) == pytest.approx(1) and power(0.3, 10, 5) == pytest.approx(0.025, abs=0.01)


def test_the_plan_names_each_table_that_makes_tests():
    lines = markdown(Plan(load_config(config_dir() / "paper.yaml"))).splitlines()
    assert lines[0] == "| power | sd 0.05 | sd 0.10 | sd 0.15 | sd 0.20 |"
    assert lines[2] == "| one test alone | 1.00 | 0.98 | 0.77 | 0.52 |"
    rows = [line.split("|")[1].strip() for line in lines[3:] if line.startswith("|")]
    assert "table1, first of 14 by Holm" in rows and not any("table4" in row for row in rows)
    assert "5 seeds tell two networks apart whose true means are 0.3 points apart" in lines[-1]


def test_a_plan_of_two_seeds_says_that_it_can_tell_nothing():
    assert markdown(Plan(load_config(config_dir() / "config.yaml"))) == (
        "Power: none. Tests between networks and verdicts are withheld below 3 seeds; here are 2."
    )
