"""Model files: weights and everything needed to rebuild the network, in one safetensors file.

The header's only entry, `ltpa`, is JSON: variant, resolved architecture, classes, image size, normalisation scheme, and
a SHA-256 over these and every tensor. Tensors of the normalisation have names that begin with `preprocessing.`.

A file is trusted with nothing: its facts are checked by a schema, its tensors against those of the network that the
facts describe, and its bytes against the SHA-256, in this order, before memory is spent on them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltpa.core.errors import LtpaError, ModelError
from ltpa.core.files import write_bytes
from ltpa.core.hashing import canonical_json, sha256_file
from ltpa.models.base import AttentionClassifier
from ltpa.models.header import FORMAT, describe, parse_header
from ltpa.models.registry import parse_options
from ltpa.models.tensorfile import Stored, TensorFile, difference

_HEADER = "ltpa"


def seal(
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor | Stored],
    blocks: Callable[[str], Iterable[bytes | memoryview]],
) -> str:
    """SHA-256 (hex) of the description and of every tensor's name, type, shape and bytes, which `blocks` gives."""
    state = hashlib.sha256(canonical_json(description).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        for block in blocks(name):
            state.update(block)
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
        model: the network, in float32; whatever device and memory format its weights have.
        variant: the name it was made under.
        architecture: its resolved architecture.
        num_classes: number of classes.
        image_size: side of its images in pixels.
        classes: the classes' names in the order of the logits.
        extra: further JSON-like facts to carry along (dataset, seed, hashes); `load` returns them in `metadata`.

    Raises:
        ModelError: the arguments do not describe `model`, or nothing that `load` would read.
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
    try:
        problem = difference(tensors, describe(description).network().state_dict())
    except ModelError as error:
        raise ModelError(f"{path}: will not save this network ({error})") from error
    if problem:
        raise ModelError(f"{path}: will not save this network ({problem})")
    write_sealed(path, description, tensors)


def check_savable(normalisation: str | None, **facts: Any) -> None:
    """Refuse before a training what `save_model`, given the same `facts`, would refuse after it.

    Raises:
        ModelError: the first fact that is wrong.
    """
    describe({"format": FORMAT, "normalisation": normalisation, **facts}).network()


def write_sealed(path: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors (on the CPU, contiguous) and a JSON-like description under one seal, atomically."""
    from safetensors.torch import save

    sealed = seal(description, tensors, lambda name: [tensors[name].reshape(-1).view(torch.uint8).numpy().data])
    header = canonical_json({**description, "sha256": sealed})
    write_bytes(path, save(dict(tensors), metadata={_HEADER: header}))


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
        ModelError: no such file, truncated, edited, not a model, or not the expected one; the message names the file
            and what is wrong with it.
    """
    path = Path(path)
    file = TensorFile(path)
    description, sealed = _read_header(file)
    for key, expected in (
        ("variant", expect_variant),
        ("num_classes", expect_classes),
        ("normalisation", expect_normalisation),
    ):
        if expected is not None and description.get(key) != expected:
            raise file.refused(
                f"holds {key} {description.get(key)}, but {expected} was asked for",
                "name another file, or train that network first",
            )
    try:
        facts = describe(description)
    except ModelError as error:
        raise file.refused(error) from error
    try:
        model = facts.network()
    except (LtpaError, RuntimeError) as error:  # torch's errors are those of trunks that it cannot build
        reason = " ".join(str(error).split())
        raise file.refused(f"does not fit this version of the networks ({reason})") from error
    file.check(model.state_dict())
    if seal(description, file.tensors, file.blocks) != sealed:
        raise file.refused(f"content does not match its SHA-256 {sealed[:12]}... (edited or damaged)")
    if expect_sha256 is not None and sha256_file(path) != expect_sha256:
        raise ModelError(
            f"{path}: not the network that its record tells of (SHA-256 {expect_sha256[:12]}...); "
            "delete both and train again"
        )
    if facts.normalisation is not None:  # with its constants, which no file holds
        from ltpa.data.normalise import build_normaliser

        model.preprocessing = build_normaliser(facts.normalisation, facts.image_size)
    model.load_state_dict({name: file.read(name) for name in file.tensors}, assign=True)
    model.metadata = description
    return model.eval()


def _read_header(file: TensorFile) -> tuple[dict[str, Any], str]:
    """The facts in a file's header, not yet checked by the schema, and the SHA-256 beside them."""
    if _HEADER not in file.metadata:
        raise file.refused("a safetensors file, but not a model written by ltpa", "name one that `ltpa train` wrote")
    try:
        description = parse_header(file.metadata[_HEADER])
    except ValueError as error:
        raise file.refused(f"its header cannot be read ({error})") from error
    sealed = description.pop("sha256")
    if description.get("format") != FORMAT:
        raise file.refused(f"model format {description.get('format')!r}, this version reads {FORMAT}")
    return description, sealed
