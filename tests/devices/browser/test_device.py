"""The device against pages that are played over real connections: what it makes of what they say."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra 'browser' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'browser' is not installed")
pytest.importorskip("segno", reason="the extra 'browser' is not installed")

from edgecnn.agent import loop
from edgecnn.devices.browser import device
from edgecnn.devices.browser.about import browser_name, system_name
from edgecnn.devices.browser.device import BrowserDevice
from edgecnn.devices.browser.runtimes import BrowserRuntime
from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError, DeviceError, MissingDependency
from edgecnn.measurement import Measurement

ABOUT = {
    "user_agent": "Mozilla/5.0 (Linux; Android 10; K) Chrome/156.0.0.0 Mobile Safari/537.36",
    "platform": "Android",
    "platform_version": "16.0.0",
    "model": "Pixel 8",
    "isolated": True,
    "cores": 9,
}
RESULT: dict[str, Any] = {
    "load_ms": 12.5,
    "first_ms": 9.0,
    "warmup_ms": [5.0, 4.0],
    "warm": True,
    "samples_ms": [4.0] * 30,
    "block_runs": [10, 20],
    "block_at_s": [0.0, 0.1],
    "block_took_s": [0.04, 0.08],
    "runs": 60,
    "runs_per_sample": 2,
    "timer_resolution_ms": 0.1,
    "fully_accelerated": None,
    "telemetry": [{"at_s": 0.0, "battery_percent": 84.0, "charging": True, "more": 1}, {"at_s": "soon"}],
    "output": {"dtype": "float32", "shape": [1, 2]},
}


class Page:
    """What a page does, step by step, at an address that was announced."""

    def __init__(self, announced: str) -> None:
        found = re.search(r"(https?)://([\w.]+):(\d+)(/\S+/)", announced)
        assert found
        self.scheme, self.host, port, self.path = found.groups()
        self.port = int(port)
        self.held: Any = None
        # Until the certificate is seen, any will do.
        self.context = ssl._create_unverified_context()

    def connect(self) -> http.client.HTTPConnection:
        if self.scheme == "https":
            return http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.context)
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def take(self, about: dict[str, Any] = ABOUT) -> dict[str, Any]:
        self.held = self.connect()
        self.held.request("POST", f"{self.path}take", json.dumps(about))
        self.reply = self.held.getresponse()
        job: dict[str, Any] = json.loads(self.reply.readline())
        return job

    def get(self, what: str) -> bytes:
        connection = self.connect()
        connection.request("GET", f"{self.path}{what}")
        return connection.getresponse().read()

    def post(self, what: str, body: Any) -> None:
        connection = self.connect()
        connection.request(
            "POST", f"{self.path}{what}", body if isinstance(body, bytes) else json.dumps(body)
        )
        assert connection.getresponse().status == 204

    def close(self) -> None:
        self.held.sock.shutdown(socket.SHUT_RDWR)
        self.held.close()


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """These pages run no model, so no runtime is fetched."""
    monkeypatch.setattr(BrowserRuntime, "files", lambda self, progress: {})


def job(folder: Path, **changes: Any) -> Job:
    model = folder / "net.onnx"
    model.write_bytes(b"a model")
    fields: dict[str, Any] = {"runtime": "onnxruntime", "min_time_s": 0.1, "timeout_s": 30.0, **changes}
    return Job(model=model, target="browser", variant="net", precision="int8", macs=7, **fields)


def measured(
    job: Job, play: Callable[[Page], None], announced: list[str] | None = None, **settings: Any
) -> Measurement:
    """Measure with a page that is played; what goes wrong on its side is raised here."""
    failed: list[BaseException] = []

    def start(text: str) -> None:
        if announced is not None:
            announced.append(text)

        def run() -> None:
            try:
                play(Page(text))
            except BaseException as error:
                failed.append(error)

        threading.Thread(target=run, daemon=True).start()

    try:
        return BrowserDevice(announce=start, open_within_s=30, **settings).measure(job)
    finally:
        if failed:
            raise failed[0]


@pytest.mark.usefixtures("no_runtime")
def test_a_measurement_says_what_ran_it_and_how(tmp_path: Path) -> None:
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    jobs: list[dict[str, Any]] = []

    def play(page: Page) -> None:
        jobs.append(page.take())
        assert page.get("model") == b"a model"
        page.post("progress", {"doing": "measuring", "done": 0.5})
        for batch in range(3):
            given = np.frombuffer(page.get(f"inputs/{batch}/{batch + 1}"), np.float32)
            page.post(f"outputs/{batch}", (2 * given).tobytes())
        page.post("result", RESULT)

    m = measured(job(tmp_path, inputs=inputs, outputs=tmp_path / "y.npy"), play)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), 2 * inputs)
    assert m.device == "browser: Chrome 156 on Android 16"
    assert (m.runtime, m.runtime_version) == ("ONNX Runtime Web", "1.30.0")
    assert m.options == {
        "accelerator": "wasm",
        "isolated": True,
        "user_agent": ABOUT["user_agent"],
        "device_model": "Pixel 8",
        "timer_resolution_ms": 0.1,
        "runs_per_sample": 2,
    }
    assert (m.os, m.cpu_count, m.python_version) == ("Android 16", 9, None)
    assert (m.threads, m.precision, m.macs, m.runs, len(m.samples_ms)) == (1, "int8", 7, 60, 30)
    assert m.telemetry is not None
    assert [(r.at_s, r.battery_percent, r.charging, r.busy) for r in m.telemetry] == [
        (0.0, 84.0, True, False)
    ]
    assert m.timed_at is not None
    assert Measurement.from_json(m.to_json_line()) == m
    # The page's loop is the agent's.
    assert jobs[0]["loop"]["steady_within"] == loop.STEADY_WITHIN
    assert (jobs[0]["inputs"], jobs[0]["threads"]) == ({"dtype": "float32", "shape": [3, 2]}, 1)


@pytest.mark.usefixtures("no_runtime")
def test_nobody_opens_the_page(tmp_path: Path) -> None:
    announced: list[str] = []
    with pytest.raises(DeviceError, match=r"no browser has opened the page within 0\.2 s"):
        BrowserDevice(open_within_s=0.2, announce=announced.append).measure(job(tmp_path))
    assert "█" in announced[0]
    assert "Only browsers on this machine reach it" in announced[0]
    with pytest.raises(ConnectionRefusedError):
        Page(announced[0]).get("")


asleep: list[Page] = []


def nothing_more(page: Page) -> None:
    page.take()
    asleep.append(page)  # or its connection would be closed with it


def goes_away(page: Page) -> None:
    page.take()
    page.post("progress", {"doing": "measuring", "done": 0.1})
    page.close()


def fails(kind: str, message: str) -> Callable[[Page], None]:
    def play(page: Page) -> None:
        page.take()
        page.post("error", {"kind": kind, "message": message})

    return play


def sends(**changes: Any) -> Callable[[Page], None]:
    def play(page: Page) -> None:
        page.take()
        page.post("result", {**RESULT, **changes})

    return play


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize(
    ("play", "message", "hint"),
    [
        (nothing_more, "has reported nothing for 1 s while loading: it may", "the screen on"),
        (goes_away, "the page was closed while measuring", "the screen on"),
        (fails("hidden", "it went away"), "while loading: it went away", "in front"),
        (fails("threads", "not isolated"), "ONNX Runtime Web with net.onnx failed", "--usb"),
        (fails("accelerator", "no WebGPU"), "no WebGPU", "wasm runs everywhere"),
        (fails("failed", "a\nlong  story\x1b[2J"), r"while loading: a long story\?\[2J$", None),
        (sends(samples_ms=[1.0, "2"]), "something else than a measurement", None),
        (sends(samples_ms=[float("nan")]), "something else than a measurement", None),
        (sends(warm="yes"), "something else than a measurement", None),
        (sends(samples_ms=[1.0]), "left no usable result", None),
        (sends(samples_ms=[0.0] * 30), "left no usable result", None),
    ],
)  # fmt: skip
def test_a_page_that_fails(
    play: Callable[[Page], None], message: str, hint: str | None, tmp_path: Path
) -> None:
    timeout_s = 1.0 if play is nothing_more else 30.0
    with pytest.raises(DeviceError, match=message) as caught:
        measured(job(tmp_path, timeout_s=timeout_s), play)
    assert (hint or "") in (caught.value.hint or "")
    assert (hint is None) == (caught.value.hint is None)


@pytest.mark.usefixtures("no_runtime")
def test_a_page_that_never_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_MORE_S", 0.0)

    def play(page: Page) -> None:
        page.take()
        with suppress(OSError, http.client.HTTPException, AssertionError):  # until the server is gone
            while True:
                page.post("progress", {"doing": "warming up", "done": 0.5})

    with pytest.raises(DeviceError, match=r"has taken longer than 0\.7 s in the browser"):
        measured(job(tmp_path, max_time_s=0.7), play)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize(
    "output",
    [None, {"dtype": "object", "shape": [1, 2]}, {"dtype": "float32", "shape": [1, 3]}, {"dtype": "float32"}],
)
def test_outputs_that_cannot_be_read(output: Any, tmp_path: Path) -> None:
    def play(page: Page) -> None:
        page.take()
        page.post("outputs/0", b"\0" * 8)
        page.post("result", {**RESULT, "output": output})

    inputs = np.zeros((1, 2), np.float32)
    with pytest.raises(DeviceError, match="the page sent outputs that cannot be read"):
        measured(job(tmp_path, inputs=inputs, outputs=tmp_path / "y.npy"), play)
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.usefixtures("no_runtime")
def test_over_https_with_the_announced_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    announced: list[str] = []
    seen: list[str] = []

    def play(page: Page) -> None:
        connection = page.connect()
        connection.connect()
        seen.append(ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True)))
        # It is for this address, so that a browser warns of nothing but who signed it.
        page.context = ssl.create_default_context(cadata=seen[0])
        with socket.create_connection((page.host, page.port), timeout=30) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            plain.recv(100)
        page.take()
        page.post("result", RESULT)

    assert measured(job(tmp_path), play, announced, https=True).samples_ms
    assert caplog.records == []
    pem = tmp_path / "seen.pem"
    pem.write_text(seen[0])
    from edgecnn.devices.browser.reach import fingerprint

    assert "https://127.0.0.1:" in announced[0]
    assert fingerprint(pem) in announced[0]


def fake_adb(folder: Path, monkeypatch: pytest.MonkeyPatch, devices: str, reverse: str) -> Path:
    """An adb that sees those devices; what it is asked for is written down."""
    folder.mkdir()
    script = folder / "adb"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\n'
        f'case "$*" in\n  devices) printf "List of devices attached\\n{devices}" ;;\n'
        f"  *) {reverse} ;;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return folder / "calls"


@pytest.mark.usefixtures("no_runtime")
def test_over_usb_the_phones_own_port_leads_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_adb(tmp_path / "bin", monkeypatch, "PIXEL\\tdevice\\n", "exit 0")
    ports: list[int] = []

    def play(page: Page) -> None:
        assert page.host == "localhost"
        ports.append(page.port)
        page.take()
        page.post("result", RESULT)

    assert measured(job(tmp_path), play, usb=True).samples_ms
    ends = f"tcp:{ports[0]}"
    assert calls.read_text().splitlines() == [
        "devices", f"-s PIXEL reverse {ends} {ends}", f"-s PIXEL reverse --remove {ends}",
    ]  # fmt: skip


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize(
    ("devices", "reverse", "error", "message"),
    [
        ("", "exit 0", DeviceError, "adb sees no phone"),
        ("A\\tunauthorized\\n", "exit 0", DeviceError, "has not allowed this computer"),
        ("A\\tdevice\\nB\\tdevice\\n", "exit 0", ConfigError, "adb sees 2 phones"),
        (
            "A\\tdevice\\n",
            "echo 'adb: error: closed' >&2; exit 1",
            DeviceError,
            "cannot be led here: adb: error",
        ),
    ],
)
def test_no_phone_on_usb(
    devices: str,
    reverse: str,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_adb(tmp_path / "bin", monkeypatch, devices, reverse)
    with pytest.raises(error, match=message) as caught:
        BrowserDevice(usb=True).measure(job(tmp_path))
    if error is ConfigError:
        assert "ANDROID_SERIAL" in str(caught.value.hint)  # type: ignore[attr-defined]


def test_usb_without_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrowserRuntime, "files", lambda self, progress: {})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="no adb"):
        BrowserDevice(usb=True).measure(job(tmp_path))


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"accelerator": "gpu"}, {}, "a browser has no accelerator 'gpu'"),
        ({"usb": True, "https": True}, {}, "a phone on USB reaches this machine's loopback"),
        ({"usb": True, "host": "0.0.0.0"}, {}, "a phone on USB reaches this machine's loopback"),
        ({}, {"runtime": "openvino"}, "no browser runs artifacts for openvino"),
        ({}, {"options": {"some": 1}}, "does not know onnxruntime's option 'some'"),
        ({}, {"cores": "big"}, "no browser lets a page choose its cores"),
        ({"accelerator": "webgpu"}, {"threads": 2}, "threads are for wasm, not for webgpu"),
        ({"host": "192.0.2.1"}, {}, "cannot listen on 192.0.2.1"),
        ({"host": "no such host"}, {}, "cannot listen on no such host"),
        ({"port": 99999}, {}, "there is no port 99999"),
    ],
)
@pytest.mark.usefixtures("no_runtime")
def test_requests_that_cannot_be(
    settings: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        BrowserDevice(**settings).measure(job(tmp_path, **changes))
    assert caught.value.hint


@pytest.mark.usefixtures("no_runtime")
def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: "):
            BrowserDevice(port=port).measure(job(tmp_path))


@pytest.mark.usefixtures("no_runtime")
def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    missing = job(tmp_path)
    missing.model.unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        BrowserDevice().measure(missing)


@pytest.mark.usefixtures("no_runtime")
def test_on_all_addresses_the_announced_one_leads_here(tmp_path: Path) -> None:
    announced: list[str] = []

    def play(page: Page) -> None:
        page.take({})
        page.post("result", RESULT)

    m = measured(job(tmp_path), play, announced, host="0.0.0.0")
    assert (m.device, m.os) == ("browser: a browser", None)
    assert m.options["isolated"] is False
    host = urllib.parse.urlsplit(announced[0].split()[-1]).hostname or announced[0]
    assert "0.0.0.0" not in host


def test_what_it_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path))
    probe = BrowserDevice().probe()
    assert probe.runtimes == {"LiteRT.js": None, "ONNX Runtime Web": None}
    assert probe.notes == (
        "LiteRT.js is fetched when it is first needed",
        "ONNX Runtime Web is fetched when it is first needed",
    )


CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
SAMSUNG = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 "
    "Chrome/130.0.0.0 Mobile Safari/537.36"
)


@pytest.mark.parametrize(
    ("user_agent", "browser", "system"),
    [
        (CHROME, "Chrome 156", "Linux"),
        (f"{CHROME} Edg/156.0.0.0", "Edge 156", "Linux"),
        (CHROME.replace("Chrome/", "HeadlessChrome/"), "headless Chrome 156", "Linux"),
        (IPHONE, "Safari 18", "iOS 18"),
        (IPHONE.replace("Version/18.5", "CriOS/140.0.1"), "Chrome 140", "iOS 18"),
        (f"{MAC} Version/26.0 Safari/605.1.15", "Safari 26", "macOS"),
        (SAMSUNG, "Samsung Internet 28", "Android 10"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:145.0) Gecko/145.0 Firefox/145.0", "Firefox 145", "Android 15"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
            "Firefox 145",
            "Windows",
        ),
        ("curl/8", "a browser", None),
    ],
)
def test_browsers_by_name(user_agent: str, browser: str, system: str | None) -> None:
    assert browser_name(user_agent) == browser
    assert system_name({"user_agent": user_agent}) == system


def test_what_chromium_answers_counts_more_than_its_user_agent() -> None:
    assert (
        system_name({"user_agent": SAMSUNG, "platform": "Android", "platform_version": "16.0.0"})
        == "Android 16"
    )
    assert system_name({"user_agent": 5, "platform": ["x"]}) is None
