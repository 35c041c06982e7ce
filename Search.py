"""Find pictures by words or by a picture: index folders, archives and rasters, then ask."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from search.arguments import search_arguments
    from utils.arguments import read_first

    read_first(search_arguments)

import argparse
import json
import sys
from pathlib import Path

from search.arguments import search_arguments
from utils.announced import is_launched
from utils.errors import printable, run_cli

SOME_BROKEN = 3  # exit code: all is done, but some pictures cannot be read
NAMED = 20  # of them, by name


def main() -> int:
    """Do what the command line says; its exit code."""
    args = search_arguments()
    return {"index": index, "query": query, "info": info, "check": check, "embed": embed}[args.command](args)


def index(args: argparse.Namespace) -> int:
    """Bring the index up to date: embed what is new or has changed under `--images`, drop what vanished."""
    from search import launching
    from utils.launch import processes_for

    if args.drop:
        from search.updating import drop

        drop(args.index, args.drop)
        return 0
    if not launching.is_started(args):
        started = processes_for(args.dist or "auto")
        code = launching.start(Path(__file__), sys.argv[1:], started)
        # A launcher takes any code but 0 for a failure, so several processes cannot say it themselves.
        return broken_code(args) if code == 0 and started.count > 1 else code
    from search.updating import update
    from utils import processes

    device = processes.start(args.device or "auto")
    broken = update(args, device)
    processes.stop()
    name_broken(broken)
    return SOME_BROKEN if broken and not is_launched() else 0


def broken_code(args: argparse.Namespace) -> int:
    """The exit code of an indexing that came to its end."""
    from search.files import find_files
    from search.indexing import broken_under
    from search.table import open_index

    broken = broken_under(open_index(args.index), args.images) or find_files(args.images).problems
    return SOME_BROKEN if broken else 0


def query(args: argparse.Namespace) -> int:
    """Search the index; the answer is all there is on the standard output."""
    from search.asking import draw_sheet, queries_of, write_answers
    from search.model import model_of
    from search.query import answer
    from search.table import open_index

    opened, queries = open_index(args.index), queries_of(args)
    model = model_of(opened, args.checkpoint, args.device)
    answers = answer(opened, model, queries)
    write_answers(args, queries, answers)
    if args.sheet:
        draw_sheet(args.sheet, opened, queries, answers)
    return 0


def info(args: argparse.Namespace) -> int:
    """Print what the index holds."""
    from search.checking import described
    from search.table import open_index

    say_values(described(open_index(args.index)), as_json=args.json)
    return 0


def check(args: argparse.Namespace) -> int:
    """Compare the index with its pictures; the exit code says whether all is as it was."""
    from search.checking import compared
    from search.table import open_index

    found = compared(open_index(args.index))
    say_values(found, as_json=args.json)
    whole = found["rows"] == found["rows_recorded"] and not found["model"] and not found["interrupted"]
    return 0 if whole and not found["not_current"] else SOME_BROKEN


def embed(args: argparse.Namespace) -> int:
    """Write the embeddings of pictures to one file."""
    from search.embeddings_file import embed_to_file

    broken = embed_to_file(args)
    name_broken(broken)
    return SOME_BROKEN if broken else 0


def name_broken(broken: list[tuple[str, str]]) -> None:
    """A line each for the first pictures that cannot be read."""
    for path, problem in broken[:NAMED]:
        print(f"left out: {printable(path)}: {printable(problem)}", file=sys.stderr)
    if len(broken) > NAMED:
        print(f"left out: {len(broken) - NAMED} more", file=sys.stderr)


def say_values(values: dict, *, as_json: bool) -> None:
    """Print values, one a line, or as JSON."""
    if as_json:
        print(json.dumps(values, indent=2))
        return
    for name, value in values.items():
        shown = (
            [f"{printable(key)}: {printable(str(of))}" for key, of in value.items()]
            if isinstance(value, dict)
            else None
        )
        print(f"{name}: {printable(str(value))}" if shown is None else f"{name}: {'; '.join(shown) or 'none'}")


if __name__ == "__main__":
    run_cli(main)
