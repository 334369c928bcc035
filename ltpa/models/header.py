"""What the file of a network says of it: a schema with limits, and the network that it describes, without memory."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import AfterValidator, FailFast, Field

from ltpa.core.errors import ModelError
from ltpa.core.hashing import canonical_json
from ltpa.core.schema import PlainData, read_plain
from ltpa.data.schemes import SCHEMES
from ltpa.models.registry import build_model, parse_options
from ltpa.models.tensorfile import MAX_FILE
from ltpa.models.variants import check_named

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

FORMAT = 1
MAX_CLASSES = 65_536
_MAX_TEXT = 10_000  # characters of all but the classes and `extra`
_FREE = ("classes", "extra")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]  # also that of a folder
Label = Annotated[str, Field(min_length=1, max_length=200)]


def _known_scheme(name: str | None) -> str | None:
    if name is not None and name not in SCHEMES:
        raise ValueError(f"must be one of {', '.join(SCHEMES)}")
    return name


class Description(PlainData):
    """The header's facts.

    Attributes:
        format: of the file.
        variant: the name that the network was made under.
        architecture: every option of the network.
        classes: their names, in the order of the logits.
        image_size: side of the images in pixels.
        normalisation: scheme of the preprocessing, or None for networks that bring their own.
        extra: what else the file carries along.
    """

    format: Literal[1]
    variant: Name
    architecture: dict[str, Any]
    num_classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    image_size: Annotated[int, Field(ge=1)]
    classes: Annotated[list[Label], FailFast(), Field(max_length=MAX_CLASSES)]
    normalisation: Annotated[str | None, AfterValidator(_known_scheme)]
    extra: dict[str, Any]

    def network(self) -> "AttentionClassifier":
        """The network with its preprocessing on the meta device: shapes and no memory.

        Raises:
            ModelError: it is not possible, not the variant that it is called, or larger than a file may be.
        """
        from ltpa.data.normalise import build_normaliser

        if len(self.classes) != self.num_classes:
            raise ModelError(f"num_classes is {self.num_classes}, and classes are {len(self.classes)} names")
        check_named(self.variant, parse_options(self.architecture))
        with torch.device("meta"):
            model = build_model(self.architecture, self.num_classes, self.image_size)
            if self.normalisation is not None:
                model.preprocessing = build_normaliser(self.normalisation, self.image_size)
        size = sum(tensor.numel() * tensor.itemsize for tensor in model.state_dict().values())
        if size > MAX_FILE:
            raise ModelError(
                f"the network takes {size} bytes, {self.normalisation} preprocessing of {self.image_size} px included, "
                f"and a file at most {MAX_FILE}"
            )
        return model


def describe(values: Mapping[str, Any]) -> Description:
    """Facts against the schema; whatever is wrong is found before much memory is spent on it.

    Raises:
        ModelError: the first key that is wrong, and what it must be.
    """
    rest = canonical_json({key: value for key, value in values.items() if key not in _FREE})
    if len(rest) > _MAX_TEXT:
        raise ModelError(f"{len(rest)} characters beside classes and extra; at most {_MAX_TEXT} are read")
    return read_plain(Description, values, "header", ModelError)


def parse_header(text: str) -> dict[str, Any]:
    """The plain data of a header's JSON, its `sha256` included.

    Raises:
        ValueError: not JSON, not a mapping, a key that stands twice, numbers that JSON has not, or text that is no
            Unicode.
    """
    try:
        values = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse)
        canonical_json(values).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(values, dict) or not isinstance(values.get("sha256"), str):
        raise ValueError("no mapping with the key sha256")
    return values


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number")
