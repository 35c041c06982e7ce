"""A prior of one's own: its config, the classifier, a run from the command line to its result, and the start file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from PIL import Image

import Prior
from dataset.classification import read_scenes
from models import build_model
from models.classifier import SceneClassifier, load_start_file_state, start_file_state
from models.start_files import load_prior_start
from tests.processes import log_lines, run_on_processes
from tests.tiny import pictures, weight
from utils import training
from utils.config import usual_normalisation
from utils.confusion import accuracy, class_accuracies, confusion_matrix, draw_confusion
from utils.earlier import remove_run
from utils.errors import InputError
from utils.prior_config import PriorConfig, prior_config_from_dict, prior_config_from_file
from utils.train_state import averaged
from utils.training import Run

ROOT = Path(__file__).parents[1]
CLASSES = ["forest", "pond", "quarry"]
SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The YAML of a small training on class folders: 15 pictures a class, the class in their colour."""
    folder = tmp_path_factory.mktemp("experiment")
    random = np.random.default_rng(0)
    for name, colour in zip(CLASSES, ((40, 120, 40), (40, 60, 150), (150, 120, 80)), strict=True):
        (folder / "scenes" / name).mkdir(parents=True)
        for number in range(15):
            pixels = np.asarray(colour) + random.integers(-40, 40, (64, 64, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"scenes/{name}/{name}_{number}.png")
    values = {
        "class_folders": str(folder / "scenes"),
        "val_fraction": 0.2,
        "test_fraction": 0.34,
        "image_res": 64,
        "batch_size_train": 4,
        "batch_size_test": 2,
        "num_workers": 0,
        "backbone": SMALL,
        "average_decay": 0.5,
        "label_smoothing": 0.1,
        "optimizer": {"lr": 1e-3, "lr_mult": 3, "lr_mult_heads": True},
        "schedular": {"epochs": 2},
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def train_here(monkeypatch, experiment: Path, folder: Path, *arguments: str) -> None:
    """A run inside the test's own process."""
    command = ["Prior.py", "--config", str(experiment), "--output_dir", str(folder), *arguments]
    monkeypatch.setattr(sys, "argv", command)
    Prior.main()


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """The output folder of a run of two gloo processes through run.py."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["--task", "prior_aid", "--dist", "cpu2", "--config", str(experiment), "--output_dir", str(folder)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def log_of(folder: Path) -> list[dict]:
    return log_lines(folder / "log.txt")


def losses_of(folder: Path) -> list[float]:
    return [line["train_loss"] for line in log_of(folder)]


# --- the config


def test_the_configs_here_are_read_and_written_again(tmp_path):
    for file in ROOT.glob("configs/Prior_*.yaml"):
        config = prior_config_from_file(file)
        assert prior_config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"class_folder": "a"}, "nearest is 'class_folders'"),
        ({"schedular": {"epoch": 3}}, "nearest is 'schedular.epochs'"),
        ({"image_res": "large"}, "expected a whole number"),
        ({"precision": "fp8"}, "one of float32, fp32, tf32, bf16, fp16, auto"),
        ({"train_file": ["a.json"]}, "give one of them"),
        ({"class_folders": None}, "give one of them"),
        ({"class_folders": None, "train_file": "a.json"}, "'image_root'"),
        ({"val_file": "val.json"}, "go with 'train_file'"),
        ({"val_fraction": 0.0}, "'val_fraction' is 0.0, must be above 0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "both together below 1"),
        ({"label_smoothing": 1.0}, "'label_smoothing' is 1.0"),
        ({"batch_size_train": 0}, "'batch_size_train' is 0"),
        ({"trained_stages": 0}, "'trained_stages'"),
        ({"optimizer": {"lr": 0}}, "'optimizer.lr' is 0.0, must be above 0"),
    ],
)
def test_a_config_that_cannot_work_is_told_in_one_line(values, told):
    with pytest.raises(InputError) as caught:
        prior_config_from_dict({"class_folders": "scenes"} | values)
    assert told in str(caught.value) and "\n" not in str(caught.value)


# --- the classifier


def classifier(name: str, **options) -> SceneClassifier:
    """A classifier of three scenes with weights of its own everywhere, batch norm's statistics too."""
    own = usual_normalisation(name) == "own"
    model = SceneClassifier(name, len(CLASSES), image_res=112, own_normalisation=own, **options)
    state = start_file_state(model)
    load_start_file_state(model, {n: weight(n, tuple(t.shape)) for n, t in state.items()})
    return model.eval()


@pytest.mark.parametrize("name", ["resnet50", SMALL, "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto"])
def test_the_retrieval_model_s_prior_computes_what_the_classifier_s_last_layer_saw(tmp_path, tiny_config, name):
    model = classifier(name)
    Prior.save_prior(tmp_path / "prior.pth", model, CLASSES, PriorConfig("scenes"))
    prior = build_model(tiny_config(prior_backbone=name)).eval().instruction_encoder
    report = load_prior_start(prior.backbone, str(tmp_path / "prior.pth"))
    assert report.matched == report.needed and len(report.dropped) == 2
    images = pictures(2, 112)
    with torch.no_grad():
        features = prior(images)
        assert torch.equal(model.head(features), model(images))
    assert features.std(dim=0).max() > 1e-5  # or anything would do


def test_a_resnet50_has_the_published_layout_and_another_backbone_timm_s(tmp_path):
    published = torchvision.models.resnet50(num_classes=len(CLASSES))
    published.load_state_dict(start_file_state(classifier("resnet50")))
    for name in (SMALL, "tf_efficientnet_lite0", "convnext_atto"):
        timm.create_model(name, num_classes=len(CLASSES)).load_state_dict(start_file_state(classifier(name)))


def test_only_the_stages_asked_for_are_trained_and_batch_norm_may_stand_still():
    model = classifier(SMALL, trained_stages=1, fixed_bn=True).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.nn.functional.cross_entropy(model(pictures(4, 112)), torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"head.weight", "head.bias", "encoder.backbone.conv_head.weight"} <= changed
    assert "encoder.backbone.conv_stem.weight" not in changed
    assert not any("running" in name for name in changed)


def test_weights_of_another_classifier_are_refused_and_change_nothing():
    model = classifier(SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = start_file_state(SceneClassifier(SMALL, 5, image_res=112, own_normalisation=True))
    with pytest.raises(InputError, match=r"2 tensors do not fit, first 'classifier\.bias'"):
        load_start_file_state(model, other)
    with pytest.raises(InputError, match="another classifier"):
        load_start_file_state(model, {"fc.weight": torch.zeros(3, 3)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- a run and what it writes


def test_two_processes_train_to_a_result(finished):
    result = result_of(finished)
    assert (result["split"], result["pictures"], result["processes"]) == ("test", 15, 2)
    assert result["classes"] == CLASSES
    assert {name: result["splits"][name]["pictures"] for name in result["splits"]} == {
        "train": 21,
        "val": 9,
        "test": 15,
    }
    assert [result["per_class"][name]["pictures"] for name in CLASSES] == [5, 5, 5]
    per_class = [result["per_class"][name]["accuracy"] for name in CLASSES]
    assert result["mean_per_class"] == pytest.approx(sum(per_class) / 3, abs=0.01)
    assert result["config"]["backbone"] == SMALL and result["versions"]["torch"] == torch.__version__
    lines = log_of(finished)
    assert [line["epoch"] for line in lines] == [0, 1]
    assert {"train_loss", "train_lr", "train_seconds", "val_top1", "val_mean_per_class"} <= set(lines[0])
    assert result["val_top1"] == max(line["val_top1"] for line in lines) == lines[result["epoch"]]["val_top1"]
    assert list((finished / "tensorboard").glob("events.*"))
    with Image.open(finished / "confusion.png") as picture:
        assert min(picture.size) > 300
    assert prior_config_from_file(finished / "config.yaml").class_folders.endswith("scenes")


def test_the_start_file_is_plain_and_names_its_classes(finished):
    content = torch.load(finished / "prior.pth", weights_only=True)
    assert content["classes"] == CLASSES
    assert content["config"]["backbone"] == SMALL
    assert content["model"]["classifier.weight"].shape[0] == 3
    assert all(type(tensor) is torch.Tensor and tensor.device.type == "cpu" for tensor in content["model"].values())


def test_evaluating_the_start_file_gives_the_result_again(monkeypatch, finished, experiment, tmp_path):
    train_here(monkeypatch, experiment, tmp_path, "--evaluate", "--checkpoint", str(finished / "prior.pth"))
    again, before = result_of(tmp_path), result_of(finished)
    for name in ("top1", "mean_per_class", "per_class"):
        assert again[name] == before[name]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.yaml", "confusion.png", "result.json"]


def run_in(config: PriorConfig, folder: Path) -> Run:
    return Run(config, folder, seed=0, device=torch.device("cpu"), autocast=None, resuming=False)


def measured(experiment: str, weights: str) -> torch.Tensor:
    """What one of several processes gets from an evaluation."""
    config = prior_config_from_file(experiment)
    scenes = read_scenes(config)
    model = Prior.build_classifier(config, len(scenes.classes))
    Prior.load_prior(model, weights, scenes.classes)
    return Prior.evaluate(run_in(config, Path()), model, scenes.test, "test").clone()


def test_one_two_and_three_processes_measure_the_same(finished, experiment):
    given = (str(experiment), str(finished / "prior.pth"))
    alone = measured(*given)
    assert int(alone.sum()) == 15
    for count in (2, 3):
        assert all(torch.equal(each, alone) for each in run_on_processes(count, measured, *given))


def test_a_run_cut_and_resumed_ends_where_an_uninterrupted_one_does(monkeypatch, experiment, tmp_path):
    train_here(monkeypatch, experiment, tmp_path / "whole")
    whole_epoch = training.train_epoch

    def cut(task, state, loader, epoch, epochs):
        if epoch == 1:
            raise KeyboardInterrupt
        return whole_epoch(task, state, loader, epoch, epochs)

    monkeypatch.setattr(training, "train_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        train_here(monkeypatch, experiment, tmp_path / "cut")
    monkeypatch.setattr(training, "train_epoch", whole_epoch)
    train_here(monkeypatch, experiment, tmp_path / "cut", "--resume")
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    assert losses_of(tmp_path / "cut")[1] < losses_of(tmp_path / "cut")[0]
    kept = [torch.load(tmp_path / name / "prior.pth", weights_only=True)["model"] for name in ("whole", "cut")]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert result_of(tmp_path / "cut")["per_class"] == result_of(tmp_path / "whole")["per_class"]


@pytest.mark.parametrize(("val_top1", "kept"), [((50.0, 40.0), [0]), ((40.0, 50.0), [0, 1]), ((50.0, 50.0), [0])])
def test_the_epoch_best_on_validation_is_kept(monkeypatch, experiment, tmp_path, val_top1, kept):
    saved, figures = [], iter([*val_top1, 1.0])  # the last is the result's
    monkeypatch.setattr(Prior, "accuracy", lambda matrix: {"top1": next(figures), "mean_per_class": 0.0})
    save_prior = Prior.save_prior
    monkeypatch.setattr(Prior, "save_prior", lambda *given: saved.append(given) or save_prior(*given))
    train_here(monkeypatch, experiment, tmp_path)
    assert len(saved) == len(kept)
    result = result_of(tmp_path)
    assert (result["epoch"], result["val_top1"], result["top1"]) == (kept[-1], max(val_top1), 1.0)


def test_training_looks_at_no_picture_of_another_split(monkeypatch, experiment, tmp_path):
    """With validation and test pictures changed, the losses stay."""
    shutil.copytree(experiment.parent / "scenes", tmp_path / "scenes")
    folders = ("--override", f"class_folders={tmp_path / 'scenes'}")
    train_here(monkeypatch, experiment, tmp_path / "before", *folders)
    scenes = read_scenes(prior_config_from_file(experiment, [folders[1]]))
    for picture in scenes.val + scenes.test:
        Image.new("RGB", (64, 64), "red").save(picture.image)
    train_here(monkeypatch, experiment, tmp_path / "after", *folders)
    assert losses_of(tmp_path / "before") == losses_of(tmp_path / "after")
    for picture in scenes.train:
        Image.new("RGB", (64, 64), "red").save(picture.image)
    train_here(monkeypatch, experiment, tmp_path / "changed", *folders)
    assert losses_of(tmp_path / "before") != losses_of(tmp_path / "changed")


def test_a_training_starts_from_a_start_file(monkeypatch, capsys, finished, experiment, tmp_path):
    start = ("--override", f"start={finished / 'prior.pth'}", "--override", "schedular.epochs=1")
    train_here(monkeypatch, experiment, tmp_path / "more", *start)
    assert f"from {finished / 'prior.pth'} (2 dropped: classifier.weight" in capsys.readouterr().out
    assert losses_of(tmp_path / "more")[0] != losses_of(finished)[0]


# --- what goes wrong


def test_resuming_with_another_config_or_other_pictures_is_refused(monkeypatch, finished, experiment, tmp_path):
    with pytest.raises(InputError, match="label_smoothing, processes differ"):
        train_here(monkeypatch, experiment, finished, "--resume", "--override", "label_smoothing=0.2")
    shutil.copytree(experiment.parent / "scenes", tmp_path / "scenes")
    folders = ("--override", f"class_folders={tmp_path / 'scenes'}", "--override", "schedular.epochs=1")
    train_here(monkeypatch, experiment, tmp_path / "run", *folders)
    (tmp_path / "scenes/pond/pond_3.png").unlink()
    with pytest.raises(InputError, match="the pictures found differ"):
        train_here(monkeypatch, experiment, tmp_path / "run", "--resume", *folders)


def test_a_folder_with_a_run_is_refused_and_left_alone(monkeypatch, finished, experiment):
    before = {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    with pytest.raises(InputError, match="already holds a run"):
        train_here(monkeypatch, experiment, finished)
    own_start = ("--override", f"start={finished / 'prior.pth'}")
    with pytest.raises(InputError, match="starts from"):
        train_here(monkeypatch, experiment, finished, "--overwrite", *own_start)
    with pytest.raises(InputError, match="nowhere"):
        train_here(monkeypatch, experiment, finished, "--overwrite", "--override", "start=nowhere.pth")
    assert before == {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}


def test_overwriting_replaces_everything_of_the_run(monkeypatch, experiment, tmp_path):
    for name in ("prior.pth", "confusion.png", "resume.pth", "result.json"):
        (tmp_path / name).write_text("old")
    remove_run(tmp_path, evaluate=False, reads=[])
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_and_names_pictures(monkeypatch, experiment, tmp_path):
    wild = ("--override", "optimizer.lr=1e30", "--override", "schedular.num_warmup_steps=0")
    with pytest.raises(InputError, match=r"not finite in epoch 0 .*\.png"):
        train_here(monkeypatch, experiment, tmp_path, *wild)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--evaluate"], "--checkpoint"),
        (["--checkpoint", "some.pth"], "--evaluate"),
        (["--evaluate", "--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["--override", "backbone=resnot50"], "resnot50"),
        (["--override", "trained_stages=90"], "stages"),
        (["--override", "start=nowhere.pth"], "nowhere.pth"),
        (["--override", "class_folders=nowhere"], "nowhere"),
        (["--override", "batch_size_train=400"], "smaller batch"),
        (["--override", "schedular.epoch=4"], "schedular.epochs"),
        (["--bs", "0"], "--bs 0"),
    ],
)
def test_a_mistake_is_told_before_training(monkeypatch, experiment, tmp_path, arguments, told):
    with pytest.raises(InputError, match=told) as error:
        train_here(monkeypatch, experiment, tmp_path, *arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "log.txt").exists()


def test_a_start_that_does_not_fill_is_told_before_training(monkeypatch, finished, experiment, tmp_path):
    start = ("--override", f"start={finished / 'prior.pth'}", "--override", "backbone=mobilenetv3_small_075")
    with pytest.raises(InputError, match="does not fit"):
        train_here(monkeypatch, experiment, tmp_path, *start)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_unreadable_picture_is_told_before_training(monkeypatch, experiment, tmp_path, split):
    shutil.copytree(experiment.parent / "scenes", tmp_path / "scenes")
    folders = f"class_folders={tmp_path / 'scenes'}"
    damaged = Path(getattr(read_scenes(prior_config_from_file(experiment, [folders])), split)[4].image)
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    with pytest.raises(InputError, match=f"cannot read the picture {damaged}"):
        train_here(monkeypatch, experiment, tmp_path / "run", "--override", folders)
    assert not (tmp_path / "run/log.txt").exists()


def test_a_start_file_of_other_classes_is_not_evaluated(monkeypatch, finished, experiment, tmp_path):
    shutil.copytree(experiment.parent / "scenes", tmp_path / "scenes")
    (tmp_path / "scenes/pond").rename(tmp_path / "scenes/river")
    given = ("--evaluate", "--checkpoint", str(finished / "prior.pth"))
    with pytest.raises(InputError, match="does not name these 3 classes"):
        train_here(monkeypatch, experiment, tmp_path / "run", *given, "--override", f"class_folders={tmp_path}/scenes")


def test_a_mistake_from_the_command_line_is_one_line_and_a_status(experiment, tmp_path):
    wrong = ["--config", str(experiment), "--output_dir", str(tmp_path), "--override", "class_folders=nowhere"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "Prior.py"), *wrong], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and "nowhere" in done.stderr


# --- the average of the weights


def test_the_average_moves_by_its_decay_and_keeps_whole_numbers_whole():
    model = torch.nn.BatchNorm1d(1)
    average = averaged(model, 0.9)
    for value in (1.0, 2.0):  # the first is copied
        model.weight.data.fill_(value)
        model.num_batches_tracked.fill_(int(5 * value))
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1.1)
    assert average.module.num_batches_tracked.item() == 10
    assert averaged(model, 0.0) is None


# --- figures and their picture


def test_the_matrix_counts_what_is_taken_for_what():
    matrix = confusion_matrix(torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0, 0, 2, 2, 1]), 3)
    assert matrix.tolist() == [[2, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert class_accuracies(matrix) == [66.67, None, 50.0]
    assert accuracy(matrix) == {"top1": 60.0, "mean_per_class": 58.33}


@pytest.mark.parametrize("classes", [2, 45, 130])
def test_the_picture_has_room_for_every_class_and_is_written_whole(tmp_path, classes):
    file = tmp_path / "confusion.png"
    draw_confusion(file, torch.eye(classes).long() * 7, [f"a long class {i}" for i in range(classes)], title="a title")
    with Image.open(file) as picture:
        assert 20 * min(classes, 100) < min(picture.size) and max(picture.size) < 5000
    assert list(tmp_path.iterdir()) == [file]
