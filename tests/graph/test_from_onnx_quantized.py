"""Quantised .onnx files: what is refused on reading, each with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.parser import parse_model

from edgecnn.errors import ConversionError
from edgecnn.graph.from_onnx import read

S, Z = np.float32(0.05), np.uint8(128)
LAYER = (
    "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear{axis}(k, ws, wz) {body}"
)
CONV = "y = Conv<kernel_shape=[3,3]>(d, w)"
WEIGHT = np.random.default_rng(0).integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)


def file(body: str, constants: dict[str, np.ndarray], folder: Path, opset: int = 17, extra: str = "") -> Path:
    head = f'<ir_version: {10 if opset > 20 else 8}, opset_import: ["" : {opset}{extra}]>'
    model: ModelProto = parse_model(f"{head} g (float[1,4,8,8] x) => (float y) {{{body}}}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in ({"s": S, "z": Z} | constants).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def layer(axis: str = "", body: str = CONV, **constants: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    stored = {"k": WEIGHT, "ws": np.float32(0.01), "wz": np.int8(0)}
    return LAYER.format(axis=axis, body=body), stored | constants


REFUSED = {
    "asymmetric weights": (
        layer(k=(WEIGHT.astype(int) + 128).astype(np.uint8), wz=np.uint8(100)),
        r"the weights of Conv .* are asymmetric: -99 to 155 steps from zero",
    ),
    "weights with scales along their inputs": (
        layer(axis="<axis=1>", ws=np.linspace(0.01, 0.02, 4, dtype=np.float32), wz=np.zeros(4, np.int8)),
        "the weights of Conv .* have scales along axis 1; output channels are axis 0",
    ),
    "dense weights with scales along their inputs": (
        layer(
            axis="<axis=0>",
            body="f = Flatten(d) y = MatMul(f, w)",
            k=np.ones((256, 5), np.int8),
            ws=np.linspace(0.01, 0.02, 256, dtype=np.float32),
            wz=np.zeros(256, np.int8),
        ),
        "the weights of MatMul .* have scales along axis 0; output channels are axis 1",
    ),
    "an activation with a scale a channel": (
        layer(s=np.full(4, 0.05, np.float32), z=np.full(4, 128, np.uint8)),
        "QuantizeLinear .* gives an activation 4 scales, one a channel",
    ),
    "a scale that is computed": (
        (
            "m = ReduceMax<keepdims=0>(x) q = QuantizeLinear(x, m, z) y = DequantizeLinear(q, m, z)",
            {},
        ),
        "QuantizeLinear .* has a scale or zero point that is computed for each image",
    ),
    "a scale of zero": (layer(s=np.float32(0)), "QuantizeLinear .* has a scale that is not positive"),
    "integers at the output": (
        ("q = QuantizeLinear(x, s, z) y = Identity(q)", {}),
        "gives the model's output, as integers",
    ),
    "arithmetic on integers": (
        ("q = QuantizeLinear(x, s, z) m = Reshape(q, shape) y = DequantizeLinear(m, s, z)",
         {"shape": np.asarray([1, 256])}),
        "Reshape .* reads the integers that QuantizeLinear .* gives",
    ),
    "integers from elsewhere": (
        ("c = Cast<to=2>(x) y = DequantizeLinear(c, s, z)", {}),
        "DequantizeLinear .* reads integers that are not quantised from floats",
    ),
    "a tensor rescaled on the way": (
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s2, z)", {"s2": np.float32(0.06)}),
        "have other scales or zero points",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_quantisation_that_integer_runtimes_do_not_execute_is_refused(what: str, tmp_path: Path) -> None:
    (body, constants), reason = REFUSED[what]
    with pytest.raises(ConversionError, match=reason) as refusal:
        read(file(body, constants, tmp_path), None, "mine")
    assert refusal.value.hint
    assert "\n" not in str(refusal.value)


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    body, constants = layer(z=np.uint16(32768))
    with pytest.raises(ConversionError, match="works on uint16; int8 and uint8 are taken"):
        read(file(body, constants, tmp_path, opset=21), None, "mine")


def test_four_bits_are_refused(tmp_path: Path) -> None:
    body, constants = layer()
    del constants["k"], constants["wz"]
    path = file(body.replace("ws, wz", "ws"), constants, tmp_path, opset=21)
    model = ModelProto.FromString(path.read_bytes())
    model.graph.initializer.append(
        helper.make_tensor("k", TensorProto.INT4, WEIGHT.shape, WEIGHT.flatten() // 16)
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match="works on int4; int8 and uint8 are taken"):
        read(path, None, "mine")


def test_a_scale_for_each_block_is_refused(tmp_path: Path) -> None:
    body, constants = layer(
        axis="<axis=0, block_size=3>",
        ws=np.full((2, 4, 3, 3), 0.01, np.float32),
        wz=np.zeros((2, 4, 3, 3), np.int8),
    )
    with pytest.raises(ConversionError, match="a scale for each block of values"):
        read(file(body, constants, tmp_path, opset=21), None, "mine")


def test_the_operators_of_microsofts_domain_are_onnxs(tmp_path: Path) -> None:
    body, constants = layer()
    body = body.replace("QuantizeLinear(x", "com.microsoft.QuantizeLinear(x").replace(
        "DequantizeLinear(q", "com.microsoft.DequantizeLinear(q"
    )
    taken = read(file(body, constants, tmp_path, extra=', "com.microsoft": 1'), None, "mine").graph
    assert taken.precision == "int8"
    assert {node.domain for node in taken.model.graph} == {""}


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
def test_quantised_files_of_many_opsets_are_read(opset: int, tmp_path: Path) -> None:
    body, constants = layer()
    file_read = read(file(body, constants, tmp_path, opset=opset), None, "mine")
    assert [node.op_type for node in file_read.graph.model.graph] == [
        "QuantizeLinear", "DequantizeLinear", "Conv",
    ]  # fmt: skip
    assert file_read.params == WEIGHT.size
