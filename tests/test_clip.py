"""CLIP tower pairs: open_clip's own embeddings, PIR's modules on them, their losses and their configs."""

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.loss import SigLipLoss
from open_clip.tokenizer import SimpleTokenizer

from dataset.clip_tokenizer import clip_tokenizer, whole_context
from dataset.tokenizer import padded, tokenized
from models import build_model
from models.encoders import InstructionEncoder, normalise
from models.released import load_released, released_state_dict
from models.sigmoid_loss import sigmoid_loss
from models.soft_belief import weighed_by_belief
from tests.clip_pairs import PAIRS, clip_config
from tests.processes import run_on_processes
from utils.config import config_from_file
from utils.errors import InputError
from utils.processes import rank
from utils.train_state import averaged

CAPTIONS = ["a lake", "many white planes are parked near a terminal", "it's 2 m² — naïve!", ""]
PIR = {"is_baseline": False, "prior_backbone": "test_convnext", "instru_num": 1, "cycle_num": 1}


@pytest.fixture(scope="module", params=PAIRS)
def kind(request):
    return request.param


@pytest.fixture
def ids():
    words = clip_tokenizer()
    return padded(tokenized(CAPTIONS, words, 16), words)[0]


def pixels(config, count=4):
    numbers = np.random.RandomState(0).randint(0, 256, (count, 3, config.image_res, config.image_res))
    return torch.from_numpy(numbers.astype(np.uint8))


def built(config, seed=0):
    torch.manual_seed(seed)
    return build_model(config).eval()


@torch.no_grad()
def test_embeddings_are_those_of_open_clip_itself(tmp_path, kind, ids):
    config = clip_config(tmp_path, kind)
    model, images = built(config), pixels(config)
    # As open_clip is used: pictures in the pair's own normalisation, texts padded with 0 to its context.
    own = PAIRS[kind].get("preprocess", {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD})
    mean, std = (torch.tensor(own[key]).view(3, 1, 1) for key in ("mean", "std"))
    theirs = model.clip.encode_image((images / 255 - mean) / std, normalize=True)
    torch.testing.assert_close(model.encode_image(normalise(images)), theirs, atol=1e-5, rtol=0)
    whole = SimpleTokenizer(context_length=16)(CAPTIONS)
    if kind == "siglip":
        ids = whole
    assert kind == "siglip" or ids.shape[1] < 16  # cut to the longest
    theirs = model.clip.encode_text(whole, normalize=True)
    torch.testing.assert_close(model.encode_text(ids), theirs, atol=1e-5, rtol=0)
    assert theirs.std(dim=0).min() > 1e-3


def test_captions_have_the_ids_that_open_clip_gives_them():
    words, end = clip_tokenizer(), 49407
    for caption, theirs in zip(CAPTIONS, SimpleTokenizer(context_length=77)(CAPTIONS).tolist(), strict=True):
        (ours,) = tokenized([caption], words, 77)
        assert ours.tolist() == theirs[: theirs.index(end) + 1]
    (cut,) = tokenized(["a very long caption of many more words"], words, 5)
    assert len(cut) == 5 and cut[-1] == end


def test_a_pair_of_other_text_gets_captions_padded_to_its_context():
    words = whole_context(clip_tokenizer(), 16)
    ids, mask = padded(tokenized(CAPTIONS[:2], words, 16), words)
    assert ids.shape == mask.shape == (2, 16) and mask.sum(dim=1).tolist() == [4, 10]


@torch.no_grad()
@pytest.mark.parametrize("belief", ("hard", "soft"))
def test_at_step_0_pir_on_clip_is_the_tower_itself_and_then_more(tmp_path, kind, ids, belief):
    config = clip_config(tmp_path, kind, **PIR, belief=belief)
    model = built(config)
    images = normalise(pixels(config))
    ids = SimpleTokenizer(context_length=16)(CAPTIONS) if kind == "siglip" else ids
    plain = build_model(clip_config(tmp_path, kind)).eval()
    plain.clip.load_state_dict(model.clip.state_dict())
    for verb, given in (("encode_image", images), ("encode_text", ids)):
        torch.testing.assert_close(getattr(model, verb)(given), getattr(plain, verb)(given))
    for branch in (model.vision_instruction, model.language_cycle):
        torch.nn.init.normal_(branch.head.weight)
    for verb, given in (("encode_image", images), ("encode_text", ids)):
        assert (getattr(model, verb)(given) - getattr(plain, verb)(given)).abs().max() > 0.01


@torch.no_grad()
def test_what_follows_the_end_of_a_text_changes_nothing_of_lca(tmp_path, ids):
    model = built(clip_config(tmp_path, "vit", **PIR))
    torch.nn.init.normal_(model.language_cycle.head.weight)
    longer = torch.cat([ids, ids.new_full((len(ids), 3), 5)], dim=1)
    torch.testing.assert_close(model.encode_text(ids), model.encode_text(longer), atol=1e-6, rtol=0)


def test_a_prior_may_be_a_clip_resnet(tmp_path):
    pair = clip_config(tmp_path, "resnet").clip_model
    for width in (None, 24):
        model = built(clip_config(tmp_path, "vit", **PIR | {"prior_backbone": f"clip:{pair}", "prior_width": width}))
        assert isinstance(model.instruction_encoder, InstructionEncoder)
        assert model.instruction_encoder.width == (width or 32)
        assert model.encode_image(torch.rand(2, 3, 64, 64)).shape == (2, 32)
    pair = clip_config(tmp_path, "vit_16").clip_model
    with pytest.raises(InputError, match="has no ResNet"):
        built(clip_config(tmp_path, "vit", **PIR | {"prior_backbone": f"clip:{pair}"}))


def test_a_checkpoint_has_open_clips_names_and_fills_the_model_again(tmp_path, kind):
    config = clip_config(tmp_path, kind, **PIR)
    model, other = built(config), built(config, seed=1)
    state = released_state_dict(model)
    assert {*model.clip.state_dict()} < {*state} and "head_img.weight" in state
    assert load_released(other, state).startswith(f"{len(model.state_dict())} of")
    images = normalise(pixels(config))
    torch.testing.assert_close(model.encode_image(images), other.encode_image(images))


# ---- belief ----


def test_weights_by_belief_are_as_stated():
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 1.0], [2.0, -1.0]]])
    instruction = torch.tensor([[[1.0, 0.0]]])
    belief = torch.tensor([1.0, 3.0, 2.0]).softmax(dim=0)
    for weight, places in (("rank", [2, 0, 1]), ("released", [1, 2, 0])):  # the token at rank 0 is number 1, then 2, 0
        wanted = (belief + torch.tensor([1 / (p + 1) ** 0.5 for p in places]))[:, None] * tokens[0]
        torch.testing.assert_close(weighed_by_belief(tokens, instruction, weight, "none")[0], wanted)
    weighed = weighed_by_belief(tokens, instruction, "belief", "none")
    torch.testing.assert_close(weighed[0], belief[:, None] * tokens[0])
    for norm, dim in (("tokens", 1), ("channels", 2)):
        lengths = weighed_by_belief(tokens, instruction, "belief", norm).norm(dim=dim)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


# ---- losses ----


def features(count):
    return (torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))


def test_the_sigmoid_loss_is_open_clips():
    v, t = (torch.nn.functional.normalize(x, dim=1) for x in features(6))
    theirs = SigLipLoss()(v, t, torch.tensor(9.0), torch.tensor(-10.0))
    torch.testing.assert_close(sigmoid_loss(v, t, 1 / 9, torch.tensor(-10.0)), theirs)
    idx = torch.tensor([0, 0, 1, 2, 3, 4])  # two captions of one picture are both its own
    assert sigmoid_loss(v, t, 1 / 9, torch.tensor(-10.0), idx) != theirs


def sigmoid_of_a_share():
    v, t = features(6)
    bias = torch.tensor(-3.0, requires_grad=True)
    own = slice(0, 3) if rank() == 0 else slice(3, 6)
    v = v[own].requires_grad_()
    loss = sigmoid_loss(v, t[own], 1 / 2, bias, gather_grad="full")
    loss.backward()
    return loss.detach(), v.grad, bias.grad


def test_two_processes_have_the_sigmoid_loss_of_the_whole_batch():
    v, t = features(6)
    v, bias = v.requires_grad_(), torch.tensor(-3.0, requires_grad=True)
    loss = sigmoid_loss(v, t, 1 / 2, bias)
    loss.backward()
    shares = run_on_processes(2, sigmoid_of_a_share)
    for got, _, of_bias in shares:
        torch.testing.assert_close(got, loss.detach())
        torch.testing.assert_close(of_bias, bias.grad)
    # The mean that DistributedDataParallel takes is that of the whole.
    torch.testing.assert_close(torch.cat([grad for _, grad, _ in shares]) / 2, v.grad)


def test_the_temperature_is_logit_scale_within_its_bounds(tmp_path):
    model = built(clip_config(tmp_path, "vit"))
    torch.testing.assert_close(model.temperatures()[0], torch.tensor(0.07))
    with torch.no_grad():
        model.clip.logit_scale.fill_(9)
    temp, _ = model.temperatures()
    torch.testing.assert_close(temp, torch.tensor(0.01))
    temp.backward()
    assert model.clip.logit_scale.grad.abs() > 0


# ---- what is fixed ----


@pytest.mark.parametrize("frozen", (["vision"], ["text"], ["vision", "text"]))
def test_frozen_towers_are_not_trained(tmp_path, kind, frozen):
    model = built(clip_config(tmp_path, kind, freeze=frozen))
    text = [n for n, p in model.clip.named_parameters() if p.requires_grad and not n.startswith(("visual.", "logit_"))]
    vision = [n for n, p in model.clip.visual.named_parameters() if p.requires_grad]
    assert (not text, not vision) == ("text" in frozen, "vision" in frozen)
    assert model.clip.logit_scale.requires_grad


def test_priorclip_with_a_frozen_prior_keeps_its_running_statistics(tmp_path):
    prior = f"clip:{clip_config(tmp_path, 'resnet').clip_model}"
    given = {"is_baseline": False, "instruct": "before_blocks", "prior_backbone": prior}
    images = torch.rand(2, 3, 64, 64)
    for frozen in (True, False):
        model = build_model(clip_config(tmp_path, "vit", **given, freeze=["prior"] if frozen else [])).train()
        before = model.res_visual.bn1.running_mean.clone()
        model.encode_image(images)
        assert torch.equal(before, model.res_visual.bn1.running_mean) == frozen
        assert model.res_visual.conv1.weight.requires_grad != frozen


# ---- configs ----


def test_sizes_and_tokens_follow_the_model():
    config = config_from_file("configs/Retrieval_rsicd_clip.yaml", ["clip_model=ViT-L-14-336", "clip_start=null"])
    assert (config.image_res, config.embed_dim, config.max_tokens) == (336, 768, 77)
    assert config.text_config == {"vocab_size": 49408, "max_position_embeddings": 77}
    config = config_from_file("configs/Retrieval_rsicd_clip.yaml", ["clip_model=ViT-B-16-SigLIP"])
    assert (config.contrastive, config.max_tokens, config.text_config["vocab_size"]) == ("sigmoid", 64, 32000)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_model": "ViT-B-33"}, "ViT-B-32"),
        ({"clip_model": "nowhere.json"}, "no such file"),
        ({"embed_dim": 64}, "'embed_dim' 64 is not the 32"),
        ({"text_encoder": "data/bert"}, "clip_start"),
        ({"contrastive": "sigmoid"}, "SigLIP"),
        ({"use_tel": True, "is_baseline": False}, "use_tel"),
        ({"instruct": "before_blocks"}, "clip:RN50"),
        ({"is_baseline": False, "filter_size": 40, "prior_backbone": "test_convnext"}, "5 picture tokens"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as raised:
        build_model(clip_config(tmp_path, "vit", **changes))
    assert "\n" not in str(raised.value)


def test_before_blocks_without_a_pair_is_one_line(tiny_config):
    with pytest.raises(InputError, match="name one with 'clip_model'"):
        tiny_config(instruct="before_blocks")


def test_a_damaged_description_is_one_line(tmp_path):
    broken = clip_config(tmp_path, "vit").clip_model
    for content, said in (("{}", "lacks vision_cfg"), ("[", "JSON"), (None, "cannot be built")):
        sizes = {"embed_dim": 32, "vision_cfg": {"width": -1}, "text_cfg": {}}
        with open(broken, "w", encoding="utf-8") as file:
            file.write(json.dumps(sizes) if content is None else content)
        with pytest.raises(InputError, match=said):
            build_model(config_from_file("configs/Retrieval_rsicd_clip.yaml", [f"clip_model={broken}"]))


def test_an_average_of_weights_leaves_the_mask_of_the_text_tower(tmp_path, ids):
    model = build_model(clip_config(tmp_path, "vit"))
    average = averaged(model, 0.9)
    average.update_parameters(model)
    average.update_parameters(model)
    with torch.no_grad():
        torch.testing.assert_close(average.module.eval().encode_text(ids), model.eval().encode_text(ids))
