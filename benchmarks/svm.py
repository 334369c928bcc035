"""Linear SVMs of all classes and folds: our solver against liblinear, libsvm and L-BFGS, time and agreement.

    OMP_NUM_THREADS=2 python benchmarks/svm.py                                   # synthetic features
    OMP_NUM_THREADS=2 python benchmarks/svm.py --images results/trial/data/caltech101
    OMP_NUM_THREADS=2 python benchmarks/svm.py --images ... --whole              # our solver on every class, too

30,000 points of 1,280 features in 256 classes, five folds. `--images` is a prepared dataset: features are rectified
responses to 320 whitened patches of its images (Coates and Ng 2011), averaged over quadrants, and the classes those of
the images upright and turned by quarters. The others are timed on some classes of one fold and scaled to all classes
and folds: liblinear solves one class after the other, so its time is proportional. Ours is timed on the same classes
and all folds, and on one class before and after that; what a class adds is scaled, and `--whole` runs it in full.
Processor time is that of all threads, and the fairer number on a busy machine.
"""

import argparse
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.svm import SVC, LinearSVC
from torch.nn import functional

from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation import active_set
from ltpa.evaluation.svm import l2_normalise, stratified_folds

FOLDS = 5
PATCH = 6


def synthetic(count, features, classes, rank=40):
    """Rectified projections of overlapping clusters in a low-dimensional space, with noise."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(count) % classes)
    points = random.normal(0, 1, (classes, rank))[labels] + 1.8 * random.normal(0, 1, (count, rank))
    projected = points @ random.normal(0, rank**-0.5, (rank, features)) + random.normal(0, 1, (count, features))
    return np.maximum(projected, 0), labels


def patch_filters(images, count):
    """Whitened normalised patches as filters (count, 108), and the mean patch."""
    random = np.random.default_rng(0)
    side = images.shape[1] - PATCH
    places = zip(random.integers(0, len(images), 20_000), *random.integers(0, side, (2, 20_000)), strict=True)
    patches = np.stack([images[i, y : y + PATCH, x : x + PATCH].ravel() for i, y, x in places]).astype(np.float64)
    patches = (patches - patches.mean(1, keepdims=True)) / np.sqrt(patches.var(1, keepdims=True) + 10)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    whiten = vectors / np.sqrt(values + 0.1) @ vectors.T
    filters = (patches[:count] - mean) @ whiten
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    return torch.from_numpy(filters @ whiten).float(), torch.from_numpy(mean).float()


def patch_features(images, filters, mean):
    """Rectified filter responses averaged over quadrants, (N, 4 · filters)."""
    found = []
    for start in range(0, len(images), 200):
        pixels = torch.from_numpy(images[start : start + 200]).permute(0, 3, 1, 2).float()
        side = (pixels.shape[2] - PATCH) // 2 + 1
        columns = functional.unfold(pixels, PATCH, stride=2).transpose(1, 2)
        columns = columns.unflatten(2, (3, PATCH**2)).transpose(2, 3).flatten(2)
        columns = (columns - columns.mean(2, keepdim=True)) / (columns.var(2, unbiased=False, keepdim=True) + 10).sqrt()
        responses = ((columns - mean) @ filters.T - 1).clamp_min(0).transpose(1, 2).unflatten(2, (side, side))
        found.append(functional.adaptive_avg_pool2d(responses, 2).flatten(1).numpy())
    return np.concatenate(found)


def of_images(folder, count, features, classes):
    """Features and labels of a prepared dataset's images, turned for more classes and cropped for more images."""
    pooled = PreparedDataset.open(folder).pooled()
    own = int(pooled.labels.max()) + 1
    turned = np.concatenate([np.rot90(pooled.images, turn, (1, 2)) for turn in range(4)])
    labels = np.concatenate([pooled.labels + own * turn for turn in range(4)])
    turned, labels = turned[labels < classes], labels[labels < classes]
    more = np.random.default_rng(0).permutation(len(labels))[: max(0, count - len(labels))]
    size = turned.shape[1]
    cropped = torch.from_numpy(turned[more][:, 2:-2, 2:-2]).permute(0, 3, 1, 2).float()
    cropped = functional.interpolate(cropped, (size, size), mode="bilinear").permute(0, 2, 3, 1).numpy()
    bank = patch_filters(pooled.images, features // 4)
    found = [patch_features(np.ascontiguousarray(part), *bank) for part in (turned, cropped) if len(part)]
    return np.concatenate(found)[:count], np.concatenate([labels, labels[more]])[:count]


def objective(weights, points, signs):
    """Of one problem, with C = 1; `weights` end in the bias."""
    losses = np.maximum(0, 1 - signs * (points @ weights[:-1] + weights[-1]))
    return weights @ weights / 2 + losses @ losses


def liblinear(points, signs, **options):
    """Weights that scikit-learn finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = LinearSVC(random_state=0, **options).fit(points, signs)
    return np.append(found.coef_[0], found.intercept_)


def lbfgs(points, signs):
    """Weights that SciPy's L-BFGS finds in at most 200 iterations."""
    rows = np.hstack([points, np.ones((len(points), 1))])

    def value(weights):
        losses = np.maximum(0, 1 - signs * (rows @ weights))
        return weights @ weights / 2 + losses @ losses, weights - 2 * (rows.T @ (signs * losses))

    return minimize(value, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x


CONTENDERS = {
    "LinearSVC, its defaults": liblinear,
    "LinearSVC, dual": lambda points, signs: liblinear(points, signs, dual=True),
    "L-BFGS": lbfgs,
}


def timed(work):
    """Result, wall seconds, processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of a prepared dataset; synthetic features without it")
    parser.add_argument("--points", type=int, default=30_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=256)
    parser.add_argument("--timed", type=int, default=8, help="classes the others are timed on, at least 2")
    parser.add_argument("--normalise", choices=("raw", "l2"), default="raw")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--whole", action="store_true", help="also run our solver on every class, and print accuracies")
    parser.add_argument(
        "--gram", action="store_true", help="also time libsvm, one against one, on shared inner products"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (options.points, options.features, options.classes)
    points, labels = of_images(options.images, *size) if options.images else synthetic(*size)
    points = points.astype(np.float64) / points.std()
    points = l2_normalise(points) if options.normalise == "l2" else points
    tested = stratified_folds(labels, FOLDS, 0)
    train = tested != np.arange(FOLDS)[:, None]
    given = [torch.from_numpy(each).to(options.device) for each in (points, labels, train)]
    classes = len(np.unique(labels))
    some = np.linspace(0, classes - 1, options.timed).astype(int).tolist()
    first = np.ascontiguousarray(points[train[0]])
    shape = f"{points.shape[0]} points of {points.shape[1]} features"
    print(f"{shape} ({options.normalise}), {classes} classes, {FOLDS} folds", flush=True)

    def ours(only):
        return active_set.fit(*given, 1.0, options.threads, only=only)

    _, *once = timed(lambda: ours(some[:1]))
    fits, *both = timed(lambda: ours(some))
    _, *again = timed(lambda: ours(some[:1]))
    scale = classes / len(some)
    # What all classes share is in the time of one class, too; only what more classes add is scaled.
    first_class = [min(pair) for pair in zip(once, again, strict=True)]
    ours_wall, ours_processor = (
        one + (many - one) * (classes - 1) / (len(some) - 1) for one, many in zip(first_class, both, strict=True)
    )
    print(f"ours, all folds of {len(some)} classes: {both[0]:.1f} s, processor {both[1]:.1f} s")
    print(f"ours, all folds of one class: {first_class[0]:.1f} s, processor {first_class[1]:.1f} s")
    print(f"largest relative duality gap {fits.gaps.max():.1e}; {fits.primal} classes by the primal form", flush=True)
    times = {name: [0.0, 0.0] for name in CONTENDERS}
    excess = {name: [] for name in CONTENDERS}
    for place, number in enumerate(some):
        signs = np.where(labels[train[0]] == number, 1.0, -1.0)
        best = objective(fits.weights[0, place].cpu().numpy(), first, signs)
        for name, solve in CONTENDERS.items():
            weights, wall, processor = timed(lambda solve=solve, signs=signs: solve(first, signs))
            times[name][0] += wall
            times[name][1] += processor
            excess[name].append(objective(weights, first, signs) / best - 1)
    print(
        "| solver | wall, all classes and folds, s | ratio | processor, s | ratio | objective above ours: median, max |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    print(f"| ours | {ours_wall:.0f} | 1 | {ours_processor:.0f} | 1 | |")
    for name, (wall, processor) in times.items():
        wall, processor, above = wall * FOLDS * scale, processor * FOLDS * scale, excess[name]
        print(
            f"| {name} | {wall:.0f} | {wall / ours_wall:.1f} | {processor:.0f} | "
            f"{processor / ours_processor:.1f} | {np.median(above):.1e}, {max(above):.1e} |",
            flush=True,
        )
    agreement(fits, first, points[~train[0]], labels[train[0]], some)
    if options.gram:
        (gram, _), wall, processor = timed(lambda: (points @ points.T, None))
        rows = np.flatnonzero(train[0])
        _, more, fold_processor = timed(lambda: SVC(kernel="precomputed").fit(gram[np.ix_(rows, rows)], labels[rows]))
        print(f"libsvm, one against one: inner products {wall:.0f} s, processor {processor:.0f} s; fit of one fold "
              f"{more:.0f} s, processor {fold_processor:.0f} s")  # fmt: skip
    if options.whole:
        fits, wall, processor = timed(lambda: ours(None))
        scores = [
            points[~rows] @ w[:, :-1].T + w[:, -1] for rows, w in zip(train, fits.weights.cpu().numpy(), strict=True)
        ]
        found = [100 * (s.argmax(1) == labels[~rows]).mean() for s, rows in zip(scores, train, strict=True)]
        print(f"ours, all classes and folds: {wall:.0f} s, processor {processor:.0f} s; gap {fits.gaps.max():.1e}; "
              f"{fits.primal} classes by the primal form; accuracy {np.mean(found):.2f} %")  # fmt: skip
    print(f"peak memory of everything {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def agreement(fits, first, test, labels, some):
    """Hold two of the solutions of fold 0 against liblinear at a tight tolerance."""
    for place, number in list(enumerate(some))[1:3]:
        signs = np.where(labels == number, 1.0, -1.0)
        tight = liblinear(first, signs, dual=True, tol=1e-8, max_iter=1_000_000)
        weights = fits.weights[0, place].cpu().numpy()
        theirs, mine = (test @ each[:-1] + each[-1] for each in (tight, weights))
        relative = objective(weights, first, signs) / objective(tight, first, signs) - 1
        print(f"class {number}, against liblinear at tolerance 1e-8: objective {relative:+.1e}, decision values off by "
              f"{np.abs(mine - theirs).max() / np.abs(theirs).mean():.1e} of their mean size at most")  # fmt: skip


if __name__ == "__main__":
    main()
