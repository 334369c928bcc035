"""Did the networks behind a record learn? One answer for checks, tables and figures."""

from ltpa.core.facts import Limits, Outcome
from ltpa.core.records import Record


def outcomes(record: Record) -> list[Outcome]:
    """The networks that a record's numbers come from; none where it does not tell what they err."""
    if record.stage != "train":
        return [Outcome(**each) for each in record.extra.get("networks", [])]
    values = {metric.name: metric.value for metric in record.metrics}
    error, chance = (values.get(name) for name in ("test_error_pct", "chance_error_pct"))
    if error is None or chance is None:
        return []
    learning = record.extra.get("recipe", {}).get("learning", "cross-entropy")
    network = record.extra.get("model_sha256") or ""
    return [Outcome(learning, record.dataset, record.variant, record.seed, error, chance, network, record.computed_on)]


def failures(record: Record, limits: Limits) -> list[str]:
    """Those of a record's networks that did not learn, each with its error."""
    return [text for outcome in outcomes(record) if (text := outcome.failure(limits))]
