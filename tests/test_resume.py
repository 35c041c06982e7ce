"""Going on after an interruption: with the same data and weights alone, from every point a crash may leave."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import Retrieval
from tests.processes import log_lines
from tests.small_experiment import write_experiment
from utils import training
from utils.checkpoint import read_checkpoint, read_torch_file
from utils.errors import InputError
from utils.train_state import TrainState


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The YAML of two short epochs on a few drawn scenes; the last epoch need not be the best."""
    folder = tmp_path_factory.mktemp("experiment")
    return write_experiment(folder, epochs=2, is_baseline=True, batch_size_train=8, average_decay=0.5)


def train(monkeypatch, experiment, output, *arguments):
    command = ["Retrieval.py", "--config", str(experiment), "--output_dir", str(output), "--seed", "3", *arguments]
    monkeypatch.setattr("sys.argv", command)
    Retrieval.main()


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        train(patch, experiment, folder)
    return folder


@pytest.fixture
def cut(monkeypatch, experiment, tmp_path):
    """A run interrupted in its second epoch."""
    train_epoch = training.train_epoch

    def interrupted(task, state, loader, epoch, epochs):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(task, state, loader, epoch, epochs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(patch, experiment, tmp_path / "cut")
    return tmp_path / "cut"


def figures(folder):
    """What two runs that trained the same have in common: log lines without times, weights, the result's figures."""
    lines = log_lines(folder / "log.txt")
    timed = ("train_seconds", "train_pictures_per_second")
    result = json.loads((folder / "result.json").read_text())
    return (
        [{key: value for key, value in line.items() if key not in timed} for line in lines],
        {key: result[key] for key in ("r_mean", "txt_r1", "img_r10", "epoch", "weights_sha256")},
    )


def same(folder, other):
    assert figures(folder) == figures(other)
    for name in ("checkpoint_best.pth", "checkpoint_1.pth"):
        one, two = read_checkpoint(folder / name), read_checkpoint(other / name)
        assert all(torch.equal(one[key], two[key]) for key in one)


# ---- every point of a crash ----


def killed(experiment, output, at, *arguments):
    """Run in a process that ends, as by SIGKILL, before file event `at`; its exit code, and how many events came."""
    counter = output.with_name(f"{output.name}.events")
    child = os.fork()
    if child == 0:
        seen = 0

        def counted(change):
            def event(*given, **options):
                nonlocal seen
                if seen == at:
                    os._exit(9)
                seen += 1
                counter.write_text(str(seen))
                return change(*given, **options)

            return event

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "replace", counted(os.replace))
                patch.setattr(os, "fsync", counted(os.fsync))
                patch.setattr(torch, "save", counted(torch.save))
                patch.setattr(Path, "write_bytes", counted(Path.write_bytes))
                patch.setattr(Path, "unlink", counted(Path.unlink))
                train(patch, experiment, output, *arguments)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(counter.read_text()) if counter.exists() else 0


def test_a_run_killed_at_any_file_event_resumes_to_the_same_bits(experiment, whole, tmp_path):
    code, events = killed(experiment, tmp_path / "counted", -1)
    assert code == 0 and events > 20
    same(tmp_path / "counted", whole)
    for at in range(events):
        folder = tmp_path / f"killed{at}"
        assert killed(experiment, folder, at)[0] == 9
        if (folder / "result.json").exists():
            continue  # all was there already
        assert killed(experiment, folder, -1, "--resume")[0] == 0, f"after event {at} of {events}"
        same(folder, whole)
        assert not [file.name for file in folder.iterdir() if file.suffix in (".partial", ".next")]
        shutil.rmtree(folder)


def test_a_run_cut_in_its_first_epoch_starts_from_the_beginning_and_says_so(
    monkeypatch, capsys, experiment, whole, tmp_path
):
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(patch, experiment, tmp_path / "run")
    assert (tmp_path / "run/log.txt").read_text().count("\n") == 1
    train(monkeypatch, experiment, tmp_path / "run", "--resume")
    assert "holds no whole epoch yet: starting from the beginning" in capsys.readouterr().out
    same(tmp_path / "run", whole)


def test_seconds_of_training_count_what_log_txt_lost(monkeypatch, experiment, cut):
    spent = read_torch_file(cut / "resume.pth")["seconds"]
    (cut / "log.txt").write_text("")
    train(monkeypatch, experiment, cut, "--resume")
    after = log_lines(cut / "log.txt")[0]["train_seconds"]
    result = json.loads((cut / "result.json").read_text())
    assert result["train_seconds"] == pytest.approx(spent + after, abs=0.011) and spent > 0


# ---- what must be the same ----


def edit(file, change):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content)))


@pytest.mark.parametrize(("split", "change"), [("train", lambda e: e[: len(e) // 2]), ("val", lambda e: e[:1])])
def test_changed_data_is_refused(monkeypatch, experiment, cut, split, change):
    file = experiment.parent / f"scenes/scenes_{split}.json"
    before = file.read_text()
    edit(file, change)
    try:
        with pytest.raises(InputError, match=f"the content of .*scenes_{split}.json differ"):
            train(monkeypatch, experiment, cut, "--resume")
    finally:
        file.write_text(before)


def test_other_weights_to_start_from_are_refused_and_the_same_are_not(monkeypatch, experiment, whole, tmp_path):
    start = tmp_path / "start.pth"
    shutil.copy(whole / "checkpoint_best.pth", start)
    train(monkeypatch, experiment, tmp_path / "run", "--checkpoint", str(start))
    train(monkeypatch, experiment, tmp_path / "run", "--checkpoint", str(start), "--resume")
    with pytest.raises(InputError, match=r"the content of .*start.pth"):
        train(monkeypatch, experiment, tmp_path / "run", "--resume", "--checkpoint", str(whole / "checkpoint_1.pth"))
    shutil.copy(whole / "checkpoint_1.pth", start)
    if (whole / "checkpoint_1.pth").read_bytes() != (whole / "checkpoint_best.pth").read_bytes():
        with pytest.raises(InputError, match=r"the content of .*start.pth differ"):
            train(monkeypatch, experiment, tmp_path / "run", "--checkpoint", str(start), "--resume")


@pytest.mark.parametrize("best", ["missing", "foreign"])
def test_best_weights_of_another_run_are_refused_before_anything_is_trained(monkeypatch, experiment, cut, best):
    (cut / "checkpoint_best.pth").unlink()
    if best == "foreign":
        torch.save({"model": {"a": torch.zeros(3)}}, cut / "checkpoint_best.pth")
    monkeypatch.setattr(training, "train_epoch", lambda *_: pytest.fail("trained"))
    with pytest.raises(InputError, match=r"checkpoint_best.pth .* the best epoch's, 0; restore it, or --overwrite"):
        train(monkeypatch, experiment, cut, "--resume")


def spoilt(saved, **changes):
    return saved | changes


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: {"model": s["model"]},
        lambda s: [1, 2],
        lambda s: {},
        *(lambda s, n=n: {k: v for k, v in s.items() if k != n} for n in ("model", "optimizer", "next_epoch")),
        lambda s: spoilt(s, next_epoch="two"),
        lambda s: spoilt(s, best=None),
        lambda s: spoilt(s, model=s["optimizer"]),
        lambda s: spoilt(s, optimizer={"state": {}, "param_groups": []}),
        lambda s: spoilt(s, scheduler=[3]),
        lambda s: spoilt(s, identity="mine"),
        lambda s: spoilt(s, model={k: torch.zeros(3) for k in s["model"]}),
        lambda s: spoilt(s, average=torch.zeros(3)),
    ],
)
def test_a_damaged_resume_file_is_one_line(monkeypatch, experiment, cut, spoil):
    saved = read_torch_file(cut / "resume.pth")
    torch.save(spoil(saved), cut / "resume.pth")
    with pytest.raises(InputError, match=r"resume\.pth is damaged, or of another version") as raised:
        train(monkeypatch, experiment, cut, "--resume")
    assert "\n" not in str(raised.value)
