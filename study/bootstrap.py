"""How much the choice of test pictures moves r_mean: pictures drawn again with replacement, with their captions.

The ranks stay those among the whole test set; what is drawn again is which pictures and captions count.
"""

import numpy as np

from study.results import Ranks

DRAWS = 2000
SEED = 0
PERCENT = 95


def resampled_pictures(pictures: int, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """How often each of I pictures is drawn: `[draws, I]`, each row summing to I; the same for the same arguments."""
    return np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)


def r_means(weights: np.ndarray, ranks: Ranks) -> np.ndarray:
    """r_mean in percent of each draw: weights `[draws, I]` -> `[draws]`.

    A picture that is drawn twice counts twice, and so does each of its captions.
    """
    pictures = weights.shape[1]
    captions_of = np.bincount(ranks.own_image_of_text, minlength=pictures)  # [I]
    captions = weights @ captions_of  # [draws]
    total = np.zeros(len(weights))
    for k in (1, 5, 10):
        own_found = np.bincount(ranks.own_image_of_text, ranks.text_to_image < k, minlength=pictures)  # [I]
        total += weights @ (ranks.image_to_text < k) / pictures + weights @ own_found / captions
    return 100 * total / 6


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    beyond = (100 - PERCENT) / 2
    low, high = np.percentile(values, [beyond, 100 - beyond])
    return float(low), float(high)
