"""Solvers of the transfer protocol's linear SVMs on one whole problem: wall time, accuracy, distance from the optimum.

    OMP_NUM_THREADS=2 python benchmarks/svm_solvers.py                                # 4,000 x 512, 40 classes
    OMP_NUM_THREADS=2 python benchmarks/svm_solvers.py --points 400 --features 64 --classes 10 --repeats 5
    OMP_NUM_THREADS=2 python benchmarks/svm_solvers.py --images results/trial/data/caltech101 --normalise l2

Every solver uses all threads: ours and the batched methods by torch, liblinear and libsvm by as many fits at a time.
libsvm's one against one is another problem (and the plain hinge), so only its accuracy is given. With
scikit-learn-intelex on the path its libsvm is timed, too; it has no `LinearSVC`. For the largest size see
`benchmarks/svm.py`.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import svm_rivals
import torch
from svm_data import problem

from ltpa.evaluation import active_set
from ltpa.evaluation.svm import l2_normalise, stratified_folds

FOLDS = 5


def add_arguments(parser, points, features, classes):
    parser.add_argument("--images", type=Path, help="folder of a prepared dataset; synthetic features without it")
    parser.add_argument("--points", type=int, default=points)
    parser.add_argument("--features", type=int, default=features)
    parser.add_argument("--classes", type=int, default=classes)
    parser.add_argument("--normalise", choices=("raw", "l2"), default="raw")
    parser.add_argument("--threads", type=int, default=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, 4000, 512, 40)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="solvers whose names begin so; ours always runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    points, labels = problem(options)
    points = l2_normalise(points) if options.normalise == "l2" else points
    train = stratified_folds(labels, FOLDS, 0) != np.arange(FOLDS)[:, None]
    signs = np.where(labels == np.arange(labels.max() + 1)[:, None], 1.0, -1.0)
    rows = np.hstack([points, np.ones((len(points), 1))])
    print(f"{points.shape[0]} points of {points.shape[1]} features ({options.normalise}), {len(signs)} classes, "
          f"{FOLDS} folds, {options.threads} threads\n")  # fmt: skip
    print("| solver | wall, s | ratio | accuracy, % | objective above the optimum: median, largest | |")
    print("|---|---:|---:|---:|---|---|")
    given = [torch.from_numpy(each) for each in (points, labels, train)]
    best = spent = None
    for name, solve in solvers(given, rows, signs, labels, train, options.threads).items():
        if best is not None and options.only and not any(name.startswith(start) for start in options.only):
            continue
        seconds = []
        for _ in range(options.repeats):
            started = time.perf_counter()
            found = solve()
            seconds.append(time.perf_counter() - started)
        spent = spent or min(seconds)
        weights, note = found if isinstance(found, tuple) else (found, "")
        if isinstance(weights, list):
            accuracy, above = np.mean(weights), "another problem"
        else:
            values = values_of(weights, rows, signs, train)
            best = values if best is None else best
            excess = values / best - 1
            accuracy = accuracy_of(weights, rows, labels, train)
            above = f"{np.median(excess):.1e}, {excess.max():.1e}"
        print(
            f"| {name} | {min(seconds):.2f} | {min(seconds) / spent:.2f} | {accuracy:.2f} | {above} | {note} |",
            flush=True,
        )


def values_of(weights, rows, signs, train):
    """Objectives (F, K) of weights (F, K, D)."""
    return np.array(
        [
            [svm_rivals.objective(w, rows[fold], sign[fold]) for w, sign in zip(own, signs, strict=True)]
            for own, fold in zip(weights, train, strict=True)
        ]
    )


def accuracy_of(weights, rows, labels, train):
    """Percent right, mean over folds."""
    right = [(own @ rows[~fold].T).argmax(0) == labels[~fold] for own, fold in zip(weights, train, strict=True)]
    return 100 * np.mean([each.mean() for each in right])


def solvers(given, rows, signs, labels, train, threads):
    """Name to a function of nothing, which gives weights (F, K, D) or accuracies, and may add a note."""

    def liblinear(**settings):
        return lambda: svm_rivals.liblinear_everywhere(rows, signs, train, threads, **settings)

    def batched(method):
        def solve():
            weights, unsolved, steps = method(rows, signs, train)
            return weights, f"{steps} steps, {unsolved} of {weights.shape[0] * weights.shape[1]} not solved"

        return solve

    def coordinates():
        weights, passes = svm_rivals.dual_coordinates(rows, signs, train)
        return weights, f"{passes} passes"

    found = {
        "ours (exact)": lambda: active_set.fit(*given, 1.0, threads).weights.numpy(),
        "LinearSVC, defaults (primal)": liblinear(),
        "LinearSVC, primal, tolerance 1e-2": liblinear(dual=False, tol=1e-2),
        "LinearSVC, dual": liblinear(dual=True),
        "LinearSVC, dual, tolerance 1e-6": liblinear(dual=True, tol=1e-6, max_iter=100_000),
        "L-BFGS, batched": batched(svm_rivals.lbfgs),
        "Newton with conjugate gradients, batched": batched(svm_rivals.newton),
        "dual coordinates, batched": coordinates,
        "libsvm, shared Gram matrix": lambda: svm_rivals.libsvm_shared_gram(rows, labels, train, threads),
        "libsvm, linear kernel": lambda: svm_rivals.libsvm_linear(rows, labels, train, threads),
    }
    if importlib.util.find_spec("sklearnex"):
        from sklearnex.svm import SVC

        found["intelex SVC, shared Gram matrix"] = lambda: svm_rivals.libsvm_shared_gram(rows, labels, train, 1, SVC)
        found["intelex SVC, linear kernel"] = lambda: svm_rivals.libsvm_linear(rows, labels, train, 1, SVC)
    return found


if __name__ == "__main__":
    main()
