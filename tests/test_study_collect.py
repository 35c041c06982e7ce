"""study/collect.py and what it draws on: tables and figures from what is finished, whole or half."""

import csv
import io
import json
import re
import zipfile
from dataclasses import replace
from textwrap import indent

import numpy as np
import pytest
from PIL import Image

from study.bootstrap import interval, r_means, resampled_pictures
from study.collect import collect, read_finished
from study.plan import FIGURES, plan_rows, read_study
from study.results import finished_seeds
from study.tables import costs_table, figures_table
from tests.small_study import figures_of, random_ranks, write_embeddings, write_run, write_study
from utils.errors import InputError

PUBLISHED = dict(zip(FIGURES, (9.88, 27.26, 39.16, 6.97, 24.56, 38.92, 24.46), strict=True))
ROWS = {
    "base": {"title": "Base & 100 %", "overrides": ["is_baseline=True"]},
    "whole": {"published": PUBLISHED, "source": "A paper, Table 1"},
    "small": {"overrides": ["filter_size=10"]},
}


class Collected:
    """A study in a folder, runs to put into it, and what collecting gives."""

    def __init__(self, folder, rows=ROWS, **more):
        self.output_dir = folder / "out"
        self.config = folder / "base.yaml"
        self.rows = rows
        self.study = read_study(write_study(folder, rows, **more), ["itr_demo"])

    def run(self, row, seed, **more):
        overrides = self.rows[row].get("overrides", [])
        return write_run(self.output_dir, row, seed, self.config, overrides, **more)

    def collect(self, seeds=(1, 2)):
        found = read_finished(self.study, plan_rows(self.study, []), self.output_dir)
        return collect(self.study, found, seeds, self.output_dir, ["python Tables.py --study x"])

    def text(self, name):
        return (self.output_dir / name).read_text()


@pytest.fixture
def half_finished(tmp_path):
    """Two rows of three have results: one with both seeds, one with one."""
    study = Collected(tmp_path, compare_to="base")
    study.run("base", 1)
    study.run("base", 2)
    study.run("whole", 1, ranks=random_ranks(best=0.5, seed=7))
    return study


def test_means_spreads_and_missing_seeds(half_finished):
    base, whole, small = half_finished.collect()
    first, second = (figures_of(random_ranks(seed=seed)) for seed in (1, 2))
    for name in FIGURES:
        assert base.means[name] == pytest.approx((first[name] + second[name]) / 2)
        assert base.spreads[name] == pytest.approx(abs(first[name] - second[name]) / 2**0.5)
    assert (base.missing, whole.missing, small.missing) == ((), (2,), (1, 2))
    assert whole.spreads is None and small.means is None and small.interval is None
    assert whole.differences["r_mean"] == pytest.approx(whole.means["r_mean"] - 24.46)
    assert (base.seconds, base.peak_memory, base.parameters.trained) == (101.5, 2**30, 1_500_000)


def test_intervals_are_over_the_same_pictures_and_the_mean_over_seeds(half_finished):
    base, whole, _ = half_finished.collect()
    weights = resampled_pictures(40)
    of_base = np.mean([r_means(weights, random_ranks(seed=seed)) for seed in (1, 2)], axis=0)
    assert base.interval == interval(of_base) and base.paired is None
    assert whole.interval == interval(r_means(weights, random_ranks(best=0.5, seed=7)))


def test_a_difference_is_over_the_seeds_that_both_rows_have(half_finished):
    base, whole, _ = half_finished.collect()
    weights = resampled_pictures(40)
    of_base, of_whole = (r_means(weights, ranks) for ranks in (random_ranks(seed=1), random_ranks(best=0.5, seed=7)))
    assert whole.paired.seeds == (1,)
    assert whole.paired.difference == whole.means["r_mean"] - base.runs[0].figures.r_mean
    assert (whole.paired.low, whole.paired.high) == interval(of_whole - of_base)
    assert whole.paired.excludes_zero and whole.paired.low > 0
    half_finished.run("small", 3)
    assert half_finished.collect()[2].paired is None  # no seed of the row it is compared to
    half_finished.run("whole", 3)
    assert half_finished.collect()[1].paired == whole.paired
    assert "excludes 0 (seed 1) |" in half_finished.text("table.md")


def test_the_result_of_an_evaluation_is_not_collected(half_finished):
    half_finished.run("small", 1, epoch=None)
    with pytest.raises(InputError, match="it is of an evaluation, not of a training"):
        half_finished.collect()


def test_a_row_against_its_equal_differs_by_nothing(tmp_path):
    study = Collected(tmp_path, compare_to="base")
    ranks = random_ranks()
    for row in ("base", "whole"):
        study.run(row, 1, ranks=ranks)
    _, whole, _ = study.collect()
    assert (whole.paired.difference, whole.paired.low, whole.paired.high) == (0, 0, 0)
    assert not whole.paired.excludes_zero and "includes 0" in study.text("table.md")


def test_a_reader_sees_what_is_measured_published_and_missing(half_finished):
    half_finished.collect()
    lines = half_finished.text("table.md").splitlines()
    whole = [line for line in lines if re.match(r"\| \*?whole\*? \|", line)]
    assert [line.split("|")[2].strip() for line in whole[:3]] == ["measured", "*published*", "*measured − published*"]
    assert "*24.46*" in whole[1] and "*24.46*" not in whole[0]
    assert any(line.startswith("| small | measured | 0 | – |") and "missing" in line for line in lines)
    assert "- small: missing, no result with seed 1, 2 yet." in lines
    assert "- Published (whole): A paper, Table 1" in lines
    assert "python Tables.py --study x" in lines
    assert sum(line.startswith(("- ±, over seeds", "- [low, high], over test pictures")) for line in lines) == 2


def test_every_form_holds_the_same_lines(half_finished):
    summaries = half_finished.collect()
    table = figures_table(half_finished.study, summaries)
    assert all(len(line.cells) == len(table.header) for line in table.lines)
    assert all(len(line.cells) == len(costs_table(summaries).header) for line in costs_table(summaries).lines)
    rows = list(csv.DictReader(io.StringIO(half_finished.text("table.csv"))))
    assert [(row["row"], row["kind"]) for row in rows] == [
        ("base", "measured"),
        ("whole", "measured"),
        ("whole", "published"),
        ("whole", "measured - published"),
        ("small", "measured"),
    ]
    assert float(rows[0]["r_mean"]) == summaries[0].means["r_mean"] and rows[4]["r_mean"] == ""
    assert float(rows[1]["paired_low"]) == summaries[1].paired.low
    tex = half_finished.text("table.tex")
    assert r"Base \& 100 \% & measured & 2 &" in tex and tex.count(r"\begin{tabular}") == 2
    assert not re.search(r"(?<!\\)[&%#_].*[±−→]", tex.partition(r"\begin{table}")[2])
    html = half_finished.text("table.html")
    assert "Base &amp; 100 %" in html and 'src="data:image/png;base64,' in html and "http" not in html
    for line in table.lines:
        assert line.cells[2] in html


def test_tex_special_characters_are_escaped(tmp_path):
    rows = {"a": {"title": r"50% of \x_{1} ~ ^ # $ &"}}
    study = Collected(tmp_path, rows)
    study.run("a", 1)
    study.collect(seeds=[1])
    escaped = r"50\% of \textbackslash{}x\_\{1\} \textasciitilde{} \textasciicircum{} \# \$ \&"
    assert f"\n{escaped} & measured" in study.text("table.tex")


def test_tex_takes_no_title_for_an_option_of_the_row_before(tmp_path):
    rows = {"a": {"title": "[1] first"}, "b": {"title": "* a < b |\n\nc"}}
    study = Collected(tmp_path, rows)
    study.run("a", 1)
    study.collect(seeds=[1])
    tex = study.text("table.tex")
    assert "\n{}[1] first & measured" in tex
    assert "\n{}* a \\textless{} b \\textbar{} c & measured" in tex


def test_commands_in_a_studys_notes_stand_as_they_are_typed(tmp_path):
    typed = "python Prepare.py --a <b> \\\n    --c\npython Prepare.py --d\n"
    notes = f"What is made\nof two files:\n{indent(typed, '    ')}And more.\n"
    study = Collected(tmp_path, notes=notes)
    study.run("base", 1)
    study.collect(seeds=[1])
    assert f"\n\nWhat is made\nof two files:\n\n```bash\n{typed}```\n\nAnd more.\n\n" in study.text("table.md")
    html = study.text("table.html")
    assert f"<pre>{typed.replace('<b>', '&lt;b&gt;').strip()}</pre>" in html and "<p>And more.</p>" in html
    assert "% python Prepare.py --d\n% And more.\n" in study.text("table.tex")


def test_a_dollar_in_a_name_starts_no_formula(tmp_path):
    rows = {"a": {"title": r"loss $\lamda=0.3$"}}
    curve = {"key": "filter_size", "values": {"a": 40}}
    study = Collected(tmp_path, rows, title=r"$\nothing$", curve=curve, tsne=["a"])
    write_embeddings(study.run("a", 1), pictures=20)
    study.collect(seeds=[1])
    assert all((study.output_dir / name).exists() for name in ("r_mean.png", "curve.png", "tsne.png"))


def test_a_folder_in_a_tables_place_is_one_line(tmp_path):
    study = Collected(tmp_path)
    study.run("base", 1)
    (study.output_dir / "table.md").mkdir()
    with pytest.raises(InputError, match=r"table\.md cannot be written \(Is a directory\)"):
        study.collect()


def test_figures_are_drawn_and_go_when_there_is_nothing_to_draw(tmp_path):
    curve = {"key": "filter_size", "values": {"whole": 40, "small": 10}}
    study = Collected(tmp_path, compare_to="base", curve=curve, tsne=["base", "whole"])
    (summary, *_) = study.collect()
    assert summary.means is None and not (study.output_dir / "tsne.png").exists()
    assert (study.output_dir / "r_mean.png").exists()  # of the published figure alone
    for row in ROWS:
        for seed in (1, 2):
            write_embeddings(study.run(row, seed), pictures=30, scenes=10)
    study.collect()
    for name in ("r_mean.png", "curve.png", "tsne.png"):
        with Image.open(study.output_dir / name) as picture:
            assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(10**7)) > 20
        assert f"![{name}]" in study.text("table.md")
    for row in ROWS:
        for seed in (1, 2):
            (study.output_dir / row / f"seed_{seed}" / "result.json").unlink()
    study.collect()
    assert not (study.output_dir / "tsne.png").exists() and "tsne.png" not in study.text("table.md")
    assert "No t-SNE map yet of Base & 100 %, whole" in study.text("table.md")


def test_a_map_without_labels_is_drawn_without_scenes(tmp_path):
    study = Collected(tmp_path, tsne=["base"])
    write_embeddings(study.run("base", 1), pictures=20, labelled=False)
    study.collect()
    assert (study.output_dir / "tsne.png").exists()


def test_a_run_without_ranks_has_no_interval(tmp_path):
    study = Collected(tmp_path, compare_to="base")
    study.run("base", 1)
    study.run("whole", 1, with_ranks=False)
    base, whole, _ = study.collect()
    assert base.interval and whole.interval is None and whole.paired is None and whole.means
    assert "no ranks: no interval" in study.text("table.md")


def test_results_older_than_the_cost_figures_are_read(tmp_path):
    study = Collected(tmp_path)
    file = study.run("base", 1) / "result.json"
    values = json.loads(file.read_text())
    for name in ("parameters", "train_seconds", "peak_memory_bytes"):
        del values[name]
    file.write_text(json.dumps(values))
    base, *_ = study.collect()
    assert base.seconds is base.peak_memory is base.parameters is None and base.means


def test_finished_seeds_that_were_not_asked_for_count(tmp_path):
    study = Collected(tmp_path)
    for seed in (1, 2, 10):
        study.run("base", seed)
    base, *_ = study.collect(seeds=[1])
    assert [run.seed for run in base.runs] == [1, 2, 10]


def test_a_run_of_another_config_is_told_below_the_table(tmp_path):
    study = Collected(tmp_path)
    write_run(study.output_dir, "base", 1, study.config, ["head=2", "is_baseline=True"])
    study.collect()
    assert "Base & 100 % seed 1 was run with a config that differs from the study's in head." in study.text("table.md")


@pytest.mark.parametrize("with_ranks", [True, False])
def test_different_test_sets_are_not_compared(tmp_path, with_ranks):
    study = Collected(tmp_path)
    study.run("base", 1, with_ranks=with_ranks)
    study.run("whole", 1, ranks=random_ranks(pictures=41), with_ranks=with_ranks)
    with pytest.raises(InputError, match=r"different test sets.*base seed 1.*40 pictures.*whole seed 1.*41 pictures"):
        study.collect()


def test_other_pictures_of_the_same_number_are_another_test_set(tmp_path):
    study = Collected(tmp_path)
    ranks = random_ranks()
    study.run("base", 1, ranks=ranks)
    study.run("whole", 1, ranks=replace(ranks, images=ranks.images[::-1]))
    with pytest.raises(InputError, match="different test sets"):
        study.collect()


def spoil_compressed_bytes(file):
    """Damage inside an array's compressed bytes, which only zlib notices."""
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        entry = archive.infolist()[0]
    start = entry.header_offset + 30 + len(entry.filename) + 20  # behind the local header
    content[start : start + 8] = b"\xff" * 8
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "ranks.npz").write_bytes(b"PK\x03\x04torn"), "ranks.npz is damaged"),
        (lambda folder: np.savez(folder / "ranks.npz", images=np.array([{}], dtype=object)), "ranks.npz is damaged"),
        (lambda folder: spoil_compressed_bytes(folder / "ranks.npz"), "ranks.npz is damaged"),
        (lambda folder: np.array([1]).dump(folder / "ranks.npz"), "ranks.npz is damaged"),
        (lambda folder: np.savez(folder / "ranks.npz", **vars(random_ranks(39))), "ranks of 40 pictures"),
        (lambda folder: np.savez(folder / "ranks.npz", **vars(random_ranks(best=0.9))), "run again"),
        (lambda folder: (folder / "result.json").write_text("{"), "result.json cannot be read"),
        (lambda folder: (folder / "result.json").write_text('{"seed": 1}'), "'txt_r1' is missing"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, damage, told):
    study = Collected(tmp_path)
    damage(study.run("base", 1))
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        study.collect()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_embeds": np.full((2, 4), np.nan)}, "not all finite"),
        ({"own_image_of_text": np.array([0, 0])}, "do not fit together"),
        ({"label": np.array([1])}, "not a label for each picture"),
        ({"text_embeds": None}, "has no 'text_embeds'"),
    ],
)
def test_damaged_embeddings_are_one_line(tmp_path, changes, told):
    study = Collected(tmp_path, tsne=["base"])
    folder = study.run("base", 1)
    whole = {"image_embeds": np.ones((2, 4)), "text_embeds": np.ones((2, 4)), "own_image_of_text": np.array([0, 1])}
    kept = {name: array for name, array in (whole | changes).items() if array is not None}
    np.savez(folder / "embeddings.npz", **kept)
    with pytest.raises(InputError, match=rf"embeddings\.npz .*{told}"):
        study.collect()


def test_two_rows_at_one_value_of_a_curve_are_drawn(tmp_path):
    values = {"base": 1, "whole": 2, "small": 1}
    study = Collected(tmp_path, curve={"key": "filter_size", "values": values})
    for row in values:
        study.run(row, 1)
    study.collect([1])
    assert (study.output_dir / "curve.png").exists()


@pytest.mark.parametrize(("published_pictures", "compared"), [(40, True), (None, True), (1093, False)])
def test_published_figures_on_another_number_of_pictures_get_no_difference(tmp_path, published_pictures, compared):
    study = Collected(tmp_path, **({"published_pictures": published_pictures} if published_pictures else {}))
    study.run("whole", 1)
    study.collect([1])
    text = study.text("table.md")
    assert "27.26" in text and ("measured − published" in text) == compared
    assert ("published figures are on 1,093 test pictures" in text) != compared


def test_a_seed_is_written_in_one_way(tmp_path):
    study = Collected(tmp_path)
    study.run("base", 1).rename(study.output_dir / "base/seed_01")
    assert study.collect([1])[0].runs == () and finished_seeds(study.output_dir, ["base"]) == []
    study.run("base", 12)
    study.run("whole", 3)
    assert finished_seeds(study.output_dir, ["base", "whole"]) == [3, 12]
