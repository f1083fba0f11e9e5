"""run.py: the same numbers as the package's own code, from numpy, Pillow and the runtime alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn import pipeline
from edgecnn.bundle import run as script
from edgecnn.data import images
from edgecnn.data.images import open_image
from edgecnn.data.preprocess import preprocess
from edgecnn.data.sets import calibration_images, shipped_photos_dir, verification_images
from edgecnn.errors import DataError, WeightsError
from edgecnn.fetch.fetch import fetch
from edgecnn.spec import Preprocess
from edgecnn.versions import version_of
from edgecnn.zoo import resolve

RECIPES = [
    Preprocess(resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Preprocess(resize=37, crop=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"),
    Preprocess(resize=32, crop=(32, 32), mean=(0.1307,), std=(0.3081,)),
    Preprocess(resize=37, crop=(32, 57), mean=(0.5,) * 3, std=(0.5,) * 3),
    Preprocess(resize=32, crop=(64, 32), mean=(0.1, 0.2, 0.3, 0.4, 0.5), std=(0.5,) * 5),
]
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I", "F", "PA")
RUNTIMES = {"tflite": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def noise(width: int, height: int, channels: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def odd_images(folder: Path) -> list[Path]:
    """Every mode that a format here can store, every orientation, and shapes that are hard to cut."""
    rgba = Image.fromarray(noise(61, 47, 4), "RGBA")
    for mode in MODES:
        try:
            source = rgba.convert("RGB").convert("L") if mode.startswith("I") else rgba
            image = source.convert("RGB").convert("P").convert("PA") if mode == "PA" else source.convert(mode)
        except ValueError:
            image = source.convert("RGB").convert(mode)
        if mode == "I;16":
            image = Image.fromarray(noise(61, 47, 1)[..., 0].astype(np.uint16) * 257)
        for suffix in ("png", "tiff", "jpg", "webp", "gif", "bmp", "ppm"):
            path = folder / f"{mode.replace(';', '_')}.{suffix}"
            try:
                image.save(path)
            except (OSError, ValueError, KeyError, SystemError):
                path.unlink(missing_ok=True)
    upright = rgba.convert("RGB")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright.save(folder / f"exif{orientation}.jpg", exif=exif)
    upright.quantize(8).save(folder / "transparent.gif", transparency=3)
    upright.save(folder / "colour_key.png", transparency=(1, 2, 3))
    for width, height in ((1, 1), (2, 300), (300, 2), (225, 224), (224, 225), (33, 32), (997, 661)):
        Image.fromarray(noise(width, height, 3)).save(folder / f"{width}x{height}.png")
    return sorted(folder.iterdir())


def same(path: Path, recipe: Preprocess) -> bool:
    """Whether both give the same bytes; False where both refuse."""
    channels = len(recipe.mean)
    try:
        expected = preprocess(open_image(path, channels), recipe)
    except DataError:
        with pytest.raises(SystemExit, match="error: image"):
            script.read_input(path, recipe.to_json(), "NCHW")
        return False
    nchw = script.read_input(path, recipe.to_json(), "NCHW")
    nhwc = script.read_input(path, recipe.to_json(), "NHWC")
    assert nchw.dtype == nhwc.dtype == np.float32
    assert nhwc.flags.c_contiguous
    np.testing.assert_array_equal(nchw, expected, err_msg=path.name)
    np.testing.assert_array_equal(nhwc, expected.transpose(0, 2, 3, 1), err_msg=path.name)
    return True


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.crop}x{len(recipe.mean)}")
def test_preprocessing_is_the_packages_own(recipe: Preprocess, tmp_path: Path) -> None:
    paths = odd_images(tmp_path)
    taken = [path for path in paths if same(path, recipe)]
    assert len(taken) > 40
    assert len(paths) - len(taken) <= 3  # float and 32-bit images, refused by both


def test_photographs_are_prepared_alike() -> None:
    for path in (*verification_images(), *calibration_images()[:5]):
        assert same(path, RECIPES[0])


def test_the_limits_are_the_packages_own(tmp_path: Path) -> None:
    assert (script.FORMATS, script.MAX_PIXELS) == (images.FORMATS, images.MAX_PIXELS)
    Image.new("1", (1, 9000)).save(tmp_path / "strip.png")
    assert not same(tmp_path / "strip.png", RECIPES[0])
    Image.new("1", (10_000, 7_000)).save(tmp_path / "large.png")
    assert not same(tmp_path / "large.png", RECIPES[0])


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [artifact] = pipeline.export(
        "lenet5", ["tflite"], weights="random", output=tmp_path_factory.mktemp("lenet"), measure=False
    )
    return artifact.path


def classify(
    bundle: Path, *arguments: object, python: object = sys.executable
) -> subprocess.CompletedProcess[str]:
    # -I: as if edgecnn were not there, whatever the environment says.
    command = [str(python), "-I", str(bundle / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle.parent)


def test_it_prints_the_classes(lenet: Path) -> None:
    ended = classify(lenet, verification_images()[0], "--top", 3)
    assert ended.returncode == 0, ended.stderr
    assert [line.split("%")[1].split()[0] for line in ended.stdout.splitlines()] == ["class"] * 3
    assert "random weights" in ended.stderr


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "empty"])
def test_an_image_that_cannot_be_read_is_one_line(kind: str, lenet: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    if kind == "folder":
        photo.mkdir()
    elif kind != "missing":
        whole = verification_images()[0].read_bytes()
        photo.write_bytes({"text": b"no image", "cut": whole[: len(whole) // 3], "empty": b""}[kind])
    ended = classify(lenet, photo)
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(photo) in line


def test_a_bundle_that_is_incomplete_is_one_line(lenet: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(lenet, tmp_path / "bundle")
    (bundle / "preprocess.json").unlink()
    ended = classify(bundle, verification_images()[0])
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"error: {bundle} is not a complete bundle")


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MobileNetV2 with its ImageNet weights, for each runtime."""
    try:
        weights = resolve("mobilenet_v2").weights
        assert weights is not None
        fetch(weights.file)
    except WeightsError as error:
        pytest.skip(f"no ImageNet weights: {error}")
    output = tmp_path_factory.mktemp("mobilenet")
    made = pipeline.export("mobilenet", list(RUNTIMES), output=output, measure=False)
    return {artifact.runtime: artifact.path for artifact in made}


@pytest.mark.network
@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_in_an_environment_with_the_runtime_alone(
    runtime: str, mobilenet: dict[str, Path], tmp_path: Path
) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = [f"{name}=={version_of(name)}" for name in ("numpy", "pillow", RUNTIMES[runtime])]
    installed = subprocess.run(
        [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", *wanted],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"pip cannot install {' '.join(wanted)}: {installed.stderr.strip().splitlines()[-1:]}")
    others = "torch onnx edgecnn " + " ".join(set(RUNTIMES) - {runtime})
    absent = f"import importlib.util as u; assert not any(map(u.find_spec, {others.split()!r}))"
    subprocess.run([python, "-I", "-c", absent], check=True)
    ended = classify(mobilenet[runtime], shipped_photos_dir() / "calibration" / "chelsea.jpg", python=python)
    assert ended.returncode == 0, ended.stderr
    # The cat of scikit-image; ImageNet's nearest word for it depends on the network.
    assert any(word in ended.stdout.splitlines()[0] for word in ("cat", "tabby")), ended.stdout
    shutil.rmtree(environment)
