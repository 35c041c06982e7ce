"""The WordPiece tokenizer of a folder with a vocabulary, and captions as padded token ids."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BertTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from utils.errors import InputError
from utils.exported import is_exported
from utils.files import check_regular

# Loader workers are forked processes with a core each: the tokenizer's own threads would only contend (and
# it prints a warning at every fork unless this is set).
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PAD_TO = "pad_to"  # of a tokenizer whose text encoder takes captions padded to so many tokens alone


def load_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a BERT folder: its own kind where it says which, BERT's where only `vocab.txt` is there.

    vocab_size: rows of the text encoder's word embeddings, which the vocabulary must not exceed.
    """
    if not folder.is_dir():
        raise InputError(
            f"tokenizer: no folder {folder}; put the text encoder's vocab.txt there (docs/pretrained_weights.md)"
        )
    for file in folder.iterdir():
        if not file.is_dir():
            check_regular(file)
    says_which = any((folder / name).exists() for name in ("tokenizer_config.json", "tokenizer.json", "config.json"))
    try:
        kind = AutoTokenizer if says_which else BertTokenizer
        # Our own model's config.json says nothing of a tokenizer, and transformers would warn of a model unknown to it.
        options: dict[str, Any] = {"config": PreTrainedConfig()} if is_exported(folder) else {}
        # False, not absent: without it transformers asks on the terminal whether to run code that the folder brings.
        tokenizer = kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # a damaged file, or a class that there is not, raises nearly anything in there
        if "custom code" in str(error):
            raise InputError(
                f"tokenizer in {folder} brings code of its own ('auto_map' in its files), which is never run; give a "
                "folder whose tokenizer is of a class of transformers"
            ) from None
        raise InputError(f"tokenizer in {folder} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    problem = _unusable(tokenizer)
    if problem:
        raise InputError(f"tokenizer in {folder} cannot be used: {problem}; get its vocabulary again")
    if len(tokenizer) > vocab_size:
        raise InputError(f"tokenizer in {folder} has {len(tokenizer)} words, the text encoder {vocab_size}")
    return tokenizer


def _unusable(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a vocabulary lacks that every caption needs; empty where it has all."""
    if tokenizer.pad_token_id is None:
        return "it has no token for padding"
    try:
        tokenizer("a word that no vocabulary has: \u16a0")
    except Exception as error:  # the tokenizer's own, of no kind to name
        return " ".join(str(error).split())[:200]
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    added = [token for token, number in special if number >= tokenizer.vocab_size]
    # Ones that transformers adds itself would have the ids of words that the text encoder does not know.
    if added and isinstance(tokenizer, BertTokenizer):
        return f"it lacks {', '.join(added)}"
    # transformers makes one of a folder without them.
    return "it has no words" if tokenizer.vocab_size <= len(tokenizer.all_special_ids) else ""


def tokenized(captions: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Tensor]:
    """The token ids `[l]` of each caption, cut at `max_length`."""
    if not captions:  # transformers takes no empty list
        return []
    encoded = tokenizer(list(captions), truncation=True, max_length=max_length, return_attention_mask=False)
    return [torch.tensor(ids) for ids in encoded.input_ids]


def padded(ids: list[Tensor], tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """Ids and attention mask `[b, L]` of tokenized captions, L the tokens of the longest."""
    pad = partial(pad_sequence, batch_first=True, padding_side=tokenizer.padding_side)
    rows, masks = pad(ids, padding_value=tokenizer.pad_token_id), pad([torch.ones_like(row) for row in ids])
    missing = (0, max(0, getattr(tokenizer, PAD_TO, 0) - rows.shape[1]))
    return F.pad(rows, missing, value=tokenizer.pad_token_id), F.pad(masks, missing)
