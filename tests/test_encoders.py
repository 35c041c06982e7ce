"""The three encoders: what they give, what stays frozen, what they say of a wrong name."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from models.backbones import (
    bert_like,
    keep_depthwise_in_float32,
    swin,
    timm_backbone,
    vit_small,
)
from models.encoders import PICTURE_MEAN, PICTURE_STD, InstructionEncoder, TextEncoder, VisionEncoder, normalise
from models.freezing import freeze_all_but_last_layers
from tests.tiny import TEXT, captions, pictures, uniform, without_dropout
from utils.config import usual_normalisation
from utils.errors import InputError


@pytest.fixture(scope="module")
def images():
    return pictures(3, 64)


@pytest.fixture(scope="module")
def small_swin():
    torch.manual_seed(0)
    return VisionEncoder(swin(64, 4, 4, 16, (2, 2), (1, 2))).eval()


# ---- pictures ----


def test_swin_gives_the_mean_then_its_tokens_row_by_row(small_swin, images):
    with torch.no_grad():
        tokens = small_swin(images)
        grid = small_swin.backbone.forward_features(images)  # [B, 8, 8, 32]
    assert tokens.shape == (3, 65, 32) and small_swin.width == 32
    torch.testing.assert_close(tokens[:, 1:], grid.reshape(3, 64, 32))
    torch.testing.assert_close(tokens[:, 0], grid.reshape(3, 64, 32).mean(dim=1))


def test_swin_has_the_released_drop_path_and_bias(small_swin):
    rates = [m.drop_prob for m in small_swin.modules() if isinstance(m, timm.layers.DropPath)]
    assert max(rates) == pytest.approx(0.1) and min(rates) < 0.1
    assert small_swin.backbone.layers[0].blocks[0].attn.qkv.bias is not None


def test_swins_attention_is_one_call_but_in_training_with_the_same_tokens(images, monkeypatch):
    encoder, calls = without_dropout(VisionEncoder(swin(64, 4, 4, 16, (2, 2), (1, 2)))), []
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **o: calls.append(1) or attend(*a, **o))
    with torch.no_grad():
        one_call = encoder.eval()(images)
        assert len(calls) == 4  # blocks
        in_steps = encoder.train()(images)
    assert len(calls) == 4
    torch.testing.assert_close(one_call, in_steps, atol=1e-5, rtol=1e-4)


def test_vit_gives_its_class_token_first_and_has_twelve_heads(images):
    backbone = vit_small(64, 32)
    encoder = VisionEncoder(backbone).eval()
    with torch.no_grad():
        tokens = encoder(images)
    assert tokens.shape == (3, 5, 384) and encoder.width == 384
    torch.testing.assert_close(tokens, backbone.forward_features(images))
    assert [block.attn.num_heads for block in backbone.blocks] == [12] * 12
    assert backbone.norm.eps == 1e-6


def test_a_convolution_gives_the_mean_then_its_cells(images):
    encoder = VisionEncoder(timm_backbone("resnet18", image_res=64, pooled=False)).eval()
    with torch.no_grad():
        tokens, cells = encoder(images), encoder.backbone.forward_features(images)  # [B, 512, 2, 2]
    assert tokens.shape == (3, 5, 512)
    torch.testing.assert_close(tokens[:, 2], cells[:, :, 0, 1])
    torch.testing.assert_close(tokens[:, 0], cells.mean(dim=(2, 3)))


def test_register_tokens_are_left_out(images):
    backbone = timm_backbone("vit_small_patch16_dinov3", image_res=64, pooled=False)
    encoder = VisionEncoder(backbone).eval()
    with torch.no_grad():
        tokens, everything = encoder(images), backbone.forward_features(images)
    assert backbone.num_prefix_tokens == 5 and tokens.shape[1] == 1 + 16
    torch.testing.assert_close(tokens, everything[:, [0, *range(5, 21)]])


def test_a_timm_backbone_sees_the_normalisation_it_was_trained_with():
    raw = (128 * (uniform("raw", (2, 3, 8, 8)) + 1)).to(torch.uint8)
    backbone = timm_backbone("resnet18", image_res=64, pooled=False)
    mean, std = (torch.tensor(backbone.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    own = VisionEncoder(backbone, own_normalisation=True).prepared(normalise(raw))
    torch.testing.assert_close(own, (raw / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert torch.equal(VisionEncoder(backbone).prepared(normalise(raw)), normalise(raw))


def test_only_the_last_stages_are_trained_when_told():
    backbone = timm_backbone("resnet18", image_res=64, pooled=False)
    VisionEncoder(backbone, trained_stages=2)
    trained = {name.partition(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer3", "layer4"}
    for stages in (0, 7):
        with pytest.raises(InputError, match=f"{stages} trained stages: the picture encoder has 5 stages"):
            VisionEncoder(backbone, trained_stages=stages)


@pytest.mark.parametrize("fixed", (True, False))
def test_fixed_batch_norm_keeps_its_statistics_in_training(images, fixed):
    encoder = VisionEncoder(timm_backbone("resnet18", image_res=64, pooled=False), fixed_bn=fixed).train()
    assert encoder.training and encoder.backbone.layer1.training
    before = encoder.backbone.bn1.running_mean.clone()
    encoder(images)
    assert torch.equal(encoder.backbone.bn1.running_mean, before) == fixed


def test_depthwise_convolutions_stay_in_float32_and_others_do_not(images):
    encoder = VisionEncoder(timm_backbone("mobilenetv3_small_050", image_res=64, pooled=False)).train()
    kinds = {}
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            depthwise = module.groups == module.in_channels > 1
            module.register_forward_hook(lambda m, i, out, d=depthwise: kinds.setdefault(d, set()).add(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(images)
        assert torch.is_autocast_enabled("cpu")
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
    assert not torch.is_autocast_enabled("cpu")


def test_an_unknown_timm_name_is_told_with_near_ones():
    with pytest.raises(InputError, match=r"timm has no model 'convnext_tinny'; near it: [^\n]*convnext_"):
        timm_backbone("convnext_tinny", image_res=64, pooled=True)
    with pytest.raises(InputError, match=r"timm has no model 'zzz'$"):
        timm_backbone("zzz", image_res=64, pooled=True)


# ---- the prior ----


def prior(**options):
    torch.manual_seed(0)
    return InstructionEncoder(timm_backbone("resnet18", image_res=64, pooled=True), **options)


def test_the_prior_pools_and_a_frozen_one_gets_no_gradient(images):
    frozen = prior(finetune=False, batch_stats=True).train()
    leaf = images.clone().requires_grad_()
    pooled = frozen(leaf)
    assert pooled.shape == (3, frozen.width) == (3, 512)
    assert not pooled.requires_grad and not any(p.requires_grad for p in frozen.parameters())


def test_a_fine_tuned_prior_gets_gradient_and_batch_statistics(images):
    tuned = prior(finetune=True, batch_stats=False).train()
    before = tuned.backbone.bn1.running_mean.clone()
    tuned(images).sum().backward()
    assert all(p.grad is not None for p in tuned.parameters())
    assert not torch.equal(tuned.backbone.bn1.running_mean, before)
    with torch.no_grad():
        assert not tuned(images).requires_grad


@pytest.mark.parametrize("batch_stats", (True, False))
def test_a_frozen_priors_statistics_drift_only_as_released(images, batch_stats):
    frozen = prior(finetune=False, batch_stats=batch_stats).train()
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    together, alone = frozen(images)[:1], frozen(images[:1])
    drifted = [name for name, buffer in frozen.named_buffers() if not torch.equal(buffer, before[name])]
    assert bool(drifted) == batch_stats
    # With batch statistics a picture's prior depends on the pictures beside it.
    assert torch.allclose(together, alone, atol=1e-5) != batch_stats
    frozen.eval()
    after = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    frozen(images)
    assert all(torch.equal(buffer, after[name]) for name, buffer in frozen.named_buffers())


# Small members of the families that the instruction encoder is chosen from, made as timm makes the published sizes.
FAMILIES = {
    "resnet": lambda: ResNet(Bottleneck, [1, 1, 1, 1], channels=(8, 8, 16, 16), num_classes=0),
    "vgg_bn": lambda: VGG([8, "M", 16, "M"], num_classes=0, mlp_ratio=1 / 64, norm_layer=nn.BatchNorm2d),
    "vit": lambda: VisionTransformer(img_size=64, embed_dim=24, depth=2, num_heads=2, num_classes=0),
    "swin": lambda: SwinTransformer(
        img_size=64, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2), num_classes=0
    ),
}
PRIORS = (
    ("resnet50", 2048),
    ("resnet50.tv_in1k", 2048),
    ("resnet101.tv_in1k", 2048),
    ("vgg19_bn.tv_in1k", 4096),
    ("deit_small_patch16_224.fb_in1k", 384),
    ("swin_tiny_patch4_window7_224.ms_in1k", 768),
    ("tf_efficientnet_lite0", 1280),
)


@pytest.mark.parametrize(("name", "width"), PRIORS)
def test_a_prior_of_each_name_gives_one_vector_of_its_width(name, width):
    with torch.device("meta"):
        encoder = InstructionEncoder(
            timm_backbone(name, image_res=224, pooled=True),
            finetune=False,
            batch_stats=False,
            own_normalisation=usual_normalisation(name) == "own",
        )
        assert encoder.eval()(torch.zeros(2, 3, 224, 224)).shape == (2, width)
    assert encoder.width == width
    assert encoder.own_normalisation == (name != "resnet50")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_prior_of_each_family_gives_its_pooled_features(images, family):
    torch.manual_seed(0)
    encoder = InstructionEncoder(FAMILIES[family](), finetune=False, batch_stats=False).train()
    leaf, before = images.clone().requires_grad_(), [b.clone() for b in encoder.buffers()]
    pooled = encoder(leaf)
    assert pooled.shape == (3, encoder.width) and not pooled.requires_grad
    backbone = encoder.backbone
    torch.testing.assert_close(pooled, backbone.forward_head(backbone.forward_features(images), pre_logits=True))
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_a_fine_tuned_prior_of_each_family_gets_a_gradient(images, family):
    torch.manual_seed(0)
    encoder = InstructionEncoder(FAMILIES[family](), finetune=True, batch_stats=False).train()
    encoder(images).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", [name for name, _ in PRIORS])
def test_a_prior_sees_the_normalisation_of_its_weights_and_the_released_one_clips(name):
    with torch.device("meta"):
        backbone = timm_backbone(name, image_res=64, pooled=True)
    own = usual_normalisation(name) == "own"
    raw = (128 * (uniform("raw", (2, 3, 8, 8)) + 1)).to(torch.uint8)
    encoder = InstructionEncoder(backbone, finetune=False, batch_stats=False, own_normalisation=own)
    keys = backbone.pretrained_cfg if own else {"mean": PICTURE_MEAN, "std": PICTURE_STD}
    mean, std = (torch.tensor(keys[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(encoder.prepared(normalise(raw)), (raw / 255 - mean) / std, atol=1e-5, rtol=1e-5)


# ---- captions ----


def test_the_text_encoder_gives_a_token_a_word_and_has_no_pooler():
    encoder = bert_like(TEXT).eval()
    assert encoder(captions(2, 10)).last_hidden_state.shape == (2, 10, TEXT["hidden_size"])
    assert not any("pooler" in name for name in encoder.state_dict())
    kindless = {name: value for name, value in TEXT.items() if name != "model_type"}
    assert encoder.config.model_type == bert_like(kindless).config.model_type == "bert"


@pytest.mark.parametrize("summary", ("first", "mean"))
def test_the_text_encoder_gives_tokens_their_mask_and_a_summary(summary):
    encoder = TextEncoder(bert_like(TEXT), mask_padding=True, summary=summary).eval()
    ids = captions(3, 10)
    with torch.no_grad():
        tokens, mask = encoder(ids)
        assert tokens.shape == (3, 10, encoder.width) and torch.equal(mask, ids != 0)
        given, as_given = encoder(ids, (ids != 0).long())
        torch.testing.assert_close(given, tokens)
        assert torch.equal(as_given.bool(), mask)
    for row, attended, summed in zip(tokens, mask, encoder.summary(tokens, mask), strict=True):
        torch.testing.assert_close(summed, row[0] if summary == "first" else row[attended].mean(dim=0))


def test_without_mask_padding_every_token_is_attended_whatever_mask_is_given():
    encoder, ids = TextEncoder(bert_like(TEXT), mask_padding=False, summary="mean").eval(), captions(3, 10)
    with torch.no_grad():
        tokens, mask = encoder(ids, (ids != 0).long())
        assert mask is None and torch.equal(tokens, encoder(ids)[0])
        torch.testing.assert_close(encoder.summary(tokens, None), tokens.mean(dim=1))


def test_the_paddings_embedding_is_trained_as_released():
    """Padding is attended as released, and so learned; transformers would hold its row still."""
    encoder = bert_like(TEXT)
    ids = captions(2, 10)
    assert (ids == 0).any()
    encoder(ids).last_hidden_state[:, 0, 0].sum().backward()
    assert encoder.get_input_embeddings().weight.grad[0].norm() > 0


def test_another_kind_of_text_encoder_is_built_by_its_model_type():
    sizes = {"vocab_size": 200, "dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 2}
    encoder = bert_like({"model_type": "distilbert", **sizes}).eval()
    assert encoder(captions(2, 10)).last_hidden_state.shape == (2, 10, 32)


def test_an_unknown_text_encoder_is_one_line():
    with pytest.raises(InputError, match=r"^text_config: [^\n]*$"):
        bert_like({"model_type": "word2vec"})


def dtypes_of_convolutions(grad: bool) -> dict[str, torch.dtype]:
    """What a pointwise and a depthwise convolution compute in under a CPU's bf16 autocast."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
    keep_depthwise_in_float32(model)
    seen = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.dtype}))
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        model(torch.ones(1, 4, 5, 5))
        seen["after"] = torch.is_autocast_enabled("cpu")
    return seen


def test_only_differentiated_depthwise_convolutions_leave_the_autocast():
    low, full = torch.bfloat16, torch.float32
    assert dtypes_of_convolutions(grad=True) == {"0": low, "1": full, "2": low, "after": True}
    assert dtypes_of_convolutions(grad=False) == {"0": low, "1": low, "2": low, "after": True}


def test_a_depthwise_convolution_that_fails_leaves_the_autocast_as_it_was():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    keep_depthwise_in_float32(conv)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            conv(torch.ones(1, 3, 5, 5))
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("kind", ("bert", "distilbert"))
def test_only_the_last_text_layers_are_trained_when_told(kind):
    sizes = {"n_layers": 2, "n_heads": 4, "dim": 32, "hidden_dim": 64, "vocab_size": 200}
    encoder = bert_like(TEXT if kind == "bert" else {"model_type": kind, **sizes})
    freeze_all_but_last_layers(encoder, 1)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained and trained == {name for name, _ in encoder.named_parameters() if ".layer.1." in name}
    with pytest.raises(InputError, match="text_trained_layers 3: the text encoder has 2 layers"):
        freeze_all_but_last_layers(encoder, 3)
