"""The command line's queries, and the answers in the form it asks for."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from search.answers import as_csv, as_geojson, as_json, text_table
from search.contact_sheet import draw_contact_sheet
from search.opening import open_picture
from search.places import box, circle, polygon
from search.query import Hit, Query, moment
from search.query_vectors import IndexedTile, Picture
from search.table import Index
from utils.errors import InputError, printable, warn
from utils.files import read_text, write_whole

QUERY_BYTES = 16 * 2**20


def queries_of(args: argparse.Namespace) -> list[Query]:
    """One query a text, those of `--queries` among them; or one of pictures, with a text or without."""
    texts = [*args.text, *(_lines(args.queries) if args.queries else [])]
    regions = [box(*args.box)] if args.box else []
    regions += [circle(*args.near)] if args.near else []
    regions += [polygon(args.polygon)] if args.polygon else []
    shared = {
        "minus": tuple((text, args.not_weight) for text in args.minus),
        "regions": tuple(regions),
        "since": moment(args.since) if args.since else None,
        "until": moment(args.until, end=True) if args.until else None,
        "folder": args.folder,
        "top": args.top,
        "min_score": args.min_score,
        "fold": not args.keep_duplicates,
        "exact": args.exact,
    }
    pictures: list[Picture] = [*map(Path, args.image), *(IndexedTile(os.path.abspath(name)) for name in args.like)]
    if not pictures:
        return [Query(((text, 1.0),), **shared) for text in texts]
    of_pictures = args.image_weight if texts else 1.0
    weighted = tuple((picture, of_pictures / len(pictures)) for picture in pictures)
    return [Query(tuple((text, 1 - of_pictures) for text in texts), weighted, **shared)]


def _lines(file: Path) -> list[str]:
    lines = [line.strip() for line in read_text(file, "a text of queries", QUERY_BYTES).splitlines()]
    if not any(lines):
        raise InputError(f"{file} has no query: write one a line")
    return [line for line in lines if line]


def write_answers(args: argparse.Namespace, queries: Sequence[Query], answers: Sequence[Sequence[Hit]]) -> None:
    """To `--output` or else the standard output."""
    if args.form == "table":
        parts = [text_table(hits) or "nothing found" for hits in answers]
        if len(queries) > 1:
            parts = [f"{printable(query.name)}\n{part}\n" for query, part in zip(queries, parts, strict=True)]
        text = "\n".join(parts)
    else:
        text = {"json": as_json, "csv": as_csv, "geojson": as_geojson}[args.form](queries, answers)
    if args.output:
        write_whole(args.output, (text.rstrip("\n") + "\n").encode())
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")


def draw_sheet(file: Path, index: Index, queries: Sequence[Query], answers: Sequence[Sequence[Hit]]) -> None:
    """A contact sheet of all queries."""

    def read(hit: Hit) -> ndarray:
        try:
            with open_picture(hit.file, index.about.tiling, index.about.picture_rule) as picture:
                pixels = picture.read(hit.tile)
        except InputError as error:  # gone or changed since it was indexed: the others are drawn
            warn(str(error))
            pixels = None
        return np.full((8, 8, 3), 255, np.uint8) if pixels is None else pixels

    draw_contact_sheet(file, [(query.name, hits) for query, hits in zip(queries, answers, strict=True)], read)
