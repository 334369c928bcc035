"""The jobs on one network: for each stage what it reads, what it writes, and its spec.

A job is (stage, dataset, variant, seed). `STAGES` is the same at every scale, and so are the rules made of it.
"""

import dataclasses

from ltpa.core import layout
from ltpa.core.patches import RELEASED
from ltpa.core.specs import Spec, companion_seed
from ltpa.plan.plan import Plan
from ltpa.protocols.base import Protocol
from ltpa.protocols.registry import built_in, find


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


def _measured(protocol: Protocol) -> Stage:
    artefacts = (layout.RECORD, layout.HITS) if protocol.per_image else (layout.RECORD,)
    return Stage(protocol.name, "measure", f"Evaluating ({protocol.name})", artefacts, module="measure")


_TRAINED = (layout.MODEL, layout.HISTORY, layout.RECORD, layout.LOGITS, layout.HITS)
STAGES = {
    stage.name: stage
    for stage in (
        Stage("train", "train", "Training", _TRAINED, trains=True),
        *(_measured(find(name)) for name in built_in()),
        Stage("patches", "patches", "Extracting patches:", (layout.RECORD, layout.BOXES, layout.BOXES_SIDECAR)),
    )
}


def stages(plan: Plan) -> dict[str, Stage]:
    """`STAGES`, and the protocols of the user's own that the configuration names."""
    return {**STAGES, **{name: _measured(each) for name, each in plan.protocols.items() if name not in STAGES}}


def stage_module(plan: Plan, stage: str) -> str:
    """The module that does a stage's work; datasets are prepared by one that is called as the stage."""
    known = stages(plan)
    return f"ltpa.stages.{(known[stage].module if stage in known else '') or stage}"


def networks(plan: Plan, stage: str) -> list[str]:
    """The names that a stage's `variant` can take: variants, or patch sources."""
    return list(plan.config.protocols.patches.sources) if stage == "patches" else list(plan.variants)


def spec(plan: Plan, stage: str, dataset: str, variant: str) -> Spec:
    """The spec of the jobs of a stage on a network, which is the same for every seed."""
    if stage == "train":
        return plan.train_spec(dataset, variant)
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
    manifest = plan.manifest(dataset)
    if stage == "train":
        source, recipe = plan.start(dataset, variant), plan.training(dataset, variant)
        start = _network(plan, *source, seed) if source else []
        files = [recipe.weight_file] if recipe.weight_file else []
        return [manifest, *start, *files, *_boxes(plan, dataset, recipe.patch_source, seed)]
    if stage == "patches":
        return [manifest, *_behind_patches(plan, dataset, variant, seed)]
    companion = plan.companion(stage, dataset, variant)
    beside = companion_seed(plan.companion_seeds(stage), int(seed))
    return [
        *_network(plan, dataset, variant, seed),
        *(_network(plan, dataset, companion, beside) if companion else []),
        *(plan.manifest(target.name) for target in plan.targets(stage, dataset, variant)),
        *_boxes(plan, dataset, plan.protocols[stage].patches(plan, dataset, variant), seed),
    ]


def _network(plan: Plan, dataset: str, variant: str, seed: int | str) -> list[str]:
    """Model and record of a trained network."""
    folder = layout.run_dir(plan.results, "train", dataset, variant, seed)
    return [str(folder / layout.MODEL), str(folder / layout.RECORD)]


def _boxes(plan: Plan, dataset: str, source: str, seed: int | str) -> list[str]:
    """The record of the patch boxes of a source; nothing without one."""
    return [str(layout.run_dir(plan.results, "patches", dataset, source, seed) / layout.RECORD)] if source else []


def _behind_patches(plan: Plan, dataset: str, source: str, seed: int | str) -> list[str]:
    """What the boxes of a patch source are made from, besides the dataset."""
    if plan.patch_source(source).mode == RELEASED:
        return list(plan.config.protocols.patches.released.values())
    network = plan.patch_network(source)
    return _network(plan, dataset, network, seed) if network else []
