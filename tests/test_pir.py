"""PIR: what an embedding is made of, and what each switch of the model changes."""

import pytest
import torch
import torch.nn.functional as F

from models import build_model, pir
from models.losses import affiliation_loss, contrastive_loss, triplet_loss
from models.vision_instruction import most_believed
from tests.tiny import captions, pictures, tiny_model, without_dropout
from utils.errors import InputError

LABEL, IDX = torch.tensor([0, 1, 0, 2]), torch.tensor([5, 5, 7, 9])


@pytest.fixture(scope="module")
def images():
    return pictures(4, 112)


@pytest.fixture(scope="module")
def ids():
    return captions(4, 12)


@pytest.fixture(scope="module")
def model(tiny_config):
    return tiny_model(tiny_config())


# ---- embeddings ----


def test_embeddings_are_of_unit_length(model, images, ids):
    with torch.no_grad():
        for embeds in (model.encode_image(images), model.encode_text(ids)):
            assert embeds.shape == (4, 32) and embeds.dtype == torch.float32
            torch.testing.assert_close(embeds.norm(dim=1), torch.ones(4))
            assert (embeds @ embeds.T).fill_diagonal_(0).max() < 0.99  # and the inputs are told apart


def test_a_baseline_is_the_projected_first_token(tiny_config, images, ids):
    baseline = tiny_model(tiny_config(is_baseline=True))
    assert not any("instruction" in name or "cycle" in name for name in baseline.state_dict())
    with torch.no_grad():
        picture = baseline.vision_proj(baseline.vision_encoder(images)[:, 0])
        caption = baseline.text_proj(baseline.text_encoder(ids).last_hidden_state[:, 0])
        torch.testing.assert_close(baseline.encode_image(images), F.normalize(picture, dim=1))
        torch.testing.assert_close(baseline.encode_text(ids), F.normalize(caption, dim=1))


def test_a_captions_summary_can_be_the_mean_of_its_tokens_without_padding(tiny_config, ids):
    baseline = tiny_model(tiny_config(is_baseline=True, text_summary="mean", mask_padding=True))
    padded, mask = F.pad(ids, (0, 3)), F.pad(torch.ones_like(ids), (0, 3))
    with torch.no_grad():
        tokens = baseline.text_proj(baseline.text_encoder(ids).last_hidden_state)  # [B, L, D]
        wanted = F.normalize(tokens.mean(dim=1), dim=1)
        torch.testing.assert_close(baseline.encode_text(padded, mask), wanted)


def test_heads_that_start_at_zero_leave_the_summary_alone(tiny_config, images, ids):
    torch.manual_seed(0)
    model = build_model(tiny_config(zero_init_heads=True)).eval()
    with torch.no_grad():
        picture = model.vision_proj(model.vision_encoder(images)[:, 0])
        caption = model.text_proj(model.text_encoder(ids).last_hidden_state[:, 0])
        torch.testing.assert_close(model.encode_image(images), F.normalize(picture, dim=1))
        torch.testing.assert_close(model.encode_text(ids), F.normalize(caption, dim=1))


def test_the_filter_keeps_the_tokens_nearest_the_instruction_in_falling_order():
    torch.manual_seed(0)
    tokens, instruction = torch.randn(3, 9, 4), torch.randn(3, 1, 4)
    kept = most_believed(tokens, instruction, 5)
    for row, all_tokens, wanted in zip(kept, tokens, instruction, strict=True):
        order = sorted(range(9), key=lambda i: -float(all_tokens[i] @ wanted[0]))
        assert torch.equal(row, all_tokens[order[:5]])


def test_tokens_of_a_vit_past_fifty_are_unused(tiny_config):
    model = tiny_model(tiny_config(use_swin=False, image_res=128, patch_size=16))
    images = pictures(2, 128)
    with torch.no_grad():
        tokens = model.vision_encoder(images)
        assert tokens.shape[1] == 65
        embeds = model.encode_image(images)
        for first, same in ((50, True), (49, False)):
            changed = tokens.clone()
            changed[:, first:] *= -3
            hook = model.vision_encoder.register_forward_hook(lambda *_, out=changed: out)
            assert torch.equal(model.encode_image(images), embeds) == same
            hook.remove()


def test_dropout_acts_in_training_only(model, images, ids):
    with torch.no_grad():
        assert torch.equal(model.encode_text(ids), model.encode_text(ids))
        model.language_cycle.train()
        try:
            assert not torch.equal(model.encode_text(ids), model.encode_text(ids))
        finally:
            model.eval()


@pytest.mark.parametrize("rate", (0.0, 0.5))
def test_dropout_r_is_the_units_dropout(tiny_config, ids, rate):
    model = build_model(tiny_config(dropout_r=rate))
    model.eval().language_cycle.train()
    with torch.no_grad():
        assert torch.equal(model.encode_text(ids), model.encode_text(ids)) == (rate == 0)


def test_a_timm_backbone_with_fewer_tokens_than_the_filter_keeps_is_refused(tiny_config, tmp_path):
    sizes = tmp_path / "vision.json"
    sizes.write_text('{"backbone": "resnet18"}')
    config = tiny_config(vision_config=str(sizes), filter_size=18)  # 112 / 32: 4 x 4 cells and their mean
    with pytest.raises(InputError, match="'filter_size' 18 is over the 17 picture tokens"):
        build_model(config)
    build_model(tiny_config(vision_config=str(sizes), filter_size=17))


# ---- mask_padding ----


def padded(ids):
    return F.pad(ids, (0, 6))


@pytest.mark.parametrize("baseline", (True, False), ids=("baseline", "pir"))
def test_with_mask_padding_an_embedding_does_not_depend_on_its_padding(tiny_config, ids, baseline):
    model = tiny_model(tiny_config(mask_padding=True, is_baseline=baseline))
    with torch.no_grad():
        embeds = model.encode_text(ids)
        torch.testing.assert_close(model.encode_text(padded(ids)), embeds, atol=1e-6, rtol=0)
        torch.testing.assert_close(model.encode_text(ids, (ids != 0).long()), embeds)
        for row, caption in zip(embeds, ids, strict=True):
            torch.testing.assert_close(model.encode_text(caption[None, caption != 0])[0], row, atol=1e-6, rtol=0)
        # A mask that is given counts, not what the padding's id would say.
        assert not torch.allclose(model.encode_text(ids, torch.ones_like(ids)), embeds, atol=1e-3)


def test_as_released_padding_is_attended_and_a_mask_is_not_looked_at(model, ids):
    with torch.no_grad():
        embeds = model.encode_text(ids)
        assert (model.encode_text(padded(ids)) - embeds).abs().amax(dim=1).min() > 1e-3
        assert torch.equal(model.encode_text(ids, (ids != 0).long()), embeds)


# ---- losses ----


def test_a_batch_gives_the_losses_of_its_embeddings(tiny_config, model, images, ids):
    with torch.no_grad():
        v, t = model.encode_image(images), model.encode_text(ids)
        losses = model(images, ids, idx=IDX, label=LABEL)
        assert losses.keys() == {"loss_contr", "loss_affil"}
        torch.testing.assert_close(losses["loss_contr"], contrastive_loss(v, t, 0.07, IDX))
        torch.testing.assert_close(losses["loss_affil"], affiliation_loss(v, t, LABEL, 0.07))

        triplet = tiny_model(tiny_config(use_affil_loss=False, use_triplet_loss=True))
        assert triplet(images, ids).keys() == {"loss_triplet"}
        torch.testing.assert_close(triplet(images, ids)["loss_triplet"], triplet_loss(v, t))
        contrastive = tiny_model(tiny_config(use_affil_loss=False))
        torch.testing.assert_close(contrastive(images, ids, idx=IDX), {"loss_contr": losses["loss_contr"]})


def test_several_captions_a_picture_give_the_loss_of_repeated_pictures(model, images):
    ids, idx, label = captions(8, 12), IDX.repeat_interleave(2), LABEL.repeat_interleave(2)
    with torch.no_grad():
        shared = model(images, ids, idx=idx, label=label)
        repeated = model(images.repeat_interleave(2, dim=0), ids, idx=idx, label=label)
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=1e-5)


def test_temperatures_start_at_the_configs(tiny_config):
    model = build_model(tiny_config(temp1=0.05, temp2=0.2))
    assert (model.temp.item(), model.temp2.item()) == pytest.approx((0.05, 0.2))


@pytest.mark.parametrize(("start", "held"), ((0.9, 0.5), (-1.0, 0.001), (0.1, 0.1)))
def test_clamp_temp_holds_both_temperatures_in_range(tiny_config, images, ids, start, held):
    for clamp in (True, False):
        model = tiny_model(tiny_config(clamp_temp=clamp, is_baseline=True))
        with torch.no_grad():
            model.temp.fill_(start)
            model.temp2.fill_(start)
            used = held if clamp else start
            v, t = model.encode_image(images), model.encode_text(ids)
            losses = model(images, ids, idx=IDX, label=LABEL)
            torch.testing.assert_close(losses["loss_contr"], contrastive_loss(v, t, used, IDX))
            torch.testing.assert_close(losses["loss_affil"], affiliation_loss(v, t, LABEL, used))
        assert (model.temp.item(), model.temp2.item()) == pytest.approx((used, used))


def test_the_configs_flaw_switches_reach_the_losses(tiny_config, images, ids, monkeypatch):
    given = []
    monkeypatch.setattr(pir, "contrastive_loss", lambda *_, **options: given.append(options))
    monkeypatch.setattr(pir, "affiliation_loss", lambda *_, **options: given.append(options))
    monkeypatch.setattr(pir, "triplet_loss", lambda *_, **options: given.append(options))
    switches = {"gather_grad": "full", "center_scope": "global", "same_class_negatives": False}
    for values in (switches, {}, {"gather_grad": "full", "use_affil_loss": False, "use_triplet_loss": True}):
        tiny_model(tiny_config(is_baseline=True, **values))(images, ids, idx=IDX, label=LABEL)
    released = {"gather_grad": "local", "center_scope": "process", "same_class_negatives": True}
    full, local = {"gather_grad": "full"}, {"gather_grad": "local"}
    assert given == [full, switches, local, released, full]


def test_same_class_negatives_of_the_config_change_the_affiliation_loss(tiny_config, images, ids):
    losses = []
    for kept in (True, False):
        model = tiny_model(tiny_config(same_class_negatives=kept, is_baseline=True))
        with torch.no_grad():
            losses.append(model(images, ids, idx=IDX, label=LABEL))
    assert losses[0]["loss_contr"] == losses[1]["loss_contr"]
    assert losses[0]["loss_affil"] > losses[1]["loss_affil"] + 0.1


@pytest.mark.parametrize("batch_stats", (True, False))
def test_prior_batch_stats_decides_what_training_does_to_the_frozen_prior(tiny_config, images, batch_stats):
    model = without_dropout(tiny_model(tiny_config(prior_batch_stats=batch_stats)))
    before = model.instruction_encoder.backbone.bn1.running_mean.clone()
    with torch.no_grad():
        evaluated = model.encode_image(images)
        trained = model.train().encode_image(images)
    assert torch.equal(model.instruction_encoder.backbone.bn1.running_mean, before) != batch_stats
    assert torch.allclose(trained, evaluated, atol=1e-6) != batch_stats
