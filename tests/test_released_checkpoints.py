"""Checkpoints in folders as published: evaluated from the folder alone, set beside the paper's numbers."""

import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

import Retrieval
from dataset.drawn.scenes import draw_scenes
from models import build_model
from models.released import released_state_dict
from study import released
from study.plan import FIGURES
from study.released import evaluate_released
from tests.tiny import TEXT, VISION
from utils.config import config_from_file
from utils.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two folders as published, of a small model, whose start files are not there; its data and vocabulary are."""
    folder = tmp_path_factory.mktemp("published")
    draw_scenes(folder / "data", train=8, val=4, test=9, size=112)
    for name, sizes in (("vision", VISION), ("text", TEXT | {"vocab_size": 512})):
        (folder / f"{name}.json").write_text(json.dumps(sizes))
    text = f"""\
train_file: ['{folder}/data/scenes_train.json']  # not needed to evaluate
val_file: '{folder}/nowhere_val.json'
test_file: '{folder}/data/scenes_test.json'
image_root: '{folder}/data/'
vision_config: '{folder}/vision.json'
text_config: '{folder}/text.json'
resnet_ckpt: '{folder}/nowhere.pth'
prior_backbone: mobilenetv3_small_050
text_encoder: '{folder}/data'
image_res: 112
max_tokens: 24
embed_dim: 32
head: 4
dropout_r: 0.20
num_workers: 0
optimizer: {{opt: adamW, lr: 6e-5, weight_decay: 0.01, lr_mult: 2}}
"""
    for name, baseline in (("full", "False"), ("baseline", "True")):
        given = text + f"is_baseline: {baseline}\nuse_affil_loss: {baseline == 'False'}\n"
        write_checkpoint(folder / "PIR" / name, given)
    return folder / "PIR"


def write_checkpoint(folder: Path, text: str) -> None:
    """A folder in the released layout, its config as ruamel.yaml reads and writes it, in the weights' file, too."""
    folder.mkdir(parents=True)
    config = YAML().load(text)
    YAML().dump(config, folder / "config.yaml")
    torch.manual_seed(0)
    model = build_model(config_from_file(folder / "config.yaml"))
    torch.save({"model": released_state_dict(model), "config": config}, folder / "checkpoint_best.pth")
    line = {"train_loss_contr": "4.1000", "test_r_mean": 20.5, "epoch": 0, "best_epoch": 0}
    (folder / "log.txt").write_text(
        json.dumps(line) + "\n" + json.dumps(line | {"epoch": 1}) + "\nno JSON\nbest epoch: 0"
    )


def evaluate_here(monkeypatch, output: Path, *arguments: str) -> dict:
    """`Retrieval.py --evaluate` inside the test's own process; its result."""
    given = ["Retrieval.py", "--evaluate", "--output_dir", str(output), "--device", "cpu", *arguments]
    monkeypatch.setattr(sys, "argv", given)
    Retrieval.main()
    return json.loads((output / "result.json").read_text())


def test_a_published_folder_is_evaluated_by_its_own_config_and_nothing_else_but_the_data(
    monkeypatch, published, tmp_path
):
    folder = published / "full"
    alone = evaluate_here(monkeypatch, tmp_path / "alone", "--checkpoint", str(folder))
    files = ("--checkpoint", str(folder / "checkpoint_best.pth"), "--config", str(folder / "config.yaml"))
    named = evaluate_here(monkeypatch, tmp_path / "named", *files)
    assert [alone[name] for name in FIGURES] == [named[name] for name in FIGURES]
    assert alone["pictures"] == 9 and alone["config"]["embed_dim"] == 32


def test_a_config_given_and_overrides_win_over_the_folders(monkeypatch, published, tmp_path):
    folder = ("--checkpoint", str(published / "full"))
    other = tmp_path / "other.yaml"
    other.write_text((published / "full/config.yaml").read_text() + "batch_size_test: 3\n")
    given = ("--config", str(other), "--override", "batch_size_test_text=7")
    result = evaluate_here(monkeypatch, tmp_path / "run", *folder, *given)
    assert (result["config"]["batch_size_test"], result["config"]["batch_size_test_text"]) == (3, 7)
    with pytest.raises(InputError, match="do not fit"):
        evaluate_here(monkeypatch, tmp_path / "unfit", *folder, "--override", "cycle_num=1")


def test_keys_of_other_programs_in_a_checkpoints_config_are_one_warning(monkeypatch, capsys, published, tmp_path):
    shutil.copytree(published / "full", tmp_path / "full")
    with (tmp_path / "full/config.yaml").open("a") as config:
        config.write("indistinct_margin: 0.1\nschedular: {epochs: 50, num_training_steps: 900}\n")
    evaluate_here(monkeypatch, tmp_path / "out", "--checkpoint", str(tmp_path / "full"))
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1 and "left aside: indistinct_margin, schedular.num_training_steps" in warned[0]
    with pytest.raises(InputError, match="unknown key 'indistinct_margin'"):
        evaluate_here(
            monkeypatch, tmp_path / "o", "--checkpoint", str(tmp_path / "full"), "--override", "indistinct_margin=1"
        )
    shutil.copy(tmp_path / "full/config.yaml", tmp_path / "mine.yaml")  # a config of one's own is read strictly
    with pytest.raises(InputError, match="unknown key"):
        config_from_file(tmp_path / "mine.yaml")


def test_training_still_needs_a_config(monkeypatch, published, tmp_path):
    given = ["Retrieval.py", "--output_dir", str(tmp_path), "--checkpoint", str(published / "full")]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(InputError, match="--config FILE is missing"):
        Retrieval.main()


# --- all of a folder


def test_every_checkpoint_is_measured_once_and_a_failing_one_stops_no_other(capfd, published, tmp_path):
    shutil.copytree(published / "full", tmp_path / "PIR/full")
    shutil.copytree(published / "full", tmp_path / "PIR/a/broken")
    (tmp_path / "PIR/a/broken/checkpoint_best.pth").write_bytes(b"not weights")
    given = (tmp_path / "PIR", tmp_path / "out", "cpu", ["batch_size_test=5"], False)

    assert evaluate_released(*given) == 1
    told = capfd.readouterr()
    assert "checkpoint_best.pth is damaged" in told.err and "failed: a/broken: exit code 1" in told.err
    first = (tmp_path / "out/full/result.json").stat().st_mtime_ns
    rows = table_of(tmp_path / "out")
    assert [row["checkpoint"] for row in rows] == ["a/broken", "full"]
    assert not rows[0]["measured_r_mean"] and "exit code 1" in rows[0]["note"]
    result = json.loads((tmp_path / "out/full/result.json").read_text())
    assert result["config"]["batch_size_test"] == 5
    assert float(rows[1]["measured_r_mean"]) == result["r_mean"] and not rows[1]["published_r_mean"]

    shutil.copy(published / "full/checkpoint_best.pth", tmp_path / "PIR/a/broken")
    assert evaluate_released(*given) == 0
    assert all(row["measured_r_mean"] for row in table_of(tmp_path / "out"))
    assert (tmp_path / "out/full/result.json").stat().st_mtime_ns == first
    assert "2 of 2: full is measured already" in capfd.readouterr().err


def table_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "released.csv").read_text().splitlines()))


def test_a_dry_run_prints_a_command_each_and_writes_nothing(capsys, monkeypatch, published, tmp_path):
    monkeypatch.setattr(released, "run_to_end", lambda *given: pytest.fail("launched"))
    assert evaluate_released(published, tmp_path / "out", "f2", ["image_root=a b"], dry_run=True) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(command[command.index("--checkpoint") + 1]).name for command in commands] == ["baseline", "full"]
    for command in commands:
        assert Path(command[1]).name == "run.py" and command[-2:] == ["--override", "image_root=a b"]
    assert not (tmp_path / "out").exists()


def test_a_signal_stops_after_the_run_it_ended_and_tells_what_is_there(monkeypatch, published, tmp_path):
    started = []
    monkeypatch.setattr(released, "run_to_end", lambda command, environment: started.append(command) or 143)
    assert evaluate_released(published, tmp_path / "out", "cpu", [], dry_run=False) == 143
    assert len(started) == 1 and len(table_of(tmp_path / "out")) == 2


def test_one_checkpoints_own_folder_keeps_its_name(published, tmp_path):
    found, _ = released.find_checkpoints(published / "full", tmp_path)
    assert [(each.name, each.output_dir) for each in found] == [("full", tmp_path / "full")]


def test_folders_behind_links_are_found_once(published, tmp_path):
    (tmp_path / "PIR/mine").mkdir(parents=True)
    (tmp_path / "PIR/mine/linked").symlink_to(published / "full")
    (tmp_path / "PIR/round").symlink_to(tmp_path / "PIR")
    found, _ = released.find_checkpoints(tmp_path / "PIR", tmp_path / "out")
    assert [each.name for each in found] == ["mine/linked"]


def test_a_result_never_goes_into_a_checkpoints_own_folder(published, tmp_path):
    with pytest.raises(InputError, match=r"would go into .*, which holds a checkpoint itself; give another"):
        evaluate_released(published, published, "cpu", [], False)
    assert not (published / "released.md").exists()


def test_weights_without_their_config_are_told_where_others_have_one(measured_pir, capsys):
    folder, output, _ = measured_pir
    (folder / "alone").mkdir()
    (folder / "alone/checkpoint_best.pth").write_bytes(b"")
    assert evaluate_released(folder, output.parent, "cpu", [], False) == 0
    told = f"left aside: {folder / 'alone/checkpoint_best.pth'} without its config.yaml"
    assert told in capsys.readouterr().err and told in (output.parent / "released.md").read_text()


def test_a_folder_without_checkpoints_is_told(published, tmp_path):
    with pytest.raises(InputError, match=r"no folder with checkpoint_best\.pth and config\.yaml"):
        evaluate_released(tmp_path, tmp_path / "out", "cpu", [], False)
    shutil.copytree(published / "full", tmp_path / "full")
    (tmp_path / "full/config.yaml").unlink()
    with pytest.raises(InputError, match=r"full/checkpoint_best\.pth without its config\.yaml"):
        evaluate_released(tmp_path, tmp_path / "out", "cpu", [], False)
    with pytest.raises(InputError, match="is no folder"):
        evaluate_released(tmp_path / "nowhere", tmp_path / "out", "cpu", [], False)


# --- beside the published numbers


@pytest.fixture
def measured_pir(monkeypatch, tmp_path):
    """A folder of the released PIR on RSICD, and the folder of its result, whose figures are made up."""
    monkeypatch.chdir(ROOT)  # the released config names configs/config_swinT_224.json
    monkeypatch.setattr(released, "run_to_end", lambda *given: pytest.fail("launched"))
    folder = tmp_path / "PIR/full|<rsicd>"
    folder.mkdir(parents=True)
    shutil.copy("configs/Retrieval_rsicd.yaml", folder / "config.yaml")
    (folder / "checkpoint_best.pth").write_bytes(b"")
    (folder / "log.txt").write_text('{"epoch": 0, "test_r_mean": "24.1", "train_loss": "1"}\nno JSON\nbest epoch: 0')
    result = {"config": config_from_file(folder / "config.yaml").to_dict(), "pictures": 1093}
    result["weights_sha256"] = hashlib.sha256(b"").hexdigest()
    result |= dict(zip(FIGURES, [9.0, 27.0, 39.0, 7.0, 25.0, 39.0, 24.33], strict=True))
    output = tmp_path / "out" / folder.name
    output.mkdir(parents=True)
    (output / "result.json").write_text(json.dumps(result))
    return tmp_path / "PIR", output, result


def test_measured_published_and_their_difference_stand_together(measured_pir):
    folder, output, _ = measured_pir
    assert evaluate_released(folder, output.parent, "cpu", [], False) == 0
    text = (output.parent / "released.md").read_text()
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]
    lines = {line[3]: line for line in lines if len(line) == 11}
    assert lines["measured"][:3] == [r"full\|<rsicd>", "RSICD", "PIR, contrastive + affiliation"]
    assert lines["measured"][4:] == ["9.00", "27.00", "39.00", "7.00", "25.00", "39.00", "24.33"]
    assert lines["published"][4:] == ["9.88", "27.26", "39.16", "6.97", "24.56", "38.92", "24.46"]
    assert lines["difference"][4:] == ["-0.88", "-0.26", "-0.16", "+0.03", "+0.44", "+0.08", "-0.13"]
    assert "not measured here" in text and "1 line left aside" in text
    row = table_of(output.parent)[0]
    assert (row["measured_r_mean"], row["published_r_mean"]) == ("24.33", "24.46")

    page = (output.parent / "released.html").read_text()
    assert "full|&lt;rsicd&gt;" in page and "<rsicd>" not in page
    assert re.findall(r'src="([^"]{22})', page) == ["data:image/png;base64,"]
    with Image.open(output.parent / "curves.png") as picture:
        assert min(picture.size) > 250


def test_other_weights_than_the_results_are_measured_again_however_old_they_are(measured_pir, monkeypatch):
    folder, output, _ = measured_pir
    asked = []
    monkeypatch.setattr(released, "run_to_end", lambda command, environment: asked.append(command) or 0)
    evaluate_released(folder, output.parent, "cpu", ["num_workers=3"], False)
    assert asked == []
    weights = folder / output.name / "checkpoint_best.pth"
    os.utime(weights, (time.time() + 60,) * 2)
    evaluate_released(folder, output.parent, "cpu", [], False)
    assert asked == []
    weights.write_bytes(b"others")
    os.utime(weights, (0, 0))
    evaluate_released(folder, output.parent, "cpu", [], False)
    assert len(asked) == 1


def test_measured_under_an_override_that_makes_another_method_no_number_stands_beside_it(measured_pir):
    folder, output, result = measured_pir
    result["config"]["mask_padding"] = True
    (output / "result.json").write_text(json.dumps(result))
    assert evaluate_released(folder, output.parent, "cpu", ["mask_padding=True"], False) == 0
    row = table_of(output.parent)[0]
    assert row["measured_r_mean"] == "24.33" and not row["published_r_mean"]
    assert "but for mask_padding True" in row["note"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pictures": 10}, "measured on 10 pictures, the published numbers are on 1093"),
        ({"r_mean": None}, "is no result of an evaluation"),
        ({"config": {}}, "is no result of an evaluation"),
        ({"filter_size": 20}, r"measured with another filter_size (20, now 40)"),
    ],
)
def test_a_result_that_cannot_be_compared_is_told_and_stays(measured_pir, change, told):
    folder, output, result = measured_pir
    for key in change:
        place = result["config"] if key == "filter_size" else result
        place[key] = change[key]
    written = json.dumps(result)
    (output / "result.json").write_text(written)
    assert evaluate_released(folder, output.parent, "cpu", [], False) == int("pictures" not in change)
    row = table_of(output.parent)[0]
    assert told in row["note"]
    assert "pictures" in change or not row["measured_r_mean"]
    assert "difference" not in re.sub("Difference", "", (output.parent / "released.md").read_text())
    assert (output / "result.json").read_text() == written
