"""Speed and memory of data preparation and preprocessing, each as a ratio to the obvious way, in one run.

    OMP_NUM_THREADS=2 python benchmarks/data.py [decode contrast whiten open] [--images 50000]
    OMP_NUM_THREADS=1 python benchmarks/data.py decode [--photographs 5000] [--folder DIR]

Every comparison does the same work on the same input, checks that results agree, and takes the better of several turns
of each side in alternation. Peak memory is that of a fresh process, its libraries included. Photographs are windows of
scikit-learn's two, or the first JPEG files below a folder.
"""

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZE = 32
PARTS = ("decode", "contrast", "whiten", "open")


class Cost(NamedTuple):
    """Wall and processor seconds. On a busy machine only the latter, summed over threads, means much."""

    wall: float
    cpu: float

    def times(self, factor: float) -> "Cost":
        """The cost of that many times the work."""
        return Cost(self.wall * factor, self.cpu * factor)


def measure(run: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(repeats: int, *runs: Callable[[], object]) -> list[Cost]:
    """Best wall and best processor seconds of each run over `repeats` rounds, in which they take turns."""
    found: list[list[Cost]] = [[] for _ in runs]
    for _ in range(repeats):
        for costs, run in zip(found, runs, strict=True):
            costs.append(measure(run))
    return [Cost(min(cost.wall for cost in costs), min(cost.cpu for cost in costs)) for costs in found]


def report(name: str, cost: Cost, base: Cost, note: str) -> None:
    ratios = f"{base.wall / cost.wall:6.2f} x {base.cpu / cost.cpu:6.2f} x"
    print(f"{name:40} {cost.wall:7.2f} s {cost.cpu:7.2f} s {ratios}   {note}", flush=True)


# --- decoding --------------------------------------------------------------------------------------------------------


def make_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 500 x 333 pixels, quality 90: windows of scikit-learn's two photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    paths = []
    for index in range(count):
        top, left = rng.integers(0, 427 - 333), rng.integers(0, 640 - 500)
        window = photos[index % 2][top : top + 333, left : left + 500]
        paths.append(folder / f"{index:05d}.jpg")
        Image.fromarray(window).save(paths[-1], quality=90)
    return paths


def find_photographs(folder: Path, count: int) -> list[Path]:
    """The first JPEG files below a folder, again from the first where they are fewer."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return list(itertools.islice(itertools.cycle(found), count))


def decoding(count: int, threads: int, photographs: Path | None) -> None:
    """The stage's sharded decoder against a loop over Pillow."""
    from PIL import Image

    from ltpa.data.listing import Listing
    from ltpa.data.shards import prepare_split
    from ltpa.data.source import Options, Source

    def loop() -> np.ndarray:
        images = []
        for path in paths:
            with Image.open(path) as picture:
                images.append(np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        return np.stack(images)

    def ours(reduced: bool, workers: int) -> np.ndarray:
        source = Source("photographs", ["any"], SIZE, {"all": {}}, {}, Options(reduced=reduced))
        return np.asarray(prepare_split(Path(folder) / "out", "all", listing, source, workers)[0].images)

    with tempfile.TemporaryDirectory() as folder:
        paths = find_photographs(photographs, count) if photographs else make_photographs(Path(folder), count)
        listing = Listing(paths, [0] * count, [path.name for path in paths])
        choices = [(False, 1), (False, threads), (True, 1), (True, threads)]
        base, *costs = alternate(3, loop, *[lambda choice=choice: ours(*choice) for choice in choices])
        full = loop().astype(int)
        print(f"decode and resize {len(paths)} photographs {photographs or 'of 500 x 333'} to {SIZE} x {SIZE}")
        report("  loop over Pillow", base, base, f"{count / base.wall:.0f} images/s")
        for (reduced, workers), cost in zip(choices, costs, strict=True):
            off = np.abs(ours(reduced, workers) - full)
            name = f"  {'reduced' if reduced else 'full'} decoding, {workers} thread{'s' * (workers > 1)}"
            report(
                name, cost, base, f"{count / cost.wall:.0f} images/s; off by {off.mean():.2f} mean, {off.max()} most"
            )


# --- local contrast normalisation ------------------------------------------------------------------------------------


def cifar_like(count: int) -> np.ndarray:
    """Windows (count, 32, 32, 3) uint8 of photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = np.stack(load_sample_images().images)
    which, tops, lefts = rng.integers((2, 427 - SIZE, 640 - SIZE), size=(count, 3)).T
    return np.stack([photos[w, t : t + SIZE, x : x + SIZE] for w, t, x in zip(which, tops, lefts, strict=True)])


def contrast(count: int, threads: int) -> None:
    """Local contrast normalisation of luminance against a loop over SciPy, which is timed on a part."""
    import torch
    from scipy import ndimage

    from ltpa.data.normalise import local_contrast

    luminance = (cifar_like(count) @ np.array([0.299, 0.587, 0.114])).astype(np.float32)
    part = min(count, 1000)
    taps = np.exp(-0.5 * (np.arange(-3, 4) / 1.75) ** 2)
    taps /= taps.sum()

    def plane(values: np.ndarray) -> np.ndarray:
        return ndimage.convolve(values, np.outer(taps, taps), mode="constant")

    def separable(values: np.ndarray) -> np.ndarray:
        return ndimage.convolve1d(ndimage.convolve1d(values, taps, 0, mode="constant"), taps, 1, mode="constant")

    def loop(window: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        weight = window(np.ones((SIZE, SIZE)))
        result = np.empty_like(luminance[:part])
        for index, image in enumerate(luminance[:part].astype(np.float64)):
            centred = image - window(image) / weight
            deviation = np.sqrt(window(centred**2)) / weight
            result[index] = centred / np.where(deviation > 1e-4, deviation, 1e-4)
        return result

    def ours(images: np.ndarray, workers: int) -> np.ndarray:
        torch.set_num_threads(workers)
        return local_contrast(torch.from_numpy(images)).numpy()

    runs = [lambda workers=workers: ours(luminance, workers) for workers in (1, threads)]
    costs = alternate(3, lambda: loop(plane), lambda: loop(separable), *runs)
    base = costs[0].times(count / part)
    off = np.abs(ours(luminance[:part], 1) - loop(plane)).max()
    print(f"local contrast normalisation of {count} images of {SIZE} x {SIZE} (loops timed on {part})")
    report("  loop over SciPy, 7 x 7 window", base, base, "")
    report("  loop over SciPy, separable window", costs[1].times(count / part), base, "")
    for workers, cost in zip((1, threads), costs[2:], strict=True):
        report(f"  ours, {workers} thread{'s' * (workers > 1)}", cost, base, f"off by {off:.1e} at most")


# --- whitening -------------------------------------------------------------------------------------------------------


def whiten_ours(count: int, threads: int) -> tuple[Cost, float, np.ndarray]:
    """Cost, peak memory in GiB, and the first outputs, of fitting and applying our module."""
    import torch

    from ltpa.core.provenance import peak_memory_mb
    from ltpa.data.normalise import fit_normaliser
    from ltpa.training.arrays import Arrays

    def run() -> None:
        module = fit_normaliser("gcn-zca", images)
        outputs.append(Arrays.prepare(images, np.zeros(count), module, "cpu").images)

    torch.set_num_threads(threads)
    images, outputs = cifar_like(count), []
    cost = measure(run)
    return cost, peak_memory_mb() * 1e6 / 2**30, outputs[0][:50].flatten(1).numpy()


def whiten_plain(count: int, threads: int) -> tuple[Cost, float, np.ndarray]:
    """The same by its formula in float64 NumPy, all images at once."""
    from ltpa.core.provenance import peak_memory_mb

    def run() -> None:
        flat = images.transpose(0, 3, 1, 2).reshape(count, -1).astype(np.float64)
        flat -= flat.mean(axis=1, keepdims=True)
        flat *= 55 / np.linalg.norm(flat, axis=1, keepdims=True)
        flat -= flat.mean(axis=0)
        variances, vectors = np.linalg.eigh(flat.T @ flat / count)
        outputs.append(flat @ ((vectors / np.sqrt(variances + 0.1)) @ vectors.T))

    images, outputs = cifar_like(count), []
    cost = measure(run)
    return cost, peak_memory_mb() * 1e6 / 2**30, outputs[0][:50]


def whitening(count: int, threads: int) -> None:
    """Each side in a fresh process, for its peak memory."""
    context = multiprocessing.get_context("spawn")
    found = []
    for work in (whiten_plain, whiten_ours):
        with ProcessPoolExecutor(1, context) as fresh:
            found.append(fresh.submit(work, count, threads).result())
    (base, plain_peak, expected), (cost, peak, outputs) = found
    print(f"whitening, fit and transform, {count} x {3 * SIZE**2}")
    report("  plain NumPy, float64", base, base, f"peak {plain_peak:.2f} GiB")
    off = np.abs(outputs - expected).max()
    report("  ours", cost, base, f"peak {peak:.2f} GiB; off by {off:.1e} at most")


# --- opening ---------------------------------------------------------------------------------------------------------


def opening(count: int) -> None:
    """Prepared arrays of growing size."""
    from ltpa.data.arrays import PreparedDataset, Split, write_prepared

    print("opening prepared arrays")
    for size, images in ((32, 1000), (32, count), (448, 2000)):
        split = Split(
            np.zeros((images, size, size, 3), np.uint8), np.zeros(images, np.int64), np.full(images, "x" * 30)
        )
        with tempfile.TemporaryDirectory() as folder:
            write_prepared(Path(folder), "any", ["any"], {"all": split}, {})
            seconds = alternate(3, lambda folder=folder: PreparedDataset.open(Path(folder)))[0].wall
        print(f"  {images} images of {size} x {size}, {split.images.nbytes / 1e6:.0f} MB: {1000 * seconds:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="photographs to decode, in place of made ones")
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("parts", nargs="*", default=PARTS, choices=PARTS, help="what to measure (default: all)")
    options = parser.parse_args()
    print(f"{'':40} {'wall':>9} {'processor':>9} {'ratio':>8} {'ratio':>8}")
    if "decode" in options.parts:
        decoding(options.photographs, options.threads, options.folder)
    if "contrast" in options.parts:
        contrast(options.images, options.threads)
    if "whiten" in options.parts:
        whitening(options.images, options.threads)
    if "open" in options.parts:
        opening(options.images)


if __name__ == "__main__":
    main()
