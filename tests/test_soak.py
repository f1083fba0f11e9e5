"""Soaks of a real model for some seconds, and of a board that heats up in numbers."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgecnn.devices.device import Device, Probe
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.errors import ConfigError
from edgecnn.measurement import Measurement, Reading
from edgecnn.progress import Progress, silent
from edgecnn.soak import BLOCK_SAMPLES, MOST_POINTS, Soak, soak

RELU = """
<ir_version: 8, opset_import: ["" : 17]>
relu (float[1,3,64,64] x) => (float[1,3,64,64] y) { y = Relu(x) }
"""
MINUTE = 60
SVG = "{http://www.w3.org/2000/svg}"


def soaked(latency_ms: list[float], temperatures_c: list[float] | None = None, **changes: object) -> Soak:
    """A block of ten runs each second, of the latency given for it and a noise of 1 %."""
    generator = random.Random(0)
    seconds = len(latency_ms)
    samples = [ms * generator.lognormvariate(0, 0.01) for ms in latency_ms for _ in range(10)]
    readings = None
    if temperatures_c is not None:
        readings = tuple(
            Reading(at + 0.99, True, temperature_c=celsius, frequency_mhz=1500.0, throttled=celsius > 80)
            for at, celsius in enumerate(temperatures_c)
        )
    fields: dict[str, object] = {
        "target": "t", "variant": "mobilenet_v2", "precision": "int8", "macs": None, "model_sha256": "0",
        "model_size_bytes": 1, "device": "ssh:<pi>", "runtime": "tflite", "options": {}, "threads": 1,
        "started_at": "2025-01-31T10:00:00Z", "load_ms": 1.0, "first_ms": 1.0, "warmup_ms": (), "warm": True,
        "samples_ms": tuple(samples), "block_runs": (10,) * seconds, "telemetry": readings,
        "block_at_s": tuple(float(at) for at in range(seconds)), "block_took_s": (0.98,) * seconds, **changes,
    }  # fmt: skip
    return Soak(Measurement(**fields))  # type: ignore[arg-type]


def test_a_board_that_throttles_after_ten_minutes() -> None:
    minutes = 30
    celsius = [45 + 37 * min(1, second / (10 * MINUTE)) for second in range(minutes * MINUTE)]
    found = soaked([20.0 if hot <= 80 else 25.0 for hot in celsius], celsius)
    assert found.seconds == pytest.approx(minutes * MINUTE, abs=0.1)
    assert found.first_ms == pytest.approx(20, rel=0.005)
    assert found.last_ms == pytest.approx(25, rel=0.005)
    assert found.change == pytest.approx(0.25, abs=0.01)
    assert found.hottest_c == pytest.approx(82)
    assert found.settled_s == pytest.approx(celsius.index(next(c for c in celsius if c > 80)), abs=15)
    assert (
        found.sentence == "20 ms in the first minute, 25 ms in the last minute (+25%); settled after 10 min"
    )
    assert len(found.points) == MOST_POINTS
    assert not found.points[0].throttled
    assert found.points[-1].throttled
    assert found.points[0].p10_ms < found.points[0].p50_ms < found.points[0].p90_ms
    assert found.points[0].frequency_mhz == 1500


def test_a_cool_board_is_settled_from_the_start() -> None:
    found = soaked([20.0] * 10 * MINUTE)
    assert found.settled_s == 0
    assert "settled from the start" in found.sentence
    assert found.hottest_c is None
    assert found.points[0].throttled is None


def test_a_clock_that_goes_up_and_down_never_settles() -> None:
    found = soaked([20.0 if second // 90 % 2 else 24.0 for second in range(10 * MINUTE)])
    assert found.settled_s is None
    assert found.sentence.endswith("it did not settle")
    # Nor does what changes within the last minute.
    assert soaked([20.0] * 9 * MINUTE + [20.0] * 20 + [24.0] * 40).settled_s is None


def test_a_short_one_compares_its_halves() -> None:
    found = soaked([20.0] * 10 + [30.0] * 10)
    assert found.period_s == pytest.approx(10, abs=0.1)
    assert found.sentence.startswith("20 ms in the first half, 30 ms in the last half (+50%)")


def test_slow_models_have_fewer_points() -> None:
    found = soaked([4000.0] * 40, block_at_s=tuple(4.0 * at for at in range(40)), block_took_s=(4.0,) * 40)
    one_each = replace(found.measurement, samples_ms=(4000.0,) * 40, block_runs=(1,) * 40)
    assert len(Soak(one_each).points) == 40


def test_without_the_blocks_times_runs_follow_each_other() -> None:
    found = soaked([20.0] * 100, block_at_s=None, block_took_s=None)
    assert found.seconds == pytest.approx(100 * 10 * 0.02, rel=0.01)
    assert found.points[-1].at_s < found.seconds


def test_json_holds_the_curve_in_place_of_samples() -> None:
    found = soaked([20.0] * 120, [50.0] * 120)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["device"] == "ssh:<pi>"
    assert document["first_ms"] == found.first_ms
    assert {point["temperature_c"] for point in document["points"]} == {None, 50.0}
    assert "samples_ms" not in document
    assert len(json.dumps(document)) < 60_000


@pytest.mark.parametrize("temperatures_c", [None, [50.0 + second / 2 for second in range(120)]])
def test_the_picture_draws_what_there_is(temperatures_c: list[float] | None) -> None:
    svg = ElementTree.fromstring(soaked([20.0] * 60 + [25.0] * 60, temperatures_c).to_svg())
    paths = {each.get("class"): each.get("d") for each in svg.iter(f"{SVG}path")}
    assert set(paths) == {"band", "latency"} | ({"heat"} if temperatures_c else set())
    words = [each.text for each in svg.iter(f"{SVG}text")]
    assert "mobilenet_v2 int8, tflite on ssh:<pi>" in words
    assert ("temperature, °C" in words) == (temperatures_c is not None)
    shaded = [each for each in svg.iter(f"{SVG}rect") if each.get("class") == "throttled"]
    # One stretch, in both panels.
    assert len(shaded) == (2 if temperatures_c else 0)
    # The slower half lies higher, which is a smaller y.
    points = [tuple(map(float, place.split())) for place in str(paths["latency"])[2:].split(" L ")]
    assert points[0][1] > points[-1][1]
    width, height = float(str(svg.get("width"))), float(str(svg.get("height")))
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_a_real_one_runs_in_one_process_without_a_pause(tmp_path: Path) -> None:
    model = tmp_path / "relu.onnx"
    onnx.save(onnx.parser.parse_model(RELU), model)
    job = Job(model, "onnxruntime", "onnxruntime", "relu", "fp32", warmup_max_s=0.3)
    steps: list[float] = []
    found = soak(LOCAL, job, 3.0, progress=lambda _, done, __: steps.append(done))
    m = found.measurement
    assert found.seconds >= 3.0
    assert 1 <= len(m.block_runs) <= 3
    assert set(m.block_runs) == {BLOCK_SAMPLES}
    assert m.runs is not None
    assert len(m.samples_ms) < m.runs
    assert m.telemetry is not None
    assert len(m.telemetry) >= 3
    assert steps[-1] == 1.0
    assert found.to_svg().startswith("<svg")


class Asked(Device):
    """Notes the job, and measures nothing."""

    name = "asked"

    def measure(self, job: Job, *, progress: Progress = silent) -> Measurement:
        self.job = job
        return soaked([20.0] * 10).measurement

    def probe(self) -> Probe:
        return Probe()


def test_the_warm_up_is_not_as_long_as_the_soak(tmp_path: Path) -> None:
    device = Asked()
    soak(device, Job(tmp_path, "tflite", "t", "v", "int8"), 1800)
    assert device.job.warmup_max_s == 2.0
    assert (device.job.min_time_s, device.job.max_time_s, device.job.min_runs) == (1800, 1800, 1)


@pytest.mark.parametrize("seconds", [0, 1, -5, float("nan"), float("inf")])
def test_no_time_is_no_soak(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too short for a soak"):
        soak(Asked(), Job(tmp_path, "tflite", "t", "v", "int8"), seconds)
