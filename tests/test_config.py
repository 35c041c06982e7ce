"""Configs: the released YAMLs unchanged, everything that can be wrong told at once, nothing changed afterwards."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.tiny import TEXT, VISION
from utils.config import config_from_dict, config_from_file, process_batch
from utils.errors import InputError
from utils.typed import read_overridden, read_yaml, write_yaml

ROOT = Path(__file__).parents[1]

RELEASED_YAML = """\
train_file: ['data/finetune/rsitmd_train.json']
val_file: 'data/finetune/rsitmd_val.json'
test_file: 'data/finetune/rsitmd_test.json'
image_root: '../X-VLM-pytorch/images/rsitmd/'

## Vision Encoder
vision_config: 'configs/config_swinT_224.json'
resnet_ckpt: 'data/aid_28-rsp-resnet-50-ckpt.pth'
finetune_conv: False
use_swin: True
image_res: 224
patch_size: 32

## Text Encoder
text_config: 'configs/config_bert.json'
text_encoder: 'data/bert-base-uncased'

## Training
batch_size_train: 128
batch_size_test: 128
batch_size_test_text: 128
max_tokens: 47
embed_dim: 512
temp1: 0.07
temp2: 0.07
k_test: 512

is_baseline: False

## Other Settings
optimizer: {opt: adamW, lr: 6e-5, weight_decay: 0.01, lr_mult: 2}
schedular: {sched: linear, lr: 6e-5, epochs: 50, num_warmup_steps: 0.1}

## Losses
use_affil_loss: True
use_triplet_loss: False
center_factor: 1

## Heads
filter_size: 40
instru_num: 2
cycle_num: 3
dropout_r: 0.2
head: 8
"""


@pytest.fixture
def released_file(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # a released YAML names its two size files from the project's root
    file = tmp_path / "released.yaml"
    file.write_text(RELEASED_YAML, encoding="utf-8")
    return file


@pytest.fixture
def values(tmp_path):
    """Plain values of a small config, its two JSON files in the test's own folder."""
    for name, sizes in (("vision", VISION), ("text", TEXT)):
        (tmp_path / f"{name}.json").write_text(json.dumps(sizes))
    return {
        "train_file": ["train.json"],
        "val_file": "val.json",
        "test_file": "test.json",
        "image_root": "images",
        "vision_config": str(tmp_path / "vision.json"),
        "text_config": str(tmp_path / "text.json"),
        "image_res": 112,
    }


def problem(values):
    """What config_from_dict says of these values, always in one line."""
    with pytest.raises(InputError) as raised:
        config_from_dict(values)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---- reading ----


def test_a_released_yaml_runs_unchanged(released_file):
    config = config_from_file(released_file)
    assert config.train_file == ("data/finetune/rsitmd_train.json",)
    assert config.optimizer.lr == config.schedular.lr == 6e-5
    assert config.is_baseline is False and config.use_affil_loss is True
    assert config.schedular.epochs == 50 and config.center_factor == 1.0
    assert config.vision_config.depths == (2, 2, 6, 2) and config.text_config["hidden_size"] == 768
    # What a released YAML does not say keeps the released behaviour.
    assert (config.mask_padding, config.prior_batch_stats, config.select_on) == (False, True, "test")
    assert (config.gather_grad, config.same_class_negatives, config.center_scope) == ("local", True, "process")
    assert (config.clamp_temp, config.captions_per_image, config.scenes) == (False, 1, None)
    assert (config.use_vir, config.use_lca, config.lca_cycle, config.use_tel) == (True, True, True, False)


def test_a_released_yaml_holds_the_recorded_values(released_file, parity):
    recorded = json.loads((parity / "base_config.json").read_text())
    assert read_yaml(released_file) == recorded
    assert config_from_file(released_file) == config_from_dict(recorded)


def test_yaml_1_1_quoting_reads_alike(tmp_path, released_file):
    """What a YAML 1.1 writer makes of the values: `6.0e-05`, text where it takes 6e-5 for text, flow lists."""
    file = tmp_path / "rewritten.yaml"
    text = RELEASED_YAML.replace("opt: adamW, lr: 6e-5", "opt: 'adamW', lr: '6e-5'").replace("lr: 6e-5", "lr: 6.0e-05")
    text = text.replace("['data/finetune/rsitmd_train.json']", '\n- "data/finetune/rsitmd_train.json"')
    file.write_text(text.replace("True", "true").replace("False", "false"), encoding="utf-8")
    assert config_from_file(file) == config_from_file(released_file)


def test_a_config_that_names_tar_files_trains_from_shards(values):
    assert config_from_dict(values | {"train_file": ["a-{000000..000004}.tar"]}).trains_from_shards
    assert not config_from_dict(values).trains_from_shards


def test_one_train_file_may_be_a_plain_name(values):
    assert config_from_dict(values | {"train_file": "a.json"}).train_file == ("a.json",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    (("a: [1,", "is not YAML"), ("- a\n- b\n", "holds no keys"), ("", "holds no keys"), (None, "cannot be read")),
)
def test_a_file_that_is_no_config_is_one_line(tmp_path, text, complaint):
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=complaint) as raised:
        config_from_file(file)
    assert "config.yaml" in str(raised.value) and "\n" not in str(raised.value)


def test_a_yaml_cannot_run_code(tmp_path):
    file, made = tmp_path / "config.yaml", tmp_path / "made"
    file.write_text(f"train_file: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(InputError):
        config_from_file(file)
    assert not made.exists()


def test_size_files_that_cannot_be_read_are_named(values, tmp_path):
    assert "vision_config gone.json cannot be read" in problem(values | {"vision_config": "gone.json"})
    (tmp_path / "text.json").write_text("{")
    assert "text.json is not JSON" in problem(values)
    (tmp_path / "text.json").write_text("[1]")
    assert "text.json holds no keys" in problem(values)


# ---- what is wrong ----


def test_an_unknown_key_is_told_with_the_nearest():
    values = {"train_file": ["a"], "val_file": "b", "test_file": "c", "image_root": "d"}
    assert "unknown key 'filter_sise', nearest is 'filter_size'" in problem(values | {"filter_sise": 40})
    assert "unknown key 'scheduler', nearest is 'schedular'" in problem(values | {"scheduler": {}})
    nested = problem(values | {"optimizer": {"weight_deacy": 0.1}})
    assert "unknown key 'optimizer.weight_deacy', nearest is 'optimizer.weight_decay'" in nested
    assert "nearest" not in problem(values | {"zzzz": 1})


def test_an_unknown_key_of_the_vision_sizes_is_told(values, tmp_path):
    (tmp_path / "vision.json").write_text(json.dumps(VISION | {"num_head": [1]}))
    assert "unknown key 'vision_config.num_head', nearest is 'vision_config.num_heads'" in problem(values)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    (
        ("embed_dim", "many", "a whole number"),
        ("embed_dim", 512.5, "a whole number"),
        ("embed_dim", True, "a whole number"),
        ("temp1", "warm", "a number"),
        ("temp1", False, "a number"),
        ("temp1", [0.07], "a number"),
        ("use_swin", "yes", "True or False"),
        ("use_swin", 1, "True or False"),
        ("val_file", 3, "text"),
        ("val_file", None, "text"),
        ("train_file", [1, 2], "a list, each text"),
        ("train_file", {"a": 1}, "a list, each text"),
        ("optimizer", 6e-5, "keys of its own"),
        ("gather_grad", "all", "one of local, full"),
        ("select_on", None, "one of test, val"),
        ("resnet_ckpt", False, "text or null"),
    ),
)
def test_a_value_of_the_wrong_kind_is_told_with_the_right_one(values, key, value, wanted):
    assert problem(values | {key: value}) == f"config: 1 problem: '{key}' is {value!r}, expected {wanted}"


def test_a_whole_number_may_be_written_as_a_float_and_a_number_as_a_whole(values):
    config = config_from_dict(values | {"embed_dim": 64.0, "center_factor": 10})
    assert (config.embed_dim, config.center_factor) == (64, 10.0)
    assert (type(config.embed_dim), type(config.center_factor)) == (int, float)


def test_missing_keys_are_told():
    told = problem({"train_file": ["a"]})
    assert told == "config: 3 problems: 'val_file' is missing; 'test_file' is missing; 'image_root' is missing"


def test_all_problems_are_counted_and_the_first_five_shown(values):
    bad = {"embed_dim": "a", "head": "b", "temp1": "c", "use_swin": "d", "cycle_num": "e", "opimizer": {}, "temp2": "f"}
    told = problem(values | bad)
    assert told.startswith("config: 7 problems: ") and told.endswith("; and 2 more")
    assert told.count(";") == 5


def test_sizes_may_stand_in_the_config_itself(values):
    inline = config_from_dict(values | {"vision_config": VISION, "text_config": TEXT})
    assert inline == config_from_dict(values)
    assert "unknown key 'vision_config.num_head'" in problem(values | {"vision_config": VISION | {"num_head": [1]}})
    assert "'text_config' is [1], expected keys of its own" in problem(values | {"text_config": [1]})
    assert "'vision_config.embed_dim' is 0, must be at least 1" in problem(values | {"vision_config": {"embed_dim": 0}})


def test_a_saved_config_holds_the_sizes_so_that_an_edited_file_shows(values, tmp_path):
    before = config_from_dict(values)
    saved = before.to_dict()
    assert saved["text_config"] == TEXT and saved["vision_config"]["depths"] == VISION["depths"]
    (tmp_path / "text.json").write_text(json.dumps(TEXT | {"num_hidden_layers": 1}))
    assert config_from_dict(saved) == before != config_from_dict(values)


@pytest.mark.parametrize(
    ("said", "read"),
    (
        ({}, "clip"),
        ({"prior_backbone": "resnet50.tv_in1k"}, "own"),
        ({"prior_backbone": "resnet50.tv_in1k", "prior_normalisation": "clip"}, "clip"),
        ({"prior_normalisation": "own"}, "own"),
    ),
)
def test_a_prior_sees_pictures_in_its_own_normalisation_unless_it_is_the_released_one(values, said, read):
    config = config_from_dict(values | said)
    assert config.prior_normalisation == config.to_dict()["prior_normalisation"] == read


@pytest.mark.parametrize(
    ("changes", "complaint"),
    (
        ({"filter_size": 51}, "'filter_size' 51 is over the 50 picture tokens"),
        ({"image_res": 64, "filter_size": 18}, "'filter_size' 18 is over the 17 picture tokens"),
        ({"use_swin": False, "patch_size": 56, "filter_size": 6}, "'filter_size' 6 is over the 5 picture tokens"),
        ({"use_swin": False, "patch_size": 16, "image_res": 224, "filter_size": 51}, "over the 50 picture tokens"),
        ({"head": 7}, "'head' 7 does not divide 'embed_dim' 512"),
        ({"max_tokens": 65}, "'max_tokens' 65 is over the 64 positions"),
        ({"image_res": 100}, "'image_res' 100 is no multiple of the encoder's stride 16"),
        ({"use_affil_loss": True, "use_triplet_loss": True}, "exclude each other"),
        ({"is_baseline": True, "use_tel": True}, "is_baseline and use_tel exclude each other"),
        ({"use_tel": True, "head": 7}, "'head' 7 does not divide 'embed_dim' 512"),
        ({"use_vir": False, "head": 7}, "'head' 7 does not divide 'embed_dim' 512"),
        ({"use_lca": False, "filter_size": 51}, "'filter_size' 51 is over the 50 picture tokens"),
        ({"temp1": 0}, "'temp1' is 0.0, must be above 0"),
        ({"batch_size_train": 0}, "'batch_size_train' is 0, must be at least 1"),
        ({"dropout_r": 1}, "'dropout_r' is 1.0"),
        ({"average_decay": -0.1}, "'average_decay' is -0.1"),
        ({"train_file": []}, "'train_file' names no file"),
        ({"train_file": ["a-000000.tar", "train.json"]}, "both shards and annotation files"),
        ({"optimizer": {"lr": 0}}, "'optimizer.lr' is 0.0, must be above 0"),
        ({"schedular": {"epochs": 0}}, "'schedular.epochs' is 0, must be at least 1"),
        ({"num_workers": -1}, "'num_workers'"),
    ),
)
def test_impossible_sizes_are_refused_before_anything_is_built(values, changes, complaint):
    told = problem(values | changes)
    assert told.startswith("config: 1 problem: ") and complaint in told


@pytest.mark.parametrize(
    "changes",
    (
        {"filter_size": 50},
        {"image_res": 64, "filter_size": 17},
        {"use_swin": False, "patch_size": 56, "filter_size": 5},
        {"max_tokens": 64},
        {"is_baseline": True, "filter_size": 51, "head": 7},
        {"use_vir": False, "use_lca": False, "filter_size": 51, "head": 7},
        {"use_vir": False, "filter_size": 51},
        {"use_tel": True, "filter_size": 51},
    ),
)
def test_the_largest_possible_sizes_are_taken_and_what_is_off_needs_none(values, changes):
    config_from_dict(values | changes)


@pytest.mark.parametrize(
    ("changes", "vir", "lca"),
    (
        ({}, True, True),
        ({"use_vir": False}, False, True),
        ({"use_lca": False}, True, False),
        ({"is_baseline": True, "use_vir": True, "use_lca": True}, False, False),
        ({"is_baseline": True, "use_vir": False}, False, False),
        ({"use_tel": True, "use_vir": True}, False, False),
    ),
)
def test_the_switches_say_which_modules_a_config_has(values, changes, vir, lca):
    config = config_from_dict(values | changes)
    assert (config.has_vir, config.has_lca) == (vir, lca)


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    (
        ("text", {"num_attention_heads": 5}, "num_attention_heads 5 does not divide hidden_size 32"),
        ("vision", {"num_heads": [1, 3, 4]}, "3 heads do not divide width 32"),
        ("vision", {"num_heads": [1, 2]}, "name different numbers of stages"),
        ("vision", {"vision_width": 65}, "vision_width 65 is not the last stage's width 64"),
    ),
)
def test_impossible_encoder_sizes_are_refused(values, tmp_path, file, changes, complaint):
    sizes = {"text": TEXT, "vision": VISION}[file]
    (tmp_path / f"{file}.json").write_text(json.dumps(sizes | changes))
    assert complaint in problem(values)


# ---- overrides ----


def test_overrides_replace_values_also_nested_ones(released_file):
    overrides = ["optimizer.lr=1e-4", "schedular.epochs=3", "use_swin=False", "patch_size=16", "train_file=[a, b]"]
    config = config_from_file(released_file, overrides)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-4, 0.01)
    assert (config.schedular.epochs, config.use_swin, config.patch_size) == (3, False, 16)
    assert config.train_file == ("a", "b")
    assert config_from_file(released_file, ["resnet_ckpt=null"]).resnet_ckpt is None
    assert config_from_file(released_file, ["image_root=a=b"]).image_root == "a=b"


def test_one_size_can_be_overridden_whether_a_file_or_the_config_holds_it(values, tmp_path):
    write_yaml(values, tmp_path / "named.yaml")
    write_yaml(config_from_dict(values).to_dict(), tmp_path / "inline.yaml")
    for name in ("named", "inline"):
        config = config_from_file(
            tmp_path / f"{name}.yaml", ["text_config.num_hidden_layers=1", "vision_config.ckpt=a.pth"]
        )
        assert config.text_config == TEXT | {"num_hidden_layers": 1}
        assert (config.vision_config.ckpt, config.vision_config.embed_dim) == ("a.pth", VISION["embed_dim"])


@pytest.mark.parametrize(
    ("override", "complaint"),
    (
        ("embed_dim", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("embed_dim.size=3", "'embed_dim' has no keys of its own"),
        ("optimizer.lrr=1", "unknown key 'optimizer.lrr', nearest is 'optimizer.lr'"),
        ("head=[1", "--override"),
        ("head=eight", "expected a whole number"),
        ("resnet_ckpt=", "for none write resnet_ckpt=null"),
        ("resnet_ckpt=' '", "'resnet_ckpt' is empty; for none write null"),
    ),
)
def test_an_override_that_cannot_be_is_told(released_file, override, complaint):
    with pytest.raises(InputError, match=r"^[^\n]*$") as raised:
        config_from_file(released_file, [override])
    assert complaint in str(raised.value)


# ---- afterwards ----


def test_a_config_cannot_change(values):
    config = config_from_dict(values | {"optimizer": {"lr": 1e-3}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.embed_dim = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.optimizer.lr = 3
    with pytest.raises(TypeError):
        config.text_config["hidden_size"] = 3
    values["train_file"].append("another.json")
    assert config.train_file == ("train.json",)


def test_reading_a_config_leaves_the_values_as_they_were(values):
    before = json.loads(json.dumps(values))
    config_from_dict(values | {"train_file": "a.json"})
    config_from_dict(values)
    assert values == before


@pytest.mark.parametrize(
    "changes",
    (
        {},
        {"optimizer": {"lr": 6e-5}, "text_encoder": None, "tokenizer": "vocabulary", "dropout_r": 0},
        {"scenes": {"folder": "data/scenes", "train": 20}, "gather_grad": "full", "vision_trained_stages": 2},
    ),
    ids=("plain", "nulls", "scenes"),
)
def test_a_config_comes_back_from_its_own_yaml_and_json(values, tmp_path, changes):
    config = config_from_dict(values | changes)
    write_yaml(config.to_dict(), tmp_path / "config.yaml")
    assert read_yaml(tmp_path / "config.yaml") == config.to_dict()
    assert config_from_file(tmp_path / "config.yaml") == config
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert not list(tmp_path.glob("*.partial"))


def test_a_yaml_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "config.yaml"
    write_yaml({"a": 1}, file)
    with pytest.raises(Exception, match="represent"):
        write_yaml({"a": object()}, file)
    assert read_yaml(file) == {"a": 1}


def test_the_start_of_the_picture_encoder_and_the_vocabulary_folder(values, tmp_path):
    (tmp_path / "vision.json").write_text(json.dumps(VISION | {"ckpt": "swin.pth"}))
    assert config_from_dict(values).vision_start == "swin.pth"
    vit = config_from_dict(values | {"use_swin": False, "patch_size": 16})
    assert vit.vision_start == "data/deit_small_patch16_224-cd65a155.pth"
    assert config_from_dict(values).tokenizer_folder == "data/bert-base-uncased"
    assert config_from_dict(values | {"tokenizer": "words"}).tokenizer_folder == "words"


def test_the_global_batch_is_shared_evenly_by_the_processes():
    assert process_batch(128, None, 4) == 128
    assert process_batch(128, 96, 4) == 24
    with pytest.raises(InputError, match=r"--bs 10, .* does not divide by 4 processes: try 8 or 12"):
        process_batch(128, 10, 4)
    with pytest.raises(InputError, match=r"does not divide by 4 processes: try 4$"):
        process_batch(128, 3, 4)
    with pytest.raises(InputError, match="--bs 0"):
        process_batch(128, 0, 4)


def test_a_config_says_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "lower.yaml").write_text("optimizer: {lr: 1e-4, weight_decay: 0.1}\nhead: 4\ntrain_file: [a, b]\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "upper.yaml").write_text("base: ../lower.yaml\noptimizer: {lr: 2e-4}\ntrain_file: [c]\n")
    expected = {"optimizer": {"lr": 2e-4, "weight_decay": 0.1}, "head": 4, "train_file": ["c"]}
    assert read_overridden(tmp_path / "sub" / "upper.yaml", None) == expected
    assert read_overridden(tmp_path / "sub" / "upper.yaml", ["head=2"])["head"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: a.yaml\n", "leads back to itself"),
        ("base: gone.yaml\n", "gone.yaml cannot be read"),
        ("base: [a]\n", "expected the name of a YAML file"),
    ],
)
def test_a_base_that_cannot_be_followed_is_one_line(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_overridden(tmp_path / "a.yaml", None)
