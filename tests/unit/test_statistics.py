"""Statistics over seeds against hand computation and published t-quantiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltpa.tables.statistics import estimate


def test_two_values_by_hand():
    """Mean 7.5; squared deviations 0.0625 twice, so sd = sqrt(0.125); t(1) = 12.7062."""
    found = estimate([7.25, 7.75])
    assert found.mean == 7.5
    assert found.sd == math.sqrt(0.125)
    assert found.n == 2
    half = 12.7062 * math.sqrt(0.125) / math.sqrt(2)
    assert found.low == pytest.approx(7.5 - half, abs=1e-4)
    assert found.high == pytest.approx(7.5 + half, abs=1e-4)


def test_five_values_by_hand():
    """1 2 3 4 5: mean 3, sd sqrt(10/4), t(4) = 2.7764."""
    found = estimate([5.0, 3.0, 1.0, 2.0, 4.0])
    assert (found.mean, found.sd, found.n) == (3.0, math.sqrt(2.5), 5)
    assert found.high - found.mean == pytest.approx(2.7764 * math.sqrt(2.5 / 5), abs=1e-4)


def test_one_value_has_no_spread():
    found = estimate([6.0])
    assert (found.mean, found.sd, found.n, found.low, found.high) == (6.0, None, 1, None, None)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_agrees_with_numpy_in_any_order(values):
    found = estimate(values)
    assert found == estimate(values[::-1])
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-9)
    assert found.sd == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)
