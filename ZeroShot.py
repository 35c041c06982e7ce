"""Recognise scenes by their names: each class is some sentences, a picture is of the class whose sentences are nearest.

Runs alone, or under torchrun on several processes that share the pictures.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from utils.arguments import read_first
    from zeroshot.arguments import zero_shot_arguments

    read_first(zero_shot_arguments)

from dataclasses import replace

from dataset.pictures import picture_rule
from dataset.start_checks import check_headers
from models import load
from utils import processes
from utils.errors import run_cli
from utils.logs import say
from zeroshot.arguments import zero_shot_arguments
from zeroshot.class_names import class_words
from zeroshot.classifying import class_embeddings, nearest_classes
from zeroshot.pictures import read_pictures
from zeroshot.result import open_folder, write_result
from zeroshot.templates import read_templates


def main(arguments: list[str] | None = None) -> None:
    """Classify the pictures and write what came out; all that is given is checked before any picture is embedded."""
    args = zero_shot_arguments(arguments)
    processes.start(args.device)
    templates = read_templates(args.templates)
    scenes = read_pictures(args.images, args.annotations)
    words, source = class_words(scenes.classes, args.names)
    open_folder(args)
    embedder = load(
        args.checkpoint, config_file=args.config, tokenizer=args.tokenizer, device=args.device, override=args.override
    )
    embedder = replace(embedder, num_workers=embedder.config.num_workers)
    say(f"{scenes.source}: {len(scenes.pictures)} pictures of {len(scenes.classes)} classes, words from {source}")
    say(f"{len(templates)} templates of {args.templates.name}:")
    for template in templates:
        say(f"  {template}")
    files = [picture.image for picture in scenes.pictures]
    check_headers(files, picture_rule(embedder.config))

    nearest = nearest_classes(embedder, files, class_embeddings(embedder, words, templates))
    asked = {"words": dict(zip(scenes.classes, words, strict=True)), "source": source, "templates": templates}
    write_result(args, embedder, scenes, nearest, asked)
    processes.stop()


if __name__ == "__main__":
    run_cli(main)
