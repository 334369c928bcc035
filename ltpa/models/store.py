"""Model files: weights and everything needed to rebuild the network, in one safetensors file.

The header's only entry, `ltpa`, is JSON: variant, resolved architecture, classes, image size, normalisation scheme, and
a SHA-256 over these and every tensor. Tensors of the normalisation have names that begin with `preprocessing.`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltpa.core.errors import LtpaError, ModelError
from ltpa.core.files import write_bytes
from ltpa.core.hashing import canonical_json, sha256_file
from ltpa.models.base import AttentionClassifier
from ltpa.models.registry import build_model, parse_options

FORMAT = 1
_HEADER = "ltpa"
_RETRAIN = "delete it and train again"


def seal(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of the description and of every tensor's name, type, shape and bytes."""
    state = hashlib.sha256(canonical_json(description).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def save_model(
    path: Path,
    model: AttentionClassifier,
    *,
    variant: str,
    architecture: Mapping[str, Any],
    num_classes: int,
    image_size: int,
    classes: Sequence[str],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` with its preprocessing to `path` atomically; equal models give equal bytes.

    Args:
        path: the file, usually `model.safetensors`.
        model: the network; its weights are stored as they are, whatever device and memory format they have.
        variant: the name it was made under.
        architecture: its resolved architecture.
        num_classes: number of classes.
        image_size: side of its images in pixels.
        classes: the classes' names in the order of the logits.
        extra: further JSON-like facts to carry along (dataset, seed, hashes); `load` returns them in `metadata`.

    Raises:
        ModelError: the arguments do not describe `model`.
        LtpaError: the file cannot be written.
    """
    resolved = parse_options(architecture).plain()
    described = (resolved, num_classes, image_size)
    if described != (model.architecture, model.num_classes, model.image_size) or len(classes) != num_classes:
        raise ModelError(
            f"{path}: will not save a network of {model.num_classes} classes and {model.image_size} px as one of "
            f"{num_classes} classes ({len(classes)} names) and {image_size} px, or under another architecture"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    description = {
        "format": FORMAT,
        "variant": variant,
        "architecture": resolved,
        "num_classes": num_classes,
        "image_size": image_size,
        "classes": list(classes),
        "normalisation": getattr(model.preprocessing, "scheme", None),
        "extra": dict(extra or {}),
    }
    write_sealed(path, description, tensors)


def write_sealed(path: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors (on the CPU, contiguous) and a JSON-like description under one seal, atomically."""
    from safetensors.torch import save

    header = canonical_json({**description, "sha256": seal(description, tensors)})
    write_bytes(path, save(dict(tensors), metadata={_HEADER: header}))


def read_sealed(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a model file whose seal is intact."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            names = file.keys()
            # Copied to addresses of torch's own choosing: how kernels round depends on where their operands begin.
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such model file; run its training first") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a complete safetensors file ({error}); name one that `ltpa train` wrote, or {_RETRAIN}"
        ) from error
    try:
        description = json.loads(header or "")
        expected = description.pop("sha256")
    except (ValueError, AttributeError, KeyError) as error:
        raise ModelError(f"{path}: a safetensors file, but not a model written by ltpa") from error
    if description.get("format") != FORMAT:
        raise ModelError(f"{path}: model format {description.get('format')}, this version reads {FORMAT}; {_RETRAIN}")
    if seal(description, tensors) != expected:
        raise ModelError(
            f"{path}: content does not match its SHA-256 {expected[:12]}... (edited or damaged); {_RETRAIN}"
        )
    return description, tensors


def load(
    path: Path | str,
    expect_variant: str | None = None,
    expect_classes: int | None = None,
    expect_normalisation: str | None = None,
    expect_sha256: str | None = None,
) -> AttentionClassifier:
    """The network in a model file, on the CPU in eval mode, with `preprocessing` and `metadata`.

    Args:
        path: a file that `save_model` wrote.
        expect_variant: refuse a network of another variant.
        expect_classes: refuse a network of another number of classes.
        expect_normalisation: refuse a network with another preprocessing scheme (`ltpa.data.normalise`).
        expect_sha256: refuse any other file than the one with this digest, which its training's record holds.

    Raises:
        ModelError: no such file, truncated, edited, not a model, or not the expected one; the message names both sides.
    """
    path = Path(path)
    description, tensors = read_sealed(path)
    for key, expected in (
        ("variant", expect_variant),
        ("num_classes", expect_classes),
        ("normalisation", expect_normalisation),
    ):
        if expected is not None and description[key] != expected:
            raise ModelError(
                f"{path}: holds {key} {description[key]}, but {expected} was asked for; name another file, or train "
                "that network first"
            )
    if expect_sha256 is not None and sha256_file(path) != expect_sha256:
        raise ModelError(
            f"{path}: not the network that its record tells of (SHA-256 {expect_sha256[:12]}...); "
            "delete both and train again"
        )
    try:
        with torch.device("meta"):
            model = build_model(description["architecture"], description["num_classes"], description["image_size"])
        if description["normalisation"] is not None:
            from ltpa.data.normalise import build_normaliser

            model.preprocessing = build_normaliser(description["normalisation"], description["image_size"])
        model.load_state_dict(tensors, assign=True)
    except (LtpaError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: does not fit this version of the networks ({reason}); {_RETRAIN}") from error
    model.metadata = description
    return model.eval()
