"""The dual form of `ltpa.evaluation.active_set`: one row per active row, for more features than active rows."""

from collections.abc import Sequence

import torch

from ltpa.evaluation.active_common import MAX_STEPS, TOLERANCE, WHOLE_STEPS, Shared, Tensor, solve_padded, step_length

MAX_ROUNDS = 100  # looks at all rows
FIRST_ROWS = 800  # rows it begins with


class _WorkingSet:
    """One class in the dual form: some rows, their inner products, and a solution on them for each of its folds.

    Attributes:
        rows: (w,) indices of the rows.
        gram: (w, w) their inner products.
        coefficients: (folds, w); the weights are Σ coefficient · sign · point, zero outside the fold.
    """

    def __init__(self, shared: Shared, signs: Tensor, first: Tensor) -> None:
        self.shared, self.all_signs = shared, signs
        self.rows = first[:0]
        self.held = shared.points[:0]
        self.gram = shared.points.new_zeros(0, 0)
        self.coefficients = shared.points.new_zeros(1, 0)
        self.inside = torch.zeros_like(signs, dtype=torch.bool)
        self.folds = shared.train[:1]
        self.failed = False
        self.gaps = signs.new_full((1,), torch.inf)
        self.add(first)

    def add(self, rows: Tensor) -> None:
        new = self.shared.points[rows]
        across = self.held @ new.T
        self.gram = torch.cat([torch.cat([self.gram, across], 1), torch.cat([across.T, new @ new.T], 1)])
        self.rows, self.held = torch.cat([self.rows, rows]), torch.cat([self.held, new])
        self.signs = self.all_signs[self.rows]
        self.inside[rows] = True
        self.allowed = self.folds[:, self.rows]
        grown = self.coefficients.new_zeros(len(self.coefficients), len(rows))
        self.coefficients = torch.cat([self.coefficients, grown], 1)

    def begin_folds(self) -> None:
        self.folds = self.shared.train[1:]
        self.allowed = self.folds[:, self.rows]
        self.coefficients = self.coefficients.repeat(len(self.folds), 1) * self.allowed
        self.gaps = self.gaps.repeat(len(self.folds))

    def margins(self, coefficients: Tensor) -> Tensor:
        return 1 - self.signs * ((coefficients * self.signs) @ self.gram)

    def weights(self) -> Tensor:
        return (self.coefficients * self.signs) @ self.held

    def largest_active(self) -> int:
        return int((self.coefficients > 0).sum(dim=1).max())

    def system(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix and right-hand side of one fold's Newton step."""
        chosen = active.nonzero()[:, 0]
        signs = self.signs[chosen]
        matrix = self.gram[chosen][:, chosen] * signs[:, None] * signs
        matrix.diagonal().add_(1 / (2 * self.shared.C))
        return matrix, torch.ones_like(signs)

    def damped(self, folds: Tensor, new: Tensor) -> Tensor:
        """`new` coefficients of some folds, each step cut to where the objective on the working set is least."""
        old = self.coefficients[folds]
        step, margins = new - old, self.margins(old)
        change = torch.where(self.allowed[folds], margins - self.margins(new), 0.0)
        margins = torch.where(self.allowed[folds], margins, -1.0)
        pull = self.signs * ((step * self.signs) @ self.gram)
        length = step_length(margins, change, (old * pull).sum(1), (step * pull).sum(1), self.shared.C)
        return old + length[:, None] * step


def _settle(sets: Sequence[_WorkingSet]) -> None:
    """Newton steps until every fold of every working set is solved on its rows; marks those that fail."""
    last: dict[int, Tensor] = {}
    live = list(range(len(sets)))
    for step in range(MAX_STEPS):
        turns: dict[int, list[int]] = {}
        for number in live:
            each = sets[number]
            active = (each.margins(each.coefficients) > 0) & each.allowed
            moving = torch.ones_like(active[:, 0])
            if number in last:
                moving = (active != last[number]).any(dim=1)
            last[number] = active
            if moving.any():
                turns[number] = moving.nonzero()[:, 0].tolist()
        if not turns:
            return
        systems = [sets[number].system(last[number][fold]) for number, folds in turns.items() for fold in folds]
        solved = iter(solve_padded([matrix for matrix, _ in systems], [right for _, right in systems]))
        for number, folds in turns.items():
            each = sets[number]
            new = torch.zeros_like(each.coefficients[folds])
            for place, fold in enumerate(folds):
                new[place, last[number][fold]] = next(solved)
            each.failed = not bool(new.isfinite().all())
            chosen = torch.tensor(folds, device=new.device)
            each.coefficients[chosen] = new if step < WHOLE_STEPS or each.failed else each.damped(chosen, new)
        live = [number for number in turns if not sets[number].failed]
    for number in live:
        sets[number].failed = True


def dual_form(shared: Shared, signs: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Weights (1 + folds, K, D), relative gaps (1 + folds, K), and the classes that are left to the primal form."""
    start = shared.ridge(signs)
    first = (1 - signs * (start @ shared.points.T)).topk(min(FIRST_ROWS, signs.shape[1])).indices.sort().values
    weights = start.expand(len(shared.train), -1, -1).clone()
    gaps = weights.new_full(weights.shape[:2], torch.inf)
    sets = [_WorkingSet(shared, sign, rows) for sign, rows in zip(signs, first, strict=True)]
    left: list[int] = []
    for folds in (slice(0, 1), slice(1, None)):
        open_sets = [number for number in range(len(sets)) if number not in left]
        if folds.start:
            for number in open_sets:
                sets[number].begin_folds()
        for _ in range(MAX_ROUNDS):
            if not open_sets:
                break
            _settle([sets[number] for number in open_sets])
            dense = [n for n in open_sets if sets[n].failed or sets[n].largest_active() > shared.points.shape[1]]
            for number in dense:
                if not sets[number].failed:
                    weights[0, number] = sets[number].weights()[0]
                sets[number] = None  # type: ignore[call-overload]
            left += dense
            open_sets = _look_at_all_rows(shared, sets, [n for n in open_sets if n not in dense])
        left += open_sets
        for number in range(len(sets)):
            if number not in left:
                weights[folds, number], gaps[folds, number] = sets[number].weights(), sets[number].gaps
    return weights, gaps, left


def _look_at_all_rows(shared: Shared, sets: Sequence[_WorkingSet], numbers: list[int]) -> list[int]:
    """Take violating rows into the working sets; returns the sets that had any of weight."""
    if not numbers:
        return []
    weights = [sets[number].weights() for number in numbers]
    scores = torch.cat(weights).float() @ shared.coarse.T
    unsolved = []
    for number, own, score in zip(numbers, weights, scores.split([len(each) for each in weights]), strict=True):
        each = sets[number]
        losses = ((1 - each.all_signs.float() * score) * each.folds).clamp_min(0)
        outside = losses * ~each.inside
        excess = shared.C * outside.double().square().sum(1)
        each.gaps = excess / (own.square().sum(1) / 2 + shared.C * losses.double().square().sum(1))
        if (each.gaps > TOLERANCE).any():
            most = outside.amax(0)
            count = min(int((most > 0).sum()), max(each.largest_active(), 200))
            each.add(most.topk(count).indices.sort().values)
            unsolved.append(number)
    return unsolved
