"""Object Discovery: a folder of images per subset, and inside it a folder of masks with the same stems."""

from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.pictures import images_in, mask_of
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List the subsets as one split, by subset and file name. The numbers in the names have gaps.

    Raises:
        DataError: a subset or a mask is missing.
    """
    folder = source.folder(root)
    images, labels, masks, others = [], [], [], []
    for label, subset in enumerate(source.classes):
        if not (folder / subset).is_dir():
            raise DataError(f"{folder / subset}: no such folder; extract the archive of {source.name} anew")
        names, more = images_in(folder / subset, source.options.paper_subset)
        others += [f"{subset}/{name}" for name in more if name != f"{source.layout['masks']}/"]
        for name in names:
            images.append(folder / subset / name)
            labels.append(label)
            masks.append(mask_of(folder / subset / source.layout["masks"], name))
    ids = [path.relative_to(folder).as_posix() for path in images]
    return {split: Listing(images, labels, ids, masks=masks, passed_over=others) for split in source.splits}
