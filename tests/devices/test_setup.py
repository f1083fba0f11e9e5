"""Runtimes brought to a board that has none, over a real ssh connection, from wheels made here."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgecnn.devices.setup import setup
from edgecnn.devices.ssh import SshDevice
from edgecnn.errors import ConfigError, DeviceError
from edgecnn.fetch.wheels import Platform
from tests.devices.sshd import Board, needs_sshd, running

pytest.importorskip("pip")
pytestmark = needs_sshd

PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"
HERE = f"{PYTHON}-{PYTHON}-manylinux_2_17_{platform.machine()}"


def wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", *, code: str = "") -> None:
    """A package of one module that may belong to another: ``a.b`` is a package ``a`` with a module ``b``."""
    distribution = name.split(".")[0]
    info = f"{distribution}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    files = {
        f"{name.replace('.', '/')}{'' if '.' in name else '/__init__'}.py": code,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{distribution} = {distribution}:main\n",
    }
    if "." in name:
        files[f"{distribution}/__init__.py"] = ""
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{distribution}-{version}-{tag}.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip finds."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """With a Python that has no packages."""
    with running(tmp_path / "board") as it:
        monkeypatch.setenv("PATH", it.client_path)
        venv.create(tmp_path / "bare", symlinks=True)
        it.python3(f'exec {shlex.quote(str(tmp_path / "bare/bin/python"))} "$@"')
        yield it


def packages(board: Board) -> Path:
    return board.home / ".cache" / "edgecnn" / "packages"


def there(board: Board) -> set[str]:
    """Every file that a setup has left, but for the bytecode that Python has made of it."""
    files = (path for path in board.home.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(packages(board)).as_posix() for path in files}


def test_a_runtime_is_brought_there_and_another_beside_it(board: Board, wheels: Path) -> None:
    wheel(wheels, "numpy", "2.0.0", HERE)
    wheel(wheels, "onnxruntime", "1.20.0", HERE)
    wheel(wheels, "onnxruntime", "1.21.0", f"{PYTHON}-{PYTHON}-manylinux_2_17_sparc64")
    wheel(wheels, "ai_edge_litert.interpreter", "2.0.0", HERE)
    device = SshDevice(board.address)
    told: list[str] = []
    setup(device, "onnxruntime", lambda doing, done, total: told.append(doing))
    assert told[1].startswith(f"fetching onnxruntime for Python {platform.python_version()[:4]}")
    assert told[-1] == "trying"
    info = {
        f"onnxruntime-1.20.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")
    }
    assert {f"onnxruntime/{name}" for name in {"onnxruntime/__init__.py", *info}} < there(board)
    assert device.probe().runtimes == {"onnxruntime": "1.20.0", "openvino": None, "tflite": None}
    device.setup("tflite")
    assert device.probe().runtimes == {"onnxruntime": "1.20.0", "openvino": None, "tflite": "2.0.0"}
    assert not any("/bin/" in path for path in there(board))
    assert board.left_after(10) == []


def test_a_newer_one_replaces_the_one_that_is_there(board: Board, wheels: Path) -> None:
    wheel(wheels, "numpy", "2.0.0")
    wheel(wheels, "openvino", "2025.0")
    device = SshDevice(board.address)
    setup(device, "openvino")
    before = there(board)
    wheel(wheels, "openvino", "2025.1")
    setup(device, "openvino")
    assert {path.replace("2025.1", "2025.0") for path in there(board)} == before != there(board)
    assert [path.name for path in packages(board).iterdir()] == ["openvino"]


def test_where_litert_has_no_wheel_the_older_runtime_serves(board: Board, wheels: Path) -> None:
    wheel(wheels, "numpy", "2.0.0")
    wheel(wheels, "numpy", "1.26.0")
    wheel(wheels, "ai_edge_litert.interpreter", "2.0.0", f"{PYTHON}-{PYTHON}-manylinux_2_17_sparc64")
    wheel(wheels, "tflite_runtime.interpreter", "2.14.0", HERE)
    device = SshDevice(board.address)
    setup(device, "tflite")
    assert "tflite/numpy-1.26.0.dist-info/METADATA" in there(board)
    assert device.probe().runtimes["tflite"] == "2.14.0"


def test_where_numpy_has_no_wheel_the_systems_own_serves(board: Board, wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "tflite_runtime.interpreter", "2.14.0", HERE)
    device = SshDevice(board.address)
    with pytest.raises(
        DeviceError, match="there are no wheels of numpy and ai-edge-litert or tflite-runtime for"
    ):
        setup(device, "tflite")
    wheel(tmp_path, "numpy", "1.24.2")
    [site] = (tmp_path / "bare").glob("lib/python*/site-packages")
    with zipfile.ZipFile(tmp_path / "numpy-1.24.2-py3-none-any.whl") as archive:
        archive.extractall(site)
    setup(device, "tflite")
    assert device.probe().runtimes["tflite"] == "2.14.0"
    assert not any("numpy" in path for path in there(board))


def test_no_wheel_for_that_board(board: Board, wheels: Path) -> None:
    wheel(wheels, "numpy", "2.0.0", "cp39-cp39-manylinux_2_17_sparc64")
    wheel(wheels, "onnxruntime", "1.20.0")
    words = rf"no wheels of numpy and onnxruntime for Python \S+ on {platform.machine()} with glibc 2\.\d+$"
    with pytest.raises(DeviceError, match=words) as caught:
        setup(SshDevice(board.address), "onnxruntime")
    assert caught.value.hint
    assert there(board) == set()


def test_an_index_that_cannot_be_reached_is_no_lack_of_wheels(
    board: Board, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(
        DeviceError, match="pip cannot fetch onnxruntime: the package index cannot be reached"
    ) as caught:
        setup(SshDevice(board.address), "onnxruntime")
    assert "not on the board" in str(caught.value.hint)


def test_a_full_disk_changes_nothing(board: Board, wheels: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare (util-linux) and user namespaces")
    wheel(wheels, "numpy", "2.0.0", code="#" * (1 << 20))
    wheel(wheels, "onnxruntime", "1.20.0")
    python3 = (board.folder / "bin" / "python3").read_text()
    mount = f"{shutil.which('mount')} -t tmpfs -o size=500k board {board.home}"
    # What is left on the full disk is listed, since it goes with the process.
    listing = f"{shutil.which('find')} {board.home} -type f > {board.folder}/left"
    inner = f'{mount}; {shlex.quote(python3.split()[2])} "$@"; {listing}'
    board.python3(f'exec {unshare} -rm /bin/sh -c {shlex.quote(inner)} python3 "$@"')
    with pytest.raises(DeviceError, match="No space left on device") as caught:
        setup(SshDevice(board.address), "onnxruntime")
    assert "nothing was changed" in str(caught.value.hint)
    assert (board.folder / "left").read_text() == ""


def test_what_cannot_be_imported_there_is_said(board: Board, wheels: Path) -> None:
    wheel(wheels, "numpy", "2.0.0")
    wheel(wheels, "onnxruntime", "1.20.0", code="raise ImportError('libstdc++.so.6 is not there')")
    with pytest.raises(DeviceError, match=r"cannot be imported: libstdc\+\+\.so\.6 is not there"):
        setup(SshDevice(board.address), "onnxruntime")


def test_a_connection_that_breaks_leaves_what_was_there(board: Board, wheels: Path) -> None:
    wheel(wheels, "numpy", "2.0.0")
    wheel(wheels, "onnxruntime", "1.20.0")
    device = SshDevice(board.address)
    setup(device, "onnxruntime")
    before = there(board)
    wheel(wheels, "onnxruntime", "1.21.0", code=f"# {os.urandom(8 << 20).hex()}")
    python3 = (board.folder / "bin" / "python3").read_text().split("\n")[1]
    board.python3(f"/bin/sleep 1; {python3}")  # meanwhile more is sent than the connection holds
    killed = []

    def cut(doing: str, done: float, total: float | None) -> None:
        if doing == "sending":
            killed.append(psutil.Process().children())
            for child in killed[-1]:
                child.kill()

    with pytest.raises(DeviceError):
        setup(device, "onnxruntime", cut)
    assert killed
    assert board.left_after(10) == []
    assert there(board) == before
    assert [path.name for path in packages(board).iterdir()] == ["onnxruntime"]


def test_requests_that_cannot_be(board: Board, wheels: Path) -> None:
    with pytest.raises(ConfigError, match="unknown runtime 'onnxruntme'") as caught:
        setup(SshDevice(board.address), "onnxruntme")
    assert caught.value.hint == "did you mean onnxruntime?"
    (board.folder / "bin" / "python3").unlink()
    with pytest.raises(DeviceError, match="has no python3"):
        setup(SshDevice(board.address), "onnxruntime")


def test_a_board_is_named_by_what_decides() -> None:
    assert str(Platform("3.11", "armv7l", 36)) == "Python 3.11 on armv7l with glibc 2.36"
