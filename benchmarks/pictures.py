"""Pictures a second on one core, against the same transforms written one Pillow call after another.

    python benchmarks/pictures.py [--output pictures.json] [--images FOLDER] [--pictures N]

Every form decodes JPEGs of 224 by 224 (drawn here, or the first N of FOLDER), transforms them and stacks batches, as a
loader's worker does; they take turns in one process and one thread, and the ratio is the median over the rounds, in
processor time. The plain form gives float32 normalised, as the released code does; ours uint8, since
the device normalises (`normalise` is what that takes where the device is this processor). `alone` leaves out the
stacking, where four times the bytes cost the plain form most.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import (  # noqa: E402
    Times,
    in_turns,
    parser_of,
    profiled,
    ratio,
    read,
    report,
    trace_file,
)
from dataset.annotations import TrainRecord  # noqa: E402
from dataset.cache import PictureCache  # noqa: E402
from dataset.drawn.grammar import scene_at  # noqa: E402
from dataset.drawn.pictures import draw_scene  # noqa: E402
from dataset.loaders import TrainDataset  # noqa: E402
from dataset.pictures import load_picture  # noqa: E402
from dataset.releases.shard_writer import write_shards  # noqa: E402
from dataset.shard_loader import ShardDataset  # noqa: E402
from dataset.shards import read_shards  # noqa: E402
from dataset.transforms import (  # noqa: E402
    OPERATIONS,
    evaluation_transform,
    train_transform,
)
from models.encoders import PICTURE_MEAN, PICTURE_STD, normalise  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.files import PICTURE_FORMATS  # noqa: E402

SIZE, BATCH, FILL = 224, 64, (128, 128, 128)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    args = parse(arguments)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        files = found(args.images, args.pictures) if args.images else drawn(Path(folder), args.pictures)
        ways = forms(files, Path(folder))
        times = in_turns(ways, args.repeats, clock=time.process_time)
        if args.profile:
            print(profiled(ways["train"], trace_file(args, "train")))
    milliseconds = {name: [seconds / len(files) * 1e3 for seconds in of] for name, of in times.items()}
    figures = {**ratios(times), "pictures": len(files)}
    report(args, figures, milliseconds, title=f"A picture of {len(files)}", unit="milliseconds")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of("pictures.py", __doc__, repeats=15)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="JPEGs to measure on (default: drawn ones)")
    parser.add_argument("--pictures", type=int, default=128, metavar="N", help="how many (128)")
    return read(parser, arguments, "pictures")


def found(folder: Path, count: int) -> list[str]:
    """The first JPEGs of a folder."""
    files = sorted(str(file) for file in folder.glob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise InputError(f"--images {folder} holds no JPEG")
    return files[:count]


def drawn(folder: Path, count: int) -> list[str]:
    """Drawn scenes, about as many bytes each as an aerial photograph."""
    files = [str(folder / f"{i:04d}.jpg") for i in range(count)]
    for i, file in enumerate(files):
        draw_scene(scene_at("train", i, 0), random.Random(i), SIZE).save(file, quality=80)
    return files


def forms(files: list[str], folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name: each goes over all pictures once."""
    train, evaluation = train_transform(SIZE), evaluation_transform(SIZE)
    records = [TrainRecord("", file, i, None, None) for i, file in enumerate(files)]
    cache = PictureCache(folder / "cache", Path(files[0]).parent)
    cache.open(files)
    entries = [{"caption": "a picture", "image": Path(file).name, "image_id": i} for i, file in enumerate(files)]
    pattern = write_shards(entries, Path(files[0]).parent, folder / "shards", "pictures")
    options: dict[str, Any] = {"batch_size": len(files), "captions_per_image": 1, "seed": 0, "rank": 0, "world_size": 1}
    shards = ShardDataset(read_shards([pattern], labels_required=False), train, **options, labels_required=False)
    plain_train, plain_evaluation = plain_train_transform(SIZE), plain_evaluation_transform(SIZE)
    batch = torch.stack([evaluation(load_picture(file)) for file in files[:BATCH]])

    def ours(load: Callable) -> Iterator[Tensor]:
        dataset = TrainDataset(records, train, load=load)
        return (dataset[i, i].image for i in range(len(files)))

    def plainly(transform: Callable) -> Iterator[Tensor]:
        torch.manual_seed(0)
        return (transform(plain_load(file)) for file in files)

    return {
        "plain train": lambda: stacked(plainly(plain_train)),
        "train": lambda: stacked(ours(load_picture)),
        "train_cache": lambda: stacked(ours(cache.load)),
        "train_shards": lambda: stacked(item.image for item in shards),
        "plain evaluation": lambda: stacked(plainly(plain_evaluation)),
        "evaluation": lambda: stacked(evaluation(load_picture(file)) for file in files),
        "evaluation_cache": lambda: stacked(evaluation(cache.load(file)) for file in files),
        "plain train_alone": lambda: consumed(plainly(plain_train)),
        "train_alone": lambda: consumed(ours(load_picture)),
        "plain evaluation_alone": lambda: consumed(plainly(plain_evaluation)),
        "evaluation_alone": lambda: consumed(evaluation(load_picture(file)) for file in files),
        "normalise": lambda: [normalise(batch) for _ in range(0, len(files), len(batch))],
    }


def stacked(pictures: Iterable[Tensor]) -> None:
    """Pictures gathered to batches, as a loader gives them."""
    pictures = iter(pictures)
    while batch := list(islice(pictures, BATCH)):
        torch.stack(batch)


def consumed(pictures: Iterable[Tensor]) -> None:
    """Pictures made, each dropped before the next."""
    for _ in pictures:
        pass


def ratios(times: Times) -> dict[str, float]:
    """How many times as fast as the plain form of its kind each is: the median over the rounds."""
    plain_of = {
        "train": ("train", "train_cache", "train_shards"),
        "evaluation": ("evaluation", "evaluation_cache"),
        "train_alone": ("train_alone",),
        "evaluation_alone": ("evaluation_alone",),
    }
    return {name: ratio(times, f"plain {kind}", name) for kind, names in plain_of.items() for name in names}


# ---- the plain form ----


def plain_load(path: str) -> Image.Image:
    """The RGB picture at `path`."""
    with Image.open(path, formats=PICTURE_FORMATS) as image:
        return image.convert("RGB")


def plain_train_transform(size: int) -> Callable[[Image.Image], Tensor]:
    """The released training transform, picture -> normalised float32 `[3, size, size]`."""
    return transforms.Compose([*plain_augmentation(size), transforms.ToTensor(), plain_normalisation()])


def plain_augmentation(size: int) -> list[Callable[[Image.Image], Image.Image]]:
    """What of the training transform is random."""
    crop = transforms.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=InterpolationMode.BICUBIC)
    return [crop, transforms.RandomHorizontalFlip(), plain_randaugment]


def plain_evaluation_transform(size: int) -> Callable[[Image.Image], Tensor]:
    """The released evaluation transform, picture -> normalised float32 `[3, size, size]`."""
    resize = transforms.Resize((size, size), InterpolationMode.BICUBIC)
    return transforms.Compose([resize, transforms.ToTensor(), plain_normalisation()])


def plain_normalisation() -> Callable[[Tensor], Tensor]:
    """CLIP's."""
    return transforms.Normalize(PICTURE_MEAN, PICTURE_STD)


def plain_randaugment(image: Image.Image) -> Image.Image:
    """Two operations drawn with replacement, each applied with probability 0.5 and a random sign."""
    names = list(OPERATIONS)
    for choice in torch.randint(len(names), (2,)).tolist():
        apply_draw, sign_draw = torch.rand(2).tolist()
        if apply_draw < 0.5:
            operation = OPERATIONS[names[choice]]
            sign = -1 if operation.signed and sign_draw < 0.5 else 1
            image = PLAIN_OPERATIONS[names[choice]](image, sign * operation.strength)
    return image


def plain_sharpness(image: Image.Image, factor: float) -> Image.Image:
    """As released, a value pushed out of 0..255 wraps around (Pillow's own enhancer would clip it)."""
    smooth = np.asarray(image.filter(ImageFilter.SMOOTH), dtype=np.float32)
    sharp = smooth + factor * (np.asarray(image, dtype=np.float32) - smooth)
    return Image.fromarray(sharp.astype(np.int32).astype(np.uint8))


def plain_rotation(image: Image.Image, degrees: float) -> Image.Image:
    """About the pixel at half the width and height, as released; Pillow counts from a pixel's corner."""
    centre = (image.width / 2 + 0.5, image.height / 2 + 0.5)
    return image.rotate(degrees, resample=Image.Resampling.BILINEAR, center=centre, fillcolor=FILL)


def plain_affine(image: Image.Image, output_to_input: tuple[float, ...]) -> Image.Image:
    """The pixel at (x, y) taken from where `output_to_input` puts it."""
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, affine, output_to_input, resample=bilinear, fillcolor=FILL)


def plain_move(image: Image.Image, right: int, down: int) -> Image.Image:
    """The picture moved by whole pixels."""
    moved = Image.new("RGB", image.size, FILL)
    moved.paste(image, (right, down))
    return moved


PLAIN_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda image, _: image,
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "Sharpness": plain_sharpness,
    "ShearX": lambda image, f: plain_affine(image, (1, -f, f / 2, 0, 1, 0)),
    "ShearY": lambda image, f: plain_affine(image, (1, 0, 0, -f, 1, f / 2)),
    "TranslateX": lambda image, pixels: plain_move(image, -round(pixels), 0),
    "TranslateY": lambda image, pixels: plain_move(image, 0, -round(pixels)),
    "Rotate": plain_rotation,
}


if __name__ == "__main__":
    run_cli(main)
