"""Specs: the plain data that fully determines one job's result, apart from its seed.

They travel as JSON (a rule parameter, a command-line argument, a file carried to a bare GPU machine), and the hash of
that JSON is the record's `config_hash`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ltpa.core.errors import ConfigError
from ltpa.core.hashing import canonical_json, digest
from ltpa.core.registry import trust
from ltpa.core.schema import requirement

_REMEDY = "take one of results/<scale>/specs, or name what to run"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What every job knows: its scale, dataset, and the number of threads it computes with.

    `code` names the parts of the package that the job loads by name, such as a reader or the builder of a network, each
    as `package.module:attribute`. With the stage's own module they are the code that its result depends on
    (`ltpa.core.code`).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    scale: str
    dataset: str
    threads: int
    code: list[str] = dataclasses.field(default_factory=list, kw_only=True)

    def to_json(self) -> str:
        """Canonical JSON text; `from_json` of it gives an equal spec."""
        return canonical_json(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec from JSON text, or from a file when `text` is `@path`.

        Raises:
            ConfigError: no such file, not JSON, or keys missing or unknown.
        """
        try:
            source = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
            spec: Self = TypeAdapter(cls).validate_json(source, strict=True)
        except ValidationError as error:
            problems = "; ".join(_text(problem) for problem in error.errors())
            raise ConfigError(f"not a {cls.__name__}: {problems}; {_REMEDY}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"not a {cls.__name__}: {error}; {_REMEDY}") from error
        trust(spec.code)
        return spec

    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return digest(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class PrepareSpec(Spec):
    """Prepare one dataset. `source` is its declaration: a generator with its settings, or archives and a reader."""

    source: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainSpec(Spec):
    """Train one variant on one dataset.

    `architecture` holds the family and every option of the network, `recipe` every setting of the routine. `start`
    names the networks of the same seed to begin with instead of random weights: `dataset`, `variant`, and as `training`
    the hash of the `TrainSpec` they come from.
    """

    variant: str
    architecture: dict[str, Any]
    num_classes: int
    image_size: int
    recipe: dict[str, Any]
    start: dict[str, str] | None = None
    device: str = "cpu"


@dataclasses.dataclass(frozen=True)
class ProtocolSpec(Spec):
    """Measure trained networks of one variant by one protocol (`ltpa.protocols`).

    `file` is empty for the protocols of this package. `training` is the hash of the `TrainSpec` the networks come from.
    `targets` are the datasets evaluated on (`ltpa.protocols.base.Target`), `settings` those of the protocol, `inputs`
    what else its result depends on, `companion` the `variant` and the `training` of the network that it reads besides.
    That is of the same seed, or with two `companion_seeds` of the first of these, and for the first of the second.
    `patches` is the patch source whose boxes it reads; empty for none.
    """

    variant: str
    protocol: str
    training: str
    targets: list[dict[str, Any]]
    settings: dict[str, Any]
    inputs: dict[str, Any]
    companion: dict[str, str] | None = None
    patches: str = ""
    companion_seeds: list[int] = dataclasses.field(default_factory=list)
    file: str = ""
    device: str = "cpu"


def companion_seed(pair: Sequence[int], seed: int) -> int:
    """The seed of the network that is read beside one of `seed`; `pair` as in `ProtocolSpec.companion_seeds`."""
    if not pair:
        return seed
    return pair[1] if seed == pair[0] else pair[0]


@dataclasses.dataclass(frozen=True)
class PatchSpec(Spec):
    """Extract the boxes of one patch source on a dataset; `variant` is the source's name (`config/patches.yaml`).

    `training` is the hash of the `TrainSpec` of the network behind it, empty where there is none. `source` holds what
    is declared of it (`ltpa.core.patches.PatchSource`), `settings` those of the extraction (`PatchSettings`).
    """

    variant: str
    training: str
    source: dict[str, Any]
    settings: dict[str, Any]
    device: str = "cpu"


def _text(problem: Any) -> str:
    """One thing that is wrong with a spec."""
    key = ".".join(map(str, problem["loc"]))
    known = {"missing": "is missing", "unexpected_keyword_argument": "is unknown"}
    return f"{key} {known.get(problem['type'], requirement(problem))}".strip()
