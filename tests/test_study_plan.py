"""study/plan.py and study/places.py: a study file is checked whole before anything runs."""

import pytest
import yaml

from study.places import places_for
from study.plan import plan_rows, read_study
from tests.small_study import write_study
from utils import launch
from utils.errors import InputError

TASKS = ["itr_demo", "itr_rsicd"]
ROWS = {"plain": {"overrides": ["is_baseline=True"]}, "whole": {}}


def error_of(folder, rows=ROWS, **more) -> str:
    """The one line that reading and planning the study ends with."""
    with pytest.raises(InputError) as caught:
        plan_rows(read_study(write_study(folder, rows, **more), TASKS), [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides_apply_in_the_order_study_row_command_line(tmp_path):
    rows = {"a": {"overrides": ["filter_size=20"]}, "b": {}}
    study = read_study(write_study(tmp_path, rows, overrides=["filter_size=10", "head=2"]), TASKS)
    planned = plan_rows(study, [])
    assert [(planned[name].config.filter_size, planned[name].config.head) for name in "ab"] == [(20, 2), (10, 2)]
    assert plan_rows(study, ["filter_size=5"])["a"].config.filter_size == 5
    assert study.seeds == (42,)


def test_a_row_may_have_a_config_of_its_own(tmp_path):
    file = write_study(tmp_path, ROWS)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "base.yaml").read_text()) | {"filter_size": 7}))
    file = write_study(tmp_path, {"own": {"config": str(other)}, "base": {}})
    planned = plan_rows(read_study(file, TASKS), [])
    assert (planned["own"].config.filter_size, planned["base"].config.filter_size) == (7, 40)


def test_empty_published_figures_are_none(tmp_path):
    published = {"txt_r1": None, "r_mean": 24.46}
    rows = {"a": {"published": published, "source": "Table 1"}, "b": {"published": None}}
    study = read_study(write_study(tmp_path, rows), TASKS)
    assert study.rows["a"].published.figures == {"r_mean": 24.46} and study.rows["b"].published is None


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        (ROWS, {"overides": []}, "unknown key 'overides', nearest is 'overrides'"),
        ({"a": {"overides": []}}, {}, "unknown key 'rows.a.overides', nearest is 'rows.a.overrides'"),
        ({"a": {"overrides": ["filter_sise=3"]}}, {}, "row a: config: 1 problem: unknown key 'filter_sise', nearest"),
        ({"a": {"overrides": ["filter_size=99"]}}, {}, "row a: config: 1 problem: 'filter_size' 99"),
        ({"a": {"config": "nowhere.yaml"}}, {}, "nowhere.yaml cannot be read"),
        ({"a": {"published": {"r_mean": 24.0}}}, {}, "row a has published figures but no 'source'"),
        ({"a": {"source": "somewhere"}}, {}, "row a has a 'source' but no published figures"),
        ({"a": {"published": {"r_mean": 124.0}, "source": "x"}}, {}, "'rows.a.published.r_mean' is 124.0"),
        ({"a": {"published": {"mr": 24.0}, "source": "x"}}, {}, "unknown key 'rows.a.published.mr'"),
        ({"../a": {}}, {}, "row '../a' names a folder"),
        ({"table.md": {}}, {}, "row 'table.md' names a folder"),
        ({"a": {}, "A": {}}, {}, "rows a and A have the same name"),
        ({}, {}, "names no row"),
        (ROWS, {"task": "itr_demmo"}, "did you mean itr_demo?"),
        (ROWS, {"compare_to": "plan"}, "'compare_to' names no row 'plan'"),
        (ROWS, {"tsne": ["whole", "wole"]}, "'tsne' names no row 'wole'"),
        (ROWS, {"curve": {"key": "filter_size", "values": {"who": 1}}}, "'curve.values' names no row 'who'"),
        (ROWS, {"curve": {"key": "filter_size", "values": {"whole": "many"}}}, "'curve.values.whole' is 'many'"),
        (
            ROWS,
            {"curve": {"key": "filter_sise", "values": {"whole": 1}}},
            "'curve.key' is no config key 'filter_sise'; did",
        ),
        (ROWS, {"curve": {"key": "optimizer.lrr", "values": {"whole": 1}}}, "no config key 'optimizer.lrr'"),
        (ROWS, {"published_pictures": -5}, "'published_pictures' is -5"),
        ({1: {}}, {}, "'rows' is {1: {}}, expected keys of its own, each text"),
        (ROWS, {"seeds": [1, 1]}, "'seeds' is [1, 1]"),
        (ROWS, {"seeds": [2**64]}, "expected different numbers from 0 to 4294967295"),
        ({"a": {"title": "b"}, "b": {}}, {}, "rows a and b have the same title"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path, rows, more, told):
    assert told in error_of(tmp_path, rows, **more)


@pytest.mark.parametrize(("dataset", "pictures", "r_mean"), [("rsicd", 1093, 24.46), ("rsitmd", 452, 38.24)])
def test_a_row_that_names_a_published_method_gets_its_title_figures_and_source(tmp_path, dataset, pictures, r_mean):
    rows = {"a": {"published": "PIR"}, "b": {"published": "PIR", "title": "own"}, "c": {}}
    study = read_study(write_study(tmp_path, rows, published=dataset), TASKS)
    assert [study.title_of(name) for name in "abc"] == ["PIR, contrastive + affiliation", "own", "c"]
    assert [study.rows[name].published.figures["r_mean"] for name in "ab"] == [r_mean, r_mean]
    assert len(study.rows["a"].published.figures) == 7 and "Table 1" in study.rows["a"].source
    assert study.rows["c"].published is study.rows["c"].source is None and study.published_pictures == pictures


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        ({"a": {"published": "PIRR"}}, {"published": "rsicd"}, "'rows.a.published' is PIRR: there are VSE1, "),
        ({"a": {"published": "PIR"}}, {"published": "rsicdd"}, "'published' is rsicdd: there are rsicd, rsitmd; did"),
        ({"a": {"published": "PIR"}}, {}, "'published' is None: there are rsicd, rsitmd"),
        (ROWS, {"published": {"r_mean": 1}}, "'published' is {'r_mean': 1}: there are rsicd, rsitmd"),
    ],
)
def test_a_name_that_is_not_published_is_one_line(tmp_path, rows, more, told):
    assert told in error_of(tmp_path, rows, **more) and "study.yaml" in error_of(tmp_path, rows, **more)


def test_a_study_may_say_only_what_differs_from_its_base(tmp_path):
    write_study(tmp_path, ROWS, seeds=[3]).rename(tmp_path / "whole.yaml")
    file = tmp_path / "study.yaml"
    file.write_text("base: whole.yaml\ntitle: Other\nrows: {whole: {overrides: [filter_size=7]}, more: {}}\n")
    study = read_study(file, TASKS)
    assert (study.title, study.seeds, list(study.rows)) == ("Other", (3,), ["plain", "whole", "more"])
    assert [row.overrides for row in study.rows.values()] == [("is_baseline=True",), ("filter_size=7",), ()]


def test_a_row_named_twice_is_told_with_its_line(tmp_path):
    file = write_study(tmp_path, ROWS)
    file.write_text(file.read_text() + "  whole: {}\n")
    with pytest.raises(InputError, match=r"names whole twice, again in line \d+$"):
        read_study(file, TASKS)


def test_a_file_nested_without_end_is_one_line(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("rows: " + "[" * 20_000)
    with pytest.raises(InputError, match=r"study\.yaml is nested too deep"):
        read_study(file, TASKS)


def test_a_curve_may_be_over_a_key_inside_another(tmp_path):
    curve = {"key": "optimizer.lr", "values": {"whole": 1}}
    assert plan_rows(read_study(write_study(tmp_path, ROWS, curve=curve), TASKS), [])


def test_groups_of_cards_are_those_of_the_users_own_list(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(launch, "count_cards", lambda: 4)
    assert [place.environment for place in places_for("0,1; 2,3")] == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "2,3"},
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places_for("0;3")] == ["4", "7"]
    assert {place.dist for place in places_for("0;3")} == {"auto"}


def test_cpu_groups_share_the_cores_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    places = places_for("cpu;cpu")
    assert [place.dist for place in places] == ["cpu", "cpu"]
    assert {place.environment["OMP_NUM_THREADS"] for place in places} == {"4"}


@pytest.mark.parametrize(("groups", "told"), [("0,1;1", "twice"), ("0;9", "card 9"), ("0;", "''"), ("gpu0", "'gpu0'")])
def test_groups_that_cannot_be_are_told(monkeypatch, groups, told):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(launch, "count_cards", lambda: 4)
    with pytest.raises(InputError, match=told):
        places_for(groups)
