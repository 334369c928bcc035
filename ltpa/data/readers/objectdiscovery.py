"""Object Discovery: a folder of images per subset, and inside it a folder of masks with the same stems."""

from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.readers.folders import images_in
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List the subsets as one split, by subset and file name. The numbers in the names have gaps.

    Raises:
        DataError: a subset or a mask is missing.
    """
    folder = source.folder(root)
    images, labels, masks = [], [], []
    for label, subset in enumerate(source.classes):
        if not (folder / subset).is_dir():
            raise DataError(f"{folder / subset}: no such folder; extract the archive of {source.name} anew")
        for name in images_in(folder / subset, source.options.paper_subset):
            mask = folder / subset / source.layout["masks"] / f"{Path(name).stem}.png"
            if not mask.is_file():
                raise DataError(f"{mask}: no mask for image {name}; extract the archive of {source.name} anew")
            images.append(folder / subset / name)
            labels.append(label)
            masks.append(mask)
    ids = [path.relative_to(folder).as_posix() for path in images]
    return {split: Listing(images, labels, ids, masks=masks) for split in source.splits}
