"""The networks of the benchmark: attention, VGG and ResNet families, their registry and their files.

Names are imported on first use, so that reading the list of variants does not load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier
    from ltpa.models.prune import prune_dead_branch
    from ltpa.models.registry import build_model
    from ltpa.models.starting import warm_start
    from ltpa.models.store import load, save_model
    from ltpa.models.variants import Variant, create_model, get_variant, list_models, resolve_architecture

__all__ = [
    "AttentionClassifier",
    "Variant",
    "build_model",
    "create_model",
    "get_variant",
    "list_models",
    "load",
    "prune_dead_branch",
    "resolve_architecture",
    "save_model",
    "warm_start",
]

_HOME = {
    "AttentionClassifier": "base",
    "Variant": "variants",
    "build_model": "registry",
    "create_model": "variants",
    "get_variant": "variants",
    "list_models": "variants",
    "load": "store",
    "prune_dead_branch": "prune",
    "resolve_architecture": "variants",
    "save_model": "store",
    "warm_start": "starting",
}


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"ltpa.models.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ltpa.models' has no attribute {name!r}")
