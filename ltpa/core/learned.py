"""Did the networks behind a record learn? One answer for checks, tables and figures."""

from ltpa.core.facts import Limits, Outcome
from ltpa.core.records import Record


def outcomes(record: Record) -> list[Outcome]:
    """The networks that a record's numbers come from; none where it does not tell what they err."""
    values = {(metric.name, metric.condition): metric.value for metric in record.metrics}
    if record.stage == "train":
        errors = [values.get((name, "")) for name in ("test_error_pct", "chance_error_pct")]
    elif record.stage == "finegrained":
        accuracies = (values.get(key) for key in (("mean_n_accuracy_pct", "joint"), ("chance_accuracy_pct", "")))
        errors = [None if accuracy is None else 100 - accuracy for accuracy in accuracies]
    else:
        return [Outcome(**each) for each in record.extra.get("networks", [])]
    error, chance = errors
    if error is None or chance is None:
        return []
    network = record.extra.get("model_sha256") or ""
    return [Outcome(record.stage, record.dataset, record.variant, record.seed, error, chance, network)]


def failures(record: Record, limits: Limits) -> list[str]:
    """Those of a record's networks that did not learn, each with its error."""
    return [text for outcome in outcomes(record) if (text := outcome.failure(limits))]
