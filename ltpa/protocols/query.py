"""Attention of one image under another image's global vector, on the test split (paper appendix A.5)."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ltpa.core.checks import Check
from ltpa.core.errors import ConfigError
from ltpa.core.records import Metric, Record
from ltpa.core.schema import ListOf, once_each
from ltpa.protocols.base import (
    BatchSize,
    Context,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
    Settings,
    check_variants,
)

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier


class QuerySettings(Settings):
    """Which images query which, and how many.

    Attributes:
        variants: the variants that are measured; each must have a global vector.
        query: an image of `other_class` for each, or the `first` test image for all others (as in the released code).
        pairs: how many, at most one per image.
        batch_size: images per forward pass.
        pc_max: largest relative change of a pc map under another image's global vector, which is zero in exact
            arithmetic (softmax is shift-invariant); all other maps must change.
    """

    not_of_job = frozenset({"variants", "pc_max"})
    no_reading = frozenset({"variants", "batch_size", "pc_max"})

    variants: Annotated[ListOf[str], AfterValidator(once_each)] = ("vgg-att2-concat-dp", "vgg-att3-concat-pc")
    query: Literal["other_class", "first"] = "other_class"
    pairs: Annotated[int, Field(ge=1, le=10**6)] = 200
    batch_size: BatchSize = 250
    pc_max: Annotated[float, Field(ge=0, le=1)] = 1e-4


class Query(Protocol):
    """Change of the maps over pairs of images, and the effective rank of the global vector over the whole split."""

    name = "query"
    title = "Another image's global vector"
    about = "attention under another image's global vector"
    section = "A.5"
    Settings = QuerySettings
    metrics = (
        MetricKind("relative_change", "relative change", condition="level"),
        MetricKind("kl_divergence", "KL divergence", "nats", condition="level"),
        MetricKind("max_abs_change", "largest change of a cell", condition="level"),
        MetricKind("moved_mass_pct", "moved mass", "%", condition="level"),
        MetricKind("matched_moved_mass_pct", "moved mass beyond temperature", "%", condition="level"),
        MetricKind("matched_kl_divergence", "KL divergence beyond temperature", "nats", condition="level"),
        MetricKind("effective_rank", "effective rank of the global vectors"),
    )
    on_source = True
    about_checks = ("query: change of the maps under another image's global vector; exactly none for pc, some for dp.",)

    def check_names(self, scene: Scene, settings: QuerySettings) -> None:
        """Refuse variants that are not declared, or have no global vector that another image could give."""
        check_variants(scene, "protocols.query.variants", settings.variants)
        for name in settings.variants:
            if not scene.is_queried(name):
                raise ConfigError(
                    f"key 'protocols.query.variants': {name} has no global vector that another image could give; "
                    "name a network with pc, dp or tanh attention"
                )

    def check_facts(self, scene: Scene) -> dict[str, Any]:
        """The compatibility of every network with a query, and how much a map of pc may change."""
        networks = {name: scene.network(name) for name in scene.trained_variants}
        return {
            "compatibility": {name: _compatibility(each) for name, each in networks.items() if each.query_levels},
            "pc_max": scene.settings(self.name).pc_max,
        }

    def checks(
        self, facts: Mapping[str, Any], subject: str, records: Sequence[Record], others: Mapping[str, list[Record]]
    ) -> Iterator[Check]:
        """Whether maps of pc stay as they are, and others change."""
        compatibility = facts["compatibility"].get(records[0].variant)
        if compatibility is None:
            return
        changes = [metric.value for record in records for metric in record.metrics if metric.name == "relative_change"]
        if not changes:
            yield Check("query", subject, None, "a change", False, "the record has no relative_change")
            return
        largest = max(changes)
        passed, limit = largest > 0, "> 0"
        if compatibility == "pc":
            passed, limit = largest <= facts["pc_max"], f"≤ {facts['pc_max']:g}"
        detail = f"largest mean relative change of a {compatibility} map under another query {largest:.2g}"
        yield Check("query", subject, largest, limit, passed, detail)

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Only the variants that the settings name."""
        return "" if variant in scene.settings(self.name).variants else "not among protocols.query.variants"

    def compares_classes(self, settings: QuerySettings) -> bool:
        """Queries of another class need two."""
        return settings.query == "other_class"

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Networks without attention have no maps to query."""
        return not model.attention_levels

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: QuerySettings,
        context: Context,
    ) -> Measurement:
        """Change of each level's maps over the chosen pairs, and the effective rank of g."""
        from ltpa.evaluation.inference import attention_maps, global_descriptors
        from ltpa.evaluation.query import choose_pairs, compare_maps, effective_rank

        metrics: list[Metric] = []
        for dataset in datasets:
            test = dataset.split("test")
            targets, queries = choose_pairs(test.labels, settings.pairs, settings.query)
            images = test.images[targets]
            own = attention_maps(model, images, settings.batch_size)
            queried = attention_maps(model, images, settings.batch_size, test.images[queries])
            for level, maps in own.items():
                change = dataclasses.asdict(compare_maps(maps, queried[level]))
                metrics += [Metric(name, value, len(targets), dataset.name, level) for name, value in change.items()]
            rank = effective_rank(global_descriptors(model, test.images, settings.batch_size))
            metrics.append(Metric("effective_rank", rank, len(test), dataset.name))
        return Measurement(metrics)


def _compatibility(options: Any) -> str:
    """`pc` where a softmax over pc scores makes every map independent of the query; otherwise what its scores are."""
    if not options.map_follows_query:
        return "pc"
    kind = str(getattr(options, "compatibility", options.family))
    return "pc-sigmoid" if kind == "pc" else kind
