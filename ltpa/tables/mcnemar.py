"""McNemar's exact test between networks, image by image, beside the tests over seeds of `ltpa.tables.paired`.

Records hold the images that a network gets right as packed bits, in hexadecimal (`extra.hits`, by condition).
"""

from collections.abc import Iterable, Mapping

import numpy as np

from ltpa.core.records import Record
from ltpa.tables.frame import OK, RecordIndex, SlotRows


def hits(record: Record, condition: str) -> np.ndarray | None:
    """Which test images are classified correctly, (N,) bool; None where the record does not say."""
    packed = record.extra.get("hits", {}).get(condition)
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


def mcnemar_notes(items: Iterable[SlotRows], baselines: Mapping[str, str], index: RecordIndex) -> list[str]:
    """A line for each network that stands beside its baseline, where both records know the images they get right."""
    lines = []
    for item in items:
        texts = []
        base = baselines[item.slot.entry.variant]
        for row in item.rows:
            other = index.get((row.stage, row.dataset, base, row.seed or 0))
            if row.status != OK or other is None:
                continue
            record = index[row.stage, row.dataset, row.variant, row.seed or 0][0]
            ours, theirs = hits(record, row.condition), hits(other[0], row.condition)
            if ours is not None and theirs is not None:
                only, lost, p = mcnemar(ours, theirs)
                texts.append(f"seed {row.seed}: {only} against {lost}, p = {p:.2g}")
        if texts:
            lines.append(f"{item.slot.entry.label} against {base}, images that only one gets right: {'; '.join(texts)}")
    if lines:
        lines.insert(0, "Image by image: McNemar's exact test, two-sided, for each seed, without correction.")
    return lines
