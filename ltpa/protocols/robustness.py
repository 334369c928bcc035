"""Accuracy under attacks that bound robustness, worst case by image: beyond the paper's single step (`fgsm`)."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ltpa.core.records import Metric
from ltpa.core.schema import ListOf, once_each
from ltpa.protocols.base import ChosenVariants, Context, Epsilons, ImageCount, Measurement, MetricKind, Protocol

if TYPE_CHECKING:
    import numpy as np

    from ltpa.data.arrays import PreparedDataset
    from ltpa.evaluation.robustness import Victims
    from ltpa.models.base import AttentionClassifier

Attack = Literal["fgsm", "pgd", "apgd-ce", "apgd-t", "square"]


class RobustnessSettings(ChosenVariants):
    """Which networks, images and attacks.

    Attributes:
        variants: null for all.
        images: of the test split, the same for all networks; null for all.
        epsilons: bounds on the 0-255 scale.
        attacks: those run, in this order; `apgd-ce`, `apgd-t` and `square` are of the optional package pyautoattack
            (extra `robust`), and a record says where it was missing.
        steps: gradient steps of `pgd`, a multiple of 4.
        queries: of `square` for each image.
        square_images: how many of the images `square`, a check of the others, attacks.
        large_epsilon: a bound at which no network should be better than guessing; null for no such check.
        batch_size: images per pass.
    """

    images: ImageCount | None = 1000
    epsilons: Epsilons = (1.0, 2.0, 4.0, 8.0)
    attacks: Annotated[ListOf[Attack], AfterValidator(once_each), Field(min_length=1)] = (
        "fgsm",
        "pgd",
        "apgd-ce",
        "apgd-t",
        "square",
    )
    steps: Annotated[int, Field(ge=4, le=10**4, multiple_of=4)] = 40
    queries: Annotated[int, Field(ge=1, le=10**6)] = 5000
    square_images: ImageCount = 200
    large_epsilon: Annotated[float, Field(gt=0, le=255)] | None = 64.0


class Robustness(Protocol):
    """Clean accuracy, accuracy under each attack, the worst case, and checks for gradients that hide."""

    name = "robustness"
    title = "Robust accuracy"
    about = "accuracy under attacks that bound robustness"
    Settings = RobustnessSettings
    metrics = (
        MetricKind("clean_accuracy_pct", "accuracy without attack", "%", "higher", of_labels=True),
        MetricKind("robust_accuracy_pct", "worst case over the attacks run", "%", "higher", "eps=<norm>", True),
        MetricKind("fgsm_accuracy_pct", "accuracy under the fast gradient sign", "%", "higher", "eps=<norm>", True),
        MetricKind("pgd_accuracy_pct", "accuracy under projected gradient descent", "%", "higher", "eps=<norm>", True),
        MetricKind("apgd_ce_accuracy_pct", "accuracy under APGD", "%", "higher", "eps=<norm>", True),
        MetricKind("apgd_t_accuracy_pct", "accuracy under all and targeted APGD", "%", "higher", "eps=<norm>", True),
        MetricKind("square_accuracy_pct", "accuracy under Square, first images", "%", "higher", "eps=<norm>", True),
        MetricKind("failed_checks", "signs that attacks were fooled", "", "lower", of_labels=True),
    )

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: RobustnessSettings,
        context: Context,
    ) -> Measurement:
        """The record's facts name attacks that were skipped, and why, and the checks that failed, with numbers."""
        import numpy as np

        from ltpa.evaluation.fgsm import percent
        from ltpa.evaluation.inference import true_classes
        from ltpa.evaluation.robustness import nested, victims
        from ltpa.evaluation.subsets import fixed_subset

        metrics: list[Metric] = []
        facts: dict[str, Any] = {}
        for dataset in datasets:
            test = dataset.split("test")
            indices = fixed_subset(len(test), settings.images, dataset.name)
            labels = true_classes(model, test.labels, dataset.name)[indices]
            attacked = victims(model, np.asarray(test.images[indices]), labels, indices, settings.batch_size)
            metrics.append(Metric("clean_accuracy_pct", percent(attacked.right), len(indices), dataset.name))
            stands, skipped = _run(model, attacked, settings)
            for attack, by_norm in stands.items():
                count = len(next(iter(by_norm.values())))
                name = f"{attack.replace('-', '_')}_accuracy_pct"
                metrics += [
                    Metric(name, percent(each), count, dataset.name, f"eps={eps:g}") for eps, each in by_norm.items()
                ]
            white = [by_norm for attack, by_norm in stands.items() if attack != "square"]
            worst = {
                eps: np.logical_and.reduce([attacked.right, *(by_norm[eps] for by_norm in white)])
                for eps in settings.epsilons
            }
            if "square" in stands:
                for eps, each in stands["square"].items():
                    worst[eps][: len(each)] &= each
            for eps, each in nested(worst).items():
                metrics.append(Metric("robust_accuracy_pct", percent(each), len(indices), dataset.name, f"eps={eps:g}"))
            failed = _checks(model, attacked, stands, settings)
            metrics.append(Metric("failed_checks", len(failed), len(indices), dataset.name))
            facts[dataset.name] = {"skipped": skipped, "failed_checks": failed}
        return Measurement(metrics, facts)


def _run(
    model: "AttentionClassifier", attacked: "Victims", settings: RobustnessSettings
) -> "tuple[dict[str, dict[float, np.ndarray]], dict[str, str]]":
    """By attack and eps the images that stand, of `square` the first ones alone; and why attacks were skipped.

    Targeted APGD, which is dear, is run on those that stand under the attacks before it.
    """
    import numpy as np

    from ltpa.evaluation import autoattack
    from ltpa.evaluation.robustness import fast_gradient_sign, projected_gradient_descent

    found: dict[str, dict[float, np.ndarray]] = {}
    skipped: dict[str, str] = {}
    size = settings.batch_size
    for attack in settings.attacks:
        if attack == "fgsm":
            found[attack] = fast_gradient_sign(model, attacked, settings.epsilons, size)
            continue
        if attack == "pgd":
            found[attack] = {
                eps: projected_gradient_descent(model, attacked, eps, settings.steps, size) for eps in settings.epsilons
            }
            continue
        if reason := autoattack.unavailable(attack, model.num_classes):
            skipped[attack] = reason
            continue
        chosen = attacked.only(np.arange(min(len(attacked.right), settings.square_images)))
        found[attack] = {}
        for eps in settings.epsilons:
            target = chosen if attack == autoattack.SQUARE else attacked
            if attack == autoattack.APGD_T:
                left = [by_norm[eps] for name, by_norm in found.items() if name not in (attack, autoattack.SQUARE)]
                target = dataclasses.replace(attacked, right=np.logical_and.reduce([attacked.right, *left]))
            found[attack][eps] = autoattack.run(attack, model, target, eps, settings.queries, size)
    return found, skipped


def _checks(
    model: "AttentionClassifier",
    attacked: "Victims",
    stands: "Mapping[str, Mapping[float, np.ndarray]]",
    settings: RobustnessSettings,
) -> list[str]:
    """What speaks for gradients that are masked rather than for robustness (Carlini et al., 2019), beyond chance."""
    from ltpa.evaluation.fgsm import percent
    from ltpa.evaluation.robustness import (
        double_precision_agreement,
        projected_gradient_descent,
        weaker,
        zero_gradients,
    )

    failed = []
    for strong, weak in (("pgd", "fgsm"), ("apgd-ce", "pgd")):
        for eps in settings.epsilons if {strong, weak} <= stands.keys() else ():
            if text := weaker(stands[weak][eps], stands[strong][eps]):
                failed.append(f"{strong} is weaker than {weak} at eps={eps:g}: {text}")
    for attack, by_norm in stands.items():
        norms = sorted(by_norm)
        for small, large in itertools.pairwise(norms):
            if text := weaker(by_norm[small], by_norm[large]):
                failed.append(f"{attack} is weaker at eps={large:g} than at eps={small:g}: {text}")
    white = [by_norm for attack, by_norm in stands.items() if attack != "square"]
    for eps, each in stands.get("square", {}).items():
        for by_norm in white[-1:]:
            if text := weaker(each, by_norm[eps][: len(each)]):
                failed.append(f"square, without gradients, is stronger than those with at eps={eps:g}: {text}")
    if settings.large_epsilon is not None:
        left = percent(
            projected_gradient_descent(model, attacked, settings.large_epsilon, settings.steps, settings.batch_size)
        )
        if left > 100 / model.num_classes + 5:
            failed.append(f"{left:.1f} % stand at eps={settings.large_epsilon:g}, more than by guessing")
    if hidden := zero_gradients(model, attacked, settings.batch_size):
        failed.append(f"{hidden} images that are right have no gradient")
    agreement = double_precision_agreement(model, attacked, settings.batch_size)
    if agreement < 0.99:
        failed.append(f"signs of the gradient agree with those in float64 at {100 * agreement:.1f} % of the pixels")
    return failed
