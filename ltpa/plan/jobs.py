"""The jobs on one network: for each stage what it reads, what it writes, and its spec.

A job is (stage, dataset, variant, seed). `STAGES` is the same at every scale, and so are the rules made of it.
"""

import dataclasses

from ltpa.core import layout
from ltpa.core.patches import RELEASED
from ltpa.core.specs import Spec, companion_seed
from ltpa.plan.plan import Plan
from ltpa.plan.twostream import EVALUATION, TRAINING, WEIGHTS_BY_NAME
from ltpa.protocols.registry import built_in


@dataclasses.dataclass(frozen=True)
class Stage:
    """One kind of job.

    Attributes:
        name: the rule's name, and the folder of its results.
        command: what `python -m ltpa` is asked to do.
        doing: how the job is announced, before the names of network and dataset.
        artefacts: what lies in a result's folder.
        trains: whether it is a training.
        module: that of `ltpa.stages` which does the work; empty where it is called as the stage.
    """

    name: str
    command: str
    doing: str
    artefacts: tuple[str, ...] = (layout.RECORD,)
    trains: bool = False
    module: str = ""


def _measured(name: str) -> Stage:
    return Stage(name, "measure", f"Evaluating ({name})", module="measure")


_TRAINED = (layout.MODEL, layout.HISTORY, layout.RECORD)
_PER_IMAGE = (layout.LOGITS, layout.HITS)
STAGES = {
    stage.name: stage
    for stage in (
        Stage("train", "train", "Training", (*_TRAINED, *_PER_IMAGE), trains=True),
        Stage(TRAINING, "twostream train", "Training", _TRAINED, trains=True),
        *map(_measured, built_in()),
        Stage("patches", "patches", "Extracting patches:", (layout.RECORD, layout.BOXES, layout.BOXES_SIDECAR)),
        Stage(EVALUATION, "twostream evaluate", f"Evaluating ({EVALUATION})", (layout.RECORD, layout.HITS)),
    )
}


def stages(plan: Plan) -> dict[str, Stage]:
    """`STAGES`, and the protocols of the user's own that the configuration names."""
    return {**STAGES, **{name: _measured(name) for name in plan.protocols if name not in STAGES}}


def stage_module(plan: Plan, stage: str) -> str:
    """The module that does a stage's work; datasets are prepared by one that is called as the stage."""
    known = stages(plan)
    return f"ltpa.stages.{(known[stage].module if stage in known else '') or stage}"


def networks(plan: Plan, stage: str) -> list[str]:
    """The names that a stage's `variant` can take: variants, rows of the two-stream network, or patch sources."""
    if stage == "patches":
        return list(plan.config.protocols.patches.sources)
    return plan.config.twostream.rows if stage in (TRAINING, EVALUATION) else list(plan.variants)


def spec(plan: Plan, stage: str, dataset: str, variant: str) -> Spec:
    """The spec of the jobs of a stage on a network, which is the same for every seed."""
    if stage == "train":
        return plan.train_spec(dataset, variant)
    if stage == TRAINING:
        return plan.twostream.training_spec(dataset, variant)
    if stage == EVALUATION:
        return plan.twostream.evaluation_spec(dataset, variant)
    if stage == "patches":
        return plan.patch_spec(dataset, variant)
    return plan.evaluation_spec(stage, dataset, variant)


def outputs(plan: Plan, stage: str) -> list[str]:
    """Names of the files that a job of a stage certainly leaves in its result's folder."""
    if stage == "patches" and plan.config.jobs.tolerate_failures:  # the training behind a source may have failed
        return [layout.RECORD]
    return list(stages(plan)[stage].artefacts)


def flags(plan: Plan, stage: Stage) -> str:
    """What a job's command says besides spec and seed."""
    return " --tolerate-failure" if stage.trains and plan.config.jobs.tolerate_failures else ""


def inputs(plan: Plan, stage: str, dataset: str, variant: str, seed: int | str) -> list[str]:
    """Paths of the files that one job reads."""
    if stage == "train":
        source = plan.start(dataset, variant)
        return [plan.manifest(dataset), *(_network(plan, "train", source, variant, seed) if source else [])]
    if stage == "patches":
        return [plan.manifest(dataset), *_behind_patches(plan, dataset, variant, seed)]
    if stage in (TRAINING, EVALUATION):
        trained = _network(plan, TRAINING, dataset, variant, seed) if stage == EVALUATION else []
        return [plan.manifest(dataset), *trained, *_behind_two_streams(plan, dataset, variant, seed)]
    companion = plan.companion(stage, dataset, variant)
    beside = companion_seed(plan.companion_seeds(stage), int(seed))
    return [
        *_network(plan, "train", dataset, variant, seed),
        *(_network(plan, "train", dataset, companion, beside) if companion else []),
        *(plan.manifest(target.name) for target in plan.targets(stage, dataset, variant)),
    ]


def _network(plan: Plan, stage: str, dataset: str, variant: str, seed: int | str) -> list[str]:
    """Model and record of a trained network."""
    folder = layout.run_dir(plan.results, stage, dataset, variant, seed)
    return [str(folder / layout.MODEL), str(folder / layout.RECORD)]


def _behind_patches(plan: Plan, dataset: str, source: str, seed: int | str) -> list[str]:
    """What the boxes of a patch source are made from, besides the dataset."""
    if plan.patch_source(source).mode == RELEASED:
        return list(plan.config.protocols.patches.released.values())
    network = plan.patch_network(source)
    return _network(plan, "train", dataset, network, seed) if network else []


def _behind_two_streams(plan: Plan, dataset: str, row: str, seed: int | str) -> list[str]:
    """The file of a row's initial weights, and the record of its patch boxes."""
    source, weights = plan.twostream.patches(row), plan.config.twostream.weights
    found = [] if weights in WEIGHTS_BY_NAME else [weights]
    if source:
        found.append(str(layout.run_dir(plan.results, "patches", dataset, source, seed) / layout.RECORD))
    return found
