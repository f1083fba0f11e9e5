"""How long MobileNetV2 takes from its checkpoint to an int8 TFLite file: edgecnn, litert-torch, onnx2tf.

    python benchmarks/compile_time.py

Wall time of whole processes, imports included, one after the other in turns, each with the same torch, the
same checkpoint and the same calibration photographs. What each does and does not do in that time:

- edgecnn: ``edgecnn export mobilenet_v2 --target tflite --precision int8`` with its weights cached. It
  decodes the photographs, checks the float graph against torch, the int8 graph against the float graph and
  the file against the int8 graph, and measures the file's latency.
- litert-torch and ai-edge-quantizer: conversion, calibration, quantisation. The photographs come decoded and
  preprocessed in one .npy file. Nothing is checked or measured.
- onnx2tf: torch.onnx.export and ``-oiqt``, with the same .npy file. It writes seven TFLite files, since it
  has no option for fewer. Nothing is measured.

A first round warms the disk's cache and is not counted.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ours
import table
from peers.environments import CHECKOUT, PEERS, environment, run, versions
from results import argument_parser, machine, say, write

from edgecnn.backends import tflite
from edgecnn.target import load_target

REPORTED = (
    "torch", "litert-torch", "ai-edge-quantizer", "jax", "onnx2tf", "tensorflow", "onnx", "onnxruntime",
)  # fmt: skip
LOWERINGS = 20
# As the `edgecnn` command does, which a checkout that is not installed lacks.
COMMAND = (sys.executable, "-c", "from edgecnn.cli import main; main()", "export", ours.MODEL)


def main() -> None:
    """Measure, write ``results/compile_time.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds [default: %(default)s]")
    arguments = parser.parse_args()
    work = arguments.work.resolve()

    inputs = ours.inputs(work)
    contestants: dict[str, Callable[[Path], None]] = {"edgecnn": _export}
    installed = {"edgecnn": versions(Path(sys.executable))}
    for peer in (peer for peer in PEERS if peer.runtime == "tflite"):
        python = environment(peer, work)
        installed[peer.name] = versions(python)
        contestants[peer.name] = lambda folder, peer=peer, python=python: run(peer, python, inputs, folder)

    result = {"machine": machine(), "calibration_images": len(ours.calibration_images())}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    loads: list[float | None] = []
    for repeat in range(arguments.repeats + 1):
        loads.append(machine()["load_before"])
        for name, convert in contestants.items():
            with tempfile.TemporaryDirectory(prefix="edgecnn-benchmark-") as folder:
                began = time.perf_counter()
                convert(Path(folder))
                took = time.perf_counter() - began
            say(f"round {repeat or 'before'}: {name} {took:.1f} s")
            if repeat:
                seconds[name].append(took)
    result["seconds"], result["load_before_rounds"] = seconds, loads[1:]
    say("lowering alone")
    result["lowering_seconds"] = _lowering()
    result["versions"] = {
        name: {package: found[package] for package in REPORTED if package in found}
        for name, found in installed.items()
    }
    path = write("compile_time", result)
    print(table.compile_time(result))
    median = statistics.median(seconds["edgecnn"])
    say(f"edgecnn {median:.1f} s; samples in {path}")


def _export(folder: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--target", "tflite", "--precision", "int8", "-o", str(folder), "--force"],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"edgecnn export failed: {done.stderr.strip()}")


def _lowering() -> list[float]:
    """Seconds from the QDQ graph to a file on disk: lower, verify, serialize, write."""
    graph, target = ours.make().qdq_graph, load_target("tflite")
    seconds = []
    with tempfile.TemporaryDirectory(prefix="edgecnn-benchmark-") as folder:
        for _ in range(LOWERINGS):
            began = time.perf_counter()
            tflite.compile(graph, target, Path(folder))
            seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
