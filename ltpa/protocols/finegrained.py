"""What trained two-stream networks score (Shroff 2020): every readout under every patch policy, from one pass."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from ltpa.core.checks import Check, mean
from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.core.hashing import sha256_file
from ltpa.core.records import Metric, Record
from ltpa.core.schema import ListOf, once_each
from ltpa.protocols.base import Context, Measurement, MetricKind, Protocol, Scene, Settings, Target

if TYPE_CHECKING:
    import numpy as np

    from ltpa.data.arrays import PreparedDataset
    from ltpa.evaluation.twostream import Scores
    from ltpa.models.base import AttentionClassifier

_READOUT = "readout"


Controls = Annotated[ListOf[str], AfterValidator(once_each)]


class FinegrainedSettings(Settings):
    """What is compared, and what is left out.

    Attributes:
        overlap: by role, a file that lists test images that the pretraining has seen, an id a line; the accuracy
            without them is reported, too.
        local_beats: by dataset and variant, the variant's controls: on patches that hold the part its local stream must
            be right oftener than its global one on the same images, and than the local stream of each control.
    """

    not_of_job = frozenset({"overlap", "local_beats"})
    no_reading = frozenset({"overlap", "local_beats"})

    overlap: dict[str, str] = Field(default={})
    local_beats: dict[str, Annotated[dict[str, Controls], Field(min_length=1)]] = Field(default={})


def _accuracy(policy: str, title: str) -> MetricKind:
    return MetricKind(f"{policy}_accuracy_pct", title, "%", "higher", _READOUT, of_labels=True)


class Finegrained(Protocol):
    """Accuracies by patch policy (metric) and readout (condition); with parts, those on patches that hold one."""

    name = "finegrained"
    title = "Readouts of two-stream networks"
    about = "every readout of a two-stream network under every patch policy"
    section = "Shroff 2020, chapters 5 and 6"
    Settings = FinegrainedSettings
    learning = ("two-stream",)
    metrics = (
        _accuracy("mean_n", "accuracy, local logits averaged over all patches"),
        _accuracy("top1", "accuracy on the best-ranked patch"),
        _accuracy("random1", "accuracy on one random patch, mean of 10 draws"),
        _accuracy("max_n", "accuracy by the most certain patch"),
        MetricKind("random1_draws_sd_pct", "standard deviation over these draws", "%", "", _READOUT),
        MetricKind("chance_accuracy_pct", "accuracy of guessing", "%"),
        MetricKind("parity_best_test_accuracy_pct", "accuracy of the best epoch on the test images", "%", "higher"),
        MetricKind("part_held_pct", "patches that hold the part", "%", "higher"),
        _accuracy("part_held", "accuracy on patches that hold the part"),
        _accuracy("part_missed", "accuracy on patches that do not"),
    )
    per_image = True
    about_checks = (
        "local beats global: accuracy of the local stream less the global one's, on patches that hold the part.",
        "local beats control: the same, less that of the local stream of a network trained on other patches.",
    )

    def check_names(self, scene: Scene, settings: FinegrainedSettings) -> None:
        """Refuse lists of overlaps that cannot be read, and comparisons of what no job measures."""
        for role in settings.overlap:
            _overlap(settings, role)
        for dataset, compared in settings.local_beats.items():
            self._check_comparisons(scene, dataset, compared)

    def _check_comparisons(self, scene: Scene, dataset: str, compared: Mapping[str, Sequence[str]]) -> None:
        key = "key 'protocols.finegrained.local_beats'"
        if dataset not in (fine := scene.using("fine")):
            raise ConfigError(f"{key}: {unknown_name('fine-grained dataset', dataset, fine)}")
        if not scene.knows(dataset, "parts"):
            raise ConfigError(f"{key}: {dataset} knows no parts to judge patches by; drop its comparisons")
        measured = [name for name in scene.trained_variants if scene.network(name).learning in self.learning]
        for variant, controls in compared.items():
            for name in (variant, *controls):
                if name not in measured:
                    raise ConfigError(f"{key}: {unknown_name('two-stream network', name, measured)}")
                recipe = scene.training(dataset, name)
                if not recipe.patch_source:
                    raise ConfigError(f"{key}: {name} has no local stream; drop it")
                if recipe.split != "test":
                    raise ConfigError(f"{key}: parts are those of test images, and {name} is tested on others; drop it")
            if variant in controls:
                raise ConfigError(f"{key}: {variant} is its own control; drop it from the list")

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Fine-grained sets alone."""
        return "" if dataset in scene.using("fine") else "not a fine-grained set"

    def check_facts(self, scene: Scene) -> dict[str, Any]:
        """Which local streams must beat what."""
        return {"local_beats": scene.settings(self.name).model_dump(mode="json")["local_beats"]}

    def checks(
        self, facts: Mapping[str, Any], subject: str, records: Sequence[Record], others: Mapping[str, list[Record]]
    ) -> Iterator[Check]:
        """Where it is asked for: the local stream against the global one, and against those of the controls."""
        controls = facts["local_beats"].get(records[0].dataset, {}).get(records[0].variant)
        if controls is None:
            return
        yield _beats_global(subject, records)
        for name in controls:
            yield _beats_control(subject, records, name, others.get(name, []))

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """What the network was trained and tested on, and the list of its dataset's overlap."""
        recipe = scene.training(dataset, variant)
        return {
            "boxes": recipe.boxes,
            "split": recipe.split,
            "overlap": _overlap(scene.settings(self.name), scene.role(dataset)),
        }

    def patches(self, scene: Scene, dataset: str, variant: str) -> str:
        """Those that the network was trained on."""
        source: str = scene.training(dataset, variant).patch_source
        return source

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """None: a folder of images has no patch boxes."""
        raise ConfigError(
            f"{self.name}: reads patch boxes, which a folder of images does not have; prepare it as a dataset"
        )

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: FinegrainedSettings,
        context: Context,
    ) -> Measurement:
        """One pass over the images that the network is tested on; right and wrong images are kept."""
        from ltpa.evaluation.twostream import JOINT, MEAN_N, TOP1, score
        from ltpa.models.twostream.network import TwoStream
        from ltpa.training.fine_data import VALIDATION, fine_splits

        assert isinstance(model, TwoStream) and context.trained is not None
        (dataset,) = datasets
        split = context.inputs["split"]
        _, test = fine_splits(dataset, context.boxes, context.inputs["boxes"], split)
        scores = score(model, test.images, test.labels, test.boxes, context.seed)
        target = f"{dataset.name}/{split}" if split == VALIDATION else dataset.name
        metrics = _accuracies(scores, target, len(dataset.classes))
        if split != VALIDATION:
            metrics += _part_metrics(dataset, test.boxes, scores, target)
            metrics += _without_overlap(context.inputs["overlap"], dataset, scores, target)
        metrics += [m for m in context.trained.metrics if m.name == "parity_best_test_accuracy_pct"]
        hits = {(f"{policy}_accuracy_pct", JOINT): scores.correct[policy, JOINT] for policy in (MEAN_N, TOP1)}
        origin = {key: context.trained.extra[key] for key in ("weights", "patches")}
        return Measurement(metrics, origin, hits)


def _overlap(settings: FinegrainedSettings, role: str) -> dict[str, str] | None:
    """Path and SHA-256 of the list for a role; None where there is none."""
    if role not in settings.overlap:
        return None
    path = settings.overlap[role]
    try:
        return {"path": path, "sha256": sha256_file(Path(path))}
    except OSError as error:
        key = f"key 'protocols.finegrained.overlap.{role}'"
        raise ConfigError(f"{key}: {path}: cannot read it ({error.strerror}); correct the path") from error


def _accuracies(scores: "Scores", target: str, classes: int) -> list[Metric]:
    from ltpa.evaluation.twostream import JOINT, MEAN_N, RANDOM1

    metrics: list[Metric] = []
    for (policy, readout), correct in scores.correct.items():
        images = correct.shape[-1]
        metrics.append(Metric(f"{policy}_accuracy_pct", 100 * float(correct.mean()), images, target, readout))
        if policy == RANDOM1 and readout == JOINT and correct.ndim == 2:
            spread = float(correct.mean(axis=1).std(ddof=1))
            metrics.append(Metric("random1_draws_sd_pct", 100 * spread, len(correct), target, readout))
    metrics.append(Metric("chance_accuracy_pct", 100 / classes, len(scores.correct[MEAN_N, JOINT]), target))
    return metrics


def _part_metrics(
    dataset: "PreparedDataset", boxes: "np.ndarray | None", scores: "Scores", target: str
) -> list[Metric]:
    """Where parts are known: how many patches hold the whole part, and what the streams score on those pairs."""
    import numpy as np

    from ltpa.evaluation.twostream import holds_part

    parts = dataset.split("test").parts
    if parts is None or boxes is None:
        return []
    held = holds_part(boxes, np.asarray(parts))
    metrics = [Metric("part_held_pct", 100 * float(held.mean()), held.size, target)]
    for readout, correct in scores.patches.items():
        for name, chosen in (("part_held_accuracy_pct", held), ("part_missed_accuracy_pct", ~held)):
            if chosen.any():
                metrics.append(Metric(name, 100 * float(correct[chosen].mean()), int(chosen.sum()), target, readout))
    return metrics


def _without_overlap(
    listed: Mapping[str, str] | None, dataset: "PreparedDataset", scores: "Scores", target: str
) -> list[Metric]:
    """The headline accuracy without test images that the pretraining has seen, where a list names them."""
    import numpy as np

    from ltpa.evaluation.twostream import JOINT, MEAN_N

    if not listed:
        return []
    try:
        seen = {line.strip() for line in Path(listed["path"]).read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{listed['path']}: cannot read the overlap list ({error}); correct protocols.finegrained.overlap"
        ) from error
    ids = dataset.split("test").ids
    kept = np.array([not any(f"/{image}".endswith(f"/{name}") for name in seen) for image in ids])
    if kept.all():
        raise ConfigError(f"{listed['path']}: names no test image of {dataset.name}; list image paths, one a line")
    correct = scores.correct[MEAN_N, JOINT][kept]
    return [Metric("mean_n_accuracy_pct", 100 * float(correct.mean()), int(kept.sum()), target, "joint_minus_overlap")]


def _beats_global(subject: str, group: Sequence[Record]) -> Check:
    """The local stream against the global one of the same images, on patches that hold the part."""
    local, whole = (mean(group, "part_held_accuracy_pct", readout) for readout in ("local", "global"))
    detail = (
        f"{mean(group, 'part_held_pct'):.0f} % of patches hold the part; on these local {local:.1f} %, global "
        f"{whole:.1f} % of the same images"
    )
    return Check("local beats global", subject, local - whole, "> 0", local > whole, detail)


def _beats_control(subject: str, group: Sequence[Record], control: str, others: Sequence[Record]) -> Check:
    """The local stream against that of a control, each on those of its patches that hold the part."""
    subject = f"{subject} and {control}"
    good = [record for record in others if record.status == "ok"]
    if not good:
        return Check("local beats control", subject, None, "> 0", False, f"no result of {control}")
    found = []
    for records in (group, good):
        held, alone = (mean(records, name, "local") for name in ("part_held_accuracy_pct", "mean_n_accuracy_pct"))
        found.append((held, f"{held:.1f} % (mean of all an image's patches {alone:.1f} %)"))
    (ours, ours_text), (theirs, theirs_text) = found
    detail = f"local stream on patches that hold the part {ours_text}; that of the control {theirs_text}"
    return Check("local beats control", subject, ours - theirs, "> 0", ours > theirs, detail)
