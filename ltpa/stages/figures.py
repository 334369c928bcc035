"""Draw what people look at first: attention overlays, learning curves, attack curves."""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltpa.core import layout
from ltpa.core.files import write_text
from ltpa.core.hashing import sha256_file
from ltpa.core.records import Record, read_record
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.masks import squashed
from ltpa.evaluation.saliency import Saliency, upsample
from ltpa.report.curves import draw_attack_curves, draw_learning_curves
from ltpa.report.overlays import draw_overlays, every_format
from ltpa.report.spec import FiguresSpec

SPEC = FiguresSpec


def run(spec: FiguresSpec, results: Path, records: Sequence[Path]) -> None:
    """Write PNGs into `figures/` and their list, with digests, into `figures/index.json` last."""
    folder = Path(results) / "figures"
    found = [record for record in map(read_record, records) if record.status == "ok"]
    curves, attacks = folder / "learning-curves.png", folder / "fooling-rate.png"
    written = _overlays(spec, results, folder / "attention.png")
    _learning_curves(spec, results, [r for r in found if r.stage == "train" and r.dataset == spec.dataset], curves)
    _attack_curves(spec, [r for r in found if r.stage == "fgsm"], attacks)
    index = {
        str(path.relative_to(folder)): sha256_file(path)
        for path in (*written, *every_format(curves), *every_format(attacks))
    }
    write_text(folder / "index.json", json.dumps(index, indent=1) + "\n")


def choose_images(split: Split, count: int) -> np.ndarray:
    """Indices of the first image of each class, then the second of each, and so on, `count` in all."""
    rank: dict[int, int] = defaultdict(int)
    keys = []
    for index, label in enumerate(split.labels.tolist()):
        keys.append((rank[label], label, index))
        rank[label] += 1
    return np.array([index for _, _, index in sorted(keys)[:count]])


def _overlays(spec: FiguresSpec, results: Path, path: Path) -> list[Path]:
    """One picture per network with all its maps, and `path` with the combined map of each variant's first seed."""
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    split = dataset.split("test")
    chosen = choose_images(split, spec.images)
    images, masks = (
        split.images[chosen],
        None if split.masks is None else squashed([split.masks[row] for row in chosen], dataset.image_size),
    )
    labels = [dataset.classes[label] for label in split.labels[chosen]]
    columns, written = {}, [path]
    for variant, declared in spec.overlays.items():
        saliency = Saliency.from_declaration(declared, "figures")
        for seed in spec.seeds:
            maps = _maps(spec, results, variant, seed, saliency, images)
            if maps is None:
                continue
            if seed == spec.seeds[0]:
                columns[spec.labels[variant]] = maps["combined"]
            written.append(layout.overlay_path(results, spec.dataset, variant, seed))
            draw_overlays(written[-1], images, masks, labels, maps)
    draw_overlays(path, images, masks, labels, columns)
    return written


def _maps(
    spec: FiguresSpec, results: Path, variant: str, seed: int, saliency: Saliency, images: np.ndarray
) -> dict[str, np.ndarray] | None:
    """Maps by level and combined, at the images' size; None for a network whose training failed."""
    from ltpa.models import load

    source = layout.run_dir(results, "train", spec.dataset, variant, seed)
    if read_record(source / layout.RECORD).status != "ok":
        return None
    model = load(source / layout.MODEL, expect_variant=variant)
    found = saliency.maps(model, images, len(images))
    maps = {level: upsample(stack, images.shape[1:3]) for level, stack in found.items()}
    return {**maps, "combined": saliency.combine(maps)}


def _learning_curves(spec: FiguresSpec, results: Path, records: list[Record], path: Path) -> None:
    histories: dict[str, list[list[tuple[int, float]]]] = defaultdict(list)
    chance = 100.0
    for record in records:
        folder = layout.run_dir(results, "train", record.dataset, record.variant, record.seed)
        with open(folder / layout.HISTORY, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        points = [(int(row["epoch"]), float(row["test_error_pct"])) for row in rows if row["test_error_pct"]]
        histories[spec.labels[record.variant]].append(points)
        chance = next(m.value for m in record.metrics if m.name == "chance_error_pct")
    draw_learning_curves(path, histories, chance)


def _attack_curves(spec: FiguresSpec, records: list[Record], path: Path) -> None:
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for metric in record.metrics:
            if metric.name == "fooling_rate_pct":
                norm = float(metric.condition.removeprefix("eps="))
                curves[spec.labels[record.variant]][norm].append(metric.value)
    published = {
        spec.labels[variant]: {float(norm): rate for norm, rate in rates.items()}
        for variant, rates in spec.published.items()
        if variant in spec.labels
    }
    title = f"{', '.join(dict.fromkeys(record.dataset for record in records))}, scale {spec.scale}"
    if not spec.comparable:
        title += "; the paper's curves are of other images and networks"
    draw_attack_curves(path, curves, published, title)
