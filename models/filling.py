"""A model filled: for a training from starts or from what fits, from a checkpoint of its own kind, or an adapter's."""

import hashlib

from models.partial_start import start_from_model
from models.released import load_released
from models.retrieval import RetrievalModel
from models.start_files import start_encoders, weights_of_start
from utils.checkpoint import ADAPTER_BASE, read_checkpoint
from utils.config import Config
from utils.errors import InputError
from utils.files import file_checksum
from utils.logs import say


def start_from(
    model: RetrievalModel, config: Config, given: str | None, *, strict: bool = False, download: bool = False
) -> None:
    """Fill the model from trained weights, or each encoder from its start file (null: left random); say what matched.

    strict: the weights must be of this very model, as for an evaluation; otherwise they fill what they fit.
    """
    if given and strict:
        for line in fill(model, config, given, download=download):
            say(line)
    elif given:
        say(start_from_model(model, read_checkpoint(given), given))
    else:
        for report in start_encoders(model, config, download=download):
            say(str(report))


def fill(model: RetrievalModel, config: Config, file: str, *, download: bool = False) -> list[str]:
    """Fill it with all that a file holds, which must be all that it needs; lines saying what matched.

    download: the starts that an adapter adds to, where they are of a hub and not on this machine. Raises InputError, as
    `load_released` and `load_adapter` do.
    """
    state = read_checkpoint(file)
    if ADAPTER_BASE in state:
        from models.adapters import load_adapter, remove_adapters  # brings peft

        remove_adapters(model)
        lines = [str(report) for report in start_encoders(model, config, download=download)]
        return [*lines, load_adapter(model, state, config.lora, starts_checksum(config), file)]
    if config.clip_model and not model.adapters:
        return [str(report) for report in start_encoders(model, config, file)]
    return [f"{file}: {load_released(model, state)}"]


def add_lora(model: RetrievalModel, config: Config, given: str | None) -> str:
    """Add the config's adapters for a training; a line saying how many.

    given: a whole model's weights to start from, in place of the encoders' own starts. Raises InputError
    where no adapter fits, or one alone could not be read again.
    """
    from models.adapters import add_adapters  # brings peft

    assert config.lora is not None
    if config.lora.checkpoint == "adapter":
        starts_checksum(config)
        if given:
            raise InputError(f"lora: an adapter alone adds to its encoders' starts, not to {given}; keep it merged")
    return add_adapters(model, config.lora)


def starts_checksum(config: Config) -> str:
    """The sha256 of the weights that a config's encoders start from, in order.

    Raises InputError where one has none, as an adapter to random weights is of no use to anybody, or is not there.
    """
    encoders = [config.clip_start] if config.clip_model else [config.vision_start, config.text_encoder]
    encoders += [config.resnet_ckpt] if config.has_vir or config.instruct == "before_blocks" else []
    digest = hashlib.sha256()
    for start in encoders:
        weights = weights_of_start(start) if start else None
        if weights is None:
            raise InputError(
                "lora: an adapter alone adds to weights that every encoder starts from, and "
                + (f"start '{start}' is not on this machine" if start else "one starts from none")
            )
        digest.update(file_checksum(weights).encode())
    return digest.hexdigest()
