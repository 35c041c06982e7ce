"""The shipped studies: every row is a config that can be, and a model that can be built."""

import json
import re
from pathlib import Path

import pytest
import torch

from models import build_model
from study.plan import study_values
from study.published import read_published
from tests.tiny import TEXT, VISION
from utils.config import config_from_file
from utils.prior_config import prior_config_from_file

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "configs/studies").glob("*.yaml"))
KEYS = {"title", "config", "task", "seeds", "overrides", "notes", "rows", "compare_to", "curve", "tsne"}
KEYS |= {"published_pictures", "bs"}
ROW_KEYS = {"title", "overrides", "config", "published", "source"}
FIGURES = ["txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10", "r_mean"]
NAMES = ["table1", "modules", "filter_size", "center_factor", "units", "cycle", "flaws"]
# What a model is built of; the rest of a config is its data, its losses' weights and its training.
BUILT_OF = """
    vision_config use_swin patch_size vision_trained_stages prior_backbone finetune_conv prior_batch_stats
    text_trained_layers is_baseline use_vir use_lca lca_cycle use_tel filter_size instru_num cycle_num
    use_affil_loss use_triplet_loss clip_model instruct belief soft_weight
"""

EACH = pytest.mark.parametrize("file", STUDIES, ids=[file.stem for file in STUDIES])


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # where a study's paths begin


def configs_of(file, extra=()):
    """Row -> its config, as a run of it would read it."""
    study = study_values(file)
    shared = study.get("overrides", [])
    return {
        name: config_from_file(row.get("config", study["config"]), [*shared, *row["overrides"], *extra])
        for name, row in study["rows"].items()
    }


def test_every_study_of_the_paper_is_there_for_both_data_sets_and_in_the_small():
    wanted = {f"{data}_{name}" for data in ("rsicd", "rsitmd", "lite") for name in NAMES}
    wanted |= {"rsicd_instruction_encoder", "rsitmd_instruction_encoder", "lite_prior", "lite_labels"}
    wanted |= {"lite_preset_table1", "lite_full_table1", "rsicd_clip_table", "rsitmd_clip_table"}
    assert {file.stem for file in STUDIES} == wanted


@EACH
def test_a_study_has_the_keys_of_a_study_and_names_its_own_rows(file):
    study = study_values(file)
    assert set(study) <= KEYS and {"title", "config", "task", "seeds", "rows", "compare_to"} <= set(study)
    rows, data = study["rows"], file.stem.partition("_")[0]
    kind = next((kind for kind in ("lite_full", "rsicd_clip", "rsitmd_clip") if file.stem.startswith(kind)), data)
    assert (study["task"], study["config"]) == {
        "rsicd": ("itr_rsicd", "configs/Retrieval_rsicd.yaml"),
        "rsitmd": ("itr_rsitmd", "configs/Retrieval_rsitmd.yaml"),
        "lite": ("itr_rsicd_lite", "configs/Retrieval_rsicd_lite.yaml"),
        "lite_full": ("itr_rsicd_lite", "configs/Retrieval_rsicd_lite_full.yaml"),
        "rsicd_clip": ("itr_rsicd_clip", "configs/Retrieval_rsicd_clip.yaml"),
        "rsitmd_clip": ("itr_rsitmd_clip", "configs/Retrieval_rsitmd_clip.yaml"),
    }[kind]
    assert study["seeds"] == ([1, 2] if data == "lite" else [42])
    assert len(rows) > 1 and all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in rows)
    named = {study["compare_to"], *study.get("tsne", []), *study.get("curve", {"values": {}})["values"]}
    assert named <= set(rows)
    for row in rows.values():
        assert set(row) <= ROW_KEYS and ("published" in row) == ("source" in row)


@EACH
def test_a_study_of_the_paper_trains_with_the_published_global_batch(file):
    # Those on CLIP towers have each form's own.
    own = file.stem.startswith("lite") or file.stem.endswith("clip_table")
    assert study_values(file).get("bs") == (None if own else 256)


@EACH
def test_every_row_is_a_config_and_no_two_are_the_same(file):
    configs = configs_of(file)
    different = {json.dumps(config.to_dict(), sort_keys=True) for config in configs.values()}
    assert len(different) == len(configs)


@EACH
def test_a_curves_values_are_what_its_rows_say(file):
    study, configs = study_values(file), configs_of(file)
    if "curve" not in study:
        assert not file.stem.endswith(("center_factor", "filter_size"))
        return
    for row, value in study["curve"]["values"].items():
        config = configs[row]
        said = 0 if value == 0 and not config.use_affil_loss else getattr(config, study["curve"]["key"])
        assert said == value


@pytest.fixture(scope="module")
def built():
    """What was built before: the two data sets' studies are of the same models."""
    return set()


@EACH
def test_every_distinct_model_of_a_study_can_be_built(file, built):
    distinct = {tuple(getattr(c, key) for key in BUILT_OF.split()): c for c in configs_of(file).values()}
    with torch.device("meta"):  # shapes without memory: VGG-19 alone is half a gigabyte
        for key in distinct.keys() - built:
            config = distinct[key]
            model = build_model(config)
            assert hasattr(model, "instruction_encoder") == config.has_vir
            assert hasattr(model, "language_cycle") == config.has_lca
            built.add(key)


@pytest.mark.parametrize("study", ("rsicd_table1", "rsicd_modules", "rsicd_cycle", "lite_table1", "lite_flaws"))
def test_every_row_of_modules_trains_a_step_at_small_size(tmp_path, study):
    for name, sizes in (("vision", VISION), ("text", TEXT)):
        (tmp_path / f"{name}.json").write_text(json.dumps(sizes))
    small = ["image_res=112", "embed_dim=32", "head=4", "max_tokens=24", "prior_backbone=resnet10t"]
    small += [f"vision_config={tmp_path}/vision.json", f"text_config={tmp_path}/text.json"]
    small += ["text_trained_layers=1", "vision_trained_stages=null"]
    images, ids, label = torch.rand(2, 3, 112, 112), torch.randint(3, 200, (2, 9)), torch.arange(2)
    for config in configs_of(ROOT / f"configs/studies/{study}.yaml", small).values():
        losses = build_model(config).train()(images, ids, idx=label, label=label)
        sum(losses.values()).backward()
        assert ("loss_triplet" in losses, "loss_affil" in losses) == (config.use_triplet_loss, config.use_affil_loss)


def published_in_readme():
    """(method, data set) -> the seven figures of the README's table of published results."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Published results")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines)
    return {
        (row[0].replace("*", ""), data.lower()): [float(n) for n in re.findall(r"\d+\.\d+", cell)]
        for row in rows
        for data, cell in zip(header[1:], row[1:], strict=True)
    }


def test_published_numbers_are_those_of_table_1_and_of_nothing_else():
    in_readme = published_in_readme()
    of_methods = {
        (method.title, data): list(figures.values())
        for method in read_published().methods
        for data, figures in method.figures.items()
    }
    assert in_readme == of_methods and len(in_readme) == 10
    for file in STUDIES:
        rows = study_values(file)["rows"].values()
        published = [row for row in rows if "published" in row]
        data, _, name = file.stem.partition("_")
        if name == "clip_table":  # of other papers, each beside the row of its kind
            assert [(*row["published"],) for row in published] == [("r_mean",)] * 2
            continue
        if name != "table1" or data == "lite":
            assert published == []
            continue
        assert [row["title"] for row in published] == [method.title for method in read_published().methods]
        for row in published:
            assert list(row["published"].items()) == list(zip(FIGURES, in_readme[row["title"], data], strict=True))


def test_the_published_means_stand_in_no_config():
    means = {f"{figures['r_mean']:.2f}" for method in read_published().methods for figures in method.figures.values()}
    assert len(means) == 10
    for file in [*ROOT.glob("configs/*.yaml"), *STUDIES]:
        assert not means & set(re.findall(r"\d+\.\d+", file.read_text(encoding="utf-8"))), file


@EACH
def test_rows_of_the_dual_encoder_and_of_tel_are_trained_without_labels(file):
    plain = [config for config in configs_of(file).values() if config.is_baseline or config.use_tel]
    assert bool(plain) == file.stem.endswith(("table1", "clip_table"))
    assert not any(config.use_affil_loss for config in plain)


def test_each_mended_flaw_differs_from_the_released_row_in_one_key_and_all_in_every_one():
    for data in ("rsicd", "rsitmd", "lite"):
        configs = {n: c.to_dict() for n, c in configs_of(ROOT / f"configs/studies/{data}_flaws.yaml").items()}
        released, mended = configs.pop("as_released"), configs.pop("all")
        changed = [{key for key in c if c[key] != released[key]} for c in configs.values()]
        assert all(len(keys) == 1 for keys in changed)
        assert {key for key in mended if mended[key] != released[key]} == set().union(*changed)
        if data != "lite":
            assert released == config_from_file(f"configs/Retrieval_{data}.yaml").to_dict()


def test_the_commands_that_make_the_scene_priors_give_each_row_its_start():
    study = study_values(ROOT / "configs/studies/rsicd_instruction_encoder.yaml")
    commands = re.findall(r"python run\.py .*?--output_dir \S+", study["notes"], re.DOTALL)
    made = {}
    for command in commands:
        overrides = re.findall(r"--override (\S+)", command)
        prior = prior_config_from_file(ROOT / "configs/Prior_aid.yaml", overrides)
        made[re.search(r"--output_dir (\S+)", command)[1] + "/prior.pth"] = prior.backbone
    configs = configs_of(ROOT / "configs/studies/rsicd_instruction_encoder.yaml").values()
    wanted = {c.resnet_ckpt: c.prior_backbone for c in configs if c.resnet_ckpt.startswith("outputs/")}
    assert made == wanted and len(made) == 4
