"""The converters that edgecnn is compared with, and virtual environments for those that need their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import platformdirs

CHECKOUT = Path(__file__).resolve().parents[2]
# onnx2tf reads this from the current folder, and downloads it where it is not there.
ONNX2TF_SAMPLES = "calibration_image_sample_data_20x128x128x3_float32.npy"


# ONNX Runtime's quantiser, which wants sympy, and NNCF, which gets openvino, share an environment.
_ONNX_TOOLS = ("onnx==1.23.2", "onnxruntime==1.31.1", "sympy==1.14.0", "nncf==3.4.0", "openvino==2026.4.1")


@dataclass(frozen=True)
class Peer:
    """A converter: how it is installed, the script that runs it, and what that writes."""

    name: str
    """What tables call it."""
    runtime: str
    """The runtime that its files are for."""
    environment: str
    """Its virtual environment; peers that name the same one have the same requirements."""
    requirements: tuple[str, ...]
    """What pip installs there besides torch."""
    script: str
    """The script beside this file."""
    files: dict[str, str]
    """Model file by precision."""


PEERS = (
    Peer(
        name="litert-torch",
        runtime="tflite",
        environment="litert-torch",
        requirements=("litert-torch==0.10.0", "ai-edge-quantizer==0.10.0"),
        script="litert_int8.py",
        files={"fp32": "float.tflite", "int8": "int8.tflite"},
    ),
    Peer(
        name="onnx2tf",
        runtime="tflite",
        environment="onnx2tf",
        requirements=("onnx2tf==1.29.24",),
        script="onnx2tf_int8.py",
        files={"fp32": "model_float32.tflite", "int8": "model_integer_quant.tflite"},
    ),
    Peer(
        name="onnxruntime.quantization",
        runtime="onnxruntime",
        environment="onnx-tools",
        requirements=_ONNX_TOOLS,
        script="onnxruntime_int8.py",
        files={"fp32": "float.onnx", "int8": "int8.onnx"},
    ),
    Peer(
        name="NNCF on OpenVINO",
        runtime="openvino",
        environment="onnx-tools",
        requirements=_ONNX_TOOLS,
        script="nncf_int8.py",
        files={"fp32": "float.xml", "int8": "int8.xml"},
    ),
)


@dataclass(frozen=True)
class Given:
    """What every converter gets; the arrays lie in a folder of their own, named after what they are of."""

    model: str
    """Name of the network in edgecnn's zoo."""
    checkpoint: Path
    """State dict under the names that the zoo's network has."""
    images: Path
    """``.npy`` of the calibration inputs, float32 (N, 224, 224, 3), normalised."""
    samples: Path
    """``.npy`` of 20 images (20, 128, 128, 3) on the scale 0..1, which onnx2tf wants to find."""


def default_work() -> Path:
    """Where environments, photographs and compiled files go unless told otherwise: the user's cache."""
    return Path(platformdirs.user_cache_dir("edgecnn-benchmarks"))


def environment(peer: Peer, work: Path) -> Path:
    """The Python that runs a peer; its environment is made in ``work`` if there is none for these versions.

    What pip fetches, and from where, is pip's own configuration.

    Raises:
        SystemExit: pip cannot install it.
    """
    folder = work / "environments" / peer.environment
    requirements = [*peer.requirements, torch_requirement()]
    complete = folder / "complete.json"
    if not complete.is_file() or json.loads(complete.read_text(encoding="utf-8")) != requirements:
        print(f"installing {', '.join(requirements)}: gigabytes, minutes", file=sys.stderr)
        install(create(folder), requirements)
        complete.write_text(json.dumps(requirements), encoding="utf-8")
    return python_of(folder)


def run(peer: Peer, python: Path, inputs: Given, folder: Path) -> None:
    """Convert with a peer, in a process of its own, into an empty folder.

    Raises:
        SystemExit: the script failed; its output is in ``log.txt`` of that folder.
    """
    samples = folder / ONNX2TF_SAMPLES
    samples.write_bytes(inputs.samples.read_bytes())
    command = [str(python), str(Path(__file__).with_name(peer.script))]
    command += [inputs.model, str(inputs.checkpoint), str(inputs.images), str(folder)]
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with (folder / "log.txt").open("wb") as log:
        done = subprocess.run(
            command,
            cwd=folder,
            # As in an environment that is activated: onnx2tf looks for onnxsim on the path.
            env={**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0 or not all((folder / name).is_file() for name in peer.files.values()):
        sys.exit(f"{peer.name} failed with status {done.returncode}; see {folder / 'log.txt'}")


def built(peer: Peer, inputs: Given, work: Path) -> dict[str, Path]:
    """A peer's model files by precision; converted now unless ``work`` has them from the same inputs."""
    folder = work / "peers" / inputs.images.parent.name / peer.name
    stamp = folder / "made-from.txt"
    made_from = _digest(peer, inputs)
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != made_from:
        python = environment(peer, work)
        print(f"converting with {peer.name}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run(peer, python, inputs, folder)
        stamp.write_text(made_from, encoding="utf-8")
    return {precision: folder / name for precision, name in peer.files.items()}


def _digest(peer: Peer, inputs: Given) -> str:
    """SHA-256 over all that decides a peer's files, its own dependencies' versions apart."""
    scripts = (Path(__file__).with_name(name) for name in (peer.script, "network.py"))
    whole = hashlib.sha256("\n".join([inputs.model, *peer.requirements]).encode())
    for path in (*scripts, inputs.checkpoint, inputs.images):
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def create(folder: Path) -> Path:
    """An empty virtual environment, and its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    return python_of(folder)


def install(python: Path, requirements: list[str]) -> None:
    """Let an environment's pip install packages.

    Raises:
        SystemExit: with the last line that pip wrote.
    """
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", *requirements]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"pip cannot install {' '.join(requirements)}: {last}")


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def torch_requirement() -> str:
    """The range of torch versions in pyproject.toml, so that every converter gets the same torch."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(requirement for requirement in project["dependencies"] if requirement.startswith("torch"))


def versions(python: Path) -> dict[str, str]:
    """Every package of an environment with its version."""
    command = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {package["name"]: package["version"] for package in listed}
