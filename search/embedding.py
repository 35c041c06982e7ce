"""`Search.py embed`: pictures -> one file of embeddings."""

import argparse

import numpy as np

from dataset.transforms import evaluation_transform
from search.embeddings_file import write_embeddings
from search.files import find_files
from search.indexing import progress_total, units
from search.model import checksum_of, chosen_model, loaded_model
from search.reading import TileOf, TileReader, batch_size, tile_loader
from search.settings import settings_of
from search.updating import workers
from utils.logs import progress, say


def embed_to_file(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Write `--output`; the files that cannot be read, each with what is wrong with it."""
    settings = settings_of(args)
    model = chosen_model(args.checkpoint)
    found = find_files(args.images)
    if found.left_out:
        say(found.left_out)
    embedder = loaded_model(model, args.device, average_orientations=settings.average_orientations)
    reader = TileReader(
        found.files,
        tiling=settings.tiling,
        rule=settings.rule,
        transform=evaluation_transform(embedder.config.image_res),
        batch_size=batch_size(embedder),
    )
    tiles: list[TileOf] = []
    vectors = [np.empty((0, embedder.config.embed_dim), np.float32)]
    broken = list(found.problems)
    loader = tile_loader(reader, workers(args.num_workers), pin_memory=embedder.device.type == "cuda")
    total = progress_total(found.files, settings.tiling, settings.rule)
    for batch in progress(loader, total, "embedding pictures", counts=units):
        if batch.tiles:
            vectors.append(embedder.embed_pixels(batch.images, average_orientations=settings.average_orientations))
            tiles += batch.tiles
        broken += [(done.file.path, done.error) for done in batch.done if done.error]
    write_embeddings(args.output, tiles, np.concatenate(vectors), checksum_of(model))
    say(f"{args.output}: {len(tiles)} embeddings of {embedder.config.embed_dim} numbers")
    return broken
