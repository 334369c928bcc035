"""The way to torchvision: only jobs that need it import it, and only through here."""

import functools
from typing import Any

from ltpa.core.errors import ModelError


@functools.cache
def torchvision_models() -> Any:
    """The module `torchvision.models`.

    Beside a CPU build of torch the registered operators of torchvision may fail to load, and its import then stops at
    the first of them. Declared without an implementation, they let the pure Python parts load.

    Raises:
        ModelError: torchvision is not installed, or does not load.
    """
    try:
        return _import()
    except RuntimeError:
        _declare_operators()
    except ImportError as error:
        raise ModelError(f"torchvision is not installed ({error}); install it, or use an own trunk") from error
    try:
        return _import()
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"torchvision does not load ({reason}); install one that fits torch") from error


def _import() -> Any:
    from torchvision import models

    return models


@functools.cache
def _declare_operators() -> Any:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # kept: its declarations live as long as it does
