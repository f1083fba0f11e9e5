"""What a network may not hold, said before a rewrite stumbles over it."""

from __future__ import annotations

import onnx_ir as ir

from edgecnn.errors import ConversionError
from edgecnn.graph.rewrite.edit import Rewrite, constant, known_shape

_OF_MAPS = frozenset(
    {"AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "LRN", "MaxPool", "BatchNormalization"}
)
_OTHER_FLOATS = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
}


class CheckLimits(Rewrite):
    """Convolutions, pooling and normalisation work on feature maps of images; every number is a float32."""

    def visit(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Change nothing.

        Raises:
            ConversionError: another number of dimensions, channels that do not fit, or another precision.
        """
        for value in node.outputs:
            if value.dtype in _OTHER_FLOATS:
                raise ConversionError(
                    f"{node.op_type} (node '{node.name}') computes in {_OTHER_FLOATS[value.dtype]}",
                    hint="let the network compute in float32; --precision decides what is deployed",
                )
        shape = known_shape(node.inputs[0]) if node.inputs else None
        if node.op_type not in _OF_MAPS or shape is None:
            return False
        if len(shape) != 4 and not (node.op_type == "BatchNormalization" and len(shape) == 2):
            raise ConversionError(
                f"{node.op_type} (node '{node.name}') works on {len(shape)} dimensions",
                hint="networks for images are taken: N x C x H x W, in two-dimensional layers",
            )
        weight = constant(node.inputs[1]) if node.op_type == "Conv" else None
        if weight is not None and weight.shape[1] * node.attributes.get_int("group", 1) != shape[1]:
            raise ConversionError(
                f"Conv (node '{node.name}') has weights {weight.shape} for an input {tuple(shape)}",
                hint="is it the input that the network was made for? See --input-shape",
            )
        return False
