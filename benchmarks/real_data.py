"""Prepare the copies of real datasets that a folder holds: counts, seconds, throughput, peak memory.

    python benchmarks/real_data.py FOLDER [--threads 2]

FOLDER has a folder per copy, extracted, in the official layout; those that are not there are passed over. Copies may
hold a part of a dataset, then counts stand beside the published ones. Each is prepared by a fresh process.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ltpa.core import layout
from ltpa.core.provenance import peak_memory_mb
from ltpa.core.specs import PrepareSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.registry import dataset_declaration
from ltpa.stages import prepare

# Copy, dataset, and what differs from its declaration.
COPIES = (
    ("cifar10", "cifar10-q75", {}),
    ("mnist", "mnist", {}),
    ("caltech101", "caltech101", {}),
    ("cub20", "cub200", {"options": {"crop": "box", "partial": True}}),
    ("cub20", "cub200-448", {"options": {"partial": True}}),
    (
        "dogs30",  # has no lists of the official split
        "stanforddogs",
        {"reader": "folders", "layout": {"folder": "Images"}, "options": {"partial": True}, "splits": {"all": {}}},
    ),
)


def megabytes(folder: Path) -> float:
    """Size of all files below a folder, in 10^6 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def prepare_copy(copy: Path, name: str, changes: dict, threads: int) -> str:
    """Prepare one copy in a temporary folder; a row of the table."""
    spec = PrepareSpec("copies", name, threads, {**dataset_declaration(name), **changes})
    with tempfile.TemporaryDirectory() as results:
        started = time.perf_counter()
        prepare.run(spec, Path(results), extracted=copy)
        seconds = time.perf_counter() - started
        folder = layout.data_dir(Path(results), name)
        started = time.perf_counter()
        opened = PreparedDataset.open(folder)
        opening = 1000 * (time.perf_counter() - started)
        counts = opened.facts["splits"].items()
        images = sum(count["found"] for _, count in counts)
        text = ", ".join(f"{split} {count['found']} of {count['expected'] or '?'}" for split, count in counts)
        return (
            f"| {name} | {opened.image_size} | {text} | {megabytes(copy):.1f} | {seconds:.1f} | "
            f"{megabytes(copy) / seconds:.1f} | {images / seconds:.0f} | {peak_memory_mb():.0f} | "
            f"{megabytes(folder):.1f} | {opening:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(
        "| dataset | pixels | images, found of declared | MB read | s | MB/s | images/s | peak MB | MB kept | open ms |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    context = multiprocessing.get_context("spawn")
    for copy, name, changes in COPIES:
        if (options.folder / copy).is_dir():
            with ProcessPoolExecutor(1, context) as fresh:
                print(fresh.submit(prepare_copy, options.folder / copy, name, changes, options.threads).result())


if __name__ == "__main__":
    main()
