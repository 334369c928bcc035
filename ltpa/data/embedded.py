"""The embedded datasets: real handwritten digits composed over real textures, made from a stored seed.

Each image has a class, a target mask, a box, and an id that names every source it is made of:
`china-x230-y40-s40+d0012+d1033` is the 40-pixel square of `china.jpg` at (230, 40), digit 12 of `load_digits` as target
(`-` in place of the digit where there is none) and digit 1033 as clutter or neighbour.

A split may declare a number of `groups`: its pool is cut into so many, an image is made of one of them alone, and the
array `groups` says which. Cross-validation keeps a group in one fold.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltpa.core.errors import ConfigError
from ltpa.core.seeds import derive
from ltpa.data.arrays import Split
from ltpa.data.compose import compose
from ltpa.data.corpus import MAX_GROUPS, SCENES, pool
from ltpa.data.style import Style, read_style

_KEYS = ("classes", "image_size", "seed", "style", "splits")


def generate(name: str, declaration: Mapping[str, Any]) -> tuple[list[str], dict[str, Split], dict[str, Any]]:
    """Make the dataset that a declaration of `config/datasets.yaml` describes.

    Each split has its own random stream: changing one leaves the others as they are.

    Returns:
        Class names, splits, and facts for the manifest.

    Raises:
        ConfigError: keys are missing, or options and classes do not fit together.
    """
    source = f"dataset {name}"
    if missing := [key for key in _KEYS if key not in declaration]:
        raise ConfigError(f"{source}: its declaration lacks {', '.join(missing)}; add it to config/datasets.yaml")
    style = read_style(declaration["style"], source)
    size, classes = declaration["image_size"], list(declaration["classes"])
    if not 16 <= size <= 32:
        raise ConfigError(f"{source}: image_size {size}; the embedded images have 16 to 32 pixels")
    expected = style.class_count(len(SCENES))
    if len(classes) != expected:
        raise ConfigError(f"{source}: {len(classes)} class names, but its style has {expected} classes")
    splits = {}
    for split, options in declaration["splits"].items():
        _check_split(f"{source}, split {split}", style, options, expected)
        seed = derive(declaration["seed"], name, split)
        splits[split] = _split(style, options, size, seed)
    facts = {"pools": {split: options["pool"] for split, options in declaration["splits"].items()}}
    return classes, splits, facts


def _check_split(where: str, style: Style, options: Mapping[str, Any], classes: int) -> None:
    groups = options.get("groups", 1)
    if options.keys() - {"groups"} != {"count", "pool"} or options["count"] < classes * groups:
        raise ConfigError(f"{where}: needs a pool, and a count of at least {classes} per group")
    if not 1 <= groups <= MAX_GROUPS:
        raise ConfigError(f"{where}: groups is {groups}; the pools can be cut into 1 to {MAX_GROUPS}")
    if style.background == "scene" and not pool(options["pool"]).scenes:
        raise ConfigError(f"{where}: the scenes lie in the pool 'test'; set pool: test")


def _split(style: Style, options: Mapping[str, Any], size: int, seed: int) -> Split:
    """The images of one split; those of different groups, in a row, share no digit and no pixel of a photograph."""
    source = pool(options["pool"])
    if "groups" not in options:
        return compose(style, source, options["count"], size, seed)
    groups = np.sort(np.arange(options["count"]) % options["groups"])
    parts = [
        compose(style, part, count, size, derive(seed, index)).arrays()
        for index, (part, count) in enumerate(
            zip(source.groups(options["groups"]), np.bincount(groups).tolist(), strict=True)
        )
    ]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Split.from_arrays({**joined, "groups": groups})
