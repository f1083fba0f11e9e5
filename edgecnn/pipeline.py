"""From a network's name to checked bundles: source, float graph, QDQ graph, artifact.

One stage after the other; stages up to the graph are shared by all targets of one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecnn import check
from edgecnn.artifact import Artifact
from edgecnn.backends import backend
from edgecnn.bundle.folder import check_place, staged
from edgecnn.bundle.write import read, write_files
from edgecnn.cost import analyze
from edgecnn.data.images import list_images
from edgecnn.data.sets import ImageStream, calibration_images, digest, verification_images
from edgecnn.devices import local
from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError, EdgeCNNError
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.half import to_fp16
from edgecnn.measurement import Measurement
from edgecnn.progress import Progress, silent
from edgecnn.source.load import Network, load
from edgecnn.source.request import Request, make_request
from edgecnn.target import Target, load_target
from edgecnn.versions import tool_versions

# Enough to a few tenths of a decibel, and the check stays shorter than the calibration.
_CHECKED_CALIBRATION_IMAGES = 16
_UNSEEN = "verification photographs"
# The quick figure of an export; `edgecnn bench` takes its time.
_QUICK = {"min_time_s": 0.2, "min_runs": 20, "max_time_s": 5.0}


@dataclass(frozen=True)
class _Source:
    """What all targets of one export share."""

    request: Request
    network: Network
    macs: int
    graph: Graph
    """The one that is compiled: the float graph itself, its fp16 form, or the QDQ graph."""
    checks: tuple[Future[check.Check], ...]
    """Of the graphs; under way, or done."""
    calibration: dict[str, Any] | None


def export(
    model: str | Path,
    targets: str | Sequence[str | Path],
    *,
    precision: str = "fp32",
    width: float | None = None,
    resolution: int | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    input_shape: tuple[int, ...] | str | None = None,
    weights: str | Path | None = None,
    preprocess: str | Path | None = None,
    calibration: str | Path | None = None,
    output: str | Path = ".",
    force: bool = False,
    measure: bool = True,
    progress: Progress = silent,
) -> list[Artifact]:
    """Export a network to one checked bundle a target.

    Args:
        model: a name or short name of ``edgecnn.list_models()``, ``torchvision:NAME``, ``timm:NAME``, the
            path of an .onnx file, or ``path/to/file.py:function`` whose function returns a network.
        targets: names of shipped targets or paths of target files, or one of them.
        precision: ``fp32``, ``fp16`` (weights) or ``int8``.
        width: multiplier on the channel counts; None for the network's own (zoo).
        resolution: side of the input in pixels; None for the network's own (zoo).
        classes: number of outputs; None for the network's own (zoo and libraries).
        in_channels: channels of the input; None for the network's own (zoo).
        input_shape: NCHW, where a source other than the zoo does not say it.
        weights: ``imagenet``, ``random``, or a checkpoint file; None for what the source comes with.
        preprocess: how images become inputs: ``imagenet``, ``signed``, ``unit``, ``raw``, or a
            ``preprocess.json``; None for what the weights were trained with.
        calibration: a folder of images that decide int8 ranges; None for the photographs in the package.
        output: the folder in which the bundles, named
            ``<model>-<width>-<resolution>-<target>-<precision>`` for the zoo, are made.
        force: replace bundles that are there.
        measure: time each artifact briefly on this machine.
        progress: told how far the work is.

    Returns:
        The artifacts, in the order of ``targets``. If one fails its check, none of those after it are made.

    Raises:
        EdgeCNNError: one of its subclasses, with a hint; nothing is left of the bundle that failed.
    """
    request = make_request(
        model,
        width=width,
        resolution=resolution,
        classes=classes,
        in_channels=in_channels,
        input_shape=input_shape,
        weights=weights,
        preprocess=preprocess,
    )
    output = Path(output)
    calibration = Path(calibration) if calibration is not None else None
    names = list(dict.fromkeys([targets] if isinstance(targets, str) else map(str, targets)))
    loaded_targets = [load_target(name) for name in names]
    if not loaded_targets:
        raise ConfigError("no target is named", hint="`edgecnn targets` lists them")
    for target in loaded_targets:
        target.check_precision(precision)
    if calibration is not None and precision != "int8":
        raise ConfigError(
            f"calibration images are given, but {precision} has no use for them",
            hint="add --precision int8, or leave --calibration out",
        )
    images = list_images(calibration) if calibration is not None else calibration_images()
    backends = [backend(target.runtime) for target in loaded_targets]
    places = [output / f"{request.variant}-{target.name}-{precision}" for target in loaded_targets]
    for place in places:
        check_place(place, force=force)
        if places.count(place) > 1:
            raise ConfigError(f"two targets would make {place}", hint="rename one of the target files")

    artifacts: list[Artifact] = []
    # Checks run beside the work that follows them: torch and the runtimes leave the interpreter to it.
    with ThreadPoolExecutor(2) as beside:
        source = _source(request, precision, images, beside, progress)
        for name, target, module, place in zip(names, loaded_targets, backends, places, strict=True):
            command = _command(request, name, precision, calibration)
            try:
                made = _bundle(source, target, module, place, command, force, measure, beside, progress)
            except EdgeCNNError as error:
                if artifacts:
                    good = ", ".join(str(artifact.path) for artifact in artifacts)
                    error.hint = f"{error.hint or ''} (made before it, and good: {good})".strip()
                raise
            artifacts.append(made)
    return artifacts


def _source(
    request: Request, precision: str, images: list[Path], beside: Executor, progress: Progress
) -> _Source:
    network = load(request, progress)
    float_graph, recipe = network.graph, network.weights.preprocess
    verification = ImageStream(tuple(verification_images()), recipe)
    checks = [
        beside.submit(
            check.float_graph,
            float_graph,
            network.original(),
            network.original_name,
            verification,
            network.layers,
        )
    ]
    graph, calibration = float_graph, None
    if precision == "fp16":
        graph = to_fp16(float_graph)
        checks.append(beside.submit(check.lowered_graph, float_graph, graph, verification, _UNSEEN))
    elif precision == "int8":
        # NNCF takes a while to import; float exports go without.
        from edgecnn.quantize.quantize import quantize

        graph = quantize(float_graph, ImageStream(tuple(images), recipe), progress)
        every = -(-len(images) // _CHECKED_CALIBRATION_IMAGES)
        some = ImageStream(tuple(images[::every]), recipe)
        checks.append(beside.submit(check.lowered_graph, float_graph, graph, some, "calibration images"))
        # Too few images, or all alike, show only on others.
        checks.append(beside.submit(check.lowered_graph, float_graph, graph, verification, _UNSEEN))
        calibration = {"images": len(images), "sha256": digest(images)}
    return _Source(request, network, analyze(float_graph).macs, graph, tuple(checks), calibration)


def _bundle(
    source: _Source,
    target: Target,
    module: ModuleType,
    place: Path,
    command: list[str],
    force: bool,
    measure: bool,
    beside: Executor,
    progress: Progress,
) -> Artifact:
    progress(f"compiling for {target.name}", 0, None)
    with staged(place, force=force) as folder:
        files = module.compile(source.graph, target, folder)
        progress(f"checking {target.name}", 0, None)
        pending = (*source.checks, beside.submit(_check_artifact, source, module, files[0], target))
        checks = tuple(check.result() for check in pending)  # the earliest stage that failed speaks first
        measurement = _measure(source, target, files, progress) if measure else None
        write_files(
            folder,
            _manifest(source, target, module, files, checks, measurement, command),
            source.network.weights.preprocess.to_json(),
            source.network.weights.labels,
            module.PACKAGES,
        )
    return read(place)


def _check_artifact(source: _Source, module: ModuleType, model: Path, target: Target) -> check.Check:
    images = ImageStream(tuple(verification_images()), source.network.weights.preprocess)
    loader, run = partial(module.load, model, target), module.load(model, target)
    if source.graph.precision == "int8":
        return check.int8_artifact(source.network.graph, source.graph, loader, run, images)
    return check.float_artifact(source.graph, loader, run, images)


def _measure(source: _Source, target: Target, files: list[Path], progress: Progress) -> Measurement:
    job = Job(
        model=files[0],
        companions=tuple(files[1:]),
        runtime=target.runtime,
        options=target.options,
        target=target.name,
        variant=source.request.variant,
        precision=source.graph.precision,
        macs=source.macs,
        **_QUICK,  # type: ignore[arg-type]
    )
    return local.measure(job, progress=progress)


def _command(request: Request, target: str, precision: str, calibration: Path | None) -> list[str]:
    """The command that makes the same bundle again."""
    model, *options = request.options
    command = ["edgecnn", "export", model, "--target", target, "--precision", precision, *options]
    return command + (["--calibration", str(calibration)] if calibration is not None else [])


def _manifest(
    source: _Source,
    target: Target,
    module: ModuleType,
    files: list[Path],
    checks: tuple[check.Check, ...],
    measurement: Measurement | None,
    command: list[str],
) -> dict[str, Any]:
    graph, weights = source.graph, source.network.weights
    recorded = asdict(weights) | {"random": weights.random}
    del recorded["labels"], recorded["preprocess"]
    return {
        "variant": source.request.variant,
        "model": source.network.description,
        "notes": [*source.network.notes],
        "target": target.name,
        "runtime": target.runtime,
        "options": target.options,
        "precision": graph.precision,
        "model_file": files[0].name,
        "companion_files": [path.name for path in files[1:]],
        "input": {
            "name": str(graph.input.name),
            "shape": _as_laid_out(shape_of(graph.input), module.LAYOUT),
            "layout": module.LAYOUT,
            "dtype": "float32",
        },
        "output": {
            "name": str(graph.output.name),
            "shape": _as_laid_out(shape_of(graph.output), module.LAYOUT),
            "layout": module.LAYOUT if len(shape_of(graph.output)) == 4 else None,
            "dtype": "float32",
        },
        "params": source.network.params,
        "macs": source.macs,
        "weights": recorded,
        "calibration": source.calibration,
        "graph_sha256": graph.digest,
        "checks": [entry.to_json() for entry in checks],
        "measured": None if measurement is None else _measured(measurement),
        "versions": tool_versions(module.PACKAGES),
        "command": command,
    }


def _as_laid_out(shape: tuple[int, ...], layout: str) -> list[int]:
    """A shape of the graph as a runtime has it: in NHWC the channels of feature maps come last."""
    if layout == "NCHW" or len(shape) != 4:
        return list(shape)
    batch, channels, height, width = shape
    return [batch, height, width, channels]


_SAMPLES_AND_LABELS = (
    "samples_ms", "warmup_ms", "block_runs", "target", "variant", "precision", "options", "macs",
)  # fmt: skip


def _measured(measurement: Measurement) -> dict[str, Any]:
    """The quick measurement without its samples, which `edgecnn bench` keeps."""
    raw = asdict(measurement)
    for name in _SAMPLES_AND_LABELS:
        del raw[name]
    return {
        "p50_ms": measurement.p50_ms,
        "p90_ms": measurement.p90_ms,
        "gmacs_per_s": measurement.gmacs_per_s,
        "runs": len(measurement.samples_ms),
        "steady": measurement.steady,
        "reason": measurement.reason,
        **raw,
    }
