"""Did the networks behind a record learn? One answer for checks, tables and figures."""

import dataclasses
from collections.abc import Mapping

from ltpa.core.records import Record

# By kind of learning: the largest error of a network that learned, as a share of that of guessing. A kind that is left
# out has no limit.
Limits = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trained network errs on its test images, and what guessing errs, in percent.

    `learning` is the kind of its training, which has a limit of its own.
    """

    learning: str
    dataset: str
    variant: str
    seed: int
    error_pct: float
    chance_pct: float

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


def outcomes(record: Record) -> list[Outcome]:
    """The networks that a record's numbers come from; none where it does not tell what they err."""
    if record.stage != "train":
        return [Outcome(**each) for each in record.extra.get("networks", [])]
    values = {metric.name: metric.value for metric in record.metrics}
    error, chance = (values.get(name) for name in ("test_error_pct", "chance_error_pct"))
    if error is None or chance is None:
        return []
    learning = record.extra.get("recipe", {}).get("learning", "cross-entropy")
    return [Outcome(learning, record.dataset, record.variant, record.seed, error, chance)]


def failures(record: Record, limits: Limits) -> list[str]:
    """Those of a record's networks that did not learn, each with its error."""
    return [text for outcome in outcomes(record) if (text := outcome.failure(limits))]
