"""Exact one-against-the-rest linear SVMs of all classes and folds, by Newton steps on active sets.

The problem is that of liblinear's `LinearSVC` with its default loss, penalty and bias: per class, with signs s = ±1 and
points x that end in a constant 1 (so the bias is regularised),

    minimise over w:  P(w) = |w|²/2 + C Σᵢ max(0, 1 − sᵢ⟨w, xᵢ⟩)²

P is strongly convex and piecewise quadratic: its minimiser is known once the *active* rows are, those whose margin
1 − s⟨w, x⟩ is positive. A Newton step solves the linear system of the rows that are active now, and the steps end at
the exact minimiser after finitely many (Mangasarian 2002, A finite Newton method for classification). Two forms of it:

* `active_dual`, for more features than active rows: the system has one row per active row. It works on a small set of
  rows with their inner products at hand, then looks at all rows and takes in those with the largest margin.
* `active_primal`, otherwise: one row per feature; the matrix is carried along and changed by the rows that come and go.

Both begin the folds from the solution on all rows, which differs little. Steps are whole, which is quick though not
monotone; from a stated number on they are cut by an exact line search, which cannot cycle. All runs in float64, except
the look at all rows (float32). Every solution carries a duality gap: for the dual form C Σ max(0, margin)² over the
rows left out, for the primal one |∇P|²/2.

Everything is PyTorch: on a CPU classes are spread over threads, on a CUDA device the linear systems of all classes and
folds are factorised in batches.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ltpa.evaluation.active_common import Shared, Tensor
from ltpa.evaluation.active_dual import dual_form
from ltpa.evaluation.active_primal import primal_form

SMALL = 256  # up to so many features the primal form needs no look at the data to be the better one
GROUP = {"cpu": 8, "cuda": 128}  # classes handled together in the dual form
PRIMAL_BYTES = {"cpu": 400e6, "cuda": 20e9}  # memory for the primal form, per thread


@dataclasses.dataclass(frozen=True)
class Fits:
    """Solutions of all problems.

    Attributes:
        weights: (folds, classes, d + 1) float64, the bias last.
        gaps: (folds, classes) duality gap relative to the objective; infinite where the problem was not solved.
        primal: how many classes went to the primal form.
    """

    weights: Tensor
    gaps: Tensor
    primal: int


def fit(
    points: Tensor, labels: Tensor, train: Tensor, C: float, threads: int = 1, only: Sequence[int] | None = None
) -> Fits:
    """Solve the problem of every class on the rows of every fold.

    Args:
        points: (n, d) floating point, on the device to compute on.
        labels: (n,) integers 0 to classes - 1. Two classes make one problem; the first one's weights are the negative.
        train: (folds, n) bool, the rows each fold trains on.
        C: weight of the losses.
        threads: groups of classes in work at once on a CPU.
        only: classes to solve for, all by default.
    """
    points = torch.cat([points.double(), points.new_ones(len(points), 1, dtype=torch.float64)], dim=1)
    classes = int(labels.max()) + 1
    wanted = list(only or ([1] if classes == 2 else range(classes)))
    shared = Shared(points, train, C)
    kind, features = points.device.type, points.shape[1]
    dual = features > SMALL
    at_once = max(1, int(PRIMAL_BYTES[kind] / (8 * (features**2 + 8 * len(points)) * (len(train) + 1))))
    size = min(GROUP[kind] if dual else at_once, -(-len(wanted) // threads))
    groups = [wanted[start : start + size] for start in range(0, len(wanted), size)]

    def solve(group: list[int]) -> tuple[Tensor, Tensor, int]:
        signs = torch.stack([torch.where(labels == own, 1.0, -1.0).double() for own in group])
        if not dual:
            return *primal_form(shared, signs, shared.ridge(signs)), len(group)
        weights, gaps, left = dual_form(shared, signs)
        for start in range(0, len(left), at_once):
            some = left[start : start + at_once]
            weights[:, some], gaps[:, some] = primal_form(shared, signs[some], weights[0, some])
        return weights, gaps, len(left)

    outer = torch.get_num_threads()
    try:
        if kind == "cpu":
            torch.set_num_threads(1)
        with ThreadPoolExecutor(threads if kind == "cpu" else 1) as pool:
            found = list(pool.map(solve, groups))
    finally:
        torch.set_num_threads(outer)
    weights = torch.cat([each[0] for each in found], dim=1)
    gaps = torch.cat([each[1] for each in found], dim=1)
    if classes == 2 and only is None:
        weights, gaps = torch.cat([-weights, weights], dim=1), gaps.expand(-1, 2)
    return Fits(weights[1:], gaps[1:], sum(each[2] for each in found))
