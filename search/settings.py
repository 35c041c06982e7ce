"""How pictures are cut, shown and embedded: as the command line says, or as the index was made."""

import argparse
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from dataset.pictures import PictureRule
from search.items import STRETCH, Tiling
from search.table import About
from utils.errors import InputError


class Settings(NamedTuple):
    """What decides the embedding of a file, beside the model."""

    tiling: Tiling = Tiling()
    rule: PictureRule = PictureRule(STRETCH)
    average_orientations: bool = False


def settings_of(args: argparse.Namespace, about: About | None = None) -> Settings:
    """The settings of the command line; what it leaves open is the index's, or else the default.

    Raises InputError where it names others than the index was made with.
    """
    made = Settings(about.tiling, about.picture_rule, about.average_orientations) if about else Settings()
    named = {"pixels": args.tile, "metres": args.tile_metres, "overlap": args.overlap, "whole_up_to": args.whole_up_to}
    tiling = replace(made.tiling, **{key: value for key, value in named.items() if value is not None})
    rule = PictureRule(args.stretch or made.rule.deep, args.bands or made.rule.bands)
    averaged = made.average_orientations if args.orientations is None else args.orientations == 8
    asked = Settings(tiling, rule, averaged)
    if about and asked != made:
        old, new = _plain(made), _plain(asked)
        differing = [f"{key} {old[key]}, not {new[key]}" for key in old if old[key] != new[key]]
        raise InputError(f"the index was made with {', '.join(differing)}: leave that out, or give another --index")
    return asked


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings under their arguments' names."""
    tiling = asdict(settings.tiling)
    return {
        "--tile": tiling["pixels"],
        "--tile_metres": tiling["metres"],
        "--overlap": tiling["overlap"],
        "--whole_up_to": tiling["whole_up_to"],
        "--stretch": settings.rule.deep,
        "--bands": settings.rule.bands,
        "--orientations": 8 if settings.average_orientations else 1,
    }
