"""Fetching the runtimes with npm, and never the wrong bytes."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgecnn.devices.browser.runtimes import BrowserRuntime, Package, browser_runtime, browser_runtimes
from edgecnn.errors import ConfigError, MissingDependency

CODE = b"export const answer = 42;"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return held.getvalue()


ARCHIVE = packed({"dist/code.mjs": CODE, "dist/unwanted.js": b"no", "../../outside.js": b"no"})


def runtime(**changes: str) -> BrowserRuntime:
    fields = {"name": "set", "version": "1.1", "sha256": sha256(ARCHIVE), **changes}
    package = Package(**fields, size_bytes=len(ARCHIVE), files={"dist/code.mjs": sha256(CODE)})
    return BrowserRuntime("A Runtime", "1.1", "MIT", "https://example.org", (package,))


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that delivers one archive, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "set.tgz").write_bytes(ARCHIVE)
    (folder / "npm").write_text(f'#!/bin/sh\ntest "$2" = set@1.1 && cp {folder}/set.tgz set-1.1.tgz\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    return folder


def test_a_runtime_is_fetched_once(npm: Path, tmp_path: Path) -> None:
    wanted = runtime()
    assert wanted.cached() is None
    files = wanted.files()
    assert {name: path.read_bytes() for name, path in files.items()} == {"code.mjs": CODE}
    (npm / "npm").write_text("#!/bin/sh\nexit 1\n")
    assert wanted.files() == files
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == [files["code.mjs"]]


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(npm: Path) -> None:
    path = runtime().files()["code.mjs"]
    path.write_bytes(b"something else")
    assert runtime().files()["code.mjs"].read_bytes() == CODE


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (runtime(sha256=sha256(b"another")), "npm package set: the archive has the wrong SHA-256"),
        (runtime(version="1.2"), "npm package set: "),
    ],
)
def test_what_is_not_the_runtime_is_refused(wanted: BrowserRuntime, reason: str, npm: Path) -> None:
    with pytest.raises(MissingDependency, match=reason) as caught:
        wanted.files()
    assert "network" in str(caught.value.hint)
    assert "\n" not in str(caught.value)
    assert wanted.cached() is None


def test_an_archive_with_another_file_in_it_is_refused(npm: Path) -> None:
    wanted = runtime()
    package = replace(wanted.packages[0], files={"dist/code.mjs": sha256(b"another")})
    with pytest.raises(MissingDependency, match=r"package/dist/code\.mjs in it has the wrong SHA-256"):
        replace(wanted, packages=(package,)).files()


def test_without_npm_the_user_hears_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(MissingDependency, match="npm is not installed") as caught:
        runtime().files()
    assert "apt-get install npm" in str(caught.value.hint)


def test_no_two_files_of_a_runtime_have_one_name() -> None:
    for known in browser_runtimes().values():
        names = [Path(member).name for package in known.packages for member in package.files]
        assert len(names) == len(set(names))
        assert all(len(package.sha256) == 64 for package in known.packages)


def test_a_runtime_that_no_browser_has() -> None:
    with pytest.raises(ConfigError, match="no browser runs artifacts for openvino") as caught:
        browser_runtime("openvino")
    assert "onnxruntime, tflite" in str(caught.value.hint)


@pytest.mark.network
def test_npm_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The smallest package."""
    known = browser_runtime("tflite")
    small = replace(known, packages=known.packages[1:])
    assert small.packages[0].size_bytes < 10_000
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    try:
        files = small.files()
    except MissingDependency as error:
        pytest.skip(f"out of reach: {error}")
    assert list(files) == ["bundle.js"]
