"""Saliency maps that no network made, as controls beside attention: boolean maps, spectral residual, a centre prior.

Each function takes images (N, H, W, 3) uint8 and gives maps (N, H, W) float64, at least 0.
"""

import numpy as np
from scipy import ndimage

_THRESHOLD_STEP = 8  # of 256 levels
_BOOLEAN_BLUR = 0.03  # deviation as a share of the image's side
_RESIDUAL_BLUR = 0.04
_CENTRE_WIDTH = 0.25
_ACROSS = np.zeros((3, 3, 3), dtype=bool)
_ACROSS[1] = True  # neighbours within one map, none between maps of a stack


def centre_prior(images: np.ndarray) -> np.ndarray:
    """A Gaussian in the middle of the image with a deviation of a quarter of its sides, the same for every image."""
    height, width = images.shape[1:3]
    rows, columns = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (_CENTRE_WIDTH * side)) ** 2) for side in (height, width)
    )
    return np.broadcast_to(np.outer(rows, columns), images.shape[:3]).copy()


def spectral_residual(images: np.ndarray) -> np.ndarray:
    """Hou and Zhang (CVPR 2007): what the log spectrum of the grey image has beyond its local mean, back in pixels.

    The mean is over 3 x 3 frequencies; the squared result is blurred by a Gaussian of 4 % of the side.
    """
    grey = images.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    spectrum = np.fft.fft2(grey)
    logs = np.log(np.abs(spectrum) + np.finfo(np.float32).eps)
    residual = logs - ndimage.uniform_filter(logs, size=(1, 3, 3), mode="wrap")
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    return _blurred(np.abs(back) ** 2, _RESIDUAL_BLUR)


def boolean_maps(images: np.ndarray) -> np.ndarray:
    """Zhang and Sclaroff (ICCV 2013): regions that a threshold separates from the border, over many thresholds.

    Each channel of CIELAB is stretched to 0-255 and cut at every eighth level; of either side of the cut, regions that
    do not touch the border (8 neighbours) are surrounded. The maps of surrounded regions, each divided by its Euclidean
    norm, are averaged and blurred. The paper's opening and dilation by a few pixels of a 400 pixel wide image are less
    than a pixel at the sizes used here and left out.
    """
    return _blurred(np.stack([_boolean_map(image) for image in images]), _BOOLEAN_BLUR)


CONTROLS = {"boolean_maps": boolean_maps, "spectral_residual": spectral_residual, "centre": centre_prior}


def _boolean_map(image: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2lab

    channels = rgb2lab(image).transpose(2, 0, 1)
    low = channels.min(axis=(1, 2), keepdims=True)
    span = channels.max(axis=(1, 2), keepdims=True) - low
    levels = 255 * (channels - low) / np.where(span > 0, span, 1)
    above = (levels[:, None] > np.arange(0, 255, _THRESHOLD_STEP)[:, None, None]).reshape(-1, *image.shape[:2])
    sides = np.concatenate([above, ~above])
    regions, count = ndimage.label(sides, structure=_ACROSS)
    surrounding = np.ones(count + 1, dtype=bool)
    surrounding[0] = False
    for edge in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        surrounding[edge] = False
    surrounded = surrounding[regions].astype(np.float64)
    norms = np.sqrt(surrounded.sum(axis=(1, 2), keepdims=True))
    return (surrounded / np.maximum(norms, 1)).mean(axis=0)


def _blurred(maps: np.ndarray, share: float) -> np.ndarray:
    height, width = maps.shape[1:]
    return ndimage.gaussian_filter(maps, sigma=(0, share * height, share * width), mode="nearest")
