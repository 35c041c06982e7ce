"""Ranks and recall: recorded values, counting by hand, ties, and what is no number."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils import metrics
from utils.metrics import image_ranks, recall, retrieval_metrics, retrieval_ranks, text_ranks

FIGURES = ["txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10", "r_mean"]


def random_scores(seed, pictures, lift=1.2):
    """Scores `[I, T]` with 1 to 6 captions a picture, and each caption's picture."""
    rs = np.random.RandomState(seed)
    per = rs.randint(1, 7, pictures)
    own = np.repeat(np.arange(pictures), per)
    scores = rs.standard_normal((pictures, len(own))).astype("float32")
    scores[own, np.arange(len(own))] += lift
    return scores, own, per


def test_recall_is_exactly_the_recorded(parity):
    for case in json.loads((parity / "metrics.json").read_text()):
        scores, own, per = random_scores(case["seed"], case["n_images"])
        assert per.tolist() == case["captions_per_image"]
        assert retrieval_metrics(scores, own) == case["expected"]


def test_ranks_are_the_places_in_the_sorted_rows():
    scores, own, _ = random_scores(seed=3, pictures=30)
    best = [min(np.argsort(-row).tolist().index(c) for c in np.flatnonzero(own == i)) for i, row in enumerate(scores)]
    places = [np.argsort(-column).tolist().index(i) for column, i in zip(scores.T, own, strict=True)]
    scores, own = torch.from_numpy(scores), torch.from_numpy(own)
    assert text_ranks(scores, torch.arange(30), own).tolist() == best
    assert image_ranks(scores.T, own).tolist() == places


def test_recall_counts_percent_rounded_to_two_and_the_mean_of_unrounded():
    ranks = recall(torch.tensor([0, 4, 5]), torch.tensor([0, 0, 10, 9, 3, 1]))
    assert list(ranks) == FIGURES
    assert list(ranks.values()) == [33.33, 66.67, 100.0, 33.33, 66.67, 83.33, 63.89]
    rounded_late = recall(torch.tensor([0, 99, 99]), torch.tensor([99] * 3))  # 33.33.. thrice: 16.666.., not 16.665
    assert rounded_late["r_mean"] == 16.67


def test_captions_need_not_stand_beside_each_other():
    scores, own, _ = random_scores(seed=4, pictures=20)
    shuffled = np.random.RandomState(0).permutation(len(own))
    assert retrieval_metrics(scores[:, shuffled], own[shuffled]) == retrieval_metrics(scores, own)


def test_blocks_of_rows_change_nothing(monkeypatch):
    torch.manual_seed(0)
    own = torch.arange(23).repeat_interleave(3)
    images, texts = F.normalize(torch.randn(23, 8), dim=1), F.normalize(torch.randn(69, 8), dim=1)
    texts = F.normalize(texts + images[own], dim=1)
    whole = retrieval_metrics(images @ texts.T, own)
    monkeypatch.setattr(metrics, "BLOCK", 7)
    assert recall(*retrieval_ranks(images, texts, own.tolist())) == whole
    assert 5 < whole["r_mean"] < 95


@pytest.mark.parametrize("block", [1, 4, 512])
@pytest.mark.parametrize("side_by_side", [True, False])
def test_ties_across_tiles_go_to_the_lower_number(monkeypatch, block, side_by_side):
    """Few whole scores, so that most are tied, and sorting by hand."""
    monkeypatch.setattr(metrics, "BLOCK", block)
    rs = np.random.RandomState(0)
    own = np.repeat(np.arange(11), rs.randint(1, 5, 11))
    own = own if side_by_side else rs.permutation(own)
    images, texts = rs.randint(-1, 2, (11, 3)), rs.randint(-1, 2, (len(own), 3))
    scores = images @ texts.T
    places = np.argsort(-scores, axis=1, kind="stable").argsort(axis=1)  # of each caption, [I, T]
    best = [places[i][own == i].min() for i in range(11)]
    of_pictures = np.argsort(-scores.T, axis=1, kind="stable").argsort(axis=1)
    found = retrieval_ranks(torch.from_numpy(images).float(), torch.from_numpy(texts).float(), own.tolist())
    assert [ranks.tolist() for ranks in found] == [best, of_pictures[np.arange(len(own)), own].tolist()]
    assert retrieval_metrics(scores.astype("float32"), own) == recall(*found)


def test_embeddings_that_are_all_the_same_are_tied_in_every_tile():
    """Products of other shapes are rounded otherwise, which would make some of them greater."""
    same = F.normalize(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    own = torch.arange(1100).repeat_interleave(3)
    text_rank, image_rank = retrieval_ranks(same.expand(1100, -1), same.expand(3300, -1), own.tolist())
    assert torch.equal(text_rank, 3 * torch.arange(1100)) and torch.equal(image_rank, own)


def test_a_collapsed_model_scores_chance_not_full_marks():
    own = torch.arange(100).repeat_interleave(5)
    same = torch.ones(1, 8) / 8**0.5
    collapsed = [
        retrieval_metrics(torch.zeros(100, 500), own),
        recall(*retrieval_ranks(same.expand(100, 8), same.expand(500, 8), own.tolist())),
    ]
    for figures in collapsed:
        assert figures == {
            "txt_r1": 1.0,
            "txt_r5": 1.0,
            "txt_r10": 2.0,
            "img_r1": 1.0,
            "img_r5": 5.0,
            "img_r10": 10.0,
            "r_mean": 3.33,
        }


def test_a_tie_with_a_foreign_caption_goes_to_the_lower_column():
    scores = torch.tensor([[0.9, 0.5, 0.9], [0.3, 0.3, 0.3]])
    assert text_ranks(scores, torch.arange(2), torch.tensor([0, 1, 0])).tolist() == [0, 1]
    assert text_ranks(scores, torch.arange(2), torch.tensor([1, 0, 0])).tolist() == [1, 0]
    assert image_ranks(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("value", (float("nan"), float("inf"), float("-inf")))
def test_scores_that_are_no_numbers_are_refused(value):
    scores, own, _ = random_scores(seed=5, pictures=10)
    scores[3, 2] = value
    with pytest.raises(ValueError, match="finite"):
        retrieval_metrics(scores, own)


@pytest.mark.parametrize("own", [[0, 1, 1], [0, 1, 1, -1], [0, 1, 1, 1], [0, 0, 2, 2], [0, 1, 2, 3], [0] * 5])
def test_captions_that_do_not_fit_the_pictures_are_refused(own):
    with pytest.raises(ValueError, match="picture numbers for 4 captions of 3 pictures"):
        retrieval_metrics(torch.rand(3, 4), own)
    with pytest.raises(ValueError, match="picture numbers"):
        retrieval_ranks(torch.rand(3, 2), torch.rand(4, 2), own)


def test_numbers_next_to_zero_are_told_apart_or_tied_as_others(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 1)
    torch.set_flush_denormal(True)
    try:
        assert retrieval_metrics(torch.zeros(100, 500), torch.arange(100).repeat_interleave(5))["img_r1"] == 1.0
    finally:
        torch.set_flush_denormal(False)
