"""Initial weights of trunks: ImageNet by way of torchvision, a local file, or none (`scratch`)."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltpa.core.errors import ModelError
from ltpa.core.hashing import sha256_file
from ltpa.models.families.two_stream import TORCHVISION
from ltpa.models.twostream.trunks import Trunk
from ltpa.models.twostream.vision import torchvision_models

IMAGENET, SCRATCH = "imagenet", "scratch"
_HEADS = ("classifier.", "fc.", "head.", "heads.", "AuxLogits.", "aux1.", "aux2.")
_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})$")


def pretrained(name: str, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors for a trunk called `name`, and facts on where they come from: `source`, `file`, `sha256`.

    `source` is `imagenet`, `scratch` (no tensors), or the path of a `.pth` or `.safetensors` file. A file whose name
    ends in part of its SHA-256, as torchvision's do, is held against it.

    Raises:
        ModelError: there are no such weights, they cannot be fetched, or a file is missing, damaged or unreadable.
    """
    if source == SCRATCH:
        return {}, {"source": SCRATCH, "file": "", "sha256": ""}
    path = _fetch(name) if source == IMAGENET else Path(source)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the weights ({error.strerror}); name a file that is there") from error
    declared = _HASHED_NAME.search(path.stem)
    if declared and not found.startswith(declared[1]):
        raise ModelError(
            f"{path}: its SHA-256 begins with {found[:8]}, not {declared[1]}; delete it and fetch it again"
        )
    return _read(path), {"source": source if source == IMAGENET else "file", "file": path.name, "sha256": found}


def start_trunk(trunk: Trunk, name: str, tensors: dict[str, Tensor], where: str) -> None:
    """Copy pretrained tensors into a trunk; those of classifiers are left out.

    Raises:
        ModelError: they belong to another trunk or width; the message names `where` they come from.
    """
    own = trunk.state_dict()
    usable = {key: value for key, value in tensors.items() if not key.startswith(_HEADS)}
    differing = sorted(
        key for key in own.keys() | usable.keys()
        if not key.endswith("num_batches_tracked")
        and (key not in own or key not in usable or own[key].shape != usable[key].shape)
    )  # fmt: skip
    if differing:
        raise ModelError(
            f"{where}: weights of another trunk than {name} ({len(differing)} tensors differ, first {differing[0]}); "
            "name weights of this trunk at width 1, or set weights: scratch"
        )
    trunk.load_state_dict(usable, strict=False)


def _fetch(name: str) -> Path:
    """The file of torchvision's ImageNet weights, from its cache or its host."""
    models = torchvision_models()
    plain = name.removeprefix(TORCHVISION)
    try:
        weights = models.get_model_weights(plain)["IMAGENET1K_V1"]
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"torchvision has no ImageNet weights for {plain}; name a file, or set weights: scratch"
        ) from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            declared = _HASHED_NAME.search(path.stem)
            torch.hub.download_url_to_file(
                weights.url, str(path), hash_prefix=declared[1] if declared else None, progress=False
            )
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"ImageNet weights of {plain} cannot be fetched ({reason}); put {path.name} at {path}, "
                "or train without them: weights: scratch"
            ) from error
    return path


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{path}: not a readable weight file ({reason}); fetch it again") from error
    except Exception as error:  # the unpickler raises whatever a damaged or foreign file makes it raise
        raise ModelError(f"{path}: not a file of weights ({type(error).__name__}); fetch it again") from error
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path}: holds no mapping of names to tensors; name a state_dict")
    return tensors
