"""Preprocessing against torchvision's published semantics, and the memory of a stream."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data.labelled import FilePictures, Inputs
from edgecnn.data.preprocess import preprocess
from edgecnn.errors import ConfigError, DataError
from edgecnn.spec import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(256, 256), (640, 480), (480, 640), (257, 391), (391, 257)]
SIZES += [(333, 1001), (50, 37), (1, 3), (224, 225), (3000, 17)]


def _photo(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(size[0] * 10_007 + size[1]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


def _as_torchvision(image: Image.Image, recipe: Preprocess) -> np.ndarray:
    """Resize(int), CenterCrop, ToTensor and Normalize of torchvision.transforms.functional, step by step."""
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = recipe.resize, int(recipe.resize * long / short)
    new_w, new_h = (new_short, new_long) if w <= h else (new_long, new_short)
    if (w, h) != (new_w, new_h):
        kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        image = image.resize((new_w, new_h), kernel[recipe.interpolation])
    image_width, image_height = image.size
    height, width = recipe.crop
    crop_top = int(round((image_height - height) / 2.0))  # noqa: RUF046
    crop_left = int(round((image_width - width) / 2.0))  # noqa: RUF046
    image = image.crop((crop_left, crop_top, crop_left + width, crop_top + height))
    pixels = np.atleast_3d(np.asarray(image))
    tensor = np.empty((1, len(recipe.mean), height, width), dtype=np.float64)
    for channel, (mean, std) in enumerate(zip(recipe.mean, recipe.std, strict=True)):
        tensor[0, channel] = (pixels[:, :, channel] / 255.0 - mean) / std
    return tensor


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("resize", "crop"), [(256, 224), (256, 223), (129, 128), (146, 128), (37, 36), (64, 64)]
)
def test_equals_torchvision(size: tuple[int, int], interpolation: str, resize: int, crop: int) -> None:
    """Odd sizes, both orientations, up- and downscaling, crops that leave an odd margin."""
    recipe = Preprocess(resize=resize, crop=(crop, crop), mean=MEAN, std=STD, interpolation=interpolation)
    x = preprocess(_photo(size), recipe)
    assert x.shape == (1, 3, crop, crop)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x, _as_torchvision(_photo(size), recipe), rtol=1e-6, atol=1e-6)


def test_offsets_round_half_to_even() -> None:
    """Margins of 1, 3, 5 and 7 start at 0, 2, 2 and 4, as Python's round has it."""
    columns = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (40, 1)))
    for margin, offset in ((1, 0), (3, 2), (5, 2), (7, 4)):
        recipe = Preprocess(resize=40, crop=(40 - margin, 40 - margin), mean=(0.0,), std=(1.0,))
        assert round(float(preprocess(columns, recipe)[0, 0, 0, 0]) * 255) == offset


def test_grey() -> None:
    """One channel in, one channel out."""
    recipe = Preprocess(resize=32, crop=(28, 28), mean=(0.1307,), std=(0.3081,))
    grey = _photo((45, 61), "L")
    x = preprocess(grey, recipe)
    assert x.shape == (1, 1, 28, 28)
    np.testing.assert_allclose(x, _as_torchvision(grey, recipe), rtol=1e-6, atol=1e-6)


def test_antialiased() -> None:
    """A fine chessboard becomes flat grey when it is shrunk, not a pattern."""
    board = Image.fromarray((np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8))
    x = preprocess(board, Preprocess(resize=64, crop=(32, 32), mean=(0.0,), std=(1.0,)))
    assert np.abs(x - 0.5).max() < 0.01


def test_refuses_recipes_that_do_not_fit() -> None:
    """Never guessed: interpolation, crop and channels."""
    photo = _photo((40, 40))
    for recipe, words in (
        (Preprocess(32, (28, 28), MEAN, STD, "nearest"), "unknown interpolation 'nearest'"),
        (Preprocess(28, (32, 32), MEAN, STD), "does not fit into 28"),
        (Preprocess(32, (28, 28), (0.5,), (0.5,)), "mode RGB does not fit 1 means"),
        (Preprocess(32, (28, 28), MEAN, (1.0,)), "3 means, 1 deviations"),
    ):
        with pytest.raises(ConfigError, match=words):
            preprocess(photo, recipe)


def test_refuses_what_would_grow_to_gigabytes() -> None:
    """One pixel by 60 000 would be resized to 256 by 15 million."""
    with pytest.raises(DataError, match="too narrow"):
        preprocess(Image.new("RGB", (1, 60_000)), Preprocess(256, (224, 224), MEAN, STD))


# --- streams ----------------------------------------------------------------------------------------------

RECIPE = Preprocess(resize=36, crop=(32, 32), mean=MEAN, std=STD)


def _write_photos(folder: Path, count: int) -> tuple[Path, ...]:
    paths = tuple(folder / f"{number:03}.png" for number in range(count))
    for number, path in enumerate(paths):
        _photo((48, 40 + number)).save(path)
    return paths


def test_stream_can_be_iterated_again(tmp_path: Path) -> None:
    """Calibration takes several passes."""
    stream = Inputs(FilePictures(_write_photos(tmp_path, 4)), RECIPE)
    first, second = list(stream), list(stream)
    assert len(stream) == len(first) == 4
    assert all(x.shape == (1, 3, 32, 32) and x.dtype == np.float32 for x in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_stream_follows_the_recipe_to_grey(tmp_path: Path) -> None:
    """The number of channels is that of the means."""
    stream = Inputs(FilePictures(_write_photos(tmp_path, 1)), Preprocess(36, (32, 32), (0.5,), (0.5,)))
    assert next(iter(stream)).shape == (1, 1, 32, 32)


def test_stream_is_lazy_and_names_the_file(tmp_path: Path) -> None:
    """The images before a bad one arrive; then the error says which one it is."""
    paths = _write_photos(tmp_path, 2)
    narrow = tmp_path / "narrow.png"
    Image.new("RGB", (1, 2_000_000)).save(narrow)
    paths[1].write_text("text")
    for bad in (paths[1], narrow):
        arriving = iter(Inputs(FilePictures((paths[0], bad)), RECIPE))
        next(arriving)
        with pytest.raises(DataError, match=bad.name):
            next(arriving)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """The peak of 200 images is that of 20."""
    recipe = Preprocess(resize=256, crop=(224, 224), mean=MEAN, std=STD)
    paths = _write_photos(tmp_path, 200)

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        try:
            for _ in Inputs(FilePictures(paths[:count]), recipe):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(2)
    few, many = peak_bytes(20), peak_bytes(200)
    assert few > 224 * 224 * 3 * 4
    assert many < few * 1.1
