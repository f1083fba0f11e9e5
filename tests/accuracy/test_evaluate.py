"""Bundles and networks judged on images: figures, comparisons, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import pipeline
from edgecnn.accuracy.evaluate import evaluate, evaluate_float, judge, opened
from edgecnn.accuracy.interval import Share
from edgecnn.bundle.write import read, read_manifest
from edgecnn.data.labelled import ArrayPictures, LabelledSet
from edgecnn.errors import ConfigError, DataError, WeightsError

from .conftest import SIDE, by_colour, coloured, fingerprints, recipe

NETWORK = """
import torch

class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 1)
        self.last = torch.nn.Linear(8, 4)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(8, 3)[:, :, None, None])
            self.conv.bias.zero_()
            self.last.weight.zero_()
            self.last.weight[:3, :3] = torch.eye(3)
            self.last.bias.copy_(torch.tensor([0.0, 0.0, 0.0, %s]))

    def forward(self, x):
        return self.last(self.conv(x).mean((2, 3)))

def make():
    return Mean()
"""
"""Logits are the means of red, green and blue, and a constant for grey."""
SHAPE = {"input_shape": f"1,3,{SIDE},{SIDE}", "preprocess": "unit"}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("network") / "mean.py"
    path.write_text(NETWORK % 0.7)
    return f"{path}:make"


@pytest.fixture(scope="module")
def bundles(network: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By precision."""
    output = tmp_path_factory.mktemp("bundles")
    photos, made = coloured(8, seed=1).pictures, {}
    (output / "calibration").mkdir()
    for index in range(len(photos)):
        photos.open(index, 3).save(output / "calibration" / f"{index}.png")
    for precision, target in (("fp32", "onnxruntime"), ("fp16", "tflite"), ("int8", "tflite")):
        options = {**SHAPE, "calibration": output / "calibration"} if precision == "int8" else SHAPE
        [artifact] = pipeline.export(
            network, target, precision=precision, output=output, measure=False, **options
        )
        made[precision] = artifact.path
    return made


def write_manifest(bundle: Path, calibrated: list[str] | None = None, **fields: Any) -> None:
    manifest = read_manifest(bundle) | fields
    if calibrated is not None:
        manifest["calibration"]["fingerprints"] = calibrated
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def edited(bundles: dict[str, Path]) -> Iterator[Any]:
    """Changes a manifest for one test."""
    kept = {bundle: (bundle / "manifest.json").read_text() for bundle in bundles.values()}
    yield write_manifest
    for bundle, text in kept.items():
        (bundle / "manifest.json").write_text(text)


def test_a_network_as_it_comes(network: str) -> None:
    data = coloured(60, ("red", "green", "blue"))
    data = replace(data, classes=("0", "1", "2"))
    judged = evaluate_float(network, data, **SHAPE)
    assert judged.answers.top1 == Share(60, 60)
    assert judged.network == "mean_make-8 fp32"
    assert (judged.difference, judged.answers.top5, judged.baseline) == (None, None, None)
    assert judged.classes == ("0", "1", "2", "class 3")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_bundle_is_compared_with_its_float_network(bundles: dict[str, Path], precision: str) -> None:
    data = coloured(60)
    judged = evaluate(bundles[precision], data)
    assert judged.network == f"mean_make-8 tflite {precision}"
    assert judged.difference is not None
    assert judged.difference.agreement.value > 0.9
    assert (20 if precision == "int8" else 60) < judged.difference.sqnr_db < 120
    against = evaluate(bundles[precision], data, against=bundles["fp32"])
    assert against.difference is not None
    assert against.difference.expected.network == "mean_make-8 onnxruntime fp32"
    assert against.difference.expected.logits == pytest.approx(judged.difference.expected.logits, abs=1e-6)
    assert np.array_equal(against.answers.logits, judged.answers.logits)


def test_a_finished_evaluation_needs_no_network(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(bundles["int8"], coloured(20)).to_json()

    def refuse(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("edgecnn.source.load.load", refuse)
    monkeypatch.setattr("edgecnn.backends.tflite.load", refuse)
    assert evaluate(bundles["int8"], coloured(20)).to_json() == first


def test_images_of_the_calibration_are_refused(bundles: dict[str, Path], edited: Any) -> None:
    data = coloured(20)
    seen = [data.pictures.fingerprint(index) for index in (3, 7)]
    edited(bundles["int8"], seen)
    with pytest.raises(DataError, match=r"2 of 20 images were calibrated on, colours 3 among") as caught:
        evaluate(bundles["int8"], data)
    assert "--data SET:test" in str(caught.value.hint)
    others = data.take([index for index in range(20) if index not in (3, 7)])
    assert evaluate(bundles["int8"], others).images == 18
    manifest = read_manifest(bundles["int8"])
    del manifest["calibration"]["fingerprints"]
    (bundles["int8"] / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="does not say which images"):
        evaluate(bundles["int8"], others)


def test_only_the_same_network_is_compared_with(
    bundles: dict[str, Path], edited: Any, tmp_path: Path
) -> None:
    data = coloured(8)
    with pytest.raises(ConfigError, match="is int8"):
        evaluate(bundles["int8"], data, against=bundles["int8"])
    edited(bundles["fp32"], float_graph_sha256="0" * 64)
    with pytest.raises(ConfigError, match="another network or other weights"):
        evaluate(bundles["int8"], data, against=bundles["fp32"])
    edited(bundles["int8"], float_graph_sha256=None)
    with pytest.raises(ConfigError, match="does not name the float network") as caught:
        evaluate(bundles["int8"], data)
    assert "--against" in str(caught.value.hint)


def test_a_source_that_changed_since_is_refused(
    network: str, bundles: dict[str, Path], edited: Any, tmp_path: Path
) -> None:
    changed = tmp_path / "mean.py"
    changed.write_text(NETWORK % 0.5)
    command = read_manifest(bundles["int8"])["command"]
    edited(bundles["int8"], command=[*command[:2], f"{changed}:make", *command[3:]])
    with pytest.raises(ConfigError, match="is not the network that") as caught:
        evaluate(bundles["int8"], coloured(8))
    assert "--against" in str(caught.value.hint)
    edited(bundles["int8"], command=[*command, "--weights", str(tmp_path / "gone.pth")])
    with pytest.raises(WeightsError, match="to compare with cannot be made") as gone:
        evaluate(bundles["int8"], coloured(8))
    assert "--against" in str(gone.value.hint)


def test_a_limit_draws_the_same_images_each_time_and_fewer_from_more() -> None:
    data = coloured(200)
    few, more = (fingerprints(opened(data, limit)) for limit in (20, 50))
    assert few == fingerprints(opened(data, 20))
    assert (len(few), set(few) < set(more)) == (20, True)
    assert len({int(label) for label in opened(data, 20).labels}) == 4
    assert opened(data, None) is data
    assert opened(data, 500) is data
    with pytest.raises(ConfigError, match="on 0 images"):
        opened(data, 0)


def test_outputs_that_are_no_numbers_are_told() -> None:
    data = coloured(8)
    sound = by_colour(recipe("unit"))
    broken = replace(
        sound, identity="0", load=lambda: lambda x: [np.full((1, 8), math.nan if x.mean() < 0.4 else 1)]
    )
    judged = judge(broken, data, sound)
    assert any("outputs that are no numbers" in note for note in judged.notes)
    assert judged.answers.broken == 6


def test_one_image(bundles: dict[str, Path]) -> None:
    judged = evaluate(bundles["fp32"], coloured(1))
    assert judged.answers.top1 == Share(1, 1)
    assert "useless" in str(judged.too_few)


def test_random_weights_are_told() -> None:
    random = np.random.default_rng(0)
    array = random.integers(0, 256, (6, 28, 28, 1)).astype(np.uint8)
    data = LabelledSet("digits", tuple("0123456789"), np.arange(6), ArrayPictures(array, np.arange(6), "d"))
    judged = evaluate_float("lenet5", data, weights="random")
    assert "the weights are random: no accuracy means anything" in judged.notes
    assert judged.answers.top5 is not None


def test_labels_that_do_not_fit(bundles: dict[str, Path]) -> None:
    data = replace(coloured(8), classes=("red", "green", "blue", "grey", "black"))
    with pytest.raises(DataError, match="4 outputs"):
        evaluate(bundles["fp32"], data)


def test_feature_maps_are_no_classes(bundles: dict[str, Path], edited: Any) -> None:
    manifest = read(bundles["fp32"]).manifest
    edited(bundles["fp32"], output=manifest["output"] | {"shape": [1, 4, 8, 8]})
    with pytest.raises(ConfigError, match="1 x 4 x 8 x 8 values, not one a class"):
        evaluate(bundles["fp32"], coloured(8))
