"""Attention maps against object masks (paper section 5.4, figure 9), and the pointing game.

Of a set with masks the classes are the subsets, and all images are scored. Of the set that a network was trained on the
test split is scored in the pointing game alone, and passed over where it has neither masks nor boxes. Where boxes are
known, peaks and mass inside them are counted too. Beside attention stand references of the pointing game that nothing
was learnt for: a centre prior, and the same network untrained.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ltpa.core.records import Metric
from ltpa.protocols.base import BatchSize, Context, Measurement, MetricKind, Protocol, Scene, Settings, Target

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

MASKS, POINTING = "masks", "pointing"  # what a target is for

POINTING_METRICS = (
    MetricKind("pointing_pct", "peaks on the object", "%", "higher", "level or kind of map"),
    MetricKind("pointing_chance_pct", "a random pixel on the object", "%", "", "level or kind of map"),
    MetricKind("mass_in_mask_pct", "share of the map on the object", "%", "higher", "level or kind of map"),
    MetricKind("pointing_in_box_pct", "peaks in the object's box", "%", "higher", "level or kind of map"),
    MetricKind("box_chance_pct", "a random pixel in the object's box", "%", "", "level or kind of map"),
    MetricKind("mass_in_box_pct", "share of the map in the object's box", "%", "higher", "level or kind of map"),
)


class SegmentationSettings(Settings):
    """How a map is made and becomes binary; protocol `maps` and the figures follow too.

    Attributes:
        levels: the attention levels multiplied, those `declared` for the variant (the paper's last two), the `last`
            alone, or `all`.
        root: the square root of the product, as `declared` (the paper's networks, not PAN), `always`, or `never`.
        upsampling: how maps are enlarged to the size of the mask.
        threshold: null for Otsu's, or a share of each map's range above which a pixel counts.
        cam_class: class activation maps of the `annotated` class, or of each image's `predicted` one.
        batch_size: images per forward pass.
    """

    not_of_job = frozenset({"levels", "root"})
    no_reading = frozenset({"batch_size"})

    levels: Literal["declared", "last", "all"] = "declared"
    root: Literal["declared", "always", "never"] = "declared"
    upsampling: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    cam_class: Literal["annotated", "predicted"] = "annotated"
    batch_size: BatchSize = 250


class Segmentation(Protocol):
    """Jaccard by subset and pointing by level."""

    name = "segmentation"
    title = "Weakly supervised segmentation"
    about = "attention maps made binary, against masks"
    section = "5.4"
    Settings = SegmentationSettings
    metrics = (
        MetricKind("jaccard_pct", "Jaccard index, images with an object", "%", "higher", "subset"),
        MetricKind("jaccard_all_pct", "Jaccard index, all images", "%", "higher", "subset"),
        *POINTING_METRICS,
    )
    has_checks = True
    on_source = True
    needs_masks = True

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Only variants that declare how a map is made of them."""
        return "" if scene.saliency(variant) else "declares no saliency map"

    def targets(self, scene: Scene, dataset: str, variant: str) -> list[Target]:
        """The network's own test images, and every set with masks."""
        masked = [
            Target(name, MASKS, {"class_ids": scene.declared(name).get("class_ids", {}).get(scene.role(dataset))})
            for name in scene.using("masks")
        ]
        return [Target(dataset, POINTING, {"split": "test"}), *masked]

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """How the variant's map is made, under the settings `levels` and `root`."""
        return {"saliency": scene.saliency(variant)}

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """All images, by class."""
        return Target(name, MASKS, {"class_ids": class_ids})

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Variants that declare no saliency map."""
        return inputs["saliency"] is None

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: SegmentationSettings,
        context: Context,
    ) -> Measurement:
        """Metrics of every target, and facts of each: empty masks, maps without contrast, subsets left out."""
        from ltpa.evaluation.mask_metrics import point_at_split, score_by_subset
        from ltpa.evaluation.saliency import Masking, Saliency

        saliency = Saliency.from_declaration(context.inputs["saliency"], self.name)
        masking = Masking(settings.upsampling, settings.threshold)
        annotated = settings.cam_class == "annotated"
        metrics: list[Metric] = []
        facts: dict[str, Any] = {}
        for target, dataset in zip(context.targets, datasets, strict=True):
            if target.use == POINTING:
                split = dataset.split(target.facts["split"])
                found, facts[dataset.name] = point_at_split(
                    model, saliency, split, dataset, masking, settings.batch_size
                )
            else:
                ids = target.facts["class_ids"]
                found, facts[dataset.name] = score_by_subset(
                    model, saliency, dataset, masking, settings.batch_size, ids, annotated
                )
            metrics += found
        return Measurement(metrics, facts)
