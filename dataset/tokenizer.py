"""The WordPiece tokenizer of a folder with a vocabulary."""

from pathlib import Path

from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerBase

from utils.errors import InputError


def load_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a BERT folder: its own kind where it says which, BERT's where only `vocab.txt` is there.

    vocab_size: rows of the text encoder's word embeddings, which the vocabulary must not exceed.
    """
    if not folder.is_dir():
        raise InputError(f"tokenizer: no folder {folder}; put the text encoder's vocab.txt there (README, start files)")
    told = any((folder / name).exists() for name in ("tokenizer_config.json", "tokenizer.json", "config.json"))
    try:
        kind = AutoTokenizer if told else BertTokenizerFast
        tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"tokenizer in {folder} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if len(tokenizer) > vocab_size:
        raise InputError(f"tokenizer in {folder} has {len(tokenizer)} words, the text encoder {vocab_size}")
    return tokenizer
