"""Attention maps replaced inside the network: is the map used, and is it needed? Beyond the paper.

A network that was trained with its map suffers from another one, whether it needs a map or not. So beside every drop
stands what a readout reaches that is fitted anew to the vectors under uniform weights: plain averaging.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from ltpa.core.records import Metric
from ltpa.core.schema import ListOf, once_each
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
    from ltpa.evaluation.causal import Replaced
    from ltpa.models.base import AttentionClassifier

Count = Annotated[int, Field(ge=1, le=10**7)]


class CausalSettings(Settings):
    """How many images, and how many draws.

    Attributes:
        variants: the variants that are measured; null for all with trained attention.
        training_images: how many training images, spread evenly, the mean map and the readouts are made from.
        probed_images: how many test images, spread evenly, leave-one-out and adversarial maps are made for.
        draws: of the random cells of `permuted`.
        seed: of these draws, and of where the search for adversarial maps starts.
        batch_size: images per pass.
    """

    not_of_job = frozenset({"variants"})
    no_reading = frozenset({"variants", "training_images", "probed_images", "batch_size"})

    variants: Annotated[ListOf[str], AfterValidator(once_each)] | None = None
    training_images: Count = 10_000
    probed_images: Count = 500
    draws: Annotated[int, Field(ge=1, le=1000)] = 5
    seed: Seed = 0
    batch_size: BatchSize = 250


_REPLACED = "replacement and scope"


class Causal(Protocol):
    """Accuracy and output under replaced maps.

    Conditions such as `uniform all` name the replacement (`ltpa.evaluation.causal`) and the scope: `all` levels
    together, and each alone where there are several.
    """

    name = "causal"
    title = "Replaced maps"
    about = "accuracy with attention maps replaced inside the network"
    Settings = CausalSettings
    metrics = (
        MetricKind("own_accuracy_pct", "accuracy under the own maps", "%", "higher", of_labels=True),
        MetricKind("accuracy_pct", "accuracy under the replaced maps", "%", "", _REPLACED, True),
        MetricKind("drop_pct", "loss of accuracy", "%", "", _REPLACED, True),
        MetricKind("agreement_pct", "images whose predicted class stays", "%", "", _REPLACED),
        MetricKind("output_moved_pct", "median total variation distance from the own output", "%", "", _REPLACED),
        MetricKind("refit_accuracy_pct", "accuracy of a readout fitted anew", "%", "higher", _REPLACED, True),
        MetricKind("entropy_pct", "entropy of the own map, share of the largest", "%", "", "scope"),
        MetricKind("leave_one_out_tau", "Kendall's tau of weights and of what leaving them out moves", "", "", "scope"),
        MetricKind("adversarial_jsd", "median divergence of a map with the same output", "nats", "", "scope"),
    )

    def check_names(self, scene: Scene, settings: CausalSettings) -> None:
        """Refuse variants that are not declared."""
        check_variants(scene, "protocols.causal.variants", settings.variants or ())

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Only variants with trained attention that takes other maps, and of these the ones that the settings name."""
        if scene.network(variant).map_levels and not scene.network(variant).takes_other_maps:
            return "its maps cannot be replaced one by one"
        return without_attention(scene, self.name, variant)

    def row_groups(self, scene: Scene, variant: str) -> Sequence[str]:
        """The scopes."""
        levels = scene.network(variant).map_levels
        return ("all", *(levels if len(levels) > 1 else ()))

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Networks without attention have no maps to replace."""
        return not model.attention_levels

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: CausalSettings,
        context: Context,
    ) -> Measurement:
        """Images without a training split, as a user's own, get no readouts, and their own mean map; a note says so.

        The record's facts say which readouts did not converge.
        """
        from ltpa.evaluation.causal import replace_maps, training_vectors
        from ltpa.evaluation.inference import spread

        metrics: list[Metric] = []
        facts: dict[str, Any] = {}
        for dataset in datasets:
            test, train = dataset.split("test"), dataset.splits.get("train")
            seen = test if train is None else train
            rows = spread(len(seen), settings.training_images)
            vectors, mean_maps = training_vectors(model, seen.images[rows], settings.batch_size)
            found = replace_maps(
                model, test.images, test.labels, mean_maps, settings.batch_size, settings.draws, settings.seed
            )
            metrics += _of_replacements(found, test.labels, dataset.name)
            if train is None:
                facts["notes"] = ["no training images: no readouts, and the mean map is that of these images"]
            else:
                readouts, facts["unconverged_readouts"] = _of_readouts(
                    vectors, seen.labels[rows], found, test.labels, dataset
                )
                metrics += readouts
            probed = test.images[spread(len(test), settings.probed_images)]
            metrics += _of_maps(model, found, probed, settings, dataset.name)
        return Measurement(metrics, facts)


def _of_replacements(found: "Replaced", labels: "np.ndarray", dataset: str) -> Iterator[Metric]:
    import numpy as np

    own = found.predicted == labels
    yield Metric("own_accuracy_pct", 100 * float(own.mean()), len(labels), dataset)
    for (scope, kind), effect in found.effects.items():
        known, condition = effect.known, f"{kind} {scope}"
        count = int(known.sum())
        if not count:
            continue
        right = 100 * float((effect.predicted == labels)[:, known].mean())
        same = 100 * float((effect.predicted == found.predicted)[:, known].mean())
        yield Metric("accuracy_pct", right, count, dataset, condition)
        yield Metric("drop_pct", 100 * float(own[known].mean()) - right, count, dataset, condition)
        yield Metric("agreement_pct", same, count, dataset, condition)
        yield Metric("output_moved_pct", 100 * float(np.median(effect.distance[:, known])), count, dataset, condition)


def _of_readouts(
    vectors: "dict[str, np.ndarray]",
    train: "np.ndarray",
    found: "Replaced",
    test: "np.ndarray",
    dataset: "PreparedDataset",
) -> tuple[list[Metric], list[str]]:
    """Accuracy of a readout of own and of uniform weights, and the conditions of those that did not converge."""
    from ltpa.evaluation.causal import OWN, UNIFORM
    from ltpa.evaluation.readout import fit_readout

    metrics, failed = [], []
    for name, rows in vectors.items():
        condition = name if name == OWN else f"{UNIFORM} {name}"
        readout = fit_readout(rows, train, len(dataset.classes))
        right = readout.predict(found.vectors[name]) == test
        metrics.append(Metric("refit_accuracy_pct", 100 * float(right.mean()), len(test), dataset.name, condition))
        failed += [] if readout.converged else [condition]
    return metrics, failed


def _of_maps(
    model: "AttentionClassifier", found: "Replaced", probed: "np.ndarray", settings: CausalSettings, dataset: str
) -> Iterator[Metric]:
    """Entropy, leave-one-out and adversarial maps by level, and as `all` over the levels that have such a number."""
    import numpy as np

    from ltpa.evaluation.causal import scopes
    from ltpa.evaluation.map_probes import probe

    taus, divergences = probe(model, probed, settings.batch_size, settings.seed)
    for scope, levels in scopes(model).items():
        entropy = np.mean([found.entropy[level] for level in levels], axis=0)
        yield Metric("entropy_pct", 100 * float(entropy.mean()), len(entropy), dataset, scope)
        tau = np.concatenate([taus[level] for level in levels if level in taus] or [np.empty(0)])
        tau = tau[~np.isnan(tau)]
        if len(tau):
            yield Metric("leave_one_out_tau", float(tau.mean()), len(tau), dataset, scope)
        if scope in divergences:
            moved = divergences[scope]
            yield Metric("adversarial_jsd", float(np.median(moved)), len(moved), dataset, scope)
