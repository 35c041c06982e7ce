"""Search.py's command line. No torch here: mistakes are told at once."""

import argparse
import math
import os
import re
from pathlib import Path

from search.items import STRETCH, Tiling
from utils.arguments import OneLineParser, device, name, named_path
from utils.errors import InputError, shown
from utils.picture_rule import impossible_rule

INDEX = "outputs/search_index"
TILING = Tiling()
FORMS = ("table", "json", "csv", "geojson")

DESCRIPTION = """\
Find pictures by words, or by a picture.

  python Search.py index --images PICTURES         embed a folder, an archive or rasters, or what is new in them
  python Search.py query "a stadium beside a river"
  python Search.py info                            what an index holds
  python Search.py check                           whether its pictures are still there and unchanged
  python Search.py embed --images PICTURES --output FILE.npz
"""


def search_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; InputError for arguments that contradict each other."""
    parser = OneLineParser(
        "Search.py", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    _index(commands.add_parser("index", help="bring an index up to date with pictures", allow_abbrev=False))
    _query(commands.add_parser("query", help="search an index", allow_abbrev=False))
    for command, what in (("info", "what an index holds"), ("check", "compare an index with its pictures")):
        sub = commands.add_parser(command, help=what, allow_abbrev=False)
        _place(sub)
        sub.add_argument("--json", action="store_true", help="as JSON")
    _embed(commands.add_parser("embed", help="embeddings of pictures to one file", allow_abbrev=False))
    args = parser.parse_args(arguments)
    if "tile" in args:
        _check_tiling(args)
    if args.command == "query":
        _check_query(args)
    return args


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index", type=name, default=INDEX, help=f"its folder, or the URI of an object store (default: {INDEX})"
    )


def _model(parser: argparse.ArgumentParser, default: str) -> None:
    add = parser.add_argument
    add("--checkpoint", type=name, metavar="DIR|FILE", help=f"the trained model (default: {default})")
    add("--device", type=device, help="auto, cpu, cuda or cuda:N (default: auto)")


def _pictures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--images",
        type=name,
        nargs="+",
        metavar="PATH",
        help="folders, zip or tar archives, pictures and rasters",
    )
    add(
        "--tile",
        type=int,
        metavar="PIXELS",
        help=f"large pictures are cut into such squares (default: {TILING.pixels})",
    )
    add("--tile_metres", type=float, metavar="M", help="that side on the ground, for rasters that know their place")
    add("--overlap", type=float, metavar="SHARE", help=f"of neighbouring squares (default: {TILING.overlap})")
    add(
        "--whole_up_to",
        type=int,
        metavar="PIXELS",
        help=f"a picture with no longer side is not cut (default: {TILING.whole_up_to})",
    )
    add(
        "--stretch",
        metavar="RULE",
        help=f"more than 8 bits a channel: minmax, '{STRETCH}' (the default) or 'divide 40'",
    )
    add("--bands", type=_bands, metavar="R,G,B", help="the bands to show, counted from 1 (default: as the file says)")
    add("--orientations", type=int, choices=(1, 8), help="8: embed each in all of them, take the mean (default: 1)")
    add("--num_workers", type=int, metavar="N", help="processes that read pictures (default: by the cores there are)")


def _index(parser: argparse.ArgumentParser) -> None:
    _pictures(parser)
    _place(parser)
    _model(parser, "the index's, or that of this repository")
    add = parser.add_argument
    add(
        "--drop",
        type=name,
        nargs="+",
        metavar="PATH",
        help="take what lies there out of the index; nothing is embedded",
    )
    add("--dist", metavar="PRESET", help="processes that embed side by side: cpu2, f4 ... (default: auto; see run.py)")
    add("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)


def _embed(parser: argparse.ArgumentParser) -> None:
    _pictures(parser)
    _model(parser, "that of this repository")
    parser.add_argument("--output", type=named_path, required=True, metavar="FILE", help="FILE.npz or FILE.parquet")


def _query(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("text", nargs="*", help="what to look for; several are several queries")
    _place(parser)
    _model(parser, "the index's")
    what = parser.add_argument_group("what to look for")
    what.add_argument("--queries", type=named_path, metavar="FILE", help="a query a line, beside those given")
    what.add_argument("--image", action="append", default=[], type=name, metavar="FILE", help="a picture; repeatable")
    what.add_argument("--like", action="append", default=[], type=name, metavar="PATH", help="a picture of the index")
    what.add_argument("--not", action="append", default=[], dest="minus", metavar="TEXT", help="less of this")
    what.add_argument(
        "--image_weight", type=float, default=0.5, metavar="W", help="of pictures beside words (default: 0.5)"
    )
    what.add_argument("--not_weight", type=float, default=0.5, metavar="W", help="of what is subtracted (default: 0.5)")
    where = parser.add_argument_group("where and when")
    where.add_argument("--box", type=float, nargs=4, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="degrees")
    where.add_argument("--near", type=float, nargs=3, metavar=("LON", "LAT", "METRES"), help="within a radius")
    where.add_argument("--polygon", type=name, metavar="FILE|WKT", help="GeoJSON file or WKT, in degrees")
    where.add_argument("--since", type=name, metavar="DATE", help="taken on this day or later, 2026-05-31")
    where.add_argument("--until", type=name, metavar="DATE", help="taken on this day or before")
    where.add_argument("--folder", type=name, metavar="DIR", help="under this folder or in this archive")
    out = parser.add_argument_group("the answer")
    out.add_argument("--top", type=int, default=10, metavar="N", help="how many a query (default: 10)")
    out.add_argument("--min_score", type=float, metavar="S", help="none below this cosine")
    out.add_argument("--keep_duplicates", action="store_true", help="do not fold near-duplicates")
    out.add_argument("--exact", action="store_true", help="compare with every row, whatever the index")
    form = out.add_mutually_exclusive_group()
    for kind in FORMS[1:]:
        form.add_argument(f"--{kind}", action="store_const", dest="form", const=kind, help=f"as {kind}, not a table")
    out.add_argument("--output", type=named_path, metavar="FILE", help="write the answer there")
    out.add_argument("--sheet", type=named_path, metavar="FILE.png", help="also draw the pictures that were found")
    parser.set_defaults(form="table")


def _bands(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3}){2}", text):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not of the form 3,2,1, with bands counted from 1")
    return tuple(map(int, text.split(",")))


def _check_tiling(args: argparse.Namespace) -> None:
    if not args.images and (args.command == "embed" or not args.drop):
        raise InputError("--images is missing: name folders, archives, pictures or rasters")
    if args.command == "index" and args.drop and args.images:
        raise InputError("--drop takes out, --images puts in: give one of them")
    if problems := impossible_rule(args.stretch or STRETCH, args.bands):
        raise InputError(problems[0].replace("'deep_pictures'", "--stretch").replace("'bands'", "--bands"))
    for option in ("tile", "whole_up_to"):
        if (value := getattr(args, option)) is not None and not 16 <= value <= 16384:
            raise InputError(f"--{option} {value}: give 16 to 16384 pixels")
    if args.overlap is not None and not 0 <= args.overlap <= 0.9:
        raise InputError(f"--overlap {args.overlap}: give a share of 0 to 0.9")
    if args.tile_metres is not None and not 0.1 <= args.tile_metres <= 1_000_000:
        raise InputError(f"--tile_metres {args.tile_metres}: give 0.1 to 1000000")
    if args.num_workers is not None and not 0 <= args.num_workers <= 256:
        raise InputError(f"--num_workers {args.num_workers}: give 0 to 256")
    if args.command == "index" and args.dist and args.device:
        raise InputError("--dist starts processes, --device is of one process: give one of them")
    if args.command == "embed" and args.output.suffix not in (".npz", ".parquet"):
        raise InputError(f"--output {args.output}: the name must end in .npz or .parquet")
    if args.command == "embed":
        _check_folder(args.output)


def _check_folder(file: Path) -> None:
    """Raise InputError, before anything is embedded, where a file cannot be written."""
    if not os.access(file.parent, os.W_OK):
        problem = "cannot be written" if file.parent.is_dir() else "is missing"
        raise InputError(f"the folder {file.parent} for {file.name} {problem}: make it, or name another")


def _check_query(args: argparse.Namespace) -> None:
    if not (args.text or args.queries or args.image or args.like):
        raise InputError('nothing to look for: give words, as in query "a river", or --image, --like, --queries')
    if (args.image or args.like) and len(args.text) > 1:
        raise InputError("words and pictures together make one query: give one text")
    if (args.image or args.like) and args.queries:
        raise InputError("--queries has words alone: leave --image and --like out")
    if not 1 <= args.top <= 10_000:
        raise InputError(f"--top {args.top}: give 1 to 10000")
    if not 0 < args.image_weight < 1:
        raise InputError(f"--image_weight {args.image_weight}: give more than 0, less than 1")
    if not 0 < args.not_weight <= 10:
        raise InputError(f"--not_weight {args.not_weight}: give more than 0, up to 10")
    if args.min_score is not None and not -1 <= args.min_score <= 1:
        raise InputError(f"--min_score {args.min_score}: a cosine is -1 to 1")
    if any(not math.isfinite(value) for value in [*(args.box or ()), *(args.near or ())]):
        raise InputError("--box and --near take finite degrees and metres")
    for file in filter(None, (args.output, args.sheet)):
        _check_folder(file)
    if args.output and args.form == "table" and (form := args.output.suffix[1:]) in FORMS:
        args.form = form
    if args.sheet and args.sheet.suffix.lower() not in (".png", ".jpg"):
        raise InputError(f"--sheet {args.sheet}: the name must end in .png or .jpg")
