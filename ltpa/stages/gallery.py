"""Draw the figures of images and maps that `config/figures.yaml` declares, as PNG, SVG and PDF."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ltpa.core import layout
from ltpa.core.errors import ConfigError
from ltpa.core.records import Record, read_record
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.masks import squashed
from ltpa.evaluation.fgsm import Attack, ascent_signs, classify, perturb
from ltpa.evaluation.inference import attention_maps, pixel_batches
from ltpa.evaluation.maps import network_maps
from ltpa.evaluation.saliency import COMBINED, Masking, Saliency, upsample
from ltpa.evaluation.segmentation import binary_masks
from ltpa.report.gallery import Cell, draw_gallery
from ltpa.report.index import write_index
from ltpa.report.spec import GallerySpec
from ltpa.stages.figures import choose_images, unlearned

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

SPEC = GallerySpec
_SPLIT = "test"


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """The images of a figure's rows, all of one dataset: pixels, object masks where known, and labels as text."""

    images: np.ndarray
    masks: np.ndarray | None
    labels: list[str]

    def cells(self) -> list[Cell]:
        """The images with their outlines."""
        outlines = [None] * len(self.images) if self.masks is None else self.masks
        return [Cell(image, outline=outline) for image, outline in zip(self.images, outlines, strict=True)]


Column = tuple[str, list[Cell]]


def run(spec: GallerySpec, results: Path) -> None:
    """Write every figure, and `index.json` last (`ltpa.report.index`).

    A network whose training failed leaves out the figures that show it.

    Raises:
        DataError: an image set is missing or damaged.
        ModelError: a network is missing or another one.
    """
    results = Path(results)
    written: list[Path] = []
    sources: list[Path] = []
    captions: dict[str, str] = {}
    missing = dict(spec.missing)
    for name, figure in spec.figures.items():
        paths = [layout.gallery_path(results, name, suffix) for suffix in layout.FIGURE_SUFFIXES]
        networks = _networks(spec, results, figure)
        sources += _sources(spec, results, figure, networks)
        if reason := _failed(networks):
            missing[name] = reason
            draw_gallery(paths, [f"{figure['paper']}: {reason}"], [""], [[Cell(np.zeros((8, 8), bool))]])
        else:
            titles, labels, rows = _grid(spec, results, figure)
            captions[name] = " ".join(filter(None, (caption(spec, figure), unlearned(networks, spec))))
            heading = f"{figure['paper']}: {figure['title']}"
            draw_gallery(paths, titles, labels, rows, heading=heading, caption=captions[name])
        written += paths
    folder = layout.gallery_path(results, "x", "x").parent
    write_index(folder, written, captions, results, sources, missing)


_RULES = {"first_of_each_class": "the first of each class in turn", "spread": "spread evenly"}


def caption(spec: GallerySpec, figure: dict[str, Any]) -> str:
    """What a figure shows, from its declaration: scale, seed, images and the rule they are chosen by."""
    images = figure["images"]
    texts = [f"Scale {spec.scale}; test images of {' and '.join(images['datasets'])}, {_RULES[images['choose']]}."]
    shown = {column["show"] for column in figure["columns"]}
    if shown - {"image", "truth"}:
        texts.insert(0, f"Networks of seed {spec.seed}, trained on the dataset named in the titles.")
    if "image" in shown:
        texts.append("Outlines: annotated masks, where there are any.")
    if "attacked" in shown:
        texts.append("Perturbed along the sign of the gradient by the L-infinity norm named, on the 0-255 scale.")
    return " ".join(texts)


def _networks(spec: GallerySpec, results: Path, figure: dict[str, Any]) -> list[Record]:
    """The records of the trainings of the networks that a figure shows."""
    shown = dict.fromkeys((column["dataset"], column["variant"]) for column in figure["columns"] if "variant" in column)
    return [read_record(layout.run_dir(results, "train", *pair, spec.seed) / layout.RECORD) for pair in shown]


def _sources(spec: GallerySpec, results: Path, figure: dict[str, Any], networks: Sequence[Record]) -> Iterator[Path]:
    """The files behind a figure; networks that failed are not looked at."""
    for record in networks:
        folder = layout.run_dir(results, "train", record.dataset, record.variant, spec.seed)
        yield folder / layout.RECORD
        if record.status == "ok":
            yield folder / layout.MODEL
    for name in figure["images"]["datasets"]:
        yield layout.data_dir(results, name) / layout.MANIFEST


def _failed(networks: Sequence[Record]) -> str:
    """Why a network cannot be shown; empty where all can."""
    return next((f"{each.variant} on {each.dataset}: {each.reason}" for each in networks if each.status != "ok"), "")


def _grid(spec: GallerySpec, results: Path, figure: dict[str, Any]) -> tuple[list[str], list[str], list[list[Cell]]]:
    """Column titles, row labels and cells of a figure; rows of one dataset follow those of another."""
    titles: list[str] = []
    labels: list[str] = []
    rows: list[list[Cell]] = []
    for dataset in figure["images"]["datasets"]:
        chosen = _rows(results, dataset, figure["images"])
        columns = [each for column in figure["columns"] for each in _columns(spec, results, column, chosen)]
        titles = [title for title, _ in columns]
        labels += chosen.labels
        rows += [list(cells) for cells in zip(*(cells for _, cells in columns), strict=True)]
    return titles, labels, rows


def _rows(results: Path, name: str, rule: dict[str, Any]) -> _Rows:
    dataset = PreparedDataset.open(layout.data_dir(results, name))
    split: Split = dataset.splits.get(_SPLIT) or next(iter(dataset.splits.values()))
    if rule["choose"] == "first_of_each_class":
        chosen = choose_images(split, rule["count"])
    else:
        chosen = np.unique(np.linspace(0, len(split) - 1, rule["count"]).round().astype(int))
    masks = None if split.masks is None else squashed([split.masks[row] for row in chosen], dataset.image_size)
    labels = [dataset.classes[label] for label in split.labels[chosen]]
    if masks is not None:
        labels = [text if mask.any() else f"{text}\nno object" for text, mask in zip(labels, masks, strict=True)]
    return _Rows(np.asarray(split.images[chosen]), masks, labels)


def _columns(spec: GallerySpec, results: Path, column: dict[str, Any], rows: _Rows) -> list[Column]:
    """What one entry of `columns` becomes: a title and a cell per row, once or several times."""
    if column["show"] == "image":
        return [("image", rows.cells())]
    if column["show"] == "truth":
        if rows.masks is None:
            raise ConfigError("config/figures.yaml: show: truth needs images with masks; name another role")
        return [("annotated", [Cell(mask > 0) for mask in rows.masks])]
    model = _network(spec, results, column)
    title = f"{column['label']}\n{column['dataset']}"
    draw = {"maps": _maps, "binary": _binary, "attacked": _attacked, "query": _query}[column["show"]]
    return [(f"{title}\n{what}", cells) for what, cells in draw(model, column, rows)]


def _network(spec: GallerySpec, results: Path, column: dict[str, Any]) -> "AttentionClassifier":
    from ltpa.models import load

    folder = layout.run_dir(results, "train", column["dataset"], column["variant"], spec.seed)
    digest = read_record(folder / layout.RECORD).extra.get("model_sha256")
    return load(folder / layout.MODEL, expect_variant=column["variant"], expect_sha256=digest)


def _over(rows: _Rows, maps: np.ndarray) -> list[Cell]:
    return [Cell(image, saliency=each) for image, each in zip(rows.images, maps, strict=True)]


def _combined(model: "AttentionClassifier", column: dict[str, Any], rows: _Rows) -> np.ndarray:
    """The combined maps at the images' size."""
    saliency = Saliency.from_declaration(column["saliency"], "figures")
    levels = saliency.maps(model, rows.images, len(rows.images))
    return saliency.at(levels, rows.images.shape[1:3], _masking(column).upsampling)[COMBINED]


def _maps(model: "AttentionClassifier", column: dict[str, Any], rows: _Rows) -> list[Column]:
    wanted, size = column["maps"], rows.images.shape[1:3]
    if wanted == COMBINED:
        return [(COMBINED, _over(rows, _combined(model, column, rows)))]
    if wanted == "attention":
        found = attention_maps(model, rows.images, len(rows.images))
    else:
        found = network_maps(model, rows.images, len(rows.images))
        if wanted not in found:
            raise ConfigError(f"config/figures.yaml: maps: {wanted} is none of attention, combined, {', '.join(found)}")
        found = {wanted: found[wanted]}
    method = _masking(column).upsampling
    return [(what.replace("_", " "), _over(rows, upsample(stack, size, method))) for what, stack in found.items()]


def _binary(model: "AttentionClassifier", column: dict[str, Any], rows: _Rows) -> list[Column]:
    threshold = _masking(column).threshold
    title = "Otsu mask" if threshold is None else f"above {threshold:g} of its range"
    return [(title, [Cell(mask) for mask in binary_masks(_combined(model, column, rows), threshold)])]


def _masking(column: dict[str, Any]) -> Masking:
    return Masking(**column["masking"])


def _attacked(model: "AttentionClassifier", column: dict[str, Any], rows: _Rows) -> list[Column]:
    """The images under attack at the network's input size, with the class it sees in each."""
    classes = model.metadata["classes"]
    (pixels,) = pixel_batches(model, rows.images, len(rows.images))
    settings = Attack(column["epsilons"], "predicted", clip=True, round=False, batch_size=len(pixels))
    nothing = torch.zeros(len(pixels), dtype=torch.int64)
    signs, _ = ascent_signs(model, pixels, nothing, settings.loss)
    columns = []
    for epsilon in (0.0, *settings.epsilons):
        moved = perturb(pixels, signs, epsilon, settings)
        seen = [classes[index] for index in classify(model, moved).tolist()]
        pictures = moved.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        cells = [Cell(picture, caption=f"seen as {name}") for picture, name in zip(pictures, seen, strict=True)]
        columns.append((f"norm {epsilon:g}", cells))
    return columns


def _query(model: "AttentionClassifier", column: dict[str, Any], rows: _Rows) -> list[Column]:
    """Maps of one level under the own and under the next row's global vector, and how they differ."""
    level, size, count = column["level"], rows.images.shape[1:3], len(rows.images)
    queries = np.roll(rows.images, -1, axis=0)
    own = attention_maps(model, rows.images, count)
    if level not in own:
        raise ConfigError(f"config/figures.yaml: level: {level} is none of {', '.join(own)}")
    first = upsample(own[level], size)
    second = upsample(attention_maps(model, rows.images, count, queries)[level], size)
    change = (second - first) / first.mean(axis=(1, 2), keepdims=True)
    differences = [
        Cell(image, difference=each, caption=f"at most {abs(each).max():.1e}")
        for image, each in zip(rows.images, change, strict=True)
    ]
    return [
        ("query", [Cell(image) for image in queries]),
        (f"{level}, own g", _over(rows, first)),
        (f"{level}, query's g", _over(rows, second)),
        ("difference", differences),
    ]
