"""Did the networks behind a record learn? One answer for checks, tables and figures."""

import dataclasses
from collections.abc import Mapping

from ltpa.core.records import Record, metric_value

Limits = Mapping[str, float]  # by stage, `train` or `finegrained`: the largest error, as a share of that of guessing


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trained network errs on its test images, and what guessing errs, in percent; `stage` tells its limit."""

    stage: str
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
        limit = limits[self.stage]
        if self.share <= limit:
            return ""
        return (
            f"{self.variant} on {self.dataset}, seed {self.seed}: test error {self.error_pct:.1f} %, beyond {limit:g} "
            f"of guessing ({self.chance_pct:.1f} %)"
        )


def outcomes(record: Record) -> list[Outcome]:
    """The networks that a record's numbers come from; none where its stage looks at no classifier.

    Raises:
        LtpaError: a record of training or of a two-stream network lacks its error.
    """
    if record.status != "ok":
        return []
    if record.stage == "train":
        errors = [metric_value(record, "test_error_pct"), metric_value(record, "chance_error_pct")]
    elif record.stage == "finegrained":
        errors = [
            100 - metric_value(record, "mean_n_accuracy_pct", condition="joint"),
            100 - metric_value(record, "chance_accuracy_pct"),
        ]
    else:
        return [Outcome(**each) for each in record.extra.get("networks", [])]
    return [Outcome(record.stage, record.dataset, record.variant, record.seed, *errors)]


def failures(record: Record, limits: Limits) -> list[str]:
    """Those of a record's networks that did not learn, each with its error."""
    return [text for outcome in outcomes(record) if (text := outcome.failure(limits))]
