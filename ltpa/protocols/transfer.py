"""Cross-domain classification (paper section 5.3, table 3): a linear SVM on frozen features, or the network's own head.

The network sees all targets first; the classifiers come after it. Each target's features are forgotten once its
classifiers are done.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

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
    Target,
)

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

SVM, DIRECT = "svm", "direct"  # what a target is for: all its images in folds, or the network's own classes


class TransferSettings(Settings):
    """How features are classified. The paper gives C = 1, five folds and the mean accuracy; the rest is our choice.

    Attributes:
        folds: number of stratified folds; at most as many as the groups of a dataset that has groups.
        C: weight of the hinge losses against the margin.
        multiclass: `ovr` (one problem per class) or `ovo` (libsvm, one per pair of classes, with the plain hinge loss;
            holds an N x N float64 matrix).
        solver: of `ovr`. `exact` is `ltpa.evaluation.active_set`; `liblinear` is scikit-learn's `LinearSVC` in its dual
            form, which stops at a tolerance or after 1,000 passes.
        loss: of `ovr`; `hinge` with `liblinear` alone.
        normalise: feature scalings to report, of `raw` and `l2` (rows of length one); the first is the headline.
        seed: of the assignment to folds and of liblinear.
        batch_size: images per forward pass.
        preprocessing: `network`, what each network was trained with (released code), or `zca`, contrast normalisation
            and whitening with the statistics of the evaluated set (the paper's text).
        storage: where the features wait, in `memory` (float32) or as `float16` files that are removed after use.
    """

    no_reading = frozenset({"batch_size", "storage"})

    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    C: Annotated[float, Field(gt=0, le=10**9)] = 1.0
    multiclass: Literal["ovr", "ovo"] = "ovr"
    solver: Literal["exact", "liblinear"] = "exact"
    loss: Literal["squared_hinge", "hinge"] = "squared_hinge"
    normalise: Annotated[ListOf[Literal["raw", "l2"]], Field(min_length=1), AfterValidator(once_each)] = ("raw", "l2")
    seed: Seed = 0
    batch_size: BatchSize = 500
    preprocessing: Literal["network", "zca"] = "network"
    storage: Literal["memory", "float16"] = "memory"

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        if self.loss == "hinge" and self.solver == "exact" and self.multiclass == "ovr":
            raise ValueError("loss hinge goes with solver liblinear; the exact solver knows the squared hinge alone")
        return self


class Transfer(Protocol):
    """Accuracy of linear classifiers on frozen features of other datasets."""

    name = "transfer"
    title = "Transfer to other datasets"
    about = "features of every target set and a linear SVM in folds"
    section = "5.3"
    Settings = TransferSettings
    metrics = (
        MetricKind("svm_accuracy_pct", "accuracy of a linear SVM", "%", "higher", "scaling of the features"),
        MetricKind("direct_accuracy_pct", "accuracy of the network's own head", "%", "higher", "mapping of classes"),
    )

    def targets(self, scene: Scene, dataset: str, variant: str) -> list[Target]:
        """Every set for transfer; and for networks of the source set those that share classes with it."""
        targets = [Target(name, SVM) for name in scene.using("transfer")]
        if dataset in scene.using("source"):
            targets += [
                Target(name, DIRECT, {"splits": ["train", "test"], "class_map": scene.declared(name).get("class_map")})
                for name in scene.using("direct")
            ]
        return targets

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """All images, in folds."""
        return Target(name, SVM)

    def compares_classes(self, settings: TransferSettings) -> bool:
        """A classifier tells classes apart."""
        return True

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: TransferSettings,
        context: Context,
    ) -> Measurement:
        """The folds' accuracies and the solver's facts go to the extra facts."""
        from ltpa.evaluation.direct import direct_metrics
        from ltpa.evaluation.features import View, feature_store, pooled_features, pooled_labels
        from ltpa.evaluation.svm import Classifier, cross_validate

        view = View(settings.preprocessing, settings.batch_size)
        classifier = Classifier(
            settings.folds, settings.C, settings.multiclass, settings.solver, settings.loss, settings.seed
        )
        metrics: list[Metric] = []
        extra: dict[str, dict[str, Any]] = {
            "fold_accuracies_pct": {}, "unconverged_fits": {}, "liblinear_fallbacks": {}, "largest_duality_gap": {},
        }  # fmt: skip
        pairs = list(zip(context.targets, datasets, strict=True))
        with feature_store(settings.storage, context.folder) as store:
            for target, dataset in pairs:
                if target.use == DIRECT:
                    metrics += direct_metrics(model, dataset, target.facts["splits"], target.facts["class_map"], view)
                else:
                    store.put(dataset.name, pooled_features(model, dataset, view))
            for dataset in (dataset for target, dataset in pairs if target.use != DIRECT):
                features, (labels, ids, groups) = store.take(dataset.name), pooled_labels(dataset)
                for normalise in settings.normalise:
                    found = cross_validate(
                        features,
                        labels,
                        classifier,
                        normalise,
                        dataset.name,
                        ids=ids,
                        groups=groups,
                        device=next(model.parameters()).device,
                    )
                    key = f"{dataset.name}/{normalise}"
                    metrics.append(Metric("svm_accuracy_pct", found.accuracy_pct, len(labels), dataset.name, normalise))
                    extra["fold_accuracies_pct"][key] = found.fold_accuracies_pct
                    extra["unconverged_fits"][key] = found.unconverged
                    extra["liblinear_fallbacks"][key] = found.fallbacks
                    extra["largest_duality_gap"][key] = found.largest_gap
        return Measurement(metrics, extra)
