"""From a name to bundles: every target in every precision, and all that their manifests promise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgecnn
from edgecnn import benchmark, pipeline
from edgecnn.artifact import Artifact
from edgecnn.bundle.write import read
from edgecnn.data.calibration import open_calibration
from edgecnn.data.sets import calibration_images, shipped_photos_dir
from edgecnn.errors import ConfigError, ParityError, WeightsError
from edgecnn.fetch.fetch import fetch
from edgecnn.spec import Preprocess
from edgecnn.target import PRECISIONS, list_targets
from edgecnn.versions import version_of
from edgecnn.zoo import build, make_spec, resolve

TARGETS = [target.name for target in list_targets() if target.device == "local"]
SMALL = {
    "lenet5": (1.0, 32),
    "mobilenet_v1": (0.25, 64),
    "resnet18": (0.25, 64),
}
"""Width and resolution that keep an export short."""
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Of one weight."""
GRAPH_BYTES = 800_000
"""Of all else in a model; OpenVINO writes half a megabyte of XML."""
# Peak resident memory may differ by what allocators keep; 180 more inputs would be 108 MB.
MEMORY_BOUND_MB = 50


def export(model: str, output: Path, **options: Any) -> list[Artifact]:
    width, resolution = SMALL[model]
    settings = {"weights": "random", "width": width, "resolution": resolution, "measure": False, **options}
    targets = settings.pop("targets", TARGETS)
    return pipeline.export(model, targets, output=output, **settings)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few photographs for calibrations that need not be good."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((shipped_photos_dir() / "calibration").iterdir())[:8]:
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", SMALL)
def test_every_network_target_and_precision(model: str, precision: str, photos: Path, tmp_path: Path) -> None:
    calibration = {"calibration": photos} if precision == "int8" else {}
    made = export(model, tmp_path, precision=precision, **calibration)
    assert [artifact.target for artifact in made] == TARGETS
    for artifact in made:
        assert artifact == read(artifact.path)
        stages = [entry["stage"] for entry in artifact.manifest["checks"]]
        between = {"fp32": [], "fp16": ["fp16 graph"], "int8": ["int8 graph", "int8 graph"]}[precision]
        assert stages == ["float graph", *between, f"{precision} artifact"]
        size_bytes = sum(path.stat().st_size for path in (artifact.model, *artifact.companions))
        assert size_bytes < artifact.manifest["params"] * BYTES[precision] + GRAPH_BYTES
    assert len({artifact.manifest["graph_sha256"] for artifact in made}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(artifact.path.name for artifact in made)


def test_the_manifest_tells_how_it_was_made(photos: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine.pth"
    torch.save(build(make_spec("lenet5"), seed=7).state_dict(), checkpoint)
    options = {"precision": "int8", "calibration": photos, "weights": str(checkpoint), "measure": True}
    [artifact] = export("lenet5", tmp_path / "out", targets=["tflite"], **options)
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest == artifact.manifest
    assert manifest["model"] == {
        "source": "zoo", "name": "lenet5", "width": 1.0, "resolution": 32, "classes": 10, "in_channels": 1,
        "input_shape": [1, 1, 32, 32],
    }  # fmt: skip
    assert (manifest["params"], manifest["macs"]) == (61_706, 416_520)
    weights = manifest["weights"]
    assert (weights["kind"], weights["file_name"], weights["random"]) == ("file", "mine.pth", False)
    assert weights["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    used = open_calibration(photos, Preprocess(32, (32, 32), (0.5,), (0.5,)))
    assert manifest["calibration"]["sha256"] == used.sha256
    assert manifest["calibration"]["fingerprints"] == list(used.fingerprints)
    assert len(manifest["graph_sha256"]) == 64
    for name, recorded in manifest["files"].items():
        data = (artifact.path / name).read_bytes()
        assert recorded == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    tools = "edgecnn torch onnx onnx-ir onnxruntime numpy pillow ai-edge-litert"
    for tool in tools.split():
        assert manifest["versions"][tool] == version_of(tool) is not None
    for entry in manifest["checks"]:
        assert entry["images"] > 0
        assert 0 <= entry["top1_agreement"] <= 1
        low, high = entry["value"], entry["limit"]
        if entry["metric"] == "sqnr_db":
            low, high = high, low
        assert low <= high, entry
    measured = manifest["measured"]
    assert measured["p90_ms"] >= measured["p50_ms"] > 0
    assert measured["threads"] == 1
    assert measured["runs"] >= 20
    page = (artifact.path / "README.md").read_text()
    assert "weights of mine.pth" in page
    assert "RANDOM" not in page
    assert "int8 artifact against" in page
    assert "416,520" in page
    assert "pip install numpy pillow ai-edge-litert" in page


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_command_in_the_manifest_makes_the_same_files(
    precision: str, photos: Path, tmp_path: Path
) -> None:
    """In another process, with another hash seed, and so for every target."""
    calibration = {"calibration": photos} if precision == "int8" else {}
    targets = []
    for artifact in export("mobilenet_v1", tmp_path / "first", precision=precision, **calibration):
        command = artifact.manifest["command"]
        assert command[:3] == ["edgecnn", "export", "mobilenet_v1"]
        at = command.index("--target")
        targets += command[at : at + 2]
        shared = command[1:at] + command[at + 2 :]
    again = [sys.executable, "-c", "from edgecnn.cli import main; main()", *shared, *targets]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*again, "-o", "second", "--json"], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    for first in sorted((tmp_path / "first").iterdir()):
        artifact, other = read(first), read(tmp_path / "second" / first.name)
        assert artifact.manifest["graph_sha256"] == other.manifest["graph_sha256"]
        for path in (artifact.model, *artifact.companions):
            assert path.read_bytes() == (other.path / path.name).read_bytes(), f"{first.name}/{path.name}"


def test_random_weights_are_never_silent(tmp_path: Path) -> None:
    [artifact] = export("lenet5", tmp_path, targets=["onnxruntime"])
    weights = artifact.manifest["weights"]
    assert (weights["kind"], weights["random"], weights["sha256"]) == ("random", True, None)
    assert "RANDOM WEIGHTS, untrained" in (artifact.path / "README.md").read_text()
    assert not (artifact.path / "labels.txt").exists()


def test_another_calibration_gives_another_graph(photos: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(photos.iterdir())[:4]:
        shutil.copyfile(path, fewer / path.name)
    manifests = []
    for folder in (photos, fewer):
        options = {"targets": ["onnxruntime"], "precision": "int8", "calibration": folder}
        [artifact] = export("lenet5", tmp_path / f"out-{folder.name}", **options)
        manifests.append(artifact.manifest)
    assert [manifest["calibration"]["images"] for manifest in manifests] == [8, 4]
    assert manifests[0]["calibration"]["sha256"] != manifests[1]["calibration"]["sha256"]
    assert manifests[0]["graph_sha256"] != manifests[1]["graph_sha256"]


PEAK = """
import sys
from pathlib import Path
from edgecnn import pipeline
from edgecnn.agent import host
pipeline.export("mobilenet_v1", ["onnxruntime"], weights="random", width=0.25, precision="int8",
                calibration=Path(sys.argv[1]), output=Path(sys.argv[2]), measure=False)
print(host.peak_memory_bytes())
"""


def test_memory_does_not_grow_with_the_calibration_images(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    peaks_mb = []
    for count in (20, 200):
        folder = tmp_path / f"photos{count}"
        folder.mkdir()
        for number in range(count):
            Image.fromarray(np.roll(photo, number, axis=1)).save(folder / f"{number:03}.bmp")
        command = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / f"out{count}")]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks_mb.append(int(ended.stdout) / 1e6)
        shutil.rmtree(folder)
    assert peaks_mb[1] - peaks_mb[0] < MEMORY_BOUND_MB, peaks_mb


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "my board.toml"
    own.write_text(
        'description = "d"\nruntime = "onnxruntime"\ndevice = "local"\nprecisions = ["fp32"]\n'
        '[options]\n"session.set_denormal_as_zero" = "1"\n'
    )
    [artifact] = export("lenet5", tmp_path / "out", targets=[str(own)], measure=True)
    assert artifact.path.name == "lenet5-1.0-32-my board-fp32"
    assert artifact.options == {"session.set_denormal_as_zero": "1"}
    assert str(own) in artifact.manifest["command"]
    with pytest.raises(ConfigError, match="'my board' does not run int8"):
        export("lenet5", tmp_path / "out", targets=[str(own)], precision="int8")


def test_a_check_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.backends import onnxruntime

    compile_well = onnxruntime.compile

    def compile_badly(graph: Any, target: Any, folder: Path) -> list[Path]:
        import onnx

        [path] = compile_well(graph, target, folder)
        model = onnx.load(path)
        bias = next(entry for entry in model.graph.initializer if len(entry.dims) == 1)
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
        onnx.save(model, path)
        return [path]

    monkeypatch.setattr(onnxruntime, "compile", compile_badly)
    with pytest.raises(ParityError, match="fp32 artifact: max_abs_relative"):
        export("lenet5", tmp_path / "out", targets=["onnxruntime"])
    assert list(tmp_path.iterdir()) == []


def test_no_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no target"):
        export("lenet5", tmp_path, targets=[])


def test_a_target_named_twice_is_made_once(tmp_path: Path) -> None:
    assert len(export("lenet5", tmp_path, targets=["onnxruntime", "onnxruntime"])) == 1


def test_progress_tells_each_stage(photos: Path, tmp_path: Path) -> None:
    told: list[tuple[str, float, float | None]] = []

    def progress(description: str, done: float, total: float | None) -> None:
        told.append((description, done, total))

    export("lenet5", tmp_path, targets=["tflite"], precision="int8", calibration=photos, progress=progress)
    descriptions = list(dict.fromkeys(description for description, _, _ in told))
    assert descriptions[0] == "exporting the float graph"
    assert descriptions[-1] == "checking tflite"
    assert all(total is None or 0 <= done <= total for _, done, total in told)


def test_the_functions_that_the_package_documents(tmp_path: Path) -> None:
    [artifact] = edgecnn.export("lenet", ["tflite"], weights="random", output=tmp_path)
    quick = {"min_time_s": 0.05, "min_runs": 5}
    assert edgecnn.bench(artifact.path, **quick).p50_ms > 0
    other, measurement, comparison = edgecnn.compare(artifact.path, artifact.path, **quick)
    assert comparison.pairs >= 10
    assert other.target == measurement.target == "tflite"
    assert {entry.name for entry in edgecnn.list_models()} >= set(SMALL)
    assert edgecnn.load_target("tflite") in edgecnn.list_targets()
    assert any(finding.kind == "runtime" for finding in edgecnn.diagnose())
    assert set(edgecnn.__all__) <= set(dir(edgecnn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgecnn.nothing
    for limits in ({"min_time_s": float("nan")}, {"min_time_s": 0.0}, {"min_runs": 0}, {"threads": 0}):
        with pytest.raises(ConfigError):
            edgecnn.bench(artifact.path, **limits)


def test_plain_strings_are_paths_too(photos: Path, tmp_path: Path) -> None:
    made = pipeline.export(
        "lenet5", "tflite", weights="random", precision="int8", calibration=str(photos), output=str(tmp_path)
    )
    assert [artifact.target for artifact in made] == ["tflite"]
    assert benchmark.bench(str(made[0].path), min_time_s=0.05, min_runs=5).target == "tflite"


def test_threads_may_export_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        exports = [pool.submit(export, "lenet5", tmp_path / str(i), targets=["tflite"]) for i in range(3)]
        digests = {made.result()[0].manifest["graph_sha256"] for made in exports}
    assert len(digests) == 1


@pytest.mark.network
def test_calibration_on_one_image_is_seen_through(tmp_path: Path) -> None:
    """It looks excellent on that image; on others the network is lost."""
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(calibration_images()[0], folder)
    try:
        weights = resolve("mobilenet_v2").weights
        assert weights is not None
        fetch(weights.file)
    except WeightsError as error:
        pytest.skip(f"the published weights cannot be fetched: {error}")
    with pytest.raises(ParityError, match=r"int8 graph: SQNR .* on verification photographs") as caught:
        pipeline.export(
            "mobilenet_v2", "tflite", precision="int8", calibration=folder, output=tmp_path / "out"
        )
    assert "more images" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()
