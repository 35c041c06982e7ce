"""ZeroShot.py's command line. No torch here: mistakes are told at once."""

import argparse
from pathlib import Path

from utils.arguments import OneLineParser, device, name, named_path
from zeroshot.class_names import AS_GIVEN

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "checkpoints" / "PIR" / "lite_rsicd"
TEMPLATES = Path(__file__).with_name("templates.txt")
OUTPUT = "outputs/zero_shot"

DESCRIPTION = """\
Recognise scenes by their names alone: no picture of them is trained on.

  python ZeroShot.py --images AID                                       a folder of class folders
  python ZeroShot.py --images IMAGES --annotations rsicd_test.json      the labels of annotation files
  python ZeroShot.py --images AID --checkpoint RemoteCLIP-ViT-B-32.pt --config configs/Retrieval_rsicd_clip.yaml
"""


def zero_shot_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        "ZeroShot.py", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--images", type=named_path, required=True, metavar="DIR", help="a folder of pictures a class")
    add(
        "--annotations",
        type=name,
        nargs="+",
        default=[],
        metavar="FILE",
        help="annotation files whose labels count; --images is then where their pictures are",
    )
    add("--checkpoint", type=name, default=str(MODEL), metavar="DIR|FILE", help="default: that of this repository")
    add("--config", type=name, metavar="FILE", help="of weights that have none beside them")
    add("--tokenizer", type=name, metavar="DIR", help="the vocabulary, where the config's is not to be found")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value; repeatable")
    add("--templates", type=named_path, default=TEMPLATES, metavar="FILE", help="a template a line, {} is the name")
    add("--names", type=name, metavar=f"FILE|{AS_GIVEN}", help='words of the classes, JSON of {"class": "words"}')
    add("--output_dir", type=named_path, default=Path(OUTPUT), help=f"default: {OUTPUT}")
    add("--overwrite", action="store_true", help="replace the result in --output_dir")
    add("--device", type=device, default="auto", help="auto (the default), cpu, cuda or cuda:N")
    return parser.parse_args(arguments)
