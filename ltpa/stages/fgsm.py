"""Fast gradient sign attack on the test split of each target (paper section 5.2, figure 6), and beyond it.

Targets are `{"name"}`. Protocol keys: those of `FgsmSettings`; `pgd`, the keys of `PgdSettings` or null for no iterated
attack; `transferred`, `{"variant", "training"}` of the network whose perturbations are tried on this one, or null.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltpa.core import layout
from ltpa.core.errors import ConfigError, RecordError
from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.fgsm import AttackResult, FgsmSettings, attack
from ltpa.evaluation.pgd import PgdSettings, attack_iterated
from ltpa.stages.common import Measurement, evaluate_each, read_settings, trained_network

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

_BEYOND = ("pgd", "transferred")


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Attack the network of each seed and write its record.

    Raises:
        ConfigError: a setting is wrong.
        RecordError: the network whose perturbations are transferred was not trained.
    """
    for seed in seeds:
        source, reason = _source(spec, results, seed)
        evaluate_each(
            __name__, spec, results, [seed], functools.partial(measure, spec, source=source, no_source=reason)
        )


def _source(spec: EvaluationSpec, results: Path, seed: int) -> "tuple[AttentionClassifier | None, str]":
    """The network of the same seed whose perturbations are transferred, or None and why there is none."""
    declared: dict[str, str] | None = spec.protocol.get("transferred")
    if declared is None:
        return None, "not asked for"
    try:
        variant, training = declared["variant"], declared["training"]
    except KeyError as error:
        raise ConfigError(f"fgsm: transferred lacks {error}; give variant and training") from error
    try:
        trained = trained_network(results, spec.dataset, variant, seed, training)
    except RecordError as error:
        raise RecordError(
            f"{error}; the perturbations of {variant} are tried on {spec.variant}: train it first, or set "
            "protocols.fgsm.transferred to {}"
        ) from error
    if trained.status != "ok":
        return None, f"training of {variant} failed: {trained.reason}"
    from ltpa.models import load

    folder = layout.run_dir(results, "train", spec.dataset, variant, seed)
    return load(folder / layout.MODEL, expect_variant=variant), ""


def measure(
    spec: EvaluationSpec,
    model: "AttentionClassifier",
    datasets: list[PreparedDataset],
    folder: Path,
    source: "AttentionClassifier | None" = None,
    no_source: str = "not asked for",
) -> Measurement:
    """Fooling rate over all test images, and accuracy, for each attack and epsilon (condition `eps=1`).

    Perturbations made against `source` are tried on `model` where it is given; `no_source` says why it is not.
    """
    settings = read_settings(
        FgsmSettings, "fgsm", {key: value for key, value in spec.protocol.items() if key not in _BEYOND}
    )
    declared = spec.protocol.get("pgd")
    pgd = None if declared is None else read_settings(PgdSettings, "fgsm: pgd", declared)
    if source is not None:
        source.to(next(model.parameters()).device)
    metrics: list[Metric] = []
    facts: dict[str, dict[str, Any]] = {"clean_accuracy_pct": {}, "zero_gradient_images": {}}
    for dataset in datasets:
        test = dataset.split("test")
        found = attack(model, test.images, test.labels, settings)
        metrics += _metrics(found, dataset.name, len(test), "fooling_rate_pct", "adversarial_accuracy_pct")
        facts["clean_accuracy_pct"][dataset.name] = found.clean_accuracy_pct
        facts["zero_gradient_images"][dataset.name] = found.zero_gradients
        if source is not None:
            found = attack(model, test.images, test.labels, settings, source)
            names = ("transferred_fooling_rate_pct", "transferred_accuracy_pct")
            metrics += _metrics(found, dataset.name, len(test), *names)
        if pgd is not None:
            found = attack_iterated(model, test.images, test.labels, settings, pgd)
            metrics += _metrics(found, dataset.name, len(test), "pgd_fooling_rate_pct", "pgd_accuracy_pct")
    return Measurement(metrics, {**facts, "transferred": no_source or spec.protocol["transferred"]["variant"]})


def _metrics(found: AttackResult, dataset: str, images: int, fooling: str, accuracy: str) -> list[Metric]:
    metrics = []
    for epsilon, fooled in found.fooling_rate_pct.items():
        condition = f"eps={epsilon:g}"
        metrics.append(Metric(fooling, fooled, images, dataset, condition))
        metrics.append(Metric(accuracy, found.accuracy_pct[epsilon], images, dataset, condition))
    return metrics
