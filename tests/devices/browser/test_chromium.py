"""Real models on the real page, in headless Chromium."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra 'browser' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'browser' is not installed")
pytest.importorskip("segno", reason="the extra 'browser' is not installed")

from edgecnn.backends import backend
from edgecnn.check import outputs_of
from edgecnn.devices.browser.device import BrowserDevice
from edgecnn.devices.browser.runtimes import browser_runtime
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.errors import DeviceError, MissingDependency
from edgecnn.measurement import Measurement
from edgecnn.quantize.quantize import quantize
from edgecnn.target import load_target
from tests.devices.browser.chromium import EXECUTABLE, Chromium
from tests.devices.conftest import Known
from tests.networks import canonical

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium here (apt-get install chromium)"),
]

# What MobileNets are made of: a strided convolution, an inverted residual, pooling and a classifier.
NETWORK = """<ir_version: 8, opset_import: ["" : 17]> network (float[1,3,32,32] x, float[8,3,3,3] w0,
    float[16,8,1,1] w1, float[16,1,3,3] w2, float[8,16,1,1] w3, float[10,8] w4) => (float[1,10] y) {
    c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, w0)
    r0 = Relu(c0)
    c1 = Conv<kernel_shape=[1,1]>(r0, w1)
    r1 = Relu(c1)
    c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r1, w2)
    r2 = Relu(c2)
    c3 = Conv<kernel_shape=[1,1]>(r2, w3)
    a = Add(c3, r0)
    p = GlobalAveragePool(a)
    f = Flatten(p)
    y = Gemm<transB=1>(f, w4) }"""
IMAGES = np.random.default_rng(7).normal(size=(4, 3, 32, 32)).astype(np.float32)


@pytest.fixture(params=["tflite", "onnxruntime"])
def runtime(request: pytest.FixtureRequest) -> str:
    """A runtime whose files are there."""
    name: str = request.param
    try:
        browser_runtime(name).files()
    except MissingDependency as error:
        pytest.skip(str(error))
    return name


def compiled(runtime: str, precision: str, folder: Path) -> tuple[Path, float]:
    """The network for a runtime, and the largest difference that is none."""
    graph = canonical(NETWORK)
    tolerance = 1e-4
    if precision == "int8":
        qdq = quantize(graph, [IMAGES[:1]])
        tolerance = 1.001 * outputs_of(graph, qdq, [IMAGES[:1]]).step
        graph = qdq
    return backend(runtime).compile(graph, load_target(runtime), folder)[0], tolerance


def make_job(model: Path, runtime: str, precision: str = "fp32", **changes: Any) -> Job:
    images = IMAGES.transpose(0, 2, 3, 1) if runtime == "tflite" else IMAGES
    fields: dict[str, Any] = {
        "inputs": np.ascontiguousarray(images),
        "min_time_s": 0.3,
        "min_runs": 20,
        **changes,
    }
    return Job(model, runtime, runtime, "network", precision, **fields)


def measured(
    job: Job,
    *flags: str,
    accelerator: str = "wasm",
    host: str | None = None,
    heed: Callable[[Chromium, str], None] | None = None,
) -> Measurement:
    """Measure a job in a browser that opens what is announced, or another name of it."""
    browsers: list[Chromium] = []

    def open_page(text: str) -> None:
        found = re.search(r"https?://\S+", text)
        assert found
        address = found.group()
        browsers.append(Chromium(address if host is None else address.replace("127.0.0.1", host), *flags))

    def progress(doing: str, done: float, total: float | None) -> None:
        if heed is not None and browsers:
            heed(browsers[0], doing)

    try:
        device = BrowserDevice(accelerator, announce=open_page, open_within_s=200)
        return device.measure(job, progress=progress)
    finally:
        for browser in browsers:
            browser.__exit__(None, None, None)


def test_mobilenet_gives_there_what_it_gives_here(mobilenet: Known, tmp_path: Path) -> None:
    try:
        browser_runtime("tflite").files()
    except MissingDependency as error:
        pytest.skip(str(error))
    measured(mobilenet.job(tmp_path / "there.npy"))
    assert mobilenet.is_given_by(tmp_path / "there.npy")


@pytest.mark.parametrize(("precision", "threads"), [("int8", 1), ("fp32", 2)])
def test_a_page_measures_and_computes(runtime: str, precision: str, threads: int, tmp_path: Path) -> None:
    model, tolerance = compiled(runtime, precision, tmp_path)
    m = measured(make_job(model, runtime, precision, threads=threads, outputs=tmp_path / "browser.npy"))
    LOCAL.measure(make_job(model, runtime, precision, outputs=tmp_path / "local.npy"))
    local = np.load(tmp_path / "local.npy")
    np.testing.assert_allclose(np.load(tmp_path / "browser.npy"), local, rtol=0, atol=tolerance)
    assert np.ptp(local) > 20 * tolerance  # or anything would pass
    known = browser_runtime(runtime)
    assert (m.runtime, m.runtime_version, m.threads) == (known.name, known.version, threads)
    assert m.device.startswith("browser: headless Chrome ")
    assert (m.options["accelerator"], m.options["isolated"]) == ("wasm", True)
    assert m.options["timer_resolution_ms"] < 0.05
    assert "HeadlessChrome" in m.options["user_agent"]
    # Samples take a hundred steps of the clock when they are calibrated, which may be on a slow moment.
    sample_ms = m.p50_ms * m.options["runs_per_sample"]
    assert sample_ms > 20 * m.options["timer_resolution_ms"]
    assert len(m.samples_ms) >= 20
    assert m.runs == len(m.samples_ms) * m.options["runs_per_sample"]
    assert len(m.block_at_s or ()) == len(m.block_took_s or ()) == len(m.block_runs)


def test_a_page_that_is_not_isolated(runtime: str, tmp_path: Path) -> None:
    """As a phone sees it over plain http: not a secure context."""
    model, tolerance = compiled(runtime, "fp32", tmp_path)
    flag = "--host-resolver-rules=MAP phone.test 127.0.0.1"
    job = make_job(model, runtime, outputs=tmp_path / "browser.npy")
    m = measured(job, flag, host="phone.test")
    assert m.options["isolated"] is False
    assert m.options["timer_resolution_ms"] > 0.05
    assert m.options["runs_per_sample"] > 1
    LOCAL.measure(make_job(model, runtime, outputs=tmp_path / "local.npy"))
    local = np.load(tmp_path / "local.npy")
    np.testing.assert_allclose(np.load(tmp_path / "browser.npy"), local, rtol=0, atol=tolerance)
    with pytest.raises(DeviceError, match="2 threads need an isolated page") as caught:
        measured(make_job(model, runtime, threads=2), flag, host="phone.test")
    assert "--usb" in str(caught.value.hint)


@pytest.mark.parametrize("leave", [Chromium.close_tabs, Chromium.open_another_tab])
def test_a_tab_that_is_left_in_the_middle(
    runtime: str, leave: Callable[[Chromium], None], tmp_path: Path
) -> None:
    model, _ = compiled(runtime, "fp32", tmp_path)
    leaving: list[threading.Thread] = []

    def heed(browser: Chromium, doing: str) -> None:
        if doing == "measuring" and not leaving:
            leaving.append(threading.Thread(target=leave, args=(browser,)))
            leaving[0].start()

    job = make_job(model, runtime, outputs=tmp_path / "y.npy", min_time_s=300, max_time_s=300)
    with pytest.raises(DeviceError, match=r"closed while measuring|went to the background") as caught:
        measured(job, heed=heed)
    assert "keep the page in front" in str(caught.value.hint)
    assert not (tmp_path / "y.npy").exists()
    leaving[0].join()


def test_webgpu_on_a_software_adapter(runtime: str, tmp_path: Path) -> None:
    model, _ = compiled(runtime, "fp32", tmp_path)
    job = make_job(model, runtime, outputs=tmp_path / "browser.npy")
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    m = measured(job, *flags, accelerator="webgpu")
    assert m.options["accelerator"] == "webgpu"
    LOCAL.measure(make_job(model, runtime, outputs=tmp_path / "local.npy"))
    local = np.load(tmp_path / "local.npy")
    # LiteRT.js computes in half precision where the adapter can.
    np.testing.assert_allclose(
        np.load(tmp_path / "browser.npy"), local, rtol=0, atol=0.02 * np.abs(local).max()
    )
    with pytest.raises(DeviceError, match="has no WebGPU here"):
        measured(job, accelerator="webgpu")


def test_a_model_that_the_runtime_refuses(runtime: str, tmp_path: Path) -> None:
    model = tmp_path / f"broken.{runtime}"
    model.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 4)
    with pytest.raises(DeviceError, match=rf"with broken\.{runtime} failed in the browser while loading: "):
        measured(make_job(model, runtime))


def test_inputs_that_the_model_does_not_take(runtime: str, tmp_path: Path) -> None:
    model, _ = compiled(runtime, "fp32", tmp_path)
    wrong = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(DeviceError, match=r"the inputs are float32 \[1,3,8,8\], '.*' takes float32 "):
        measured(make_job(model, runtime, inputs=wrong))
