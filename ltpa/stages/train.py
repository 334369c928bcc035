"""Train one variant on one dataset, one network per seed: network, history, test logits, hits and record each."""

from collections.abc import Sequence
from pathlib import Path

from ltpa.core.registry import member
from ltpa.core.specs import TrainSpec
from ltpa.runtime.stopping import StopRequest
from ltpa.stages.training import TrainingJob, Watcher
from ltpa.training.recipe import read_recipe


def run(
    spec: TrainSpec,
    results: Path,
    seeds: Sequence[int],
    stop: StopRequest | None = None,
    tolerate_failure: bool = False,
    watcher: Watcher | None = None,
) -> None:
    """Train the spec's network for each seed and write its artefacts; see `TrainingJob` and `TrainingJob.run`.

    Raises:
        ConfigError: a setting of the recipe is not possible.
        DataError: patch boxes are missing or do not belong to these images.
        ModelError: the network or the weights to start from are missing, or not those that the spec names.
    """
    recipe = read_recipe(spec.recipe, f"recipe of {spec.variant} on {spec.dataset}")
    job: TrainingJob = member(recipe.job)(spec, recipe, results, stop, tolerate_failure, watcher)
    job.run(seeds)
