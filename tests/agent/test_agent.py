"""The agent as the plain folder that a device gets."""

from __future__ import annotations

import ast
import json
import os
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
from edgecnn.agent import loop
from edgecnn.agent.loop import timed_runs, warm_up
from edgecnn.agent.run import _batches, _random, _spread
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
        "block_samples": None,
        "cores": None,
        "paced": False,
        "seed": 0,
    }
    (folder / "job.json").write_text(json.dumps({**job, **changes}))


def start(folder: Path, agent: Path = AGENT, *flags: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *flags, str(agent), str(folder)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def result_of(folder: Path) -> dict[str, Any]:
    with start(folder) as process:
        events = follow(process)
    assert events[-1] == {"event": "result"}
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


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


def test_a_part_of_the_samples_is_spread_over_the_block(job_folder: Path) -> None:
    assert _spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3) == [1.0, 3.0, 5.0]
    assert _spread([1.0, 2.0], 3) == _spread([1.0, 2.0], None) == [1.0, 2.0]
    write_job(job_folder, block_samples=2, min_time_s=0.1)
    result = result_of(job_folder)
    assert set(result["block_runs"]) == {2}
    assert len(result["samples_ms"]) == 2 * len(result["block_runs"])
    assert result["runs"] >= 20


def test_the_series_covers_the_run_in_order(job_folder: Path) -> None:
    write_job(job_folder, min_time_s=1.2)
    asked_at = time.time()
    result = result_of(job_folder)
    began, took = result["block_at_s"], result["block_took_s"]
    assert asked_at <= result["timed_at"] <= time.time()
    assert len(began) == len(took) == len(result["block_runs"])
    ended = [a + b for a, b in zip(began, took, strict=True)]
    assert all(0 <= end <= start for end, start in zip(ended, began[1:], strict=False))
    assert sum(took) >= max(1.2, sum(result["samples_ms"]) / 1e3)
    times = [reading["at_s"] for reading in result["telemetry"]]
    assert times == sorted(times)
    assert times[0] < times[1] <= 0 < times[2] < ended[-1] <= times[-1]
    assert [reading["busy"] for reading in result["telemetry"]] == [False] + [True] * (len(times) - 1)
    # None of them lies within a block.
    for at in times:
        assert not any(start < at < end for start, end in zip(began, ended, strict=True))


def test_cores_are_pinned_before_the_runtime_starts_threads(job_folder: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not pin processes")
    core = max(os.sched_getaffinity(0))
    write_job(job_folder, cores=str(core), threads=2, min_time_s=30, max_time_s=30)
    with start(job_folder) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["event"] == "loaded"
        masks = []
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            masks.append(os.sched_getaffinity(int(task.name)))
        process.kill()
    # The thread that waits for commands was there before; the main one and the runtime's are pinned.
    assert len(masks) >= 3
    assert sum(mask == {core} for mask in masks) >= len(masks) - 1
    write_job(job_folder, cores=str(core))
    result = result_of(job_folder)
    assert (result["cores"], result["cpu_count"]) == ([core], 1)


@pytest.mark.parametrize(
    ("cores", "words"),
    [("4000", "there are no cores 4000 to pin to, only"), ("1-0", "there are no cores 1-0")],
)
def test_cores_that_are_not_there_are_refused(job_folder: Path, cores: str, words: str) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not pin processes")
    write_job(job_folder, cores=cores)
    with start(job_folder) as process:
        [event] = follow(process)
    assert (event["event"], event["kind"]) == ("error", "refused")
    assert event["message"].startswith(words)


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


class Clock:
    """Time that passes only where it is told to."""

    now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def perf_counter(self) -> float:
        return self.now_ns / 1e9


@pytest.mark.parametrize(
    ("run_ms", "at_least_s", "at_most_s"),
    [
        (0.05, 0.25, 0.35),
        (1, 0.25, 0.35),
        (30, 0.3, 0.4),
        (300, 1.0, 1.5),
        (1000, 2.0, 2.0),
        (5000, 10.0, 10.0),
    ],
)
def test_warm_up_takes_its_time_for_any_model(
    run_ms: float, at_least_s: float, at_most_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def infer() -> None:
        clock.now_ns += int(run_ms * 1e6)

    samples, steady = warm_up(lambda: None, infer, max_s=2.0)
    assert steady
    assert len(samples) >= 2
    assert at_least_s <= clock.perf_counter() <= at_most_s


def test_warm_up_is_not_taken_in_by_a_clock_that_is_slow_to_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def infer() -> None:
        clock.now_ns += 1_000_000 if clock.now_ns > 200_000_000 else 2_500_000

    samples, steady = warm_up(lambda: None, infer, max_s=2.0)
    assert steady
    assert samples[-50:] == [1.0] * 50


def test_warm_up_gives_up_on_a_model_that_never_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def infer() -> None:
        clock.now_ns += 1_000_000 + clock.now_ns // 100

    _, steady = warm_up(lambda: None, infer, max_s=1.0)
    assert not steady
    assert 1.0 <= clock.perf_counter() <= 1.3


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
