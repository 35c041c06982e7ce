"""`Search.py index`: lock, find, compare, embed, finish. Of several processes the first opens, compares and removes."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from search.files import Found, find_files
from search.indexing import broken_under, changes_of, embed_into, is_under
from search.items import PictureFile
from search.launching import of_main
from search.model import checksum_of, chosen_model, loaded_model
from search.settings import settings_of
from search.table import About, create, exists, lock_index, open_index, unlock_index
from utils import processes
from utils.errors import InputError
from utils.logs import say

MOST_REMARKS = 20  # that are shown


def update(args: argparse.Namespace, device: torch.device) -> list[tuple[str, str]]:
    """Bring the index up to date; the files under `--images` that are not in it, each with what is wrong with it."""
    old = open_index(args.index, writing=True) if exists(args.index) else None
    settings = settings_of(args, old.about if old is not None else None)
    model = chosen_model(args.checkpoint, old.about.model if old is not None else None)
    weights = checksum_of(model)
    if old is not None:
        old.check_model(weights, model)
    if processes.is_main():
        lock_index(args.index)
    roots = [os.path.abspath(root) for root in args.images]
    found: Found = of_main(lambda: find_files(roots))
    if found.left_out:
        say(found.left_out)
    embedder = loaded_model(model, str(device), average_orientations=settings.average_orientations)

    pending: list[PictureFile] = []
    if processes.is_main():
        made = About(
            weights_sha256=weights,
            model=str(Path(model).resolve()),
            dim=embedder.config.embed_dim,
            average_orientations=settings.average_orientations,
            tiling=settings.tiling,
            picture_rule=settings.rule,
        )
        opened = create(args.index, made) if old is None else old
        changes = changes_of(opened, found, roots)
        opened.remove([*changes.vanished, *(file.path for file in changes.changed)])
        pending = changes.pending
        say(f"{args.index}: {len(found.files)} files found, {changes.summary}")
    processes.barrier()  # only now is there an index to open, and what has changed is out of it
    opened = open_index(args.index)
    embedded = embed_into(opened, embedder, of_main(lambda: pending), settings, args.num_workers)
    processes.barrier()
    if not processes.is_main():
        return []
    opened = open_index(args.index, writing=True)  # with what all have appended
    opened.finish()
    for remark in embedded.remarks[:MOST_REMARKS]:
        say(f"note: {remark}")
    done = f"{embedded.rows} tiles embedded, {embedded.empty} without data; {len(opened)} in all"
    say(f"{args.index}: {done}; {opened.about.search}")
    unlock_index(args.index)
    return [*found.problems, *broken_under(opened, roots)]


def drop(uri: str, places: Sequence[str]) -> None:
    """Take the files under some folders or archives, which need not exist any more, out of an index."""
    opened = open_index(uri, writing=True)
    lock_index(uri)
    known = {*opened.files(), *opened.unrecorded()}
    paths = [path for path in known if is_under(path, [os.path.abspath(place) for place in places])]
    if not paths:
        raise InputError(f"the index {uri} has nothing under {', '.join(places)}; Search.py info names its folders")
    opened.remove(paths)
    opened.finish()
    unlock_index(uri)
    say(f"{uri}: {len(paths)} files dropped; {len(opened)} tiles left")
