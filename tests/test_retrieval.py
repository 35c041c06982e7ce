"""The experiment from the command line to its result: training, evaluation, resume, and what goes wrong."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import Retrieval
from dataset.annotations import read_evaluation
from dataset.drawn.scenes import draw_scenes
from dataset.pictures import load_picture
from dataset.releases.shard_writer import write_shards
from dataset.tokenizer import load_tokenizer
from models import build_model, embedder
from models.embedder import Embedder
from models.released import load_released
from tests.processes import log_lines, run_on_processes
from tests.tiny import TEXT, VISION
from utils import output, processes, training
from utils.checkpoint import read_checkpoint
from utils.config import config_from_file
from utils.errors import InputError
from utils.metrics import Measured, image_ranks
from utils.results import write_arrays

ROOT = Path(__file__).parents[1]
FIGURES = ["txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10", "r_mean"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The YAML of a small experiment on drawn scenes, uneven in its last batches."""
    folder = tmp_path_factory.mktemp("experiment")
    draw_scenes(folder / "scenes", train=24, val=7, test=13, size=112)
    for name, sizes in (("vision", VISION), ("text", TEXT | {"vocab_size": 512})):
        (folder / f"{name}.json").write_text(json.dumps(sizes))
    values = {
        "train_file": [str(folder / "scenes/scenes_train.json")],
        "val_file": str(folder / "scenes/scenes_val.json"),
        "test_file": str(folder / "scenes/scenes_test.json"),
        "image_root": str(folder / "scenes"),
        "vision_config": str(folder / "vision.json"),
        "text_config": str(folder / "text.json"),
        "prior_backbone": "mobilenetv3_small_050",
        "resnet_ckpt": None,
        "text_encoder": None,
        "tokenizer": str(folder / "scenes"),
        "image_res": 112,
        "batch_size_train": 4,
        "batch_size_test": 4,
        "batch_size_test_text": 9,
        "captions_per_image": 2,
        "num_workers": 0,
        "select_on": "val",
        "average_decay": 0.5,
        "embed_dim": 32,
        "optimizer": {"lr": 1e-3},
        "schedular": {"epochs": 2},
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def command(experiment: Path, output: Path, *arguments: str) -> list[str]:
    """`Retrieval.py` alone as one process."""
    return [
        sys.executable,
        str(ROOT / "Retrieval.py"),
        "--config",
        str(experiment),
        "--output_dir",
        str(output),
        *arguments,
    ]


def train_here(monkeypatch, experiment: Path, output: Path, *arguments: str) -> None:
    """A run inside the test's own process."""
    monkeypatch.setattr(sys, "argv", command(experiment, output, *arguments)[1:])
    Retrieval.main()


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """The output folder of a run of two gloo processes through run.py."""
    output = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["--task", "itr_demo", "--dist", "cpu2", "--config", str(experiment), "--output_dir", str(output)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def test_two_processes_train_to_a_result(finished):
    result = json.loads((finished / "result.json").read_text())
    assert all(0 <= result[name] <= 100 for name in FIGURES)
    assert (result["split"], result["pictures"], result["captions"], result["processes"]) == ("test", 13, 65, 2)
    assert result["config"]["embed_dim"] == 32 and result["versions"]["torch"] == torch.__version__
    lines = log_lines(finished / "log.txt")
    assert [line["epoch"] for line in lines] == [0, 1]
    named = {"train_loss_contr", "train_loss_affil", "train_lr", "train_seconds", "train_pictures_per_second"}
    assert named | {f"val_{name}" for name in FIGURES} <= set(lines[0])
    assert list((finished / "tensorboard").glob("events.*"))
    with Image.open(finished / "examples.png") as picture:
        assert min(picture.size) > 300


def arrays(file):
    """The arrays of a file, read as an untrusted one."""
    with np.load(file, allow_pickle=False) as content:
        return dict(content)


def test_a_result_tells_what_the_run_cost(finished, experiment):
    result = json.loads((finished / "result.json").read_text())
    model = build_model(config_from_file(experiment))
    prior = sum(p.numel() for p in model.instruction_encoder.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert result["parameters"] == {"total": total, "trained": total - prior}
    lines = log_lines(finished / "log.txt")
    assert result["train_seconds"] == pytest.approx(sum(line["train_seconds"] for line in lines), abs=0.01)
    assert result["train_seconds"] > 0
    assert 50 * 2**20 < result["peak_memory_bytes"] < 8 * 2**30


def test_a_result_tells_by_which_weights_it_was_measured(finished):
    weights = hashlib.sha256((finished / "checkpoint_best.pth").read_bytes()).hexdigest()
    assert json.loads((finished / "result.json").read_text())["weights_sha256"] == weights


def test_the_ranks_written_give_the_figures(finished, experiment):
    result, ranks = json.loads((finished / "result.json").read_text()), arrays(finished / "ranks.npz")
    for side, name in (("txt", "image_to_text"), ("img", "text_to_image")):
        for k in (1, 5, 10):
            assert result[f"{side}_r{k}"] == pytest.approx(100 * (ranks[name] < k).mean(), abs=0.006)
    test_set = read_evaluation(config_from_file(experiment).test_file, experiment.parent / "scenes")
    assert ranks["own_image_of_text"].tolist() == test_set.own_image_of_text
    assert {name: values.dtype.str for name, values in ranks.items() if name != "images"} == {
        "image_to_text": "<i4",
        "text_to_image": "<i4",
        "own_image_of_text": "<i4",
    }


def test_the_embeddings_written_are_those_of_the_pictures_and_scenes_named(finished, experiment):
    embeddings, ranks = arrays(finished / "embeddings.npz"), arrays(finished / "ranks.npz")
    entries = json.loads((experiment.parent / "scenes/scenes_test.json").read_text())
    assert embeddings["images"].tolist() == ranks["images"].tolist() == [entry["image"] for entry in entries]
    assert embeddings["label"].tolist() == [entry["label"] for entry in entries]
    assert embeddings["label_name"].tolist() == [entry["label_name"] for entry in entries]
    images, texts = (embeddings[f"{side}_embeds"] for side in ("image", "text"))
    assert (images.shape, texts.shape, images.dtype) == ((13, 32), (65, 32), np.float16)
    scores = torch.from_numpy(texts.astype(np.float32) @ images.astype(np.float32).T)
    own = torch.from_numpy(embeddings["own_image_of_text"]).long()
    # Half precision may swap near neighbours.
    assert (image_ranks(scores, own) - torch.from_numpy(ranks["text_to_image"])).abs().max() <= 1


def test_what_a_run_leaves_is_written_before_the_result_that_vouches_for_it(
    monkeypatch, finished, experiment, tmp_path
):
    def full(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="full"):
        train_here(
            monkeypatch, experiment, tmp_path, "--evaluate", "--checkpoint", str(finished / "checkpoint_best.pth")
        )
    assert not {"result.json", "ranks.npz"} & {file.name for file in tmp_path.iterdir()}


def test_scenes_are_left_out_of_the_embeddings_where_a_set_names_none(tmp_path):
    ranks, embeds = torch.zeros(2, dtype=torch.long), torch.ones(2, 3)
    measured = Measured({}, ranks, ranks, embeds, embeds)
    write_arrays(
        tmp_path, measured, own_image_of_text=[0, 1], names=["a é.jpg", "b.jpg"], labels=None, label_names=None
    )
    written = arrays(tmp_path / "embeddings.npz")
    assert written.keys() == {"image_embeds", "text_embeds", "own_image_of_text", "images"}
    assert written["images"].tolist() == ["a é.jpg", "b.jpg"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["embeddings.npz", "ranks.npz"]


def test_the_config_written_gives_the_same_config(finished, experiment):
    assert config_from_file(finished / "config.yaml") == config_from_file(experiment)


def test_both_checkpoints_are_in_the_released_layout(finished, experiment):
    model = build_model(config_from_file(experiment))
    for name in ("checkpoint_best.pth", "checkpoint_1.pth"):
        content = torch.load(finished / name, weights_only=True)
        assert set(content) == {"model", "config"}
        assert {"vision_encoder.patch_embed.proj.weight", "head_img.weight", "temp2"} <= set(content["model"])
        assert any(name.endswith("relative_position_index") for name in content["model"])
        load_released(model, read_checkpoint(finished / name))


def test_evaluating_the_best_checkpoint_gives_the_result_again(monkeypatch, finished, experiment, tmp_path):
    train_here(monkeypatch, experiment, tmp_path, "--evaluate", "--checkpoint", str(finished / "checkpoint_best.pth"))
    again, before = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path, finished))
    assert {name: again[name] for name in FIGURES} == {name: before[name] for name in FIGURES}
    assert again["train_seconds"] is None and again["parameters"] == before["parameters"]
    for name in ("ranks.npz", "embeddings.npz"):
        once, twice = arrays(finished / name), arrays(tmp_path / name)
        assert once.keys() == twice.keys() and all(np.array_equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("averaged", [True, False])
def test_the_measure_sees_pictures_in_all_orientations_where_the_config_says_so(
    monkeypatch, finished, experiment, tmp_path, averaged
):
    asked, embed = [], embedder.embed_picture_batches
    monkeypatch.setattr(
        embedder, "embed_picture_batches", lambda *a, **options: asked.append(options) or embed(*a, **options)
    )
    weights = ("--evaluate", "--checkpoint", str(finished / "checkpoint_best.pth"))
    train_here(monkeypatch, experiment, tmp_path, *weights, "--override", f"average_orientations={averaged}")
    assert asked == [{"average_orientations": averaged}]


def embedded(experiment: str, checkpoint: str, mask_padding: str) -> dict[str, torch.Tensor]:
    """What one of several processes gets from an evaluation."""
    config = config_from_file(experiment, [f"mask_padding={mask_padding}"])
    model = build_model(config)
    load_released(model, read_checkpoint(checkpoint))
    tokenizer = load_tokenizer(Path(config.tokenizer), 512)
    ready = Embedder(model, config, tokenizer, torch.device("cpu"), None, load_picture)
    measured = Retrieval.evaluate(ready, read_evaluation(config.test_file, config.image_root))
    figures = torch.tensor(list(measured.figures.values()))
    return {"figures": figures, "image": measured.image_embeds.clone(), "text": measured.text_embeds.clone()}


@pytest.mark.parametrize("mask_padding", ["True", "False"])
def test_one_two_and_three_processes_measure_the_same(finished, experiment, mask_padding):
    given = (str(experiment), str(finished / "checkpoint_best.pth"), mask_padding)
    alone = embedded(*given)
    for count in (2, 3):
        for each in run_on_processes(count, embedded, *given):
            for name, value in alone.items():
                assert torch.equal(each[name], value), f"{name} on {count} processes"


def test_without_a_mask_an_embedding_depends_on_its_batch_of_consecutive_captions(finished, experiment):
    given = (str(experiment), str(finished / "checkpoint_best.pth"))
    masked, attended = embedded(*given, "True"), embedded(*given, "False")
    assert not torch.allclose(masked["text"], attended["text"], atol=1e-4)


def test_a_run_killed_and_resumed_ends_where_an_uninterrupted_one_does(monkeypatch, experiment, tmp_path):
    train_here(monkeypatch, experiment, tmp_path / "whole")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        command(experiment, tmp_path / "cut"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut/resume.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "cut/result.json").exists(), "it finished before it could be killed"
    with (tmp_path / "cut/log.txt").open("a") as log:
        log.write('{"half a li')
    train_here(monkeypatch, experiment, tmp_path / "cut", "--resume")
    whole, cut = (read_checkpoint(tmp_path / name / "checkpoint_1.pth") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    lines = log_lines(tmp_path / "cut/log.txt")
    assert [line["epoch"] for line in lines] == [0, 1]
    seconds = json.loads((tmp_path / "cut/result.json").read_text())["train_seconds"]
    assert seconds == pytest.approx(
        sum(line["train_seconds"] for line in lines), abs=0.01
    )  # before the cut and after it


@pytest.fixture(scope="module")
def shards(experiment):
    """The experiment's training pictures in uneven shards, as an override of `train_file`."""
    scenes = experiment.parent / "scenes"
    entries = json.loads((scenes / "scenes_train.json").read_text())
    return f"train_file={write_shards(entries, scenes, experiment.parent / 'shards', 'scenes', 9)}"


def test_two_processes_train_from_shards_and_evaluate_from_a_cache(experiment, shards, tmp_path):
    arguments = ["--task", "itr_demo", "--dist", "cpu2", "--config", str(experiment)]
    arguments += ["--output_dir", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    arguments += ["--override", shards, "--override", "num_workers=1"]
    launch = [sys.executable, str(ROOT / "run.py"), *arguments]
    done = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = log_lines(tmp_path / "run/log.txt")
    assert [line["epoch"] for line in lines] == [0, 1]
    assert json.loads((tmp_path / "run/result.json").read_text())["captions"] == 65
    assert done.stdout.count("decoding 20 pictures") == 1  # val's and test's, by one process

    (experiment.parent / "shards/scenes-000001.tar").rename(tmp_path / "away.tar")
    done = subprocess.run([*launch, "--overwrite"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (tmp_path / "away.tar").rename(experiment.parent / "shards/scenes-000001.tar")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "scenes-000001.tar is missing" in done.stderr


def weights_after(monkeypatch, experiment, output, *arguments):
    """The weights after a run of one process and one epoch."""
    train_here(monkeypatch, experiment, output, "--override", "schedular.epochs=1", *arguments)
    return read_checkpoint(output / "checkpoint_0.pth")


def test_a_cache_changes_nothing_of_what_is_trained(monkeypatch, capsys, experiment, tmp_path):
    plain = weights_after(monkeypatch, experiment, tmp_path / "plain")
    for name in ("first", "second"):
        cached = weights_after(monkeypatch, experiment, tmp_path / name, "--cache", str(tmp_path / "cache"))
        assert all(torch.equal(plain[key], cached[key]) for key in plain)
    assert capsys.readouterr().out.count("decoding 44 pictures") == 1


def test_a_mistake_is_told_before_pictures_are_decoded(monkeypatch, experiment, tmp_path):
    with pytest.raises(InputError, match="less than one batch"):
        weights_after(monkeypatch, experiment, tmp_path / "run", "--cache", str(tmp_path / "cache"), "--bs", "400")
    assert not (tmp_path / "cache").exists()


def test_a_run_from_shards_goes_on_where_it_was_interrupted_with_as_many_workers(
    monkeypatch, experiment, shards, tmp_path
):
    train_epoch = training.train_epoch

    def interrupted(task, state, loader, epoch, epochs):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(task, state, loader, epoch, epochs)

    train_here(monkeypatch, experiment, tmp_path / "whole", "--override", shards)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_here(patch, experiment, tmp_path / "cut", "--override", shards)
    resume = (monkeypatch, experiment, tmp_path / "cut", "--override", shards, "--resume")
    with pytest.raises(InputError, match="num_workers differ"):  # they decide which pictures share a batch
        train_here(*resume, "--override", "num_workers=1")
    train_here(*resume)
    whole, cut = (read_checkpoint(tmp_path / name / "checkpoint_1.pth") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_resuming_with_another_config_is_refused(monkeypatch, finished, experiment):
    with pytest.raises(InputError, match="center_factor"):
        train_here(monkeypatch, experiment, finished, "--resume", "--override", "center_factor=2")


def test_resuming_with_another_batch_is_refused(monkeypatch, finished, experiment):
    with pytest.raises(InputError, match="batch_size_train, processes"):
        train_here(monkeypatch, experiment, finished, "--resume", "--bs", "5")


def test_a_mistake_leaves_the_run_that_was_to_be_overwritten(monkeypatch, finished, experiment):
    before = sorted(file.name for file in finished.iterdir())
    with pytest.raises(InputError, match="nowhere"):
        train_here(monkeypatch, experiment, finished, "--overwrite", "--override", "tokenizer=nowhere")
    with pytest.raises(InputError, match="starts from"):
        weights = str(finished / "checkpoint_best.pth")
        train_here(monkeypatch, experiment, finished, "--overwrite", "--checkpoint", weights)
    assert before == sorted(file.name for file in finished.iterdir())


def test_a_folder_with_a_run_is_refused_and_left_alone(monkeypatch, finished, experiment):
    before = {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    with pytest.raises(InputError, match="already holds a run"):
        train_here(monkeypatch, experiment, finished)
    assert before == {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}


def test_training_starts_from_a_checkpoint(monkeypatch, capsys, finished, experiment, tmp_path):
    weights = str(finished / "checkpoint_best.pth")
    train_here(monkeypatch, experiment, tmp_path, "--load_ckpt_from", weights, "--override", "schedular.epochs=1")
    assert f"{weights}: " in capsys.readouterr().out
    with pytest.raises(InputError, match="give one"):
        train_here(monkeypatch, experiment, tmp_path, "--load_ckpt_from", weights, "--checkpoint", weights)


def test_choosing_on_test_is_warned_of(monkeypatch, capsys, experiment, tmp_path):
    choice = ("--override", "select_on=test", "--override", "schedular.epochs=1")
    train_here(monkeypatch, experiment, tmp_path, *choice)
    assert capsys.readouterr().out.count("chosen on the test split") == 1
    assert "test_r_mean" in (tmp_path / "log.txt").read_text()


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(monkeypatch, experiment, tmp_path):
    wild = ("--override", "optimizer.lr=1e30", "--override", "schedular.num_warmup_steps=0")
    with pytest.raises(InputError, match=r"not finite in epoch 0 .*picture"):
        train_here(monkeypatch, experiment, tmp_path, *wild)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--evaluate"], "--checkpoint"),
        (["--evaluate", "--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["--override", "batch_size_train=400"], "batch"),
        (["--override", "vision_trained_stages=9"], "stages"),
        (["--override", "prior_backbone=resnot50"], "resnot50"),
        (["--override", "tokenizer=nowhere"], "nowhere"),
        (["--override", "test_file=nowhere.json"], "nowhere.json"),
        (["--bs", "0"], "--bs 0"),
    ],
)
def test_a_mistake_is_told_before_training(monkeypatch, experiment, tmp_path, arguments, told):
    with pytest.raises(InputError, match=told) as error:
        train_here(monkeypatch, experiment, tmp_path, *arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "log.txt").exists()


def test_a_checkpoint_of_another_model_names_what_does_not_fit(monkeypatch, finished, experiment, tmp_path):
    weights = ("--evaluate", "--checkpoint", str(finished / "checkpoint_best.pth"))
    with pytest.raises(InputError, match="of another shape, first '"):
        train_here(monkeypatch, experiment, tmp_path, *weights, "--override", "embed_dim=64")


def test_a_mistake_from_the_command_line_is_one_line_and_a_status(experiment, tmp_path):
    wrong = command(experiment, tmp_path, "--override", "temp1=warm")
    done = subprocess.run(wrong, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and "temp1" in done.stderr


def test_an_output_folder_that_a_machine_does_not_see_is_told_before_training(monkeypatch, experiment, tmp_path):
    monkeypatch.setattr(output, "SHARED_SECONDS", 0.0)
    monkeypatch.setattr(processes, "is_main", lambda: False)  # a process whose machine did not make the folder
    with pytest.raises(InputError, match="all machines share"):
        train_here(monkeypatch, experiment, tmp_path / "elsewhere")


def test_alone_is_one_process():
    assert (processes.rank(), processes.world_size()) == (0, 1)
