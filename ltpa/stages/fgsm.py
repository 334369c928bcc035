"""Fast gradient sign attack on the test split of each target (paper section 5.2, figure 6), and beyond it.

Targets are `{"name"}`. Protocol keys: those of `FgsmSettings`; `pgd`, the keys of `PgdSettings` or null for no iterated
attack; `transferred`, `{"variant", "training"}` of the network whose perturbations are tried on this one, or null.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.core import layout
from ltpa.core.errors import ConfigError, RecordError
from ltpa.core.records import Metric, Record
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.fgsm import AttackResult, FgsmSettings, attack, percent, worst_case
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
        trained, reason = _source(spec, results, seed)
        source = None
        if trained is not None:
            from ltpa.models import load

            folder = layout.run_dir(results, "train", spec.dataset, trained.variant, seed)
            source = load(folder / layout.MODEL, expect_variant=trained.variant), trained
        evaluate_each(
            __name__, spec, results, [seed], functools.partial(measure, spec, source=source, no_source=reason)
        )


def _source(spec: EvaluationSpec, results: Path, seed: int) -> tuple[Record | None, str]:
    """The record of the network of the same seed whose perturbations are transferred, or None and why there is none."""
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
    return trained, ""


def measure(
    spec: EvaluationSpec,
    model: "AttentionClassifier",
    datasets: list[PreparedDataset],
    folder: Path,
    source: "tuple[AttentionClassifier, Record] | None" = None,
    no_source: str = "not asked for",
) -> Measurement:
    """Clean accuracy, then for each epsilon (condition `eps=1`) fooling rates and robust accuracy over all test images.

    `robust_accuracy_pct` is the worst case over the fast gradient sign and, where it is run, the iterated attack.
    Perturbations made against `source`, a network and the record of its training, are tried on `model` where it is
    given; `no_source` says why it is not.
    """
    settings = read_settings(
        FgsmSettings, "fgsm", {key: value for key, value in spec.protocol.items() if key not in _BEYOND}
    )
    declared = spec.protocol.get("pgd")
    pgd = None if declared is None else read_settings(PgdSettings, "fgsm: pgd", declared)
    if source is not None:
        source[0].to(next(model.parameters()).device)
    metrics: list[Metric] = []
    zero_gradients: dict[str, int] = {}
    for dataset in datasets:
        test = dataset.split("test")
        own = attack(model, test.images, test.labels, settings)
        attacks = [own]
        metrics.append(Metric("clean_accuracy_pct", own.clean_accuracy_pct, len(test), dataset.name))
        metrics += _metrics("fooling_rate_pct", own.fooling_rate_pct, len(test), dataset.name)
        if pgd is not None:
            attacks.append(attack_iterated(model, test.images, test.labels, settings, pgd))
        worst = {epsilon: percent(robust) for epsilon, robust in worst_case(attacks).items()}
        metrics += _metrics("robust_accuracy_pct", worst, len(test), dataset.name)
        if pgd is not None:
            metrics += _metrics("fgsm_robust_accuracy_pct", own.robust_accuracy_pct, len(test), dataset.name)
            metrics += _rates("pgd_", attacks[1], dataset.name)
        if source is not None:
            moved = attack(model, test.images, test.labels, settings, source[0])
            metrics += _rates("transferred_", moved, dataset.name)
        zero_gradients[dataset.name] = own.zero_gradients
    transferred = no_source or spec.protocol["transferred"]["variant"]
    facts = {"zero_gradient_images": zero_gradients, "transferred": transferred}
    return Measurement(metrics, facts, [] if source is None else [source[1]])


def _rates(prefix: str, found: AttackResult, dataset: str) -> list[Metric]:
    images = len(found.right)
    return [
        *_metrics(f"{prefix}fooling_rate_pct", found.fooling_rate_pct, images, dataset),
        *_metrics(f"{prefix}robust_accuracy_pct", found.robust_accuracy_pct, images, dataset),
    ]


def _metrics(name: str, rates: dict[float, float], images: int, dataset: str) -> list[Metric]:
    return [Metric(name, rate, images, dataset, f"eps={epsilon:g}") for epsilon, rate in rates.items()]
