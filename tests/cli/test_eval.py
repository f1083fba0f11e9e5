"""`edgecnn eval`: what it prints, what it refuses, and that it is not done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecnn import pipeline
from edgecnn.bundle.write import read_manifest
from edgecnn.data.labelled import FilePictures

LENET = {"weights": "random"}
RANDOM = "note      the weights are random: no accuracy means anything"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders 0 to 9 of three noisy images each."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    random = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 25 * label + 25, (28, 28)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle calibrated on the photographs in the package."""
    output = tmp_path_factory.mktemp("bundles")
    [artifact] = pipeline.export(
        "lenet5", "tflite", precision="int8", output=output, measure=False, weights="random"
    )
    return artifact.path


def calibrated(bundle: Path, images: list[Path]) -> None:
    manifest = read_manifest(bundle)
    pictures = FilePictures(tuple(images))
    manifest["calibration"]["fingerprints"] = [pictures.fingerprint(i) for i in range(len(images))]
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_network(run: Any, digits: Path) -> None:
    ended = run("eval", "lenet5", "--weights", "random", "--data", digits)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "lenet5-1.0-32 fp32 on digits, 30 images"
    assert lines[1].startswith("  top-1     ")
    assert lines[2].startswith("  top-5     ")
    assert "(95 % interval " in lines[1]
    assert f"  {RANDOM}" in lines
    assert any("30 images are few" in line for line in lines)
    assert "agreement" not in ended.out


def test_a_bundle_beside_its_float_network(run: Any, digits: Path, int8: Path) -> None:
    ended = run("eval", int8, "--data", digits)
    assert ended.code == 0, ended.err
    for title in ("top-1", "top-5", "fp32", "drop", "agreement", "SQNR"):
        assert f"\n  {title.ljust(10)}" in ended.out
    assert "get the class of lenet5-1.0-32 fp32" in ended.out
    document = json.loads(run("eval", int8, "--data", digits, "--json").out)
    assert document["network"] == "lenet5-1.0-32 tflite int8"
    assert (document["images"], document["top1"]["images"]) == (30, 30)
    assert document["against"]["agreement"]["hits"] == 30 - len(document["against"]["changed"])
    assert document["against"]["sqnr_db"] > 8


def test_a_network_on_a_target(run: Any, digits: Path, here: Path) -> None:
    arguments = (
        "eval",
        "lenet5",
        "--weights",
        "random",
        "--target",
        "onnxruntime",
        "--data",
        f"{digits}:test",
    )
    ended = run(*arguments, "--limit", "5", "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert (document["network"], document["images"]) == ("lenet5-1.0-32 onnxruntime fp32", 5)
    assert list(here.iterdir()) == []


def test_a_csv_file(run: Any, digits: Path, tmp_path: Path) -> None:
    rows = [f"{digits / str(label) / '0.png'},{label}" for label in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["file,label", *rows]))
    ended = run("eval", "lenet5", "--weights", "random", "--data", tmp_path / "list.csv", "--json")
    assert json.loads(ended.out)["images"] == 10, ended.err


def test_an_evaluation_goes_on_where_it_was(run: Any, digits: Path, cache: Path) -> None:
    arguments = ("eval", "lenet5", "--weights", "random", "--data", digits, "--json")
    first = run(*arguments)
    [record] = (cache / "evaluations").iterdir()
    whole = record.read_bytes()
    assert run(*arguments).out == first.out
    assert record.read_bytes() == whole
    record.write_bytes(whole[: len(whole) // 2])
    assert run(*arguments).out == first.out
    assert len(record.read_bytes()) == len(whole)


def test_a_network_far_below_its_published_figure(
    run: Any, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgecnn.source.load as source

    plain = source.load

    def published(*arguments: Any) -> Any:
        from dataclasses import replace

        network = plain(*arguments)
        return replace(network, weights=replace(network.weights, kind="file", top1_percent=99.0))

    monkeypatch.setattr(source, "load", published)
    ended = run("eval", "lenet5", "--weights", "random", "--data", digits)
    assert ended.code == 0
    assert "stated    top-1 99 %" in ended.out
    assert "WARNING: lenet5-1.0-32 fp32 is right on" in ended.err
    assert "far below the stated 99 %" in ended.err
    assert "usual causes" in ended.err or "Likely cause: with" in ended.err
    document = json.loads(run("eval", "lenet5", "--weights", "random", "--data", digits, "--json").out)
    assert document["baseline"]["published_percent"] == 99.0
    assert document["baseline"]["trials"]


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("lenet5",), 2, "on which images shall lenet5 be judged?", "add --data"),
        (("lenet6", "--data", "digits"), 2, "unknown model 'lenet6'", "lenet5"),
        (("lenet5", "--data", "digits", "--precision", "int8"), 2, "--precision needs a target", "--target"),
        (("lenet5", "--data", "digits", "--calibration", "."), 2, "--calibration needs a target", "--target"),
        (("lenet5", "--data", "digits", "--against", "."), 2, "--against needs a target", "--target"),
        (("lenet5", "--data", "digits", "--target", "tflit"), 2, "unknown target 'tflit'", "tflite"),
        (("lenet5", "--data", "digits", "--limit", "0"), 2, "--limit", "edgecnn eval --help"),
        (("lenet5", "--data", "nowhere"), 2, "there is no data set 'nowhere'", "folder of class folders"),
        (("builds/none", "--data", "digits"), 2, "there is no bundle builds/none", "edgecnn export"),
        (("{int8}", "--data", "digits", "--width", "1"), 2, "has its own width", "leave --width out"),
        (("{int8}", "--data", "digits", "--target", "tflite"), 2, "has its own target", "leave --target out"),
        (("{int8}", "--data", "strange"), 1, "'cat', 'dog' fit none", "from 0 to 9"),
        (("{int8}", "--data", "digits", "--against", "{int8}"), 2, "is int8", "fp32 bundle"),
    ],
)
def test_refusals(
    run: Any,
    digits: Path,
    int8: Path,
    here: Path,
    arguments: tuple[str, ...],
    code: int,
    message: str,
    hint: str,
) -> None:
    (here / "digits").symlink_to(digits)
    for name in ("cat", "dog"):
        (here / "strange" / name).mkdir(parents=True)
        Image.new("L", (28, 28), len(name)).save(here / "strange" / name / f"{name}.png")
    given = [str(int8) if argument == "{int8}" else argument for argument in arguments]
    run("eval", *given).refused(code, message, hint)


def test_calibration_images_are_refused(run: Any, digits: Path, int8: Path) -> None:
    calibrated(int8, [digits / "3" / "1.png", digits / "4" / "2.png"])
    try:
        run("eval", int8, "--data", digits).refused(1, "2 of 30 images were calibrated on", "SET:test")
    finally:
        calibrated(int8, [])
