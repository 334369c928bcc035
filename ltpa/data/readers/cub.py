"""CUB-200-2011: text files that number the images and give class, split and box of each."""

import math
from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.readers.cub_parts import heads_in
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List both splits in the order of `images.txt`, which is not that of the file names.

    Raises:
        DataError: a file is missing, or the files are about different images or other classes.
    """
    folder = source.folder(root)
    images = _table(folder / "images.txt")
    labels, boxes = _table(folder / "image_class_labels.txt"), _table(folder / "bounding_boxes.txt")
    in_train = _table(folder / "train_test_split.txt")
    for name, table in (("image_class_labels", labels), ("bounding_boxes", boxes), ("train_test_split", in_train)):
        if table.keys() != images.keys():
            raise DataError(f"{folder / name}.txt: numbers other images than images.txt does; extract it anew")
    if wrong := [number for number, flag in in_train.items() if flag not in ("0", "1")]:
        raise DataError(f"{folder / 'train_test_split.txt'}: image {wrong[0]} has neither 0 nor 1; extract it anew")
    if wrong := [number for number, label in labels.items() if not label.isdecimal()]:
        raise DataError(f"{folder / 'image_class_labels.txt'}: image {wrong[0]} has no number; extract it anew")
    source.check_classes(folder / "classes.txt", list(_table(folder / "classes.txt").values()))
    heads = heads_in(folder / "parts" / "part_locs.txt", images) if source.options.parts == "head" else {}
    listings = {}
    for split, flag in (("train", "1"), ("test", "0")):
        chosen = [number for number in images if in_train[number] == flag]
        corners = [_box(folder / "bounding_boxes.txt", number, boxes[number]) for number in chosen]
        listings[split] = Listing(
            images=[folder / "images" / images[number] for number in chosen],
            labels=[int(labels[number]) - 1 for number in chosen],
            ids=[images[number] for number in chosen],
            boxes=[[x, y, x + width, y + height] for x, y, width, height in corners],
            parts=[heads[number] for number in chosen] if heads else None,
        )
    return {split: listings[split] for split in source.splits}


def _box(path: Path, image: str, text: str) -> list[float]:
    """Left, top, width and height."""
    try:
        values = [float(value) for value in text.split()]
    except ValueError:
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise DataError(f"{path}: image {image} has {text!r}, not four numbers; extract it anew")
    if min(values[2:]) <= 0:
        raise DataError(f"{path}: image {image} has a box without area, {text!r}; extract it anew")
    return values


def _table(path: Path) -> dict[str, str]:
    """Lines `number text`, by number, in the order of the file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return {number: text.strip() for number, text in (line.split(" ", 1) for line in lines if line.strip())}
    except ValueError as error:
        raise DataError(f"{path}: not a readable list ({error}); extract the dataset's archives anew") from error
