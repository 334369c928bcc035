"""Learning curves and attacks: a small chart for each network, all on the same scale."""

from collections import defaultdict

from markupsafe import Markup

from ltpa.core.records import epsilon_of
from ltpa.pages import charts
from ltpa.pages.run import Points, Run
from ltpa.pages.site import Site

Chart = tuple[str, Markup]


def add(site: Site, run: Run) -> None:
    """Add the page of curves."""
    chance = {
        (record.dataset, record.variant): metric.value
        for record in run.records.values()
        for metric in record.metrics
        if record.stage == "train" and metric.name == "chance_error_pct"
    }
    learning: dict[str, list[Chart]] = defaultdict(list)
    for (dataset, variant), series in run.curves.items():
        svg = charts.curves(
            series,
            title=f"Test error (%) of {variant} on {dataset} by epoch, {len(series)} seeds",
            across="epoch",
            dashed=chance.get((dataset, variant)),
            dashed_label="chance",
        )
        learning[dataset].append((run.label(variant), svg))
    site.page("curves.html", "curves.html", learning=dict(learning), attacks=_attacks(run))


def _attacks(run: Run) -> dict[str, list[Chart]]:
    """Charts of every metric that was measured at several step sizes, by its title and dataset."""
    published = _published(run)
    found: dict[tuple[str, str], dict[str, dict[int, Points]]] = defaultdict(lambda: defaultdict(dict))
    for record in run.records.values():
        by_metric: dict[str, Points] = defaultdict(list)
        for metric in record.metrics:
            if metric.condition.startswith("eps=") and metric.name.endswith("_pct"):
                by_metric[metric.name].append((epsilon_of(metric.condition), metric.value))
        for name, points in by_metric.items():
            if len(points) > 1:
                key = _title(record.stage, name), record.dataset
                found[key][record.variant][record.seed] = sorted(points)
    return {
        f"{what}, {dataset}": [
            (
                run.label(variant),
                charts.curves(
                    series,
                    title=f"{what} of {variant} on {dataset} by norm of the perturbation, {len(series)} seeds",
                    across="L∞ norm",
                    published=published.get((what, variant), []),
                    even=True,
                ),
            )
            for variant, series in networks.items()
        ]
        for (what, dataset), networks in found.items()
    }


def _published(run: Run) -> dict[tuple[str, str], Points]:
    """Published curves by title and variant, where this scale may be compared with them."""
    found: dict[tuple[str, str], Points] = defaultdict(list)
    for made in run.tables if run.spec.comparable else []:
        for panel in made.table.panels:
            for cell in (cell for row in panel.rows for cell in row.cells if cell is not None):
                tidy = cell.rows[0]
                if cell.entry.value is not None and tidy.condition.startswith("eps="):
                    found[_title(tidy.stage, tidy.metric), tidy.variant].append(
                        (epsilon_of(tidy.condition), cell.entry.value)
                    )
    return {key: sorted(set(points)) for key, points in found.items()}


def _title(stage: str, metric: str) -> str:
    return f"{stage}: {metric.removesuffix('_pct').replace('_', ' ')} (%)"
