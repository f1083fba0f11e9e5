"""One small function a runtime: from a model file to something that can be bound, run and read.

The split in three is what makes timings comparable. ``bind`` copies the inputs into the runtime's own
tensors, ``infer`` is one synchronous inference on them, ``outputs`` copies the results out; only ``infer`` is
timed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Arrays = list[np.ndarray[Any, np.dtype[Any]]]


class TensorSpec(NamedTuple):
    """An input of the model."""

    name: str
    dtype: str
    """A numpy name, such as ``float32``."""
    shape: tuple[int, ...]
    """With a first axis that is left open taken as 1."""


class Loaded(NamedTuple):
    """A model that is ready to run."""

    inputs: list[TensorSpec]
    bind: Callable[[Arrays], None]
    """Copy one array for each input into the runtime."""
    infer: Callable[[], object]
    """Run once on what is bound, and return when it is done."""
    outputs: Callable[[], Arrays]
    """Copies of the outputs of the newest run."""


class Unavailable(Exception):
    """The runtime is not installed, or cannot be imported."""


class Runtime(NamedTuple):
    """What is known of a runtime without importing it."""

    modules: tuple[str, ...]
    """Where it lives, the first that can be imported."""
    load: Callable[[Any, str, int, dict[str, Any]], Loaded]
    """From (module, model path, threads, options) to a loaded model."""


def import_runtime(name: str) -> tuple[Any, str | None]:
    """Import a runtime.

    Returns:
        Its module, and its version where that is known.

    Raises:
        Unavailable: with the reason for each module that was tried.
    """
    # ONNX Runtime and OpenVINO report their use to their makers; the one heeds a variable, the other does
    # without the package that reports.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    reasons = []
    for module_name in RUNTIMES[name].modules:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            reasons.append(str(error))
            continue
        try:
            return module, importlib.metadata.version(module_name.split(".")[0].replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            version = getattr(module, "__version__", None)
            return module, None if version is None else str(version)
    raise Unavailable("; ".join(reasons))


def load_tflite(module: Any, path: str, threads: int, options: dict[str, Any]) -> Loaded:
    """LiteRT or tflite_runtime, with XNNPACK where it is built in. Options: keywords of ``Interpreter``."""
    interpreter = module.Interpreter(model_path=path, num_threads=threads, **options)
    interpreter.allocate_tensors()
    inputs = interpreter.get_input_details()
    outputs = interpreter.get_output_details()

    def bind(arrays: Arrays) -> None:
        for position, array in enumerate(arrays):
            interpreter.set_tensor(inputs[position]["index"], array)

    def read() -> Arrays:
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    specs = [TensorSpec(d["name"], d["dtype"].__name__, tuple(int(n) for n in d["shape"])) for d in inputs]
    return Loaded(specs, bind, interpreter.invoke, read)


# Where the name inside tensor(...) is not numpy's.
ONNX_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


def load_onnxruntime(module: Any, path: str, threads: int, options: dict[str, Any]) -> Loaded:
    """ONNX Runtime on CPUExecutionProvider. Options are session configuration entries, text to text."""
    settings = module.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    for key, value in options.items():
        settings.add_session_config_entry(key, str(value))
    session = module.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    # IO binding keeps numpy conversions out of the run, as preset tensors do in the other runtimes.
    binding = session.io_binding()
    specs = []
    tensors = []
    for node in session.get_inputs():
        dtype = ONNX_DTYPES.get(node.type) or node.type[len("tensor(") : -1]
        spec = TensorSpec(node.name, dtype, _fixed_shape(node.name, node.shape))
        tensor = module.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), _numpy_dtype(dtype), "cpu")
        binding.bind_ortvalue_input(node.name, tensor)
        specs.append(spec)
        tensors.append(tensor)
    for node in session.get_outputs():
        binding.bind_output(node.name, "cpu")

    def bind(arrays: Arrays) -> None:
        for position, array in enumerate(arrays):
            tensors[position].update_inplace(array)

    def infer() -> None:
        session.run_with_iobinding(binding)

    def read() -> Arrays:
        return [array.copy() for array in binding.copy_outputs_to_cpu()]

    return Loaded(specs, bind, infer, read)


def load_openvino(module: Any, path: str, threads: int, options: dict[str, Any]) -> Loaded:
    """OpenVINO on the CPU. Options are properties of ``compile_model`` and win over the ones set here."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Left alone it computes fp32 models in bf16 or fp16 on CPUs that can, and fp32 would not be fp32
        # (https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html).
        "INFERENCE_PRECISION_HINT": "f32",
        **options,
    }
    compiled = module.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    specs = []
    buffers = []
    for position, port in enumerate(compiled.inputs):
        name = port.get_any_name() if port.get_names() else f"input {position}"
        shape = [None if dim.is_dynamic else dim.get_length() for dim in port.get_partial_shape()]
        spec = TensorSpec(name, port.get_element_type().to_dtype().name, _fixed_shape(name, shape))
        tensor = module.Tensor(port.get_element_type(), list(spec.shape))
        request.set_input_tensor(position, tensor)
        specs.append(spec)
        buffers.append(tensor.data)

    def bind(arrays: Arrays) -> None:
        for position, array in enumerate(arrays):
            buffers[position][...] = array

    def infer() -> None:
        request.infer(share_outputs=True)  # a view, so that no copy is timed

    def read() -> Arrays:
        return [tensor.data.copy() for tensor in request.output_tensors]

    return Loaded(specs, bind, infer, read)


def _numpy_dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name).type


def _fixed_shape(name: str, shape: list[Any]) -> tuple[int, ...]:
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if sizes and sizes[0] is None:
        sizes[0] = 1
    fixed = [size for size in sizes if size is not None]
    if len(fixed) != len(sizes):
        raise ValueError(f"input '{name}' has the open shape {shape}: fix all axes but the first")
    return tuple(fixed)


RUNTIMES = {
    "tflite": Runtime(("ai_edge_litert.interpreter", "tflite_runtime.interpreter"), load_tflite),
    "onnxruntime": Runtime(("onnxruntime",), load_onnxruntime),
    "openvino": Runtime(("openvino",), load_openvino),
}
