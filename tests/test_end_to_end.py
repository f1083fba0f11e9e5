"""What a stranger does first: install the wheel, export, classify a photograph, measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ISOLATED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "EDGECNN_CACHE_DIR")

pytestmark = pytest.mark.network


def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_from_the_wheel_to_a_measurement(tmp_path: Path) -> None:
    if not (CHECKOUT / "pyproject.toml").is_file():
        pytest.skip("no source tree to build a wheel from")
    built = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", CHECKOUT)
    if built.returncode:
        pytest.skip(f"pip cannot build the wheel: {built.stderr.strip().splitlines()[-1:]}")
    [wheel] = (tmp_path / "dist").glob("edgecnn-*.whl")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    installed = pip(f"--python={binaries / 'python'}", "install", "--quiet", wheel)
    if installed.returncode:
        pytest.skip(f"pip cannot install the dependencies: {installed.stderr.strip().splitlines()[-1:]}")

    work = tmp_path / "work"
    work.mkdir()
    clean = {name: value for name, value in os.environ.items() if name not in ISOLATED}
    clean |= {"EDGECNN_CACHE_DIR": str(tmp_path / "cache")}

    def run(*command: object) -> str:
        ended = subprocess.run(
            [*map(str, command)], cwd=work, env=clean, capture_output=True, text=True, check=False
        )
        if "cannot be fetched" in ended.stderr:
            pytest.skip(f"no ImageNet weights: {ended.stderr.strip()}")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    python, edgecnn = binaries / "python", binaries / "edgecnn"
    where = (
        "import json, sys, edgecnn, edgecnn.target as t, edgecnn.data.sets as s\n"
        "own = (edgecnn.__file__, t.shipped_targets_dir(), s.shipped_photos_dir())\n"
        "print(json.dumps([*sys.path, *map(str, own)]))"
    )
    places = [Path(place) for place in json.loads(run(python, "-c", where)) if place]
    assert not [place for place in places if place.is_relative_to(CHECKOUT)]
    assert all(place.is_relative_to(environment) for place in places[-3:]), places[-3:]

    told = run(edgecnn, "export", "mobilenet", "--target", "tflite")
    assert told.splitlines()[0] == "mobilenet is mobilenet_v2"
    assert "published top-1 71.88 %" in told
    bundle = work / "mobilenet_v2-1.0-224-tflite-fp32"
    assert [path.name for path in work.iterdir()] == [bundle.name]
    photo = CHECKOUT / "calib_data" / "calibration" / "chelsea.jpg"
    assert "cat" in run(python, bundle / "run.py", photo).splitlines()[0]
    measured = json.loads(run(edgecnn, "bench", bundle, "--min-time", "0.2", "--json"))["measurement"]
    assert measured["variant"] == "mobilenet_v2-1.0-224"
    assert measured["macs"] == 300_774_272
    # What is not in the base install is named with the extra that brings it.
    refused = subprocess.run(
        [edgecnn, "export", "lenet5", "--weights", "random", "--target", "openvino", "--json"],
        cwd=work, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(run(edgecnn, "doctor", "--json"))
    if not next(entry for entry in found if entry["name"] == "openvino")["usable"]:
        assert refused.returncode == 1
        assert "pip install 'edgecnn[openvino]'" in refused.stderr
