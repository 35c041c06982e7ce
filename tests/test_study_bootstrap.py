"""study/bootstrap.py: intervals over test pictures."""

import numpy as np
import pytest

from study.bootstrap import interval, r_means, resampled_pictures
from study.results import Ranks
from tests.small_study import figures_of, random_ranks

# Two pictures, the first with two captions, the second with one. Counted by hand below.
BY_HAND = Ranks(
    image_to_text=np.array([0, 7]),
    text_to_image=np.array([0, 3, 12]),
    own_image_of_text=np.array([0, 0, 1]),
    images=np.array(["a.jpg", "b.jpg"]),
)


def test_a_case_computed_by_hand():
    weights = np.array([[2, 0], [1, 1], [0, 2]])
    # Each line: R@1, 5, 10 image to text, then text to image, of the drawn pictures and their captions.
    both_first = (1 + 1 + 1 + 2 / 4 + 4 / 4 + 4 / 4) / 6  # 4 captions: ranks 0, 3, 0, 3
    one_each = (1 / 2 + 1 / 2 + 2 / 2 + 1 / 3 + 2 / 3 + 2 / 3) / 6  # 3 captions: ranks 0, 3, 12
    both_second = (0 + 0 + 1 + 0 + 0 + 0) / 6  # 2 captions, rank 12 both
    expected = [100 * both_first, 100 * one_each, 100 * both_second]
    np.testing.assert_allclose(r_means(weights, BY_HAND), expected, rtol=1e-12)


def test_each_picture_once_is_the_figure_itself():
    ranks = random_ranks()
    assert r_means(np.ones((1, 40)), ranks)[0] == pytest.approx(figures_of(ranks)["r_mean"], abs=0.01)


def test_a_draw_has_as_many_pictures_as_the_set_and_the_same_ones_again():
    weights = resampled_pictures(40, draws=1500)
    assert weights.shape == (1500, 40) and (weights.sum(axis=1) == 40).all()
    assert np.array_equal(weights, resampled_pictures(40, draws=1500))
    assert not np.array_equal(weights, resampled_pictures(40, draws=1500, seed=1))
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)


def test_the_spread_of_draws_is_the_binomial_one():
    """All six figures are the same coin of 400 pictures with a caption each, so r_mean's spread is known."""
    missed = np.where(np.random.default_rng(0).random(400) < 0.3, 0, 50)
    ranks = Ranks(missed, missed, np.arange(400), np.arange(400).astype(str))
    p = (missed == 0).mean()
    draws = r_means(resampled_pictures(400, draws=2000), ranks)
    expected = 100 * np.sqrt(p * (1 - p) / 400)
    assert draws.std() == pytest.approx(expected, rel=0.06)
    low, high = interval(draws)
    assert (high - low) / (2 * 1.96) == pytest.approx(expected, rel=0.08) and low < 100 * p < high


def test_the_interval_leaves_out_a_fortieth_on_either_side():
    assert interval(np.arange(0, 201)) == (5.0, 195.0)
