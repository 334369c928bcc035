"""The primal form of `ltpa.evaluation.active_set`: one row per feature, for at least as many active rows."""

import torch

from ltpa.evaluation.active_common import MAX_STEPS, TOLERANCE, WHOLE_STEPS, Shared, Tensor, solve, step_length


def primal_form(shared: Shared, signs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (1 + folds, K, D) and relative gaps (1 + folds, K), from the starting weights (K, D)."""
    count, folds = len(signs), len(shared.train) - 1
    active = torch.ones_like(signs, dtype=torch.bool)
    matrices = shared.matrix.expand(count, -1, -1).clone()
    weights, gaps = _newton(shared, signs, shared.train[:1].expand(count, -1), start, active, matrices)
    signs, rows = signs.repeat(folds, 1), shared.train[1:].repeat_interleave(count, 0)
    active, matrices = active.repeat(folds, 1), matrices.repeat(folds, 1, 1)
    others, fold_gaps = _newton(shared, signs, rows, weights.repeat(folds, 1), active, matrices)
    joined = torch.cat([weights[None], others.reshape(folds, count, -1)])
    return joined, torch.cat([gaps[None], fold_gaps.reshape(folds, count)])


def _newton(
    shared: Shared, signs: Tensor, rows: Tensor, weights: Tensor, held: Tensor, matrices: Tensor
) -> tuple[Tensor, Tensor]:
    """Minimisers (P, D) and relative gaps (P,) of P problems.

    `held` (P, n) says which rows the `matrices` (P, D, D) are of; both are brought up to date in place.
    """
    points, C = shared.points, shared.C
    weights = weights.clone()
    gaps = weights.new_full((len(weights),), torch.inf)
    live = torch.arange(len(weights), device=weights.device)
    for step in range(MAX_STEPS):
        old, sign, row = weights[live], signs[live], rows[live]
        margins = 1 - sign * (old @ points.T)
        active = (margins > 0) & row
        losses = torch.where(active, margins, 0.0)
        gradient = old - 2 * C * ((sign * losses) @ points)
        objective = old.square().sum(1) / 2 + C * losses.square().sum(1)
        gaps[live] = gradient.square().sum(1) / 2 / objective
        going = ~(gaps[live] <= TOLERANCE * 1e-4) if step else torch.ones_like(live, dtype=torch.bool)
        if step and (~going).any():
            live, old, sign, active, margins = (each[going] for each in (live, old, sign, active, margins))
            row, gradient = row[going], gradient[going]
        if len(live) == 0:
            break
        _exchange(points, C, matrices, held, live, active)
        new = solve(matrices[live], 2 * C * ((sign * active) @ points))
        if step >= WHOLE_STEPS:
            direction = new - old
            change = torch.where(row, sign * (direction @ points.T), 0.0)
            outside = torch.where(row, margins, -1.0)
            length = step_length(outside, change, (old * direction).sum(1), direction.square().sum(1), C)
            new = old + length[:, None] * direction
        weights[live] = new
        live = live[new.isfinite().all(dim=1)]
    gaps[~weights.isfinite().all(dim=1)] = torch.inf
    return weights, gaps


def _exchange(points: Tensor, C: float, matrices: Tensor, held: Tensor, live: Tensor, wanted: Tensor) -> None:
    """Make the `live` of `matrices`, those of the rows `held`, the matrices I + 2C Σ x xᵀ of the rows `wanted`."""
    changed = held[live] != wanted
    anew = changed.sum(1) > wanted.sum(1)
    matrices[live[anew]] = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    changed = torch.where(anew[:, None], wanted, changed)
    places, rows = changed.nonzero(as_tuple=True)
    moved = rows.split(changed.sum(1).tolist())
    scales = torch.where(wanted[places, rows], 2 * C, -2 * C).to(points.dtype)[:, None].split([len(m) for m in moved])
    for problem, chosen, scale in zip(live.tolist(), moved, scales, strict=True):
        vectors = points[chosen]
        matrices[problem].addmm_((vectors * scale).T, vectors)
    held[live] = wanted
