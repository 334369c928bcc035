"""Mean, spread and confidence interval over seeds."""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Numbers of `n` seeds in short.

    Attributes:
        mean: arithmetic mean.
        sd: standard deviation of the sample (ddof=1); None for one value.
        n: number of values.
        low, high: 95 % confidence interval of the mean, Student's t with n - 1 degrees of freedom; None for one value.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % t-interval of one or more finite values; their order has no effect."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, n, None, None)
    from scipy.special import stdtrit

    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Estimate(mean, sd, n, mean - half, mean + half)
