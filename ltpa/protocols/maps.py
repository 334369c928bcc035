"""Other maps than the attention of figure 9 against object masks and boxes: beyond the paper.

Of a set with masks the classes are the subsets, and all images are scored. Of every other set where something tells the
object's place the images are scored in the pointing game alone, inside their masks and boxes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError, DataError
from ltpa.core.records import Metric
from ltpa.core.schema import ListOf, once_each
from ltpa.protocols.base import (
    ChosenVariants,
    Context,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
    Target,
    check_variants,
)
from ltpa.protocols.segmentation import MASKS, POINTING, POINTING_METRICS

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

Control = Literal["boolean_maps", "spectral_residual", "centre", "random", "oracle"]
UNTRAINED = "untrained"


class MapsSettings(ChosenVariants):
    """Which maps are scored beside those of the network; how they become binary stands in `protocols.segmentation`.

    Attributes:
        variants: the networks measured; null for all.
        batch_size: images per pass.
        datasets: whose images are scored, by the name in the paper; null for all that know the object's place.
        controls: maps that look at no network (`ltpa.evaluation.controls`), uniform random numbers, and as `oracle`
            the mask itself, where there are masks.
        controls_with: the variant in whose job they are measured.
    """

    not_of_job = frozenset({"variants", "datasets", "controls", "controls_with"})
    no_reading = frozenset({"variants", "datasets", "batch_size", "controls", "controls_with"})

    variants: Annotated[ListOf[str], AfterValidator(once_each)] | None = (
        "vgg",
        "vgg-gap",
        "vgg-pan",
        "vgg-att2-concat-pc",
        "vgg-att3-concat-pc",
        "rn164",
        "rn164-att2",
    )
    datasets: Annotated[ListOf[str], AfterValidator(once_each)] | None = None
    controls: Annotated[ListOf[Control], AfterValidator(once_each)] = (
        "boolean_maps",
        "spectral_residual",
        "centre",
        "random",
        "oracle",
    )
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
        MetricKind("pointing_tolerant_pct", "peaks on the object or near it", "%", "higher", "kind of map"),
        MetricKind("pxap_pct", "average precision of pixels", "%", "higher", "kind of map"),
        MetricKind("held_out_threshold_pct", "Jaccard, threshold of a held-out fifth", "%", "higher", "kind of map"),
        MetricKind("best_threshold_pct", "Jaccard at the best threshold", "%", "higher", "kind of map"),
        MetricKind("held_out_boxes_pct", "boxes found at thresholds of a held-out fifth", "%", "higher", "kind of map"),
        MetricKind("best_boxes_pct", "boxes found at the best thresholds", "%", "higher", "kind of map"),
    )
    needs_masks = True
    settings_of = ("segmentation",)

    def check_names(self, scene: Scene, settings: MapsSettings) -> None:
        """Refuse variants and roles that are not declared."""
        super().check_names(scene, settings)
        check_variants(scene, "protocols.maps.controls_with", [settings.controls_with])
        for name in settings.datasets or ():
            if name not in scene.known_roles:
                raise ConfigError(
                    f"key 'protocols.maps.datasets': {unknown_name('role', name, list(scene.known_roles))}"
                )

    def targets(self, scene: Scene, dataset: str, variant: str) -> list[Target]:
        """The sets with masks, and every other set, own test images first, where something tells the object's place."""
        found = [Target(name, MASKS) for name in scene.using("masks")]
        whole = scene.using("transfer")
        for name in dict.fromkeys([dataset, *whole, *scene.using("fine")]):
            if scene.locates(name):
                found.append(Target(name, POINTING, {} if name in whole else {"split": "test"}))
        chosen = scene.settings(self.name).datasets
        return [target for target in found if chosen is None or scene.role(target.name) in chosen]

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """How figure 9's map of the variant is made, which stands beside the others, and the controls."""
        settings = scene.settings(self.name)
        return {
            **self._masking(scene, variant),
            "controls": list(settings.controls) if variant == settings.controls_with else [],
        }

    def row_groups(self, scene: Scene, variant: str) -> Sequence[str]:
        """The kinds of map that a variant has, controls in the rows of the variant they are measured with."""
        settings, saliency = scene.settings(self.name), scene.saliency(variant)
        levels = len(scene.network(variant).map_levels)
        has = {
            "combined": saliency is not None and saliency["source"] == "attention" and len(saliency["levels"]) > 1,
            "attention_last": levels > 0,
            "attention_previous": levels > 1,
            "activation_last": True,
            "activation_previous": True,
            "cam_predicted": saliency is not None and saliency["source"] == "cam",
            "gradcam": True,
            UNTRAINED: True,
            **dict.fromkeys(settings.controls, variant == settings.controls_with),
        }
        return [kind for kind, there in has.items() if there]

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

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Only networks that are not of this package may have no map."""
        from ltpa.evaluation.maps import shows_maps

        return not shows_maps(model)

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: MapsSettings,
        context: Context,
    ) -> Measurement:
        """Facts of the record say how many maps of each kind are without contrast."""
        import numpy as np

        from ltpa.data.masks import OBJECT
        from ltpa.evaluation.inference import network_pixels
        from ltpa.evaluation.localisation import find_objects, localisation_metrics
        from ltpa.evaluation.map_controls import control_maps, own_map_of, untrained_map
        from ltpa.evaluation.maps import network_maps
        from ltpa.evaluation.mask_metrics import map_metrics
        from ltpa.evaluation.saliency import CAM, Masking, Saliency

        masking = Masking(context.inputs["upsampling"], context.inputs["threshold"])
        declared, controls = context.inputs["saliency"], context.inputs["controls"]
        saliency = None if declared is None else Saliency.from_declaration(declared, self.name)
        combined = None  # the variant's own map, unless it is one of the maps measured here already
        if saliency is not None and saliency.source != CAM and len(saliency.levels) > 1:
            combined = saliency
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
            seen = network_pixels(model, pooled.images, settings.batch_size)
            maps |= control_maps(controls, seen, pooled, dataset.name)
            maps[UNTRAINED] = untrained_map(model, own_map_of(maps, combined), seen, combined, settings.batch_size)
            metrics += map_metrics(maps, None, by_subset, pooled, dataset, masking)
            levels = {} if combined is None else combined.maps(model, pooled.images, settings.batch_size)
            if combined is not None:
                more = map_metrics(levels, combined, by_subset, pooled, dataset, masking)
                metrics += [metric for metric in more if metric.condition not in levels]
            if by_subset and pooled.masks is not None:
                rows = [row for row, mask in enumerate(pooled.masks) if (mask == OBJECT).any()]
                masks = [pooled.masks[row] for row in rows]
                found = find_objects({kind: each[rows] for kind, each in maps.items()}, masks, None, masking)
                if combined is not None:
                    chosen = {level: each[rows] for level, each in levels.items()}
                    found |= find_objects(chosen, masks, combined, masking)
                metrics += localisation_metrics(found, dataset.name)
            constant = {kind: int((np.ptp(each, axis=(1, 2)) == 0).sum()) for kind, each in maps.items()}
            facts[dataset.name] = {"constant_maps": constant}
        return Measurement(metrics, facts)
