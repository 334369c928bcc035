"""Archive declarations of the datasets in `config/`, typed.

`nested` lists members that are archives themselves (`.zip`, `.tar`, `.tar.gz`, `.tgz`); their members appear below the
folder that the nested archive lies in, and `members` selects among those full names.
`insecure: true` admits `http://` URLs, listed after the `https://` ones; `ltpa.archives.fetch` says when they are used.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ltpa.core.errors import ConfigError

PLAIN = ("mat", "file")
_Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+/\S+$")]
_Limit = Annotated[int, Field(ge=1, le=2**50)]  # a petabyte fits no disk here
_Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)]


class Archive(BaseModel):
    """One file to download, and what may be taken out of it.

    Attributes:
        name: file name under which it is stored; unique among the archives of one folder.
        urls: where it can be had, in order of preference; all `https` before any `http`.
        kind: container format; `mat` and `file` are plain files, taken as they are.
        size: bytes; None where unknown.
        sha256: hex digest; None where none is published.
        md5: hex digest, used beside `sha256` or where that is unknown.
        limit_files: most files the extraction may write (plain files: one).
        limit_bytes: most bytes the extraction may write.
        members: `fnmatch` patterns, case-sensitive, of the member names to extract; `*` also matches `/`.
        nested: patterns of members that are archives to be extracted in their turn.
        insecure: whether `urls` has `http` addresses.
        optional: whether the dataset is complete without it; left to the caller.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    urls: Annotated[list[_Url], Field(min_length=1, max_length=100)]
    kind: Literal["tar.gz", "tar", "zip", "rar", "mat", "file"]
    size: _Limit | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    limit_files: _Limit | None = None
    limit_bytes: _Limit | None = None
    members: _Patterns | None = None
    nested: _Patterns | None = None
    insecure: bool = False
    optional: bool = False

    @property
    def hashed(self) -> bool:
        """Whether a checksum is declared."""
        return self.sha256 is not None or self.md5 is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        plain = [url.startswith("http://") for url in self.urls]
        if any(plain) != self.insecure:
            raise ValueError("'insecure: true' goes with http:// URLs, and only with them")
        if plain != sorted(plain):
            raise ValueError("https:// URLs must stand before http:// ones")
        if self.kind in PLAIN and self.nested:
            raise ValueError(f"kind {self.kind} is a plain file, so 'nested' makes no sense")
        if self.kind not in PLAIN and None in (self.limit_files, self.limit_bytes, self.members):
            raise ValueError("an archive needs limit_files, limit_bytes and members")
        return self


def parse_archives(dataset: str, declaration: dict[str, Any]) -> list[Archive]:
    """The `archives` of a dataset's declaration, in its order.

    Raises:
        ConfigError: a key is missing, unknown or wrong, or two archives share a name.
    """
    archives = []
    for position, values in enumerate(declaration.get("archives") or []):
        name = values.get("name", position) if isinstance(values, dict) else position
        try:
            archives.append(Archive.model_validate(values))
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "(entry)"
            text = problem["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"config/datasets: {dataset}, archive {name}, key {key!r}: {text}; correct it there"
            ) from error
    names = [archive.name for archive in archives]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"config/datasets: {dataset} declares archive {name} twice; name each once")
    return archives
