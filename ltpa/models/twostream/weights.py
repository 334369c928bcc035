"""Initial weights of trunks: ImageNet by way of torchvision, a local file, or none (`scratch`)."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltpa.core.errors import ModelError
from ltpa.core.hashing import sha256_file
from ltpa.core.text import shortened
from ltpa.models.families.two_stream import TORCHVISION
from ltpa.models.tensorfile import Stored, TensorFile
from ltpa.models.twostream.trunks import Trunk
from ltpa.models.twostream.vision import torchvision_models

IMAGENET, SCRATCH = "imagenet", "scratch"
_HEADS = ("classifier.", "fc.", "head.", "heads.", "AuxLogits.", "aux1.", "aux2.")
_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})$")


def start_trunk(trunk: Trunk, name: str, source: str) -> dict[str, str]:
    """Give the trunk called `name` its initial weights, and give facts on where they come from: `source`, `file`,
    `sha256`.

    `source` is `imagenet`, `scratch` (the weights stay as they are), or the path of a `.pth` or `.safetensors` file,
    whose tensors are read once their names and shapes have been compared with the trunk's. Those of classifiers are
    left out. A file whose name ends in part of its SHA-256, as torchvision's do, must have it.

    Raises:
        ModelError: there are no such weights, they cannot be fetched, a file is missing, damaged or unreadable, or it
            belongs to another trunk or width.
    """
    if source == SCRATCH:
        return {"source": SCRATCH, "file": "", "sha256": ""}
    path = _fetch(name) if source == IMAGENET else Path(source)
    found = _sha256(path)
    declared = _HASHED_NAME.search(path.stem)
    if declared and not found.startswith(declared[1]):
        raise ModelError(
            f"{path}: its SHA-256 begins with {found[:8]}, not {declared[1]}; delete it and fetch it again"
        )
    file = TensorFile(path) if path.suffix == ".safetensors" else None
    held: Mapping[str, Tensor | Stored] = file.tensors if file else _unpickled(path)
    own = trunk.state_dict()
    usable = {key: value for key, value in held.items() if not key.startswith(_HEADS)}
    differing = sorted(
        key for key in own.keys() | usable.keys()
        if not key.endswith("num_batches_tracked")
        and (key not in own or key not in usable or own[key].shape != usable[key].shape
             or not usable[key].dtype.is_floating_point)
    )  # fmt: skip
    if differing:
        raise ModelError(
            f"{path}: weights of another trunk than {name} ({len(differing)} tensors differ, first "
            f"{shortened(differing[0])}); name weights of this trunk at width 1, or set weights: scratch"
        )
    trunk.load_state_dict({key: file.read(key) if file else value for key, value in usable.items()}, strict=False)
    return {"source": source if source == IMAGENET else "file", "file": path.name, "sha256": found}


def _sha256(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path}: cannot read the weights (a folder, pipe or device); name a file")
        return sha256_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the weights ({error.strerror}); name a file that is there") from error


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


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch wrote, mapped from it where its format allows: none is larger than the file."""
    try:
        mapped = zipfile.is_zipfile(path)
        if mapped and any(member.compress_type for member in zipfile.ZipFile(path).infolist()):
            raise ValueError("compressed, as torch never writes it")
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{path}: not a readable weight file ({reason}); fetch it again") from error
    except Exception as error:  # the unpickler raises whatever a damaged or foreign file makes it raise
        raise ModelError(f"{path}: not a file of weights ({type(error).__name__}); fetch it again") from error
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path}: holds no mapping of names to tensors; name a state_dict")
    return tensors
