"""The two-stream rows of a configuration: their specs, and the files that each needs."""

import dataclasses
from pathlib import Path
from typing import Any

from ltpa.core.config import Config, unknown_name
from ltpa.core.declared import load_declaration
from ltpa.core.errors import ConfigError, ModelError
from ltpa.core.hashing import sha256_file
from ltpa.core.specs import EvaluationSpec, TwoStreamSpec
from ltpa.models.registry import parse_options
from ltpa.models.variants import check_named, declared_variants
from ltpa.training.recipe import TwoStreamRecipe

TRAINING, EVALUATION = "twostream", "finegrained"
SCRATCH = "scratch"
WEIGHTS_BY_NAME = ("imagenet", SCRATCH)  # anything else is a file


class TwoStreamPlan:
    """What `twostream` of a configuration means.

    Args:
        config, source: a checked configuration, and its name in error messages.
        datasets: declarations of the datasets.
        device: where networks are trained.

    Raises:
        ConfigError: a name that is not declared, a patch source that the configuration does not use, or options that
            are not possible.
    """

    def __init__(self, config: Config, source: str, datasets: dict[str, Any], device: str) -> None:
        self.config, self.source, self.datasets = config, source, datasets
        self.device = device
        declared = load_declaration("twostream")
        self.profiles, self.recipes = declared["profiles"], declared["recipes"]
        self.rows = {name: each for name, each in declared_variants().items() if each.learning == "two-stream"}
        chosen = config.twostream
        for key, names, known in (
            ("profile", [chosen.profile], self.profiles),
            ("recipe", [chosen.recipe], self.recipes),
            ("rows", chosen.rows, self.rows),
            ("patches", self._sources(), config.protocols.patches.sources),
        ):
            for name in names:
                if name not in known:
                    kind = {"rows": "row", "patches": "patch source of protocols.patches.sources"}.get(key, key)
                    raise ConfigError(f"{source}: key 'twostream.{key}': {unknown_name(kind, name, list(known))}")
        self._check_weights()
        for row in chosen.rows:
            self._architecture(row)
            TwoStreamRecipe.from_dict(self._recipe(row), f"config/twostream.yaml: recipe {chosen.recipe} (row {row})")
            wanted, there = chosen.boxes, config.protocols.patches.boxes
            if self.patches(row) and wanted > there:
                raise ConfigError(
                    f"{source}: key 'twostream.boxes' is {wanted}, but protocols.patches.boxes is {there}; "
                    "lower the one or raise the other"
                )

    def _check_weights(self) -> None:
        weights = self.config.twostream.weights
        if self.config.twostream.rows and weights not in WEIGHTS_BY_NAME and not Path(weights).is_file():
            raise ConfigError(
                f"{self.source}: key 'twostream.weights': {weights!r}: no such file; name imagenet, {SCRATCH} or a file"
            )

    def _sources(self) -> list[str]:
        return [source for row in self.config.twostream.rows if row in self.rows and (source := self.patches(row))]

    def patches(self, row: str) -> str:
        """The patch source of a row; empty without a local stream."""
        if self.rows[row].architecture.get("local") == "none":
            return ""
        return self.rows[row].patches or self.config.twostream.patches

    def has_steps(self, row: str) -> bool:
        """Whether the row's local stream goes through steps."""
        return bool(parse_options(self.rows[row].architecture).has_steps)

    def _architecture(self, row: str) -> dict[str, Any]:
        chosen = self.config.twostream
        laid = {**self.profiles[chosen.profile], **self.rows[row].architecture, **chosen.networks}
        try:
            options = parse_options(laid)
            check_named(row, options)
            architecture: dict[str, Any] = options.plain()
            return architecture
        except ModelError as error:
            raise ConfigError(f"{self.source}: key 'twostream' (row {row}): {error}") from error

    def _recipe(self, row: str) -> dict[str, Any]:
        return {**self.recipes[self.config.twostream.recipe], **self.rows[row].training}

    def training_spec(self, dataset: str, row: str) -> TwoStreamSpec:
        """How `row` is trained on `dataset`."""
        chosen = self.config.twostream
        return TwoStreamSpec(
            scale=self.config.scale.name,
            dataset=dataset,
            threads=self.config.jobs.threads,
            variant=row,
            architecture=self._architecture(row),
            num_classes=len(self.datasets[dataset]["classes"]),
            recipe=self._recipe(row),
            weights=chosen.weights,
            patches=self.patches(row),
            boxes=chosen.boxes,
            split=chosen.split,
            device=self.device,
        )

    def evaluation_spec(self, dataset: str, row: str) -> EvaluationSpec:
        """How the networks of `row` trained on `dataset` are evaluated."""
        training = self.training_spec(dataset, row)
        overlap = self.config.twostream.overlap.get(self.datasets[dataset].get("plays", dataset))
        return EvaluationSpec(
            scale=self.config.scale.name,
            dataset=dataset,
            threads=self.config.jobs.threads,
            variant=row,
            training=training.hash(),
            targets=[{"name": dataset}],
            protocol={
                "training": dataclasses.asdict(training),
                "overlap": self._overlap(overlap) if overlap else None,
            },
            device=self.device,
        )

    def _overlap(self, path: str) -> dict[str, str]:
        try:
            return {"path": path, "sha256": sha256_file(Path(path))}
        except OSError as error:
            raise ConfigError(
                f"{self.source}: key 'twostream.overlap': {path}: cannot read it ({error.strerror}); correct the path"
            ) from error

    def baselines(self) -> dict[str, str]:
        """Row to the row it is tested against, of those that this scale runs."""
        rows = self.config.twostream.rows
        return {row: base for row in rows if (base := self.rows[row].baseline) in rows}

    def note(self) -> str:
        """What the head of a table says of the networks behind it."""
        chosen = self.config.twostream
        weights = {"imagenet": "ImageNet weights", SCRATCH: "random initial weights"}.get(
            chosen.weights, chosen.weights
        )
        return f"two-stream networks of profile {chosen.profile}, recipe {chosen.recipe}, {weights}"

    def warning(self, roles: set[str]) -> str:
        """The warning of a table on Stanford Dogs whose networks have seen its images; empty otherwise."""
        if "stanforddogs" not in roles or self.config.twostream.weights == SCRATCH:
            return ""
        return (
            "Contaminated: the images of Stanford Dogs are ImageNet images, so networks that start from ImageNet "
            "weights have seen its test images with their breeds"
        )
