"""Whether the pixels that a network's maps call important decide what it says: beyond the paper.

Pixels are deleted and inserted (Petsiuk et al. 2018), removed and imputed (ROAD, Rong et al. 2022), and dropped in
random subsets (Bhatt et al. 2020). Every number stands beside those of maps that show what it is worth: random ones,
the image's centre, the map of another image, the network before training, and the object's mask.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ltpa.core.records import Metric
from ltpa.core.schema import ListOf, once_each
from ltpa.protocols.base import (
    ChosenVariants,
    Context,
    ImageCount,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
)

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

Baseline = Literal["mean", "blur", "black"]
Kind = Literal[
    "given",
    "combined",
    "attention_last",
    "attention_previous",
    "activation_last",
    "activation_previous",
    "cam_predicted",
    "gradcam",
    "gradient",
]
Share = Annotated[float, Field(gt=0, lt=1)]


class FaithfulnessSettings(ChosenVariants):
    """Which networks, images and maps, and how finely they are perturbed.

    Attributes:
        variants: null for all.
        images: of the test split, the same for all networks; null for all.
        maps: the kinds measured, of those that a network has; null for all.
        baselines: what takes the place of deleted pixels, and what insertion begins with: the training images' mean
            colour, the blurred image, black. Two of them, so that a ranking that turns with them is seen.
        steps: of a curve, equal shares of the pixels.
        removed: shares of the pixels that ROAD removes.
        random_maps: random maps whose numbers are averaged.
        subsets: random subsets of pixels that the faithfulness correlation is over.
        batch_size: images per forward pass.
    """

    images: Annotated[ImageCount, Field(ge=2)] | None = 1000
    maps: Annotated[ListOf[Kind], AfterValidator(once_each), Field(min_length=1)] | None = None
    baselines: Annotated[ListOf[Baseline], AfterValidator(once_each), Field(min_length=2, max_length=2)] = (
        "mean",
        "blur",
    )
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    removed: Annotated[ListOf[Share], AfterValidator(once_each), Field(min_length=1, max_length=100)] = tuple(
        round(0.1 * tenth, 1) for tenth in range(1, 10)
    )
    random_maps: Annotated[int, Field(ge=1, le=100)] = 5
    subsets: Annotated[int, Field(ge=2, le=10**4)] = 100


_OF_MAPS = (
    MetricKind("deletion_*_auc", "area under p_y as pixels are deleted", "", "lower", "kind of map"),
    MetricKind("insertion_*_auc", "area under p_y as pixels are inserted", "", "higher", "kind of map"),
    MetricKind("road_most_pct", "class stands, most relevant pixels removed", "%", "lower", "kind of map"),
    MetricKind("road_least_pct", "class stands, least relevant pixels removed", "%", "higher", "kind of map"),
    MetricKind("road_pct", "least minus most relevant", "%", "higher", "kind of map"),
    MetricKind("faithfulness_correlation", "correlation of map and drop of p_y", "", "higher", "kind of map"),
)


def _higher(name: str) -> bool:
    """Whether higher values of a metric are better."""
    return next(kind.better == "higher" for kind in _OF_MAPS if fnmatch.fnmatch(name, kind.name))


class Faithfulness(Protocol):
    """Curves, removals and correlations of every map, beside its controls."""

    name = "faithfulness"
    title = "Faithfulness of maps"
    about = "whether what maps call important decides"
    Settings = FaithfulnessSettings
    settings_of = ("segmentation",)
    metrics = (
        *_OF_MAPS,
        *(
            dataclasses.replace(kind, name=f"{kind.name}_over_random", title=f"{kind.title}, minus random")
            for kind in _OF_MAPS
        ),
        *(
            MetricKind(f"{kind.name}_of_oracle_pct", f"{kind.title}, in % of the mask's", "%", "higher", kind.condition)
            for kind in _OF_MAPS
        ),
        MetricKind("*_order_tau", "Kendall's tau of the maps' order between baselines", "", "higher"),
        MetricKind("*_turned_pairs", "pairs of maps whose order turns with the baseline", "", "lower"),
    )

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """How the variant's combined map is made."""
        return {"saliency": scene.saliency(variant)}

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Only networks that are not of this package may have no map."""
        from ltpa.evaluation.maps import shows_maps

        return not shows_maps(model)

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: FaithfulnessSettings,
        context: Context,
    ) -> Measurement:
        """The record's facts name the maps whose order turns with the baseline."""
        from ltpa.evaluation.faithfulness import beside_controls, same_order
        from ltpa.evaluation.faithfulness_scores import FaithfulnessChoices, score_faithfulness
        from ltpa.evaluation.saliency import Saliency

        declared = context.inputs["saliency"]
        saliency = None if declared is None else Saliency.from_declaration(declared, self.name)
        choices = FaithfulnessChoices(**settings.model_dump(exclude={"variants"}))
        metrics: list[Metric] = []
        facts: dict[str, Any] = {}
        for dataset in datasets:
            found, kinds = score_faithfulness(model, dataset, saliency, choices)
            count = len(next(iter(found.values()))["random"])
            for name, values in found.items():
                for kind, (mean, over, share) in beside_controls(values, _higher(name)).items():
                    metrics += [
                        Metric(name, mean, count, dataset.name, kind),
                        Metric(f"{name}_over_random", over, count, dataset.name, kind),
                    ]
                    if share is not None:
                        metrics.append(Metric(f"{name}_of_oracle_pct", share, count, dataset.name, kind))
            for game in ("deletion", "insertion"):
                first, second = (
                    [float(found[f"{game}_{each}_auc"][kind].mean()) for kind in kinds] for each in settings.baselines
                )
                tau, turned = same_order(first, second)
                metrics += [
                    Metric(f"{game}_order_tau", tau, count, dataset.name),
                    Metric(f"{game}_turned_pairs", turned, count, dataset.name),
                ]
            facts[dataset.name] = {"maps": kinds}
        return Measurement(metrics, facts)
