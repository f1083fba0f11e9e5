"""Weights that are loaded, and files that must not be."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from edgecnn.data.labelled import FilePictures, Inputs
from edgecnn.data.sets import shipped_photos_dir
from edgecnn.errors import ConfigError, WeightsError
from edgecnn.fetch.cache import cache_dir
from edgecnn.fetch.fetch import fetch
from edgecnn.spec import ModelSpec
from edgecnn.zoo import build, make_spec, resolve
from edgecnn.zoo.weights import load_weights


def lenet() -> tuple[ModelSpec, nn.Module]:
    spec = make_spec("lenet5")
    return spec, build(spec, seed=0)


def other_state() -> dict[str, torch.Tensor]:
    return build(make_spec("lenet5"), seed=1).state_dict()


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.pth", lambda path: torch.save(other_state(), path)),
        ("w.pt", lambda path: torch.save({"state_dict": other_state(), "epoch": 3}, path)),
        ("w.pth", lambda path: torch.save({"model": other_state()}, path)),
        ("w.pth", lambda path: torch.save({f"module.{k}": v for k, v in other_state().items()}, path)),
        ("w.pth", lambda path: torch.save(other_state(), path, _use_new_zipfile_serialization=False)),
        ("w.safetensors", lambda path: safetensors.torch.save_file(other_state(), path)),
    ],
    ids=["bare", "state_dict", "model", "module", "legacy", "safetensors"],
)
def test_own_file_is_loaded(tmp_path: Path, name: str, save: Callable[[Path], None]) -> None:
    save(tmp_path / name)
    spec, model = lenet()
    loaded = load_weights(spec, model, str(tmp_path / name))
    for key, value in other_state().items():
        assert torch.equal(model.state_dict()[key], value)
    assert (loaded.kind, loaded.random, loaded.file_name) == ("file", False, name)
    assert loaded.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert loaded.preprocess.crop == (32, 32)


def test_old_checkpoint_without_batch_counters_is_loaded(tmp_path: Path) -> None:
    spec = make_spec("mobilenet_v2", 0.25)
    state = build(spec, seed=1).state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "w.pth")
    model = build(spec)
    load_weights(spec, model, str(tmp_path / "w.pth"))
    assert torch.equal(model.state_dict()["classifier.1.weight"], state["classifier.1.weight"])


def refuse(path: Path, *, match: str, hint: str = "") -> None:
    """Loading fails on one line, with a hint, and the model is as it was."""
    spec, model = lenet()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(spec, model, str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert hint in caught.value.hint
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_missing_file(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere.pth", match="does not exist")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_and_empty_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(other_state(), path)
    else:
        safetensors.torch.save_file(other_state(), path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        refuse(path, match="is damaged")


class Command:
    """Unpickling this runs a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    content = {**other_state(), "payload": Command(f"touch {mark}")}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"payload": Command(f"touch {mark}")}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refuse(path, match=rf"would run {os.system.__module__}\.system", hint="state_dict")
    assert not mark.exists()


def test_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(lenet()[1], tmp_path / "w.pth")
    refuse(tmp_path / "w.pth", match=r"would run edgecnn\.zoo\.families\.lenet\.LeNet5", hint="state_dict")


@pytest.mark.parametrize(
    "content",
    [pickle.dumps({"payload": Command("false")}, protocol=4), b"<html>Not found</html>"],
    ids=["newer pickle", "web page"],
)
def test_other_files_are_refused_without_advice_to_trust_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    refuse(tmp_path / "w.pth", match="does not consist of tensors")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, {1: torch.zeros(1)}], ids=repr)
def test_file_without_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    refuse(tmp_path / "w.pth", match="holds no state dict")


def test_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    torch.save(build(make_spec("resnet18", 0.25)).state_dict(), tmp_path / "w.pth")
    refuse(
        tmp_path / "w.pth", match=r"lacks 10 tensors \(features\.0", hint="fits resnet18 with --width 0.25"
    )


def test_checkpoint_with_other_classes_names_both_shapes(tmp_path: Path) -> None:
    torch.save(build(ModelSpec("lenet5", 1.0, 32, 7, 1)).state_dict(), tmp_path / "w.pth")
    refuse(
        tmp_path / "w.pth",
        match=r"classifier\.4\.weight is \[7, 84\] in the file and \[10, 84\] in the model, and 1 more",
        hint="--classes 7",
    )


def test_one_tensor_too_few(tmp_path: Path) -> None:
    state = other_state()
    del state["features.3.bias"]
    torch.save(state, tmp_path / "w.pth")
    refuse(tmp_path / "w.pth", match=r"lacks 1 tensor \(features\.3\.bias\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = {key: tensor.double() for key, tensor in other_state().items()}
    state["classifier.4.bias"][3] = value
    torch.save(state, tmp_path / "w.pth")
    refuse(tmp_path / "w.pth", match=r"classifier\.4\.bias holds NaN or infinity")


def test_integer_weights(tmp_path: Path) -> None:
    torch.save({key: value.to(torch.int8) for key, value in other_state().items()}, tmp_path / "w.pth")
    refuse(tmp_path / "w.pth", match="is int8 in the file and float32 in the model")


def test_random_weights_leave_the_model_as_built() -> None:
    spec, model = lenet()
    loaded = load_weights(spec, model, "random")
    assert loaded.random
    assert loaded.sha256 is None
    assert torch.equal(next(model.parameters()), next(build(spec).parameters()))


def test_variant_without_published_weights() -> None:
    spec = make_spec("mobilenet_v2", 0.5)
    with pytest.raises(ConfigError, match="mobilenet_v2 at width 1") as caught:
        load_weights(spec, build(spec), "imagenet")
    assert "--weights random" in str(caught.value.hint)
    assert "--weights FILE" in str(caught.value.hint)


def test_mistyped_source() -> None:
    spec, model = lenet()
    with pytest.raises(ConfigError, match="unknown weights 'imagnet'") as caught:
        load_weights(spec, model, "imagnet")
    assert "random" in str(caught.value.hint)


@pytest.mark.network
def test_published_mobilenet_v2(tmp_path: Path) -> None:
    weights = resolve("mobilenet_v2").weights
    assert weights is not None
    try:
        cached = fetch(weights.file)
    except WeightsError as error:
        pytest.skip(f"not in the cache {cache_dir()} and not fetched: {error}")
    spec = make_spec("mobilenet_v2", resolution=160)
    model = build(spec)
    loaded = load_weights(spec, model, "imagenet")
    assert (loaded.preprocess.crop, loaded.preprocess.resize, loaded.trained_resolution) == (
        (160, 160),
        183,
        224,
    )
    assert loaded.labels is not None
    assert len(loaded.labels) == spec.classes
    # Recorded from torchvision's own mobilenet_v2 with this file.
    ramp = torch.linspace(-2, 2, 3 * 160 * 160).reshape(1, 3, 160, 160)
    with torch.no_grad():
        logits = model(ramp)[0]
    assert logits[:4].tolist() == pytest.approx([-0.47705, 0.26976, 0.11835, 0.67455], abs=1e-3)
    # The same bytes as the user's own file are recognised.
    copy = tmp_path / "mine.pth"
    copy.write_bytes(cached.read_bytes())
    own = load_weights(spec, build(spec), str(copy))
    assert (own.kind, own.file_name, own.top1_percent) == ("file", "mine.pth", 71.878)


@pytest.mark.network
def test_published_efficientnet_lite0() -> None:
    """Its file loads as it is, and with its own preparation it knows what is on the photographs."""
    entry = resolve("efficientnet_lite0")
    assert entry.weights is not None
    try:
        fetch(entry.weights.file)
    except WeightsError as error:
        pytest.skip(f"not in the cache {cache_dir()} and not fetched: {error}")
    spec = make_spec("efficientnet_lite0")
    model = build(spec)
    loaded = load_weights(spec, model, "imagenet")
    assert loaded.labels is not None
    assert loaded.top1_percent == 75.1
    folder = shipped_photos_dir() / "calibration"
    for name, label in (("chelsea.jpg", "Egyptian cat"), ("panda.jpg", "giant panda")):
        [x] = Inputs(FilePictures((folder / name,)), loaded.preprocess)
        with torch.no_grad():
            best = model(torch.as_tensor(x))[0].topk(3).indices.tolist()
        assert label in [loaded.labels[index] for index in best]
