"""Picture loading, the train and evaluation transforms, normalisation."""

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.functional import normalize, to_tensor

from benchmarks.pictures import PLAIN_OPERATIONS, plain_augmentation, plain_load
from dataset import transforms
from dataset.pictures import load_picture
from dataset.transforms import OPERATIONS, evaluation_transform, train_transform
from models.encoders import PICTURE_MEAN, PICTURE_STD, normalise
from utils.errors import InputError

PARITY = Path(__file__).parent / "parity"
MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def noise(width=64, height=48, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def scene(width, height, seed=0):
    """Smooth patches with some grain: a picture whose neighbouring pixels are alike, as a photograph's are."""
    patches = Image.fromarray(noise(6, 5, seed)).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(patches) // 8 * 7 + noise(width, height, seed) // 8).astype(np.uint8)


def test_evaluation_pictures_agree_with_the_released_code():
    for case in json.loads((PARITY / "eval_transform.json").read_text()):
        image = normalise(evaluation_transform(224)(load_picture(PARITY / case["file"]))[None])[0]
        torch.testing.assert_close(image.mean((1, 2)), torch.tensor(case["mean"]), atol=1e-3, rtol=0)
        torch.testing.assert_close(image.std((1, 2)), torch.tensor(case["std"]), atol=1e-3, rtol=0)
        for place, value in case["at"].items():
            assert float(image[tuple(json.loads(place))]) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_with_the_released_code(name):
    case = json.loads((PARITY / "randaugment.json").read_text())
    recorded = case["ops"][name]
    strength = recorded["args"][0] if recorded["args"] else 0.0
    got = OPERATIONS[name].apply(load_picture(PARITY / case["input"]), strength)
    assert got.shape == load_picture(PARITY / case["input"]).shape
    difference = np.asarray(got, float) - np.asarray(load_picture(PARITY / recorded["file"]), float)
    assert np.abs(difference[8:-8, 8:-8]).mean() < 2
    assert abs(strength) == pytest.approx(OPERATIONS[name].strength)  # magnitude 7 of 10


@pytest.mark.parametrize("name", MOVES)
def test_moves_of_opposite_sign_mirror_each_other_and_leave_grey(name):
    assert OPERATIONS[name].signed
    image, strength = noise(65, 65), OPERATIONS[name].strength
    moved = {sign: np.asarray(OPERATIONS[name].apply(image, sign * strength), int) for sign in (-1, 1)}
    assert np.abs(moved[1] - moved[-1]).mean() > 20
    assert all((pixels == 128).all(axis=2).mean() > 0.02 for pixels in moved.values())


def test_only_moves_have_a_random_sign():
    assert {name for name, operation in OPERATIONS.items() if operation.signed} == set(MOVES)
    assert len(OPERATIONS) == 10


def test_sharpness_wraps_around_as_released():
    pixels = np.full((5, 5, 3), 200, np.uint8)
    pixels[2, 2] = 255
    sharp = OPERATIONS["Sharpness"].apply(pixels, 1.36)
    assert (sharp[2, 2] < 50).all()  # 267 without the wrap


def test_each_operation_is_applied_with_probability_one_half(monkeypatch):
    applied = []
    counted = transforms.Operation(lambda image, strength: applied.append(strength) or image, 3.0, signed=True)
    monkeypatch.setattr(transforms, "_OPERATIONS", (counted,) * 10)
    torch.manual_seed(0)
    for _ in range(1000):
        transforms.RandAugment(2)(None)
    assert len(applied) == pytest.approx(1000, abs=100)  # 2000 draws
    assert applied.count(-3.0) == pytest.approx(len(applied) / 2, abs=80)


def test_operations_are_drawn_with_replacement_from_all_ten(monkeypatch):
    drawn = []
    operations = tuple(
        transforms.Operation(lambda image, _, name=name: drawn[-1].append(name) or image) for name in OPERATIONS
    )
    monkeypatch.setattr(transforms, "_OPERATIONS", operations)
    torch.manual_seed(0)
    for _ in range(1000):
        drawn.append([])
        transforms.RandAugment(2)(None)
    assert {name for names in drawn for name in names} == set(OPERATIONS)
    assert any(len(names) == 2 and names[0] == names[1] for names in drawn)


def test_a_train_picture_repeats_with_its_seed_and_differs_with_another():
    def picture(seed):
        torch.manual_seed(seed)
        return train_transform(32, quarter_turns=True)(noise())

    first = picture(1)
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, picture(1))
    assert not torch.equal(first, picture(2))


def test_without_operations_a_train_picture_is_a_crop_and_a_flip_only(monkeypatch):
    def not_expected(*_):
        raise AssertionError("an operation was applied")

    monkeypatch.setattr(transforms, "_OPERATIONS", (transforms.Operation(not_expected),) * 10)
    left_to_right = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    torch.manual_seed(0)
    signs = set()
    for _ in range(20):
        image = train_transform(32, randaugment_ops=0)(left_to_right).int()
        assert torch.equal(image[:, 0], image[:, -1])  # rows stay alike: nothing turned or sheared
        crop = (image[0, 0, -1] - image[0, 0, 0]).item()
        assert 20 < abs(crop) <= 63  # a side of at least sqrt(0.5 * 3/4) of 64
        signs.add(crop > 0)
    assert signs == {True, False}


def test_quarter_turns_give_each_of_four_turns_exactly():
    image = noise(32, 32)
    turned = [np.rot90(image, k).tobytes() for k in range(4)]  # counter-clockwise
    torch.manual_seed(0)
    seen = [turned.index(transforms.quarter_turn(image).tobytes()) for _ in range(100)]
    assert all(10 < seen.count(k) < 45 for k in range(4))


def test_train_transform_turns_only_when_asked():
    top_to_bottom = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3))

    def columns_alike(**options):
        torch.manual_seed(0)
        images = [train_transform(32, randaugment_ops=0, **options)(top_to_bottom) for _ in range(20)]
        return {torch.equal(image[:, :, 0], image[:, :, -1]) for image in images}

    assert columns_alike() == {True}
    assert columns_alike(quarter_turns=True) == {True, False}


def test_evaluation_keeps_the_whole_picture():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :4] = pixels[:, -4:] = 255  # a centre crop would lose both edges
    image = evaluation_transform(20)(pixels)
    assert image.shape == (3, 20, 20) and image.dtype == torch.uint8
    assert (image[:, :, 0] > 200).all() and (image[:, :, -1] > 200).all()


def test_normalise_is_the_usual_two_steps():
    image = noise()
    expected = normalize(to_tensor(image), PICTURE_MEAN, PICTURE_STD)
    got = normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_8_bit_picture_is_loaded_as_rgb(tmp_path, mode):
    image = Image.fromarray(noise()).convert(mode)
    image.save(tmp_path / "a.tif")
    assert np.array_equal(load_picture(tmp_path / "a.tif"), image.convert("RGB"))


def test_a_picture_that_cannot_be_read_is_named_in_one_line(tmp_path):
    Image.fromarray(noise(300, 300)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / "deep.tif")
    for name in ("cut.jpg", "text.jpg", "deep.tif", "absent.jpg"):
        with pytest.raises(InputError, match=name) as told:
            load_picture(tmp_path / name)
        assert "\n" not in str(told.value)


JPEGS = {
    "usual": {},
    "every channel in full": {"quality": 95, "subsampling": 0},
    "halved sideways": {"quality": 60, "subsampling": 1},
    "progressive": {"progressive": True, "optimize": True},
    "RGB inside": {"keep_rgb": True},
    "with a thumbnail's worth of metadata": {"exif": b"Exif\0\0" + bytes(3000), "comment": b"\xff\xd8\xff\xc0"},
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("size", [(224, 224), (37, 61), (1, 1)])
def test_a_jpeg_has_pillow_s_pixels(tmp_path, kind, size):
    Image.fromarray(scene(*size)).save(tmp_path / "a.jpg", **JPEGS[kind])
    loaded = load_picture(tmp_path / "a.jpg")
    assert loaded.shape == (*reversed(size), 3) and loaded.dtype == np.uint8
    assert np.array_equal(loaded, plain_load(tmp_path / "a.jpg"))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_of_other_channels_has_pillow_s_pixels(tmp_path, mode):
    Image.fromarray(scene(40, 30)).convert(mode).save(tmp_path / "a.jpg")
    assert np.array_equal(load_picture(tmp_path / "a.jpg"), plain_load(tmp_path / "a.jpg"))


def test_a_jpeg_that_says_it_is_enormous_is_refused(tmp_path):
    Image.fromarray(scene(40, 30)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    frame = data.index(b"\xff\xc0") + 5
    (tmp_path / "a.jpg").write_bytes(data[:frame] + b"\xff\xdc\xff\xdc" + data[frame + 4 :])
    with pytest.raises(InputError, match="DecompressionBomb"):
        load_picture(tmp_path / "a.jpg")


def test_usual_jpegs_are_decoded_without_pillow(tmp_path, monkeypatch):
    Image.fromarray(scene(40, 30)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(transforms.Image, "open", lambda *_: pytest.fail("Pillow was asked"))
    load_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_with_pillow_s(name):
    exact = name not in ("ShearX", "ShearY", "Rotate")  # between pixels, libraries round differently
    for seed in range(3):
        image = scene(90, 70, seed)
        strength = OPERATIONS[name].strength
        for sign in (1, -1) if OPERATIONS[name].signed else (1,):
            got = OPERATIONS[name].apply(image, sign * strength).astype(int)
            plain = np.asarray(PLAIN_OPERATIONS[name](Image.fromarray(image), sign * strength), int)
            assert np.array_equal(got, plain) if exact else np.abs(got - plain)[8:-8, 8:-8].mean() < 1


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_channel_of_one_value_stays_as_it_is(name, value):
    image = noise()
    image[:, :, 1] = value
    assert (OPERATIONS[name].apply(image, 0.0)[:, :, 1] == value).all()


def test_no_operation_changes_the_picture_it_is_given():
    image = noise()
    image.flags.writeable = False  # as a cached picture is
    for operation in OPERATIONS.values():
        operation.apply(image, operation.strength)


def drawn(transform, pictures, count):
    """`count` training pictures, int [count, 3, 64, 64], each from a seed of its own."""
    images = []
    for seed in range(count):
        torch.manual_seed(seed)
        images.append(transform(pictures[seed % len(pictures)]).int())
    return torch.stack(images)


def test_train_pictures_are_those_of_the_transform_written_one_pillow_call_after_another():
    pictures = [scene(96, 80, seed) for seed in range(8)]
    ours = drawn(train_transform(64), pictures, 400)
    plain = drawn(v2.Compose([*plain_augmentation(64), v2.PILToTensor()]), [Image.fromarray(p) for p in pictures], 400)
    difference = (ours - plain).abs().float().mean((1, 2, 3))  # of each picture
    assert (difference < 1).float().mean() > 0.9 and difference.max() < 4  # the same seed, the same draws
    for statistic in (torch.mean, torch.std):
        theirs = statistic(plain.float(), dim=(2, 3))  # of each channel, [400, 3]
        torch.testing.assert_close(statistic(ours.float(), dim=(2, 3)).mean(0), theirs.mean(0), atol=0.3, rtol=0)
        torch.testing.assert_close(statistic(ours.float(), dim=(2, 3)).std(0), theirs.std(0), atol=0.3, rtol=0)


@pytest.mark.parametrize("size", [(48, 64), (64, 64), (300, 170)])
def test_evaluation_pictures_are_pillow_s_resized(size):
    image = scene(*size)
    plain = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC), int)
    got = evaluation_transform(64)(image).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(got - plain).max() <= (0 if size == (64, 64) else 2)


def test_a_read_only_picture_of_which_a_part_is_taken_is_left_alone():
    image = scene(100, 90)
    before = image.copy()
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation_transform(64)(image), evaluation_transform(90)(image[:, :90])
        for seed in range(20):
            torch.manual_seed(seed)
            train_transform(64, quarter_turns=True)(image)
    assert np.array_equal(image, before)


def test_a_picture_may_be_pillow_s():
    image = scene(50, 40)
    assert torch.equal(evaluation_transform(20)(Image.fromarray(image)), evaluation_transform(20)(image))


def test_transforms_can_be_sent_to_a_process_that_is_not_forked():
    for transform in (train_transform(32, quarter_turns=True), evaluation_transform(32)):
        pictures = []
        for each in (transform, pickle.loads(pickle.dumps(transform))):
            torch.manual_seed(0)
            pictures.append(each(noise()))
        assert torch.equal(*pictures)
