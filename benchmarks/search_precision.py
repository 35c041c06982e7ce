"""Precision at ten of an index of RSICD: for each scene class a query, and how many of the first ten are of the class.

    python Search.py index --images PATH/TO/RSICD/images --index outputs/rsicd_index
    python benchmarks/search_precision.py PATH/TO/RSICD --index outputs/rsicd_index

Pictures of the training split, which the model was trained on, are ranked apart from those of validation and test.
Prints a table in Markdown.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search.model import model_of  # noqa: E402
from search.table import open_index  # noqa: E402
from utils.errors import run_cli  # noqa: E402
from utils.files import read_json, read_text  # noqa: E402

QUERIES = {
    "Airport": "an airport with planes",
    "BareLand": "a piece of bare land",
    "BaseballField": "a baseball field",
    "Beach": "a beach beside the sea",
    "Bridge": "a bridge over a river",
    "Center": "a large building in the centre of a square",
    "Church": "a church",
    "Commercial": "a commercial area with many tall buildings",
    "DenseResidential": "a dense residential area with many houses",
    "Desert": "a desert",
    "Farmland": "pieces of farmland",
    "Forest": "a green forest",
    "Industrial": "an industrial area with factories",
    "Meadow": "a meadow",
    "MediumResidential": "a residential area with rows of houses and trees",
    "Mountain": "mountains",
    "Park": "a park with trees and a lake",
    "Parking": "a parking lot with many cars",
    "Playground": "a playground with a running track",
    "Pond": "a pond",
    "Port": "a port with boats",
    "RailwayStation": "a railway station",
    "Resort": "a resort with swimming pools",
    "River": "a river",
    "School": "a school with a playground and buildings",
    "SparseResidential": "a house surrounded by trees",
    "Square": "a square",
    "Stadium": "a stadium",
    "StorageTanks": "storage tanks",
    "Viaduct": "a viaduct with many roads",
    "playfields": "a playground with a football field",
}
TOP = 10


def main() -> None:
    """Rank, count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="RSICD's folder, with dataset_rsicd.json and txtclasses_rsicd/")
    parser.add_argument("--index", required=True)
    parser.add_argument("--checkpoint", help="the index's model, where it lies elsewhere now")
    args = parser.parse_args()
    listed = read_json(args.release / "dataset_rsicd.json")["images"]
    split = {image["filename"]: "train" if image["split"] == "train" else "other" for image in listed}
    scenes = defaultdict(set)  # of a picture; a few have two
    for file in sorted((args.release / "txtclasses_rsicd").glob("*.txt")):
        for name in read_text(file).split():
            scenes[name].add(file.stem)

    index = open_index(args.index)
    model = model_of(index, args.checkpoint, "cpu")
    vectors = model.embed_texts(list(QUERIES.values()))
    print("| class | query | training pictures | validation and test pictures |\n|---|---|---|---|")
    totals: dict[str, list[int]] = defaultdict(list)
    for (scene, query), vector in zip(QUERIES.items(), vectors, strict=True):
        ranked = index.nearest(vector, len(index), exact=True)["path"].to_pylist()
        counts = {}
        for part in ("train", "other"):
            first = [name for name in (Path(path).name for path in ranked) if split.get(name) == part][:TOP]
            counts[part] = sum(scene in scenes[name] for name in first)
            totals[part].append(counts[part])
        print(f"| {scene} | {query} | {counts['train']} | {counts['other']} |")
    means = {part: sum(counts) / len(counts) / TOP for part, counts in totals.items()}
    print(f"| mean of {len(QUERIES)} classes, precision at {TOP} | | {means['train']:.3f} | {means['other']:.3f} |")


if __name__ == "__main__":
    run_cli(main)
