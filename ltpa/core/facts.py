"""What a result record's `extra` may hold that other jobs read: typed. Further keys are free."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ltpa.core.schema import PLAIN

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

# By kind of learning: the largest error of a network that learned, as a share of that of guessing. A kind that is left
# out has no limit.
Limits = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trained network errs on its test images, and what guessing errs, in percent.

    `learning` is the kind of its training, which has a limit of its own, `computed_on` the kind of machine that trained
    it, `model_sha256` the digest of its file; empty where the record does not hold them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    learning: str
    dataset: str
    variant: str
    seed: int
    error_pct: float
    chance_pct: float
    model_sha256: str = ""
    computed_on: str = ""

    @property
    def share(self) -> float:
        """The error as a share of that of guessing."""
        return self.error_pct / self.chance_pct

    def failure(self, limits: Limits) -> str:
        """Why the network counts as not having learned; empty where it has."""
        limit = limits.get(self.learning)
        if limit is None or self.share <= limit:
            return ""
        return (
            f"{self.variant} on {self.dataset}, seed {self.seed}: test error {self.error_pct:.1f} %, beyond {limit:g} "
            f"of guessing ({self.chance_pct:.1f} %)"
        )


class _Free(BaseModel):
    model_config = ConfigDict(**{**PLAIN, "extra": "allow"})


class PerImage(_Free):
    """A file with a number or more per test image; of `hits.npy`, metric name and condition of each row."""

    sha256: Sha256
    rows: list[tuple[str, str]] = []


class Patches(_Free):
    """The patch boxes that a two-stream network was trained on; source and digest are empty where there are none."""

    source: str
    sha256: str


class Facts(_Free):
    """Facts by key.

    Attributes:
        model_sha256, history_sha256: of `model.safetensors` and `history.csv` beside the record.
        sha256: of `boxes.parquet` beside the record of stage `patches`.
        hits, logits: the files of numbers per image beside the record.
        networks: the networks that a protocol's numbers come from.
        network, network_sha256: the variant behind patch boxes; the network file that they, or an evaluation, come
            from.
        patches: the boxes that a two-stream network sees.
        start: what a training started from, besides its spec.
        protocol: the settings of an evaluation.
        unconverged_fits: number of fits by `target/condition` (`ltpa.core.records.unconverged`).
    """

    model_sha256: Sha256 | None = None
    history_sha256: Sha256 | None = None
    sha256: Sha256 | None = None
    hits: PerImage | None = None
    logits: PerImage | None = None
    networks: list[Outcome] = []
    network: str | None = None
    network_sha256: Sha256 | None = None
    patches: Patches | None = None
    start: dict[str, str] | None = None
    protocol: dict[str, Any] = {}
    unconverged_fits: dict[str, int] = {}
