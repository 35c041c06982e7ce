"""PIR: what an embedding is made of, and what each switch of the model changes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from models import baselines, build_model, retrieval
from models.baselines import triplet_loss
from models.heads import most_believed
from models.losses import affiliation_loss, contrastive_loss
from tests.processes import run_on_processes
from tests.tiny import captions, pictures, tiny_model, without_dropout
from tests.tiny import tiny_config as tiny_config_in
from utils import processes
from utils.errors import InputError

LABEL, IDX = torch.tensor([0, 1, 0, 2]), torch.tensor([5, 5, 7, 9])


# Every choice of modules: what differs from the small PIR.
MODULES = {
    "pir": {},
    "without vir": {"use_vir": False},
    "without lca": {"use_lca": False},
    "neither": {"use_vir": False, "use_lca": False},
    "baseline": {"is_baseline": True},
    "tel": {"use_tel": True},
    "no cycle": {"lca_cycle": False},
    "no cycle without vir": {"lca_cycle": False, "use_vir": False},
}
CHOICES = pytest.mark.parametrize("modules", MODULES.values(), ids=MODULES)


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
        caption = baseline.text_proj(baseline.text_encoder(ids)[0][:, 0])
        torch.testing.assert_close(baseline.encode_image(images), F.normalize(picture, dim=1))
        torch.testing.assert_close(baseline.encode_text(ids), F.normalize(caption, dim=1))


def test_a_captions_summary_can_be_the_mean_of_its_tokens_without_padding(tiny_config, ids):
    baseline = tiny_model(tiny_config(is_baseline=True, text_summary="mean", mask_padding=True))
    padded, mask = F.pad(ids, (0, 3)), F.pad(torch.ones_like(ids), (0, 3))
    with torch.no_grad():
        tokens = baseline.text_proj(baseline.text_encoder(ids, torch.ones_like(ids))[0])  # [B, L, D]
        wanted = F.normalize(tokens.mean(dim=1), dim=1)
        torch.testing.assert_close(baseline.encode_text(padded, mask), wanted)


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


# ---- modules on and off ----


def summaries(model, images, ids):
    """The projected first tokens of pictures and captions, which every embedding builds on."""
    picture = model.vision_proj(model.vision_encoder(images)[:, 0])
    return picture, model.text_proj(model.text_encoder(ids)[0][:, 0])


def test_a_side_without_its_module_is_its_summary_and_the_other_is_as_before(tiny_config, model, images, ids):
    without_vir, without_lca = (tiny_model(tiny_config(**{key: False})) for key in ("use_vir", "use_lca"))
    assert not any("conv" in n or "instruction" in n for n in without_vir.state_dict())
    assert not any("cycle" in n for n in without_lca.state_dict())
    with torch.no_grad():
        picture, caption = summaries(model, images, ids)
        torch.testing.assert_close(without_vir.encode_image(images), F.normalize(picture, dim=1))
        torch.testing.assert_close(without_lca.encode_text(ids), F.normalize(caption, dim=1))
        torch.testing.assert_close(without_vir.encode_text(ids), model.encode_text(ids))
        torch.testing.assert_close(without_lca.encode_image(images), model.encode_image(images))


@pytest.mark.parametrize("values", ({"use_vir": False, "use_lca": False}, {"is_baseline": True, "use_lca": False}))
def test_both_modules_off_are_the_baseline(tiny_config, images, ids, values):
    baseline, same = tiny_model(tiny_config(is_baseline=True)), tiny_model(tiny_config(**values))
    assert same.state_dict().keys() == baseline.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(same.encode_image(images), baseline.encode_image(images))
        assert torch.equal(same.encode_text(ids), baseline.encode_text(ids))


@pytest.mark.parametrize("ignored", ({}, {"use_vir": False, "use_lca": False}))
def test_tel_adds_what_one_plain_encoder_layer_makes_of_the_tokens(tiny_config, images, ids, ignored):
    model = tiny_model(tiny_config(use_tel=True, **ignored))
    assert not any("conv" in n or "instruction" in n or "cycle" in n for n in model.state_dict())
    sides = (
        (model.vision_layer, model.vision_proj(model.vision_encoder(images)), model.encode_image(images)),
        (model.text_layer, model.text_proj(model.text_encoder(ids)[0]), model.encode_text(ids)),
    )
    for branch, tokens, embeds in sides:
        wanted = tokens[:, 0] + branch.head(post_norm_layer(branch.layer, tokens)[:, 0])
        torch.testing.assert_close(embeds, F.normalize(wanted, dim=1))
        assert not torch.allclose(embeds, F.normalize(tokens[:, 0], dim=1), atol=1e-2)


def post_norm_layer(layer, x):
    """Attention is All You Need's encoder layer, written out."""
    attended, _ = layer.self_attn(x, x, x, need_weights=False)
    x = layer.norm1(x + attended)
    return layer.norm2(x + layer.linear2(F.relu(layer.linear1(x))))


def test_a_tel_looks_at_no_padding_with_mask_padding(tiny_config, ids):
    model = tiny_model(tiny_config(use_tel=True, mask_padding=True))
    with torch.no_grad():
        torch.testing.assert_close(model.encode_text(padded(ids)), model.encode_text(ids), atol=1e-6, rtol=0)


def test_without_its_cycle_lca_is_queried_by_its_own_attended_tokens(tiny_config, model, ids):
    plain = tiny_model(tiny_config(lca_cycle=False))
    assert plain.state_dict().keys() == model.state_dict().keys()
    cycle = plain.language_cycle
    with torch.no_grad():
        assert not torch.allclose(plain.encode_text(ids), model.encode_text(ids), atol=1e-3)
        start = tokens = plain.text_proj(plain.text_encoder(ids)[0])
        for mapping, attend, cross in zip(cycle.mapping, cycle.self_attention, cycle.cross_attention, strict=True):
            attended = attend(tokens, tokens)
            tokens = cross(attended, query=mapping(attended))
        wanted = start[:, 0] + cycle.head(tokens[:, 0])
        torch.testing.assert_close(plain.encode_text(ids), F.normalize(wanted, dim=1))


@CHOICES
@pytest.mark.parametrize("tuned", (False, True), ids=("frozen prior", "tuned prior"))
def test_every_trained_parameter_gets_a_gradient(tiny_config, images, ids, modules, tuned):
    """DistributedDataParallel waits for all of them, for ever or with an error."""
    model = tiny_model(tiny_config(finetune_conv=tuned, prior_backbone="resnet10t", **modules))
    model(images, ids, idx=IDX, label=LABEL)["loss"].backward()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) > 50 and {"temp", "temp2"} <= set(trained)
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def parallel_losses(folder):
    """The loss of a second step in parallel of every choice of modules: torch tells there of unused parameters."""
    own = Path(folder) / str(processes.rank())
    own.mkdir()
    given, second = (pictures(4, 112), captions(4, 12)), {}
    for name, modules in MODULES.items():
        torch.manual_seed(0)
        model = without_dropout(build_model(tiny_config_in(own, prior_backbone="resnet10t", **modules)))
        parallel = DistributedDataParallel(model)
        for _ in range(2):
            loss = parallel(*given, idx=IDX, label=LABEL)["loss"]
            loss.backward()
        second[name] = loss.detach()
    return second


def test_two_processes_train_every_choice_of_modules_in_parallel(tmp_path):
    one, other = run_on_processes(2, parallel_losses, str(tmp_path))
    assert one.keys() == other.keys() == MODULES.keys()
    assert all(torch.equal(one[name], other[name]) and one[name].isfinite() for name in MODULES)


@CHOICES
def test_heads_that_start_at_zero_leave_the_summary_alone(tiny_config, images, ids, modules):
    torch.manual_seed(0)
    model = build_model(tiny_config(zero_init_heads=True, **modules)).eval()
    with torch.no_grad():
        picture, caption = summaries(model, images, ids)
        torch.testing.assert_close(model.encode_image(images), F.normalize(picture, dim=1))
        torch.testing.assert_close(model.encode_text(ids), F.normalize(caption, dim=1))


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
        assert losses.keys() == {"loss_contr", "loss_affil", "loss"}
        torch.testing.assert_close(losses["loss_contr"], contrastive_loss(v, t, 0.07, IDX))
        torch.testing.assert_close(losses["loss_affil"], affiliation_loss(v, t, LABEL, 0.07))

        triplet = tiny_model(tiny_config(use_affil_loss=False, use_triplet_loss=True))
        assert triplet(images, ids).keys() == {"loss_triplet", "loss"}
        torch.testing.assert_close(triplet(images, ids)["loss_triplet"], triplet_loss(v, t))
        contrastive = tiny_model(tiny_config(use_affil_loss=False))
        alone = dict.fromkeys(("loss_contr", "loss"), losses["loss_contr"])
        torch.testing.assert_close(contrastive(images, ids, idx=IDX), alone)


def test_the_loss_to_minimise_is_what_the_config_says(tiny_config, images, ids):
    affiliation, contrastive, triplet = (
        tiny_model(tiny_config(is_baseline=True, **values))
        for values in (
            {"center_factor": 10},
            {"use_affil_loss": False},
            {"use_affil_loss": False, "use_triplet_loss": True},
        )
    )
    with torch.no_grad():
        both = affiliation(images, ids, idx=IDX, label=LABEL)
        assert both["loss"] == both["loss_contr"] + 10 * both["loss_affil"]
        alone = contrastive(images, ids, idx=IDX)
        assert alone["loss"] == alone["loss_contr"] == both["loss_contr"]
        assert triplet(images, ids)["loss"] == triplet(images, ids)["loss_triplet"]


def test_max_violation_takes_the_hardest_alone(tiny_config, images, ids):
    losses = {"use_affil_loss": False, "use_triplet_loss": True}
    model = tiny_model(tiny_config(is_baseline=True, max_violation=True, **losses))
    with torch.no_grad():
        v, t = model.encode_image(images), model.encode_text(ids)
        torch.testing.assert_close(model(images, ids)["loss"], triplet_loss(v, t, hardest=True))


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

    def recorded(*_, **options):
        given.append(options)
        return torch.tensor(0.0)

    monkeypatch.setattr(retrieval, "contrastive_loss", recorded)
    monkeypatch.setattr(retrieval, "affiliation_loss", recorded)
    monkeypatch.setattr(baselines, "triplet_loss", recorded)
    switches = {
        "gather_grad": "full",
        "center_scope": "global",
        "center_choice": "center",
        "same_class_negatives": False,
    }
    for values in (switches, {}, {"gather_grad": "full", "use_affil_loss": False, "use_triplet_loss": True}):
        tiny_model(tiny_config(is_baseline=True, **values))(images, ids, idx=IDX, label=LABEL)
    released = {
        "gather_grad": "local",
        "center_scope": "process",
        "center_choice": "caption",
        "same_class_negatives": True,
    }
    full, local = {"gather_grad": "full"}, {"gather_grad": "local"}
    assert given == [full, switches, local, released, full | {"hardest": False}]


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
