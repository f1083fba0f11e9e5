"""The server alone, over real connections: what it gives to whom, and what it withstands."""

from __future__ import annotations

import http.client
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra 'browser' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'browser' is not installed")

from edgecnn.devices.browser import server as module
from edgecnn.devices.browser.server import FINISHED, NO_TOKEN, TAKEN, Exchange, Offer, Server

TOKEN = "a-token-of-this-run"
SECRET = b"what no page may read"
INPUTS = np.arange(24, dtype=np.float32).reshape(4, 6)


class Client:
    """Requests to a running server."""

    def __init__(self, exchange: Exchange, port: int, folder: Path) -> None:
        self.exchange, self.port, self.folder = exchange, port, folder

    def ask(
        self, method: str, path: str, body: Any = None, token: str = TOKEN
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/{token}/{path}", body)
            reply = connection.getresponse()
            return reply.status, reply.read(), reply.headers
        finally:
            connection.close()

    def get(self, path: str, token: str = TOKEN) -> tuple[int, bytes]:
        return self.ask("GET", path, token=token)[:2]

    def post(self, path: str, body: Any) -> tuple[int, bytes]:
        return self.ask("POST", path, body)[:2]

    def take(self) -> tuple[http.client.HTTPConnection, dict[str, Any]]:
        """Take the job; the connection is held."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", f"/{TOKEN}/take", json.dumps({"user_agent": "test"}))
        reply = connection.getresponse()
        assert reply.status == 200
        connection.reply = reply  # type: ignore[attr-defined]
        return connection, json.loads(reply.readline())

    def event(self) -> dict[str, Any]:
        return self.exchange.events.get(timeout=30)

    def raw(self, request: bytes) -> bytes:
        """Send bytes, and what comes back before the server is done with them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            # The server may close before it has read all.
            with suppress(OSError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            received = b""
            with suppress(OSError):
                while chunk := connection.recv(65536):
                    received += chunk
        return received


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    served = tmp_path / "served"
    served.mkdir()
    (served / "net.onnx").write_bytes(b"the model")
    (served / "code.mjs").write_bytes(b"the runtime")
    (served / "job.json").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    files = {"code.mjs": served / "code.mjs"}
    offer = Offer({"threads": 2}, served / "net.onnx", INPUTS, files, served / "raw")
    exchange = Exchange(offer, TOKEN)
    listening = socket.create_server(("127.0.0.1", 0))
    with Server(exchange, listening):
        yield Client(exchange, listening.getsockname()[1], served)


def test_the_job_and_nothing_else_is_served(client: Client) -> None:
    status, page, headers = client.ask("GET", "")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'src="page.js"' in page
    # Without these a page has neither threads nor a fine clock.
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    assert client.get("page.js")[0] == 200
    assert client.get("model") == (200, b"the model")
    status, code, headers = client.ask("GET", "runtime/code.mjs")
    assert (status, code, headers["content-type"]) == (200, b"the runtime", "text/javascript; charset=utf-8")
    assert client.get("inputs/1/3") == (200, INPUTS[1:3].tobytes())
    for path in ("job.json", "net.onnx", "runtime/job.json", "runtime/", "inputs/3/5", "inputs/2/2", "take"):
        assert client.get(path)[0] in (404, 405), path


@pytest.mark.parametrize(
    "token", ["", "a", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "%00", "é", "..", "%2e%2e"]
)
def test_without_the_token_there_is_nothing(client: Client, token: str) -> None:
    for path in ("", "page.js", "model", "take"):
        request = f"GET /{token}/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        reply = client.raw(request.encode())
        assert reply.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ")), reply
        assert NO_TOKEN.encode() in reply or b"400" in reply
    assert client.exchange.events.empty()


@pytest.mark.parametrize(
    "path",
    [
        "runtime/../job.json",
        "runtime/../../secret",
        "runtime/..%2f..%2fsecret",
        "runtime/%2e%2e/%2e%2e/secret",
        "runtime/..\\..\\secret",
        "runtime//etc/passwd",
        "runtime/code.mjs/../../secret",
        "runtime/code.mjs%00",
        "../secret",
        "/etc/passwd",
        "model/../job.json",
        "inputs/-1/3",
        "inputs/0/99999999999999999999",
        f"inputs/0/{'9' * 5000}",
        "inputs/0/٣",
        "outputs/0",
    ],
)
def test_no_path_leads_outside_the_job(client: Client, path: str) -> None:
    request = f"GET /{TOKEN}/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reply = client.raw(request.encode())
    assert reply.startswith((b"HTTP/1.1 40", b"HTTP/1.1 405")), reply
    assert SECRET not in reply
    assert b"root:" not in reply


def test_a_page_opened_twice_is_told_so(client: Client) -> None:
    connection, job = client.take()
    assert job == {"threads": 2}
    assert client.event() == {"event": "taken", "user_agent": "test"}
    assert client.post("take", b"{}") == (409, TAKEN.encode())
    assert client.get("") == (409, TAKEN.encode())
    assert client.exchange.events.empty()
    connection.close()


def test_a_run_from_taking_to_the_result(client: Client) -> None:
    connection, _ = client.take()
    assert client.post("progress", json.dumps({"doing": "loading", "done": 0.5}))[0] == 204
    assert client.post("outputs/1", b"\1\2")[0] == 400  # batch 0 comes first
    assert client.post("outputs/0", b"\1\2")[0] == 204
    assert client.post("outputs/1", b"\3")[0] == 204
    assert client.post("result", json.dumps({"warm": True}))[0] == 204
    names = [client.event()["event"] for _ in range(5)]
    assert names == ["taken", "progress", "progress", "progress", "result"]
    assert (client.folder / "raw").read_bytes() == b"\1\2\3"
    assert connection.reply.read() == b""  # type: ignore[attr-defined]
    for path in ("progress", "outputs/2", "result", "error"):
        assert client.post(path, b"{}") == (409, FINISHED.encode())
    assert client.get("") == (409, FINISHED.encode())


def test_nothing_is_heard_before_the_job_is_taken(client: Client) -> None:
    for path in ("progress", "outputs/0", "result", "error"):
        assert client.post(path, b"{}")[0] == 409
    assert client.exchange.events.empty()
    assert not (client.folder / "raw").exists()


def test_a_page_that_goes_away_is_noticed(client: Client) -> None:
    connection, _ = client.take()
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert [client.event()["event"] for _ in range(2)] == ["taken", "gone"]


@pytest.mark.parametrize(
    ("path", "limit", "size"),
    [
        ("progress", "MAX_NOTE_BYTES", module.MAX_NOTE_BYTES),
        ("error", "MAX_NOTE_BYTES", module.MAX_NOTE_BYTES),
        ("result", "MAX_RESULT_BYTES", 10_000),
        ("outputs/0", "MAX_OUTPUT_BYTES", 10_000),
        ("outputs/0", "MAX_OUTPUTS_BYTES", 10_000),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_an_oversized_post_is_refused(
    client: Client, path: str, limit: str, size: int, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, size)
    connection, _ = client.take()
    body: Any = b"[" * (size + 1)
    # Without a declared length, too.
    assert client.post(path, iter([body[:size], body[size:]]) if chunked else body)[0] == 413
    assert client.event()["event"] == "taken"
    assert client.exchange.events.empty()
    assert not (client.folder / "raw").exists()
    connection.close()


def test_an_oversized_page_cannot_take_the_job(client: Client) -> None:
    assert client.post("take", b" " * (module.MAX_NOTE_BYTES + 1))[0] == 413
    assert client.get("")[0] == 200


@pytest.mark.parametrize("body", [b"", b"[1]", b"nonsense", b"\xff\xfe", b"[" * 60_000, b"9" * 60_000, b'"'])
def test_what_is_no_json_object_is_refused(client: Client, body: bytes) -> None:
    connection, _ = client.take()
    assert client.post("result", body)[0] == 400
    assert client.event()["event"] == "taken"
    assert client.exchange.events.empty()
    connection.close()


def malformed(generator: random.Random) -> bytes:
    """A request that no page sends, though it may begin like one."""

    def some(letters: bytes, most: int) -> bytes:
        return bytes(generator.choices(letters, k=generator.randrange(most)))

    anything = bytes(range(256))
    visible = bytes(range(33, 127))
    method = generator.choice(
        [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"TRACE", some(visible, 9)]
    )
    names = [
        b"",
        b"page.js",
        b"model",
        b"runtime/code.mjs",
        b"inputs/0/1",
        b"progress",
        b"outputs/0",
        b"result",
    ]
    names += [
        b"../secret",
        b"..%2f..%2fsecret",
        b"%2e%2e/secret",
        b"runtime/../../secret",
        b"%00",
        some(visible, 40),
    ]
    path = b"/" + generator.choice([TOKEN.encode(), TOKEN.encode(), b"", some(visible, 20)]) + b"/"
    path += generator.choice(names) + generator.choice(
        [b"", b"", b"?" + some(visible, 30), some(anything, 10)]
    )
    headers = [b"Host: x"]
    for _ in range(generator.randrange(5)):
        headers.append(
            generator.choice(
                [
                    b"Content-Length: "
                    + generator.choice([b"-1", b"5", b"99999999999999", b"1e9", some(anything, 5)]),
                    b"Transfer-Encoding: " + generator.choice([b"chunked", b"gzip", some(visible, 8)]),
                    b"Range: bytes="
                    + generator.choice([b"0-", b"-5", b"9-1", b"0-1,2-3", some(visible, 12)]),
                    b"Content-Type: " + some(visible, 20),
                    b"Expect: 100-continue",
                    b"Upgrade: websocket\r\nConnection: Upgrade",
                    some(visible, 20) + b": " + some(anything, 40),
                    some(anything, 30),
                ]
            )
        )
    body = generator.choice(
        [b"", b"{}", b'{"a": 1}', b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", some(anything, 200)]
    )
    version = generator.choice([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", some(visible, 9)])
    request = b" ".join([method, path, version]) + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body
    return request[: generator.randrange(len(request))] if generator.random() < 0.2 else request


def test_a_thousand_malformed_requests(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the server itself says nothing
    connection, _ = client.take()
    generator = random.Random(0)
    statuses = set()
    for _ in range(1000):
        reply = client.raw(malformed(generator))
        assert SECRET not in reply
        assert b"Traceback" not in reply
        if reply:
            statuses.add(int(reply.split()[1]))
    assert {200, 400, 403, 404, 405} <= statuses
    assert not any(status >= 500 for status in statuses)
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
    # It still does its work.
    assert client.get("model") == (200, b"the model")
    events = [client.event()["event"] for _ in range(client.exchange.events.qsize())]
    assert events[0] == "taken"
    assert "gone" not in events
    connection.close()


def test_nothing_listens_after_the_job(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"the model")
    before = set(threading.enumerate())
    exchange = Exchange(Offer({}, tmp_path / "net.onnx", None, {}, tmp_path / "raw"), TOKEN)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    with Server(exchange, listening):
        held, _ = Client(exchange, port, tmp_path).take()
        # One that never ends its request, and one that never asks, must not keep the server.
        stalled = socket.create_connection(("127.0.0.1", port))
        stalled.sendall(
            f"POST /{TOKEN}/result HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode()
        )
        idle = socket.create_connection(("127.0.0.1", port))
        time.sleep(0.2)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert [exchange.events.get()["event"] for _ in range(exchange.events.qsize())] == ["taken"]
    for connection in (held, stalled, idle):
        connection.close()
