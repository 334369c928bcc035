"""Do attention maps depend on what was learnt? Parameters drawn anew, and another seed. Beyond the paper.

Maps of randomised networks are compared with the network's own by rank correlation. Without any dependence it is not
zero but that with another image's map, as all maps of a network may prefer some places.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from ltpa.core.records import Metric
from ltpa.core.schema import ListOf, once_each
from ltpa.core.seeds import derive
from ltpa.protocols.base import (
    BatchSize,
    Context,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
    Seed,
    Settings,
    check_variants,
    without_attention,
)

if TYPE_CHECKING:
    import numpy as np

    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

Count = Annotated[int, Field(ge=2, le=10**7)]


class SanitySettings(Settings):
    """How many images, and how many draws.

    Attributes:
        variants: the variants that are measured; null for all with trained attention.
        images: how many test images, spread evenly, maps are compared on.
        statistics_images: how many training images, spread evenly, batch normalisation is estimated anew on.
        draws: how often parameters are drawn.
        seed: of the draws, which are others for each network.
        batch_size: images per pass.
    """

    not_of_job = frozenset({"variants"})
    no_reading = frozenset({"variants", "images", "statistics_images", "draws", "batch_size"})

    variants: Annotated[ListOf[str], AfterValidator(once_each)] | None = None
    images: Count = 1000
    statistics_images: Count = 1000
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Seed = 0
    batch_size: BatchSize = 250


class Sanity(Protocol):
    """Mean rank correlation of maps with those of the randomised network, of another image, of another seed."""

    name = "sanity"
    title = "Randomised parameters"
    about = "attention maps with parameters drawn anew"
    Settings = SanitySettings
    other_seed = True
    metrics = (
        MetricKind("other_image_correlation", "with the map of another image", condition="level"),
        MetricKind("other_seed_correlation", "with the map of the network of another seed", condition="level"),
        MetricKind("cascade_*_correlation", "with all parts drawn anew from the output to this", condition="level"),
        MetricKind("alone_*_correlation", "with this part alone drawn anew", condition="level"),
        MetricKind("beyond_null_correlation", "all parts drawn anew, less another image's", "", "lower", "level"),
    )

    def check_names(self, scene: Scene, settings: SanitySettings) -> None:
        """Refuse variants that are not declared."""
        check_variants(scene, "protocols.sanity.variants", settings.variants or ())

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Only variants with trained attention, and of these the ones that the settings name."""
        return without_attention(scene, self.name, variant)

    def row_groups(self, scene: Scene, variant: str) -> Sequence[str]:
        """The levels."""
        return scene.network(variant).map_levels

    def companion(self, scene: Scene, dataset: str, variant: str) -> str | None:
        """The same variant, of another seed."""
        return variant

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Networks without attention have no maps; of those not of this package, the ones without any map."""
        from ltpa.evaluation.maps import shows_maps
        from ltpa.models.foreign import Foreign

        return not (shows_maps(model) if isinstance(model, Foreign) else model.attention_levels)

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: SanitySettings,
        context: Context,
    ) -> Measurement:
        """Images without a training split, as a user's own, serve for batch normalisation themselves; a note says so.

        Images whose map is constant are left out of a mean; n says how many remain.
        """
        from ltpa.evaluation.inference import spread
        from ltpa.evaluation.randomised import compared_maps, correlations, of_other_images, of_randomised

        metrics: list[Metric] = []
        facts: dict[str, Any] = {}
        for dataset in datasets:
            test, train = dataset.split("test"), dataset.splits.get("train")
            images = test.images[spread(len(test), settings.images)]
            seen = test if train is None else train
            statistics = seen.images[spread(len(seen), settings.statistics_images)]
            if train is None:
                facts["notes"] = ["no training images: batch normalisation is estimated anew on these images"]
            maps = compared_maps(model, images, settings.batch_size)
            found = {"other_image": [of_other_images(maps)]}
            if context.companion is not None:
                others = compared_maps(context.companion, images, settings.batch_size)
                found["other_seed"] = [correlations(maps, others)]
            for draw in range(settings.draws):
                seed = derive(settings.seed, self.name, context.seed, draw)
                for name, each in of_randomised(model, maps, images, statistics, settings.batch_size, seed):
                    found.setdefault(name, []).append(each)
            metrics += _means(found, dataset.name)
        return Measurement(metrics, facts)


def _means(found: "Mapping[str, Sequence[Mapping[str, np.ndarray]]]", dataset: str) -> list[Metric]:
    """Mean over images and draws, by name and level; and how far the last step of the cascade is from the null."""
    import numpy as np

    means: dict[tuple[str, str], Metric] = {}
    for name, draws in found.items():
        for level in draws[0]:
            values = np.mean([draw[level] for draw in draws], axis=0)
            values = values[~np.isnan(values)]
            if len(values):
                mean = Metric(f"{name}_correlation", float(values.mean()), len(values), dataset, level)
                means[name, level] = mean
    last = [name for name in found if name.startswith("cascade")][-1]
    beyond = [
        Metric("beyond_null_correlation", mean.value - means["other_image", level].value, mean.n, dataset, level)
        for (name, level), mean in means.items()
        if name == last and ("other_image", level) in means
    ]
    return [*means.values(), *beyond]
