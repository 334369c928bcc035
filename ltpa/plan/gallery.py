"""Figures of images and maps: what each shows, which networks and images it needs, and why one is left out."""

from typing import Any

from ltpa.core import layout
from ltpa.core.declared import load_declaration
from ltpa.plan.plan import Plan, Run
from ltpa.plan.schema import FigureEntry, check_entries
from ltpa.plan.views import all_runs, learning_limits, network_code
from ltpa.report.spec import GallerySpec


def gallery_spec(plan: Plan) -> GallerySpec:
    """All figures of `config/figures.yaml` that the configuration has the networks and images for.

    Raises:
        ConfigError: a declaration is wrong.
    """
    declared = load_declaration("figures")
    check_entries(declared, FigureEntry, "config/figures.yaml")
    trained = set(all_runs(plan))
    lacking = {name: _lacks(plan, entry, trained) for name, entry in declared.items()}
    figures = {name: _resolved(plan, entry) for name, entry in declared.items() if not lacking[name]}
    return GallerySpec(
        scale=plan.config.scale.name,
        dataset="",
        threads=plan.config.jobs.threads,
        seed=plan.config.seeds[0],
        figures=figures,
        code=network_code(plan, _networks(figures)),
        missing={name: reason for name, reason in lacking.items() if reason},
        max_error_of_chance=learning_limits(plan),
    )


def gallery_runs(plan: Plan) -> list[Run]:
    """The trainings whose networks the figures show."""
    return _networks(gallery_spec(plan).figures)


def _networks(figures: dict[str, Any]) -> list[Run]:
    columns = [column for figure in figures.values() for column in figure["columns"] if "variant" in column]
    return list(dict.fromkeys(Run("train", column["dataset"], column["variant"]) for column in columns))


def gallery_inputs(plan: Plan) -> list[str]:
    """Files the figures are drawn from: networks and their records, manifests of the images."""
    spec = gallery_spec(plan)
    folders = [layout.run_dir(plan.results, *run, spec.seed) for run in gallery_runs(plan)]
    datasets = dict.fromkeys(name for figure in spec.figures.values() for name in figure["images"]["datasets"])
    return [
        *(str(folder / name) for folder in folders for name in (layout.MODEL, layout.RECORD)),
        *(plan.manifest(name) for name in datasets),
    ]


def _lacks(plan: Plan, entry: dict[str, Any], trained: set[Run]) -> str:
    """What the configuration lacks for a figure; empty where it lacks nothing. No network is trained for a figure."""
    for role in (*entry["images"]["roles"], *(c["source"] for c in entry["columns"] if "source" in c)):
        if role not in plan.roles:
            return f"no dataset of the configuration stands for {role}"
    for column in entry["columns"]:
        if "variant" in column:
            run = Run("train", plan.roles[column["source"]], column["variant"])
            if run not in trained:
                return f"no table or check of the configuration trains {run.variant} on {run.dataset}"
    return ""


def _resolved(plan: Plan, entry: dict[str, Any]) -> dict[str, Any]:
    images = {key: value for key, value in entry["images"].items() if key != "roles"}
    datasets = [plan.roles[role] for role in entry["images"]["roles"]]
    return {
        "title": entry["title"],
        "paper": entry["paper"],
        "images": {**images, "datasets": datasets},
        "columns": [_resolved_column(plan, column) for column in entry["columns"]],
    }


def _resolved_column(plan: Plan, column: dict[str, Any]) -> dict[str, Any]:
    if "variant" not in column:
        return dict(column)
    variant = plan.variants[column["variant"]]
    kept = {key: value for key, value in column.items() if key != "source"}
    return {
        **kept,
        "dataset": plan.roles[column["source"]],
        "label": variant.label,
        "saliency": plan.saliency(column["variant"]),
        "masking": plan.masking(),
    }


def files(plan: Plan, figure: str) -> list[str]:
    """A figure in every format."""
    return [str(layout.gallery_path(plan.results, figure, suffix)) for suffix in layout.FIGURE_SUFFIXES]
