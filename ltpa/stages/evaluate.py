"""One protocol on one network and a user's own folder of images: numbers to look at, no record of the pipeline."""

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.provenance import code_version
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.listing import Listing
from ltpa.data.readers.folders import images_in
from ltpa.data.shards import prepare_split
from ltpa.data.source import Options, Source
from ltpa.evaluation.fgsm import FgsmSettings
from ltpa.evaluation.query import QuerySettings
from ltpa.evaluation.svm import SvmSettings
from ltpa.models.variants import chosen_saliency
from ltpa.stages import fgsm, maps, query, segmentation, transfer
from ltpa.stages.maps import MapSettings
from ltpa.stages.segmentation import SegmentationSettings

PROTOCOLS = {
    "transfer": (transfer.measure, SvmSettings),
    "fgsm": (fgsm.measure, FgsmSettings),
    "segmentation": (segmentation.measure, SegmentationSettings),
    "maps": (maps.measure, MapSettings),
    "query": (query.measure, QuerySettings),
}
_NEED_MASKS = ("segmentation", "maps")
_NEEDS_LABELS = "adversarial_accuracy_pct"


def evaluate_folder(
    protocol: str, model_path: Path, images: Path, masks: Path | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Run `protocol`, a key of `PROTOCOLS`, and return its metrics with what they come from, as plain JSON.

    Args:
        model_path: a network that `ltpa train` wrote.
        images: a folder with a folder of images per class, or with images only.
        masks: a folder laid out like `images`, with a PNG of the same stem for each image; only for `segmentation` and
            `maps`, which need it.
        settings: of the protocol, as in a configuration; keys that the protocol does not know are passed over. Those
            that need masks take the settings of `segmentation` with it.

    Raises:
        DataError: no images, too few for the protocol, or a mask that is missing or belongs to no image.
        ModelError: not a network of this project, or one without what the protocol looks at.
    """
    from ltpa.models import load

    model = load(model_path)
    if (protocol in _NEED_MASKS) != (masks is not None):
        raise ConfigError(f"{' and '.join(_NEED_MASKS)} need --masks DIR, and only they take it")
    classes, listing = _list(images, masks)
    known = model.metadata["classes"]
    named = all(name in known for name in classes)
    if named:
        listing = dataclasses.replace(listing, labels=[known.index(classes[label]) for label in listing.labels])
    measure, kind = PROTOCOLS[protocol]
    fields = {field.name for field in dataclasses.fields(kind)}
    chosen = {key: value for key, value in settings.items() if key in fields}
    if protocol in _NEED_MASKS:
        chosen["saliency"] = chosen_saliency(model.metadata["variant"], settings["levels"], settings["root"])
    with tempfile.TemporaryDirectory(prefix="ltpa-evaluate-") as scratch:
        dataset = _decode(images.name, known if named else classes, listing, model.image_size, Path(scratch))
        spec = EvaluationSpec(
            scale="by-hand",
            dataset=dataset.name,
            threads=1,
            variant=model.metadata["variant"],
            training="",
            targets=[_target(protocol, dataset, known if named else None)],
            protocol=chosen,
        )
        found = measure(spec, model, [dataset], Path(scratch))
    metrics = [dataclasses.asdict(m) for m in found.metrics if named or m.name != _NEEDS_LABELS]
    return {
        "protocol": protocol,
        "settings": chosen,
        "model": str(model_path),
        "model_sha256": sha256_file(model_path),
        "variant": model.metadata["variant"],
        "images": str(images),
        "count": len(listing),
        "data_hash": dataset.data_hash,
        "code_version": code_version(),
        "note": "" if named else "folders are not named like the network's classes: accuracy is not given",
        "metrics": metrics,
    }


def _target(protocol: str, dataset: PreparedDataset, known: list[str] | None) -> dict[str, Any]:
    kind = {"transfer": "svm", "segmentation": "masks", "maps": "masks"}.get(protocol, "")
    class_ids = None if known is None else list(range(len(known)))
    return {"name": dataset.name, "kind": kind, "class_ids": class_ids, "split": "test"}


def _list(folder: Path, masks: Path | None) -> tuple[list[str], Listing]:
    """Class names and images, by class and file name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name one with images, or with a folder of images per class")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and images_in(entry, False))
    names = [f"{name}/{image}" for name in classes for image in images_in(folder / name, False)]
    labels = [classes.index(name.split("/")[0]) for name in names]
    if not names:
        classes, names = [folder.name], images_in(folder, False)
        labels = [0] * len(names)
    if not names:
        raise DataError(f"{folder}: no images (jpg, jpeg, png, bmp, gif) here or in folders in it")
    found = None if masks is None else _masks(masks, folder, names)
    return classes, Listing([folder / name for name in names], labels, names, masks=found)


def _masks(folder: Path, images: Path, names: list[str]) -> list[Path]:
    """The masks of the images called `names`, each of which has one; there are no others."""
    found = [(folder / name).with_suffix(".png") for name in names]
    for path, name in zip(found, names, strict=True):
        if not path.is_file():
            raise DataError(f"{path}: no mask for image {name}; add it, or take the image out")
    if more := sorted(set(folder.rglob("*.png")) - set(found)):
        raise DataError(f"{more[0]}: a mask without an image in {images}; add the image, or take the mask out")
    return found


def _decode(name: str, classes: list[str], listing: Listing, size: int, scratch: Path) -> PreparedDataset:
    source = Source(name, classes, size, {}, {}, Options())
    split, _ = prepare_split(scratch, "test", listing, source, threads=1)
    data_hash = digest([split.ids.tolist(), hashlib.sha256(np.asarray(split.images).tobytes()).hexdigest()])
    return PreparedDataset(name, classes, {"test": split}, data_hash, {})


def as_markdown(found: dict[str, Any]) -> str:
    """What was measured, as a table under a line that says of what."""
    lines = [
        f"{found['protocol']} of {found['model']} ({found['variant']}) on {found['count']} images of {found['images']}",
        *([found["note"]] if found["note"] else []),
        "",
        "| metric | condition | value | images |",
        "|---|---|---:|---:|",
    ]
    lines += [f"| {m['name']} | {m['condition']} | {m['value']:.4g} | {m['n']} |" for m in found["metrics"]]
    return "\n".join(lines)
