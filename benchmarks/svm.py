"""Linear SVMs at the size of Caltech-256: our solver in full against scikit-learn's, wall time, memory and agreement.

    OMP_NUM_THREADS=2 python benchmarks/svm.py                                   # synthetic features
    OMP_NUM_THREADS=2 python benchmarks/svm.py --images results/trial/data/caltech101 --keep features.npz

30,000 points of 1,280 features in 256 classes, five folds; `benchmarks/svm_data.py` says of what. Ours solves it all.
`LinearSVC` is timed on some classes of one fold, spread evenly over all, as many at a time as there are threads:
liblinear solves one problem after the other on one core, so its time is proportional. What it would take in all is
reckoned twice, from wall time (which counts a thread that waits for the last class) and from processor time over
threads, which no way of sharing the work out beats; ratios are of the second. `--keep` writes the features to a file,
or reads them from it. `benchmarks/svm_solvers.py` compares more solvers on smaller problems.
"""

import argparse
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from svm_data import problem
from svm_rivals import liblinear, objective
from svm_solvers import FOLDS, add_arguments

from ltpa.evaluation import active_set
from ltpa.evaluation.svm import l2_normalise, stratified_folds

CONTENDERS = {"LinearSVC, its defaults": {}, "LinearSVC, dual": {"dual": True}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, 30_000, 1280, 256)
    parser.add_argument("--timed", type=int, default=8, help="classes that scikit-learn is timed on")
    parser.add_argument("--own", type=int, help="classes that ours is run on; all by default")
    parser.add_argument("--device", default="cpu", help="of our solver")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="npz of the features, written where it is missing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    points, labels = kept_problem(options)
    points = l2_normalise(points) if options.normalise == "l2" else points
    train = stratified_folds(labels, FOLDS, 0) != np.arange(FOLDS)[:, None]
    classes = int(labels.max()) + 1
    own = None if options.own is None else np.linspace(0, classes - 1, options.own).astype(int).tolist()
    print(f"{points.shape[0]} points of {points.shape[1]} features ({options.normalise}), {classes} classes, "
          f"{FOLDS} folds, {options.threads} threads; {memory():.2f} GiB so far", flush=True)  # fmt: skip
    given = [torch.from_numpy(each).to(options.device) for each in (points, labels, train)]
    fits, wall, processor = timed(lambda: active_set.fit(*given, 1.0, options.threads, only=own))
    weights, solved = fits.weights.cpu().numpy(), own or list(range(classes))
    print(f"ours, {len(solved)} classes, all folds: {wall:.1f} s, processor {processor:.1f} s; largest relative "
          f"duality gap {fits.gaps.max():.1e}; {fits.primal} by the primal form; peak {memory():.2f} GiB")  # fmt: skip
    if own is None:
        right = [
            (points[~rows] @ w[:, :-1].T + w[:, -1]).argmax(1) == labels[~rows]
            for rows, w in zip(train, weights, strict=True)
        ]
        print(f"accuracy {100 * np.mean([each.mean() for each in right]):.2f} %", flush=True)
    some = [solved[place] for place in np.linspace(0, len(solved) - 1, options.timed).astype(int)]
    compare(points, labels, train, weights, solved, some, wall * classes / len(solved), options.threads)


def compare(points, labels, train, weights, solved, some, ours, threads):
    """Time scikit-learn on the classes `some` of the first fold, and hold its objectives against ours."""
    rows = train[0]
    first = np.hstack([points[rows], np.ones((rows.sum(), 1))])
    scale = (int(labels.max()) + 1) * FOLDS / len(some)
    print("\n| solver | timed: wall, processor, s | all classes and folds, s: by wall, at best | ratio "
          "| objective above ours, each class |\n|---|---|---|---:|---|", flush=True)  # fmt: skip
    for name, settings in CONTENDERS.items():

        def solve(number, settings=settings):
            signs = np.where(labels[rows] == number, 1.0, -1.0)
            found = objective(liblinear(first, signs, **settings), first, signs)
            return found / objective(weights[0, solved.index(number)], first, signs) - 1

        with ThreadPoolExecutor(threads) as pool:
            excess, wall, processor = timed(lambda pool=pool, solve=solve: list(pool.map(solve, some)))
        best = processor / threads * scale
        above = ", ".join(f"{each:.1e}" for each in excess)
        reckoned = f"{wall * scale:.0f}, {best:.0f} | {best / ours:.1f}"
        print(f"| {name} | {wall:.1f}, {processor:.1f} | {reckoned} | {above} |", flush=True)
    number = some[len(some) // 2]
    signs = np.where(labels[rows] == number, 1.0, -1.0)
    tight = liblinear(first, signs, dual=True, tol=1e-8, max_iter=1_000_000)
    mine = weights[0, solved.index(number)]
    theirs, found = (points[~rows] @ each[:-1] + each[-1] for each in (tight, mine))
    relative = objective(mine, first, signs) / objective(tight, first, signs) - 1
    print(f"\nclass {number}, against liblinear at tolerance 1e-8: objective {relative:+.1e}, decision values off by "
          f"{np.abs(found - theirs).max() / np.abs(theirs).mean():.1e} of their mean size at most")  # fmt: skip
    print(f"peak memory of everything {memory():.2f} GiB")


def kept_problem(options):
    """The problem that was asked for, from the file that keeps it where there is one."""
    if options.keep and options.keep.is_file():
        found = np.load(options.keep)
        return found["points"].astype(np.float64), found["labels"]
    points, labels = problem(options)
    if options.keep:
        np.savez(options.keep, points=points.astype(np.float32), labels=labels)
    return points, labels


def timed(work):
    """Result, wall seconds, processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def memory():
    """Largest memory so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
