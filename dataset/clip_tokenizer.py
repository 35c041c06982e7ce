"""The tokenizer of a CLIP tower pair: CLIP's own words, or those of a folder where the model has others (SigLIP)."""

from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from dataset.tokenizer import PAD_TO


def clip_tokenizer() -> PreTrainedTokenizerBase:
    """OpenAI's byte pairs as open_clip brings them; a text is padded with its end, the highest number, as it ends."""
    published = SimpleTokenizer()
    ids = dict(published.encoder)
    ids |= {"<|startoftext|>": ids.pop("<start_of_text>"), "<|endoftext|>": ids.pop("<end_of_text>")}
    return CLIPTokenizer(vocab=ids, merges=list(published.bpe_ranks))


def whole_context(tokenizer: PreTrainedTokenizerBase, context: int) -> PreTrainedTokenizerBase:
    """The same tokenizer, for a text tower that takes only texts padded to its context."""
    setattr(tokenizer, PAD_TO, context)
    return tokenizer
