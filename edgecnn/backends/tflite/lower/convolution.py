"""Conv, depthwise Conv, grouped Conv, Gemm."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.lower.activation import fused
from edgecnn.backends.tflite.lower.context import Context, data_of, first, unsupported
from edgecnn.backends.tflite.lower.window import padded_input
from edgecnn.graph.operators import Operator


def conv(context: Context, operator: Operator) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where every input channel is a group of its own.

    A grouped convolution is CONV_2D whose weights have fewer input channels than the input.
    """
    x, weight, bias = first(operator), data_of(operator, 1, "weight"), data_of(operator, 2, "bias")
    if len(x.shape) != 4:
        raise unsupported(
            operator, f"it is {len(x.shape) - 2}-dimensional; only 2-dimensional ones are known"
        )
    assert weight.data is not None
    assert bias.data is not None
    out_channels, kernel = weight.shape[0], (weight.shape[2], weight.shape[3])
    groups = int(operator.attributes.get("group", 1))
    strides = tuple(operator.attributes.get("strides", (1, 1)))
    dilations = tuple(operator.attributes.get("dilations", (1, 1)))
    source, padding = padded_input(context, operator, kernel, strides, dilations)
    result = operator.outputs[0]
    if groups == x.shape[1] and groups > 1:
        # OIHW with I = 1 -> 1HWC.
        values = weight.data.transpose(1, 2, 3, 0)
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = out_channels // groups
        code, axis = "DEPTHWISE_CONV_2D", 3
    else:
        values = weight.data.transpose(0, 2, 3, 1)
        options = schema.Conv2DOptionsT()
        code, axis = "CONV_2D", 0
    options.padding = padding
    options.strideH, options.strideW = strides
    options.dilationHFactor, options.dilationWFactor = dilations
    inputs = [
        source,
        context.weight(weight, operator.name, values, axis),
        context.weight(bias, operator.name, bias.data),
    ]
    with fused(context, operator, result) as (output, activation):
        options.fusedActivationFunction = activation
        context.add(code, inputs, [output], options, operator.name)


def gemm(context: Context, operator: Operator) -> None:
    """FULLY_CONNECTED; the canonical Gemm is ``x @ W.T + b`` with W as (out, in)."""
    weight, bias = data_of(operator, 1, "weight"), data_of(operator, 2, "bias")
    attributes = operator.attributes
    if attributes.get("transA", 0) or not attributes.get("transB", 0):
        raise unsupported(operator, "it is not in the canonical form x @ W.T + b")
    assert weight.data is not None
    assert bias.data is not None
    inputs = [
        context.tensor(first(operator)),
        context.weight(weight, operator.name, weight.data),
        context.weight(bias, operator.name, np.broadcast_to(bias.data.reshape(-1), (weight.shape[0],))),
    ]
    options = schema.FullyConnectedOptionsT()
    with fused(context, operator, operator.outputs[0]) as (output, activation):
        options.fusedActivationFunction = activation
        context.add("FULLY_CONNECTED", inputs, [output], options, operator.name)
