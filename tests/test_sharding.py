"""`--shard`: a model divided among processes trains, is saved, goes on and is measured as a whole one."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

import Retrieval
import run
from optim import create_optimizer
from tests.processes import log_lines, run_on_processes
from tests.small_experiment import write_experiment
from tests.tiny import captions, pictures, tiny_model, without_dropout
from tests.tiny import tiny_config as tiny_config_in
from utils import processes, training
from utils.checkpoint import read_checkpoint, read_torch_file
from utils.config_parts import OptimizerConfig
from utils.errors import InputError
from utils.launch import unused_port
from utils.shard_rule import check_shard

IDX = torch.tensor([5, 5, 7, 7, 9, 9, 3, 3])  # four pictures with two captions each
LABEL = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
FIXED = {"prior_backbone": "resnet10t", "prior_batch_stats": False}
CASES = {
    "local": FIXED,
    "full": FIXED | {"gather_grad": "full", "center_scope": "global"},
    "in pieces, computed again": FIXED | {"accumulate": 2, "checkpoint_activations": True},
    "all trained": FIXED | {"finetune_conv": True, "clamp_temp": True, "temp1": 0.6},
}


def steps(config, *, divided):
    """Losses of three steps on two processes, and the weights and AdamW's averages after them."""
    from models.sharding import divide, keep_files_whole

    model = without_dropout(tiny_model(config)).train()
    if divided:
        divide(model, torch.device("cpu"))
        assert sum(p.to_local().numel() for p in model.parameters() if p.ndim) < 0.6 * sum(
            p.numel() for p in model.parameters()
        )
    parallel = model if divided else processes.in_parallel(model)
    optimizer = create_optimizer(OptimizerConfig(lr=1e-3), model, fused=False)  # as a divided one has to
    if divided:
        keep_files_whole(optimizer)
    rank, losses = processes.rank(), []
    here, images = slice(4 * rank, 4 * rank + 4), pictures(4, 112)[2 * rank : 2 * rank + 2]
    for _ in range(3):
        loss = parallel(images, captions(8, 12)[here], idx=IDX[here], label=LABEL[here])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        with torch.inference_mode():  # as an evaluation between epochs, which gathers the parts too
            model.eval().encode_image(images)
            model.train()
    saved = model.state_dict(), optimizer.state_dict()["state"]
    return {"losses": torch.stack(losses), "weights": saved[0], "averages": saved[1]} if processes.is_main() else {}


def both_ways(folder):
    own = Path(folder) / str(processes.rank())
    own.mkdir()
    configs = {name: tiny_config_in(own, **case) for name, case in CASES.items()}
    return {name: [steps(config, divided=way) for way in (False, True)] for name, config in configs.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_on_processes(2, both_ways, str(tmp_path_factory.mktemp("both")))[0]


@pytest.mark.parametrize("case", CASES)
def test_a_divided_model_learns_what_a_whole_one_does(trained, case):
    whole, divided = trained[case]
    assert whole["losses"].unique().numel() == 3
    torch.testing.assert_close(divided["losses"], whole["losses"], atol=1e-5, rtol=0)
    assert divided["weights"].keys() == whole["weights"].keys()
    for name, tensor in whole["weights"].items():
        torch.testing.assert_close(divided["weights"][name], tensor, atol=1e-5, rtol=0, msg=name)
    assert divided["averages"].keys() == whole["averages"].keys()
    for number, averages in whole["averages"].items():
        for name, tensor in averages.items():
            torch.testing.assert_close(divided["averages"][number][name], tensor, atol=1e-5, rtol=0)


# ---- a run ----


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two short epochs, divided; of an evaluation's batches one process has more than the other, or all."""
    return write_experiment(
        tmp_path_factory.mktemp("experiment"),
        epochs=2,
        val=5,
        test=3,
        prior_backbone="resnet10t",
        filter_size=8,
        batch_size_train=4,
        batch_size_test=4,
        batch_size_test_text=8,
    )


def retrieval(port, experiment, output, *arguments):
    """`Retrieval.py` in this process, one of several that meet at a port of their own."""
    os.environ["MASTER_PORT"] = str(port)
    sys.argv = ["Retrieval.py", "--config", experiment, "--output_dir", output, "--seed", "3", *arguments]
    Retrieval.main()


def leave():
    """Leave the group once the others are in it too."""
    processes.barrier()
    processes.stop()


def whole_and_cut_runs(ports, experiment, whole, cut):
    """A run that nothing interrupts, and one that ends in its second epoch and goes on."""
    train_epoch = training.train_epoch

    def interrupted(task, state, loader, epoch, epochs):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(task, state, loader, epoch, epochs)

    leave()
    retrieval(ports[0], experiment, whole, "--shard")
    training.train_epoch = interrupted
    try:
        retrieval(ports[1], experiment, cut, "--shard")
    except KeyboardInterrupt:
        leave()
    training.train_epoch = train_epoch
    retrieval(ports[2], experiment, cut, "--shard", "--resume")


@pytest.fixture(scope="module")
def runs(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    ports = [unused_port() for _ in range(3)]
    run_on_processes(2, whole_and_cut_runs, ports, str(experiment), str(folder / "whole"), str(folder / "cut"))
    return folder


def test_a_divided_run_that_was_cut_ends_where_an_uninterrupted_one_does(runs):
    for name in ("checkpoint_best.pth", "checkpoint_1.pth"):
        whole, cut = (read_checkpoint(runs / folder / name) for folder in ("whole", "cut"))
        assert len(whole) > 50 and all(torch.equal(whole[key], cut[key]) for key in whole)
    whole, cut = (log_lines(runs / folder / "log.txt") for folder in ("whole", "cut"))
    assert [line["train_loss_contr"] for line in whole] == [line["train_loss_contr"] for line in cut]
    assert len(cut) == 2
    saved = read_torch_file(runs / "cut/resume.pth")
    assert {type(tensor) for tensor in saved["model"].values()} == {torch.Tensor}


def test_what_a_divided_run_leaves_is_measured_by_one_process_with_the_same_figures(
    monkeypatch, runs, experiment, tmp_path
):
    arguments = ["--evaluate", "--checkpoint", str(runs / "whole"), "--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["Retrieval.py", *arguments])
    Retrieval.main()
    before, after = (json.loads((folder / "result.json").read_text()) for folder in (runs / "whole", tmp_path))
    assert before["config"]["shard"] and before["processes"] == 2 and after["processes"] == 1
    assert before["captions"] == 15
    assert {key: before[key] for key in before if "_r" in key} == {key: after[key] for key in before if "_r" in key}
    assert before["parameters"] == after["parameters"]


# ---- what is refused ----


def test_one_process_is_refused_before_anything_starts(experiment, tmp_path):
    arguments = ["--task", "itr_demo", "--dist", "cpu", "--config", str(experiment), "--output_dir", str(tmp_path)]
    with pytest.raises(InputError, match=r"--shard divides a model among processes, and there is one") as raised:
        run.main([*arguments, "--shard"])
    assert "\n" not in str(raised.value)


def test_an_average_of_the_weights_is_refused(tiny_config):
    check_shard(tiny_config(shard=True), 2)
    for other in ({"compile": True}, {"precision": "fp16"}):
        with pytest.raises(InputError, match="--shard goes neither with --compile nor with precision fp16"):
            check_shard(tiny_config(shard=True, **other), 2)
    with pytest.raises(InputError, match="--shard and average_decay exclude each other"):
        check_shard(tiny_config(shard=True, average_decay=0.5), 2)
