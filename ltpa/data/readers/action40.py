"""Stanford 40 Actions: all images in one folder, named after their action; split lists; a box around each actor."""

from pathlib import Path
from xml.etree import ElementTree

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List the splits in the order of `ImageSplits/<split>.txt`. An image is named `<action>_<number>.jpg`.

    Raises:
        DataError: a list or annotation is missing or damaged, or names no known action.
    """
    listings = {}
    for split in source.splits:
        path = root / "ImageSplits" / f"{split}.txt"
        try:
            names = path.read_text(encoding="utf-8-sig").split()
            labels = [source.classes.index(Path(name).stem.rpartition("_")[0]) for name in names]
        except ValueError as error:
            raise DataError(f"{path}: not a readable list of images ({error}); extract it anew") from error
        images = [root / "JPEGImages" / name for name in names]
        boxes = [_box(root / "XMLAnnotations" / f"{Path(name).stem}.xml") for name in names]
        listings[split] = Listing(images, labels, names, boxes)
    return listings


def _box(path: Path) -> list[float]:
    """The actor's box. Files differ in the order of the four values, so they are read by name."""
    try:
        box = ElementTree.parse(path).getroot().find("object/bndbox")
        if box is None:
            raise ValueError("no box")
        return [float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: not a readable annotation ({error}); extract it anew") from error
