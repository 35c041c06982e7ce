"""The benchmark of processes: what it says is sent, and that it measures."""

import pytest
import yaml

from benchmarks import processes
from tests.tiny import TEXT

SIZES = {"trained": 1_000_000, "captions": 128, "dim": 512, "gathers": 4}


def test_what_is_sent_grows_with_the_processes_as_the_page_says():
    assert processes.sent(SIZES, 1) == {"features": 0, "gradients": 0}
    assert processes.sent(SIZES, 2) == {"features": 8 * 128 * 512 * 4, "gradients": 4e6}
    assert processes.sent(SIZES, 8) == {"features": 8 * 7 * 128 * 512 * 4, "gradients": pytest.approx(7e6)}


def test_a_prediction_adds_what_is_sent_to_the_share_of_the_arithmetic():
    alone = SIZES | {"seconds": 1.0, "bytes_a_second": float("inf")}
    halved = SIZES | {"captions": 64, "bytes_a_second": 1e6}
    assert processes.predicted(alone, alone, 1) == 1.0
    assert processes.predicted(alone, halved, 2) == pytest.approx(0.5 + 8 * 64 * 512 * 4 / 1e6 + 4.0)


def test_it_measures_two_processes_of_a_small_config(tmp_path, capsys):
    values = {name: "none" for name in ("train_file", "val_file", "test_file", "image_root")}
    values |= {"vision_config": {"vision_width": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]}}
    values["vision_config"]["window_size"] = 2
    values |= {"text_config": TEXT, "image_res": 32, "embed_dim": 16, "head": 2, "is_baseline": True}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(values | {"batch_size_train": 4}))
    processes.main(["--config", str(file), "--sizes"])
    said = capsys.readouterr().out
    assert " 512 processes: features " in said and "4 captions a process" in said
    processes.main(["--config", str(file), "--counts", "1", "2", "--steps", "1"])
    one, two = capsys.readouterr().out.splitlines()
    assert one.startswith("1 processes: ") and " 0.0 MB sent at inf MB/s" in one
    assert "s predicted; " in two and not two.endswith("inf MB/s")
