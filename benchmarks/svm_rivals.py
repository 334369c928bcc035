"""What else solves the problem of `ltpa.evaluation.active_set`: liblinear, libsvm, and three batched methods.

Points (n, D) end in a column of ones here, and weights in the bias. Batched methods take all classes and folds at once:
signs (K, n), train (F, n) bool, and give weights (F, K, D); the problem of fold f and class k is row f * K + k.
"""

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sklearn.svm import SVC, LinearSVC

warnings.filterwarnings("ignore", "Liblinear failed to converge")
ENOUGH = 1e-6  # relative duality gap at which the batched methods take a problem for solved


def objective(weights, points, signs):
    """Of one problem, with C = 1."""
    losses = np.maximum(0, 1 - signs * (points @ weights))
    return weights @ weights / 2 + losses @ losses


def liblinear(points, signs, **options):
    """Weights that scikit-learn finds for one problem."""
    found = LinearSVC(random_state=0, **options).fit(points[:, :-1], signs)
    return np.append(found.coef_[0], found.intercept_)


def liblinear_everywhere(points, signs, train, threads, **options):
    """All classes and folds, with `threads` of them at a time: liblinear itself uses one core, and lets others run."""
    folds = [np.ascontiguousarray(points[rows]) for rows in train]
    tasks = [(fold, own) for fold in range(len(train)) for own in range(len(signs))]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda t: liblinear(folds[t[0]], signs[t[1]][train[t[0]]], **options), tasks)
        return np.stack(list(found)).reshape(len(train), len(signs), -1)


def libsvm_shared_gram(points, labels, train, threads, kind=SVC):
    """Accuracies of libsvm's one against one, on inner products that all folds share, `threads` folds at a time."""
    plain = points[:, :-1]
    gram = plain @ plain.T

    def fold(rows):
        fitted = kind(kernel="precomputed").fit(gram[np.ix_(rows, rows)], labels[rows])
        return 100 * (fitted.predict(gram[np.ix_(~rows, rows)]) == labels[~rows]).mean()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(fold, train))


def libsvm_linear(points, labels, train, threads, kind=SVC):
    """Accuracies of libsvm's one against one with its own linear kernel, `threads` folds at a time."""

    def fold(rows):
        fitted = kind(kernel="linear").fit(points[rows, :-1], labels[rows])
        return 100 * (fitted.predict(points[~rows, :-1]) == labels[~rows]).mean()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(fold, train))


class _Batch:
    """All problems at once: margins, objectives, gradients, and exact steps along directions."""

    def __init__(self, points, signs, train):
        self.points = torch.as_tensor(points)
        self.signs = torch.as_tensor(signs).repeat(len(train), 1)
        self.rows = torch.as_tensor(train).repeat_interleave(len(signs), 0)

    def keep(self, some):
        self.signs, self.rows = self.signs[some], self.rows[some]

    def slopes(self, weights, margins):
        """Gradients (P, D) and upper bounds of the relative duality gaps (P,)."""
        losses = torch.where(self.rows, margins, 0.0).clamp_min(0)
        gradient = weights - 2 * (self.signs * losses) @ self.points
        value = weights.square().sum(1) / 2 + losses.square().sum(1)
        return gradient, gradient.square().sum(1) / 2 / value

    def step(self, weights, margins, direction):
        """Lengths (P,) of nearly the best step along the directions, and by how much margins fall per unit of it."""
        fall = self.signs * (direction @ self.points.T)
        margins, change = torch.where(self.rows, margins, -1.0), torch.where(self.rows, fall, 0.0)
        linear, quadratic = (weights * direction).sum(1), direction.square().sum(1)
        low, high = torch.zeros_like(linear), torch.full_like(linear, torch.inf)
        length = torch.ones_like(linear)
        for _ in range(8):
            losses = (margins - length[:, None] * change).clamp_min(0)
            slope = linear + quadratic * length - 2 * (losses * change).sum(1)
            low, high = torch.where(slope <= 0, length, low), torch.where(slope > 0, length, high)
            new = length - slope / (quadratic + 2 * (change.square() * (losses > 0)).sum(1))
            middle = torch.where(high.isinf(), 2 * low, (low + high) / 2)
            length = torch.where((new >= low) & (new <= high), new, middle)
        return length, fall


def _batched(points, signs, train, steps, direct):
    """Run `direct(batch, gradient, margins, memory) -> direction` until all problems are solved or `steps` are gone.

    Returns weights (F, K, D), how many problems were not solved, and how many steps the slowest took.
    """
    batch = _Batch(points, signs, train)
    count, features = len(signs) * len(train), points.shape[1]
    found = torch.zeros(count, features, dtype=torch.float64)
    places = torch.arange(count)
    weights, margins = found.clone(), torch.ones(count, len(points), dtype=torch.float64)
    memory = {}
    for taken in range(steps + 1):
        gradient, gaps = batch.slopes(weights, margins)
        found[places] = weights
        going = gaps > ENOUGH
        if not going.any() or taken == steps:
            break
        if not going.all():
            batch.keep(going)
            places, weights, margins, gradient = places[going], weights[going], margins[going], gradient[going]
            for key, values in memory.items():
                memory[key] = [each[going] for each in values]
        direction = direct(batch, gradient, margins, memory)
        length, change = batch.step(weights, margins, direction)
        weights = weights + length[:, None] * direction
        margins = margins - length[:, None] * change
        if memory:
            memory["moves"].append(length[:, None] * direction)
            memory["gradients"].append(gradient)
    return found.reshape(len(train), len(signs), features).numpy(), int(going.sum()), taken


def lbfgs(points, signs, train, steps=1000, history=10):
    """L-BFGS, all problems side by side."""

    def direct(_, gradient, __, memory):
        moves = memory["moves"] = memory.get("moves", [])[-history:]
        seen = memory["gradients"] = memory.get("gradients", [])[-history:]
        turns = [later - earlier for earlier, later in itertools.pairwise([*seen, gradient])]
        direction, factors = -gradient, []
        for move, turn in zip(reversed(moves), reversed(turns), strict=True):
            scale = 1 / (move * turn).sum(1, keepdim=True)
            factor = scale * (move * direction).sum(1, keepdim=True)
            direction = direction - factor * turn
            factors.append((scale, factor))
        if moves:
            direction = direction * ((moves[-1] * turns[-1]).sum(1) / turns[-1].square().sum(1))[:, None]
        for move, turn, (scale, factor) in zip(moves, turns, reversed(factors), strict=True):
            direction = direction + (factor - scale * (turn * direction).sum(1, keepdim=True)) * move
        return direction

    return _batched(points, signs, train, steps, direct)


def newton(points, signs, train, steps=100, most=200):
    """Newton's method, its linear systems solved by conjugate gradients, all problems side by side."""

    def direct(batch, gradient, margins, _):
        active = ((margins > 0) & batch.rows).to(gradient.dtype)
        direction, residual = torch.zeros_like(gradient), -gradient
        search, size = residual, residual.square().sum(1)
        goal = 1e-2 * size
        for _ in range(most):
            bent = search + 2 * (active * (search @ batch.points.T)) @ batch.points
            length = torch.where(size > goal, size / (search * bent).sum(1), 0.0)[:, None]
            direction, residual = direction + length * search, residual - length * bent
            new = residual.square().sum(1)
            if (new <= goal).all():
                break
            search, size = residual + (new / size)[:, None] * search, new
        return direction

    return _batched(points, signs, train, steps, direct)


def dual_coordinates(points, signs, train, passes=100):
    """Dual coordinate descent, one row after the other, each for all problems side by side; (weights, passes)."""
    points, signs = torch.as_tensor(points), torch.as_tensor(signs).repeat(len(train), 1).T.contiguous()
    rows = torch.as_tensor(train).repeat_interleave(signs.shape[1] // len(train), 0).T.to(points.dtype).contiguous()
    weights = torch.zeros(signs.shape[1], points.shape[1], dtype=points.dtype)
    duals = torch.zeros_like(signs)
    curvature = (points.square().sum(1) + 0.5).tolist()
    random, taken = np.random.default_rng(0), 0
    while taken < passes:
        taken += 1
        largest = 0.0
        for row in random.permutation(len(points)):
            point, sign = points[row], signs[row]
            slope = sign * torch.mv(weights, point) - 1 + duals[row] / 2
            new = (duals[row] - slope / curvature[row]).clamp_min_(0) * rows[row]
            change = new - duals[row]
            duals[row] = new
            weights.addr_(change * sign, point)
            largest = max(largest, float((change.abs()).max()) * curvature[row])
        if largest < 1e-3:
            break
    return weights.reshape(len(train), -1, points.shape[1]).numpy(), taken
