"""`Pretrain.py`: steps on resampled shards of several sources, evaluated as they go, gone on with."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import Pretrain
import Retrieval
from dataset.drawn.shards import draw_shards
from dataset.releases.shard_writer import write_shards
from dataset.resampled_shards import ResampledShards, check_sources, files_of, sample_of
from tests.processes import log_lines
from tests.small_experiment import write_experiment
from utils.checkpoint import read_checkpoint
from utils.config_parts import ScenesConfig
from utils.errors import InputError
from utils.pretrain_config import pretrain_config_from_file

ROOT = Path(__file__).parents[1]


def jpeg(number):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(content, "JPEG")
    return content.getvalue()


def write_tar(file, samples):
    """samples: of each, member's suffix -> its bytes."""
    with tarfile.open(file, "w") as tar:
        for number, sample in enumerate(samples):
            for suffix, content in sample.items():
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(file)


def of_rs5m(count, caption="a lake"):
    return [
        {"img_content": jpeg(i), "caption": f"{caption} {i}".encode(), "img_name": f"{i}.jpg".encode()}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A small experiment, its training pictures as shards, and the pre-training's YAML."""
    folder = tmp_path_factory.mktemp("pretrain")
    model = write_experiment(folder, epochs=1, is_baseline=True, use_affil_loss=False)
    entries = json.loads((folder / "scenes/scenes_train.json").read_text())
    pattern = write_shards(entries, folder / "scenes", folder, "ours", pictures_per_shard=4)
    rs5m = write_tar(folder / "rs5m-000000.tar", of_rs5m(6))
    values = {
        "model": str(model),
        "sources": [{"shards": [pattern], "weight": 2}, {"shards": [rs5m]}],
        "steps": 6,
        "evaluate_every": 2,
        "batch_size_train": 4,
        "schedular": {"sched": "cosine", "num_warmup_steps": 1},
    }
    file = folder / "pretrain.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def pretrain(monkeypatch, experiment, folder, *arguments):
    given = ["--config", str(experiment), "--output_dir", str(folder), "--device", "cpu", *arguments]
    monkeypatch.setattr(sys, "argv", ["Pretrain.py", *given])
    Pretrain.main()


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        pretrain(patch, experiment, folder)
    return folder


def test_it_is_evaluated_every_so_many_steps_and_its_best_is_kept(finished):
    lines = log_lines(finished / "log.txt")
    assert len(lines) == 3 and all("val_r_mean" in line and "train_loss_contr" in line for line in lines)
    assert lines[0]["train_lr"] > lines[-1]["train_lr"]
    assert {"checkpoint_best.pth", "config.yaml", "resume.pth"} <= {file.name for file in finished.iterdir()}


def test_a_retrieval_training_goes_on_from_it(monkeypatch, experiment, finished, tmp_path, capsys):
    model = yaml.safe_load(experiment.read_text())["model"]
    given = ["--config", model, "--output_dir", str(tmp_path / "run"), "--device", "cpu", "--bs", "4"]
    given += ["--load_ckpt_from", str(finished / "checkpoint_best.pth"), "--override", "optimizer.lr=1e-9"]
    monkeypatch.setattr(sys, "argv", ["Retrieval.py", *given])
    Retrieval.main()
    tuned, before = (read_checkpoint(folder / "checkpoint_best.pth") for folder in (tmp_path / "run", finished))
    torch.testing.assert_close(tuned, before, atol=1e-5, rtol=0)


def test_a_run_that_was_cut_ends_where_an_uninterrupted_one_does(monkeypatch, experiment, finished, tmp_path):
    evaluated = []

    def cut(self, model, evaluate=Pretrain.start_training.__globals__["RetrievalTask"].evaluate):
        if len(evaluated) == 1:
            raise KeyboardInterrupt
        evaluated.append(1)
        return evaluate(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.retrieval_task.RetrievalTask.evaluate", cut)
        with pytest.raises(KeyboardInterrupt):
            pretrain(monkeypatch, experiment, tmp_path / "run")
    pretrain(monkeypatch, experiment, tmp_path / "run", "--resume")
    for name in ("resume.pth", "checkpoint_best.pth"):
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (tmp_path / "run", finished))
        torch.testing.assert_close(ours["model"], theirs["model"], atol=0, rtol=0)


def test_two_processes_of_the_launcher_pre_train_on_their_own_pictures(experiment, tmp_path):
    command = [sys.executable, ROOT / "run.py", "--task", "pretrain_demo", "--dist", "cpu2", "--config", experiment]
    done = subprocess.run([*command, "--output_dir", tmp_path / "run"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(log_lines(tmp_path / "run/log.txt")) == 3
    sources = [(files_of([str(experiment.with_name("ours-{000000..000001}.tar"))]), 1.0)]
    shares = [drawn(sources, rank=rank) for rank in (0, 1)]
    assert shares[0] != shares[1] and drawn(sources, rank=1) == shares[1]


def drawn(sources, *, rank=0, stretch=0, count=32, **options):
    dataset = ResampledShards(
        sources,
        lambda pixels: torch.from_numpy(pixels).float(),
        steps=count // 4,
        batch_size=4,
        seed=1,
        rank=rank,
        **options,
    )
    dataset.set_epoch(stretch)
    return [item.records[0].caption for item in islice(dataset, count)]


def test_pictures_come_from_sources_by_their_weights(tmp_path):
    one, other = (write_tar(tmp_path / f"{name}-000000.tar", of_rs5m(5, name)) for name in ("lake", "road"))
    captions = drawn([([one], 9.0), ([other], 1.0)], count=400)
    assert len(captions) == 400 and 20 < sum(caption.startswith("road") for caption in captions) < 65
    assert drawn([([one], 9.0), ([other], 1.0)], stretch=1, count=400) != captions


def test_a_sample_of_rs5m_is_that_of_ours(tmp_path):
    picture, caption = jpeg(0), "A Lake, beside a road."
    ours = {"jpg": picture, "json": json.dumps({"captions": [caption]}).encode()}
    theirs = {"img_content": picture, "caption": caption.encode(), "img_name": b"x.jpg"}
    (of_ours, bytes_of_ours), (of_theirs, bytes_of_theirs) = (
        sample_of({"__key__": "0", "__shard__": "a.tar"} | sample) for sample in (ours, theirs)
    )
    assert of_ours == of_theirs and bytes_of_ours == bytes_of_theirs == picture


def test_texts_in_other_scripts_are_read():
    records, _ = sample_of({"__key__": "0", "__shard__": "a", "img_content": b"", "caption": "湖 и река".encode()})
    assert records[0].caption == "湖 и река"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "holds no sample"),
        ([{"img_content": jpeg(0)}], "img_content and no caption"),
        ([{"jpg": jpeg(0)}], "has jpg: a sample has"),
        ([{"json": b"{}"}], "has json: a sample has"),
        ([{"img_content": b"no picture", "caption": b"a"}], "00000"),
    ],
)
def test_a_shard_that_lacks_something_is_one_line_before_training(tmp_path, samples, said):
    file = write_tar(tmp_path / "a-000000.tar", samples)
    with pytest.raises(InputError, match=said) as raised:
        check_sources([([file], 1.0)])
    assert "\n" not in str(raised.value) and Path(file).name in str(raised.value)


def test_a_broken_picture_stops_or_is_left_out(tmp_path):
    samples = of_rs5m(4)
    samples[2]["img_content"] = b"no picture"
    file = write_tar(tmp_path / "a-000000.tar", samples)
    options = {"steps": 8, "batch_size": 4, "seed": 1, "rank": 0}
    with pytest.raises(InputError, match="00002"):
        list(ResampledShards([([file], 1.0)], torch.from_numpy, **options))
    items = list(ResampledShards([([file], 1.0)], torch.from_numpy, skip_bad=True, **options))
    assert len(items) == 32 and {item.records[0].caption for item in items} == {"a lake 0", "a lake 1", "a lake 3"}


def test_pictures_that_are_left_out_do_not_stop_the_look_before_training(tmp_path):
    file = write_tar(tmp_path / "a-000000.tar", [{"img_content": b"no picture", "caption": b"a"}])
    check_sources([([file], 1.0)], skip_bad=True)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_shard_that_is_damaged_further_in_is_one_line_whatever_is_done_with_pictures(tmp_path, skip_bad):
    file = Path(write_tar(tmp_path / "a-000000.tar", of_rs5m(40)))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 + 300])
    with pytest.raises(InputError, match=r"a-000000\.tar"):
        list(
            ResampledShards(
                [([str(file)], 1.0)], torch.from_numpy, steps=8, batch_size=4, seed=1, rank=0, skip_bad=skip_bad
            )
        )


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_missing_key_further_in_is_one_line_whatever_is_done_with_pictures(tmp_path, skip_bad):
    samples = of_rs5m(4)
    del samples[2]["caption"]
    file = write_tar(tmp_path / "a-000000.tar", samples)
    with pytest.raises(InputError, match="00002 has img_content and no caption"):
        list(
            ResampledShards([([file], 1.0)], torch.from_numpy, steps=8, batch_size=4, seed=1, rank=0, skip_bad=skip_bad)
        )


@pytest.mark.parametrize("sample", [{"img_content": b"", "caption": b" "}, {"jpg": b"", "txt": b" "}])
def test_a_caption_without_a_word_names_its_sample(sample):
    with pytest.raises(InputError, match=r"^a\.tar/00007: caption ' ' has no word"):
        sample_of({"__key__": "00007", "__shard__": "a.tar"} | sample)


def test_shards_of_scenes_drawn_otherwise_are_not_taken(tmp_path):
    scenes = ScenesConfig(folder=str(tmp_path / "drawn"), seed=1, train=4, val=1, test=1)
    draw_shards(scenes)
    draw_shards(scenes)
    shutil.rmtree(tmp_path / "drawn")  # as the message for another seed says
    with pytest.raises(InputError, match="drawn_shards: holds shards of other scenes"):
        draw_shards(replace(scenes, seed=2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 7}, "no multiple of 'evaluate_every' 2: 6 would be"),
        ({"sources": []}, "'sources' must name shards"),
        ({"sources": [{"shards": ["a.tar"], "weight": 0}]}, "weight"),
        ({"model": "nowhere.yaml"}, "nowhere.yaml"),
        ({"overrides": ["embed_dimm=3"]}, "embed_dim"),
        ({"overrides": ["lora.rank=3"]}, "no lora"),
        ({"overrides": ["contrastive=sigmoid"]}, "a model with a bias"),
        ({"step": 3}, "steps"),
    ],
)
def test_a_mistake_in_the_config_is_one_line(experiment, tmp_path, changes, said):
    file = tmp_path / "pretrain.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(experiment.read_text()) | changes))
    with pytest.raises(InputError, match=said) as raised:
        pretrain_config_from_file(file)
    assert "\n" not in str(raised.value)


def test_a_missing_shard_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"2 of 2 shards are missing, first .*a-000000\.tar"):
        files_of([str(tmp_path / "a-{000000..000001}.tar")])
