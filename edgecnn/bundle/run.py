"""Classify an image with the model in this folder.

    python run.py IMAGE [--top 5]

Needs numpy, Pillow and the runtime that manifest.json names. Nothing else of edgecnn is used.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

HERE = pathlib.Path(__file__).resolve().parent
# Pillow would also open formats that start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 64_000_000


def fail(message: str) -> NoReturn:
    """End with one line on standard error."""
    sys.exit(f"error: {message}")


def import_runtime(package: str, *modules: str) -> Any:
    """The first of the modules that is installed."""
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
    fail(f"{modules[0]} is not installed: pip install {package}")


def load_tflite(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from one input array to the output array."""
    module = import_runtime("ai-edge-litert", "ai_edge_litert.interpreter", "tflite_runtime.interpreter")
    interpreter = module.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(result["index"]))

    return run


def load_onnxruntime(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from one input array to the output array."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # official builds report their use
    onnxruntime = import_runtime("onnxruntime", "onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def load_openvino(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from one input array to the output array."""
    openvino = import_runtime("openvino", "openvino")
    # float32 arithmetic: the default is bf16 on CPUs that have it, which gives other numbers.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: np.asarray(compiled([x])[0])


LOADERS = {"tflite": load_tflite, "onnxruntime": load_onnxruntime, "openvino": load_openvino}


def open_image(path: pathlib.Path, channels: int) -> Image.Image:
    """An image file upright, opaque and with 8 bits a channel: RGB, or grey for one channel."""
    image: Image.Image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS // 1_000_000} megapixels")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("it has 32-bit values of unknown range")
        image = Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it has float values of unknown range")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def preprocess(image: Image.Image, recipe: dict[str, Any], layout: str) -> np.ndarray:
    """An image as the model's input: float32, one image, NCHW or NHWC."""
    (height, width), channels = recipe["crop"], len(recipe["mean"])
    rows, columns = (round(recipe["resize"] * side / min(height, width)) for side in (height, width))
    if image.width * rows <= image.height * columns:
        size = columns, max(rows, int(columns * image.height / image.width))
    else:
        size = max(columns, int(rows * image.width / image.height)), rows
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError("it is too narrow")
    image = image.resize(size, getattr(Image.Resampling, recipe["interpolation"].upper()))
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    cut = np.asarray(image.crop((left, top, left + width, top + height)), np.float32)
    cut = cut.reshape(height, width, -1)
    if channels != cut.shape[2]:
        cut = cut[
            :, :, np.arange(channels) % cut.shape[2]
        ]  # more channels than a photograph has: they repeat
    pixels = cut / np.float32(255)
    x = (pixels - np.asarray(recipe["mean"], np.float32)) / np.asarray(recipe["std"], np.float32)
    return np.ascontiguousarray((x.transpose(2, 0, 1) if layout == "NCHW" else x)[None])


def read_input(path: pathlib.Path, recipe: dict[str, Any], layout: str) -> np.ndarray:
    """An image file as the model's input; ends the program where that cannot be."""
    if not path.is_file():
        fail(f"there is no image {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return preprocess(open_image(path, len(recipe["mean"])), recipe, layout)
    except UnidentifiedImageError:
        fail(f"{path} is not an image; known formats: {', '.join(FORMATS)}")
    except Exception as error:  # damaged files make Pillow raise nearly anything
        fail(f"image {path} cannot be used: {error}")


def main() -> None:
    """Print the most likely classes of one image."""
    parser = argparse.ArgumentParser(description="Classify an image with the model in this folder.")
    parser.add_argument("image", type=pathlib.Path)
    parser.add_argument("--top", type=int, default=5, help="how many classes to print")
    arguments = parser.parse_args()
    try:
        manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
        recipe = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{HERE} is not a complete bundle: {error}")
    labels_file = HERE / "labels.txt"
    labels = labels_file.read_text(encoding="utf-8").splitlines() if labels_file.exists() else None
    x = read_input(arguments.image, recipe, manifest["input"]["layout"])
    run = LOADERS[manifest["runtime"]](HERE / manifest["model_file"])
    output = run(x)
    if output.ndim != 2:
        fail(f"this network gives an array of shape {output.shape}, no list of classes; use its runtime")
    logits = output.astype(np.float32).reshape(-1)
    shares = logits
    if logits.min() < 0 or abs(logits.sum() - 1) > 0.01:  # not probabilities already
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
    if manifest["weights"]["random"]:
        print("random weights: these classes mean nothing", file=sys.stderr)
    for index in np.argsort(-logits, kind="stable")[: max(arguments.top, 1)]:
        print(f"{shares[index]:6.1%}  {labels[index] if labels else f'class {index}'}")


if __name__ == "__main__":
    main()
