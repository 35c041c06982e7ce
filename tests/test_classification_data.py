"""Pictures of scene classes: class folders and annotation labels to checked splits, and their loaders."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from dataset.classification import SPLITS, SceneSet, read_scenes, scene_train_loader
from dataset.evaluation_loaders import evaluation_images_loader
from dataset.transforms import evaluation_transform, train_transform
from utils.errors import InputError
from utils.prior_config import PriorConfig

COUNTS = {"Airport": 20, "Beach": 11, "Farmland": 30}


def draw(file: Path, grey: int = 100) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), (grey, grey, grey)).save(file)


@pytest.fixture
def folder(tmp_path):
    """Class folders as AID has them: Airport/airport_1.png."""
    for grey, (name, count) in enumerate(COUNTS.items()):
        for number in range(count):
            draw(tmp_path / "AID" / name / f"{name.lower()}_{number + 1}.png", 10 + 80 * grey)
    return tmp_path / "AID"


@pytest.fixture
def annotated(tmp_path):
    """Annotation files of three classes whose label numbers are not 0, 1, 2: twelve training pictures each."""
    entries = {"train": [], "val": [], "test": []}
    for label, name in ((4, "park"), (7, "pond"), (9, "port")):
        for split, count in (("train", 12), ("val", 3), ("test", 2)):
            for number in range(count):
                image = f"{split}_{name}_{number}.png"
                draw(tmp_path / "images" / image)
                classed = {"image": image, "label": label, "label_name": name}
                if split == "train":
                    image_id = len(entries["train"]) // 2
                    entries["train"] += [classed | {"caption": f"a {c} {name}", "image_id": image_id} for c in "ab"]
                else:
                    entries[split].append(classed | {"caption": [f"a {name}"]})
    return Annotated(tmp_path, entries)


class Annotated:
    """Annotation files that a test may change before they are read."""

    def __init__(self, folder: Path, entries: dict[str, list[dict]]) -> None:
        self.folder, self.entries = folder, entries

    def read(self, **changes: object) -> SceneSet:
        for split, entries in self.entries.items():
            (self.folder / f"{split}.json").write_text(json.dumps(entries))
        files = {"train_file": (str(self.folder / "train.json"),), "image_root": str(self.folder / "images")}
        files |= {f"{split}_file": str(self.folder / f"{split}.json") for split in ("val", "test")}
        return read_scenes(PriorConfig(**files | changes))


def of_folder(folder: Path, **changes: object) -> SceneSet:
    return read_scenes(PriorConfig(class_folders=str(folder), **changes))


def names(scenes: SceneSet, split: str) -> list[str]:
    return [Path(picture.image).name for picture in getattr(scenes, split)]


def per_class(scenes: SceneSet, split: str) -> list[int]:
    counted = Counter(picture.label for picture in getattr(scenes, split))
    return [counted[label] for label in range(len(scenes.classes))]


def error_of(read, *arguments, **changes) -> str:
    with pytest.raises(InputError) as caught:
        read(*arguments, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- class folders


def test_each_class_is_divided_by_its_share(folder):
    scenes = of_folder(folder, val_fraction=0.1, test_fraction=0.2)
    assert scenes.classes == ("Airport", "Beach", "Farmland")
    assert [per_class(scenes, split) for split in SPLITS] == [[14, 8, 21], [2, 1, 3], [4, 2, 6]]
    everything = [name for split in SPLITS for name in names(scenes, split)]
    assert len(everything) == len(set(everything)) == sum(COUNTS.values())
    for picture in scenes.train + scenes.val + scenes.test:
        assert Path(picture.image).parent.name == scenes.classes[picture.label]


def test_the_split_is_the_seeds_and_no_other_class_s(folder):
    first, again = of_folder(folder, split_seed=3), of_folder(folder, split_seed=3)
    assert first == again
    assert first.test != of_folder(folder, split_seed=4).test
    draw(folder / "Bridge" / "bridge_1.png")
    with_another = of_folder(folder, split_seed=3)
    assert [n for n in names(with_another, "test") if "bridge" not in n] == names(first, "test")


def test_a_share_that_floating_point_makes_small_is_whole(folder):
    for number in range(100):
        draw(folder / "Hundred" / f"{number}.png")
    assert per_class(of_folder(folder, val_fraction=0.29), "val")[3] == 29


def test_without_a_test_share_there_is_no_test(folder):
    scenes = of_folder(folder, test_fraction=0.0)
    assert scenes.test == () and set(scenes.sources) == {"train", "val"}
    assert per_class(scenes, "train") == [18, 10, 27]


def test_upper_case_suffixes_count_and_other_and_hidden_files_do_not(folder):
    draw(folder / "Airport" / "airport_21.TIF")
    for name in ("Airport/readme.txt", "Airport/Thumbs.db", "Airport/._airport_1.png", ".DS_Store", "readme.md"):
        (folder / name).write_text("no picture")
    (folder / ".cache").mkdir()
    scenes = of_folder(folder)
    assert scenes.classes == tuple(COUNTS)
    everything = [name for split in SPLITS for name in names(scenes, split)]
    assert "airport_21.TIF" in everything and len(everything) == sum(COUNTS.values()) + 1


@pytest.mark.parametrize("there", [("train", "val", "test"), ("train", "test"), ("train",)])
def test_a_folder_with_its_own_splits_keeps_them(folder, there):
    for split in there:
        for name in COUNTS:
            for number in range(10):
                draw(folder.parent / "split" / split / name / f"{split}_{number}.png")
    scenes = of_folder(folder.parent / "split", val_fraction=0.2)
    expected = {"train": [10] * 3, "val": [10] * 3, "test": [10 * ("test" in there)] * 3}
    if "val" not in there:  # drawn from train/, never from test/
        expected |= {"train": [8] * 3, "val": [2] * 3}
    assert {split: per_class(scenes, split) for split in SPLITS} == expected
    prefixes = {split: {name.partition("_")[0] for name in names(scenes, split)} for split in there}
    assert all(prefixes[split] == {split} for split in there)


def test_folders_that_are_no_class_folders_are_told(folder, tmp_path):
    assert "nowhere" in error_of(of_folder, tmp_path / "nowhere")
    assert "no class folders" in error_of(of_folder, folder / "Airport")
    (folder / "Empty").mkdir()
    (folder / "Empty" / "readme.txt").touch()
    message = error_of(of_folder, folder)
    assert "1 of 4 class folders hold no picture" in message and str(folder / "Empty") in message
    assert "is class_folders=" in error_of(of_folder, tmp_path)  # one level too high
    draw(tmp_path / "one" / "Only" / "1.png")
    assert "one class" in error_of(of_folder, tmp_path / "one")


def test_too_small_a_share_for_validation_is_told(folder):
    assert "val_fraction 0.01" in error_of(of_folder, folder, val_fraction=0.01)


def test_a_class_that_training_lacks_is_told(folder):
    root = folder.parent / "split"
    for name in ("Airport", "Beach"):
        draw(root / "train" / name / "1.png")
    draw(root / "val" / "Bridge" / "1.png")
    assert "'Bridge'" in error_of(of_folder, root)
    draw(root / "Forest" / "1.png")
    assert "'Forest'" in error_of(of_folder, root)


# --- annotation files


def test_annotation_files_give_their_own_splits_and_each_picture_once(annotated):
    scenes = annotated.read()
    assert scenes.classes == ("park", "pond", "port")
    assert [per_class(scenes, split) for split in SPLITS] == [[12] * 3, [3] * 3, [2] * 3]
    assert all(Path(p.image).name.split("_")[1] == scenes.classes[p.label] for p in scenes.train + scenes.val)
    assert {name.partition("_")[0] for name in names(scenes, "train")} == {"train"}
    assert scenes.sources["val"].endswith("val.json")


def without_labels(entries: list[dict]) -> list[dict]:
    return [{key: value for key, value in entry.items() if "label" not in key} for entry in entries]


@pytest.mark.parametrize("given", [True, False])
def test_without_labelled_validation_pictures_a_share_of_training_is_drawn(annotated, given):
    annotated.entries["val"] = without_labels(annotated.entries["val"])
    scenes = annotated.read(val_fraction=0.25, **({} if given else {"val_file": None, "test_file": None}))
    assert [per_class(scenes, split) for split in SPLITS] == [[9] * 3, [3] * 3, [2 * given] * 3]
    assert {name.partition("_")[0] for name in names(scenes, "val")} == {"train"}
    assert "split_seed 0" in scenes.sources["val"]


def test_numbers_name_the_classes_where_no_names_are_given(annotated):
    for entries in annotated.entries.values():
        for entry in entries:
            del entry["label_name"]
    assert annotated.read().classes == ("4", "7", "9")


def test_annotations_without_labels_are_told(annotated):
    annotated.entries["train"] = without_labels(annotated.entries["train"])
    assert "has no 'label'" in error_of(annotated.read)


def test_labels_that_contradict_each_other_are_told(annotated):
    train = annotated.entries["train"]
    train[1]["label"], train[1]["label_name"] = 7, "pond"
    assert "train_park_0.png has the labels 4 and 7" in error_of(annotated.read)
    train[0]["label"], train[1]["label"] = 7, 7
    train[0]["label_name"] = "park"
    message = error_of(annotated.read)
    assert "label 7 is both 'park' and 'pond'" in message and "named 'park'" in message


def test_evaluation_labels_are_checked_against_the_training_s(annotated):
    annotated.entries["val"][2] |= {"label": 5, "label_name": "peak"}
    message = error_of(annotated.read)
    assert "record 3" in message and "label 5 (peak)" in message and "val.json" in message
    annotated.entries["val"][2] |= {"label": 7, "label_name": "park"}  # of another numbering
    assert "label 7 is 'park', in training 'pond'" in error_of(annotated.read)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_picture_of_two_splits_is_told(annotated, split):
    annotated.entries[split][0]["image"] = "train_park_3.png"
    message = error_of(annotated.read)
    assert "(1, first" in message and "train_park_3.png" in message and f"{split}.json" in message


def test_one_class_in_annotations_is_told(annotated):
    annotated.entries = {s: [e for e in es if e["label"] == 4] for s, es in annotated.entries.items()}
    assert "one class" in error_of(annotated.read)


# --- loaders


@pytest.fixture
def loader(folder):
    scenes = of_folder(folder)
    return partial(scene_train_loader, scenes.train, transform=train_transform(8), batch_size=5, seed=2)


def epoch(loader, number):
    loader.set_epoch(number)
    return list(loader)


def same(one, other):
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_a_train_batch_holds_pictures_with_their_own_class(loader, folder):
    pictures = of_folder(folder).train
    batches = epoch(loader(), 0)
    assert len(batches) == len(pictures) // 5
    for batch in batches:
        assert batch.images.shape == (5, 3, 8, 8) and batch.images.dtype == torch.uint8
        assert batch.labels.tolist() == [pictures[i].label for i in batch.indices.tolist()]
    seen = [i for batch in batches for i in batch.indices.tolist()]
    assert len(seen) == len(set(seen))


def test_an_epoch_is_the_same_whatever_ran_before_and_however_many_workers(loader):
    alone = loader()
    third = epoch(alone, 2)
    assert same(third, epoch(loader(num_workers=2), 2))
    assert not same(third, epoch(alone, 1))
    assert same(third, epoch(alone, 2))


def test_processes_share_an_epoch_out(loader):
    shares = [
        {i for batch in epoch(loader(rank=rank, world_size=2), 0) for i in batch.indices.tolist()} for rank in (0, 1)
    ]
    assert not shares[0] & shares[1]


def test_a_batch_larger_than_the_set_is_told(loader):
    assert "smaller batch" in error_of(loader, batch_size=500)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_picture_once_over_all_processes(folder, world_size):
    pictures = of_folder(folder).test
    options = {"transform": evaluation_transform(8), "batch_size": 2, "world_size": world_size}
    seen = {}
    for rank in range(world_size):
        for positions, images in evaluation_images_loader([p.image for p in pictures], rank=rank, **options):
            for position, image in zip(positions.tolist(), images, strict=True):
                assert position not in seen
                seen[position] = int(image.float().mean())
    assert seen == {i: 10 + 80 * picture.label for i, picture in enumerate(pictures)}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_picture_is_one_line_that_names_it(loader, folder, num_workers):
    for file in (folder / "Beach").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    message = error_of(list, loader(num_workers=num_workers))
    assert "Beach" in message and "cannot read" in message


def test_joined_training_files_that_number_scenes_differently_go_by_name_in_every_split(annotated):
    other = [entry | {"label": 4} if entry["label_name"] == "port" else entry for entry in annotated.entries["train"]]
    other = [entry | {"label": 9} if entry["label_name"] == "park" else entry for entry in other]
    (annotated.folder / "images2").mkdir()
    (annotated.folder / "other.json").write_text(json.dumps(other[:2]))
    for entry in annotated.entries["train"][:2]:
        assert entry["label_name"] == "park"
    one, alone = annotated.folder / "train.json", annotated.read()
    joined = annotated.read(train_file=(str(one), str(annotated.folder / "other.json")))
    assert joined.classes == ("park", "pond", "port")
    for split in SPLITS:
        named = [{(p.image, scenes.classes[p.label]) for p in getattr(scenes, split)} for scenes in (alone, joined)]
        assert named[0] == named[1]
    del annotated.entries["val"][0]["label_name"]
    message = error_of(annotated.read, train_file=(str(one), str(annotated.folder / "other.json")))
    assert "record 1" in message and "without a name" in message
