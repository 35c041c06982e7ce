"""A trained model -> a folder to give away: `python Export.py --checkpoint DIR --output_dir DIR --format compact`.

folder     config, weights (float32) and tokenizer in Hugging Face's style; `load` and run.py read it
compact    the same with weights at under a third of their size (int8 rows and half precision)
onnx       both encoders for ONNX Runtime, with tokenizer and preprocessing.json; float32
onnx_int8  the same in int8
"""

import argparse

from utils.arguments import OneLineParser, name, named_path
from utils.errors import run_cli

FORMATS = ("folder", "compact", "onnx", "onnx_int8")


def main(arguments: list[str] | None = None) -> None:
    """Write the folder whole, or leave nothing of it."""
    args = parse(arguments)
    from export.card import CARD
    from export.folder import check_free, new_folder, write_model  # after the command line, as it takes seconds
    from models import load

    check_free(args.output_dir, overwrite=args.overwrite)
    model = load(args.checkpoint, tokenizer=args.tokenizer, device="cpu", override=args.override)
    if args.average_with:
        from export.averaging import average_with

        average_with(model, args.average_with)
    with new_folder(args.output_dir, overwrite=args.overwrite) as folder:
        kept = (folder / CARD).exists()
        if args.format.startswith("onnx"):
            from export.onnx_encoders import write_onnx

            write_onnx(model, folder, int8=args.format == "onnx_int8")
        else:
            write_model(model, folder, compact=args.format == "compact")
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    print(f"{args.output_dir}: " + ", ".join(f"{file} {written_size(size)}" for file, size in sizes.items()))
    if kept:
        print(f"{args.output_dir / CARD} was filled in, so it is kept as it was")


def written_size(count: int) -> str:
    """A number of bytes as one reads it."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} KB"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser("Export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=name, required=True, help="a folder as published, exported or left by a run, or weights")
    add(
        "--average_with",
        type=name,
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="another training's weights: what is exported is the mean of all; repeatable",
    )
    add("--output_dir", type=named_path, required=True, help="the folder to write")
    add("--format", choices=FORMATS, default="folder")
    add("--tokenizer", type=name, help="the vocabulary's folder, where the one of the config is not to be found")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value; repeatable")
    add("--overwrite", action="store_true", help="replace an export in --output_dir")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_cli(main)
