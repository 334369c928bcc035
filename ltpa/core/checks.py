"""What the checks of a scale's own results find."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ltpa.core.records import Record, metric_value


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: `value` (None where there is nothing to measure) against `limit`, and in words what was found.

    `seeds` gives what was found of each seed, where seeds are judged one by one. A check that is not `required` and
    does not pass is reported as not shown; it fails no run.
    """

    check: str
    subject: str
    value: float | None
    limit: str
    passed: bool
    detail: str
    seeds: tuple[dict[str, Any], ...] = ()
    required: bool = True

    @property
    def fails(self) -> bool:
        """Whether the run fails for it."""
        return self.required and not self.passed


def mean(records: Sequence[Record], name: str, condition: str | None = None) -> float:
    """Mean of a metric over records.

    Raises:
        RecordError: a record lacks it.
    """
    return sum(metric_value(record, name, condition=condition) for record in records) / len(records)
