"""Where a network looks, on images whose object's box is known, and what its attention costs and changes.

Every network trained on such a set is measured on its test images. A map alone proves little: plain activations, the
middle of the image and the network before training point, too, and stand beside it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ltpa.core.records import Metric
from ltpa.protocols.base import ChosenVariants, Context, Measurement, MetricKind, Protocol, Scene

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

LAST, ACTIVATIONS, CENTRE, UNTRAINED = "last", "activations", "centre", "untrained"


class Gaze(Protocol):
    """Errors, compute, pointing and mass inside boxes by level, and how far a block is from the identity."""

    name = "gaze"
    title = "Where networks look"
    about = "whether maps lie in the known box, beside plain activations, the middle, and the untrained network"
    Settings = ChosenVariants
    metrics = (
        MetricKind("test_error_pct", "test error", "%", "lower", of_labels=True),
        MetricKind("parameters", "parameters"),
        MetricKind("macs", "multiply-accumulates of one image"),
        MetricKind("block_change", "root mean square of what a block adds, of its input's"),
        MetricKind("pointing_in_box_pct", "peaks in the box", "%", "higher", "map"),
        MetricKind("box_chance_pct", "share of the image that the box covers", "%", "", "map"),
        MetricKind("mass_in_box_pct", "share of the map in the box", "%", "higher", "map"),
    )

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Sets whose objects' places are not known are passed over."""
        if not scene.knows(dataset, "objects"):
            return "nothing tells where the objects of this set are"
        return super().inapplicable(scene, dataset, variant)

    def measure(
        self, model: "AttentionClassifier", datasets: "Sequence[PreparedDataset]", settings: Any, context: Context
    ) -> Measurement:
        """Maps are `last` (the last level) and each level of several, `activations`, `centre` and `untrained`."""
        import numpy as np

        from ltpa.evaluation.controls import centre_prior
        from ltpa.evaluation.gaze import activation_maps, block_change
        from ltpa.evaluation.inference import attention_maps, predict
        from ltpa.evaluation.mask_metrics import box_metrics
        from ltpa.evaluation.saliency import Masking
        from ltpa.evaluation.untrained import settle, untrained_networks
        from ltpa.models.describe import count_macs, count_parameters

        metrics: list[Metric] = []
        for dataset in datasets:
            test, name, size = dataset.split("test"), dataset.name, settings.batch_size
            wrong = predict(model, test.images, size) != test.labels
            metrics += [
                Metric("test_error_pct", 100 * float(wrong.mean()), len(test), name),
                Metric("parameters", float(count_parameters(model)), len(test), name),
                Metric("macs", float(count_macs(model)), len(test), name),
            ]
            change = block_change(model, test.images, size)
            if change is not None:
                metrics.append(Metric("block_change", change, len(test), name))
            maps: dict[str, np.ndarray] = {CENTRE: centre_prior(test.images[:1]).repeat(len(test), axis=0)}
            if (plain := activation_maps(model, test.images, size)) is not None:
                maps[ACTIVATIONS] = plain
            if model.attention_levels:
                levels = attention_maps(model, test.images, size)
                last = model.attention_levels[-1]
                maps |= {LAST: levels[last], **(levels if len(levels) > 1 else {})}
                (fresh,) = untrained_networks(model, draws=1)
                settle(fresh, test.images)
                maps[UNTRAINED] = attention_maps(fresh, test.images, size)[last]
            metrics += box_metrics([(maps, test.boxes)], dataset, None, Masking("bilinear", None))
        return Measurement(metrics)
