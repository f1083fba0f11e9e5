"""AveragePool as a convolution: where it is one, and that the numbers stay."""

from __future__ import annotations

import numpy as np
import onnx_ir.serde
import pytest
from onnx.parser import parse_model

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.average import average_pools_as_convs


def pooling(attributes: str, shape: str) -> Graph:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    network (float[1,3,8,9] x) => (float[{shape}] y) {{ [pool] y = AveragePool<{attributes}>(x) }}"""
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(parse_model(text)), "fp32"))


@pytest.mark.parametrize(
    ("attributes", "shape", "replaced"),
    [
        ("kernel_shape=[2,2], strides=[2,2]", "1,3,4,4", True),
        ("kernel_shape=[3,2]", "1,3,6,8", True),
        ("kernel_shape=[2,2], strides=[2,2], ceil_mode=1", "1,3,4,5", False),
        ("kernel_shape=[2,3], strides=[2,3], ceil_mode=1", "1,3,4,3", True),
        ("kernel_shape=[3,3], pads=[1,1,1,1]", "1,3,8,9", False),
        ("kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1", "1,3,8,9", True),
    ],
)
def test_only_what_divides_by_one_number_is_replaced(attributes: str, shape: str, replaced: bool) -> None:
    graph = pooling(attributes, shape)
    result = average_pools_as_convs(graph)
    assert ("Conv" in {node.op_type for node in result.model.graph}) == replaced
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 9)).astype(np.float32)
    expected, got = load_reference(graph)(x)[0], load_reference(result)(x)[0]
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert result.output.name == graph.output.name
