"""Reading a bundle back: nothing that is damaged, tampered with or somebody else's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecnn import pipeline
from edgecnn.bundle.write import describe_measured, describe_ms, describe_size, read, sha256_of
from edgecnn.errors import ConfigError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [artifact] = pipeline.export(
        "lenet5", ["onnxruntime"], weights="random", output=tmp_path_factory.mktemp("out"), measure=False
    )
    return artifact.path


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refused(bundle: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(bundle)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_bundle_that_was_moved(bundle: Path) -> None:
    artifact = read(bundle)
    assert artifact.model == bundle / "model.onnx"
    assert (artifact.variant, artifact.target, artifact.macs) == ("lenet5-1.0-32", "onnxruntime", 416_520)
    files = artifact.manifest["files"]
    assert set(files) == {path.name for path in bundle.iterdir()} - {"manifest.json"}
    for name, recorded in files.items():
        assert recorded == {"sha256": sha256_of(bundle / name), "size_bytes": (bundle / name).stat().st_size}


@pytest.mark.parametrize("name", ["model.onnx", "run.py", "preprocess.json", "README.md"])
def test_every_file_is_checked(name: str, bundle: Path) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes() + b"\n")
    refused(bundle, f"{name} is missing or has changed")
    (bundle / name).unlink()
    refused(bundle, f"{name} is missing or has changed")
    (bundle / name).mkdir()
    refused(bundle, f"{name} is missing or has changed")


def test_no_bundle_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "absent is not a bundle: it has no manifest")
    refused(tmp_path, "is not a bundle: it has no manifest")
    (tmp_path / "manifest.json").mkdir()
    refused(tmp_path, "is not a bundle: it has no manifest")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_json(text: bytes, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(text)
    refused(bundle, r"manifest\.json is damaged")


@pytest.mark.parametrize("text", ["[]", "3", '"files"', "null", "{}", '{"files": {}}'])
def test_a_manifest_of_something_else(text: str, bundle: Path) -> None:
    (bundle / "manifest.json").write_text(text)
    refused(bundle, "is not edgecnn's")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].pop("model.onnx"),
        lambda m: m.update(model_file="other.onnx"),
        lambda m: m.update(model_file="../model.onnx"),
        lambda m: m.update(companion_files=["model.bin"]),
        lambda m: m.update(companion_files=[["model.bin"]]),
        lambda m: m["files"].update({"../secret": {"sha256": ""}}),
        lambda m: m["files"].update({"/etc/passwd": {"sha256": ""}}),
        lambda m: m["files"].update({"..": {"sha256": ""}}),
        lambda m: m["files"].update({"model.onnx": None}),
        lambda m: m["files"].update({"model.onnx": {}}),
    ],
)
def test_a_list_of_files_that_was_tampered_with(
    change: Callable[[dict[str, Any]], object], bundle: Path
) -> None:
    edit(bundle, change)
    refused(bundle, "lists its files wrongly")


@pytest.mark.parametrize("field", ["variant", "runtime", "options", "macs", "model_file", "files"])
def test_fields_that_are_gone_or_of_another_type(field: str, bundle: Path) -> None:
    edit(bundle, lambda m: m.update({field: None}))
    refused(bundle, "is not edgecnn's")
    edit(bundle, lambda m: m.pop(field))
    refused(bundle, "is not edgecnn's")


def test_figures_for_people() -> None:
    assert [describe_ms(value) for value in (0.0123456, 1.23456, 12345.6)] == ["0.01235", "1.235", "12346"]
    assert [describe_size(value) for value in (0, 72_496, 999_999, 13_946_880)] == [
        "0 kB", "72 kB", "1000 kB", "13.9 MB",
    ]  # fmt: skip
    silent = {"measured": None, "not_measured": None}
    assert describe_measured(silent) == "Not measured."
    assert describe_measured(silent | {"not_measured": "it is off"}) == "Not measured: it is off."
    measured = {
        "p50_ms": 1.0, "p90_ms": 1.25, "threads": 2, "cpu_model": None, "cpu_arch": "x86_64", "steady": True,
        "reason": "not steady: x", "gmacs_per_s": 12.3,
    }  # fmt: skip
    manifest = {"measured": measured, "not_measured": None, "device": "local"}
    assert describe_measured(manifest) == ("Latency 1 ms median, 1.25 ms p90 (2 threads, x86_64), 12 GMAC/s.")
    assert "but not steady: x" in describe_measured(manifest | {"measured": measured | {"steady": False}})
