"""What is looked over before the first step: pictures of two splits, unknown words, headers of pictures."""

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from PIL import UnidentifiedImageError
from transformers import PreTrainedTokenizerBase

from dataset.annotations import EvaluationSet, TrainRecord
from dataset.pictures import USUAL, PictureRule, opened
from dataset.shared_pictures import Split, shared_pictures
from dataset.vocabulary import unknown_share
from utils.config import Config
from utils.errors import InputError, listed, reason
from utils.files import read_json
from utils.logs import progress, say

_THREADS = 8  # a header is waited for, not computed


def check_scenes(config: Config) -> None:
    """Raise InputError where the demonstration's pictures are still to be drawn, or are others."""
    if config.scenes is None:
        return
    wanted, marker = asdict(config.scenes), Path(config.scenes.folder, "scenes.json")
    drawn = read_json(marker) if marker.is_file() else {}
    if any(drawn.get(key) != value for key, value in wanted.items() if key != "folder"):
        raise InputError(
            f"{config.scenes.folder} does not hold the config's scenes: run.py draws them, then starts this"
        )


def look_over(
    config: Config,
    records: Sequence[TrainRecord],
    sets: Mapping[str, EvaluationSet],
    tokenizer: PreTrainedTokenizerBase,
    rule: PictureRule,
) -> None:
    """Say which pictures two splits share, and how many words the vocabulary does not know.

    records: none where training reads shards, whose captions and pictures are looked at as they are read.
    sets: the evaluation sets by split. Raises `InputError` for captions of unknown words alone and for pictures whose
    header cannot be read; with `on_bad_picture: skip` such a training picture is skipped when it is met.
    """
    files = {"val": config.val_file, "test": config.test_file}
    evaluated = {
        files[split]: Split(files[split], [files[split]], evaluation.images) for split, evaluation in sets.items()
    }
    trained = Split("the training files", config.train_file, {record.image for record in records})
    for shared in shared_pictures([trained, *evaluated.values()]):
        say(shared)
    captions = {"training": [record.caption for record in records]}
    captions |= {split: list(evaluation.captions) for split, evaluation in sets.items()}
    if line := unknown_share(captions, tokenizer):
        say(line)
    pictures = [image for evaluation in sets.values() for image in evaluation.images]
    if config.on_bad_picture != "skip":
        pictures += [record.image for record in records]
    check_headers(list(dict.fromkeys(pictures)), rule)


def check_headers(pictures: Sequence[str], rule: PictureRule = USUAL) -> None:
    """Open each picture without decoding it, some at a time, with progress.

    Raises `InputError` that counts those that are no picture, too large or too deep for the rule, and names five.
    """
    with ThreadPoolExecutor(_THREADS) as threads, warnings.catch_warnings(action="ignore"):
        looked = threads.map(partial(_problem, rule=rule), pictures)
        problems = [problem for problem in progress(looked, len(pictures), "opening pictures") if problem]
    if problems:
        raise InputError(listed(problems))


def _problem(picture: str, rule: PictureRule) -> str | None:
    try:
        check_header(picture, rule)
    except InputError as error:
        return str(error)
    return None


def check_header(path: str, rule: PictureRule = USUAL) -> None:
    """Raise `InputError` for a file whose header says that `load_picture` will refuse it; nothing is decoded."""
    try:
        with opened(path, path, rule):
            return
    except InputError:
        raise
    except Exception as error:
        if rule == USUAL or not isinstance(error, UnidentifiedImageError):
            raise InputError(f"cannot read the picture {path}: {reason(error)}") from None
    from dataset.deep_pictures import check_bands

    check_bands(path)
