"""One protocol on one network and a user's own folder of images: numbers to look at, no record of the pipeline."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.core.errors import ConfigError, DataError, ModelError
from ltpa.core.files import is_hidden
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.provenance import code_version
from ltpa.core.records import Metric, unconverged
from ltpa.core.text import markdown_text
from ltpa.data.arrays import PreparedDataset
from ltpa.data.listing import Listing
from ltpa.data.pictures import MASK_SUFFIX, images_in, mask_of, passed_over_note, suffixes
from ltpa.data.real import mask_notes
from ltpa.data.shards import prepare_split
from ltpa.data.source import Options, Source
from ltpa.models.base import AttentionClassifier
from ltpa.models.foreign import Foreign
from ltpa.models.registry import parse_options
from ltpa.protocols.base import Context, Protocol, Scene
from ltpa.stages.common import naming


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network that is measured.

    Attributes:
        model: the network, in evaluation mode.
        name: what messages call it.
        variant: what it is.
        classes: names of its classes; None where they are unknown.
        facts: what else is told of it.
    """

    model: AttentionClassifier
    name: str
    variant: str
    classes: Sequence[str] | None
    facts: Mapping[str, Any]


def own_network(path: Path) -> Subject:
    """The network of a file that `ltpa train` wrote.

    Raises:
        ModelError: it is none.
    """
    from ltpa.models import load

    model = load(path)
    variant = model.metadata["variant"]
    return Subject(model, str(path), variant, model.metadata["classes"], {"model_sha256": sha256_file(path)})


def evaluate_folder(
    protocol: Protocol,
    scene: Scene,
    subject: Subject,
    images: Path,
    masks: Path | None,
    skip_corrupt: bool = False,
) -> dict[str, Any]:
    """Run `protocol` with the settings of `scene`, and return its metrics with what they come from, as plain JSON.

    Args:
        subject: the network.
        images: a folder with a folder of images per class, or with images only.
        masks: a folder laid out like `images`, with a PNG of the same stem for each image; only for
            protocols that need it.
        skip_corrupt: leave out images that cannot be decoded, and list them, instead of stopping.

    Raises:
        DataError: no images, too few for the protocol, one that cannot be decoded, or a mask that is missing or belongs
            to no image.
        MemoryFullError: an image has too many pixels.
        NotFiniteError: the network gives numbers that are not finite; the message names its file.
        ModelError: a network without the maps that the protocol looks at.
    """
    model, variant = subject.model, subject.variant
    if not isinstance(model, Foreign):
        learning = parse_options(model.architecture).learning
        if learning not in protocol.learning:
            raise ModelError(
                f"{subject.name}: a network that learns by {learning}; {protocol.name} measures those that learn by "
                f"{' or '.join(protocol.learning)}"
            )
    if protocol.needs_masks != (masks is not None):
        raise ConfigError(f"{protocol.name}: {'add' if protocol.needs_masks else 'takes no'} --masks DIR")
    settings = scene.settings(protocol.name)
    classes, listing = _list(images, masks)
    if protocol.compares_classes(settings) and len(classes) < 2:
        raise DataError(f"{images}: images of one class; {protocol.name} needs folders of images of at least two")
    taken = subject.classes is None and len(classes) == model.num_classes  # as torchvision's `ImageFolder` has them
    own = classes if taken else list(subject.classes or ())
    named = all(name in own for name in classes)
    if named:
        listing = dataclasses.replace(listing, labels=[own.index(classes[label]) for label in listing.labels])
    if reason := refusal(protocol, scene, model, variant, named, True):
        raise ModelError(f"{subject.name}: {reason}")
    inputs = protocol.folder_inputs(scene, variant)
    with tempfile.TemporaryDirectory(prefix="ltpa-evaluate-") as scratch:
        options = Options(upright=True, skip_corrupt=skip_corrupt)
        source = Source(images.resolve().name, own if named else classes, model.image_size, {}, {}, options)
        dataset = _decode(source, listing, Path(scratch))
        target = protocol.folder_target(dataset.name, list(range(len(own))) if named else None)
        with naming(subject.name):
            found = protocol.measure(model, [dataset], settings, Context([target], inputs, 0, Path(scratch)))
    doubts = unconverged({**found.extra, "protocol": settings.of_job()})
    metrics = [dataclasses.asdict(metric) for metric in known(protocol, found.metrics, named)]
    return {
        "protocol": protocol.name,
        "settings": {**settings.of_job(), **inputs},
        "model": subject.name,
        "variant": variant,
        **subject.facts,
        "images": str(images),
        "count": len(dataset.split("test")),
        "skipped": dataset.facts["skipped"],
        "passed_over": list(listing.passed_over),
        "data_hash": dataset.data_hash,
        "code_version": code_version(),
        "note": _note(named, taken),
        "warnings": [
            *mask_notes(dataset.facts, upright=True),
            *found.extra.get("notes", []),
            *(f"{condition}: {doubt}" for (_, condition), doubt in doubts.items()),
        ],
        "metrics": metrics,
    }


def refusal(
    protocol: Protocol, scene: Scene, model: AttentionClassifier, variant: str, labelled: bool, masked: bool
) -> str:
    """Why a protocol cannot measure a network; empty where it can."""
    if "cross-entropy" not in protocol.learning:
        return f"{protocol.name}: measures only networks of two streams"
    if protocol.needs_masks and not masked:
        return f"{protocol.name}: needs masks, one for each image"
    if not labelled and all(kind.of_labels for kind in protocol.metrics):
        return f"{protocol.name}: needs the true class of each image"
    if protocol.lacks_maps(model, protocol.folder_inputs(scene, variant)):
        if isinstance(model, Foreign) and not model.shows_maps:
            return f"{protocol.name}: its layers give no map; add a function that makes maps"
        return f"a {variant} has no attention map; {protocol.name} looks at that of a network of ltpa"
    return ""


def known(protocol: Protocol, metrics: Sequence[Metric], labelled: bool) -> list[Metric]:
    """Of `metrics` those that mean something: without true classes, the ones that need none."""
    of_labels = {kind.name for kind in protocol.metrics if kind.of_labels}
    return [metric for metric in metrics if labelled or metric.name not in of_labels]


def _note(named: bool, taken: bool) -> str:
    if taken:
        return "the folders, in alphabetical order, are taken for the network's classes"
    return "" if named else "folders are not named like the network's classes: accuracy is not given"


def _of_foreign(found: dict[str, Any]) -> str:
    layers = f"maps of {' and '.join(found['map_layers'])}" if found["map_layers"] else "no layer with maps"
    return f"images of {found['size']} px, preprocessing {found['preprocessing']}, {layers}"


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
        *([_of_foreign(found)] if "map_layers" in found else []),
        *([found["note"]] if found["note"] else []),
        *found["warnings"],
        *([passed_over_note(found["passed_over"])] if found["passed_over"] else []),
        *(f"left out: {problem}" for problem in found["skipped"]),
    ]
    lines = [
        *map(markdown_text, lines),
        "",
        "| metric | condition | value | images |",
        "|---|---|---:|---:|",
    ]
    for m in found["metrics"]:
        cells = m["name"], m["condition"], f"{m['value']:.4g}", m["n"]
        lines.append(f"| {' | '.join(map(markdown_text, cells))} |")
    return "\n".join(lines)
