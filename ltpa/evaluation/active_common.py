"""What both forms of `ltpa.evaluation.active_set` stand on: the data that all problems share, linear systems, steps."""

from collections.abc import Sequence

import torch

Tensor = torch.Tensor

WHOLE_STEPS = 40  # Newton steps before the line search sets in
MAX_STEPS = 400
TOLERANCE = 1e-9  # relative duality gap at which a solution counts as exact
LANES = {"cpu": 1, "cuda": 256}  # linear systems factorised together


class Shared:
    """What all problems have in common. Fold 0 is all rows."""

    def __init__(self, points: Tensor, train: Tensor, C: float) -> None:
        self.points = points
        self.coarse = points.float()
        self.train = torch.cat([torch.ones_like(train[:1]), train])
        self.C = C
        self.matrix = 2 * C * (points.T @ points)
        self.matrix.diagonal().add_(1)
        self.factor, _ = torch.linalg.cholesky_ex(self.matrix)

    def ridge(self, signs: Tensor) -> Tensor:
        """(K, D) minimisers if every row were active: least squares on the signs, where all problems begin."""
        return torch.cholesky_solve(2 * self.C * (self.points.T @ signs.T), self.factor).T.nan_to_num()


def solve_padded(matrices: Sequence[Tensor], rights: Sequence[Tensor]) -> list[Tensor]:
    """Solve positive definite systems of different sizes; NaN where a matrix is not positive definite in float64."""
    found: list[Tensor] = []
    lanes = LANES[matrices[0].device.type]
    for start in range(0, len(matrices), lanes):
        chunk = matrices[start : start + lanes]
        largest = max(len(matrix) for matrix in chunk)
        stack = torch.eye(largest, dtype=chunk[0].dtype, device=chunk[0].device).repeat(len(chunk), 1, 1)
        right = stack.new_zeros(len(chunk), largest)
        for place, matrix in enumerate(chunk):
            stack[place, : len(matrix), : len(matrix)] = matrix
            right[place, : len(matrix)] = rights[start + place]
        solved = solve(stack, right)
        found += [solved[place, : len(matrix)] for place, matrix in enumerate(chunk)]
    return found


def solve(matrices: Tensor, rights: Tensor) -> Tensor:
    """Solutions (B, m) of B systems; NaN where a matrix is not positive definite in float64."""
    factors, info = torch.linalg.cholesky_ex(matrices)
    solved = torch.cholesky_solve(rights[..., None], factors)[..., 0]
    solved[info > 0] = torch.nan
    return solved


def step_length(margins: Tensor, change: Tensor, linear: Tensor, quadratic: Tensor, C: float) -> Tensor:
    """Minimisers over t > 0 of linear·t + quadratic·t²/2 + C Σ max(0, margins − t·change)², one per row.

    The derivative is increasing and piecewise linear: Newton's method inside a bracket.
    """
    low, high = torch.zeros_like(linear), torch.full_like(linear, torch.inf)
    length = torch.ones_like(linear)
    for _ in range(80):
        left = (margins - length[:, None] * change).clamp_min(0)
        slope = linear + quadratic * length - 2 * C * (left * change).sum(dim=1)
        curvature = quadratic + 2 * C * (change.square() * (left > 0)).sum(dim=1)
        low, high = torch.where(slope <= 0, length, low), torch.where(slope > 0, length, high)
        new = length - slope / curvature
        middle = torch.where(high.isinf(), 2 * low, (low + high) / 2)
        new = torch.where((new >= low) & (new <= high), new, middle)
        if not ((new - length).abs() > 1e-12 * length).any():
            break
        length = new
    return length
