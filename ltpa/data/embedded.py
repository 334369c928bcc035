"""The embedded datasets: real handwritten digits composed over real textures, made from a stored seed.

Each image has a class, a target mask, a box, and an id that names every source it is made of:
`china-x230-y40-s40+d0012+d1033` is the 40-pixel square of `china.jpg` at (230, 40), digit 12 of `load_digits` as target
(`-` in place of the digit where there is none) and digit 1033 as clutter or neighbour.
"""

from collections.abc import Mapping
from typing import Any

from ltpa.core.errors import ConfigError
from ltpa.core.seeds import derive
from ltpa.data.arrays import Split
from ltpa.data.compose import compose
from ltpa.data.corpus import SCENES, pool
from ltpa.data.style import read_style

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
        if options.keys() != {"count", "pool"} or options["count"] < expected:
            raise ConfigError(f"{source}, split {split}: needs a pool, and a count of at least {expected}")
        if style.background == "scene" and options["pool"] != "test":
            raise ConfigError(f"{source}, split {split}: the scenes lie in the pool 'test'; set pool: test")
        seed = derive(declaration["seed"], name, split)
        splits[split] = compose(style, pool(options["pool"]), options["count"], size, seed)
    facts = {"pools": {split: options["pool"] for split, options in declaration["splits"].items()}}
    return classes, splits, facts
