"""Classify an image with the model in this folder.

    python run.py IMAGE [--top 5]

Needs numpy, Pillow and the runtime that manifest.json names. Nothing else of edgecnn is used.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).resolve().parent


def load_tflite(path):
    """A function from one input array to the output array."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x):
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


def load_onnxruntime(path):
    """A function from one input array to the output array."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def load_openvino(path):
    """A function from one input array to the output array."""
    import openvino

    # float32 arithmetic: the default is bf16 on CPUs that have it, which gives other numbers.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled([x])[0]


LOADERS = {"tflite": load_tflite, "onnxruntime": load_onnxruntime, "openvino": load_openvino}


def preprocess(path, recipe, layout):
    """An image file as the model's input: float32, one image, NCHW or NHWC."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if len(recipe["mean"]) == 3 else "L")
    short, crop = recipe["resize"], recipe["crop"]
    width, height = image.size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    image = image.resize(size, getattr(Image.Resampling, recipe["interpolation"].upper()))
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    pixels = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32) / np.float32(255)
    pixels = pixels.reshape(crop, crop, -1)
    x = (pixels - np.asarray(recipe["mean"], np.float32)) / np.asarray(recipe["std"], np.float32)
    return np.ascontiguousarray((x.transpose(2, 0, 1) if layout == "NCHW" else x)[None], np.float32)


def main():
    """Print the most likely classes of one image."""
    parser = argparse.ArgumentParser(description="Classify an image with the model in this folder.")
    parser.add_argument("image", type=pathlib.Path)
    parser.add_argument("--top", type=int, default=5, help="how many classes to print")
    arguments = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    recipe = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
    labels_file = HERE / "labels.txt"
    labels = labels_file.read_text(encoding="utf-8").splitlines() if labels_file.exists() else []
    run = LOADERS[manifest["runtime"]](HERE / manifest["model_file"])
    logits = np.asarray(run(preprocess(arguments.image, recipe, manifest["input"]["layout"])), np.float32).reshape(-1)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    for index in np.argsort(-logits, kind="stable")[: arguments.top]:
        print(f"{shares[index]:6.1%}  {labels[index] if labels else f'class {index}'}")


if __name__ == "__main__":
    main()
