"""Lay a network's attention over a user's own pictures, each in its own proportions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import DataError, ModelError
from ltpa.core.files import is_hidden
from ltpa.core.text import printable
from ltpa.data.decode import load_input, load_picture
from ltpa.data.pictures import is_image, passed_over_note, suffixes
from ltpa.evaluation.inference import attention_maps, class_probabilities
from ltpa.evaluation.saliency import CAM, COMBINED, Saliency, upsample
from ltpa.evaluation.segmentation import otsu_masks
from ltpa.models.variants import declared_variants
from ltpa.report.gallery import Cell, draw_gallery
from ltpa.report.overlays import CELL_PIXELS
from ltpa.stages.common import naming, without_maps

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

_DRAWN = 2 * CELL_PIXELS  # longest side in pixels of pictures and maps; twice what a cell has, so that edges stay sharp


def attend(
    pictures: Sequence[Path],
    model_path: Path,
    output: Path,
    query: Path | None = None,
    formats: Sequence[str] = ("png",),
) -> Iterator[str]:
    """Write `<stem>-attention.png` into `output` for each picture and yield a line about it.

    The network sees the picture squashed to its input size, as in `ltpa evaluate`. Maps are upsampled to the size that
    the picture is drawn at and laid over it; the last one, which is the combined map where there is one, is shown cut
    by Otsu's threshold. Files that are no images by their names are passed over, and named in a line.

    Args:
        pictures: files, or folders whose files are meant; not those of folders below.
        formats: what to write, of png, svg and pdf.
        query: a picture whose global vector takes the place of each picture's own (paper appendix A.5).

    Raises:
        DataError: no picture is there, one cannot be read, or two would be written under one name.
        MemoryFullError: a picture has too many pixels.
        ModelError: not a network of this project, or one that has no maps.
    """
    from ltpa.models import load

    model = load(model_path)
    if not model.classifies:
        raise ModelError(f"{model_path}: a {model.metadata['variant']} names no class; name a network that classifies")
    pictures = [each for path in pictures for each in (_files_in(path) if path.is_dir() else [path])]
    others = [str(path) for path in pictures if not is_image(path.name)]
    pictures = [path for path in pictures if is_image(path.name)]
    if not pictures:
        raise DataError(f"{others[0]}: no image by its name; give files that end in {', '.join(suffixes())}")
    if twice := [path for path in pictures if [p.stem for p in pictures].count(path.stem) > 1]:
        raise DataError(f"{twice[0]}: another picture has the same name; attend to them one after the other")
    if others:
        yield passed_over_note(others)
    asking = None if query is None else load_input(query, model.image_size)
    for path in pictures:
        image, seen_pixels = load_picture(path, _DRAWN), load_input(path, model.image_size)
        with naming(model_path):
            maps = _maps(model, model_path, seen_pixels, asking, image.shape[:2])
            probabilities = class_probabilities(model, seen_pixels[None], 1)[0]
        best = int(probabilities.argmax())
        seen = f"{model.metadata['classes'][best]} ({100 * probabilities[best]:.1f} %)"
        targets = [Path(output) / f"{path.stem}-attention.{suffix}" for suffix in formats]
        overlays = [Cell(image, saliency=each) for each in maps.values()]
        mask = Cell(otsu_masks(list(maps.values())[-1][None])[0])
        cells = [Cell(image, caption=f"seen as {seen}"), *overlays, mask]
        name = printable(path.name)
        draw_gallery(targets, [name, *maps, "Otsu"], [model.metadata["variant"]], [cells])
        yield printable(f"{', '.join(map(str, targets))}: {name} is seen as {seen}")


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder, by name; hidden ones are left out."""
    files = sorted(path for path in folder.iterdir() if not path.is_dir() and not is_hidden(path.name))
    if not files:
        raise DataError(f"{folder}: no picture lies in this folder; name one that holds some")
    return files


def _maps(
    model: "AttentionClassifier", model_path: Path, image: np.ndarray, query: np.ndarray | None, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Maps by level, brought to `size` (height, width), and `combined` where the variant declares how."""
    variant = declared_variants().get(model.metadata["variant"])
    declared = None if variant is None else variant.saliency
    saliency = None if declared is None else Saliency.from_declaration({**declared}, "attend")
    if saliency is None and not model.attention_levels:
        raise without_maps(model_path, model.metadata["variant"])
    if query is not None and (saliency is None or saliency.source == CAM):
        raise ModelError(f"a {model.metadata['variant']} has no global vector to take from a query; leave --query out")
    queries = None if query is None else query[None]
    if saliency is None:
        found = attention_maps(model, image[None], 1, queries)
        maps = {level: upsample(each, size) for level, each in found.items()}
    else:
        maps = saliency.at(saliency.maps(model, image[None], 1, queries=queries), size)
        if len(maps) == 2:  # the combined map is that of the only level
            del maps[COMBINED]
    return {level: each[0] for level, each in maps.items()}
