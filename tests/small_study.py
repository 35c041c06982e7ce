"""Small studies, and runs of theirs in the form run.py leaves them, made without training."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from study.plan import FIGURES
from study.results import Ranks
from tests.tiny import FILES, SIZES, TEXT, VISION
from utils.config import config_from_file


def write_config(folder: Path) -> Path:
    """A config of small sizes whose data is not there."""
    named = {}
    for key, sizes in (("vision_config", VISION), ("text_config", TEXT)):
        (folder / f"{key}.json").write_text(json.dumps(sizes))
        named[key] = str(folder / f"{key}.json")
    file = folder / "base.yaml"
    file.write_text(yaml.safe_dump(FILES | SIZES | named))
    return file


def write_study(folder: Path, rows: dict, **more: object) -> Path:
    """A study file of the rows over `write_config`'s config."""
    values = {"title": "A small study", "config": str(write_config(folder)), "task": "itr_demo"} | more
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(values | {"rows": rows}, sort_keys=False))
    return file


def random_ranks(pictures: int = 40, captions: int = 3, best: float = 0.3, seed: int = 0) -> Ranks:
    """Ranks of pictures with so many captions each; the higher `best`, the more are 0."""
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(pictures, dtype=np.int32), captions)
    draw = lambda count: np.minimum(rng.geometric(best, count) - 1, pictures - 1).astype(np.int32)  # noqa: E731
    names = np.array([f"picture_{number:03d}.jpg" for number in range(pictures)])
    return Ranks(draw(pictures), draw(pictures * captions), own, names)


def figures_of(ranks: Ranks) -> dict[str, float]:
    """The seven figures of ranks, rounded as result.json's are."""
    sides = (("txt", ranks.image_to_text), ("img", ranks.text_to_image))
    exact = {f"{side}_r{k}": 100 * float((r < k).mean()) for side, r in sides for k in (1, 5, 10)}
    return {name: round(value, 2) for name, value in (exact | {"r_mean": sum(exact.values()) / 6}).items()}


def write_run(
    output_dir: Path,
    row: str,
    seed: int,
    config: Path,
    overrides: Sequence[str] = (),
    ranks: Ranks | None = None,
    with_ranks: bool = True,
    **more: object,
) -> Path:
    """The folder of a finished run."""
    folder = output_dir / row / f"seed_{seed}"
    folder.mkdir(parents=True)
    ranks = ranks or random_ranks(seed=seed)
    result = figures_of(ranks) | {
        "split": "test",
        "test_file": "test.json",
        "pictures": len(ranks.images),
        "captions": len(ranks.own_image_of_text),
        "epoch": 1,
        "seed": seed,
        "processes": 1,
        "batch_size": 8,
        "parameters": {"total": 2_000_000, "trained": 1_500_000},
        "train_seconds": 100.0 + seed,
        "peak_memory_bytes": 2**30,
        "config": config_from_file(config, list(overrides)).to_dict(),
        "versions": {},
    }
    assert set(FIGURES) <= set(result)
    (folder / "result.json").write_text(json.dumps(result | more))
    if with_ranks:
        np.savez_compressed(folder / "ranks.npz", **vars(ranks))
    return folder


def write_embeddings(folder: Path, scenes: int = 12, spread: float = 0.3, pictures: int = 120, labelled=True) -> None:
    """An embeddings.npz whose pictures and captions lie around a centre for each scene."""
    rng = np.random.default_rng(0)
    label = np.arange(pictures) % scenes
    centres = rng.normal(size=(scenes, 16))

    def around(labels: np.ndarray) -> np.ndarray:
        points = centres[labels] + spread * rng.normal(size=(len(labels), 16))
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)

    own = np.repeat(np.arange(pictures, dtype=np.int32), 2)
    arrays = {"image_embeds": around(label), "text_embeds": around(label[own]), "own_image_of_text": own}
    arrays["images"] = np.array([f"{number}.jpg" for number in range(pictures)])
    if labelled:
        arrays |= {"label": label.astype(np.int32), "label_name": np.array([f"scene {number}" for number in label])}
    np.savez_compressed(folder / "embeddings.npz", **arrays)
