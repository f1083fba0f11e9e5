"""Images for calibration, and those that would make ranges meaningless."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data import calibration
from edgecnn.data.calibration import open_calibration
from edgecnn.data.labelled import ArrayPictures, FilePictures, Inputs, LabelledSet
from edgecnn.data.open_set import open_set
from edgecnn.data.sets import calibration_images
from edgecnn.errors import ConfigError, DataError
from edgecnn.spec import Preprocess

COLOUR = Preprocess(8, (8, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Preprocess(8, (8, 8), (0.5,), (0.5,))


def noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_the_photographs_in_the_package() -> None:
    found = open_calibration(None, COLOUR)
    paths = calibration_images()
    assert len(found) == len(paths) == len(found.images) == len(found.fingerprints)
    digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    assert found.sha256 == hashlib.sha256(digests).hexdigest()
    assert found.remarks == ()
    expected = Inputs(FilePictures(tuple(paths)), COLOUR)
    for one, other in zip(found.images, expected, strict=True):
        assert np.array_equal(one, other)


def test_all_images_of_a_folder_count(tmp_path: Path) -> None:
    for seed in range(3):
        noise(tmp_path / f"sub{seed % 2}/{seed}.png", seed)
    seen: list[tuple[str, float, float | None]] = []
    found = open_calibration(tmp_path, COLOUR, lambda *call: seen.append(call))
    assert (len(found), found.name) == (3, str(tmp_path))
    content = (tmp_path / "sub1/1.png").read_bytes()
    assert found.fingerprints[2] == hashlib.sha256(content).hexdigest()
    assert seen[-1][1:] == (3, 3)


def test_the_same_inputs_whether_kept_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        noise(tmp_path / f"{seed}.png", seed)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "1a.png")
    kept = open_calibration(tmp_path, COLOUR)
    monkeypatch.setattr(calibration, "_KEPT_BYTES", 0)
    streamed = open_calibration(tmp_path, COLOUR)
    assert isinstance(streamed.images, Inputs)
    assert (streamed.fingerprints, streamed.remarks) == (kept.fingerprints, kept.remarks)
    for _ in range(2):
        for one, other in zip(kept.images, streamed.images, strict=True):
            assert np.array_equal(one, other)


def many(classes: int, count: int) -> LabelledSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.sort(np.random.default_rng(1).integers(0, classes, count))
    labels[:20] = 0
    pictures = ArrayPictures(pixels, np.arange(count), "cifar10:train")
    return LabelledSet("cifar10:train", tuple(map(str, range(classes))), labels, pictures)


def test_a_named_set_gives_images_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    data = many(7, 900)
    asked = []

    def open_named(known: object, part: str, progress: object) -> LabelledSet:
        asked.append(part)
        return data

    monkeypatch.setattr("edgecnn.data.open_set.open_named", open_named)
    found = open_calibration("cifar10", COLOUR)
    assert asked == ["train"]
    assert (len(found), len(set(found.fingerprints))) == (512, 512)
    classes = {data.pictures.fingerprint(row): label for row, label in enumerate(data.labels)}
    drawn = [classes[fingerprint] for fingerprint in found.fingerprints]
    counts = np.bincount(drawn)
    assert counts.max() - counts.min() <= 1
    # Mixed: any stretch has most classes in it, and the same ones come each time.
    assert min(len(set(drawn[start : start + 30])) for start in range(0, 480, 30)) >= 5
    assert open_calibration("cifar10:train", COLOUR).fingerprints == found.fingerprints


def test_a_part_of_a_folder_is_not_in_the_other(tmp_path: Path) -> None:
    for seed in range(20):
        noise(tmp_path / f"class {seed % 2}" / f"{seed}.png", seed)
    found = open_calibration(f"{tmp_path}:train", COLOUR)
    test = open_set(tmp_path, "test")
    judged = {test.pictures.fingerprint(index) for index in range(len(test))}
    assert (len(found), len(judged)) == (16, 4)
    assert not judged & set(found.fingerprints)


def test_images_of_one_colour(tmp_path: Path) -> None:
    for shade in range(3):
        Image.new("RGB", (9, 9), (shade, 80, 7)).save(tmp_path / f"{shade}.png")
    with pytest.raises(DataError, match=r"of one colour \(3 images\)") as caught:
        open_calibration(tmp_path, COLOUR)
    assert caught.value.hint
    noise(tmp_path / "noise.png", 0)
    noise(tmp_path / "other.png", 1)
    found = open_calibration(tmp_path, COLOUR)
    assert len(found) == len(found.images) == 2
    [remark] = found.remarks
    assert "3 calibration images of one colour are left out" in remark
    assert "0.png" in remark


def test_grey_images_are_remarked_where_the_network_sees_colour(tmp_path: Path) -> None:
    for seed in range(3):
        noise(tmp_path / f"{seed}.png", seed)
        Image.open(tmp_path / f"{seed}.png").convert("L").save(tmp_path / f"{seed}.png")
    assert open_calibration(tmp_path, COLOUR).remarks == (
        "all 3 calibration images are grey: ranges have seen no colour",
    )
    assert open_calibration(tmp_path, GREY).remarks == ()
    noise(tmp_path / "colour.png", 7)
    assert open_calibration(tmp_path, COLOUR).remarks == ()


def test_a_single_image_is_remarked(tmp_path: Path) -> None:
    noise(tmp_path / "0.png", 0)
    [remark] = open_calibration(tmp_path, COLOUR).remarks
    assert "single image" in remark


@pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")
@pytest.mark.parametrize("std", [0.0, float("nan")])
def test_values_that_are_not_finite(tmp_path: Path, std: float) -> None:
    noise(tmp_path / "0.png", 0)
    broken = Preprocess(8, (8, 8), (0.5, 0.5, 0.5), (std, 0.2, 0.2))
    with pytest.raises(DataError, match=r"0\.png becomes an input with values that are not finite") as caught:
        open_calibration(tmp_path, broken)
    assert "std" in str(caught.value.hint)


def test_sets_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_calibration(tmp_path / "nowhere", COLOUR)
    with pytest.raises(ConfigError, match="no data set"):
        open_calibration(f"{tmp_path / 'nowhere'}:train", COLOUR)
    with pytest.raises(DataError, match="no train part"):
        open_calibration("imagenet70", COLOUR)


def test_images_that_look_alike_count_once(tmp_path: Path) -> None:
    for index in range(20):
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels[index, index] = 255
        Image.fromarray(pixels).save(tmp_path / f"{index:02d}.png")
    large = Preprocess(64, (64, 64), COLOUR.mean, COLOUR.std)
    found = open_calibration(tmp_path, large)
    assert (len(found), found.distinct) == (20, 1)
    assert found.remarks == ("19 of 20 calibration images look like others: they add nothing",)
    noise(tmp_path / "other.png", 1)
    assert open_calibration(tmp_path, large).distinct == 2
