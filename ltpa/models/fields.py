"""Fields of option classes that check their values: each reads plain data, or says what it must be."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltpa.core.declared import near_matches
from ltpa.core.errors import ModelError

READ = "read"


def choice(*allowed: str) -> Any:
    """A field that is one of `allowed`, the first by default."""

    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be {quoted(allowed)}")
        return str(value)

    return _field(allowed[0], read)


def number(default: float, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf) -> Any:
    """A field that is a finite number within limits."""
    limits = [f"greater than {above:g}"] if above > -math.inf else []
    limits += [f"at least {at_least:g}"] if at_least > -math.inf else []
    limits += [f"at most {at_most:g}"] if at_most < math.inf else []

    def read(value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or not above < value or not at_least <= value <= at_most:
            raise ValueError(f"must be a number {' and '.join(limits)}")
        return float(value)

    return _field(default, read)


def whole(default: int, at_least: int) -> Any:
    """A field that is a whole number of at least `at_least`."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise ValueError(f"must be a whole number of at least {at_least}")
        return value

    return _field(default, read)


def switch(default: bool) -> Any:
    """A field that is true or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value

    return _field(default, read)


def ordered(default: Sequence[str], order: Sequence[str], at_least: int = 0) -> Any:
    """A field that lists some of `order`, in that order."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or len(value) < at_least or any(item not in order for item in value):
            raise ValueError(f"must be a list of at least {at_least} of {quoted(order)}")
        if list(value) != [item for item in order if item in value]:
            raise ValueError(f"must be in order from input to output, each once: {quoted(order)}")
        return tuple(value)

    return _field(tuple(default), read)


def text(default: str) -> Any:
    """A field that is text."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be text")
        return value

    return _field(default, read)


def read_fields(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The checked `values` of the fields of `kind`; fields that do not check (without `READ`) are left out.

    Raises:
        ModelError: an unknown field, or a value that is not possible; the message begins with `where`.
    """
    readers = {field.name: field.metadata.get(READ) for field in dataclasses.fields(kind)}
    found = {}
    for key, value in values.items():
        if key not in readers:
            raise ModelError(f"{where} has no option {key!r}: {near_matches(key, readers)}")
        read = readers[key]
        if read is None:
            continue
        try:
            found[key] = read(value)
        except ValueError as error:
            raise ModelError(f"{where}: {key} = {value!r}: {error}") from error
    return found


def quoted(names: Sequence[str]) -> str:
    """`'a', 'b' or 'c'`."""
    texts = [repr(name) for name in names]
    return f"{', '.join(texts[:-1])} or {texts[-1]}" if len(texts) > 1 else texts[0]


def _field(default: Any, read: Callable[[Any], Any]) -> Any:
    return dataclasses.field(default=default, metadata={READ: read})
