"""A trained model, ready to use.

from models import load

model = load("outputs/itr_demo")
scores = model.score(["a.jpg", "b.jpg"], ["a lake beside a road"])  # [2, 1]
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dataset.pictures import picture_rule
from models.build import build_model
from models.embedder import Embedder, configured_tokenizer, pixels_of
from models.filling import fill
from models.given import check_load
from utils import processes
from utils.config import config_from_file
from utils.output import CONFIG, config_in, weights_in


def load(
    checkpoint: str | Path,
    *,
    config_file: str | Path | None = None,
    tokenizer: str | None = None,
    device: str = "auto",
    override: Sequence[str] = (),
) -> Embedder:
    """The model of a folder (exported, as published or as a run left it), or of weights with their config beside them.

    config_file: of weights that have none beside them. tokenizer: a folder with the vocabulary, where the one that the
    config names is not to be found. device: auto, cpu, cuda or cuda:N. override: `KEY=VALUE` of the config. Raises
    InputError where something is missing or does not fit.
    """
    check_load(checkpoint, device, override, config_file)
    weights = weights_in(str(checkpoint))
    beside = Path(weights).parent
    given = [*override] if tokenizer is None else [*override, f"tokenizer={tokenizer}"]
    config = config_from_file(config_file or config_in(str(beside)) or beside / CONFIG, given)
    chosen = processes.device_for(device)
    model = build_model(config)
    fill(model, config, weights)
    words = configured_tokenizer(config)
    pixels = partial(pixels_of, rule=picture_rule(config))
    autocast = processes.autocast_dtype(config.precision, chosen)
    return Embedder(model.to(chosen), config, words, chosen, autocast, pixels)
