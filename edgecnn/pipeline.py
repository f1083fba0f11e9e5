"""From a network's name to checked bundles: source, float graph, QDQ graph, artifact.

One stage after the other; stages up to the graph are shared by all targets of one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecnn import check
from edgecnn.artifact import Artifact
from edgecnn.backends import backend
from edgecnn.bundle.expected import write_expected
from edgecnn.bundle.folder import check_place, staged
from edgecnn.bundle.write import read, write_files
from edgecnn.cost import analyze
from edgecnn.data.sets import Images, verification_images, verification_inputs
from edgecnn.devices.address import open_device
from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, MissingDependency
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.half import to_fp16
from edgecnn.int8 import Int8, Int8Options, make_int8
from edgecnn.measurement import Measurement
from edgecnn.payoff import PayOff, measure_payoff
from edgecnn.progress import Progress, silent
from edgecnn.quantize.portability import Portability, portability
from edgecnn.report.bundle import bundle_report
from edgecnn.report.explain import Explanation, explain
from edgecnn.report.page import write_report
from edgecnn.report.verdicts import verdicts
from edgecnn.scratch import scratch
from edgecnn.source.load import Network, load
from edgecnn.source.request import Request, make_request
from edgecnn.target import Target, load_target
from edgecnn.versions import tool_versions

_UNSEEN = "verification photographs"
_EXPLAINED = 500
"""Images whose answers the report compares, at most."""
_OVER_BUDGET = "-over-budget"
"""Ends the name of a bundle that loses more than was allowed."""
# The quick figure of an export; `edgecnn bench` takes its time.
_QUICK = {"min_time_s": 0.3, "min_runs": 20, "max_time_s": 5.0}


@dataclass(frozen=True)
class _Source:
    """What all targets of one export share."""

    request: Request
    network: Network
    photographs: Images = field(repr=False)
    """The verification photographs as inputs, decoded once."""
    macs: int
    graph: Graph
    """The one that is compiled: the float graph itself, its fp16 form, or the QDQ graph."""
    checks: tuple[Future[check.Check], ...]
    """Of the graphs; under way, or done."""
    int8: Int8 | None
    """How the QDQ graph came about; None for other precisions."""
    outputs: Future[check.Outputs]
    """What the graph gives for the photographs."""
    explanation: Future[Explanation] | None
    """Where the QDQ graph loses what it loses; None for other precisions."""


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
    data: str | Path | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    time_budget_s: float | None = None,
    search: bool = False,
    portable: bool = False,
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
        calibration: a folder or a labelled set whose images decide int8 ranges; None for the photographs in
            the package.
        data: labelled images that a budget or a search is judged on; calibration must not have seen them.
        max_drop: points of top-1 on ``data`` that int8 may lose; layers return to float until it holds.
        min_agreement: share of ``data`` that must keep its class in int8, from 0 to 1.
        time_budget_s: seconds that guard or search may take; None for ten minutes.
        search: try ways to quantise, and take the one that is best on ``data`` and on the first target.
        portable: make weights coarser where x86 CPUs without VNNI would compute something else.
        output: the folder in which the bundles, named
            ``<model>-<width>-<resolution>-<target>-<precision>`` for the zoo, are made.
        force: replace bundles that are there.
        measure: time each artifact briefly on this machine.
        progress: told how far the work is.

    Returns:
        The artifacts, in the order of ``targets``. If one fails its check, none of those after it are made.

    Raises:
        BudgetError: the budget is not met; the best bundles are made, and their names say so.
        EdgeCNNError: one of its subclasses, with a hint; nothing is left of the bundle that failed.
    """
    options = Int8Options(calibration, data, max_drop, min_agreement, time_budget_s, search, portable)
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
    names = list(dict.fromkeys([targets] if isinstance(targets, str) else map(str, targets)))
    loaded_targets = [load_target(name) for name in names]
    if not loaded_targets:
        raise ConfigError("no target is named", hint="`edgecnn targets` lists them")
    for target in loaded_targets:
        target.check_precision(precision)
    options.check(precision)
    modules = [backend(target.runtime) for target in loaded_targets]
    places = [output / f"{request.variant}-{target.name}-{precision}" for target in loaded_targets]
    for place in places:
        check_place(place, force=force)
        if options.budget is not None:
            check_place(_over_budget(place), force=force)
        if places.count(place) > 1:
            raise ConfigError(f"two targets would make {place}", hint="rename one of the target files")

    artifacts: list[Artifact] = []
    # Checks run beside the work that follows them: torch and the runtimes leave the interpreter to it.
    with ThreadPoolExecutor(2) as beside:
        paired = list(zip(loaded_targets, modules, strict=True))
        source = _source(request, precision, options, paired, beside, progress)
        for name, (target, module), place in zip(names, paired, places, strict=True):
            command = _command(request, name, precision, options)
            over = source.int8 is not None and source.int8.over_budget(target)
            try:
                made = _bundle(
                    source,
                    target,
                    module,
                    _over_budget(place) if over else place,
                    command,
                    force,
                    measure,
                    beside,
                    progress,
                )
            except EdgeCNNError as error:
                if artifacts:
                    good = ", ".join(str(artifact.path) for artifact in artifacts)
                    error.hint = f"{error.hint or ''} (made before it, and good: {good})".strip()
                raise
            artifacts.append(made)
    if source.int8 is not None:
        missed = source.int8.budget_error(list(zip(loaded_targets, artifacts, strict=True)))
        if missed is not None:
            raise missed
    return artifacts


def _over_budget(place: Path) -> Path:
    return place.with_name(f"{place.name}{_OVER_BUDGET}")


def _source(
    request: Request,
    precision: str,
    options: Int8Options,
    targets: list[tuple[Target, ModuleType]],
    beside: Executor,
    progress: Progress,
) -> _Source:
    network = load(request, progress)
    float_graph, weights = network.graph, network.weights
    verification = list(verification_inputs(weights.preprocess))
    checks: list[Future[check.Check]] = []
    if network.qdq is None:
        original = network.original(), network.original_name
        checks.append(beside.submit(check.float_graph, float_graph, *original, verification, network.layers))
    elif precision != "int8":
        raise ConfigError(f"{request.name} is quantised already", hint="add --precision int8")
    graph, int8, explanation = float_graph, None, None
    if precision == "fp16":
        graph = to_fp16(float_graph)
    elif precision == "int8":
        int8 = make_int8(network, options, targets, progress)
        graph = int8.graph
        checks.append(Future())
        checks[-1].set_result(int8.check)
        explanation = beside.submit(_explain, network, int8, verification)
    outputs = beside.submit(check.outputs_of, float_graph, graph, verification)
    # Too few calibration images, or all alike, show only on others.
    unseen = int8 is not None and network.qdq is None and not int8.judges_itself
    if precision == "fp16" or unseen:
        checks.append(beside.submit(_lowered, float_graph, graph, outputs, verification))
    macs = analyze(float_graph).macs
    return _Source(request, network, verification, macs, graph, tuple(checks), int8, outputs, explanation)


def _lowered(graph: Graph, lowered: Graph, outputs: Future[check.Outputs], images: Images) -> check.Check:
    return check.lowered_graph(graph, lowered, outputs.result(), images, _UNSEEN)


def _explain(network: Network, int8: Int8, images: Images) -> Explanation:
    """On the verification photographs, or on the user's own images where there are some."""
    weights, which = network.weights, _UNSEEN
    names = [path.name for path in verification_images()]
    if int8.data is not None:
        some = int8.data.take(range(min(len(int8.data), _EXPLAINED)))
        first = f"first {len(some)} " if len(some) < len(int8.data) else ""
        images, which = some.inputs(weights.preprocess), f"{first}images of {some.name}"
        names = [Path(some.pictures.name(index)).name for index in range(len(some))]
    return explain(
        network.graph,
        int8.graph,
        images,
        names,
        which,
        weights.preprocess,
        weights.labels,
        trained=not weights.random,
    )


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
        size_bytes = sum(path.stat().st_size for path in files)
        progress(f"checking {target.name}", 0, None)
        pending = (*source.checks, beside.submit(_check_artifact, source, module, files[0], target))
        portable = None if source.int8 is None else beside.submit(_portability, source, target)
        checks = tuple(check.result() for check in pending)  # the earliest stage that failed speaks first
        # Before the measurement, beside which nothing runs.
        carried = None if portable is None else portable.result()
        explanation = None if source.explanation is None else source.explanation.result()
        write_expected(folder, source.outputs.result(), list(source.photographs))
        measurement, payoff, why_not = None, None, None
        if measure:
            try:
                measurement, payoff = _measure(source, target, module, files, progress)
            except (DeviceError, MissingDependency) as error:
                if target.device == "local":
                    raise
                # A board that is switched off is no reason to leave its artifact unmade.
                why_not = str(error)
        manifest = _manifest(source, target, module, files, checks, measurement, command)
        manifest["not_measured"] = why_not
        if source.int8 is not None and carried is not None:
            manifest |= source.int8.to_json(target)
            manifest["portability"] = carried.to_json()
            manifest["payoff"] = None if payoff is None else payoff.to_json()
            answers = verdicts(carried, payoff, source.int8, target)
            report = bundle_report(manifest, size_bytes, explanation, answers)
            write_report(folder / "report.html", report)
        write_files(
            folder,
            manifest,
            size_bytes,
            source.network.weights.preprocess.to_json(),
            source.network.weights.labels,
            module.PACKAGES,
        )
    return read(place)


def _check_artifact(source: _Source, module: ModuleType, model: Path, target: Target) -> check.Check:
    images = source.photographs
    loader, run = partial(module.load, model, target), module.load(model, target)
    if source.graph.precision == "int8":
        return check.int8_artifact(source.graph, source.outputs.result(), loader, run, images)
    return check.float_artifact(source.graph, source.outputs.result(), loader, run, images)


def _portability(source: _Source, target: Target) -> Portability:
    return portability(source.network.graph, source.graph, source.photographs, target.runtime)


def _measure(
    source: _Source, target: Target, module: ModuleType, files: list[Path], progress: Progress
) -> tuple[Measurement, PayOff | None]:
    """The quick measurement; int8 is timed in turns with fp32."""
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
    device = open_device(target.device)
    if source.int8 is None:
        return device.measure(job, progress=progress), None
    with scratch("fp32") as folder:
        model, *companions = module.compile(source.network.graph, target, Path(folder))
        fp32 = replace(job, model=model, companions=tuple(companions), precision="fp32")
        _, measurement, verdict = measure_payoff(
            source.network.graph, source.graph, fp32, job, device, progress
        )
    return measurement, verdict


def _command(request: Request, target: str, precision: str, options: Int8Options) -> list[str]:
    """The command that makes the same bundle again."""
    model, *words = request.options
    command = ["edgecnn", "export", model, "--target", target, "--precision", precision, *words]
    return [*command, *options.words]


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
        "device": target.device,
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
        "calibration": None,
        "float_graph_sha256": source.network.graph.digest,
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
    "samples_ms", "warmup_ms", "block_runs", "block_at_s", "block_took_s", "telemetry", "target", "variant",
    "precision", "options", "macs",
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
