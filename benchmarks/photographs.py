"""The fine-grained road on photographs, small enough for a CPU: trunk, patch boxes, two-stream rows by the real stages.

    python benchmarks/photographs.py DIR RESULTS     # DIR: CUB_200_2011, or Stanford Dogs with or without its lists

DIR may hold some of the classes only. Of Stanford Dogs every fourth image of a breed is a test image, as copies may
lack the official lists. Everything starts from random weights. RESULTS is an ordinary folder of results: what is
finished there is kept, so the same command goes on where it was cut off. Statistics of the boxes are those of the test
images. docs/measurements.md has figures, with hardware and time.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.declared import load_declaration
from ltpa.core.patches import NETWORK_MODES, PatchSettings
from ltpa.core.records import read_record
from ltpa.core.specs import PatchSpec, PrepareSpec, ProtocolSpec, TrainSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.registry import dataset_declaration
from ltpa.models import get_variant
from ltpa.models.registry import parse_options
from ltpa.models.variants import resolve_architecture
from ltpa.stages import measure, patches, prepare, train

SCALE, NETWORK = "photographs", "vgg"
SHOWN = (
    "area_frac_p50", "pair_iou_mean", "union_area", "inside_object", "centre_in_object", "misses_object_rate",
    "fallback_rate",
)  # fmt: skip


def prepared(folder: Path, results: Path, size: int, classes: int) -> PreparedDataset:
    """Photographs of a copy as prepared arrays of `size` pixels, those of its first classes alone."""
    birds = folder / "images.txt"
    name = "cub200-448" if birds.is_file() else "stanforddogs"
    place = layout.data_dir(results, name)
    if (place / layout.MANIFEST).is_file():
        return PreparedDataset.open(place)
    declared = {**dataset_declaration(name), "image_size": size, "options": {"partial": True}}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if name == "stanforddogs":
            breeds = sorted(path.name for path in (folder / "Images").iterdir())[:classes]
            (root / "Images").mkdir()
            for breed in breeds:
                (root / "Images" / breed).symlink_to((folder / "Images" / breed).resolve())
            declared |= {"reader": "folders", "layout": {"folder": "Images"}, "classes": breeds}
            declared["splits"] = shared_out(root)
        else:
            declared["classes"] = first_birds(folder, root, classes)
        prepare.run(PrepareSpec(SCALE, name, 1, declared), results, extracted=root)
    return PreparedDataset.open(place)


def first_birds(folder: Path, root: Path, classes: int) -> list[str]:
    """The lists of CUB below `root`, cut down to its first classes, whose names are given."""
    lists = root / "CUB_200_2011"
    lists.mkdir()
    (lists / "images").symlink_to((folder / "images").resolve())
    named = [line.split(maxsplit=1) for line in (folder / "classes.txt").read_text().splitlines()][:classes]
    (lists / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in named))
    labels = [line.split() for line in (folder / "image_class_labels.txt").read_text().splitlines()]
    kept = {image for image, label in labels if int(label) <= classes}
    for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes"):
        lines = (folder / f"{name}.txt").read_text().splitlines(keepends=True)
        (lists / f"{name}.txt").write_text("".join(line for line in lines if line.split()[0] in kept))
    return [name for _, name in named]


def shared_out(root: Path) -> dict[str, dict[str, str]]:
    """Lists of training and test images, written into `root`: every fourth image of a class is a test image."""
    names: dict[str, list[str]] = {"train": [], "test": []}
    for breed in sorted((root / "Images").iterdir()):
        for number, path in enumerate(sorted(breed.iterdir())):
            names["test" if number % 4 == 3 else "train"].append(f"{breed.name}/{path.name}")
    for split, chosen in names.items():
        (root / f"{split}.txt").write_text("\n".join(chosen) + "\n")
    return {split: {"list": f"{split}.txt"} for split in names}


def trunk_spec(dataset: PreparedDataset, width: float, epochs: int) -> TrainSpec:
    narrow = {"width": width, "dropout": 0.0, "bn_weight": "one", "u_std": 0.2}
    return TrainSpec(
        SCALE, dataset.name, 1, NETWORK, resolve_architecture(NETWORK, **narrow), len(dataset.classes),
        dataset.image_size, {**load_declaration("recipes")["vgg-photographs"], "epochs": epochs},
    )  # fmt: skip


def protopnet(epochs: int) -> dict[str, int]:
    """Of the 120 epochs of ST-ProtoPNet's schedule so many, in the same order: warm-up, all together, two pushes."""
    return {
        "per_class": 5, "width": 64, "epochs": epochs, "warm_epochs": epochs // 6, "first_push": 3 * epochs // 5,
        "push_every": epochs, "last_epochs": 4, "batch_size": 40, "decay_every": max(1, 2 * epochs // 5),
    }  # fmt: skip


def patch_spec(dataset: PreparedDataset, source: str, training: str, epochs: int) -> PatchSpec:
    declared = load_declaration("patches")[source]
    seeing = declared["mode"] in NETWORK_MODES
    origin = {
        **declared, "network": NETWORK if seeing else "",
        "protopnet": protopnet(epochs) if declared["mode"] == "protopnet" else None,
    }  # fmt: skip
    settings = PatchSettings(level="conv10").model_dump(mode="json")
    return PatchSpec(SCALE, dataset.name, 1, source, training if seeing else "", origin, settings)


def two_stream_spec(dataset: PreparedDataset, variant: str, source: str, recipe: dict[str, Any]) -> TrainSpec:
    options = parse_options(
        {**load_declaration("profiles")["two-stream"]["trial"], **get_variant(variant).architecture}
    )
    seen = {"weights": "scratch", "patches": source if options.sees_patches else "", "boxes": 10}
    recipe = {**load_declaration("recipes")["two-stream-trial"], **seen, **recipe}
    return TrainSpec(SCALE, dataset.name, 1, variant, options.plain(), len(dataset.classes), options.image_size, recipe)


def timed(what: str, record: Path, spec, run) -> None:
    """Run a stage unless a record of this very spec is there, and print its processor seconds."""
    if record.is_file() and read_record(record).config_hash == spec.hash():
        print(f"{what}: there already", flush=True)
        return
    started = time.process_time()
    run()
    print(f"{what}: {time.process_time() - started:.0f} processor seconds", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--size", type=int, default=96, help="side of the prepared images")
    parser.add_argument("--width", type=float, default=0.25, help="of the trunk behind the boxes")
    parser.add_argument("--classes", type=int, default=1000, help="the first ones, at most so many")
    parser.add_argument("--trunk-epochs", type=int, default=30)
    parser.add_argument("--prototype-epochs", type=int, default=20, help="of source protopnet")
    parser.add_argument("--sources", nargs="+", default=["protolite", "cam_window-mean", "center", "random"])
    parser.add_argument("--rows", nargs="*", default=["vgg19", "twostream-cnn"])
    parser.add_argument("--patches", default="center", help="patch source of the rows")
    parser.add_argument("--epochs", type=int, default=40, help="of the rows")
    parser.add_argument("--augment", default="flip_crop", help="of the rows: none, flip_crop or resized_crop")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results, seed = options.results, options.seed
    dataset = prepared(options.folder, results, options.size, options.classes)
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    print(f"{dataset.name}: {len(dataset.classes)} classes, {counts}, {dataset.image_size} px", flush=True)

    def place(stage: str, name: str) -> Path:
        return layout.run_dir(results, stage, dataset.name, name, seed) / layout.RECORD

    trunk = trunk_spec(dataset, options.width, options.trunk_epochs)
    timed("trunk", place("train", NETWORK), trunk, lambda: train.run(trunk, results, [seed]))
    trained = {metric.name: metric.value for metric in read_record(place("train", NETWORK)).metrics}
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in trained.items()), flush=True)
    for source in options.sources:
        spec = patch_spec(dataset, source, trunk.hash(), options.prototype_epochs)
        timed(source, place("patches", source), spec, lambda spec=spec: patches.run(spec, results, [seed]))
        found = read_record(place("patches", source)).metrics
        values = {metric.condition: metric.value for metric in found if metric.target == f"{dataset.name}/test"}
        print("  " + ", ".join(f"{name} {values[name]:.3f}" for name in SHOWN if name in values), flush=True)
    for row in options.rows:
        spec = two_stream_spec(dataset, row, options.patches, {"epochs": options.epochs, "augment": options.augment})
        timed(row, place("train", row), spec, lambda spec=spec: train.run(spec, results, [seed]))
        recipe = spec.recipe
        evaluation = ProtocolSpec(
            SCALE, dataset.name, 1, row, "finegrained", spec.hash(), [{"name": dataset.name}], {},
            {"boxes": recipe["boxes"], "split": "test", "overlap": None}, patches=recipe["patches"],
        )  # fmt: skip
        measure.run(evaluation, results, seed)
        for metric in read_record(place("finegrained", row)).metrics:
            if metric.condition in ("", "joint", "global", "local"):
                print(f"  {metric.name} {metric.condition} {metric.value:.1f} (n = {metric.n})", flush=True)


if __name__ == "__main__":
    main()
