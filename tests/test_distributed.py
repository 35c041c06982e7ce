"""Gathering over real processes, and alone."""

import pytest
import torch

from models.gathering import gather, own_places
from tests.processes import run_on_processes
from utils import processes

COUNTS = (3, 0, 2)  # rows of ranks 0, 1, 2


def buffer_of(rank: int) -> torch.Tensor:
    """This rank's batch norm statistics after the first rank's were broadcast."""
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.copy_(torch.tensor([float(rank), 7.0 - rank]))
    processes.broadcast_buffers(norm)
    return norm.running_mean


def rows_of(rank, width=2):
    """Rank r's rows: 10 r, 10 r + 1, ... in every column."""
    return (10 * rank + torch.arange(COUNTS[rank]))[:, None].repeat(1, width)


def job():
    rank = processes.rank()
    leaf, shared = (torch.full((2, 2), rank + 1.0, requires_grad=True) for _ in range(2))
    # The gather comes last and its backward first; both summands are given the same tensor as their gradient.
    repeated = shared.repeat(3, 1)
    gathered = gather(leaf)
    (rank_weights(rank) * (gathered + repeated)).sum().backward()
    uneven = rows_of(rank).float().requires_grad_()
    (rank_weights(rank)[:5] * gather(uneven, COUNTS)).sum().backward()
    return {
        "rank": rank,
        "world": processes.world_size(),
        "main": processes.is_main(),
        "announced": processes.announced_world_size(),
        "uneven": processes.gather_uneven(rows_of(rank)),
        "uneven_floats": processes.gather_uneven(rows_of(rank, width=3).float() + 0.5),
        "uneven_numbers": processes.gather_uneven(torch.arange(COUNTS[rank]) + 10 * rank),
        "even": gathered.detach(),
        "grad": leaf.grad,
        "shared_grad": shared.grad,
        "uneven_rows": gather(rows_of(rank), COUNTS),
        "uneven_places": own_places(rows_of(rank), COUNTS),
        "uneven_grad": uneven.grad,
        "buffer": buffer_of(rank),
    }


def rank_weights(rank):
    """What a rank weighs the gathered rows with `[6, 2]`: other numbers on every rank and in every row."""
    return (torch.arange(12.0) + 100 * rank).reshape(6, 2)


@pytest.fixture(scope="module")
def three():
    return run_on_processes(3, job)


def test_each_process_knows_its_place(three):
    assert [(r["rank"], r["world"], r["main"], r["announced"]) for r in three] == [
        (0, 3, True, 3),
        (1, 3, False, 3),
        (2, 3, False, 3),
    ]


def test_uneven_shares_are_gathered_in_rank_order_with_an_empty_one(three):
    for result in three:
        assert result["uneven"].tolist() == [[n, n] for n in (0, 1, 2, 20, 21)]
        assert result["uneven_floats"].tolist() == [[n + 0.5] * 3 for n in (0, 1, 2, 20, 21)]
        assert result["uneven_numbers"].tolist() == [0, 1, 2, 20, 21]


def test_even_shares_are_gathered_in_rank_order(three):
    for result in three:
        assert result["even"][:, 0].tolist() == [1, 1, 2, 2, 3, 3]


def test_a_gathered_rows_gradient_is_summed_over_processes_and_leaves_other_gradients_alone(three):
    everyones = sum(rank_weights(rank) for rank in range(3))
    for rank, result in enumerate(three):
        assert torch.equal(result["grad"], everyones[2 * rank : 2 * rank + 2])
        assert torch.equal(result["shared_grad"], rank_weights(rank).reshape(3, 2, 2).sum(dim=0))


def test_uneven_rows_are_gathered_with_their_gradients(three):
    everyones = sum(rank_weights(rank)[:5] for rank in range(3))
    for result, place in zip(three, ([0, 1, 2], [], [3, 4]), strict=True):
        assert result["uneven_rows"].tolist() == [[n, n] for n in (0, 1, 2, 20, 21)]
        assert result["uneven_places"].tolist() == place
        assert torch.equal(result["uneven_grad"], everyones[place])


def test_every_process_gets_the_first_ones_buffers(three):
    assert [result["buffer"].tolist() for result in three] == [[0.0, 7.0]] * 3


def test_alone_everything_is_this_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.start("cpu") == torch.device("cpu")
    rows = torch.ones(2, 3, requires_grad=True)
    assert gather(rows) is rows and processes.gather_uneven(rows) is rows
    assert (processes.rank(), processes.world_size(), processes.announced_world_size()) == (0, 1, 1)
    assert processes.is_main()
    processes.barrier()
    processes.stop()
