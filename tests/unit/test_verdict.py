"""The verdict's stated rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltpa.tables.verdict import rule, verdict, withheld

sds = st.one_of(st.none(), st.floats(0, 5))


@pytest.mark.parametrize(
    ("delta", "direction", "published_sd", "our_sd", "expected"),
    [
        (0.5, "lower", None, None, "reproduced"),
        (7.27 - 7.77, "lower", None, None, "reproduced"),
        (0.51, "lower", None, None, "worse"),
        (0.51, "higher", None, None, "better"),
        (-0.51, "lower", None, None, "better"),
        (-0.51, "higher", None, None, "worse"),
        (1.0, "lower", 0.3, 0.4, "reproduced"),
        (1.01, "lower", 0.3, 0.4, "worse"),
        (0.6, "lower", 0.3, None, "reproduced"),
        (0.61, "lower", None, 0.3, "worse"),
    ],
)
def test_rule_by_hand(delta, direction, published_sd, our_sd, expected):
    assert verdict(delta, direction, 0.5, published_sd, our_sd) == expected


@given(st.floats(-50, 50), sds, sds)
def test_directions_mirror_each_other(delta, published_sd, our_sd):
    lower = verdict(delta, "lower", 0.5, published_sd, our_sd)
    assert lower == verdict(-delta, "higher", 0.5, published_sd, our_sd)
    if lower == "reproduced":
        assert verdict(delta / 2, "lower", 0.5, published_sd, our_sd) == "reproduced"


def test_texts():
    assert withheld("demo") == "withheld (demo scale)"
    assert "max(0.5 %" in rule("lower", 0.5, "%")
    assert "lower is better" in rule("lower", 0.5, "%")
