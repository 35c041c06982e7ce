"""Starts of CLIP pairs: each published shape fills the pair with the values it holds, a wrong pair is one line."""

import json
import pickle
import zipfile

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import register_model
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from models import build_model
from models.start_files import load_clip_start, load_prior_start, resolve_start, start_encoders
from run import missing_inputs
from utils.checkpoint import read_checkpoint
from utils.errors import InputError

VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 60, "width": 32, "heads": 2, "layers": 2},
}
QUICK = VIT | {"quick_gelu": True}
RESNET = VIT | {"quick_gelu": True, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}}
SIGLIP = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "timm_model_name": "small_siglip", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": VIT["text_cfg"]
    | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
}


@register_model
def small_siglip(pretrained=False, **options):
    """timm's SigLIP towers, small."""
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "class_token": False}
    options = {key: value for key, value in options.items() if key in ("global_pool", "num_classes")}
    return timm.models.VisionTransformer(**sizes, **options)


@pytest.fixture
def model(tmp_path, tiny_config):
    """A model of sizes as open_clip describes them, random weights, with its config."""

    def build(sizes=VIT, **changes):
        name = tmp_path / "sizes.json"
        name.write_text(json.dumps(sizes))
        plain = {"is_baseline": True, "use_affil_loss": False, "prior_backbone": "resnet50"} | changes
        keys = {"clip_model": str(name), "text_encoder": None, "embed_dim": sizes["embed_dim"], "tokenizer": None}
        keys |= {"image_res": 32, "max_tokens": 16, "vision_config": {}, "text_config": {}}
        config = tiny_config(**keys | plain)
        return build_model(config).eval(), config

    return build


def published(sizes=VIT, **changes):
    """open_clip's own model of these sizes, each tensor random."""
    sizes = {key: value for key, value in sizes.items() if key != "custom_text"} | changes
    kind = open_clip.CustomTextCLIP if "init_logit_bias" in sizes else open_clip.CLIP
    return randomised(kind(**sizes))


def randomised(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            random = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(random + 0.5 if "running_var" in name else (random - 0.5) * 0.3)
    return module.eval()


def inputs(words=60, context=16):
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, words - 1, (3, context), generator=generator)
    ids[torch.arange(3), torch.tensor([4, 9, context - 1])] = words - 1  # the end of each text
    return torch.randn(3, 3, 32, 32, generator=generator), ids


@torch.no_grad()
def assert_embeds_as(model, pictures, texts, tolerance=1e-5):
    images, ids = inputs()
    for ours, theirs in ((model.encode_image(images), pictures), (model.encode_text(ids), texts)):
        torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs, dim=-1), atol=tolerance, rtol=0)


@torch.no_grad()
def assert_embeds_as_open_clip(model, source):
    images, ids = inputs()
    assert_embeds_as(model, source.encode_image(images), source.encode_text(ids))


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def refused(model, config, file, **options):
    """The one line that refuses a start, which leaves the model as it was."""
    before = snapshot(model)
    with pytest.raises(InputError) as error:
        load_clip_start(model, config, str(file), **options)
    assert "\n" not in str(error.value) and str(file) in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return str(error.value)


# ---- OpenAI's archives ----


def torchscript(source, file, *, openai=True, half=True):
    """A traced model as OpenAI publishes them: half precision, three numbers beside the weights."""
    if openai:
        for name, number in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 60)):
            if hasattr(source, name):
                delattr(source, name)  # a plain number in open_clip's model
            source.register_buffer(name, torch.tensor(number))
    images, ids = inputs()
    methods = {"forward": (images, ids), "encode_image": (images,), "encode_text": (ids,)}
    traced = torch.jit.trace_module(source, methods, check_trace=False)
    torch.jit.save(traced.half() if half else traced, file)
    return source.half().float() if half else source


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("sizes", "tensors"), [(QUICK, 62), (RESNET, 153)])
def test_an_openai_archive_fills_its_pair_in_float32_and_its_numbers_are_dropped(tmp_path, model, sizes, tensors):
    source = torchscript(published(sizes), tmp_path / "ViT-B-32.pt")
    ours, config = model(sizes)
    report = load_clip_start(ours, config, str(tmp_path / "ViT-B-32.pt"))
    assert str(report) == (
        f"clip: {tensors} of {tensors} tensors from {tmp_path}/ViT-B-32.pt "
        "(3 dropped: input_resolution, context_length, vocab_size)"
    )
    assert {tensor.dtype for tensor in ours.state_dict().values()} <= {torch.float32, torch.int64}
    assert_embeds_as_open_clip(ours, source)


@pytest.mark.filterwarnings("ignore")
def test_an_openai_archive_is_quick_gelu_and_another_model_is_told_so(tmp_path, model):
    torchscript(published(QUICK), tmp_path / "ViT-B-32.pt")
    ours, config = model(VIT)
    said = refused(ours, config, tmp_path / "ViT-B-32.pt")
    assert "it is of quick GELU and clip_model" in said and "'quick_gelu': true" in said
    from models.clip_kinds import _other_activation

    assert _other_activation(True, "ViT-B-32").endswith(": set clip_model: ViT-B-32-quickgelu")
    assert _other_activation(False, "RN50-quickgelu").endswith(": set clip_model: RN50")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file_of_more_than_a_clip_is_refused(tmp_path, model):
    source = published(QUICK)
    source.register_buffer("classifier", torch.zeros(3))
    torchscript(source, tmp_path / "more.pt")
    assert "1 unexpected, first classifier" in refused(*model(QUICK), tmp_path / "more.pt")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file_s_code_is_not_run_and_a_foreign_tree_is_refused(tmp_path, monkeypatch, model):
    torchscript(published(QUICK), tmp_path / "clip.pt", openai=False)
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("its code was loaded"))
    ran = tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "clip.pt") as given, zipfile.ZipFile(tmp_path / "trap.pt", "w") as trap:
        for member in given.infolist():
            content = given.read(member)
            if "/code/" in member.filename:
                content = b"this is no code"
            trap.writestr(member.filename, content)
    assert load_clip_start(*model(QUICK), str(tmp_path / "trap.pt")).matched == 62

    class Trap:
        def __reduce__(self):
            return ran.touch, ()

    with zipfile.ZipFile(tmp_path / "foreign.pt", "w") as foreign:
        foreign.writestr("foreign/data.pkl", pickle.dumps(Trap(), protocol=2))
        foreign.writestr("foreign/constants.pkl", pickle.dumps((), protocol=2))
    said = refused(*model(QUICK), tmp_path / "foreign.pt")
    assert "is refused, nothing of it was run" in said and not ran.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_tensor_that_does_not_lie_within_its_numbers_is_refused(tmp_path, model):
    torchscript(published(QUICK), tmp_path / "clip.pt")
    with zipfile.ZipFile(tmp_path / "clip.pt") as given, zipfile.ZipFile(tmp_path / "cut.pt", "w") as cut:
        for member in given.infolist():
            content = given.read(member)
            cut.writestr(member.filename, content[:8] if "/data/" in member.filename else content)
    assert "is refused, nothing of it was run" in refused(*model(QUICK), tmp_path / "cut.pt")


# ---- open_clip's names ----


@pytest.mark.parametrize("form", ["bare.pt", "bare.bin", "bare.safetensors", "training.pt", "ours.pth"])
def test_weights_in_open_clip_names_fill_the_pair(tmp_path, model, form):
    source, file = published(), tmp_path / form
    state = source.state_dict()
    if form == "bare.safetensors":
        save_file(state, file)
    elif form == "training.pt":
        optimizer = torch.optim.AdamW(source.parameters()).state_dict()
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 7, "name": "run", "state_dict": wrapped, "optimizer": optimizer}, file)
    else:
        torch.save({"model": state, "config": {}} if form == "ours.pth" else state, file)
    ours, config = model()
    report = load_clip_start(ours, config, str(file))
    assert (report.matched, report.needed, report.dropped) == (62, 62, ())
    assert_embeds_as_open_clip(ours, source)


def test_a_pair_with_a_text_tower_of_its_own_takes_plain_names_as_open_clip_does(tmp_path, model):
    source = published()
    torch.save(source.state_dict(), tmp_path / "plain.pt")
    ours, config = model(VIT | {"custom_text": True})
    assert any(name.startswith("clip.text.") for name in ours.state_dict())
    assert load_clip_start(ours, config, str(tmp_path / "plain.pt")).matched == 62
    assert_embeds_as_open_clip(ours, source)
    torch.save(ours.clip.state_dict(), tmp_path / "custom.pt")
    other, config = model()
    assert load_clip_start(other, config, str(tmp_path / "custom.pt")).matched == 62
    assert_embeds_as_open_clip(other, source)


def test_positions_of_another_picture_size_are_interpolated_as_open_clip_does(tmp_path, model):
    large = VIT | {"vision_cfg": VIT["vision_cfg"] | {"image_size": 64}}
    torch.save(published(large).state_dict(), tmp_path / "large.pt")
    source = open_clip.CLIP(**VIT).eval()
    open_clip.factory.load_checkpoint(source, str(tmp_path / "large.pt"))
    ours, config = model()
    load_clip_start(ours, config, str(tmp_path / "large.pt"))
    assert ours.clip.visual.positional_embedding.shape == (5, 64)
    assert_embeds_as_open_clip(ours, source)


def test_text_positions_must_fit(tmp_path, model):
    longer = VIT | {"text_cfg": VIT["text_cfg"] | {"context_length": 20}}
    torch.save(published(longer).state_dict(), tmp_path / "longer.pt")
    said = refused(*model(), tmp_path / "longer.pt")
    assert "first positional_embedding [20, 32] for [16, 32]" in said and "context 20" in said


# ---- transformers ----


def transformers_clip(act="quick_gelu", heads=2):
    tower = {"num_hidden_layers": 2, "num_attention_heads": heads, "hidden_act": act, "projection_dim": 32}
    vision = {"hidden_size": 64, "intermediate_size": 256, "image_size": 32, "patch_size": 16}
    text = {"hidden_size": 32, "intermediate_size": 128, "vocab_size": 60, "max_position_embeddings": 16}
    text |= {"eos_token_id": 59, "bos_token_id": 58, "pad_token_id": 0}
    config = CLIPConfig(vision_config=vision | tower, text_config=text | tower, projection_dim=32)
    return randomised(CLIPModel(config))


def transformers_siglip():
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu", "hidden_size": 32}
    tower |= {"intermediate_size": 128, "layer_norm_eps": 1e-6}
    vision, text = {"image_size": 32, "patch_size": 16}, {"vocab_size": 60, "max_position_embeddings": 16}
    return randomised(SiglipModel(SiglipConfig(vision_config=vision | tower, text_config=text | tower)))


def features(out):
    return out if isinstance(out, torch.Tensor) else out.pooler_output


@torch.no_grad()
@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(("source", "sizes"), [(transformers_clip, QUICK), (transformers_siglip, SIGLIP)])
def test_a_transformers_folder_gives_transformers_own_embeddings(tmp_path, model, form, source, sizes):
    theirs, folder = source(), tmp_path / "folder"
    theirs.save_pretrained(folder)
    if form == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), folder / form)
    ours, config = model(sizes)
    report = load_clip_start(ours, config, str(folder))
    assert (report.matched, report.needed, report.dropped) == (len(ours.state_dict()), len(ours.state_dict()), ())
    images, ids = inputs()
    pictures = theirs.get_image_features(pixel_values=ours.prepared(images))
    assert_embeds_as(ours, features(pictures), features(theirs.get_text_features(input_ids=ids)), 1e-4)
    assert torch.equal(ours.clip.logit_scale.reshape(()), theirs.logit_scale.reshape(()))


def test_a_transformers_folder_of_another_activation_or_other_heads_is_refused(tmp_path, model):
    transformers_clip().save_pretrained(tmp_path / "quick")
    assert "it is of quick GELU" in refused(*model(VIT), tmp_path / "quick" / "model.safetensors")
    transformers_clip("gelu").save_pretrained(tmp_path / "exact")
    assert "it is of GELU and clip_model" in refused(*model(QUICK), tmp_path / "exact" / "model.safetensors")
    assert load_clip_start(*model(VIT), str(tmp_path / "exact")).matched == 62
    transformers_clip(heads=4).save_pretrained(tmp_path / "heads")
    assert "its vision tower has 4 heads" in refused(*model(QUICK), tmp_path / "heads" / "model.safetensors")


# ---- wrong pairs ----


def shapes_of(name):
    """Tensors of open_clip's model without the memory of their numbers."""
    with torch.device("meta"):
        shapes = open_clip.create_model(name, pretrained=None, device="meta").state_dict()
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in shapes.items()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ViT-B-16", "a ViT with patches of 16, width 768, 12 layers"),
        ("ViT-L-14-336", "a ViT with patches of 14, width 1024, 24 layers"),
        ("RN50", "a CLIP ResNet of 3-4-6-3 blocks, width 64"),
        ("ViT-B-16-SigLIP", "a ViT with patches of 16, width 768, 12 layers, of timm's"),
    ],
)
def test_a_file_of_another_model_says_which_and_what_to_set(name, kind):
    from models.clip_kinds import Told, wrong_pair
    from utils.clip_config import clip_description

    state = shapes_of(name)
    said = wrong_pair(None, state, Told(), "ViT-B-32", clip_description("ViT-B-32"), False)
    assert f"it is {kind}, with a text tower of width" in said and said.endswith(f": set clip_model: {name}")
    if name == "ViT-B-16":
        said = wrong_pair(None, state, Told(quick=True), "ViT-B-32", clip_description("ViT-B-32"), False)
        assert said.endswith(": set clip_model: ViT-B-16-quickgelu")


def test_a_file_of_another_patch_size_is_one_line_about_its_kind(tmp_path, model):
    other = VIT | {"vision_cfg": VIT["vision_cfg"] | {"patch_size": 8}}
    torch.save(published(other).state_dict(), tmp_path / "other.pt")
    said = refused(*model(), tmp_path / "other.pt")
    assert "61 of 62 tensors match (1 of another shape, first visual.conv1.weight [64, 3, 8, 8] for" in said
    assert "it is a ViT with patches of 8, width 64, 2 layers, with a text tower of width 32, 2 layers" in said
    assert "no model of open_clip is: set clip_model to a JSON file of these sizes" in said


def test_a_file_that_is_no_pair_says_what_it_lacks(tmp_path, model):
    torch.save({"head.weight": torch.zeros(2)}, tmp_path / "none.pt")
    assert "it has no picture tower of a CLIP pair" in refused(*model(), tmp_path / "none.pt")


# ---- PriorCLIP, and a CLIP's ResNet as prior ----


@pytest.fixture
def prior_clip(model, monkeypatch):
    """A small PriorCLIP with its config."""
    monkeypatch.setattr("models.clip_towers.clip_description", lambda name: RESNET if name == "small" else VIT)
    changes = {"instruct": "before_blocks", "prior_backbone": "clip:small", "prior_width": 24, "is_baseline": False}
    return lambda: model(**changes)


def test_prior_clip_s_own_file_fills_its_prior_too(tmp_path, prior_clip):
    from models.released import released_state_dict

    source, (ours, config) = randomised(prior_clip()[0]), prior_clip()
    torch.save(released_state_dict(source), tmp_path / "PriorCLIP.pt")
    report = load_clip_start(ours, config, str(tmp_path / "PriorCLIP.pt"))
    own = ours.state_dict()
    assert report.matched == report.needed == len(own) and any(name.startswith("res_visual.") for name in own)
    assert all(torch.equal(tensor, own[name]) for name, tensor in source.state_dict().items())


def test_prior_clip_s_own_file_in_a_plain_pair_is_told_what_it_is(tmp_path, prior_clip, model):
    from models.released import released_state_dict

    torch.save(released_state_dict(prior_clip()[0]), tmp_path / "PriorCLIP.pt")
    assert "it is PriorCLIP's: it goes with 'instruct: before_blocks'" in refused(*model(), tmp_path / "PriorCLIP.pt")


def test_a_plain_pair_starts_prior_clip_without_its_prior(tmp_path, prior_clip):
    source, (ours, config) = published(), prior_clip()
    torch.save(source.state_dict(), tmp_path / "clip.pt")
    before = snapshot(ours)
    assert load_clip_start(ours, config, str(tmp_path / "clip.pt")).matched == 62
    own = ours.state_dict()
    assert torch.equal(own["clip.visual.proj"], source.visual.proj)
    assert torch.equal(own["vision_proj_res.weight"], before["vision_proj_res.weight"])


@pytest.mark.filterwarnings("ignore")
def test_a_prior_starts_from_a_whole_clip_and_keeps_its_own_projection_of_another_width(tmp_path, prior_clip):
    source, (ours, _) = torchscript(published(RESNET), tmp_path / "RN50.pt"), prior_clip()
    prior, before = ours.res_visual, snapshot(ours.res_visual)
    report = load_prior_start(prior, str(tmp_path / "RN50.pt"))
    projection = ("attnpool.c_proj.weight", "attnpool.c_proj.bias")
    assert report.needed - report.matched == 2 and report.needed == len(before)
    assert report.dropped[:2] == tuple(
        f"{name} {list(source.visual.get_parameter(name).shape)} for {list(before[name].shape)}" for name in projection
    )
    for name, tensor in prior.state_dict().items():
        assert torch.equal(tensor, before[name] if name in projection else source.visual.state_dict()[name])


def test_a_prior_from_a_vit_is_refused_by_its_kind(tmp_path, prior_clip):
    torch.save(published().state_dict(), tmp_path / "vit.pt")
    with pytest.raises(InputError, match=r"it is a ViT with patches of 16, width 64, 2 layers: give the weights"):
        load_prior_start(prior_clip()[0].res_visual, str(tmp_path / "vit.pt"))


# ---- evaluation of a foreign file, and open_clip's own weights by name ----


def test_a_foreign_file_is_read_whole_as_a_checkpoint(tmp_path, model):
    source = transformers_clip()
    source.save_pretrained(tmp_path / "folder")
    ours, config = model(QUICK)
    (report,) = start_encoders(ours, config, str(tmp_path / "folder" / "model.safetensors"))
    assert report.matched == report.needed == 62
    images, _ = inputs()
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(features(source.get_image_features(pixel_values=images)), dim=-1)
        torch.testing.assert_close(ours.encode_image(images), theirs, atol=1e-4, rtol=0)


def test_a_foreign_file_is_no_whole_model_with_heads(tmp_path, model):
    torch.save(published().state_dict(), tmp_path / "clip.pt")
    ours, config = model(is_baseline=False, use_vir=False, head=2)
    said = refused(ours, config, tmp_path / "clip.pt", whole=True)
    assert "missing, first text_proj.weight" in said and "is_baseline: True" in said
    assert load_clip_start(ours, config, str(tmp_path / "clip.pt")).matched == 62


def test_a_training_starts_from_a_published_pair_as_far_as_it_fits(tmp_path, model):
    from models.partial_start import start_from_model

    source = transformers_clip()
    ours, _ = model(QUICK, is_baseline=False, use_vir=False, head=2)
    report = start_from_model(ours, source.state_dict(), "clip.pt")
    assert report.startswith(f"clip.pt: 62 of {len(ours.state_dict())} tensors") and "not in the file, first" in report
    assert torch.equal(ours.clip.visual.proj, source.visual_projection.weight.T)
    with pytest.raises(InputError, match=r"fills \d+ of 32 tensors of visual\.\*: less than half"):
        start_from_model(ours, published(RESNET).state_dict(), "resnet.pt")


def test_open_clip_s_own_weights_are_not_fetched_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec, said = "open_clip:ViT-B-32/laion2b_s34b_b79k", "its weights are not on this machine; pass --download"
    with pytest.raises(InputError, match=f"start '{spec}': {said} to fetch them$"):
        resolve_start(spec)
    (problem,) = missing_inputs([spec], [], download=False)
    assert said in problem and missing_inputs([spec], [], download=True) == []


@pytest.mark.parametrize("spec", ["open_clip:ViT-B-32/no_such", "open_clip:ViT-B-32"])
def test_weights_that_open_clip_does_not_know_name_those_it_does(spec):
    with pytest.raises(InputError, match=r"knows no published weights of that name; of ViT-B-32 it knows openai"):
        resolve_start(spec)


def test_open_clip_s_own_weights_of_the_other_activation_are_refused(tmp_path, model, monkeypatch):
    torch.save(published().state_dict(), tmp_path / "weights.bin")
    monkeypatch.setattr("models.start_files._from_open_clip", lambda spec, download: tmp_path / "weights.bin")
    ours, config = model(VIT)
    with pytest.raises(InputError, match="open_clip:ViT-B-32/openai does not fit: it is of quick GELU"):
        load_clip_start(ours, config, "open_clip:ViT-B-32/openai")
    assert load_clip_start(ours, config, "open_clip:ViT-B-32/laion2b_e16").file == "open_clip:ViT-B-32/laion2b_e16"


def test_open_clip_s_own_weights_are_fetched_when_asked_and_found_again(tmp_path, monkeypatch):
    place = tmp_path / "open_clip_model.safetensors"
    save_file(published().state_dict(), place)
    asked = []
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda known: asked.append(known) or str(place))
    assert resolve_start("open_clip:ViT-B-32/laion2b_s34b_b79k", download=True) == place
    assert asked[0]["hf_hub"].startswith("laion/CLIP-ViT-B-32")
    monkeypatch.setattr("models.start_files.try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    assert resolve_start("open_clip:ViT-B-32/laion2b_s34b_b79k") == place


def test_a_checkpoint_reader_gives_a_torchscript_s_tensors(tmp_path):
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.jit.save(torch.jit.script(layer), tmp_path / "layer.pt")
    read = read_checkpoint(tmp_path / "layer.pt")
    assert read.keys() == layer.state_dict().keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in layer.state_dict().items())
