"""The losses: recorded values and gradients, alone and over two processes, and each flaw switch."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.baselines import triplet_loss
from models.gathering import gather
from models.losses import affiliation_loss, class_centers, contrastive_loss
from tests.processes import run_on_processes
from utils import processes

NEAR = {"atol": 1e-6, "rtol": 1e-5}


# ---- against the released losses ----


def recorded_features(seed, count, label):
    """The features those numbers were recorded with, `[count, 512]` of pictures and of captions."""
    rs = np.random.RandomState(seed)
    centres = rs.standard_normal((3, 512))
    assert rs.randint(0, 3, count).tolist() == label
    v, t = (centres[label] + 0.8 * rs.standard_normal((count, 512)) for _ in range(2))
    return [torch.from_numpy((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)) for x in (v, t)]


def recorded_losses(v, t, idx, label, temp, temp2):
    """name -> loss with its gradients on leaves of these values, as the recorded files name them."""
    results = {}
    for name, loss in {
        "contr_idx": lambda v, t, temp, temp2: contrastive_loss(v, t, temp, idx),
        "contr_noidx": lambda v, t, temp, temp2: contrastive_loss(v, t, temp),
        "affil": lambda v, t, temp, temp2: affiliation_loss(v, t, label, temp2),
        "triplet": lambda v, t, temp, temp2: triplet_loss(v, t),
        "triplet_hardest": lambda v, t, temp, temp2: triplet_loss(v, t, hardest=True),
    }.items():
        leaves = [x.clone().requires_grad_() for x in (v, t, torch.tensor(temp), torch.tensor(temp2))]
        value = loss(*leaves)
        value.backward()
        image, text, *temperatures = (leaf.grad for leaf in leaves)
        results[name] = {
            "value": value.item(),
            "image_grad_norm": image.norm().item(),
            "text_grad_norm": text.norm().item(),
            "image_grad_row0": image[0, :4].tolist(),
        }
        results[name] |= {
            f"{key}_grad": None if grad is None else grad.item()
            for key, grad in zip(("temp", "temp2"), temperatures, strict=True)
        }
    return results


def agree(got, wanted):
    """Values to 1e-4, gradients to 0.1 % (None where the loss knows no such temperature)."""
    assert got["value"] == pytest.approx(wanted["value"], abs=1e-4 * max(1, wanted["value"]))
    for key in wanted.keys() - {"value", "rank"}:
        if wanted[key] is None:
            assert got[key] is None, key
        else:
            assert got[key] == pytest.approx(wanted[key], rel=1e-3, abs=1e-6), key


def test_losses_and_gradients_agree_with_the_released_in_one_process(parity):
    for case in json.loads((parity / "losses_one_process.json").read_text()):
        v, t = recorded_features(case["seed"], case["n"], case["label"])
        idx, label = torch.tensor(case["idx"]), torch.tensor(case["label"])
        results = recorded_losses(v, t, idx, label, case["temp"], case["temp2"])
        for name, got in results.items():
            agree(got, case[name])


def losses_of_this_rank(v, t, idx, label, temp, temp2):
    mine = slice(processes.rank() * len(v) // 2, (processes.rank() + 1) * len(v) // 2)
    return recorded_losses(v[mine], t[mine], idx[mine], label[mine], temp, temp2)


def test_losses_and_gradients_agree_with_the_released_on_two_processes(parity):
    for case in json.loads((parity / "losses_two_processes.json").read_text()):
        v, t = recorded_features(case["seed"], 2 * case["n_per_rank"], case["label"])
        idx, label = torch.tensor(case["idx"]), torch.tensor(case["label"])
        ranks = run_on_processes(2, losses_of_this_rank, v, t, idx, label, case["temp"], case["temp2"])
        for got, wanted in zip(ranks, case["ranks"], strict=True):
            for name in wanted.keys() - {"rank"}:
                agree(got[name], wanted[name])


# ---- what each loss means ----


@pytest.fixture
def batch():
    """Eight well spread pairs of four pictures and three scenes."""
    torch.manual_seed(0)
    v, t = (F.normalize(torch.randn(8, 16), dim=1) for _ in range(2))
    return v, t, torch.tensor([3, 3, 0, 7, 7, 7, 5, 5]), torch.tensor([0, 1, 0, 2, 2, 1, 0, 2])


def test_contrastive_loss_takes_every_pair_of_a_picture_as_positive(batch):
    v, t, idx, _ = batch
    one_way = 0.0
    for logits in (v @ t.T / 0.07, t @ v.T / 0.07):
        for i, row in enumerate(logits.log_softmax(dim=1)):
            one_way -= row[idx == idx[i]].mean() / len(v)
    torch.testing.assert_close(contrastive_loss(v, t, 0.07, idx), one_way / 2, **NEAR)
    torch.testing.assert_close(contrastive_loss(v, t, 0.07, torch.arange(8)), contrastive_loss(v, t, 0.07), **NEAR)
    assert contrastive_loss(v, t, 0.07, idx) > contrastive_loss(v, t, 0.07) + 0.1


def test_class_centers_are_the_means_of_their_class(batch):
    v, _, _, label = batch
    for row, own in zip(class_centers(v, label), label, strict=True):
        torch.testing.assert_close(row, v[label == own].mean(dim=0))


def affiliation_by_hand(v, t, label, temp, negatives):
    """The loss, with the rows that `negatives(i)` keeps beside row i's own."""
    image_centers, text_centers = class_centers(v, label), class_centers(t, label)
    total = 0.0
    for i in range(len(v)):
        kept = negatives(i) | (torch.arange(len(v)) == i)
        for scores in (text_centers @ v[i], t @ image_centers[i]):
            scores = scores / temp
            total -= (scores[i] - scores[kept].logsumexp(dim=0)) / len(v)
    return total / 2


def test_same_class_negatives_are_kept_or_left_out_of_the_comparison(batch):
    v, t, _, label = batch
    everyone = affiliation_by_hand(v, t, label, 0.1, lambda i: torch.ones(8, dtype=torch.bool))
    others = affiliation_by_hand(v, t, label, 0.1, lambda i: label != label[i])
    torch.testing.assert_close(affiliation_loss(v, t, label, 0.1), everyone, **NEAR)
    torch.testing.assert_close(affiliation_loss(v, t, label, 0.1, same_class_negatives=False), others, **NEAR)
    assert everyone > others + 0.1


def test_a_class_alone_in_the_batch_costs_nothing_without_same_class_negatives(batch):
    v, t, _, label = batch
    same = torch.zeros_like(label)
    leaf = v.clone().requires_grad_()
    loss = affiliation_loss(leaf, t, same, 0.1, same_class_negatives=False)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(leaf.grad, torch.zeros_like(v), atol=1e-6, rtol=0)
    assert affiliation_loss(v, t, same, 0.1).item() > 1  # log 8 and more: nothing can tell them apart


def test_triplet_loss_counts_every_violation_or_the_hardest(batch):
    v, t, _, _ = batch
    scores = v @ t.T
    violations = torch.zeros(2, 8, 8)
    for i in range(8):
        for j in set(range(8)) - {i}:
            violations[0, i, j] = (0.2 + scores[i, j] - scores[i, i]).clamp(min=0)
            violations[1, i, j] = (0.2 + scores[j, i] - scores[i, i]).clamp(min=0)
    torch.testing.assert_close(triplet_loss(v, t), violations.sum(), **NEAR)
    torch.testing.assert_close(triplet_loss(v, t, hardest=True), violations.amax(dim=2).sum(), **NEAR)
    assert triplet_loss(v, v, margin=0.0).item() == 0


# ---- over two processes: gather_grad and center_scope ----

SETTINGS = [
    ("contrastive", "process", True),
    ("sentences", "process", True),
    ("triplet", "process", True),
    ("hardest", "process", True),
    ("affiliation", "process", True),
    ("affiliation", "global", True),
    ("affiliation", "global", False),
]
SHARES = {1: None, 2: (7, 5), 3: (4, 4, 4), 4: (3, 4, 0, 5)}  # processes -> the rows of each of the batch of 12


def loss_of(kind, scope, negatives, v, t, idx, label, temp, **options):
    if kind in ("contrastive", "sentences"):
        return contrastive_loss(v, t, temp, idx, label if kind == "sentences" else None, **options)
    if kind in ("triplet", "hardest"):
        return triplet_loss(v, t, hardest=kind == "hardest", **options)
    options |= {"center_scope": scope, "same_class_negatives": negatives}
    return affiliation_loss(v, t, label, temp, **options)


def weights_and_gradient(setting, x, y, idx, label, **options):
    """The loss of a shared linear map on these rows, and what it gives the map and the temperature."""
    torch.manual_seed(1)
    weight, temp = torch.randn(16, 8).requires_grad_(), torch.tensor(0.1).requires_grad_()
    v, t = F.normalize(x @ weight, dim=1), F.normalize(y @ weight, dim=1)
    loss = loss_of(*setting, v, t, idx, label, temp, **options)
    gradient = torch.autograd.grad(loss, [weight, temp], allow_unused=True, materialize_grads=True)
    return loss.detach(), torch.cat([g.flatten() for g in gradient])


def job(counts, x, y, idx, label):
    """This rank's rows under every setting: loss, and the mean of the gradient as DistributedDataParallel takes it."""
    first = sum(counts[: processes.rank()])
    mine = slice(first, first + counts[processes.rank()])
    given = None if len(set(counts)) == 1 else counts
    results = {}
    for setting in SETTINGS:
        for gather_grad in ("local", "full"):
            loss, own = weights_and_gradient(
                setting, x[mine], y[mine], idx[mine], label[mine], gather_grad=gather_grad, counts=given
            )
            mean = gather(own[None]).detach().mean(dim=0)
            results["-".join(map(str, setting)), gather_grad] = (loss, mean)
    return results


@pytest.fixture(scope="module")
def batch_of_12():
    """Rows of which three labels are in every share of three rows."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 16), torch.randn(12, 16)
    y += 0.5 * x
    return x, y, torch.randint(0, 5, (12,)), torch.arange(12) % 3


@pytest.fixture(scope="module", params=SHARES, ids=lambda count: f"{count} processes")
def on_processes(request, batch_of_12):
    """How many rows each process has, and `job`'s results on each."""
    counts = SHARES[request.param] or (12,)
    return counts, run_on_processes(request.param, job, counts, *batch_of_12)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: "-".join(map(str, s)))
def test_processes_with_their_own_rows_have_the_loss_and_gradient_of_the_whole_batch(
    on_processes, batch_of_12, setting
):
    counts, ranks = on_processes
    x, y, idx, label = batch_of_12
    if setting == ("affiliation", "process", True):  # a class of one process is another than that of the next
        label = label + 3 * torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    loss, gradient = weights_and_gradient(setting, x, y, idx, label)
    for rank in ranks:
        by_grad = {gather_grad: rank["-".join(map(str, setting)), gather_grad] for gather_grad in ("local", "full")}
        for value, mean in by_grad.values():
            torch.testing.assert_close(value, loss, **NEAR)
            torch.testing.assert_close(mean[-1], gradient[-1], atol=1e-5, rtol=1e-4)  # a temperature's is never less
        torch.testing.assert_close(by_grad["full"][1], gradient, atol=1e-5, rtol=1e-4)
        # As released, a process moves its own rows alone, and the mean makes that 1/W.
        torch.testing.assert_close(by_grad["local"][1][:-1], gradient[:-1] / len(counts), atol=1e-5, rtol=1e-4)


def test_every_process_has_the_same_loss_to_the_last_digit(on_processes):
    _, (first, *others) = on_processes
    for other in others:
        assert {key: loss.item() for key, (loss, _) in other.items()} == {
            key: loss.item() for key, (loss, _) in first.items()
        }


@pytest.mark.parametrize("on_processes", [2], indirect=True)
def test_centers_of_a_process_differ_from_global_ones(on_processes):
    _, ranks = on_processes
    by_scope = [ranks[0][f"affiliation-{scope}-True", "local"][0] for scope in ("process", "global")]
    assert abs(by_scope[0] - by_scope[1]) > 1e-3
