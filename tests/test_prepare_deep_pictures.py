"""Prepare.py with pictures of 16 bits and of many bands: read by the rule that training then reads them by."""

import itertools
import json
import shlex

import numpy as np
import pytest
import tifffile

import Prepare
from dataset.annotations import read_train
from utils.config import config_from_file
from utils.errors import InputError

BANDS = np.random.default_rng(0).integers(0, 250, (30, 24, 24, 6)).astype(np.uint16) * 40
RULE = ("--deep_pictures", "divide 40", "--bands", "4,3,2")


@pytest.fixture
def release(tmp_path):
    """Thirty pictures of six bands of 16 bits, the last two alike."""
    folder = tmp_path / "release"
    folder.mkdir()
    rows = ["image,caption"]
    for number, bands in enumerate([*BANDS[:-1], BANDS[-2]]):
        large = bands.repeat(8, axis=0).repeat(8, axis=1)
        tifffile.imwrite(folder / f"s2_{number}.tif", large, photometric="minisblack", planarconfig="contig")
        rows.append(f"s2_{number}.tif,a field of the kind {number}")
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


def prepare(release, out, *more):
    return Prepare.main(["--dataset", "folder", "--release", str(release), "--output_dir", str(out), *more])


def test_pictures_of_many_bands_are_prepared_by_a_rule(release, tmp_path, capsys):
    assert prepare(release, tmp_path / "out", *RULE) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert sum(count["pictures"] for count in report["counts"].values()) == 30
    assert report["defects"]["pictures_deep"]["count"] == report["defects"]["pictures_unreadable"]["count"] == 0
    found = report["near_duplicates"]
    pairs = [pair["images"] for kind in ("across_splits", "within_a_split") for pair in found[kind]]
    assert pairs == [["s2_28.tif", "s2_29.tif"]]
    assert "data:image/jpeg" in (tmp_path / "out/report.html").read_text()

    words = shlex.split(printed.splitlines()[-1])
    overrides = [word for option, word in itertools.pairwise(words) if option == "--override"]
    config = config_from_file("configs/Retrieval_demo.yaml", overrides)
    assert (config.deep_pictures, config.bands) == ("divide 40", (4, 3, 2))
    read_train([tmp_path / "out/folder_train.json"], release, labels_required=False)


def test_the_same_rule_again_has_nothing_to_do_and_another_prepares_anew(release, tmp_path, capsys):
    prepare(release, tmp_path / "out", *RULE)
    prepare(release, tmp_path / "out", *RULE)
    assert "nothing to do" in capsys.readouterr().out
    prepare(release, tmp_path / "out", "--deep_pictures", "minmax")
    assert "nothing to do" not in capsys.readouterr().out


def test_another_set_is_compared_by_its_own_rule(release, tmp_path):
    prepare(release, tmp_path / "theirs", *RULE)
    prepare(release, tmp_path / "own", *RULE, "--check_against", str(tmp_path / "theirs/report.json"))
    shared = json.loads((tmp_path / "own/report.json").read_text())["near_duplicates"]["across_sets"]
    assert {tuple(pair["images"]) for pair in shared} >= {(f"s2_{n}.tif", f"s2_{n}.tif") for n in range(30)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deep_pictures", "gamma"], "--deep_pictures is 'gamma', expected refuse"),
        (["--bands", "1,2"], "--bands names 2 bands"),
        (["--bands", "0,1,2"], "of the form 3,2,1"),
        (["--deep_pictures", "minmax", "--bands", "9,8,7"], "has 6 bands, 'bands' names 9"),
        ([], "cannot be read: a TIFF that needs --deep_pictures or --bands"),
    ],
)
def test_a_rule_that_does_not_fit_is_named(release, tmp_path, capsys, arguments, message):
    with pytest.raises((InputError, SystemExit)) as raised:
        prepare(release, tmp_path / "out", *arguments)
    assert message in str(raised.value) + capsys.readouterr().err
