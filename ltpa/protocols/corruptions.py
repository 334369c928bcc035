"""Errors under common corruptions of the test images: beyond the paper."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ltpa.core.records import Metric
from ltpa.protocols.base import (
    ChosenVariants,
    Context,
    ImageCount,
    Measurement,
    MetricKind,
    Protocol,
    Scene,
    Target,
    check_variants,
)

if TYPE_CHECKING:
    import numpy as np

    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier


CORRUPTED = "corrupted"  # the use of a dataset whose images others have corrupted


class CorruptionsSettings(ChosenVariants):
    """Which networks and images, and the network whose errors those of others are divided by.

    Attributes:
        variants: null for all.
        images: of the test split, the same for all networks; null for all.
        reference: the variant that mCE and relative mCE refer to, of the same seed.
        batch_size: images corrupted and passed at a time.
    """

    not_of_job = frozenset({"variants", "reference"})

    images: ImageCount | None = None
    reference: str = "vgg"


class Corruptions(Protocol):
    """Errors by kind and severity; mCE and relative mCE (Hendrycks and Dietterich, ICLR 2019)."""

    name = "corruptions"
    title = "Common corruptions"
    about = "errors under 15 kinds of corruption"
    Settings = CorruptionsSettings
    metrics = (
        MetricKind("clean_error_pct", "error on the images as they are", "%", "lower", of_labels=True),
        MetricKind("mean_error_pct", "error, mean over kinds and severities", "%", "lower", of_labels=True),
        MetricKind("error_pct", "error", "%", "lower", "`<kind>/<severity>`, `<kind>`, `severity <s>`", True),
        MetricKind("mce_pct", "mean over kinds of the error, in % of the reference's", "%", "lower", of_labels=True),
        MetricKind("relative_mce_pct", "the same of the error's increase", "%", "lower", of_labels=True),
    )

    def check_names(self, scene: Scene, settings: CorruptionsSettings) -> None:
        """Refuse variants that are not declared."""
        super().check_names(scene, settings)
        check_variants(scene, "protocols.corruptions.reference", [settings.reference])

    def targets(self, scene: Scene, dataset: str, variant: str) -> list[Target]:
        """The own test images, and those of the same classes that others have corrupted."""
        classes = scene.declared(dataset)["classes"]
        others = [name for name in scene.using(CORRUPTED) if scene.declared(name)["classes"] == classes]
        return [Target(dataset), *(Target(name, CORRUPTED) for name in others)]

    def companion(self, scene: Scene, dataset: str, variant: str) -> str | None:
        """The reference, where the configuration trains it and it is another network."""
        reference: str = scene.settings(self.name).reference
        return reference if reference != variant and reference in scene.trained_variants else None

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """Which network is the reference, and whether it is the measured one itself."""
        reference = scene.settings(self.name).reference
        return {"reference": reference, "is_reference": reference == variant}

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: CorruptionsSettings,
        context: Context,
    ) -> Measurement:
        """Errors relative to clean ones take the clean images of the first dataset.

        The record's facts name the set of parameters, and say why there is no mCE where there is none."""
        from ltpa.evaluation.corruption_errors import corruption_errors, errors_on, relative_to
        from ltpa.evaluation.corruptions import KINDS, PARAMETERS, SEVERITIES
        from ltpa.evaluation.subsets import fixed_subset

        metrics: list[Metric] = []
        facts: dict[str, Any] = {"parameters": PARAMETERS}
        networks = [model, *([context.companion] if context.companion is not None else [])]
        found: list[tuple[float, np.ndarray]] = []
        for target, dataset in zip(context.targets, datasets, strict=True):
            if target.use == CORRUPTED:
                others = errors_on(networks, dataset, settings.batch_size)
                found = [(clean, errors) for (clean, _), errors in zip(found, others, strict=True)]
                count = len(dataset.split(next(iter(KINDS)))) // len(SEVERITIES)
            else:
                test = dataset.split("test")
                chosen = fixed_subset(len(test), settings.images, dataset.name)
                found = corruption_errors(networks, test, chosen, dataset.name, settings.batch_size)
                count = len(chosen)
            (clean, errors), other = found[0], found[-1]
            shares: list[tuple[str, float | None, str]] = [
                ("clean_error_pct", clean, ""),
                ("mean_error_pct", errors.mean(), ""),
                *(("error_pct", row.mean(), kind) for kind, row in zip(KINDS, errors, strict=True)),
                *(("error_pct", column.mean(), f"severity {s}") for s, column in enumerate(errors.T, start=1)),
            ]
            for kind, row in zip(KINDS, errors, strict=True):
                shares += [("error_pct", error, f"{kind}/{s}") for s, error in zip(SEVERITIES, row, strict=True)]
            if context.companion is None and not context.inputs["is_reference"]:
                facts["no_mce"] = f"no network {context.inputs['reference']} to refer to ({context.no_companion})"
            else:
                for name, share in relative_to(clean, errors, *other).items():
                    shares.append((f"{name}_pct", share, ""))
                    if share is None:
                        facts[f"no_{name}"] = "under some kind the reference does not err, or no oftener than without"
            metrics += [
                Metric(name, 100 * float(share), count, dataset.name, condition)
                for name, share, condition in shares
                if share is not None
            ]
        return Measurement(metrics, facts)
