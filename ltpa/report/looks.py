"""Layers of pictures of where networks look: the same images under each network, to be laid over each other on a page.

Every layer is one strip, a cell per image. A page stacks strips: the images, one map, and outlines.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltpa.core.files import atomic_path, write_text
from ltpa.evaluation.saliency import COMBINED
from ltpa.evaluation.segmentation import binary_masks
from ltpa.report.overlays import BRIGHTEST, relative_to_uniform

FOLDER, LISTING = "looks", "looks.json"
IMAGES, TRUTH, OTSU = "images", "truth", "otsu"
_CELL = 96  # pixels, about: cells are whole multiples of small images
_GAP = 6
_ALPHA = 0.65
_WHITE, _CYAN = (255, 255, 255), (0, 229, 255)


class Looks:
    """Writes the strips of some images into a folder, network by network, and last a listing of them.

    Args:
        folder: where they go.
        images: (N, H, W, 3) uint8.
        masks: (N, H, W) 0/1, or None.
        labels: what the images show.
    """

    def __init__(self, folder: Path, images: np.ndarray, masks: np.ndarray | None, labels: Sequence[str]) -> None:
        self.folder, self.labels = folder, list(labels)
        self.written: list[Path] = []
        self._networks: list[dict[str, object]] = []
        self._scale = max(1, round(_CELL / images.shape[1]))
        opaque = np.full((*images.shape[:3], 1), 255, np.uint8)
        self._strip(IMAGES, np.concatenate([images, opaque], axis=3))
        self._truth = masks is not None and bool(masks.any())
        if masks is not None and self._truth:
            self._strip(TRUTH, self._outlines(masks, _WHITE), scaled=True)

    def add(self, variant: str, label: str, maps: Mapping[str, np.ndarray]) -> None:
        """Add a network: its maps (N, H, W) by level, the combined one among them."""
        from matplotlib import colormaps

        for level, stack in maps.items():
            shares = np.stack([relative_to_uniform(each) for each in stack]) / BRIGHTEST
            colours = colormaps["inferno"](np.clip(shares, 0, 1), bytes=True)
            colours[..., 3] = round(255 * _ALPHA)
            self._strip(f"{variant}-{level}", colours)
        self._strip(f"{variant}-{OTSU}", self._outlines(binary_masks(maps[COMBINED]), _CYAN), scaled=True)
        self._networks.append({"variant": variant, "label": label, "levels": list(maps)})

    def close(self) -> list[Path]:
        """Write the listing; all files that were written."""
        content = {"labels": self.labels, "truth": self._truth, "networks": self._networks}
        write_text(self.folder / LISTING, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return [*self.written, self.folder / LISTING]

    def _strip(self, name: str, cells: np.ndarray, scaled: bool = False) -> None:
        """Write cells (N, H, W, 4) beside each other, transparent between them."""
        from PIL import Image

        cells = cells if scaled else cells.repeat(self._scale, axis=1).repeat(self._scale, axis=2)
        strip = np.pad(cells, ((0, 0), (0, 0), (0, _GAP), (0, 0)))
        strip = np.concatenate(list(strip), axis=1)[:, :-_GAP]
        path = self.folder / f"{name}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(np.ascontiguousarray(strip)).save(temporary, format="PNG", optimize=True)
        self.written.append(path)

    def _outlines(self, masks: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
        """The borders of masks, two pixels wide, at the size of the strip."""
        from scipy.ndimage import binary_erosion

        large = (np.asarray(masks) > 0).repeat(self._scale, axis=1).repeat(self._scale, axis=2)
        border = np.stack([each & ~binary_erosion(each, iterations=2, border_value=1) for each in large])
        cells = np.zeros((*border.shape, 4), np.uint8)
        cells[border] = (*colour, 255)
        return cells
