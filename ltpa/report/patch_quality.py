"""The statistics of patch boxes side by side: one column per source, and those known of the released boxes."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ltpa.core.errors import ConfigError
from ltpa.core.records import Record
from ltpa.core.text import markdown_text

_REFERENCES = ("released_train", "released_test", "center142_test", "random_test")


def load_reference(path: Path) -> dict[str, dict[str, str]]:
    """Statistics of the boxes released for CUB-200-2011 and of two controls, as texts, by statistic and column.

    Raises:
        ConfigError: the file is missing or has other columns.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {row["statistic"]: {name: row[name] for name in (*_REFERENCES, "note")} for row in rows}
    except (OSError, KeyError) as error:
        raise ConfigError(f"{path}: not the reference statistics ({error}); restore it from the repository") from error


def quality_table(records: Sequence[Record], split: str, reference: dict[str, dict[str, str]]) -> str:
    """A Markdown table of the means over seeds, one row per statistic of the boxes of `split`.

    A cell is empty where objects or parts are not known, or no released value is.
    """
    from tabulate import tabulate

    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for metric in record.metrics:
            if metric.name == "patch_statistic" and metric.target.endswith(f"/{split}"):
                values[metric.condition][record.variant].append(metric.value)
    sources = sorted({record.variant for record in records})
    rows = []
    for statistic, by_source in values.items():
        cells = [f"{sum(numbers) / len(numbers):.3f}" if (numbers := by_source.get(name)) else "" for name in sources]
        known = reference.get(statistic, {})
        texts = (known.get(name, "") for name in (*_REFERENCES, "note"))
        rows.append([markdown_text(statistic), *cells, *map(markdown_text, texts)])
    headers = ["statistic", *map(markdown_text, sources), *(name.replace("_", " ") for name in _REFERENCES), "note"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
