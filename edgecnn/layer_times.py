"""How long each layer of a compiled model takes, as its runtime's own profiler has it."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.agent.runtimes import import_runtime
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.operators import operators
from edgecnn.scratch import scratch

_WARM_UP, _RUNS = 3, 12
_FORMS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ACTIVATIONS = frozenset({"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
_KERNEL = "_kernel_time"

Kernel = tuple[tuple[str, ...], str]
"""The names that a runtime has for one step of its own, and its type."""
Profiler = Callable[[Any, str, int, dict[str, Any], Any], dict[Kernel, list[float]]]


@dataclass(frozen=True)
class LayerTime:
    """What one layer takes."""

    name: str
    """The node's name in the canonical graph, or what the runtime does of its own, by its type."""
    ms: float
    """The median of a few runs, in milliseconds; a profiler's bookkeeping is in it."""


def layer_times(
    graph: Graph, model: Path, runtime: str, options: dict[str, Any], threads: int = 1
) -> dict[str, LayerTime]:
    """Run a compiled model a few times under its runtime's profiler, in this process.

    What a runtime has put together is counted for the layer that it is named after. Nothing is known of
    runtimes whose Python package has no profiler, as TFLite's.

    Args:
        graph: the canonical graph that it was compiled from, fp32 or int8.
        model: the file that the runtime opens.
        runtime: ``onnxruntime`` or ``openvino``; all others give nothing.
        options: the target's.
        threads: of one inference.

    Raises:
        Unavailable: the runtime is not installed.
    """
    if runtime not in _PROFILERS:
        return {}
    import numpy as np

    module, _ = import_runtime(runtime)
    x = np.random.default_rng(0).standard_normal(shape_of(graph.input)).astype(np.float32)
    found = _PROFILERS[runtime](module, str(model), threads, options, x)
    layer_of = _Layers(graph)
    total: dict[str, float] = {}
    for (names, op_type), runs_ms in found.items():
        name = next(filter(None, map(layer_of, names)), op_type)
        total[name] = total.get(name, 0.0) + statistics.median(runs_ms)
    return {name: LayerTime(name, ms) for name, ms in total.items()}


class _Layers:
    """From a runtime's name for a step to that of the layer in the canonical graph."""

    def __init__(self, graph: Graph) -> None:
        self._known: dict[str, str] = {}
        writers = {str(output.name): str(node.name) for node in graph.model.graph for output in node.outputs}
        found = [operator for operator in operators(graph) if operator.op_type not in _FORMS]
        readers = Counter(operand.name for operator in found for operand in operator.inputs if operand)
        for operator in found:
            layer = operator.name
            source = operator.inputs[0] if operator.inputs else None
            if operator.op_type in _ACTIVATIONS and source is not None and readers[source.name] == 1:
                # Fused in one precision and on its own in the other, it counts for what is in front of it.
                layer = self._known.get(source.name, layer)
            self._known[operator.name] = layer
            for output in operator.outputs:
                # Steps may bear the name of the tensor, or of the Relu or Clip that is part of the operator.
                self._known[output.name] = layer
                self._known[writers.get(output.name, operator.name)] = layer

    def __call__(self, step: str) -> str | None:
        """The layer; None for what the runtime does of its own."""
        step = f"{step.removeprefix('fused ')}/"
        fitting = [name for name in self._known if step.startswith((f"{name}/", f"{name}_", f"{name}:"))]
        return self._known[max(fitting, key=len)] if fitting else None


def _onnxruntime(
    module: Any, model: str, threads: int, options: dict[str, Any], x: Any
) -> dict[Kernel, list[float]]:
    with scratch("profile") as folder:
        settings = module.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        for key, value in options.items():
            settings.add_session_config_entry(key, str(value))
        session = module.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for _ in range(_WARM_UP + _RUNS):
            session.run(None, {name: x})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = (
        (((event["name"].removesuffix(_KERNEL),), event["args"]["op_name"]), event["dur"] / 1000)
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)
    )
    return {node: runs[_WARM_UP:] for node, runs in _gathered(kernels).items()}


def _openvino(
    module: Any, model: str, threads: int, options: dict[str, Any], x: Any
) -> dict[Kernel, list[float]]:
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        **options,
        "PERF_COUNT": True,
    }
    compiled = module.Core().compile_model(model, "CPU", settings)
    fused = {
        op.get_friendly_name(): op.get_rt_info()["originalLayersNames"].astype(str).split(",")
        for op in compiled.get_runtime_model().get_ops()
        if "originalLayersNames" in op.get_rt_info()
    }
    request = compiled.create_infer_request()
    kernels: list[tuple[Kernel, float]] = []
    for run in range(_WARM_UP + _RUNS):
        request.infer([x])
        if run >= _WARM_UP:
            kernels += [
                (
                    (tuple(fused.get(entry.node_name, ())), entry.node_type),
                    entry.real_time.total_seconds() * 1000,
                )
                for entry in request.profiling_info
                if entry.real_time.total_seconds() > 0
            ]
    return _gathered(kernels)


def _gathered(kernels: Iterable[tuple[Kernel, float]]) -> dict[Kernel, list[float]]:
    gathered: dict[Kernel, list[float]] = {}
    for node, ms in kernels:
        gathered.setdefault(node, []).append(ms)
    return gathered


_PROFILERS: dict[str, Profiler] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
