"""Draw what people look at first: attention overlays, learning curves, attack curves, what the maps are for."""

import csv
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltpa.core import layout
from ltpa.core.learned import failures
from ltpa.core.records import Metric, Record, epsilon_of, metric_value, read_record
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.masks import squashed
from ltpa.evaluation.mask_metrics import CENTRE, UNTRAINED
from ltpa.evaluation.saliency import COMBINED, Saliency
from ltpa.report.curves import draw_attack_curves, draw_learning_curves
from ltpa.report.index import write_index
from ltpa.report.looks import FOLDER, Looks
from ltpa.report.map_use import MapUse, draw_map_use
from ltpa.report.overlays import draw_overlays, every_format
from ltpa.report.reliability import draw_reliability
from ltpa.report.spec import FiguresSpec, GallerySpec
from ltpa.tracking.pictures import keep_pictures

SPEC = FiguresSpec
CALIBRATION = "calibration"


def run(spec: FiguresSpec, results: Path, records: Sequence[Path]) -> None:
    """Write PNGs into `figures/`, and `figures/index.json` last (`ltpa.report.index`)."""
    results = Path(results)
    folder = results / "figures"
    found = [record for record in map(read_record, records) if record.status == "ok"]
    training = [record for record in found if record.stage == "train" and record.dataset == spec.dataset]
    attacks = [record for record in found if record.stage == "fgsm"]
    replaced = [record for record in found if record.stage == "causal" and record.dataset == spec.dataset]
    looking = {record.variant for record in replaced}
    maps = [record for record in found if record.stage == "segmentation" and record.variant in looking]
    captions: dict[str, str] = {}
    sources = [*map(Path, records), *(_history(results, record) for record in training)]
    written = _overlays(spec, results, folder / "attention.png", captions, sources)
    for name, draw, shown in (
        ("learning-curves", functools.partial(_learning_curves, spec, results), training),
        ("fooling-rate", functools.partial(_attack_curves, spec), attacks),
        ("map-use", functools.partial(_map_use, spec), replaced + maps),
    ):
        path = folder / f"{name}.png"
        captions[path.name] = unlearned(shown, spec)
        draw(shown, path, captions[path.name])
        written += every_format(path)
    calibrated = [record for record in found if record.stage == CALIBRATION]
    for dataset in dict.fromkeys(record.dataset for record in calibrated):
        path = folder / f"reliability-{dataset}.png"
        shown = [record for record in calibrated if record.dataset == dataset]
        captions[path.name] = unlearned(shown, spec)
        draw_reliability(path, reliability(shown, spec.labels), captions[path.name])
        written += every_format(path)
    write_index(folder, written, captions, results, sources)
    keep_pictures(results)


def unlearned(records: Sequence[Record], spec: FiguresSpec | GallerySpec) -> str:
    """A sentence that names the networks behind `records` that did not learn; empty where all did."""
    names = dict.fromkeys(text for record in records for text in failures(record, spec.max_error_of_chance))
    return f"Did not learn: {'; '.join(names)}." if names else ""


def reliability(
    records: Sequence[Record], labels: Mapping[str, str]
) -> dict[str, tuple[list[tuple[int, float, float]], float]]:
    """Title to bins and calibration error (%) of each network of one dataset, for `draw_reliability`."""
    found = {}
    for record in records:
        title = f"{labels[record.variant]}, seed {record.seed}"
        error = metric_value(record, "ece_pct", record.dataset, "")
        found[title] = ([tuple(each) for each in record.extra[record.dataset]["bins"]], error)
    return found


def choose_images(split: Split, count: int) -> np.ndarray:
    """Indices of the first image of each class, then the second of each, and so on, `count` in all."""
    rank: dict[int, int] = defaultdict(int)
    keys = []
    for index, label in enumerate(split.labels.tolist()):
        keys.append((rank[label], label, index))
        rank[label] += 1
    return np.array([index for _, _, index in sorted(keys)[:count]])


def _overlays(
    spec: FiguresSpec, results: Path, path: Path, captions: dict[str, str], sources: list[Path]
) -> list[Path]:
    """One picture per network with all its maps, and `path` with the combined map of each variant's first seed.

    Beside them the layers of the first seeds' maps (`ltpa.report.looks`).

    The caption of each goes into `captions`, the files behind it into `sources`. A network whose training failed is
    left out.
    """
    from ltpa.models import load

    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    split = dataset.split("test")
    chosen = choose_images(split, spec.images)
    images, masks = (
        split.images[chosen],
        None if split.masks is None else squashed([split.masks[row] for row in chosen], dataset.image_size),
    )
    labels = [dataset.classes[label] for label in split.labels[chosen]]
    columns, written = {}, [path]
    sources.append(layout.data_dir(results, spec.dataset) / layout.MANIFEST)
    looks = Looks(path.parent / FOLDER, images, masks, labels)
    first: list[Record] = []
    for variant, declared in spec.overlays.items():
        saliency = Saliency.from_declaration(declared, "figures")
        for seed in spec.seeds:
            source = layout.run_dir(results, "train", spec.dataset, variant, seed)
            record = read_record(source / layout.RECORD)
            sources.append(source / layout.RECORD)
            if record.status != "ok":
                continue
            sources.append(source / layout.MODEL)
            model = load(source / layout.MODEL, variant, expect_sha256=record.extra.get("model_sha256"))
            maps = saliency.at(saliency.maps(model, images, len(images)), images.shape[1:3])
            if seed == spec.seeds[0]:
                columns[spec.labels[variant]] = maps[COMBINED]
                first.append(record)
                looks.add(variant, spec.labels[variant], maps)
            target = layout.overlay_path(results, spec.dataset, variant, seed)
            captions[target.name] = unlearned([record], spec)
            draw_overlays(target, images, masks, labels, maps, captions[target.name])
            written.append(target)
    captions[path.name] = unlearned(first, spec)
    draw_overlays(path, images, masks, labels, columns, captions[path.name])
    return written + looks.close()


def _history(results: Path, record: Record) -> Path:
    return layout.run_dir(results, "train", record.dataset, record.variant, record.seed) / layout.HISTORY


def _learning_curves(spec: FiguresSpec, results: Path, records: list[Record], path: Path, caption: str) -> None:
    histories: dict[str, list[list[tuple[int, float]]]] = defaultdict(list)
    chance = 100.0
    for record in records:
        with open(_history(results, record), encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        points = [(int(row["epoch"]), float(row["test_error_pct"])) for row in rows if row["test_error_pct"]]
        histories[spec.labels[record.variant]].append(points)
        chance = next(m.value for m in record.metrics if m.name == "chance_error_pct")
    draw_learning_curves(path, histories, chance, caption)


def _attack_curves(spec: FiguresSpec, records: list[Record], path: Path, caption: str) -> None:
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for metric in record.metrics:
            if metric.name == "fooling_rate_pct":
                norm = epsilon_of(metric.condition)
                curves[spec.labels[record.variant]][norm].append(metric.value)
    published = {
        spec.labels[variant]: {float(norm): rate for norm, rate in rates.items()}
        for variant, rates in spec.published.items()
        if variant in spec.labels
    }
    title = f"{', '.join(dict.fromkeys(record.dataset for record in records))}, scale {spec.scale}"
    if not spec.comparable:
        title += "; the paper's curves are of other images and networks"
    draw_attack_curves(path, curves, published, title, caption)


def _map_use(spec: FiguresSpec, records: list[Record], path: Path, caption: str) -> None:
    """The networks of which maps were replaced; of the object's place the first dataset counts that says it."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.stage == "causal":
            for metric in record.metrics:
                if key := _ACCURACIES.get((metric.name, metric.condition)):
                    found[spec.labels[record.variant]][key].append(metric.value)
    places: dict[str, None] = {}
    for record in records:
        if record.stage == "segmentation":
            for key, metric in _pointing(record).items():
                found[spec.labels[record.variant]][key].append(metric.value)
                places[metric.target] = None
    networks = {label: MapUse(**values) for label, values in found.items()}
    known = ", ".join(places) or "no dataset says where the object is"
    titles = f"With and without the map: {spec.dataset}, scale {spec.scale}", f"Where the map looks: {known}"
    draw_map_use(path, networks, titles, caption)


_ACCURACIES = {
    ("own_accuracy_pct", ""): "own",
    ("accuracy_pct", "uniform all"): "uniform",
    ("refit_accuracy_pct", "uniform all"): "refitted",
}


def _pointing(record: Record) -> dict[str, Metric]:
    """Peaks of the combined map, the centre prior, and chance, on the first dataset that has the centre prior."""
    hits = [metric for metric in record.metrics if metric.name == "pointing_pct"]
    centre = next((metric for metric in hits if metric.condition == CENTRE), None)
    if centre is None:
        return {}
    here = [metric for metric in hits if metric.target == centre.target and metric.condition != CENTRE]
    maps = [metric for metric in here if not metric.condition.startswith(UNTRAINED)]
    own = next((metric for metric in maps if metric.condition == COMBINED), maps[-1])
    chance = next(
        metric
        for metric in record.metrics
        if metric.name == "pointing_chance_pct" and metric.target == centre.target and metric.condition == own.condition
    )
    return {"pointing": own, "centre": centre, "chance": chance}
