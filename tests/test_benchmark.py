"""Bundles measured on devices other than this machine are held against their graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import benchmark, pipeline
from edgecnn.bundle.expected import check_device, check_inputs
from edgecnn.bundle.write import read
from edgecnn.devices.address import Settings, attached, open_device
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL, LocalDevice
from edgecnn.errors import ConfigError, ParityError
from edgecnn.measurement import Measurement


class Elsewhere(LocalDevice):
    """A device that computes what this machine computes, but for ``change``."""

    name = "elsewhere"

    def __init__(self, change: float = 0.0) -> None:
        self._change = change

    def measure(self, job: Job, **options: Any) -> Measurement:
        measurement = super().measure(job, **options)
        if job.outputs is None:  # a soak
            return measurement
        outputs = np.load(job.outputs)
        outputs[:, 0] += self._change
        np.save(job.outputs, outputs)
        return measurement


@pytest.fixture(scope="module", params=["fp32", "int8"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundle")
    [artifact] = pipeline.export(
        "lenet5", "tflite", precision=request.param, weights="random", output=output, measure=False
    )
    return artifact.path


def test_outputs_elsewhere_are_held_against_the_graph(bundle: Path) -> None:
    measured = benchmark.bench(bundle, device=Elsewhere(), min_time_s=0.1)
    assert measured.device == "elsewhere"
    assert measured.check is not None
    assert measured.check["stage"].endswith("artifact on elsewhere")
    assert measured.check["images"] == 15
    assert measured.check["top1_agreement"] == 1.0
    json.loads(measured.to_json_line())
    assert Measurement.from_json(measured.to_json_line()) == measured


def test_a_device_that_computes_wrongly_is_caught(bundle: Path) -> None:
    with pytest.raises(ParityError, match="artifact on elsewhere"):
        benchmark.bench(bundle, device=Elsewhere(change=100.0), min_time_s=0.1)


def test_comparisons_and_soaks_elsewhere_are_checked_too(bundle: Path) -> None:
    against, measured, _ = benchmark.compare(bundle, bundle, device=Elsewhere(), min_time_s=0.1)
    assert against.check is not None
    assert measured.check is not None
    soaked = benchmark.soak(bundle, 2.0, device=Elsewhere())
    assert soaked.measurement.check is not None
    assert soaked.to_json()["check"] == soaked.measurement.check
    with pytest.raises(ParityError, match="artifact on elsewhere"):
        benchmark.soak(bundle, 2.0, device=Elsewhere(change=100.0))


def test_here_the_export_has_checked(bundle: Path) -> None:
    assert benchmark.bench(bundle, min_time_s=0.1).check is None


def test_inputs_are_as_the_runtime_takes_them(bundle: Path, tmp_path: Path) -> None:
    artifact = read(bundle)
    inputs = check_inputs(artifact)
    assert inputs.shape == (15, *artifact.manifest["input"]["shape"][1:])
    job = Job(
        artifact.model, "tflite", "t", "v", artifact.precision, inputs=inputs, outputs=tmp_path / "o.npy",
        min_time_s=0.05,
    )  # fmt: skip
    LOCAL.measure(job)
    check_device(artifact, tmp_path / "o.npy", "here")
    outputs = np.load(tmp_path / "o.npy")
    np.save(tmp_path / "o.npy", np.full_like(outputs, np.nan))
    with pytest.raises(ParityError):
        check_device(artifact, tmp_path / "o.npy", "here")


def test_a_bundle_without_outputs_cannot_be_verified(bundle: Path, tmp_path: Path) -> None:
    artifact = read(bundle)
    kept = (bundle / "expected.npz").read_bytes()
    try:
        (bundle / "expected.npz").unlink()
        with pytest.raises(ConfigError, match="no outputs that a device could be held against"):
            check_inputs(artifact)
        (bundle / "expected.npz").write_bytes(kept[:100])
        with pytest.raises(ConfigError, match="no outputs that a device could be held against"):
            check_inputs(artifact)
    finally:
        (bundle / "expected.npz").write_bytes(kept)


def test_other_photographs_are_no_measure(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.bundle import expected
    from edgecnn.data.sets import calibration_images

    monkeypatch.setattr("edgecnn.data.sets.verification_images", lambda: calibration_images()[:15])
    with pytest.raises(ConfigError, match="other verification photographs"):
        expected.check_inputs(read(bundle))


def test_a_board_that_is_off_leaves_the_artifact(tmp_path: Path) -> None:
    target = tmp_path / "board.toml"
    target.write_text(
        'description = "x"\nruntime = "tflite"\ndevice = "ssh:nobody@127.0.0.1:1"\nprecisions = ["fp32"]\n'
    )
    if not LOCAL.probe().runtimes["tflite"]:
        pytest.skip("no tflite here")
    [artifact] = pipeline.export("lenet5", str(target), weights="random", output=tmp_path)
    assert artifact.device == "ssh:nobody@127.0.0.1:1"
    assert artifact.manifest["measured"] is None
    assert "cannot be reached" in artifact.manifest["not_measured"]
    assert (
        "Not measured: ssh:nobody@127.0.0.1:1 cannot be reached" in (artifact.path / "README.md").read_text()
    )


def test_soak_of_a_bundle(bundle: Path) -> None:
    soaked = benchmark.soak(bundle, 2.0)
    assert soaked.seconds >= 2.0
    assert soaked.to_svg().startswith("<svg")


@pytest.mark.parametrize("text", ["", "local:1", "ssh", "ssh:", "ssh:-oProxyCommand=x", "adb:", "serial:1"])
def test_text_that_names_no_device(text: str) -> None:
    with pytest.raises(ConfigError):
        open_device(text)


def test_settings_of_another_kind_are_refused(tmp_path: Path) -> None:
    for settings in (Settings(usb=True), Settings(port=8000), Settings(benchmark_binary=tmp_path)):
        with pytest.raises(ConfigError, match="the device is local"):
            open_device("local", settings)
    assert open_device("local") is LOCAL
    assert "local" in attached()[0]
