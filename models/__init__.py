"""PIR: `build_model` makes the model of a config, `load` a trained one ready to use."""

from models.build import build_model
from models.embedder import load

__all__ = ["build_model", "load"]
