"""One protocol on one network and a user's own folder of images: numbers to look at, no record of the pipeline."""

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.core.errors import ConfigError, DataError, ModelError
from ltpa.core.files import is_hidden
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.provenance import code_version
from ltpa.core.records import unconverged
from ltpa.core.text import printable
from ltpa.data.arrays import PreparedDataset
from ltpa.data.listing import Listing
from ltpa.data.pictures import MASK_SUFFIX, images_in, mask_of, passed_over_note, suffixes
from ltpa.data.real import mask_notes
from ltpa.data.shards import prepare_split
from ltpa.data.source import Options, Source
from ltpa.models.registry import parse_options
from ltpa.protocols.base import Context, Protocol, Scene
from ltpa.stages.common import naming, without_maps


def evaluate_folder(
    protocol: Protocol,
    scene: Scene,
    model_path: Path,
    images: Path,
    masks: Path | None,
    skip_corrupt: bool = False,
) -> dict[str, Any]:
    """Run `protocol` with the settings of `scene`, and return its metrics with what they come from, as plain JSON.

    Args:
        model_path: a network that `ltpa train` wrote.
        images: a folder with a folder of images per class, or with images only.
        masks: a folder laid out like `images`, with a PNG of the same stem for each image; only for
            protocols that need it.
        skip_corrupt: leave out images that cannot be decoded, and list them, instead of stopping.

    Raises:
        DataError: no images, too few for the protocol, one that cannot be decoded, or a mask that is missing or belongs
            to no image.
        MemoryFullError: an image has too many pixels.
        NotFiniteError: the network gives numbers that are not finite; the message names its file.
        ModelError: not a network of this project, or one without the maps that the protocol looks at.
    """
    from ltpa.models import load

    model = load(model_path)
    if (learning := parse_options(model.architecture).learning) not in protocol.learning:
        raise ModelError(
            f"{model_path}: a network that learns by {learning}, and {protocol.name} measures those that learn by "
            f"{' or '.join(protocol.learning)}; name one of these"
        )
    if protocol.needs_masks != (masks is not None):
        raise ConfigError(f"{protocol.name}: {'add' if protocol.needs_masks else 'takes no'} --masks DIR")
    settings, variant = scene.settings(protocol.name), model.metadata["variant"]
    inputs = protocol.folder_inputs(scene, variant)
    classes, listing = _list(images, masks)
    if protocol.compares_classes(settings) and len(classes) < 2:
        raise DataError(f"{images}: images of one class; {protocol.name} needs folders of images of at least two")
    known = model.metadata["classes"]
    named = all(name in known for name in classes)
    if named:
        listing = dataclasses.replace(listing, labels=[known.index(classes[label]) for label in listing.labels])
    if protocol.lacks_maps(model, inputs):
        raise without_maps(model_path, variant)
    with tempfile.TemporaryDirectory(prefix="ltpa-evaluate-") as scratch:
        options = Options(upright=True, skip_corrupt=skip_corrupt)
        source = Source(images.resolve().name, known if named else classes, model.image_size, {}, {}, options)
        dataset = _decode(source, listing, Path(scratch))
        target = protocol.folder_target(dataset.name, list(range(len(known))) if named else None)
        with naming(model_path):
            found = protocol.measure(model, [dataset], settings, Context([target], inputs, 0, Path(scratch)))
    doubts = unconverged({**found.extra, "protocol": settings.of_job()})
    of_labels = {kind.name for kind in protocol.metrics if kind.of_labels}
    metrics = [dataclasses.asdict(m) for m in found.metrics if named or m.name not in of_labels]
    return {
        "protocol": protocol.name,
        "settings": {**settings.of_job(), **inputs},
        "model": str(model_path),
        "model_sha256": sha256_file(model_path),
        "variant": variant,
        "images": str(images),
        "count": len(dataset.split("test")),
        "skipped": dataset.facts["skipped"],
        "passed_over": list(listing.passed_over),
        "data_hash": dataset.data_hash,
        "code_version": code_version(),
        "note": "" if named else "folders are not named like the network's classes: accuracy is not given",
        "warnings": [
            *mask_notes(dataset.facts, upright=True),
            *found.extra.get("notes", []),
            *(f"{condition}: {doubt}" for (_, condition), doubt in doubts.items()),
        ],
        "metrics": metrics,
    }


def _list(folder: Path, masks: Path | None) -> tuple[list[str], Listing]:
    """Class names, and the images by class and file name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name one with images, or with a folder of images per class")
    here, beside = images_in(folder)
    inside = {name: images_in(folder / name) for name in map(_folder_name, beside) if name}
    classes = [name for name, (pictures, _) in inside.items() if pictures]
    if here and classes:
        raise DataError(
            f"{folder / here[0]}: an image beside the folder {classes[0]} of images; "
            "move it into the folder of its class, or out of the way"
        )
    names = here or [f"{name}/{picture}" for name in classes for picture in inside[name][0]]
    if not names:
        raise _without_images(folder, list(inside))
    labels = [0 if here else classes.index(name.split("/")[0]) for name in names]
    found = None if masks is None else _masks(masks, folder, names)
    others = [name for name in beside if _folder_name(name) not in classes]
    others += [f"{name}/{other}" for name in classes for other in inside[name][1]]
    listing = Listing([folder / name for name in names], labels, names, masks=found, passed_over=others)
    return classes or [folder.name], listing


def _folder_name(entry: str) -> str:
    """The name of a folder that may hold a class; empty for a file or a hidden folder."""
    return entry[:-1] if entry.endswith("/") and not is_hidden(entry) else ""


def _without_images(folder: Path, inside: list[str]) -> DataError:
    kinds = ", ".join(suffix[1:] for suffix in suffixes())
    for name in inside:
        for deeper in sorted((folder / name).iterdir()):
            if deeper.is_dir() and not is_hidden(deeper.name) and images_in(deeper)[0]:
                return DataError(
                    f"{folder}: no images here or in folders in it, but one level deeper, in {deeper}; "
                    f"name {folder / name}"
                )
    return DataError(f"{folder}: no images ({kinds}) here or in folders in it; name a folder that has some")


def _masks(folder: Path, images: Path, names: list[str]) -> list[Path]:
    """The masks of the images called `names`, each of which has one; there are no others."""
    found = [mask_of(folder, name) for name in names]
    there = {
        path for path in folder.rglob(f"*{MASK_SUFFIX}") if not any(map(is_hidden, path.relative_to(folder).parts))
    }
    if more := sorted(there - set(found)):
        raise DataError(f"{more[0]}: a mask without an image in {images}; add the image, or take the mask out")
    return found


def _decode(source: Source, listing: Listing, scratch: Path) -> PreparedDataset:
    split, facts = prepare_split(scratch, "test", listing, source, threads=1)
    data_hash = digest([split.ids.tolist(), hashlib.sha256(np.asarray(split.images).tobytes()).hexdigest()])
    return PreparedDataset(source.name, source.classes, {"test": split}, data_hash, facts)


def as_markdown(found: dict[str, Any]) -> str:
    """What was measured, as a table under a line that says of what."""
    lines = [
        f"{found['protocol']} of {found['model']} ({found['variant']}) on {found['count']} images of {found['images']}",
        *([found["note"]] if found["note"] else []),
        *found["warnings"],
        *([passed_over_note(found["passed_over"])] if found["passed_over"] else []),
        *(f"left out: {problem}" for problem in found["skipped"]),
    ]
    lines = [
        *map(printable, lines),
        "",
        "| metric | condition | value | images |",
        "|---|---|---:|---:|",
    ]
    for m in found["metrics"]:
        condition = printable(m["condition"]).replace("|", "\\|")
        lines.append(f"| {m['name']} | {condition} | {m['value']:.4g} | {m['n']} |")
    return "\n".join(lines)
