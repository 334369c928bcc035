"""The crossed bootstrap: an interval that speaks of other seeds and of other test images at once.

Seeds and test images are crossed: every seed's network sees every image, and the variance of a mean difference is
var_seed/n + var_image/N + rest/(nN). A t-test over seeds speaks of these images alone, McNemar's test of one run alone.
"""

import numpy as np

FEWEST = 5  # seeds; a bootstrap over fewer is too narrow, by a factor .7 for two
DRAWS = 4000
_SEED = 20180430  # the draws are the same for every table


def crossed_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean of `differences` (seeds, images), in their unit.

    Seeds and images are drawn with replacement, independently of each other, 4,000 times. Images with the same
    differences in all seeds are drawn together, by their number.
    """
    seeds, images = differences.shape
    generator = np.random.default_rng(_SEED)
    patterns, counts = np.unique(differences, axis=1, return_counts=True)
    drawn_images = generator.multinomial(images, counts / images, size=DRAWS)
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
    means = (drawn_seeds @ patterns.astype(float) * drawn_images).sum(axis=1) / (seeds * images)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
