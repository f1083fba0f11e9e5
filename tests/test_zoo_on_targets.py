"""Every family of the zoo through the whole pipeline, small: each check must hold on every target."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgecnn import pipeline
from edgecnn.data.sets import shipped_photos_dir
from edgecnn.target import list_targets
from edgecnn.zoo import list_models, make_spec

TARGETS = [target.name for target in list_targets() if target.device == "local"]
# The smallest network of each family.
SMALLEST = {entry.family: entry for entry in sorted(list_models(), key=lambda entry: -entry.params)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((shipped_photos_dir() / "calibration").iterdir())[::5]:
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("family", sorted(SMALLEST))
def test_family(family: str, precision: str, photos: Path, tmp_path: Path) -> None:
    entry = SMALLEST[family]
    resolution = max(entry.min_resolution, min(entry.resolution, 96))
    width = 1.0 if entry.params < 1e6 else 0.5
    calibration = photos if precision == "int8" else None
    made = pipeline.export(
        entry.name, TARGETS, precision=precision, width=width, resolution=resolution, weights="random",
        calibration=calibration, output=tmp_path, measure=False,
    )  # fmt: skip
    assert [artifact.target for artifact in made] == TARGETS
    expected = make_spec(entry.name, width, resolution)
    assert made[0].manifest["model"]["input_shape"] == list(expected.input_shape)
    assert made[0].manifest["output"]["shape"] == [1, entry.classes]
