"""Mean, spread and intervals over seeds: the arithmetic that verdicts and tests share."""

import dataclasses
import math
from collections.abc import Sequence

FEWEST = 3  # seeds; with fewer, a t-test has next to no power and its spread is hardly known


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

    @property
    def has_spread(self) -> bool:
        """Whether the values differ by more than rounding."""
        return self.sd is not None and self.sd > 1e-12 * abs(self.mean)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % t-interval of one or more finite values; their order has no effect."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, n, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(0.975, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, sd, n, mean - half, mean + half)


def t_quantile(p: float, df: float) -> float:
    """The `p` quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def t_two_sided(t: float, df: float) -> float:
    """Two-sided p value of the statistic `t` with `df` degrees of freedom."""
    from scipy.special import stdtr

    return 2 * float(stdtr(df, -abs(t)))


def welch_df(first: float, first_df: float, second: float, second_df: float) -> float:
    """Welch-Satterthwaite degrees of freedom of a difference of two means.

    `first` and `second` are the variances of the means, s^2/n, not both 0; `first_df` and `second_df` their degrees of
    freedom.
    """
    total = first + second
    first, second = first / total, second / total  # squares of tiny variances would underflow
    return 1 / (first**2 / first_df + second**2 / second_df)
