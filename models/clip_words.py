"""Which tokenizer a CLIP tower pair takes."""

from transformers import PreTrainedTokenizerBase

from dataset.clip_tokenizer import clip_tokenizer, whole_context
from models.embedder import tokenizer_in
from utils.config import Config


def words_of_pair(config: Config, *, download: bool) -> PreTrainedTokenizerBase:
    """CLIP's own, or the config's `tokenizer`, or what open_clip's description of the model names on the hub."""
    description = config.clip_config
    named = description["text_cfg"].get("hf_tokenizer_name")
    folder = config.tokenizer or (named and f"hf:{named}")
    words = tokenizer_in(folder, config.text_config["vocab_size"], download=download) if folder else clip_tokenizer()
    context = config.text_config["max_position_embeddings"]
    return whole_context(words, context) if description.get("custom_text") else words
