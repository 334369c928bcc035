"""Exact one-against-the-rest linear SVMs of all classes and folds, by Newton steps on active sets.

The problem is that of liblinear's `LinearSVC` with its default loss, penalty and bias: per class, with signs s = ±1 and
points x that end in a constant 1 (so the bias is regularised),

    minimise over w:  P(w) = |w|²/2 + C Σᵢ max(0, 1 − sᵢ⟨w, xᵢ⟩)²

P is strongly convex and piecewise quadratic: its minimiser is known once the *active* rows are, those whose margin
1 − s⟨w, x⟩ is positive. A Newton step solves the linear system of the rows that are active now, and the steps end at
the exact minimiser after finitely many (Mangasarian 2002, A finite Newton method for classification). Two forms of it:

* `dual`, for more features than active rows: the system has one row per active row. It works on a small set of rows
  with their inner products at hand, then looks at all rows and takes in those with the largest margin.
* `primal`, otherwise: one row per feature; the matrix is carried along and changed by the rows that come and go.

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

Tensor = torch.Tensor

SMALL = 256  # up to so many features the primal form needs no look at the data to be the better one
WHOLE_STEPS = 40  # Newton steps before the line search sets in
MAX_STEPS = 400
MAX_ROUNDS = 100  # looks at all rows
TOLERANCE = 1e-9  # relative duality gap at which a solution counts as exact
FIRST_ROWS = 800  # rows the dual form begins with
GROUP = {"cpu": 8, "cuda": 128}  # classes handled together in the dual form
LANES = {"cpu": 1, "cuda": 256}  # linear systems factorised together
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
    shared = _Shared(points, train, C)
    kind, features = points.device.type, points.shape[1]
    dual = features > SMALL
    at_once = max(1, int(PRIMAL_BYTES[kind] / (8 * (features**2 + 8 * len(points)) * (len(train) + 1))))
    size = min(GROUP[kind] if dual else at_once, -(-len(wanted) // threads))
    groups = [wanted[start : start + size] for start in range(0, len(wanted), size)]

    def solve(group: list[int]) -> tuple[Tensor, Tensor, int]:
        signs = torch.stack([torch.where(labels == own, 1.0, -1.0).double() for own in group])
        if not dual:
            return *_primal(shared, signs, shared.ridge(signs)), len(group)
        weights, gaps, left = _dual(shared, signs)
        for start in range(0, len(left), at_once):
            some = left[start : start + at_once]
            weights[:, some], gaps[:, some] = _primal(shared, signs[some], weights[0, some])
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


class _Shared:
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


def _solve_padded(matrices: Sequence[Tensor], rights: Sequence[Tensor]) -> list[Tensor]:
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
        solved = _solve(stack, right)
        found += [solved[place, : len(matrix)] for place, matrix in enumerate(chunk)]
    return found


def _solve(matrices: Tensor, rights: Tensor) -> Tensor:
    """Solutions (B, m) of B systems; NaN where a matrix is not positive definite in float64."""
    factors, info = torch.linalg.cholesky_ex(matrices)
    solved = torch.cholesky_solve(rights[..., None], factors)[..., 0]
    solved[info > 0] = torch.nan
    return solved


def _step_length(margins: Tensor, change: Tensor, linear: Tensor, quadratic: Tensor, C: float) -> Tensor:
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


class _WorkingSet:
    """One class in the dual form: some rows, their inner products, and a solution on them for each of its folds.

    Attributes:
        rows: (w,) indices of the rows.
        gram: (w, w) their inner products.
        coefficients: (folds, w); the weights are Σ coefficient · sign · point, zero outside the fold.
    """

    def __init__(self, shared: _Shared, signs: Tensor, first: Tensor) -> None:
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
        length = _step_length(margins, change, (old * pull).sum(1), (step * pull).sum(1), self.shared.C)
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
        solved = iter(_solve_padded([matrix for matrix, _ in systems], [right for _, right in systems]))
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


def _dual(shared: _Shared, signs: Tensor) -> tuple[Tensor, Tensor, list[int]]:
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


def _look_at_all_rows(shared: _Shared, sets: Sequence[_WorkingSet], numbers: list[int]) -> list[int]:
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


def _primal(shared: _Shared, signs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
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
    shared: _Shared, signs: Tensor, rows: Tensor, weights: Tensor, held: Tensor, matrices: Tensor
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
        new = _solve(matrices[live], 2 * C * ((sign * active) @ points))
        if step >= WHOLE_STEPS:
            direction = new - old
            change = torch.where(row, sign * (direction @ points.T), 0.0)
            outside = torch.where(row, margins, -1.0)
            length = _step_length(outside, change, (old * direction).sum(1), direction.square().sum(1), C)
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
