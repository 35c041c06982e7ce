"""PIR: `build_model` makes the model of a config, `load` a trained one ready to use."""

from typing import TYPE_CHECKING, Any

from models.build import build_model

if TYPE_CHECKING:
    from models.loading import load

__all__ = ["build_model", "load"]


def __getattr__(name: str) -> Any:
    """`load`, which brings what a training has no use for, when it is asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.loading import load

    return load
