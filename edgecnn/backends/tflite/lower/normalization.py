"""BatchNormalization where no convolution could take it in, and local response normalisation."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.activation import fused
from edgecnn.backends.tflite.lower.context import Context, data_of, first, unsupported
from edgecnn.graph.operators import Operator


def batch_normalization(context: Context, operator: Operator) -> None:
    """DEPTHWISE_CONV_2D with a 1 x 1 window.

    One pass over the map with the Relu fused in; MUL and ADD take as long or up to 5 % longer with the layer
    behind (DenseNet's shapes, one thread).
    """
    if len(first(operator).shape) != 4:
        raise unsupported(operator, "it is not of feature maps")
    gamma, beta, mean, variance = (
        data_of(operator, position, role).real.astype(np.float64)
        for position, role in ((1, "scale"), (2, "bias"), (3, "mean"), (4, "variance"))
    )
    scale = gamma / np.sqrt(variance + operator.attributes.get("epsilon", 1e-5))
    weight = scale.astype(np.float32).reshape(1, 1, 1, -1)
    inputs = [
        context.tensor(first(operator)),
        context.constant(f"{operator.name}.weight", weight),
        context.constant(f"{operator.name}.bias", (beta - mean * scale).astype(np.float32)),
    ]
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.depthMultiplier = schema.Padding.VALID, 1
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    with fused(context, operator, operator.outputs[0]) as (output, activation):
        options.fusedActivationFunction = activation
        context.add("DEPTHWISE_CONV_2D", inputs, [output], options, operator.name)


def local_response_normalization(context: Context, operator: Operator) -> None:
    """LOCAL_RESPONSE_NORMALIZATION, whose alpha counts for one value where ONNX's counts for the window."""
    size = int(operator.attributes["size"])
    if size % 2 == 0 or len(first(operator).shape) != 4:
        raise unsupported(operator, f"its window of {size} is not the same to both sides, on feature maps")
    options = schema.LocalResponseNormalizationOptionsT()
    options.radius = size // 2
    options.bias = float(operator.attributes.get("bias", 1.0))
    options.alpha = float(operator.attributes.get("alpha", 1e-4)) / size
    options.beta = float(operator.attributes.get("beta", 0.75))
    source, result = context.tensor(first(operator)), context.tensor(operator.outputs[0])
    context.add("LOCAL_RESPONSE_NORMALIZATION", [source], [result], options, operator.name)
