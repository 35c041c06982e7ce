"""A config to the model it describes."""

from models.backbones import bert_like, swin, timm_backbone, vit_small
from models.encoders import InstructionEncoder, TextEncoder, VisionEncoder
from models.pir import PIR, check_filter
from models.retrieval import RetrievalModel
from utils.config import Config


def build_model(config: Config) -> RetrievalModel:
    """The model of a config, random weights; start files and checkpoints are loaded afterwards.

    Raises InputError where sizes do not fit each other, or timm, transformers or open_clip do not know a name.
    """
    if config.clip_model:
        from models.clip import build_clip  # brings open_clip

        return build_clip(config)
    return build_pir(config)


def build_pir(config: Config) -> PIR:
    """PIR with the config's encoders; as `build_model`."""
    c, sizes = config, config.vision_config
    if sizes.backbone:
        backbone = timm_backbone(sizes.backbone, image_res=c.image_res, pooled=False)
    elif c.use_swin:
        backbone = swin(
            c.image_res, sizes.patch_size, sizes.window_size, sizes.embed_dim, sizes.depths, sizes.num_heads
        )
    else:
        backbone = vit_small(c.image_res, c.patch_size)
    vision_encoder = VisionEncoder(
        backbone,
        own_normalisation=sizes.backbone is not None,
        trained_stages=c.vision_trained_stages,
        fixed_bn=c.vision_fixed_bn,
    )
    if sizes.backbone:
        from models.freezing import freeze_unreached  # for backbones that are not known here

        check_filter(c, freeze_unreached(vision_encoder, c.image_res))
    instruction_encoder = None
    if c.has_vir:
        instruction_encoder = InstructionEncoder(
            timm_backbone(c.prior_backbone, image_res=c.image_res, pooled=True),
            finetune=c.finetune_conv and "prior" not in c.freeze,
            batch_stats=c.prior_batch_stats,
            own_normalisation=c.prior_normalisation == "own",
        )
    text_backbone = bert_like(c.text_config)
    if c.checkpoint_activations:
        backbone.set_grad_checkpointing()
        text_backbone.activation_checkpointing_enable({"use_reentrant": False})
    if c.text_trained_layers is not None:
        from models.freezing import freeze_all_but_last_layers  # for those who fix a part

        freeze_all_but_last_layers(text_backbone, c.text_trained_layers)
    text_encoder = TextEncoder(text_backbone, mask_padding=c.mask_padding, summary=c.text_summary)
    model = PIR(vision_encoder, instruction_encoder, text_encoder, c)
    for name in {"vision", "text"}.intersection(c.freeze):
        model.fix_tower(name)
    if instruction_encoder and sizes.backbone == c.prior_backbone:
        from models.common_stages import CommonStages  # for those who may have some

        model.common_stages = CommonStages()
    if c.optimizer.lr_mult_heads:
        encoders = ("vision_encoder.", "text_encoder.", "instruction_encoder.")
        model.init_params = [name for name, _ in model.named_parameters() if not name.startswith(encoders)]
    return model
