"""The int8 stage: budgets, search and portability through a whole export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecnn import pipeline
from edgecnn.artifact import Artifact
from edgecnn.data.preprocess import preprocess
from edgecnn.errors import BudgetError, ConfigError, DataError
from edgecnn.graph.reference import load_reference
from edgecnn.source.load import load
from edgecnn.source.request import make_request

TIME_S = 60.0


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images between two classes, as near to the border as 8 bits allow: int8 will err on some."""
    network = load(make_request("mobilenet_v1_cifar", width=0.25))
    run, recipe = load_reference(network.graph, fused=True), network.weights.preprocess
    folder = tmp_path_factory.mktemp("doubtful")
    random = np.random.default_rng(3)

    def blend(one: Image.Image, other: Image.Image, share: float) -> tuple[Image.Image, int]:
        mixed = Image.blend(one, other, share)
        return mixed, int(np.argmax(run(preprocess(mixed, recipe))[0]))

    count = 0
    while count < 60:
        one, other = (
            Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((32, 32)) for _ in "ab"
        )
        low, high = 0.0, 1.0
        first = blend(one, other, low)[1]
        if first == blend(one, other, high)[1]:
            continue
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if blend(one, other, middle)[1] == first else (low, middle)
        place = folder / ("cat", "dog")[count % 2] / f"{count:02}.png"
        place.parent.mkdir(exist_ok=True)
        blend(one, other, low)[0].save(place)
        count += 1
    return folder


def export(output: Path, targets: str | list[str] = "onnxruntime", **options: Any) -> list[Artifact]:
    options = {"width": 0.25, "measure": False, "precision": "int8", "output": output} | options
    return pipeline.export("mobilenet_v1_cifar", targets, **options)


def test_a_budget_returns_layers_until_it_holds(doubtful: Path, tmp_path: Path) -> None:
    targets = ["onnxruntime", "tflite"]
    made = export(tmp_path, targets, data=doubtful, min_agreement=0.75, time_budget_s=TIME_S)
    for artifact in made:
        guard = artifact.manifest["guard"]
        assert guard["before"]["agreement"] < 0.75 <= guard["reached"]["agreement"]
        assert guard["met"]
        assert artifact.manifest["scheme"]["float_layers"] == sorted(
            name for row in guard["returned"] for name in row["layers"]
        )
        assert artifact.manifest["judged_on"]["images"] == 60
        report = (artifact.path / "report.html").read_text()
        assert "the budget holds" in report.lower()


def test_a_budget_that_is_missed_keeps_the_best_and_says_so(doubtful: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="the budget is not met") as caught:
        export(tmp_path, data=doubtful, min_agreement=1.0, time_budget_s=1e-6)
    assert caught.value.exit_code == 3
    [bundle] = tmp_path.iterdir()
    assert bundle.name == "mobilenet_v1_cifar-0.25-32-onnxruntime-int8-over-budget"
    assert str(bundle) in str(caught.value)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert not manifest["guard"]["met"]
    assert "Do not ship" in (bundle / "report.html").read_text()
    # Before the work of minutes, not after it.
    with pytest.raises(ConfigError, match="over-budget exists already"):
        export(tmp_path, data=doubtful, min_agreement=1.0)


def test_a_search_is_in_manifest_and_report(doubtful: Path, tmp_path: Path) -> None:
    [artifact] = export(tmp_path, data=doubtful, search=True, time_budget_s=TIME_S)
    search = artifact.manifest["search"]
    names = [row["name"] for row in search["rows"]]
    assert names[0] == "as it is"
    assert search["chosen"] in names
    assert any("per tensor" in name for name in names)
    assert any(row["on_front"] for row in search["rows"])
    assert "weights per tensor" in (artifact.path / "report.html").read_text()


def test_portable_files_cannot_saturate(tmp_path: Path) -> None:
    [plain] = export(tmp_path / "plain")
    [portable] = export(tmp_path / "portable", portable=True)
    assert plain.manifest["portability"]["layers"]
    assert portable.manifest["portability"]["layers"] == []
    assert portable.manifest["scheme"]["portable_layers"]


def test_images_of_the_calibration_judge_nothing(doubtful: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="60 of 60 images were calibrated on"):
        export(tmp_path, calibration=doubtful, data=doubtful, min_agreement=0.9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 0.5}, "on which images"),
        ({"search": True}, "on which images"),
        ({"data": "DATA"}, "nothing is judged on it"),
        ({"data": "DATA", "max_drop": float("nan")}, "--max-drop nan"),
        ({"data": "DATA", "min_agreement": 98}, "--min-agreement 98"),
        ({"data": "DATA", "max_drop": 1, "time_budget_s": 0}, "--time-budget"),
        ({"portable": True, "precision": "fp32"}, "--portable is given, but fp32"),
    ],
)
def test_requests_that_contradict_themselves(
    options: dict[str, Any], message: str, doubtful: Path, tmp_path: Path
) -> None:
    given = {key: doubtful if value == "DATA" else value for key, value in options.items()}
    with pytest.raises(ConfigError, match=message):
        export(tmp_path, **given)


def test_a_quantised_file_is_taken_as_it_is(tmp_path: Path) -> None:
    [first] = export(tmp_path / "first")
    file = tmp_path / "given.onnx"
    file.write_bytes(first.model.read_bytes())
    options = {"measure": False, "output": tmp_path / "second"}
    [again] = pipeline.export(file, "tflite", precision="int8", preprocess="unit", **options)
    assert again.manifest["graph_sha256"] == first.manifest["graph_sha256"]
    assert again.manifest["calibration"] is None
    with pytest.raises(ConfigError, match="quantised already"):
        pipeline.export(file, "tflite", **options)
    options["output"] = tmp_path / "third"
    with pytest.raises(ConfigError, match="brings its own integers"):
        pipeline.export(file, "tflite", precision="int8", portable=True, **options)
