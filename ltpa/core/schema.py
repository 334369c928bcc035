"""Plain data against a pydantic model: the base of every such model, and one line for what is wrong."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError, LtpaError

# What pydantic says in the words of its own types, in plain words; the rest of its messages stay as they are.
_MUST_BE = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


PLAIN = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Items = TypeVar("Items", bound=Sequence[Any])


def once_each(values: Items) -> Items:
    """For lists that must not name anything twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands twice; name each once")
    return values


class PlainData(BaseModel):
    """Frozen, without conversion between types, without unknown keys, and with finite numbers only."""

    model_config = PLAIN


Model = TypeVar("Model", bound=BaseModel)
Read = TypeVar("Read")
Item = TypeVar("Item")


def _no_text(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list")
    return value


# A tuple that plain data gives as a list; its items are not converted.
ListOf = Annotated[tuple[Item, ...], Strict(False), BeforeValidator(_no_text)]


def read_plain(
    model: type[Model], values: Any, where: str, error: type[LtpaError] = ConfigError, remedy: str = ""
) -> Model:
    """`values` as a `model`.

    Raises:
        LtpaError: of the kind `error`: `where`, the first key that is wrong, its value, and what it must be; `remedy`
            is added at the end.
    """
    if not isinstance(values, Mapping):
        raise error(f"{where}: is {values!r}; it must be a mapping of {', '.join(model.model_fields)}")
    try:
        return model.model_validate(dict(values))
    except ValidationError as problems:
        raise error(f"{where}: {_first(problems, model)}{remedy}") from problems


def read_json(
    model: type[Read], values: Any, where: str, error: type[LtpaError] = ConfigError, remedy: str = ""
) -> Read:
    """Plain JSON as a `model`, which may be a dataclass, too: lists become tuples, nothing else is converted.

    Raises:
        LtpaError: as `read_plain`.
    """
    kind: Any = model
    try:
        read: Read = _adapter(kind).validate_json(json.dumps(values, allow_nan=False), strict=True)
        return read
    except ValidationError as problems:
        raise error(f"{where}: {_first(problems, model)}{remedy}") from problems
    except ValueError as problem:  # not JSON: NaN, or text that is no Unicode
        raise error(f"{where}: {problem}{remedy}") from problem


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _first(problems: ValidationError, model: type) -> str:
    """The first of the problems, and how many there are besides."""
    first, *others = problems.errors()
    more = f" (and {len(others)} more)" if others else ""
    return f"{_describe(first, model)}{more}"


def requirement(problem: Any) -> str:
    """What a value must be, in plain words, from one of pydantic's error details."""
    if problem["type"] in _MUST_BE:
        return f"must be {_MUST_BE[problem['type']].format_map(problem.get('ctx', {}))}"
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
    return " ".join(f"{text[0].lower()}{text[1:]}".split())


def _describe(problem: Any, model: type) -> str:
    location, kind, value = problem["loc"], problem["type"], problem["input"]
    key = ".".join(map(str, location))
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        unknown = str(location[-1])
        return f"unknown key {unknown!r}; {near_matches(unknown, _keys_at(model, location))} (at {key!r})"
    if kind == "missing":
        return f"key {key!r} is missing; add it"
    text = requirement(problem)
    if not location:  # keys that are each possible, but not together
        return text
    if kind == "float_type" and isinstance(value, str):
        text += " (YAML reads 1e-4 as text; write 1.0e-4)"
    if kind == "literal_error" and isinstance(value, str):
        close = near_matches(value, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
        text += f"; {close}" if close.startswith("did") else ""
    given = "" if kind == "value_error" and isinstance(value, dict) else f" is {value!r}"  # the text names what of it
    return f"key {key!r}{given}: {text}"


def _keys_at(model: type, location: tuple[int | str, ...]) -> list[str]:
    """Keys that may stand where the last one of `location` does; list positions and free keys are passed over."""
    kind: Any = model
    for part in location[:-1]:
        kind = next(_records_in(get_type_hints(kind, include_extras=True).get(str(part))), kind)
    return list(getattr(kind, "model_fields", kind.__annotations__))


def _records_in(annotation: Any) -> Iterator[Any]:
    """The models, dataclasses and typed dictionaries in an annotation."""
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or is_typeddict(annotation) or dataclasses.is_dataclass(annotation)
    ):
        yield annotation
    for part in get_args(annotation):
        yield from _records_in(part)
