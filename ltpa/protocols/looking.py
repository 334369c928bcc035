"""Does a network that looks step by step choose where to look? Beyond Mnih et al. 2014 and Xu et al. 2015.

A network of glimpses classifies well with a gaze that never depends on the image. So beside its own gaze (closed loop)
stand the same network led along the mean path of all images (open loop), to random places, and to the centre alone. A
network that reads a map by weights is read in every way: the expectation under the weights, the largest weight, a draw.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ltpa.core.records import Metric
from ltpa.protocols.base import ChosenVariants, Context, Measurement, MetricKind, Protocol, Scene, Seed

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

WALKS = ("closed loop", "open loop", "random", "centre")


class LookingSettings(ChosenVariants):
    """`seed`: of random places and of drawn cells, the same for all networks."""

    seed: Seed = 0


class Looking(Protocol):
    """Error by way of looking, and how often each step looks at the object."""

    name = "looking"
    title = "Where it looks, step by step"
    about = "networks of glimpses and readers, led along other paths and read in other ways"
    Settings = LookingSettings
    metrics = (
        MetricKind("way_error_pct", "test error", "%", "lower", "way of looking", True),
        MetricKind("looks_at_object_pct", "looks inside the object's box", "%", "higher", "step"),
        MetricKind("box_chance_pct", "a random place inside the object's box", "%"),
        MetricKind("place_spread", "deviation of a place over images, in halves of the side", "", "", "step"),
    )

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Only networks that take glimpses or can be read in several ways."""
        options = scene.network(variant)
        if not (options.gaze_steps or options.read_ways):
            return "does not look step by step"
        return super().inapplicable(scene, dataset, variant)

    def lacks_maps(self, model: "AttentionClassifier", inputs: Any) -> bool:
        """Networks that see an image at once."""
        from ltpa.models.looking import Glimpsing, Reading

        return not isinstance(model, (Glimpsing, Reading))

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: LookingSettings,
        context: Context,
    ) -> Measurement:
        """Where no boxes are known, errors alone."""
        import numpy as np

        from ltpa.evaluation.looking import inside, read_all, walk_all
        from ltpa.models.looking import Reading

        metrics: list[Metric] = []
        for dataset in datasets:
            test = dataset.split("test")
            look = read_all if isinstance(model, Reading) else walk_all
            answers, places = look(model, test.images, settings.batch_size, settings.seed)
            for way, classes in answers.items():
                wrong = 100 * float(np.mean(classes != test.labels))
                metrics.append(Metric("way_error_pct", wrong, len(test), dataset.name, way))
            for number in range(places.shape[1]):
                spread = float(np.sqrt(places[:, number].var(0).mean()))
                metrics.append(Metric("place_spread", spread, len(test), dataset.name, str(number + 1)))
            if test.boxes is None:
                continue
            side = dataset.image_size
            hits = np.stack([inside(places[:, number], test.boxes, side) for number in range(places.shape[1])], 1)
            for number, share in enumerate(100 * hits.mean(0)):
                metrics.append(Metric("looks_at_object_pct", float(share), len(test), dataset.name, str(number + 1)))
            metrics.append(
                Metric("looks_at_object_pct", float(100 * hits.mean(0).max()), len(test), dataset.name, "best step")
            )
            area = (test.boxes[:, 2] - test.boxes[:, 0]) * (test.boxes[:, 3] - test.boxes[:, 1])
            chance = 100 * float(np.mean(area)) / side**2
            metrics.append(Metric("box_chance_pct", chance, len(test), dataset.name))
        return Measurement(metrics)
