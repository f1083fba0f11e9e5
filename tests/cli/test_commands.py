"""What the commands print, where, and what they load to do so."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgecnn.bundle.write import read

HEAVY = {"torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "PIL", "openvino", "ai_edge_litert"}
EXPORT = ("export", "lenet5", "--weights", "random", "--target", "tflite")
QUICK = ("--min-time", "0.05", "--min-runs", "5")


LIGHT = [("--help",), ("--version",), ("zoo",), ("zoo", "--json"), ("targets",)]
LIGHT += [("export", "--help"), ("inspect", "--help"), ("eval", "--help"), ("train", "--help")]


@pytest.mark.parametrize("arguments", LIGHT)
def test_light_commands_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from edgecnn.cli import run\n"
        "assert run() == 0\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    print(f"{' '.join(arguments)}: {time.monotonic() - began:.2f} s")  # meant to be 0.2, shared machines vary
    assert set(ended.stderr.split()) & HEAVY == set()
    assert ended.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, edgecnn; print(*{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) & HEAVY == set()


def test_no_arguments_print_the_help_on_standard_error(process: Any) -> None:
    ended = process()
    assert (ended.code, ended.out) == (2, "")
    assert "edgecnn export mobilenet --target tflite" in ended.err


def test_the_help_lists_every_command(run: Any) -> None:
    ended = run("--help")
    assert (ended.code, ended.err) == (0, "")
    for command in ("bench", "doctor", "export", "targets", "zoo"):
        assert f"\n  {command} " in ended.out
        assert run(command, "--help").out.startswith(f"Usage: edgecnn {command}")


def test_zoo(run: Any) -> None:
    assert "mobilenet_v2 (mobilenet)" in run("zoo").out
    listed = json.loads(run("zoo", "--json").out)
    assert {"lenet5", "mobilenet_v1", "mobilenet_v2", "resnet18"} <= {entry["name"] for entry in listed}
    [mobilenet] = [entry for entry in listed if entry["name"] == "mobilenet_v2"]
    assert (mobilenet["params"], mobilenet["top1_percent"]) == (3_504_872, 71.878)


def test_targets(run: Any) -> None:
    text = run("targets").out
    listed = json.loads(run("targets", "--json").out)
    assert {"tflite", "onnxruntime", "openvino"} <= {entry["name"] for entry in listed}
    assert all(entry["name"] in text and entry["description"] in text for entry in listed)


def test_doctor_finds_every_piece(process: Any) -> None:
    ended = process("doctor", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = {(entry["kind"], entry["name"]): entry for entry in json.loads(ended.out)}
    for kind, name in (("framework", "torch"), ("runtime", "ai-edge-litert"), ("device", "local")):
        assert found[kind, name]["usable"], found[kind, name]
    assert {"python", "cpu", "tool", "folder"} <= {kind for kind, _ in found}


def test_doctor_names_the_missing_piece(process: Any, tmp_path: Path) -> None:
    # On the path before the real ones; a broken native library looks like the second.
    (tmp_path / "torch.py").write_text("raise ImportError('libgone.so: cannot open shared object file')")
    (tmp_path / "openvino.py").write_text("import os; os.abort()")
    ended = process("doctor", PYTHONPATH=str(tmp_path), EDGECNN_CACHE_DIR="/dev/null/cache")
    assert ended.code == 0
    lines = {line.split()[2]: line for line in ended.out.splitlines()[1:]}
    assert lines["torch"].startswith("--")
    assert "libgone.so" in lines["torch"]
    assert lines["openvino"].startswith("--")
    assert lines["cache"].startswith("--")
    assert "set EDGECNN_CACHE_DIR" in lines["cache"]


def test_doctor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import edgecnn.doctor

    missing = ("runtime", "edgecnn_absent", "edgecnn-absent", "[absent]")
    monkeypatch.setattr(edgecnn.doctor, "_PACKAGES", (missing,))
    found = {finding.name: finding for finding in edgecnn.doctor.diagnose()}
    assert not found["edgecnn-absent"].usable
    assert "pip install 'edgecnn[absent]'" in found["edgecnn-absent"].detail
    assert not found["local"].usable


def test_doctor_says_what_devices_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import edgecnn.doctor

    monkeypatch.setattr(edgecnn.doctor, "_PACKAGES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.name: finding for finding in edgecnn.doctor.diagnose()}
    for name, remedy in {
        "ssh": "OpenSSH", "adb": "apt-get install adb", "npm": "apt-get install npm",
        "qemu-aarch64": "apt-get install qemu-user", "gcc": "apt-get install gcc",
    }.items():  # fmt: skip
        assert not found[name].usable
        assert remedy in found[name].detail
    for name in ("ssh", "adb", "npm"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    found = {finding.name: finding for finding in edgecnn.doctor.diagnose()}
    assert all(found[name].usable for name in ("ssh", "adb", "npm"))


def test_export_prints_results_and_nothing_else(process: Any, tmp_path: Path) -> None:
    ended = process("export", "lenet", *EXPORT[2:])
    assert ended.code == 0, ended.err
    assert [line for line in ended.err.splitlines() if not line.startswith("INFO: ")] == []
    lines = ended.out.splitlines()
    assert lines[0] == "lenet is lenet5"
    assert "61,706 parameters" in lines[1]
    assert "RANDOM WEIGHTS, untrained" in lines[2]
    assert "float graph against eager torch" in ended.out
    assert "fp32 artifact against" in ended.out
    assert "GMAC/s" in ended.out or "Latency about" in ended.out
    place = tmp_path / "lenet5-1.0-32-tflite-fp32"
    assert read(place).manifest["weights"]["random"]
    assert "RANDOM WEIGHTS, untrained" in (place / "README.md").read_text()
    assert sorted(tmp_path.iterdir()) == [place]


def test_json_of_export_and_bench(process: Any, tmp_path: Path) -> None:
    ended = process(*EXPORT, "--json", "--target", "onnxruntime")
    exported = json.loads(ended.out)
    assert [entry["target"] for entry in exported] == ["tflite", "onnxruntime"]
    # Both come from one graph: the stages before it ran once.
    assert exported[0]["graph_sha256"] == exported[1]["graph_sha256"]
    assert exported[0]["checks"][0] == exported[1]["checks"][0]
    assert all((tmp_path / entry["path"]).is_dir() for entry in exported)
    first, second = (entry["path"] for entry in exported)
    measured = json.loads(process("bench", first, *QUICK, "--json").out)
    assert list(measured) == ["measurement"]
    assert len(measured["measurement"]["samples_ms"]) >= 5
    compared = json.loads(process("bench", first, "--against", second, *QUICK, "--json").out)
    assert compared["comparison"]["target_a"] == "onnxruntime"
    assert compared["measurement"]["target"] == "tflite"
    assert compared["against"]["target"] == "onnxruntime"


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_progress_is_drawn_on_a_terminal_beside_json(command: list[str], tmp_path: Path) -> None:
    import pty
    import threading

    ours, theirs = pty.openpty()
    drawn: list[bytes] = []

    def follow() -> None:
        try:
            while chunk := os.read(ours, 4096):
                drawn.append(chunk)
        except OSError:  # Linux: the other end is closed
            pass

    reader = threading.Thread(target=follow)
    reader.start()
    ended = subprocess.run(
        [*command, *EXPORT, "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm"},
        text=True,
        check=True,
    )
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    assert json.loads(ended.stdout)[0]["target"] == "tflite"
    assert b"loading torch" in b"".join(drawn)


def test_a_reader_that_leaves_early_is_no_error(command: list[str], tmp_path: Path) -> None:
    shell = f"{shlex.join(command)} zoo --json | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.splitlines() == ["[", "0"]
    assert ended.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_is_full_is_one_line(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*command, "zoo"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0] == "error: No space left on device"


def test_bench_of_a_bundle(run: Any, bundles: dict[str, Path]) -> None:
    ended = run("bench", bundles["tflite"], *QUICK)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == "lenet5-1.0-32 tflite fp32"
    for title in ("latency", "start", "memory", "machine"):
        assert f"\n  {title} " in ended.out


def test_bench_of_two(run: Any, bundles: dict[str, Path]) -> None:
    ended = run("bench", bundles["tflite"], "--against", bundles["onnxruntime"], *QUICK)
    assert ended.code == 0, ended.err
    assert "lenet5-1.0-32 tflite fp32 takes" in ended.out.splitlines()[-1]


def test_bench_of_a_model(run: Any, here: Path) -> None:
    (here / "lenet5").mkdir()  # a folder of that name is no bundle
    ended = run("bench", "lenet5", "--weights", "random", "--target", "onnxruntime", *QUICK)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("lenet5-1.0-32 onnxruntime fp32\n")
    assert [path.name for path in here.iterdir()] == ["lenet5"]
