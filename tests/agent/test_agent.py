"""The agent as the plain folder that a device gets."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import edgecnn.agent
from edgecnn.agent import host
from edgecnn.agent.loop import timed_runs, warm_up
from edgecnn.agent.run import _batches, _random
from edgecnn.agent.runtimes import TensorSpec, _fixed_shape

AGENT = Path(edgecnn.agent.__file__).parent
RELU = """
<ir_version: 8, opset_import: ["" : 17]>
relu (float[2,3,64,64] x) => (float[2,3,64,64] y) { y = Relu(x) }
"""


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    onnx.save(onnx.parser.parse_model(RELU), folder / "relu.onnx")
    return folder


def write_job(folder: Path, **changes: object) -> None:
    job = {
        "runtime": "onnxruntime",
        "model": "relu.onnx",
        "options": {},
        "threads": 1,
        "min_time_s": 0.05,
        "min_runs": 20,
        "max_time_s": 5.0,
        "warmup_max_s": 0.1,
        "block_s": 0.02,
        "paced": False,
        "seed": 0,
    }
    (folder / "job.json").write_text(json.dumps({**job, **changes}))


def start(folder: Path, agent: Path = AGENT, *flags: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *flags, str(agent), str(folder)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def follow(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout
    return [json.loads(line) for line in process.stdout]


def test_runs_as_a_copied_folder_without_the_package(job_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(AGENT, copied, ignore=shutil.ignore_patterns("__pycache__"))
    write_job(job_folder)
    with start(job_folder, copied, "-I", "-X", "importtime") as process:
        events = follow(process)
        assert process.stderr
        imported = process.stderr.read()
    assert process.returncode == 0
    assert [event["event"] for event in events[:2]] == ["loaded", "warm"]
    assert events[-1] == {"event": "result"}
    assert "edgecnn_agent.loop" in imported
    assert not re.search(r"\bedgecnn(\.|$)", imported, re.MULTILINE)
    result = json.loads((job_folder / "result.json").read_text())
    assert sum(result["block_runs"]) == len(result["samples_ms"]) >= 20
    assert result["load_ms"] > 0
    assert result["first_ms"] > 0
    assert result["warmup_ms"]
    assert result["runtime_version"]
    assert not (job_folder / "outputs.npy").exists()


def test_parses_on_python_3_9_and_imports_only_what_a_device_has() -> None:
    allowed = {*sys.stdlib_module_names, "numpy"}
    for path in AGENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1 or str(node.module).split(".")[0] in allowed, path


def test_outputs_are_those_of_the_inputs(job_folder: Path) -> None:
    given = np.random.default_rng(1).normal(size=(6, 3, 64, 64)).astype(np.float32)
    np.save(job_folder / "inputs.npy", given)
    write_job(job_folder)
    with start(job_folder) as process:
        assert follow(process)[-1]["event"] == "result"
    np.testing.assert_array_equal(np.load(job_folder / "outputs.npy"), np.maximum(given, 0))


def test_paced_blocks_wait_for_their_line(job_folder: Path) -> None:
    write_job(job_folder, paced=True)
    with start(job_folder) as process:
        assert process.stdin
        process.stdin.write("go\ngo\nend\n")
        process.stdin.flush()
        names = [event["event"] for event in follow(process)]
    assert names == ["loaded", "warm", "block", "block", "result"]
    assert len(json.loads((job_folder / "result.json").read_text())["block_runs"]) == 2


@pytest.mark.parametrize("paced", [False, True])
def test_end_of_stdin_ends_it(job_folder: Path, paced: bool) -> None:
    write_job(job_folder, paced=paced, min_time_s=60, max_time_s=60)
    with start(job_folder) as process:
        assert process.stdin
        assert process.stdout
        assert json.loads(process.stdout.readline())["event"] == "loaded"
        process.stdin.close()
        try:
            process.wait(timeout=5)
        finally:
            process.kill()
    assert process.returncode != 0
    assert not (job_folder / "result.json").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "absent.onnx"}, "absent.onnx"),
        ({"model": None}, "TypeError"),
        ({"runtime": "tflite", "options": {"speed": 11}}, "speed"),
        ({"runtime": "openvino", "options": {"SPEED": 11}}, "SPEED"),
    ],
)
def test_errors_are_events(job_folder: Path, changes: dict[str, Any], words: str) -> None:
    if "runtime" in changes:
        pytest.importorskip({"tflite": "ai_edge_litert"}.get(changes["runtime"], changes["runtime"]))
    write_job(job_folder, **changes)
    with start(job_folder) as process:
        last = follow(process)[-1]
    assert process.returncode == 1
    assert (last["event"], last["kind"]) == ("error", "failed")
    assert words in last["message"]


def test_timed_runs_reach_both_minima_and_time_only_the_inference() -> None:
    prepared = []

    def prepare() -> None:
        prepared.append(1)
        time.sleep(0.002)

    samples = timed_runs(prepare, lambda: None, min_s=0.02, min_runs=3)
    assert 3 <= len(samples) == len(prepared) <= 10
    assert sorted(samples)[len(samples) // 2] < 1
    assert len(timed_runs(lambda: None, lambda: time.sleep(0.002), min_s=0, min_runs=7)) == 7
    assert len(timed_runs(lambda: None, lambda: time.sleep(0.002), min_s=9, min_runs=99, max_s=0)) == 1
    assert min(timed_runs(lambda: None, lambda: time.sleep(0.002), min_s=0, min_runs=3)) >= 2


def test_warm_up_waits_for_a_model_that_gets_faster() -> None:
    durations = iter([0.03] * 5 + [0.02] * 5 + [0.01] * 100)
    samples, steady = warm_up(lambda: None, lambda: time.sleep(next(durations)), max_s=3)
    assert steady
    assert len(samples) >= 20

    growing = iter(0.001 * 1.1**n for n in range(100))
    samples, steady = warm_up(lambda: None, lambda: time.sleep(next(growing)), max_s=0.3)
    assert not steady
    assert samples


def test_random_inputs_fill_their_range() -> None:
    floats = _random(TensorSpec("x", "float32", (1000,)), 0)
    assert floats.dtype == np.float32
    assert 0 <= floats.min() < 0.05
    assert 0.95 < floats.max() <= 1
    for dtype in ("int8", "uint8"):
        integers = _random(TensorSpec("x", dtype, (10_000,)), 0)
        limits = np.iinfo(dtype)
        assert (integers.dtype, integers.min(), integers.max()) == (dtype, limits.min, limits.max)
    assert set(_random(TensorSpec("x", "bool", (100,)), 0)) == {False, True}


def test_inputs_that_do_not_fit_are_refused() -> None:
    specs = [TensorSpec("x", "float32", (2, 3))]
    assert len(_batches(np.zeros((4, 3), np.float32), specs)) == 2
    for shape, dtype in (((3, 3), "float32"), ((2, 3), "float64"), ((2, 4), "float32"), ((), "float32")):
        with pytest.raises(ValueError, match=r"takes float32 \[2, 3\]"):
            _batches(np.zeros(shape, dtype), specs)
    with pytest.raises(ValueError, match="the model takes 2"):
        _batches(np.zeros((2, 3), np.float32), specs * 2)


def test_an_open_first_axis_is_one_and_others_are_refused() -> None:
    assert _fixed_shape("x", ["batch", 3, 8, 8]) == (1, 3, 8, 8)
    assert _fixed_shape("x", []) == ()
    with pytest.raises(ValueError, match="open shape"):
        _fixed_shape("x", [1, 3, None, 8])


def test_host_readings_are_optional_and_of_their_kind() -> None:
    facts, snapshot = host.facts(), host.snapshot()
    assert facts["cpu_count"] is None or facts["cpu_count"] >= 1
    assert all(value is None or value > 0 for key, value in snapshot.items() if key.endswith(("_mhz", "_c")))
    json.dumps({**facts, **snapshot})
    before = host.peak_memory_bytes()
    ballast = np.ones(8 << 20)  # 64 MiB
    after = host.peak_memory_bytes()
    assert before is None or (after is not None and 10 << 20 < before <= after - ballast.nbytes // 2)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((None, None), (None, None), None),
        ((4, None), (4, None), False),
        ((4, None), (5, None), True),
        ((None, False), (None, True), True),
        ((None, False), (None, False), False),
    ],
)
def test_throttling(before: tuple[Any, Any], after: tuple[Any, Any], expected: bool | None) -> None:
    names = ("throttle_count", "throttled_now")
    readings = [dict(zip(names, pair, strict=True)) for pair in (before, after)]
    assert host.throttled(*readings) is expected
