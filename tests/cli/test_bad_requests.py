"""Whatever is wrong is one line that says so, one that says what to do, and nothing on disk."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from edgecnn.zoo import build, make_spec

LENET = ("export", "lenet5", "--weights", "random", "--target", "tflite")
MOBILENET = ("export", "mobilenet", "--weights", "random", "--target", "tflite")
BENCH = ("bench", "lenet5", "--weights", "random", "--target", "tflite")
LENET_BUNDLE = "lenet5-1.0-32-tflite-fp32"


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("exprt",), "unknown command 'exprt'", "did you mean export?"),
        (("export", "mobilnet", "--target", "tflite"), "unknown model 'mobilnet'", "did you mean mobilenet"),
        (("export", "qqq", "--target", "tflite"), "unknown model 'qqq'", "`edgecnn zoo` lists all"),
        (("export", "lenet5", "--target", "tflit"), "unknown target 'tflit'", "did you mean tflite?"),
        (("export", "lenet5", "--target", "no.toml"), "file no.toml does not exist", "edgecnn targets"),
        (("export", "lenet5"), "where shall lenet5 run?", "edgecnn targets"),
        (("export",), "missing argument 'MODEL'", "edgecnn export --help"),
        ((*LENET, "--presicion", "int8"), "'--presicion'", "edgecnn export --help"),
        ((*LENET, "--precision", "int4"), "unknown precision 'int4'", "did you mean int8"),
        ((*LENET, "--precision", "INT8"), "unknown precision 'INT8'", "fp32, fp16, int8"),
        ((*MOBILENET, "--width", "wide"), "'wide' is not a valid float", "edgecnn export --help"),
        ((*MOBILENET, "--width", "nan"), "cannot have width nan", "from 0.01 to 4"),
        ((*MOBILENET, "--width", "inf"), "cannot have width inf", "from 0.01 to 4"),
        ((*MOBILENET, "--width", "1e999"), "cannot have width inf", "from 0.01 to 4"),
        ((*MOBILENET, "--width", "0"), "cannot have width 0", "from 0.01 to 4"),
        ((*MOBILENET, "--width", "-1"), "cannot have width -1", "from 0.01 to 4"),
        ((*MOBILENET, "--resolution", "0"), "cannot have resolution 0", "from 32 to"),
        ((*MOBILENET, "--resolution", "-224"), "cannot have resolution -224", "from 32 to"),
        ((*MOBILENET, "--resolution", "31"), "five halvings", "from 32 to"),
        ((*MOBILENET, "--resolution", "99999999999"), "cannot have resolution", "from 32 to"),
        ((*LENET, "--resolution", "15"), "lenet5 cannot have resolution 15", "from 16 to"),
        ((*LENET, "--classes", "0"), "lenet5 cannot have 0 classes", "from 1"),
        ((*LENET, "--input-shape", "1,1,32,32"), "lenet5 has no --input-shape", "--resolution"),
        ((*LENET, "--preprocess", "unut"), "unknown preprocessing", "unit"),
        (("zoo", "mobil"), "no network fits 'mobil'", "mobilenet"),
        (("zoo", "--max-macs", "3X"), "'3X' is no amount", "300M"),
        (("export", "lenet5", "--target", "tflite"), "no published ImageNet weights", "--weights random"),
        (("export", "mobilenet", "--width", ".5", "--target", "tflite"), "only for mobilenet_v2", "--wei"),
        (("export", "lenet5", "--weights", "imagnet", "--target", "tflite"), "unknown weights", "random"),
        ((*LENET, "--calibration", "."), "fp32 has no use for it", "--precision int8"),
        (("bench", "nope"), "unknown model 'nope'", "known: "),
        (("bench", "no/bundle"), "there is no bundle no/bundle", "edgecnn export"),
        (("bench", "lenet5"), "where shall lenet5 run?", "--target"),
        ((*BENCH, "--min-time", "0"), "'--min-time'", "edgecnn bench --help"),
        ((*BENCH, "--min-time", "nan"), "cannot take nan s", "positive"),
        ((*BENCH, "--threads", "0"), "'--threads'", "edgecnn bench --help"),
    ],
)  # fmt: skip
def test_wrong_requests(arguments: tuple[str, ...], message: str, hint: str, run: Any, here: Path) -> None:
    run(*arguments).refused(2, message, hint)
    assert list(here.iterdir()) == []


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def checkpoint(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "a pickle with code":
        torch.save({"weight": Payload()}, stream)
    elif kind == "a bare pickle with code":
        pickle.dump(Payload(), stream)
    else:
        name, width = ("mobilenet_v2", 0.35) if kind == "another network" else ("lenet5", 1.0)
        torch.save(build(make_spec(name, width)).state_dict(), stream)
    data = stream.getvalue()
    return {"truncated": data[: len(data) // 2], "corrupt": os.urandom(4096), "empty": b""}.get(kind, data)


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("truncated", "w.pth is damaged or no weights file", "state dict"),
        ("corrupt", "w.pth is damaged or no weights file", "state dict"),
        ("empty", "w.pth is damaged or no weights file", "state dict"),
        (
            "another network",
            "w.pth does not fit lenet5-1.0-32",
            "fits mobilenet_v2 with --width 0.35",
        ),
        ("a pickle with code", "w.pth is refused: loading it would run", "state_dict()"),
        ("a bare pickle with code", "w.pth is", "state"),
    ],
)
def test_checkpoints_that_do_not_load(kind: str, message: str, hint: str, run: Any, here: Path) -> None:
    (here / "w.pth").write_bytes(checkpoint(kind))
    run("export", "lenet5", "--weights", "w.pth", "--target", "tflite").refused(1, message, hint)
    assert [path.name for path in here.iterdir()] == ["w.pth"]


def test_a_checkpoint_that_is_not_there(run: Any, here: Path) -> None:
    run("export", "lenet5", "--weights", "w.pth", "--target", "tflite").refused(1, "w.pth does not exist", "")
    assert list(here.iterdir()) == []


def bomb() -> bytes:
    """A PNG of a few bytes that declares 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("missing", "does not exist", "folder of images"),
        ("empty", "is empty", "put images into it"),
        ("a file", "photos line 1 has 1 columns", "file,label"),
        ("strangers", "notes.txt, sub/data.csv", "remove what is not an image"),
        ("bomb", "bomb.png has more than 64 megapixels", "shrink it"),
        ("truncated", "cut.png is damaged", "hint"),
    ],
)
def test_calibration_folders(kind: str, message: str, hint: str, run: Any, here: Path) -> None:
    photos = here / "photos"
    if kind == "a file":
        photos.write_text("no folder")
    elif kind != "missing":
        photos.mkdir()
    if kind == "strangers":
        (photos / "sub").mkdir()
        (photos / "notes.txt").write_text("buy milk")
        (photos / "sub" / "data.csv").write_text("1,2")
        Image.new("RGB", (40, 40)).save(photos / "good.png")
    if kind == "bomb":
        (photos / "bomb.png").write_bytes(bomb())
    if kind == "truncated":
        stream = io.BytesIO()
        Image.effect_noise((64, 64), 90).save(stream, "PNG")
        (photos / "cut.png").write_bytes(stream.getvalue()[:500])
    ended = run(*LENET, "--precision", "int8", "--calibration", "photos")
    if hint == "hint":
        assert (ended.code, ended.out) == (1, "")
        assert message in ended.err
    else:
        ended.refused(1, message, hint)
    assert [path.name for path in here.iterdir()] == ([] if kind == "missing" else ["photos"])


@pytest.mark.parametrize(
    ("target", "module", "install"),
    [
        ("openvino", "openvino", "pip install 'edgecnn[openvino]'"),
        ("tflite", "ai_edge_litert", "pip install"),
    ],
)
def test_a_runtime_that_is_not_installed(
    target: str, module: str, install: str, run: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"edgecnn.backends.{target}")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == module] or [module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    run("export", "lenet5", "--weights", "random", "--target", target).refused(1, "is not installed", install)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc"])
def test_outputs_that_cannot_be(place: str, run: Any, here: Path) -> None:
    if place == "/proc" and not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    (here / "file").write_text("mine")
    output = {"a file": "file", "below a file": "file/deep/er"}.get(place, "/proc/edgecnn")
    run(*LENET, "-o", output).refused(1, "cannot be written" if place == "/proc" else "is not a folder", "-o")
    assert [path.name for path in here.iterdir()] == ["file"]
    assert (here / "file").read_text() == "mine"


@pytest.mark.skipif(is_root(), reason="permission bits do not bind root")
def test_a_read_only_output(run: Any, here: Path) -> None:
    folder = here / "locked"
    folder.mkdir(mode=0o500)
    run(*LENET, "-o", folder).refused(1, "cannot be written", "permissions")
    folder.chmod(0)
    run(*LENET, "-o", folder).refused(1, "cannot be written", "-o")


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits")
@pytest.mark.parametrize(
    ("target", "limit_bytes"),
    [
        ("tflite", 2_000),
        ("tflite", 100_000),
        ("onnxruntime", 100_000),
        ("openvino", 100_000),
    ],
)
def test_a_file_that_cannot_grow(target: str, limit_bytes: int, command: list[str], tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    out = tmp_path / "out"
    ended = subprocess.run(
        [*command, "export", "lenet5", "--weights", "random", "--target", target, "-o", "out"],
        preexec_fn=limit, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert "cannot be written" in ended.stderr
    assert ended.stdout == ""
    assert not out.exists()


def test_a_full_disk(command: list[str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        pytest.skip("no mount command")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk could be mounted: {mounted.stderr.strip()}")
    try:
        ended = subprocess.run([*command, *LENET, "-o", disk], capture_output=True, text=True, check=False)
        assert ended.returncode == 1, ended.stderr
        assert "the disk is full" in ended.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run([umount, disk], check=True)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_only_bundles_are_replaced(force: tuple[str, ...], run: Any, here: Path) -> None:
    place = here / LENET_BUNDLE
    place.mkdir()
    run(*LENET, *force).refused(2, "is not a bundle", "move it away")
    (place / "manifest.json").write_text('{"name": "a web app", "files": {}}')
    run(*LENET, *force).refused(2, "is not a bundle", "move it away")
    assert [path.name for path in place.iterdir()] == ["manifest.json"]
    shutil.rmtree(place)
    place.write_text("a file")
    run(*LENET, *force).refused(2, "is not a bundle", "move it away")
    place.unlink()
    place.symlink_to("nowhere")
    run(*LENET, *force).refused(2, "is not a bundle", "move it away")
    assert place.is_symlink()


def test_a_bundle_is_replaced_only_with_force(run: Any, here: Path, bundles: dict[str, Path]) -> None:
    place = here / LENET_BUNDLE
    shutil.copytree(bundles["tflite"], place)
    (place / "README.md").write_text("old")
    run(*LENET).refused(2, "exists already", "--force")
    assert (place / "README.md").read_text() == "old"
    (place / "notes.txt").write_text("mine")
    run(*LENET, "--force").refused(2, "notes.txt", "move them away")
    (place / "notes.txt").unlink()
    ended = run(*LENET, "--force", "--json")
    assert ended.code == 0, ended.err
    assert (place / "README.md").read_text() != "old"
    assert [path.name for path in here.iterdir()] == [LENET_BUNDLE]


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest", "broken manifest"])
def test_a_damaged_bundle_is_not_measured(
    damage: str, run: Any, here: Path, bundles: dict[str, Path]
) -> None:
    place = here / "bundle"
    shutil.copytree(bundles["tflite"], place)
    if damage == "changed":
        data = bytearray((place / "model.tflite").read_bytes())
        data[-100] ^= 1
        (place / "model.tflite").write_bytes(data)
    elif damage == "missing":
        (place / "model.tflite").unlink()
    elif damage == "no manifest":
        (place / "manifest.json").unlink()
    else:
        (place / "manifest.json").write_text("{")
    message = (
        "model.tflite is missing or has changed" if damage in ("changed", "missing") else "is not a bundle"
    )
    run("bench", "bundle").refused(2, message, "edgecnn export" if "manifest" in damage else "--force")
    run("bench", bundles["onnxruntime"], "--against", "bundle").refused(2, message, "")


@pytest.mark.parametrize(
    "option",
    [("--target", "tflite"), ("--precision", "fp32"), ("--width", "1"), ("--resolution", "32"),
     ("--weights", "random"), ("--calibration", ".")],
)  # fmt: skip
def test_a_bundle_has_its_own_options(option: tuple[str, str], run: Any, bundles: dict[str, Path]) -> None:
    name = option[0].removeprefix("--")
    run("bench", bundles["tflite"], *option).refused(2, f"which has its own {name}", f"leave {option[0]} out")


def test_bench_of_a_file_in_a_bundle(run: Any, bundles: dict[str, Path]) -> None:
    run("bench", bundles["tflite"] / "model.tflite").refused(2, "is a file, not a bundle", "the folder")


def test_names_of_any_script_and_with_spaces(run: Any, here: Path, bundles: dict[str, Path]) -> None:
    output = here / "mein Büro 模型"
    target = here / "größe [x] y.toml"
    target.write_text('description = "d"\nruntime = "tflite"\ndevice = "local"\nprecisions = ["fp32"]\n')
    ended = run("export", "lenet5", "--weights", "random", "--target", target, "-o", output)
    assert ended.code == 0, ended.err
    [bundle] = output.iterdir()
    assert bundle.name == "lenet5-1.0-32-größe [x] y-fp32"
    assert run("bench", bundle, "--min-time", "0.05", "--json").code == 0


def test_a_home_and_a_cache_that_cannot_be_written(process: Any, tmp_path: Path) -> None:
    nowhere = {"HOME": "/dev/null/home", "EDGECNN_CACHE_DIR": "/dev/null/cache"}
    ended = process(*LENET, "-o", "out", **nowhere)
    assert ended.code == 0, ended.err
    ended = process("export", "mobilenet", "--target", "tflite", **nowhere)
    assert (ended.code, ended.out) == (1, "")
    assert "the cache folder /dev/null/cache cannot be written" in ended.err
    assert "set EDGECNN_CACHE_DIR" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_internal_error_is_one_line_unless_asked(
    run: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn import pipeline

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(pipeline, "export", fail)
    ended = run(*LENET)
    assert (ended.code, ended.out) == (70, "")
    assert ended.err.splitlines()[0] == "internal error: ValueError: two lines"
    monkeypatch.setenv("EDGECNN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="two"):
        run(*LENET)
