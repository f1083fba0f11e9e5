"""What a job may ask for, and what comes back of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecnn.devices.job import Job, read_result, write_job
from edgecnn.errors import ConfigError, DeviceError
from edgecnn.measurement import Reading

RESULT: dict[str, Any] = {
    "load_ms": 1.0,
    "first_ms": 2.0,
    "warmup_ms": [2.0],
    "warm": True,
    "samples_ms": [1.0, 1.0],
    "block_runs": [2],
    "timed_at": 5.0,
    "telemetry": [{"at_s": -1.0, "busy": False, "temperature_c": 48.3}],
}


def job(folder: Path, **changes: Any) -> Job:
    model = folder / "model.tflite"
    model.write_bytes(b"model")
    return Job(model, "tflite", "target", "variant", "int8", **changes)


@pytest.mark.parametrize("cores", ["big", "little", "0", "0-3", "4,6-7", "0-1,3"])
def test_cores_travel_as_they_were_given(cores: str, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    write_job(job(tmp_path, cores=cores, block_samples=7), tmp_path / "job", paced=False)
    request = json.loads((tmp_path / "job" / "job.json").read_text())
    assert (request["cores"], request["block_samples"]) == (cores, 7)


@pytest.mark.parametrize("cores", ["", "Big", "0-", "-3", "1,,2", "0 1", "0;reboot", "0-3\n", "all"])
def test_what_names_no_cores_is_refused(cores: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no cores") as caught:
        job(tmp_path, cores=cores)
    assert "0-3" in str(caught.value.hint)


def test_no_samples_of_a_block_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 samples of a block"):
        job(tmp_path, block_samples=0)


def test_a_result_becomes_a_measurement(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    known = {"device": "ssh:pi", "started_at": "2025-01-31T10:00:00Z"}
    found = read_result(job(tmp_path), tmp_path, **known)
    assert found.timed_at == 5.0
    assert found.telemetry == (Reading(-1.0, False, temperature_c=48.3),)
    # A board without a clock of its own may think that it is 1970.
    assert read_result(job(tmp_path), tmp_path, **known, timed_at=1738317600.5).timed_at == 1738317600.5


@pytest.mark.parametrize("change", [{"telemetry": 3}, {"telemetry": [{"at_s": 1}]}, {"rpm": 1}])
def test_a_result_of_another_agent_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, **change}))
    with pytest.raises(DeviceError, match="left no usable result"):
        read_result(job(tmp_path), tmp_path, device="local", started_at="")
