"""Which trained model searches: the one that is named, the index's, or the one in this repository."""

from pathlib import Path

from models import load
from models.embedder import Embedder
from models.folding import fold_batch_norm
from search.table import Index
from utils.errors import InputError
from utils.files import file_checksum
from utils.output import weights_in

DEFAULT = Path(__file__).resolve().parents[1] / "checkpoints" / "PIR" / "lite_rsicd"


def chosen_model(given: str | None, of_index: str | None = None) -> str:
    """The folder or checkpoint to load: `given`, or where the index's still is, or that of this repository."""
    if given:
        return given
    if of_index and Path(of_index).exists():
        return of_index
    if not DEFAULT.exists():
        raise InputError(f"no trained model at {DEFAULT}: give --checkpoint DIR or FILE")
    return str(DEFAULT)


def checksum_of(model: str) -> str:
    """SHA-256 of its weights, by which an index knows its model."""
    weights = Path(weights_in(model))
    if not weights.is_file():
        raise InputError(f"no trained model {weights}: give --checkpoint DIR or FILE")
    return file_checksum(weights)


def loaded_model(model: str, device: str | None, *, average_orientations: bool) -> Embedder:
    """The model, ready to embed and nothing else, whether its own config averages orientations or not."""
    embedder = load(model, device=device or "auto", override=[f"average_orientations={average_orientations}"])
    fold_batch_norm(embedder.model)
    return embedder


def model_of(index: Index, given: str | None, device: str | None) -> Embedder:
    """The index's model, ready to embed queries."""
    model = chosen_model(given, index.about.model)
    index.check_model(checksum_of(model), model)
    return loaded_model(model, device, average_orientations=index.about.average_orientations)
