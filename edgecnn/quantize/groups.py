"""Which tensors of a float graph must share quantisation parameters, and which have fixed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgecnn.errors import ConversionError
from edgecnn.graph.operators import FLOAT_ISLANDS, FUSES_ACTIVATION, census, fusible_activation
from edgecnn.graph.rewrite import constant

WEIGHTED = frozenset({"Conv", "Gemm"})
# Output = selection or rearrangement of input values (AveragePool: TFLite's kernel does not rescale).
SAME_SCALE = frozenset({"MaxPool", "AveragePool", "Reshape", "Flatten", "Transpose", "Pad", "Slice"})
ACTIVATIONS = frozenset({"Relu", "Clip"})
# Operators whose result kernels give on a grid of their own: scale, zero point.
FIXED_OUTPUT = {"Sigmoid": (1 / 256, 0), "Softmax": (1 / 256, 0), "Tanh": (1 / 128, 128)}
QUANTIZABLE = (
    FUSES_ACTIVATION
    | SAME_SCALE
    | ACTIVATIONS
    | FLOAT_ISLANDS
    | set(FIXED_OUTPUT)
    | {"Concat", "GlobalAveragePool", "HardSwish", "LeakyRelu", "ReduceMean"}
)


@dataclass(frozen=True)
class Groups:
    """Every activation tensor that will be quantised, with what it shares parameters with."""

    members: dict[str, tuple[ir.Value, ...]]
    """Tensors that share one scale and zero point, by the name of their group."""
    fixed: dict[str, tuple[float, int]]
    """Scale and zero point of the groups that a kernel's grid decides."""


def scale_groups(model: ir.Model) -> Groups:
    """Partition a canonical float graph's activation tensors by shared quantisation parameters.

    Raises:
        ConversionError: operators without an int8 form, or one whose weight is computed.
    """
    unknown = [(node.op_type, str(node.name)) for node in model.graph if node.op_type not in QUANTIZABLE]
    if unknown:
        raise ConversionError(
            f"int8 has no form for {census(unknown)}",
            hint=f"export with --precision fp32 or fp16; int8 knows: {', '.join(sorted(QUANTIZABLE))}",
        )
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    def join(node: ir.Node, sources: Sequence[ir.Value | None]) -> None:
        for value in sources:
            if value is not None and constant(value) is None:
                parent[find(str(value.name))] = find(str(node.outputs[0].name))

    absorbed: set[str] = set()
    for node in model.graph:
        weights = node.inputs[1:] if node.op_type in WEIGHTED | {"BatchNormalization"} else ()
        if any(constant(value) is None for value in weights):
            raise ConversionError(
                f"{node.op_type} (node '{node.name}') computes its weight; int8 needs a constant"
            )
        if fusible_activation(node) is not None:
            absorbed.add(str(node.outputs[0].name))
        if node.op_type in SAME_SCALE:
            join(node, node.inputs[:1])
    fixed = {
        find(str(n.outputs[0].name)): FIXED_OUTPUT[n.op_type]
        for n in model.graph
        if n.op_type in FIXED_OUTPUT
    }
    for node in model.graph:
        if node.op_type == "Concat":
            # A tensor on a fixed grid keeps it, and is requantised where it is concatenated.
            join(
                node,
                [value for value in node.inputs if value is not None and find(str(value.name)) not in fixed],
            )

    members: dict[str, list[ir.Value]] = {}
    for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
        name = str(value.name)
        if name not in absorbed:
            members.setdefault(find(name), []).append(value)
    return Groups({name: tuple(values) for name, values in members.items()}, fixed)
