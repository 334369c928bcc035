"""Two-stream networks on disk, under the same seal as all networks (`ltpa.models.store`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ltpa.core.errors import ModelError
from ltpa.models.store import FORMAT, read_sealed, write_sealed
from ltpa.models.twostream.network import TwoStream, build_twostream

FAMILY = "two-stream"


def save_twostream(
    path: Path, model: TwoStream, variant: str, classes: Sequence[str], extra: Mapping[str, Any] | None = None
) -> None:
    """Write `model` to `path` atomically; equal networks give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    description = {
        "format": FORMAT,
        "family": FAMILY,
        "variant": variant,
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "classes": list(classes),
        "extra": dict(extra or {}),
    }
    write_sealed(path, description, tensors)


def load_twostream(path: Path, expect_variant: str | None = None) -> TwoStream:
    """The network in a file that `save_twostream` wrote, on the CPU in eval mode.

    Raises:
        ModelError: no such file, damaged, not a two-stream network, or of another variant.
    """
    description, tensors = read_sealed(path)
    if description.get("family") != FAMILY:
        raise ModelError(
            f"{path}: holds variant {description.get('variant')}, no two-stream network; name another file"
        )
    if expect_variant is not None and description["variant"] != expect_variant:
        raise ModelError(
            f"{path}: holds variant {description['variant']}, but {expect_variant} was asked for; name another file"
        )
    try:
        with torch.device("meta"):
            model = build_twostream(description["architecture"], description["num_classes"])
        model.load_state_dict(tensors, assign=True)
    except (ModelError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: does not fit this version ({reason}); delete it and train again") from error
    return model.eval()
