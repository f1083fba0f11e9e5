"""Real small models on each runtime, and every way a measurement can go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import psutil
import pytest

import edgecnn.agent
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.errors import ConfigError, DeviceError, MissingDependency
from edgecnn.measurement import Measurement

SHAPE = (1, 3, 64, 64)
RELU = """
<ir_version: 8, opset_import: ["" : 17]>
relu (float[1,3,64,64] x) => (float[1,3,64,64] y) { y = Relu(x) }
"""
CONV = """
<ir_version: 8, opset_import: ["" : 17]>
conv (float[1,3,64,64] x) => (float[1,64,64,64] y)
<float[64,3,3,3] w> { y = Conv<pads = [1, 1, 1, 1]>(x, w) }
"""
REPOSITORY = Path(edgecnn.agent.__file__).parents[2]


def tflite_relu() -> bytes:
    """The smallest TFLite file: one RELU."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tensors = []
    for name in (b"x", b"y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(SHAPE), 0
        tensor.type = schema.TensorType.FLOAT32
        tensors.append(tensor)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def relu_file(runtime: str, folder: Path) -> Path:
    if runtime == "tflite":
        path = folder / "relu.tflite"
        path.write_bytes(tflite_relu())
    else:
        path = folder / "relu.onnx"
        onnx.save(onnx.parser.parse_model(RELU), path)
    return path


def conv_file(folder: Path) -> Path:
    model = onnx.parser.parse_model(CONV)
    weights = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, folder / "conv.onnx")
    return folder / "conv.onnx"


def quick_job(model: Path, runtime: str = "onnxruntime", **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "target": runtime,
        "variant": model.stem,
        "precision": "fp32",
        "min_time_s": 0.1,
        "min_runs": 20,
        **changes,
    }
    return Job(model=model, runtime=runtime, **fields)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def no_child_left() -> bool:
    deadline = time.monotonic() + 5
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not children()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tflite"])
def test_each_runtime_measures_and_computes(runtime: str, tmp_path: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    given = np.random.default_rng(0).normal(size=(3, *SHAPE[1:])).astype(np.float32)
    job = quick_job(relu_file(runtime, tmp_path), runtime, inputs=given, outputs=tmp_path / "y.npy", macs=7)
    seen: list[tuple[str, float, float]] = []
    m = LOCAL.measure(job, progress=lambda *step: seen.append(step))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.maximum(given, 0))
    assert len(m.samples_ms) >= 20
    assert sum(m.samples_ms) <= 2000
    assert (m.runtime, m.variant, m.macs, m.threads, m.device) == (runtime, "relu", 7, 1, "local")
    assert m.runtime_version
    assert len(m.model_sha256) == 64
    assert m.model_size_bytes == job.model.stat().st_size
    assert m.started_at.endswith("Z")
    assert Measurement.from_json(m.to_json_line()) == m
    assert [name for name, _, _ in seen][:2] == ["loading", "warming up"]
    assert seen[-1] == ("measuring", 1.0, 1.0)
    assert no_child_left()


def test_fp32_is_fp32_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = conv_file(tmp_path)
    given = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    computed = []
    for runtime in ("onnxruntime", "openvino"):
        LOCAL.measure(quick_job(model, runtime, inputs=given, outputs=tmp_path / f"{runtime}.npy"))
        computed.append(np.load(tmp_path / f"{runtime}.npy"))
    # Sums of 27 products agree to 1e-5 in float32, to 1e-2 in bfloat16, OpenVINO's choice on CPUs with it.
    assert np.abs(computed[0] - computed[1]).max() <= 1e-4 * np.abs(computed[0]).max()


@pytest.mark.skipif(sys.platform != "linux", reason="the reading that this is about is Linux's")
def test_peak_memory_is_the_agents_own(tmp_path: Path) -> None:
    ballast = np.ones(50 << 20)  # 400 MiB here must not show up there
    m = LOCAL.measure(quick_job(relu_file("onnxruntime", tmp_path)))
    assert m.memory_before_bytes
    assert m.peak_memory_bytes
    assert m.memory_before_bytes < m.peak_memory_bytes < ballast.nbytes // 2


def test_a_model_reached_through_a_relative_link_is_found(tmp_path: Path) -> None:
    blob = relu_file("onnxruntime", tmp_path).rename(tmp_path / "blob")
    link = tmp_path / "model.onnx"
    try:
        link.symlink_to(blob.name)
    except OSError:
        pytest.skip("no symbolic links here")
    assert LOCAL.measure(quick_job(link)).samples_ms


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("onnxruntime", "bad.onnx"), ("openvino", "bad.onnx"), ("tflite", "bad.tflite")],
)
def test_a_corrupt_model_is_a_device_error(runtime: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip({"tflite": "ai_edge_litert"}.get(runtime, runtime))
    corrupt = tmp_path / name
    corrupt.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 4)
    with pytest.raises(DeviceError, match=f"{runtime} with {name} .* while loading: ") as caught:
        LOCAL.measure(quick_job(corrupt, runtime))
    assert "\n" not in str(caught.value)
    assert no_child_left()


def fake_agent(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    folder.mkdir()
    (folder / "__main__.py").write_text(code)
    monkeypatch.setattr(edgecnn.agent, "__file__", str(folder / "__init__.py"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_names_its_signal_and_the_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import os, sys; os.write(2, b'first\\nbad tensor\\n'); os.kill(os.getpid(), 11)"
    fake_agent(monkeypatch, tmp_path / "agent", code)
    with pytest.raises(DeviceError, match="was ended by SIGSEGV while loading: bad tensor"):
        LOCAL.measure(quick_job(relu_file("onnxruntime", tmp_path)))


def test_a_result_without_the_closing_line_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "import sys; open(sys.argv[1] + '/result.json', 'w').write('{}'); print('{\"event\": \"loaded\"}')"
    fake_agent(monkeypatch, tmp_path / "agent", code)
    with pytest.raises(DeviceError, match="exited with status 0 and no result while warming up: no message"):
        LOCAL.measure(quick_job(relu_file("onnxruntime", tmp_path)))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('print(\'{"event": "result"}\')', "left no usable result"),
        ("print('hello')", "reported 'hello', which is no event"),
        ("import time; time.sleep(60)", "has reported nothing for 0.3 s while loading"),
    ],
)
def test_an_agent_that_misbehaves_is_refused(
    code: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_agent(monkeypatch, tmp_path / "agent", code)
    timeout_s = 0.3 if "sleep" in code else 30.0
    with pytest.raises(DeviceError, match=words):
        LOCAL.measure(quick_job(relu_file("onnxruntime", tmp_path), timeout_s=timeout_s))
    assert no_child_left()


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "openvino.py").write_text("raise ImportError('no libopenvino.so')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(MissingDependency, match=r"no libopenvino\.so") as caught:
        LOCAL.measure(quick_job(relu_file("openvino", tmp_path), "openvino"))
    assert caught.value.hint == "pip install 'edgecnn[openvino]'"


def test_an_interrupt_leaves_no_agent_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def interrupt(doing: str, done: float, total: float) -> None:
        if doing == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LOCAL.measure(quick_job(relu_file("onnxruntime", tmp_path), min_time_s=30), progress=interrupt)
    assert no_child_left()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_parent_that_is_killed_leaves_no_agent(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edgecnn.devices.job import Job; from edgecnn.devices.local import LOCAL\n"
        "LOCAL.measure(Job(Path(sys.argv[1]), 'onnxruntime', 't', 'v', 'fp32', min_time_s=60, max_time_s=60),"
        " progress=lambda *step: print(*step, flush=True))\n"
    )
    command = [sys.executable, "-c", code, str(relu_file("onnxruntime", tmp_path))]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed parent cannot remove its job folder
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    ) as parent:
        assert parent.stdout
        while not (line := parent.stdout.readline()).startswith("measuring"):
            assert line, "the parent ended early"
        agents = psutil.Process(parent.pid).children()
        assert len(agents) == 1
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(agents, timeout=5)
    assert alive == []


def test_jobs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model = relu_file("onnxruntime", tmp_path)
    with pytest.raises(ConfigError, match="unknown runtime 'onnxruntme'") as caught:
        quick_job(model, "onnxruntme")
    assert caught.value.hint == "did you mean onnxruntime?"
    with pytest.raises(ConfigError, match="0 threads"):
        quick_job(model, threads=0)
    with pytest.raises(ConfigError, match="no inputs"):
        quick_job(model, outputs=tmp_path / "y.npy")
    with pytest.raises(ConfigError, match="does not exist"):
        LOCAL.measure(quick_job(tmp_path / "absent.onnx"))


def test_a_model_compared_with_itself_is_no_faster(tmp_path: Path) -> None:
    job = quick_job(conv_file(tmp_path), min_time_s=0.5, block_s=0.02)
    a, b, comparison = LOCAL.compare(job, job, seed=1)
    assert a.model_sha256 == b.model_sha256
    assert comparison.pairs == len(a.block_runs) == len(b.block_runs) >= 10
    # Wide, since tests run on machines that do other things meanwhile.
    assert comparison.ratio_low <= 1.1
    assert comparison.ratio_high >= 0.9


def test_a_comparison_sees_which_is_slower(tmp_path: Path) -> None:
    job = quick_job(relu_file("onnxruntime", tmp_path))
    _, _, comparison = LOCAL.compare(job, quick_job(conv_file(tmp_path)))
    assert comparison.differs
    assert comparison.ratio_low > 1.5
    assert (comparison.variant_a, comparison.variant_b) == ("relu", "conv")
    assert no_child_left()


def test_a_comparison_with_a_model_that_fails_ends_both(tmp_path: Path) -> None:
    corrupt = tmp_path / "bad.onnx"
    corrupt.write_bytes(b"not a model")
    with pytest.raises(DeviceError, match=r"bad\.onnx failed while loading"):
        LOCAL.compare(quick_job(relu_file("onnxruntime", tmp_path)), quick_job(corrupt))
    assert no_child_left()
