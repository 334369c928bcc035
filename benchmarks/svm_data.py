"""Features and labels for the benchmarks of linear SVMs.

`of_images` takes a prepared dataset: features are rectified responses to whitened patches of its images (Coates and Ng
2011), averaged over quadrants, and the classes those of the images upright and turned by quarters.
"""

import numpy as np
import torch
from torch.nn import functional

from ltpa.data.arrays import PreparedDataset

PATCH = 6


def problem(options):
    """Points (n, d) of unit deviation and labels (n,), as `add_arguments` lets a user ask for."""
    size = (options.points, options.features, options.classes)
    points, labels = of_images(options.images, *size) if options.images else synthetic(*size)
    return points.astype(np.float64) / points.std(), labels


def synthetic(count, features, classes, rank=40):
    """Rectified projections of overlapping clusters in a low-dimensional space, with noise."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(count) % classes)
    points = random.normal(0, 1, (classes, rank))[labels] + 1.8 * random.normal(0, 1, (count, rank))
    projected = points @ random.normal(0, rank**-0.5, (rank, features)) + random.normal(0, 1, (count, features))
    return np.maximum(projected, 0), labels


def patch_filters(images, count):
    """Whitened normalised patches as filters (count, 108), and the mean patch."""
    random = np.random.default_rng(0)
    side = images.shape[1] - PATCH
    places = zip(random.integers(0, len(images), 20_000), *random.integers(0, side, (2, 20_000)), strict=True)
    patches = np.stack([images[i, y : y + PATCH, x : x + PATCH].ravel() for i, y, x in places]).astype(np.float64)
    patches = (patches - patches.mean(1, keepdims=True)) / np.sqrt(patches.var(1, keepdims=True) + 10)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    whiten = vectors / np.sqrt(values + 0.1) @ vectors.T
    filters = (patches[:count] - mean) @ whiten
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    return torch.from_numpy(filters @ whiten).float(), torch.from_numpy(mean).float()


def patch_features(images, filters, mean):
    """Rectified filter responses averaged over quadrants, (N, 4 · filters)."""
    found = []
    for start in range(0, len(images), 200):
        pixels = torch.from_numpy(images[start : start + 200]).permute(0, 3, 1, 2).float()
        side = (pixels.shape[2] - PATCH) // 2 + 1
        columns = functional.unfold(pixels, PATCH, stride=2).transpose(1, 2)
        columns = columns.unflatten(2, (3, PATCH**2)).transpose(2, 3).flatten(2)
        columns = (columns - columns.mean(2, keepdim=True)) / (columns.var(2, unbiased=False, keepdim=True) + 10).sqrt()
        responses = ((columns - mean) @ filters.T - 1).clamp_min(0).transpose(1, 2).unflatten(2, (side, side))
        found.append(functional.adaptive_avg_pool2d(responses, 2).flatten(1).numpy())
    return np.concatenate(found)


def of_images(folder, count, features, classes):
    """Features and labels of a prepared dataset's images, turned for more classes and cropped for more images."""
    pooled = PreparedDataset.open(folder).pooled()
    own = int(pooled.labels.max()) + 1
    turned = np.concatenate([np.rot90(pooled.images, turn, (1, 2)) for turn in range(4)])
    labels = np.concatenate([pooled.labels + own * turn for turn in range(4)])
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(labels < classes))[:count]
    turned, labels = turned[chosen], labels[chosen]
    more = np.random.default_rng(0).permutation(len(labels))[: max(0, count - len(labels))]
    size = turned.shape[1]
    cropped = torch.from_numpy(turned[more][:, 2:-2, 2:-2]).permute(0, 3, 1, 2).float()
    cropped = functional.interpolate(cropped, (size, size), mode="bilinear").permute(0, 2, 3, 1).numpy()
    bank = patch_filters(pooled.images, features // 4)
    found = [patch_features(np.ascontiguousarray(part), *bank) for part in (turned, cropped) if len(part)]
    return np.concatenate(found)[:count], np.concatenate([labels, labels[more]])[:count]
