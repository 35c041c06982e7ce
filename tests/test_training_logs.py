"""log.txt, this code's and the released one's, read and drawn."""

import json

from PIL import Image

from study.plots import LogToDraw, draw_logs
from study.training_logs import read_log


def test_a_log_of_other_keys_and_lines_is_read(tmp_path):
    lines = [
        {"train_lr": "0.00001", "train_loss_contr": "4.1234", "train_loss_affil": "3.5", "test_r_mean": 20.51},
        {"train_loss_contr": "3.5", "loss": float("nan"), "note": "loss", "epoch": 1, "test_r_mean": 21, "x": [1]},
        {"val_txt_r1": 1, "val_txt_r5": 2, "val_txt_r10": 3, "val_img_r1": 4, "val_img_r5": 5, "val_img_r10": 9},
        {"epoch": 1, "test_r_mean": 22.0, "txt_r1": 5},
    ]
    text = "\n".join([*map(json.dumps, lines), "", "[1]", "best epoch: 1"])
    (tmp_path / "log.txt").write_bytes(text.encode() + b"\xff")
    log = read_log(tmp_path / "log.txt")
    assert log.means == {"test": {0: 20.51, 1: 22.0}, "val": {2: 4.0}}
    assert log.losses == {"contr": {0: 4.1234, 1: 3.5}, "affil": {0: 3.5}}
    assert log.skipped == 2


def test_a_log_without_figures_is_drawn_as_such_beside_others(tmp_path):
    (tmp_path / "log.txt").write_text('{"epoch": 0, "val_r_mean": 3, "train_loss": 1}\n')
    (tmp_path / "none.txt").write_text("")
    logs = [
        LogToDraw(name, read_log(tmp_path / f"{name}.txt"), mean) for name, mean in (("log", 24.46), ("none", None))
    ]
    assert (logs[1].log.means, logs[1].log.losses, logs[1].log.skipped) == ({}, {}, 0)
    sizes = []
    for count in (1, 2):
        draw_logs(tmp_path / "curves.png", logs[:count])
        with Image.open(tmp_path / "curves.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 10  # more than paper and frame
            sizes.append(picture.height)
    assert sizes[1] > 1.8 * sizes[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "log.txt", "none.txt"]
