"""Tables.py from the command line: dry run, a study killed and continued, what is refused."""

import json
import shlex
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import yaml

import Tables
from dataset.drawn.scenes import draw_scenes
from tests.processes import log_lines
from tests.small_study import write_run, write_study
from tests.tiny import TEXT, VISION
from utils.config import config_from_file
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
ROWS = {"plain": {"overrides": ["is_baseline=True"]}, "whole": {"overrides": ["filter_size=20"]}}


def test_a_dry_run_prints_every_command_and_opens_nothing(tmp_path, capsys):
    study = write_study(tmp_path, ROWS, overrides=["head=2"])
    output_dir = tmp_path / "my out"
    arguments = ["--study", str(study), "--output_dir", str(output_dir), "--seeds", "3,4", "--dist", "f4"]
    assert Tables.main([*arguments, "--override", "train_file=a b.json", "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and not output_dir.exists()
    words = shlex.split(lines[1])
    assert words[:2] == [sys.executable, str(ROOT / "run.py")]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--override"] == [
        "head=2",
        "filter_size=20",
        "train_file=a b.json",
    ]
    options = {name: words[words.index(name) + 1] for name in ("--task", "--seed", "--dist", "--output_dir")}
    assert options == {
        "--task": "itr_demo",
        "--seed": "3",
        "--dist": "f4",
        "--output_dir": str(output_dir / "whole/seed_3"),
    }


def test_a_printed_line_is_ready_for_a_shell(tmp_path, capsys):
    study = write_study(tmp_path, ROWS)
    arguments = ["--study", str(study), "--output_dir", str(tmp_path / "out"), "--rows", "whole"]
    assert Tables.main([*arguments, "--parallel", "cpu;cpu", "--dry_run"]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=")
    done = subprocess.run(["bash", "-c", f"{line} --dry_run"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and "Retrieval.py" in done.stdout and "filter_size=20" in done.stdout


def test_rows_limit_what_runs_and_collect_runs_nothing(tmp_path, capsys):
    study = write_study(tmp_path, ROWS)
    write_run(tmp_path / "out", "plain", 42, tmp_path / "base.yaml", ["is_baseline=True"])
    arguments = ["--study", str(study), "--output_dir", str(tmp_path / "out")]
    assert Tables.main([*arguments, "--rows", "plain", "--dist", "cpu"]) == 0
    assert "1 runs: 1 done, 0 to do" in capsys.readouterr().out
    assert Tables.main([*arguments, "--collect"]) == 0
    assert "1 of 2 rows in" in capsys.readouterr().out
    assert not (tmp_path / "out/whole").exists()
    table = (tmp_path / "out/table.md").read_text()
    assert f"python Tables.py --study {study}" in table and "python run.py --task itr_demo" in table


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rows", "plan"], "did you mean plain?"),
        (["--rows", "plain,plain"], "a row twice"),
        (["--dist", "f9"], "unknown --dist 'f9'"),
        (["--dist", "cpu", "--parallel", "cpu;cpu"], "give one"),
        (["--parallel", ""], "'' is no group of cards"),
        (["--override", "temp3=1"], "unknown key 'temp3'"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(tmp_path, arguments, told):
    study = write_study(tmp_path, ROWS)
    with pytest.raises(InputError) as caught:
        Tables.main(["--study", str(study), "--output_dir", str(tmp_path / "out"), *arguments])
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", ["1,1", "-1", "one", "18446744073709551616"])
def test_seeds_that_cannot_be_are_told(tmp_path, seeds):
    study = write_study(tmp_path, ROWS)
    with pytest.raises(InputError, match=r"--seeds.*give different numbers"):
        Tables.main(["--study", str(study), "--output_dir", str(tmp_path / "out"), f"--seeds={seeds}"])


@pytest.mark.parametrize("option", ["--study", "--released", "--output_dir"])
def test_a_name_that_an_unset_variable_left_empty_is_not_the_current_folder(tmp_path, option):
    given = {"--study": str(write_study(tmp_path, ROWS)), "--output_dir": str(tmp_path / "out")}
    if option == "--released":
        del given["--study"]
    with pytest.raises(InputError, match=f"{option}: the name is empty"):
        Tables.main([part for pair in (given | {option: ""}).items() for part in pair])


def test_a_file_for_a_folder_is_told_before_the_first_run(tmp_path):
    file = write_study(tmp_path, ROWS)
    with pytest.raises(InputError, match=r"--output_dir .* cannot be written"):
        Tables.main(["--study", str(file), "--output_dir", str(file), "--dist", "cpu"])


def test_a_command_in_the_table_is_that_of_the_run_whatever_is_given_now(tmp_path):
    study, out = write_study(tmp_path, ROWS), tmp_path / "out"
    made_with = ["is_baseline=True", "image_root=a b", "optimizer.lr=3e-5", "use_affil_loss=False"]
    write_run(out, "plain", 1, tmp_path / "base.yaml", made_with)
    Tables.main(["--study", str(study), "--output_dir", str(out), "--collect", "--override", "head=2"])
    (line,) = [line for line in (out / "table.md").read_text().splitlines() if "plain/seed_1" in line]
    words = shlex.split(line.removeprefix("#"))
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--override"]
    again = config_from_file(tmp_path / "base.yaml", overrides)
    assert again == config_from_file(tmp_path / "base.yaml", made_with)
    assert "image_root=a b" in overrides and "use_affil_loss=False" in overrides


def test_nothing_finished_replaces_no_table(tmp_path):
    study, out = write_study(tmp_path, ROWS), tmp_path / "out"
    out.mkdir()
    (out / "table.md").write_text("of another study")
    with pytest.raises(InputError, match=r"--collect: .*out holds no finished run of .*study\.yaml"):
        Tables.main(["--study", str(study), "--output_dir", str(out), "--collect"])
    assert (out / "table.md").read_text() == "of another study"


def test_a_damaged_result_of_any_row_is_told_before_a_run_starts(tmp_path, monkeypatch):
    study, out = write_study(tmp_path, ROWS), tmp_path / "out"
    folder = write_run(out, "plain", 1, tmp_path / "base.yaml", ["is_baseline=True"])
    (folder / "ranks.npz").write_bytes(b"torn")
    monkeypatch.setattr(Tables, "run_queue", lambda *given: pytest.fail("it started"))
    with pytest.raises(InputError, match=r"ranks\.npz is damaged"):
        Tables.main(["--study", str(study), "--output_dir", str(out), "--rows", "whole", "--dist", "cpu"])


@pytest.mark.parametrize("same", [True, False])
def test_rows_on_different_pictures_are_told_before_a_run_starts(tmp_path, monkeypatch, same):
    (tmp_path / "pictures").mkdir()
    for name, pictures in (("one", "ab"), ("two", "ab" if same else "ac")):
        records = [{"image": f"{each}.jpg", "caption": [f"{name} {each}"]} for each in pictures]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
        for each in pictures:
            (tmp_path / f"pictures/{each}.jpg").touch()
    rows = {name: {"overrides": [f"test_file={tmp_path}/{name}.json"]} for name in ("one", "two")}
    rows["gone"] = {"overrides": [f"test_file={tmp_path}/gone.json"]}
    study = write_study(tmp_path, rows, overrides=[f"image_root={tmp_path}/pictures"])
    started = []
    monkeypatch.setattr(Tables, "run_queue", lambda *given: started.append(given) or 0)
    arguments = ["--study", str(study), "--output_dir", str(tmp_path / "out"), "--dist", "cpu"]
    if same:
        assert Tables.main(arguments) == 0
    else:
        with pytest.raises(InputError, match=r"different test sets.*row one on .*one\.json, row two on .*two\.json"):
            Tables.main(arguments)
        assert not started
        assert Tables.main([*arguments, "--rows", "two"]) == 0  # alone it is compared to nothing
    assert len(started) == 1


def test_the_command_of_a_table_names_every_seed_it_holds(tmp_path):
    study, out = write_study(tmp_path, ROWS), tmp_path / "out"
    for seed in (1, 2):
        write_run(out, "plain", seed, tmp_path / "base.yaml", ["is_baseline=True"])
    Tables.main(["--study", str(study), "--output_dir", str(out), "--collect", "--seeds", "1"])
    assert "--seeds 1,2" in (out / "table.md").read_text()


def test_a_study_and_released_checkpoints_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="not allowed with"):
        Tables.main(["--study", "x", "--released", "y", "--output_dir", str(tmp_path)])
    with pytest.raises(InputError, match="--rows is for a study"):
        Tables.main(["--released", "y", "--output_dir", str(tmp_path), "--rows", "a"])


def test_released_checkpoints_are_given_on_with_what_they_need(tmp_path, monkeypatch):
    released = types.ModuleType("study.released")
    released.evaluate_released = lambda *given: given
    monkeypatch.setitem(sys.modules, "study.released", released)
    arguments = ["--released", "checkpoints/PIR", "--output_dir", str(tmp_path), "--override", "image_root=a"]
    given = Tables.main([*arguments, "--dry_run"])
    assert given == (Path("checkpoints/PIR"), tmp_path, "auto", ["image_root=a"], True)


# --- a study that trains


@pytest.fixture
def demo_study(tmp_path):
    """Two rows that train for seconds, and one whose test file is missing."""
    draw_scenes(tmp_path / "scenes", train=24, val=6, test=8, size=112)
    for name, sizes in (("vision", VISION), ("text", TEXT | {"vocab_size": 512})):
        (tmp_path / f"{name}.json").write_text(json.dumps(sizes))
    values = {f"{split}_file": str(tmp_path / f"scenes/scenes_{split}.json") for split in ("train", "val", "test")}
    values |= {"image_root": str(tmp_path / "scenes"), "tokenizer": str(tmp_path / "scenes"), "text_encoder": None}
    values |= {"vision_config": str(tmp_path / "vision.json"), "text_config": str(tmp_path / "text.json")}
    values |= {"prior_backbone": "mobilenetv3_small_050", "resnet_ckpt": None, "image_res": 112, "embed_dim": 32}
    values |= {"batch_size_train": 8, "num_workers": 0, "select_on": "val", "schedular": {"epochs": 2}}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(values))
    rows = {
        "plain": {"overrides": ["is_baseline=True", "use_affil_loss=False"]},
        "broken": {"overrides": ["test_file=nowhere.json"]},
        "whole": {"overrides": ["schedular.epochs=3"]},
    }
    file = tmp_path / "study.yaml"
    study = {"title": "Demo", "config": str(tmp_path / "demo.yaml"), "task": "itr_demo", "rows": rows}
    file.write_text(yaml.safe_dump(study | {"seeds": [5], "compare_to": "plain"}, sort_keys=False))
    return file


@pytest.mark.timeout(600)  # it starts torch a dozen times
def test_a_study_killed_in_the_middle_goes_on_where_it_was_cut(demo_study, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "Tables.py"), "--study", str(demo_study), "--output_dir", str(out)]
    command += ["--dist", "cpu"]
    cut = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (out / "whole/seed_5/resume.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    cut.send_signal(signal.SIGTERM)
    _, told = cut.communicate(timeout=60)
    assert cut.returncode == 143, told
    assert "SIGTERM: ending all runs" in told
    assert (out / "plain/seed_5/result.json").exists()
    assert not (out / "whole/seed_5/result.json").exists(), "it finished before it could be killed"
    before = (out / "plain/seed_5/result.json").stat().st_mtime_ns

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    assert "3 runs: 1 done, 2 to do" in done.stdout
    assert "2/2 whole seed 5 goes on" in done.stdout and "2/2 whole seed 5 done in" in done.stdout
    assert (out / "plain/seed_5/result.json").stat().st_mtime_ns == before
    (failed,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert failed.startswith("failed: broken seed 5: error: ") and "nowhere" in failed and "run.log" in failed
    assert "going on with epoch" in (out / "whole/seed_5/run.log").read_text()
    epochs = [line["epoch"] for line in log_lines(out / "whole/seed_5/log.txt")]
    assert epochs == [0, 1, 2]
    table = (out / "table.md").read_text()
    assert "| whole | measured | 1 |" in table and "- broken: missing, no result with seed 5 yet." in table
