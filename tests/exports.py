"""A tiny trained model as a run leaves it, for what is exported of it."""

from dataset.drawn.scenes import vocabulary
from models.released import released_state_dict
from tests.tiny import tiny_config, tiny_model
from utils.checkpoint import save_checkpoint
from utils.typed import write_yaml

TEXT_SIZES = {"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TEXT_SIZES |= {"num_hidden_layers": 1, "max_position_embeddings": 64, "vocab_size": 512}


def tiny_run(folder, **changes):
    """A run's folder: config, weights and, beside them, the vocabulary that the config names."""
    words = folder / "words"
    words.mkdir()
    (words / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    options = {
        "text_config": TEXT_SIZES,
        "mask_padding": True,
        "precision": "float32",
        "prior_backbone": "resnet10t",
    } | changes
    config = tiny_config(folder, tokenizer=str(words), **options)
    save_checkpoint(folder / "checkpoint_best.pth", released_state_dict(tiny_model(config)), config.to_dict())
    write_yaml(config.to_dict(), folder / "config.yaml")
    return folder
