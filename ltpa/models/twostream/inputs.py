"""From uint8 images and boxes to what the two streams see: views, crops, normalisation, all on whole batches.

Boxes are y0, x0, y1, x1 in pixels of the images, last row and column exclusive. A patch is cut from the image that the
global stream sees, before normalisation, and enlarged with corners aligned, as in the released code; so it holds no
detail that the image lacks.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltpa.models.families.two_stream import Options

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on the 0-1 scale
KEPT_SHARE = 0.25  # of a box that must survive a view; else the whole view takes its place


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """How each of B images of `size` pixels is looked at: a window of it, enlarged to `size`, perhaps mirrored.

    Attributes:
        windows: (B, 4) float64, y0, x0, y1, x1 in pixels of the image.
        mirrored: (B,) bool, left to right, after the window is cut.
    """

    windows: np.ndarray
    mirrored: np.ndarray


def draw_views(kind: str, count: int, size: int, rng: np.random.Generator) -> Views | None:
    """Random views of `count` images: `none`; `flip_crop`: 7/8 of the side and mirroring, which is the resizing to 512
    and cropping of 448 of other published routines; `resized_crop`: 1/4 to all of the area, sides as 3:4 to 4:3.
    """
    if kind == "none":
        return None
    if kind == "flip_crop":
        height = width = np.full(count, size * 448 / 512)
    else:
        area = rng.uniform(0.25, 1.0, count) * size**2
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
        height = np.minimum(np.sqrt(area / aspect), size)
        width = np.minimum(np.sqrt(area * aspect), size)
    top, left = rng.uniform(0, 1, count) * (size - height), rng.uniform(0, 1, count) * (size - width)
    windows = np.stack([top, left, top + height, left + width], axis=1)
    return Views(windows, rng.random(count) < 0.5)


def follow(boxes: np.ndarray, views: Views, size: int) -> np.ndarray:
    """Where boxes (B, 4) of whole pixels lie in the views, rounded to whole pixels and clipped, (B, 4) int64.

    A box of which less than `KEPT_SHARE` is left becomes the whole view.
    """
    origin, scale = views.windows[:, :2], size / (views.windows[:, 2:] - views.windows[:, :2])
    corners = (boxes.reshape(-1, 2, 2) - origin[:, None]) * scale[:, None]
    whole = np.prod(corners[:, 1] - corners[:, 0], axis=1)
    clipped = np.clip(np.rint(corners), 0, size)
    left = np.prod(clipped[:, 1] - clipped[:, 0], axis=1)
    clipped[left < KEPT_SHARE * whole] = [[0, 0], [size, size]]
    found = clipped.reshape(-1, 4).astype(np.int64)
    mirrored = found.copy()
    mirrored[:, 1], mirrored[:, 3] = size - found[:, 3], size - found[:, 1]
    return np.where(views.mirrored[:, None], mirrored, found)


def pixels(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 images (B, S, S, 3) as float32 (B, 3, S, S), 0-255, in channels-last memory, on `device`."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()


def look(batch: Tensor, views: Views | None) -> Tensor:
    """The views of a batch of pixels (B, 3, S, S), of its own size."""
    if views is None:
        return batch
    size = batch.shape[-1]
    centre = np.arange(size) + 0.5  # of the output's pixels
    top, left, bottom, right = (views.windows[:, k : k + 1] for k in range(4))
    rows = top + centre * (bottom - top) / size
    along = np.where(views.mirrored[:, None], centre[::-1], centre)
    columns = left + along * (right - left) / size
    return _sample(batch, 2 * rows / size - 1, 2 * columns / size - 1, aligned=False)


def crop(batch: Tensor, boxes: np.ndarray, size: int) -> Tensor:
    """The parts of pixels (B, 3, S, S) in boxes (B, 4), enlarged or reduced to `size`, bilinear, corners aligned."""
    last = batch.shape[-1] - 1
    y0, x0, y1, x1 = (boxes[:, k : k + 1].astype(np.float64) for k in range(4))
    steps = np.linspace(0, 1, size)
    rows, columns = y0 + steps * (y1 - 1 - y0), x0 + steps * (x1 - 1 - x0)
    return _sample(batch, 2 * rows / last - 1, 2 * columns / last - 1, aligned=True)


def patches_of(batch: Tensor, boxes: np.ndarray, options: Options) -> Tensor:
    """What the local stream sees of boxes (B, 4) in pixels (B, 3, S, S), (B, 3, P, P).

    With `antialias` a patch is cut as large as the image, or larger, and reduced as whole images are.
    """
    size = options.patch_size
    finer = -(-batch.shape[-1] // size) if options.antialias else 1
    return shown(crop(batch, boxes, finer * size), size)


class Shown(nn.Module):
    """`shown` as the preprocessing of a network: raw RGB (N, 3, S, S), 0-255, to what a stream of `size` takes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, size, size)."""
        return shown(x, self.size)


def _sample(batch: Tensor, rows: np.ndarray, columns: np.ndarray, aligned: bool) -> Tensor:
    count, height, width = len(rows), rows.shape[1], columns.shape[1]
    grid = np.empty((count, height, width, 2), dtype=np.float32)
    grid[..., 0], grid[..., 1] = columns[:, None, :], rows[:, :, None]
    placed = torch.from_numpy(grid).to(batch.device)
    return functional.grid_sample(batch, placed, padding_mode="border", align_corners=aligned)


def shown(batch: Tensor, size: int) -> Tensor:
    """Pixels (B, 3, S, S) as a stream takes them: of `size` pixels, normalised by ImageNet's statistics."""
    if batch.shape[-1] != size:
        smaller = batch.shape[-1] > size
        batch = functional.interpolate(batch, (size, size), mode="bilinear", align_corners=False, antialias=smaller)
    mean, deviation = (torch.tensor(values, device=batch.device).reshape(3, 1, 1) * 255 for values in (MEAN, DEVIATION))
    return ((batch - mean) / deviation).contiguous(memory_format=torch.channels_last)
