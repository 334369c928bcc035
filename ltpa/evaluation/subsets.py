"""Which images of a set a costly measurement looks at: the same for every network and seed."""

import numpy as np

from ltpa.core.seeds import derive


def fixed_subset(count: int, wanted: int | None, dataset: str) -> np.ndarray:
    """Indices of the first `wanted` of `count` images in a random order that the dataset's name fixes, ascending.

    None, or more than there are, stands for all. A larger subset holds every smaller one.
    """
    if wanted is None or wanted >= count:
        return np.arange(count)
    order = np.random.default_rng(derive(0, "subset", dataset)).permutation(count)
    return np.sort(order[:wanted])
