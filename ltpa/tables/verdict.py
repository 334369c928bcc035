"""The verdict on a measured mean beside a published value; one rule for every table."""

import math
from typing import Literal

_ROUNDING = 1e-9  # a difference of exactly the tolerance counts as within it, whatever the last bit says


def verdict(
    delta: float,
    direction: Literal["lower", "higher"],
    tolerance: float,
    published_sd: float | None,
    measured_sd: float | None,
) -> str:
    """`reproduced`, `better` or `worse`.

    Reproduced when |delta| <= max(tolerance, 2 sqrt(published_sd^2 + measured_sd^2)); `delta` is measured minus
    published, an unknown standard deviation counts as 0. Otherwise the sign of `delta` and the direction decide.
    """
    spread = 2 * math.hypot(published_sd or 0.0, measured_sd or 0.0)
    if abs(delta) <= max(tolerance, spread) + _ROUNDING:
        return "reproduced"
    return "better" if (delta < 0) == (direction == "lower") else "worse"


def withheld(scale: str) -> str:
    """What stands for the verdict where the scale's numbers are not comparable with the paper's."""
    return f"withheld ({scale} scale)"


def rule(direction: str, tolerance: float, unit: str) -> str:
    """The rule in words, for the foot of a table."""
    return (
        f"Verdict: reproduced when |delta| ≤ max({tolerance:g} {unit}, 2·sqrt(sd² published + sd² ours)), an unknown "
        f"sd counting as 0; otherwise better or worse ({direction} is better). Delta is ours minus published."
    )
