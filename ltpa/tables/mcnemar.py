"""McNemar's exact test between networks, image by image, beside the tests over seeds of `ltpa.tables.paired`.

Records hold the images that a network gets right as packed bits, in hexadecimal (`extra.hits`, by metric and
condition), of metrics that are the share of images of which one prediction is right.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ltpa.core.records import Record
from ltpa.tables.frame import OK, RecordIndex, SlotRows
from ltpa.tables.paired import Comparison


def hits(record: Record, metric: str, condition: str) -> np.ndarray | None:
    """Which test images are classified correctly, (N,) bool; None where the record does not say."""
    packed = record.extra.get("hits", {}).get(metric, {}).get(condition)
    if packed is None:
        return None
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8))
    return bits[: record.extra["hits_images"]].astype(bool)


def mcnemar(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float]:
    """Images that only `one` gets right, images that only `other` does, and the exact two-sided p."""
    from scipy.stats import binomtest

    first, second = int((one & ~other).sum()), int((~one & other).sum())
    if first + second == 0:
        return 0, 0, 1.0
    return first, second, float(binomtest(first, first + second).pvalue)


def mcnemar_notes(
    items: Iterable[tuple[SlotRows, Comparison, str]], panels: Sequence[str], index: RecordIndex
) -> list[str]:
    """A line for each network and panel beside its baseline, where both records know the images they get right.

    `items` are networks' numbers, their comparisons, and the baseline's variant; `panels` the panels' titles.
    """
    lines = []
    for item, comparison, base in items:
        texts = []
        for row in item.rows:
            other = index.get((row.stage, row.dataset, base, row.seed or 0))
            if row.status != OK or other is None:
                continue
            record = index[row.stage, row.dataset, row.variant, row.seed or 0][0]
            ours, theirs = (hits(found, row.metric, row.condition) for found in (record, other[0]))
            if ours is not None and theirs is not None:
                only, lost, p = mcnemar(ours, theirs)
                texts.append(f"seed {row.seed}: {only} against {lost}, p = {p:.2g}")
        if texts:
            panel = panels[item.slot.panel]
            head = f"{item.slot.entry.label} against {comparison.baseline}" + (f" ({panel})" if panel else "")
            lines.append(f"{head}, images that only one gets right: {'; '.join(texts)}")
    if lines:
        lines.insert(
            0,
            "Image by image: McNemar's exact test, two-sided, for each seed, without correction; only where an image "
            "has one prediction.",
        )
    return lines
