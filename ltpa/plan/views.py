"""What the views need: the runs behind tables, checks, figures and the MLflow store, and the spec of each."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.declared import config_dir
from ltpa.core.records import epsilon_of
from ltpa.core.specs import Spec
from ltpa.models.registry import code_of, parse_options
from ltpa.pages.spec import ReportSpec, assets_hash
from ltpa.plan.declared_tables import table_declaration
from ltpa.plan.plan import Plan, Run
from ltpa.protocols.registry import has_checks, module_name
from ltpa.report.spec import FiguresSpec
from ltpa.tables.declaration import Description
from ltpa.tables.needs import needed
from ltpa.tables.published import Published, load_published, to_dicts
from ltpa.tables.spec import CheckSpec, TableSpec, TrackSpec


def table_runs(plan: Plan, table: str) -> list[Run]:
    """The runs whose records a table reads; none for a table of datasets."""
    return list(_table_runs(plan, table))


@functools.lru_cache(maxsize=64)
def _table_runs(plan: Plan, table: str) -> tuple[Run, ...]:
    declaration, published = table_declaration(plan, table)
    found = needed(declaration, published, plan.roles, plan.config.variants)
    return tuple(Run(*run) for run in found if run[0] != "prepare")


def table_manifests(plan: Plan, table: str) -> list[str]:
    """The dataset manifests a table reads."""
    declaration, published = table_declaration(plan, table)
    found = needed(declaration, published, plan.roles, plan.config.variants)
    return [plan.manifest(dataset) for stage, dataset, _ in found if stage == "prepare"]


def table_inputs(plan: Plan, table: str) -> list[str]:
    """The records a table reads, or the manifests."""
    return [*records(plan, table_runs(plan, table)), *table_manifests(plan, table)]


def table_spec(plan: Plan, table: str) -> TableSpec:
    """Everything that a table's files depend on: its declaration, and the records or manifests it reads."""
    declaration, published = table_declaration(plan, table)
    standins = {name: plan.datasets[name]["title"] for name in plan.config.datasets if "plays" in plan.datasets[name]}
    subsets = {
        role: dict(zip(plan.datasets[name]["subset_roles"], plan.datasets[name]["classes"], strict=True))
        for role, name in plan.roles.items()
        if "subset_roles" in plan.datasets[name]
    }
    if declaration.kind == "datasets":
        declaration = declaration.model_copy(update={"descriptions": _descriptions(plan, published)})
    return TableSpec(
        scale=plan.config.scale.name,
        records=_within(plan, table_inputs(plan, table)),
        table=table,
        comparable=plan.config.scale.comparable,
        scale_note=_note(plan, table_runs(plan, table)),
        seeds=plan.config.seeds if declaration.kind == "metrics" else [],
        variants=plan.config.variants,
        roles=plan.roles,
        standins=standins,
        declaration=declaration.model_dump(mode="json"),
        published=to_dicts(published),
        max_error_of_chance=learning_limits(plan),
        conditions=subsets,
        baselines={name: base for name in plan.config.variants if (base := plan.variants[name].baseline)},
    )


def _note(plan: Plan, runs: list[Run]) -> str:
    """What the head of a table says of the networks behind it: their size, weights that others trained, a warning."""
    groups = {plan.variants[run.variant].recipe for run in runs if run.variant in plan.variants}
    trained = [run for run in runs if run.variant in plan.variants]
    begun = sorted({text for run in trained if (text := plan.training(run.dataset, run.variant).pretraining)})
    seen = {run.dataset for run in trained} if begun else set()
    warnings = sorted({text for name in seen if (text := plan.declared_of_role(name, "contaminated"))})
    return ". ".join(filter(None, (scale_note(plan, groups), *begun, *warnings)))


def _descriptions(plan: Plan, published: Sequence[Published]) -> dict[str, Description]:
    """What is declared of each of the paper's datasets besides its images."""
    declared = {entry.source: plan.datasets[entry.source] for entry in published}
    return {
        role: Description(type=d["type"], resolution=d["resolution"], tasks=", ".join(d["tasks"]))
        for role, d in declared.items()
    }


def scale_note(plan: Plan, families: Collection[str]) -> str:
    """What the head of a table says about its networks' size; nothing where it is the paper's."""
    parts = []
    for family, options in plan.config.scale.networks.items():
        if family not in families:
            continue
        texts = [f"{key} {value}" for key, value in options.items()]
        parts.append(f"{family} networks with {', '.join(texts)}")
    return "; ".join(parts)


def source_runs(plan: Plan) -> list[Run]:
    """What every variant that is meant for it goes through on the first source set: training, and what looks there."""
    return [run for source in plan.using("source")[:1] for run in _runs_on(plan, source)]


def _runs_on(plan: Plan, source: str) -> list[Run]:
    variants = [variant for variant in plan.config.variants if plan.trains(source, variant)]
    measured = [
        Run(name, source, variant)
        for name, protocol in plan.protocols.items()
        for variant in variants
        if protocol.on_source and not plan.inapplicable(name, source, variant)
    ]
    return [Run("train", source, variant) for variant in variants] + measured


def patch_runs(plan: Plan) -> list[Run]:
    """Patch extraction on the fine-grained sets; a run's variant is the patch source.

    Sources of networks that the configuration does not train are left out.
    """
    usable = (None, *plan.config.variants)
    sources = [name for name in plan.config.protocols.patches.sources if plan.patch_network(name) in usable]
    return [Run("patches", dataset, source) for dataset in plan.fine_datasets for source in sources]


def all_runs(plan: Plan) -> list[Run]:
    """Every run of the road, each once: tables, first source set, patches, and what is behind them."""
    runs = [run for table in plan.config.tables for run in table_runs(plan, table)]
    return with_ancestors(plan, runs + source_runs(plan) + patch_runs(plan))


def resumable(plan: Plan) -> list[tuple[str, Spec]]:
    """Stage and spec of every job of the configuration that saves states to resume from, in a table or not."""
    pairs = [
        (dataset, variant)
        for dataset in plan.config.datasets
        for variant in plan.config.variants
        if plan.trains(dataset, variant)
    ]
    return [
        *(("train", plan.train_spec(*pair)) for pair in pairs),
        *(("patches", plan.patch_spec(run.dataset, run.variant)) for run in patch_runs(plan)),
    ]


def with_ancestors(plan: Plan, runs: Iterable[Run]) -> list[Run]:
    """Runs and all that they draw on, each once and after what it draws on."""
    found: dict[Run, None] = {}

    def add(run: Run) -> None:
        if run not in found:
            for behind in _behind(plan, run):
                add(behind)
            found[run] = None

    for run in runs:
        add(run)
    return list(found)


def _behind(plan: Plan, run: Run) -> list[Run]:
    """The runs whose results a run reads."""
    stage, dataset, variant = run
    if stage == "patches":
        network = plan.patch_network(variant)
        return [Run("train", dataset, network)] if network else []
    if stage == "train":
        source, patches = plan.start(dataset, variant), plan.training(dataset, variant).patch_source
        start = [Run("train", *source)] if source else []
        return start + ([Run("patches", dataset, patches)] if patches else [])
    companion, patches = plan.companion(stage, dataset, variant), plan.protocols[stage].patches(plan, dataset, variant)
    found = [Run("train", dataset, name) for name in (variant, companion) if name]
    return found + ([Run("patches", dataset, patches)] if patches else [])


def patch_pictures(plan: Plan) -> list[str]:
    """Pictures of the boxes of every patch source, of the first seed; none where boxes may be missing."""
    if plan.config.jobs.tolerate_failures:
        return []
    seed = plan.config.seeds[0]
    runs = [run for run in all_runs(plan) if run.stage == "patches"]
    return [str(layout.boxes_picture_path(plan.results, run.dataset, run.variant, seed)) for run in runs]


def step_pictures(plan: Plan) -> list[str]:
    """Pictures of the steps of every network that looks step by step, of the first seed."""
    if plan.config.jobs.tolerate_failures:
        return []
    seed = plan.config.seeds[0]
    runs = [
        run
        for run in all_runs(plan)
        if run.stage == "train" and parse_options(plan.variants[run.variant].architecture).has_steps
    ]
    return [str(layout.steps_picture_path(plan.results, run.dataset, run.variant, seed)) for run in runs]


def check_runs(plan: Plan) -> list[Run]:
    """What the checks look at: every training, all patch boxes, and what protocols have checks of."""
    stages = {"train", "patches", *(name for name, each in plan.protocols.items() if has_checks(each))}
    return [run for run in all_runs(plan) if run.stage in stages]


def records(plan: Plan, runs: list[Run]) -> list[str]:
    """Paths of the records of all seeds of `runs`."""
    return [path for run in runs for path in plan.records(run)]


def _within(plan: Plan, paths: Iterable[str]) -> list[str]:
    """Paths below the folder of the scale, relative to it."""
    return [path.removeprefix(f"{plan.results}/") for path in paths]


def table_files(plan: Plan, table: str) -> list[str]:
    """The rendered files of a table."""
    return [str(layout.table_path(plan.results, table, suffix)) for suffix in layout.TABLE_SUFFIXES]


def figure_runs(plan: Plan) -> list[Run]:
    """What the figures read besides networks: training and maps on the first source set, and what shows networks."""
    first = [run for run in source_runs(plan) if run.stage in ("train", "segmentation")]
    return first + [run for run in all_runs(plan) if run.stage in ("fgsm", "causal", "calibration")]


def network_code(plan: Plan, runs: Iterable[Run]) -> list[str]:
    """Where the code of the networks of some trainings lies."""
    architectures = [plan.train_spec(run.dataset, run.variant).architecture for run in runs]
    return sorted({place for architecture in architectures for place in code_of(architecture)})


def figures_spec(plan: Plan) -> FiguresSpec:
    """Overlays of every network that has maps, on the first source set."""
    variants = [run.variant for run in source_runs(plan) if run.stage == "segmentation"]
    source = next(iter(plan.using("source")), "")
    published: dict[str, dict[str, float]] = {}
    for entry in load_published(config_dir() / "published" / "figure6.csv"):
        if entry.value is not None:
            published.setdefault(entry.variant, {})[f"{epsilon_of(entry.condition):g}"] = entry.value
    return FiguresSpec(
        scale=plan.config.scale.name,
        dataset=source,
        threads=plan.config.jobs.threads,
        seeds=plan.config.seeds,
        images=6,
        labels={variant: plan.variants[variant].label for variant in plan.config.variants},
        overlays={variant: plan.saliency(variant) or {} for variant in variants},
        published=published,
        max_error_of_chance=learning_limits(plan),
        comparable=plan.config.scale.comparable,
        records=_within(plan, records(plan, figure_runs(plan))),
        code=network_code(plan, [Run("train", source, variant) for variant in variants]),
    )


def figure_files(plan: Plan) -> list[str]:
    """The index of these figures; none where no dataset plays the first source role, whose networks they show."""
    return [str(plan.results / "figures" / "index.json")] if figures_spec(plan).dataset else []


def figure_models(plan: Plan) -> list[str]:
    """The networks the overlays load."""
    spec = figures_spec(plan)
    folders = [
        layout.run_dir(plan.results, "train", spec.dataset, v, seed) for v in spec.overlays for seed in spec.seeds
    ]
    return [str(folder / name) for folder in folders for name in (layout.MODEL, layout.RECORD, layout.HISTORY)]


def check_spec(plan: Plan) -> CheckSpec:
    """What the checks must know, and where their code lies."""
    checked = {name: protocol for name, protocol in plan.protocols.items() if has_checks(protocol)}
    files = {name: plan.files[name] for name in checked if plan.files[name]}
    return CheckSpec(
        scale=plan.config.scale.name,
        records=_within(plan, records(plan, check_runs(plan))),
        max_error_of_chance=learning_limits(plan),
        strict=plan.config.protocols.checks.strict,
        protocols={name: protocol.check_facts(plan) for name, protocol in checked.items()},
        files=files,
        patch_limits=plan.config.protocols.patches.limits,
        code=sorted(files.get(name) or module_name(name) for name in checked),
    )


def learning_limits(plan: Plan) -> dict[str, float]:
    """The largest error, as a share of that of guessing, of networks that learned, by kind of learning."""
    return dict(plan.config.protocols.checks.max_error_of_chance)


def track_spec(plan: Plan) -> TrackSpec:
    """All records of a scale, and the tables to compare with the store."""
    return TrackSpec(
        scale=plan.config.scale.name,
        records=_within(plan, records(plan, all_runs(plan))),
        tables=_within(plan, (str(layout.table_path(plan.results, name, "tidy.csv")) for name in plan.config.tables)),
    )


def report_spec(plan: Plan) -> ReportSpec:
    """Everything that the report shows: all records, the tables' specs, the folders of pictures."""
    used = [name for name in plan.config.datasets if "plays" in plan.datasets[name]]
    indexes = [*figure_files(plan), str(layout.gallery_path(plan.results, "index", "json"))]
    return ReportSpec(
        scale=plan.config.scale.name,
        records=_within(plan, records(plan, all_runs(plan))),
        comparable=plan.config.scale.comparable,
        note=scale_note(plan, plan.config.scale.networks),
        seeds=plan.config.seeds,
        labels={variant: plan.variants[variant].label for variant in plan.config.variants},
        standins={name: plan.datasets[name]["title"] for name in used},
        tables=[dataclasses.asdict(table_spec(plan, name)) for name in plan.config.tables],
        figures=[str(Path(path).parent) for path in _within(plan, indexes)],
        configfile=_configfile(plan),
        max_error_of_chance=learning_limits(plan),
        assets=assets_hash(),
    )


def report_inputs(plan: Plan) -> list[str]:
    """What the report is made from: every record and every view."""
    views = [path for name in plan.config.tables for path in table_files(plan, name)]
    views += [str(plan.results / layout.CHECKS_JSON), *figure_files(plan)]
    return [*records(plan, all_runs(plan)), *views, str(layout.gallery_path(plan.results, "index", "json"))]


def _configfile(plan: Plan) -> str:
    """The configuration as a command names it: below the checkout, else its name; empty for the default one."""
    path, root = Path(plan.source), config_dir().resolve().parent
    if path.name == plan.source or not path.is_file():
        return "" if plan.source == "config" else path.name
    inside = path.resolve().relative_to(root).as_posix() if path.resolve().is_relative_to(root) else path.name
    return "" if inside == "config/config.yaml" else inside
