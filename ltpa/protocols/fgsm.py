"""Fast gradient sign attack on the test split (paper section 5.2, figure 6), and beyond it an iterated attack and
perturbations made against another network.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ltpa.core.records import Metric
from ltpa.core.schema import PlainData
from ltpa.protocols.base import (
    BatchSize,
    Context,
    Epsilons,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
    Seed,
    Settings,
    check_variants,
)

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.evaluation.fgsm import AttackResult
    from ltpa.models.base import AttentionClassifier


class PgdSettings(PlainData):
    """Projected gradient descent, the iterated attack.

    Attributes:
        epsilons: bounds on the 0-255 scale.
        steps: gradient steps per bound.
        step_size: length of a step as a share of the bound.
        random_start: begin at a point drawn uniformly from the ball, the same for every network.
        seed: of the random start.
    """

    epsilons: Epsilons = (1.0, 2.0, 4.0, 8.0, 16.0)
    steps: Annotated[int, Field(ge=1, le=10**4)] = 10
    step_size: Annotated[float, Field(gt=0, le=1000)] = 0.25
    random_start: bool = True
    seed: Seed = 0


def _true_class(value: Any) -> Any:
    return "true" if value is True else value


class FgsmSettings(Settings):
    """The attack.

    Attributes:
        epsilons: step sizes on the 0-255 scale.
        loss: what the step climbs: the cross-entropy of the `predicted` or the `true` class, or minus the predicted
            class's logit (`score`). YAML reads a plain `true` as a boolean; here it means the true class.
        clip: keep pixels within 0-255.
        round: round pixels to whole numbers, as a stored picture would be.
        batch_size: images per forward and backward pass.
        pgd: beyond the paper, the iterated attack; null for none.
        transferred: beyond the paper, maps a variant to the one whose perturbations are tried on it.
    """

    not_of_job = frozenset({"transferred"})
    no_reading = frozenset({"batch_size", "pgd", "transferred"})

    epsilons: Epsilons = (1.0, 2.0, 4.0, 8.0, 16.0)
    loss: Annotated[Literal["predicted", "true", "score"], BeforeValidator(_true_class)] = "predicted"
    clip: bool = True
    round: bool = False
    batch_size: BatchSize = 250
    pgd: PgdSettings | None = None
    transferred: dict[str, str] = Field(default={"vgg": "vgg-att2-concat-pc", "vgg-att2-concat-pc": "vgg"})


def _robust(name: str, title: str) -> MetricKind:
    return MetricKind(name, title, "%", "higher", "eps=<norm>", of_labels=True)


def _fooled(name: str, title: str) -> MetricKind:
    return MetricKind(name, title, "%", "lower", "eps=<norm>")


class Fgsm(Protocol):
    """Clean accuracy, then for each epsilon fooling rates and robust accuracy over all test images."""

    name = "fgsm"
    title = "Fast gradient sign attack"
    about = "fooling rate under the fast gradient sign attack"
    section = "5.2"
    Settings = FgsmSettings
    metrics = (
        MetricKind("clean_accuracy_pct", "accuracy without attack", "%", "higher", of_labels=True),
        _fooled("fooling_rate_pct", "images whose predicted class changes"),
        _robust("robust_accuracy_pct", "accuracy under the worst attack of this norm"),
        _robust("fgsm_robust_accuracy_pct", "accuracy under this attack alone"),
        _fooled("pgd_fooling_rate_pct", "the same for the iterated attack"),
        _robust("pgd_robust_accuracy_pct", "accuracy under the iterated attack"),
        _fooled("transferred_fooling_rate_pct", "the same against another network"),
        _robust("transferred_robust_accuracy_pct", "accuracy under the attack on another network"),
    )

    def check_names(self, scene: Scene, settings: FgsmSettings) -> None:
        """Refuse variants that are not declared."""
        pairs = settings.transferred.items()
        check_variants(scene, "protocols.fgsm.transferred", [name for pair in pairs for name in pair])

    def companion(self, scene: Scene, dataset: str, variant: str) -> str | None:
        """The network whose perturbations are tried on this one, where the configuration trains it."""
        source: str | None = scene.settings(self.name).transferred.get(variant)
        return source if source in scene.trained_variants else None

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: FgsmSettings,
        context: Context,
    ) -> Measurement:
        """`robust_accuracy_pct` is the worst case over this attack and, where it is run, the iterated one.

        The record's facts say for how many images the gradient is zero, and what was transferred or why not.
        """
        from ltpa.evaluation.fgsm import Attack, attack, percent, worst_case
        from ltpa.evaluation.pgd import IteratedAttack, attack_iterated

        step = Attack(settings.epsilons, settings.loss, settings.clip, settings.round, settings.batch_size)
        metrics: list[Metric] = []
        zero_gradients: dict[str, int] = {}
        for dataset in datasets:
            test = dataset.split("test")
            own = attack(model, test.images, test.labels, step)
            attacks = [own]
            metrics.append(Metric("clean_accuracy_pct", own.clean_accuracy_pct, len(test), dataset.name))
            metrics += _by_epsilon("fooling_rate_pct", own.fooling_rate_pct, len(test), dataset.name)
            if settings.pgd is not None:
                iterated = IteratedAttack(**settings.pgd.model_dump())
                attacks.append(attack_iterated(model, test.images, test.labels, step, iterated))
            worst = {epsilon: percent(robust) for epsilon, robust in worst_case(attacks).items()}
            metrics += _by_epsilon("robust_accuracy_pct", worst, len(test), dataset.name)
            if settings.pgd is not None:
                metrics += _by_epsilon("fgsm_robust_accuracy_pct", own.robust_accuracy_pct, len(test), dataset.name)
                metrics += _rates("pgd_", attacks[1], dataset.name)
            if context.companion is not None:
                moved = attack(model, test.images, test.labels, step, context.companion)
                metrics += _rates("transferred_", moved, dataset.name)
            zero_gradients[dataset.name] = own.zero_gradients
        transferred = context.no_companion or context.inputs["transferred"]
        return Measurement(metrics, {"zero_gradient_images": zero_gradients, "transferred": transferred})

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """Whose perturbations are transferred."""
        return {"transferred": self.companion(scene, dataset, variant)}


def _rates(prefix: str, found: "AttackResult", dataset: str) -> list[Metric]:
    images = len(found.right)
    return [
        *_by_epsilon(f"{prefix}fooling_rate_pct", found.fooling_rate_pct, images, dataset),
        *_by_epsilon(f"{prefix}robust_accuracy_pct", found.robust_accuracy_pct, images, dataset),
    ]


def _by_epsilon(name: str, rates: dict[float, float], images: int, dataset: str) -> list[Metric]:
    return [Metric(name, rate, images, dataset, f"eps={epsilon:g}") for epsilon, rate in rates.items()]
