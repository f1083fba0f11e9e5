"""Networks that are not the zoo's, from the command line to checked bundles and back."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgecnn import pipeline
from edgecnn.backends import backend
from edgecnn.bundle.write import read
from edgecnn.data.sets import shipped_photos_dir
from edgecnn.target import list_targets, load_target

TARGETS = [target.name for target in list_targets() if target.device == "local"]
NETWORK = """
import torch
from torch import nn

class Shuffle(nn.Module):
    def forward(self, x):
        n, c, h, w = 1, 16, 12, 16
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

class Split(nn.Module):
    def forward(self, x):
        a, b = torch.split(x, 8, 1)
        return torch.cat([a, torch.relu(b), x[:, 2:6]], 1)

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=4), nn.ReLU(), Shuffle(),
        nn.LocalResponseNorm(5), Split(), nn.BatchNorm2d(20), nn.Hardswish(), nn.Dropout(0.3),
        nn.Conv2d(20, 16, 3, 1, 2, dilation=2), nn.SiLU(), nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7))
"""


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("my nets") / "nét.py"
    path.write_text(NETWORK, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def file(factory: Path) -> Path:
    """The same network as an .onnx file, with everything in it that exporters may leave."""
    names: dict[str, object] = {}
    # torch's exporter writes this one layer with a branch, which an .onnx file may not have.
    exec(NETWORK.replace("nn.LocalResponseNorm(5),", ""), names)
    module = names["make"]()  # type: ignore[operator]
    path = factory.with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.train(), (torch.zeros(1, 3, 24, 32),), path, dynamo=False, opset_version=13,
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
            keep_initializers_as_inputs=True, input_names=["photo"], output_names=["classes"],
            dynamic_axes={"photo": {0: "batch"}},
        )  # fmt: skip
    proto = onnx.load(path)
    for node in proto.graph.node:  # exported in training mode: as a framework's own exporter would leave it
        if node.op_type == "BatchNormalization":
            del node.attribute[:], node.output[1:]
        if node.op_type == "Dropout":
            del node.input[1:]
    onnx.save(proto, path)
    return path


def expected(file: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"photo": x})[0])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_onnx_file_on_every_target(file: Path, precision: str, tmp_path: Path) -> None:
    made = pipeline.export(
        str(file), TARGETS, precision=precision, preprocess="unit", output=tmp_path, measure=False
    )
    x = np.random.default_rng(0).random((1, 3, 24, 32), np.float32)
    want = expected(file, x)
    for artifact in made:
        assert artifact.manifest["checks"][0]["against"] == "the file in ONNX Runtime"
        assert artifact.manifest["weights"]["kind"] == "own"
        run = backend(artifact.runtime).load(artifact.model, load_target(artifact.target))
        tolerance = 1e-4 if precision == "fp32" else 0.1
        np.testing.assert_allclose(run(x)[0], want, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("source", ["file", "factory"])
def test_its_command_makes_the_same_bundle_again(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = str(request.getfixturevalue(source))
    shape = None
    if source == "factory":
        model, shape = f"{model}:make", "1,3,24,32"
    [artifact] = pipeline.export(
        model, "onnxruntime", input_shape=shape, preprocess="signed", output=tmp_path / "a", measure=False
    )
    again = [sys.executable, "-c", "from edgecnn.cli import main; main()", *artifact.manifest["command"][1:]]
    done = subprocess.run(
        [*again, "-o", str(tmp_path / "b"), "--json"], capture_output=True, text=True, check=True
    )
    [document] = json.loads(done.stdout)
    other = read(Path(document["path"]))
    assert other.path.name == artifact.path.name
    assert other.model.read_bytes() == artifact.model.read_bytes()


def test_a_factory_network_is_what_it_was(factory: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(NETWORK, names)
    module: nn.Module = names["make"]()  # type: ignore[operator]
    [artifact] = pipeline.export(
        f"{factory}:make", "tflite", input_shape=(1, 3, 24, 32), output=tmp_path, measure=False
    )
    x = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = module.eval()(x).numpy()
    got = backend("tflite").load(artifact.model, load_target("tflite"))(x.numpy())[0]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    assert artifact.manifest["input"]["shape"] == [1, 24, 32, 3]


def test_feature_maps_as_output_are_described_as_the_runtime_has_them(tmp_path: Path) -> None:
    (tmp_path / "maps.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 3)\n")
    made = pipeline.export(
        f"{tmp_path}/maps.py:make", ["tflite", "onnxruntime"], input_shape="1,3,8,10", output=tmp_path,
        measure=False,
    )  # fmt: skip
    outputs = [artifact.manifest["output"] for artifact in made]
    assert [(output["shape"], output["layout"]) for output in outputs] == [
        ([1, 6, 8, 4], "NHWC"),
        ([1, 4, 6, 8], "NCHW"),
    ]
    photo = sorted((shipped_photos_dir() / "verification").iterdir())[0]
    done = subprocess.run(
        [sys.executable, made[1].path / "run.py", photo], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no list of classes" in done.stderr
