"""Other maps than the attention of figure 9 against object masks and boxes: beyond the paper.

Of a set with masks the classes are the subsets, and all images are scored. Of every other set where something tells the
object's place the images are scored in the pointing game alone, inside their masks and boxes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from ltpa.core.errors import DataError
from ltpa.core.records import Metric
from ltpa.core.schema import ListOf
from ltpa.protocols.base import (
    BatchSize,
    Context,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
    Settings,
    Target,
    check_variants,
    once_each,
)
from ltpa.protocols.segmentation import MASKS, POINTING, POINTING_METRICS

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

Control = Literal["boolean_maps", "spectral_residual", "centre"]


class MapsSettings(Settings):
    """Which maps are scored beside those of the network; how they become binary stands in `protocols.segmentation`.

    Attributes:
        batch_size: images per pass.
        controls: maps that look at no network (`ltpa.evaluation.controls`).
        controls_with: the variant in whose job they are measured.
    """

    not_of_job = frozenset({"controls", "controls_with"})
    no_reading = frozenset({"batch_size", "controls", "controls_with"})

    batch_size: BatchSize = 250
    controls: Annotated[ListOf[Control], AfterValidator(once_each)] = ("boolean_maps", "spectral_residual", "centre")
    controls_with: str = "vgg"


class Maps(Protocol):
    """Jaccard by subset (`gradcam_jaccard_pct` ...) and pointing by kind of map, for each target."""

    name = "maps"
    title = "Other maps"
    about = "other maps of the network, against masks"
    Settings = MapsSettings
    metrics = (
        MetricKind("*_jaccard_pct", "Jaccard index, images with an object", "%", "higher", "subset"),
        MetricKind("*_jaccard_all_pct", "Jaccard index, all images", "%", "higher", "subset"),
        *POINTING_METRICS,
    )
    needs_masks = True
    settings_of = ("segmentation",)

    def check_names(self, scene: Scene, settings: MapsSettings) -> None:
        """Refuse a variant that is not declared."""
        check_variants(scene, "protocols.maps.controls_with", [settings.controls_with])

    def targets(self, scene: Scene, dataset: str, variant: str) -> list[Target]:
        """The sets with masks, and every other set, own test images first, where something tells the object's place."""
        found = [Target(name, MASKS) for name in scene.using("masks")]
        whole = scene.using("transfer")
        for name in dict.fromkeys([dataset, *whole, *scene.using("fine")]):
            if scene.locates(name):
                found.append(Target(name, POINTING, {} if name in whole else {"split": "test"}))
        return found

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """How figure 9's map of the variant is made, which stands beside the others, and the controls."""
        settings = scene.settings(self.name)
        return {
            **self._masking(scene, variant),
            "controls": list(settings.controls) if variant == settings.controls_with else [],
        }

    def folder_inputs(self, scene: Scene, variant: str) -> dict[str, Any]:
        """With all controls, whatever the variant."""
        return {**self._masking(scene, variant), "controls": list(scene.settings(self.name).controls)}

    def _masking(self, scene: Scene, variant: str) -> dict[str, Any]:
        chosen = scene.settings("segmentation")
        return {
            "saliency": scene.saliency(variant),
            "upsampling": chosen.upsampling,
            "threshold": chosen.threshold,
        }

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """All images, by class."""
        return Target(name, MASKS)

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: MapsSettings,
        context: Context,
    ) -> Measurement:
        """Facts of the record say how many maps of each kind are without contrast."""
        import numpy as np

        from ltpa.evaluation.controls import CONTROLS
        from ltpa.evaluation.inference import network_pixels
        from ltpa.evaluation.maps import network_maps
        from ltpa.evaluation.mask_metrics import map_metrics
        from ltpa.evaluation.saliency import CAM, Masking, Saliency

        masking = Masking(context.inputs["upsampling"], context.inputs["threshold"])
        declared, controls = context.inputs["saliency"], context.inputs["controls"]
        combined = None  # the variant's own map, unless it is one of the maps measured here already
        if declared is not None and declared["source"] != CAM and len(declared["levels"]) > 1:
            combined = Saliency.from_declaration(declared, self.name)
        metrics: list[Metric] = []
        facts: dict[str, Any] = {}
        for target, dataset in zip(context.targets, datasets, strict=True):
            pooled = dataset.split(target.facts["split"]) if "split" in target.facts else dataset.pooled()
            by_subset = target.use == MASKS
            if by_subset and pooled.masks is None:
                raise DataError(f"dataset {dataset.name} has no masks; name one that has, one mask per image")
            if pooled.masks is None and pooled.boxes is None:
                facts[dataset.name] = {"skipped": "no masks or boxes"}
                continue
            maps = network_maps(model, pooled.images, settings.batch_size)
            seen = network_pixels(model, pooled.images, settings.batch_size) if controls else pooled.images
            maps |= {name: CONTROLS[name](seen) for name in controls}
            metrics += map_metrics(maps, None, by_subset, pooled, dataset, masking)
            if combined is not None:
                levels = combined.maps(model, pooled.images, settings.batch_size)
                more = map_metrics(levels, combined, by_subset, pooled, dataset, masking)
                metrics += [metric for metric in more if metric.condition not in levels]
            constant = {kind: int((np.ptp(each, axis=(1, 2)) == 0).sum()) for kind, each in maps.items()}
            facts[dataset.name] = {"constant_maps": constant}
        return Measurement(metrics, facts)
