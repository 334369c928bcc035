"""Attention maps against object masks (paper section 5.4, figure 9), and the pointing game.

Of a set with masks the classes are the subsets, and all images are scored. Of the set that a network was trained on the
test split is scored in the pointing game alone, and passed over where it has neither masks nor boxes. Where boxes are
known, peaks and mass inside them are counted too. Beside attention stand references of the pointing game that nothing
was learnt for: a centre prior, and the same network untrained.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ltpa.core.checks import Check
from ltpa.core.records import Metric, Record, metric_value
from ltpa.core.schema import ListOf, once_each
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
)

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

MASKS, POINTING = "masks", "pointing"  # what a target is for
COMBINED, CENTRE, UNTRAINED = "combined", "centre", "untrained-"  # conditions of its pointing metrics
STANDARD_ERRORS = 2.0  # by which a hit rate over so many images must exceed that of a random pixel
LIKELY = 0.99  # with a single seed: the share of further untrained networks that stay below what must be beaten

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
        attention_beats: what the peaks of attention must hit the object more often than, for it to attend: a `random`
            pixel (every seed), the same network `untrained`, the `centre` of the image (the median seed).
        must_attend: the variants for which a run fails where that is not shown; null for all. Of others it is reported.
    """

    not_of_job = frozenset({"levels", "root", "attention_beats", "must_attend"})
    no_reading = frozenset({"batch_size", "attention_beats", "must_attend"})

    levels: Literal["declared", "last", "all"] = "declared"
    root: Literal["declared", "always", "never"] = "declared"
    upsampling: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    cam_class: Literal["annotated", "predicted"] = "annotated"
    batch_size: BatchSize = 250
    attention_beats: Annotated[ListOf[Literal["random", "untrained", "centre"]], AfterValidator(once_each)] = (
        "random",
        "untrained",
    )
    must_attend: Annotated[ListOf[str], AfterValidator(once_each)] | None = None


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
    on_source = True
    needs_masks = True
    about_checks = (
        "attends: percentage of images in which the peak of the map lies on the object, median over seeds; beside it "
        "that of a random pixel, of the same network untrained, and of the centre of the image.",
    )

    def check_names(self, scene: Scene, settings: SegmentationSettings) -> None:
        """Refuse variants that are not declared."""
        check_variants(scene, "protocols.segmentation.must_attend", settings.must_attend or ())

    def check_facts(self, scene: Scene) -> dict[str, Any]:
        """What attention must beat, for which variants, and which have attention."""
        settings = scene.settings(self.name)
        return {
            "attending": [name for name in scene.trained_variants if scene.network(name).map_levels],
            "beats": list(settings.attention_beats),
            "must_attend": settings.must_attend,
        }

    def checks(
        self, facts: Mapping[str, Any], subject: str, records: Sequence[Record], others: Mapping[str, list[Record]]
    ) -> Iterator[Check]:
        """Whether attention attends, one check per dataset on which it was scored."""
        if records[0].variant not in facts["attending"]:
            return
        targets = dict.fromkeys(metric.target for metric in records[0].metrics if metric.name == "pointing_pct")
        if not targets:
            yield Check("attends", subject, None, "a hit rate", False, "the record has no pointing_pct")
        for target in targets:
            yield _attends_on(facts, f"{subject}, {target or records[0].dataset}", records, target)

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
                ids = target.facts.get("class_ids")
                found, facts[dataset.name] = score_by_subset(
                    model, saliency, dataset, masking, settings.batch_size, ids, annotated
                )
            metrics += found
        return Measurement(metrics, facts)


def _attends_on(facts: Mapping[str, Any], subject: str, group: Sequence[Record], target: str) -> Check:
    """Each seed's hit rate of the combined map, in percent, against those of maps that nothing was learnt for."""
    hits = [metric_value(record, "pointing_pct", target, COMBINED) for record in group]
    draws = [
        metric.value
        for record in group
        for metric in record.metrics
        if metric.name == "pointing_pct" and metric.target == target and metric.condition.startswith(UNTRAINED)
    ]
    chance = metric_value(group[0], "pointing_chance_pct", target, COMBINED)
    bars = {
        "random": chance + STANDARD_ERRORS * _standard_error(group[0], target, chance),
        "untrained": _highest_untrained(draws, len(group)),
        "centre": metric_value(group[0], "pointing_pct", target, CENTRE),
    }
    beaten = [[name for name, bar in bars.items() if hit > bar] for hit in hits]
    middle = statistics.median(hits)
    judged = {"random": min(hits), "untrained": middle, "centre": middle}
    missed = [name for name in facts["beats"] if judged[name] <= bars[name]]
    listed = "; ".join(
        f"seed {record.seed} {hit:.1f} % (beats {', '.join(names) or 'nothing'})"
        for record, hit, names in zip(group, hits, beaten, strict=True)
    )
    detail = (
        f"{COMBINED} map peaks on the object: {listed}; a random pixel {chance:.1f} %, untrained "
        f"{bars['untrained']:.1f} % ({len(draws)} draws, {min(draws):.1f} to {max(draws):.1f} %), the centre "
        f"{bars['centre']:.1f} %"
    )
    if missed:
        detail += f"; not shown: {' and '.join(_MISSED[name] for name in missed)}"
    limits = {"random": "each seed > {:.1f}", "untrained": "median > {:.1f}", "centre": "median > {:.1f} (centre)"}
    limit = ", ".join(limits[name].format(bars[name]) for name in facts["beats"]) or "anything"
    seeds = tuple(
        {"seed": record.seed, "pointing_pct": hit, "beats": names}
        for record, hit, names in zip(group, hits, beaten, strict=True)
    )
    required = facts["must_attend"] is None or group[0].variant in facts["must_attend"]
    return Check("attends", subject, middle, limit, not missed, detail, seeds, required)


def _standard_error(record: Record, target: str, chance: float) -> float:
    """Of the hit rate of a random pixel, in percentage points, over as many images as the maps were scored on."""
    images = next(m.n for m in record.metrics if (m.name, m.target) == ("pointing_chance_pct", target))
    return (chance * (100 - chance) / images) ** 0.5


_MISSED = {
    "random": "that every seed clearly beats a random pixel",
    "untrained": "that the median seed beats the network untrained",
    "centre": "that the median seed beats the centre",
}


def _highest_untrained(draws: Sequence[float], seeds: int) -> float:
    """What a hit rate must exceed to be no matter of the architecture alone: the highest of the untrained draws.

    A ninth of all untrained networks is higher than eight others. The median of several seeds rarely is; a single seed
    must also exceed the limit below which 99 % of further draws stay (Student's t).
    """
    highest = max(draws)
    if seeds > 1:
        return highest
    from scipy.stats import t

    count = len(draws)
    spread = statistics.stdev(draws) * (1 + 1 / count) ** 0.5
    return max(highest, statistics.fmean(draws) + float(t.ppf(LIKELY, count - 1)) * spread)
