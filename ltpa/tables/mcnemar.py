"""Networks against their baselines image by image: McNemar's exact test for each seed, and the crossed bootstrap.

Both read the files of `ltpa.core.per_image` beside the records, for metrics that are the share of images of which one
prediction is right, or wrong.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ltpa.core.per_image import load_hits
from ltpa.tables.crossed import DRAWS, FEWEST, crossed_interval
from ltpa.tables.frame import OK, RecordIndex, SlotRows, TidyRow
from ltpa.tables.paired import Comparison


def mcnemar(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float]:
    """Images that only `one` gets right, images that only `other` does, and the exact two-sided p."""
    from scipy.stats import binomtest

    first, second = int((one & ~other).sum()), int((~one & other).sum())
    if first + second == 0:
        return 0, 0, 1.0
    return first, second, float(binomtest(first, first + second).pvalue)


def image_notes(
    items: Iterable[tuple[SlotRows, Comparison, str]],
    panels: Sequence[str],
    columns: Sequence[str],
    index: RecordIndex,
) -> list[str]:
    """A line for each network, panel and column beside its baseline, where both records know the images they get right.

    `items` are networks' numbers, their comparisons, and the baseline's variant; `panels` and `columns` are titles.
    """
    lines = []
    bootstrapped = False
    for item, comparison, base in items:
        pairs = [(row, *hits) for row in item.rows if (hits := _hits(row, base, index)) is not None]
        if not pairs:
            continue
        texts = []
        for row, ours, theirs in pairs:
            only, lost, p = mcnemar(ours, theirs)
            texts.append(f"seed {row.seed}: {only} against {lost}, p = {p:.2g}")
        if len(pairs) >= FEWEST:
            bootstrapped = True
            differences = np.stack([100.0 * ours - 100.0 * theirs for _, ours, theirs in pairs])
            low, high = crossed_interval(differences)
            texts.append(f"right on {differences.mean():+.2f} % of images ({low:+.2f} to {high:+.2f})")
        places = ", ".join(filter(None, (panels[item.slot.panel], columns[item.slot.column])))
        lines.append(
            f"{item.slot.entry.label} against {comparison.baseline} ({places}), images that only one gets right: "
            f"{'; '.join(texts)}"
        )
    if lines:
        crossed = (
            f" In parentheses: 95 % interval over seeds and images, both drawn with replacement {DRAWS:,} times."
            if bootstrapped
            else ""
        )
        lines.insert(
            0,
            "Image by image: McNemar's exact test, two-sided, for each seed, without correction (the seeds share the "
            f"images, so their p values are not independent); only where an image has one prediction.{crossed}",
        )
    return lines


def _hits(row: TidyRow, base: str, index: RecordIndex) -> tuple[np.ndarray, np.ndarray] | None:
    """Which images a network and its baseline get right, of one seed; None where one of them does not know."""
    both = [index.get((row.stage, row.dataset, variant, row.seed or 0)) for variant in (row.variant, base)]
    if row.status != OK or None in both:
        return None
    ours, theirs = (load_hits(run.folder, run.record, row.metric, row.condition) for run in both if run)
    return None if ours is None or theirs is None else (ours, theirs)
