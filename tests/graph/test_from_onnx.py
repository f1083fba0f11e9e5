"""Users' .onnx files: what is taken in, with the numbers kept, and what is refused, in one line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.parser import parse_model

from edgecnn.errors import ConfigError, ConversionError, EdgeCNNError
from edgecnn.graph.from_onnx import OnnxFile, load_original, read
from edgecnn.graph.graph import shape_of
from edgecnn.graph.reference import load_onnx, load_reference

OPSETS = range(9, 23)
IR_VERSIONS = {
    9: 4,
    10: 5,
    11: 6,
    12: 7,
    13: 7,
    14: 7,
    15: 8,
    16: 8,
    17: 8,
    18: 8,
    19: 9,
    20: 9,
    21: 10,
    22: 10,
}


def model(
    body: str,
    opset: int = 17,
    *,
    x: str = "float[1,4,8,8]",
    y: str = "float[N]",
    weights: dict[str, tuple[int, ...]] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    extra: str = "",
) -> ModelProto:
    """A model from ONNX's text form, with random weights of the shapes given."""
    head = f'<ir_version: {IR_VERSIONS[opset]}, opset_import: ["" : {opset}{extra}]>'
    parsed = parse_model(f"{head} g ({x} x) => ({y} y) {{{body}}}")
    rng = np.random.default_rng(0)
    for name, shape in (weights or {}).items():
        array = rng.uniform(0.2, 1.0, shape) * rng.choice([-1, 1], shape)
        parsed.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for name, array in (constants or {}).items():
        parsed.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    if y == "float[N]":  # of any rank: the files state what they like, and are not believed
        parsed.graph.output[0].type.tensor_type.ClearField("shape")
    return parsed


def saved(proto: ModelProto, folder: Path) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def same_numbers(proto: ModelProto, folder: Path, shape: tuple[int, ...] | None = None) -> OnnxFile:
    """Read a file, and compare what the canonical graph computes with what the untouched file does."""
    path = saved(proto, folder)
    file = read(path, shape, "mine")
    image = np.random.default_rng(1).normal(size=shape_of(file.graph.input)).astype(np.float32)
    got = load_reference(file.graph)(image)[0]
    for serialized in (path.read_bytes(), file.original):
        expected = load_onnx(serialized, fused=False)(image)[0]
        assert got.shape == expected.shape
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-5 * float(np.abs(expected).max()))
    return file


def operators(file: OnnxFile) -> list[str]:
    return [node.op_type for node in file.graph.model.graph]


INT64 = np.int64
# For each operator whose form has changed: the body by the first opset that has it so, with its constants.
FORMS: dict[str, dict[int, tuple[str, dict[str, np.ndarray]]]] = {
    "clip": {
        9: ("y = Clip<min=-0.5, max=0.5>(x)", {}),
        11: ("y = Clip(x, low, high)", {"low": np.float32(-0.5), "high": np.float32(0.5)}),
    },
    "clip above": {
        9: ("y = Clip<max=0.5>(x)", {}),
        11: ("y = Clip(x, , high)", {"high": np.float32(0.5)}),
    },
    "pad": {
        9: ("y = Pad<pads=[0,0,1,2,0,0,2,1], value=0.5>(x)", {}),
        11: ("y = Pad(x, pads, value)", {"pads": INT64([0, 0, 1, 2, 0, 0, 2, 1]), "value": np.float32(0.5)}),
        18: (
            "y = Pad(x, pads, value, axes)",
            {"pads": INT64([1, 2, 2, 1]), "value": np.float32(0.5), "axes": INT64([2, -1])},
        ),
    },
    "slice": {
        9: ("y = Slice<axes=[1,3], starts=[1,-3], ends=[3,9999]>(x)", {}),
        10: (
            "y = Slice(x, starts, ends, axes, steps)",
            {
                "starts": INT64([1, -3]),
                "ends": INT64([3, 9999]),
                "axes": INT64([1, 3]),
                "steps": INT64([1, 2]),
            },
        ),
    },
    "dropout": {
        9: ("a = Relu(x) b = Dropout<ratio=0.3>(a) y = Neg(b)", {}),
        10: ("a = Relu(x) b, unused = Dropout<ratio=0.3>(a) y = Neg(b)", {}),
        12: (
            "a = Relu(x) b, unused = Dropout(a, ratio, training) y = Neg(b)",
            {"ratio": np.float32(0.3), "training": np.bool_(False)},
        ),
        13: ("a = Relu(x) b = Dropout(a) y = Neg(b)", {}),
    },
    "split": {
        9: ("a, b = Split<axis=1, split=[1,3]>(x) c = Relu(a) y = Concat<axis=1>(b, c)", {}),
        13: (
            "a, b = Split<axis=1>(x, split) c = Relu(a) y = Concat<axis=1>(b, c)",
            {"split": INT64([1, 3])},
        ),
    },
    "split into equal parts": {
        9: ("a, b = Split<axis=1>(x) c = Relu(a) y = Concat<axis=1>(b, c)", {}),
        18: ("a, b = Split<axis=1, num_outputs=2>(x) c = Relu(a) y = Concat<axis=1>(b, c)", {}),
    },
    "split into unequal parts": {
        18: ("a, b, c = Split<axis=2, num_outputs=3>(x) d = Relu(c) y = Concat<axis=-2>(d, b, a)", {}),
    },
    "squeeze and unsqueeze": {
        9: (
            "a = GlobalAveragePool(x) b = Squeeze<axes=[2,3]>(a) c = Unsqueeze<axes=[2]>(b) y = Relu(c)",
            {},
        ),
        13: (
            "a = GlobalAveragePool(x) b = Squeeze(a, two) c = Unsqueeze(b, one) y = Relu(c)",
            {"two": INT64([2, 3]), "one": INT64([2])},
        ),
    },
    "mean": {
        9: ("a = ReduceMean<axes=[2,3], keepdims=0>(x) y = Relu(a)", {}),
        18: ("a = ReduceMean<keepdims=0>(x, axes) y = Relu(a)", {"axes": INT64([2, 3])}),
    },
    "mean that keeps its axes": {
        9: ("a = ReduceMean<axes=[-1,-2]>(x) y = Relu(a)", {}),
        18: ("a = ReduceMean<noop_with_empty_axes=0>(x, axes) y = Relu(a)", {"axes": INT64([-1, -2])}),
    },
    "mean of everything": {
        9: ("a = ReduceMean(x) y = Relu(a)", {}),
        18: ("a = ReduceMean(x, axes) y = Relu(a)", {"axes": INT64([])}),
    },
    "group norm": {
        21: (
            "y = GroupNormalization<num_groups=2>(x, s, b)",
            {"s": np.float32([1, 2, 3, 4]), "b": np.float32([3, 4, 5, 6])},
        ),
    },
    "sum over channels": {
        9: ("a = ReduceSum<axes=[1]>(x) y = Relu(a)", {}),
        13: ("a = ReduceSum(x, axes) y = Relu(a)", {"axes": INT64([1])}),
    },
    "softmax over all that follows": {
        # Until opset 12 everything from the axis on was one distribution.
        9: ("y = Softmax(x)", {}),
        13: ("a = Flatten(x) b = Softmax(a) y = Reshape(b, shape)", {"shape": INT64([1, 4, 8, 8])}),
    },
    "softmax of logits": {
        9: ("a = GlobalAveragePool(x) b = Flatten(a) y = Softmax<axis=1>(b)", {}),
        13: ("a = GlobalAveragePool(x) b = Flatten(a) y = Softmax(b)", {}),
    },
    "upsample, nearest": {
        9: ('y = Upsample<mode="nearest">(x, scales)', {"scales": np.float32([1, 1, 2, 3])}),
        10: ('y = Resize<mode="nearest">(x, scales)', {"scales": np.float32([1, 1, 2, 3])}),
        11: (
            'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">'
            "(x, roi, scales)",
            {"scales": np.float32([1, 1, 2, 3]), "roi": np.float32([])},
        ),
        18: (
            'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor", '
            'antialias=0, keep_aspect_ratio_policy="stretch">(x, , , sizes)',
            {"sizes": INT64([1, 4, 16, 24])},
        ),
    },
    "upsample, linear": {
        9: ('y = Upsample<mode="linear">(x, scales)', {"scales": np.float32([1, 1, 2, 2])}),
        10: ('y = Resize<mode="linear">(x, scales)', {"scales": np.float32([1, 1, 2, 2])}),
        11: (
            'y = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, roi, scales)',
            {"scales": np.float32([1, 1, 2, 2]), "roi": np.float32([])},
        ),
    },
    "cast": {
        9: ("a = Cast<to=7>(x) b = Cast<to=1>(a) y = Relu(b)", {}),
        19: ("a = Cast<to=7>(x) b = Cast<to=1, saturate=1>(a) y = Relu(b)", {}),
    },
    "pools": {
        9: (
            "a = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x) "
            "b = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1], count_include_pad=1>(a) y = Relu(b)",
            {},
        ),
        10: (
            "a = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, dilations=[1,1]>(x) "
            "b = AveragePool<kernel_shape=[2,2], ceil_mode=1, strides=[2,2]>(a) y = Relu(b)",
            {},
        ),
        19: ("a = AveragePool<kernel_shape=[2,2], dilations=[1,1]>(x) y = Relu(a)", {}),
    },
    "hard sigmoid": {9: ("a = HardSigmoid<alpha=0.166667, beta=0.5>(x) y = Mul(x, a)", {})},
    "hard swish": {14: ("y = HardSwish(x)", {})},
    "mish": {18: ("y = Mish(x)", {})},
    "gelu": {20: ("y = Gelu(x)", {})},
    "gelu, by tanh": {20: ('y = Gelu<approximate="tanh">(x)', {})},
    "lrn": {9: ("y = LRN<size=3, alpha=0.1, beta=0.75, bias=2.0>(x)", {})},
    "shape arithmetic": {
        9: (
            "s = Shape(x) n = Gather<axis=0>(s, zero) m = Unsqueeze<axes=[0]>(n) "
            "t = Concat<axis=0>(m, minus) a = Relu(x) y = Reshape(a, t)",
            {"zero": INT64(0), "minus": INT64([-1])},
        ),
        13: (
            "s = Shape(x) n = Gather<axis=0>(s, zero) m = Unsqueeze(n, axis) "
            "t = Concat<axis=0>(m, minus) a = Relu(x) y = Reshape(a, t)",
            {"zero": INT64(0), "minus": INT64([-1]), "axis": INT64([0])},
        ),
        15: (
            "n = Shape<end=1>(x) t = Concat<axis=0>(n, minus) a = Relu(x) y = Reshape(a, t)",
            {"minus": INT64([-1])},
        ),
    },
    "number of elements": {
        9: ("s = Size(x) f = Cast<to=1>(s) y = Div(x, f)", {}),
    },
    "channel shuffle": {
        9: (
            "a = Reshape(x, five) b = Transpose<perm=[0,2,1,3,4]>(a) y = Reshape(b, four)",
            {"five": INT64([1, 2, 2, 8, 8]), "four": INT64([0, -1, 8, 8])},
        ),
    },
    "constants": {
        9: (
            "c = ConstantOfShape<value=float[1] {0.5}>(shape) d = Add(c, three) y = Mul(x, d)",
            {"shape": INT64([1, 4, 1, 1]), "three": np.float32(3)},
        ),
    },
}
CASES = [
    pytest.param(opset, *forms[max(first for first in forms if first <= opset)], id=f"{name}-{opset}")
    for name, forms in FORMS.items()
    for opset in OPSETS
    if opset >= min(forms)
]


@pytest.mark.parametrize(("opset", "body", "constants"), CASES)
def test_every_form_of_an_operator_gives_the_same_numbers(
    opset: int, body: str, constants: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file = same_numbers(model(body, opset, constants=constants), tmp_path)
    assert file.graph.model.opset_imports == {"": 17}
    assert (file.graph.input.name, file.graph.output.name) == ("x", "y")


CONVOLUTIONS = {
    "grouped": ("y = Conv<group=2, kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)", (6, 2, 3, 3)),
    "dilated": ("y = Conv<kernel_shape=[3,3], dilations=[2,2], strides=[2,1]>(x, w, b)", (6, 4, 3, 3)),
    "depthwise": ("y = Conv<group=4>(x, w, b)", (4, 1, 3, 3)),
    "same, upper": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w, b)', (6, 4, 4, 3)),
    "same, lower": ('y = Conv<auto_pad="SAME_LOWER", strides=[3,2]>(x, w, b)', (6, 4, 4, 2)),
    "valid": ('y = Conv<auto_pad="VALID", strides=[2,2]>(x, w, b)', (6, 4, 3, 3)),
}


@pytest.mark.parametrize("opset", [9, 11, 17, 22])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str, opset: int, tmp_path: Path) -> None:
    body, shape = CONVOLUTIONS[kind]
    file = same_numbers(model(body, opset, weights={"w": shape, "b": shape[:1]}), tmp_path)
    [conv] = file.graph.model.graph
    assert "auto_pad" not in conv.attributes
    assert file.params == np.prod(shape) + shape[0]


@pytest.mark.parametrize("opset", [9, 11, 17, 22])
@pytest.mark.parametrize("rule", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_pools_padded_by_rule(pool: str, rule: str, opset: int, tmp_path: Path) -> None:
    file = same_numbers(
        model(
            f'y = {pool}<auto_pad="{rule}", kernel_shape=[3,2], strides=[2,2]>(x)', opset, x="float[1,4,7,9]"
        ),
        tmp_path,
    )
    assert all("auto_pad" not in node.attributes for node in file.graph.model.graph)


NORMALIZED = "a = Conv(x, w) n = BatchNormalization<epsilon=0.01{extra}>(a, s, b, m, v) y = Relu(n)"
NORMALIZED_WEIGHTS = {"w": (6, 4, 3, 3), "s": (6,), "b": (6,), "m": (6,)}
VARIANCE = {"v": np.float32([0.5, 1, 1.5, 2, 2.5, 3])}


@pytest.mark.parametrize("opset", OPSETS)
def test_batch_norm_left_in(opset: int, tmp_path: Path) -> None:
    body = NORMALIZED.format(extra=", momentum=0.8" + (", training_mode=0" if opset >= 14 else ""))
    file = same_numbers(model(body, opset, weights=NORMALIZED_WEIGHTS, constants=VARIANCE), tmp_path)
    # The weights, scale and bias; mean and variance are measured.
    assert file.params == 6 * 4 * 9 + 6 + 6


@pytest.mark.parametrize("opset", [9, 13, 17, 20])
def test_a_dense_layer_of_matmul_and_add(opset: int, tmp_path: Path) -> None:
    body = "g = GlobalAveragePool(x) f = Flatten(g) p = MatMul(f, w) y = Add(p, b)"
    file = same_numbers(model(body, opset, weights={"w": (4, 5), "b": (5,)}), tmp_path)
    assert operators(file)[-1] == "Gemm"
    assert file.params == 25


def test_a_dense_layer_whose_weight_is_transposed(tmp_path: Path) -> None:
    body = "f = Flatten(x) t = Transpose(w) y = MatMul(f, t)"
    file = same_numbers(model(body, 13, weights={"w": (5, 256)}), tmp_path)
    assert operators(file)[-1] == "Gemm"
    assert file.params == 5 * 256


def test_weights_that_normalise_the_image_are_not_learned(tmp_path: Path) -> None:
    mean = np.float32([0.4, 0.5, 0.6, 0.7]).reshape(1, 4, 1, 1)
    body = "c = Sub(x, mean) d = Div(c, std) a = Conv(d, w) y = Relu(a)"
    file = same_numbers(
        model(body, weights={"w": (6, 4, 1, 1)}, constants={"mean": mean, "std": mean / 2}), tmp_path
    )
    assert file.params == 6 * 4 + 4


@pytest.mark.parametrize("opset", [9, 12, 17, 21])
def test_weights_as_constant_nodes(opset: int, tmp_path: Path) -> None:
    proto = model("a = Conv(x, w, b) y = Relu(a)", opset, weights={"w": (6, 4, 5, 5), "b": (6,)})
    for tensor in proto.graph.initializer:
        proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del proto.graph.initializer[:]
    assert same_numbers(proto, tmp_path).params == 606


def test_weights_listed_as_inputs(tmp_path: Path) -> None:
    proto = model("a = Conv(x, w, b) y = Relu(a)", 9, weights={"w": (6, 4, 5, 5), "b": (6,)})
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.insert(0, helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 6, 4, 4]))
    file = same_numbers(proto, tmp_path)
    assert [value.name for value in file.graph.model.graph.inputs] == ["x"]


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    proto = model("a = Relu(x) b = Neg(a) y = Abs(b)")
    ordered = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(ordered))
    assert operators(same_numbers(proto, tmp_path)) == ["Relu", "Neg", "Abs"]


def test_functions_of_the_model_are_opened(tmp_path: Path) -> None:
    proto = model("a = mine.Twice(x) y = Relu(a)", extra=', "mine": 1')
    proto.functions.append(
        onnx.parser.parse_function(
            '<opset_import: ["" : 17], domain: "mine"> Twice (a) => (b) {b = Add(a, a)}'
        )
    )
    assert operators(same_numbers(proto, tmp_path)) == ["Add", "Relu"]


class Shuffling(torch.nn.Module):
    """What exporters make of sizes that a network asks for: arithmetic on shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.dense = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        x = x[:, channels // 2 :]
        x = torch.nn.functional.pad(x, (1, 0, 1, 0))
        return torch.as_tensor(self.dense(x.mean((2, 3))))


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_what_torch_exports(opset: int, folded: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Shuffling().eval(), tmp_path / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, 4, 8, 8),),
            str(path),
            dynamo=False,
            opset_version=opset,
            do_constant_folding=folded,
            training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
            dynamic_axes={"x": {0: "N", 2: "H", 3: "W"}},
            input_names=["x"],
        )
    file = read(path, (1, 4, 10, 12), "mine")
    image = np.random.default_rng(0).normal(size=(1, 4, 10, 12)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.as_tensor(image)).numpy()
    for run in (load_original(file), load_reference(file.graph)):
        assert run(image)[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    # The exporter folds batch norm, whose scale and bias then are no parameters of their own.
    assert file.params == sum(p.numel() for p in module.parameters()) - (16 if folded else 0)


def test_an_unused_branch_is_dropped(tmp_path: Path) -> None:
    assert operators(same_numbers(model("unused = Neg(x) y = Relu(x)"), tmp_path)) == ["Relu"]


@pytest.mark.parametrize("dim", ["N", "batch", "?", "0", "-1"])
def test_a_dynamic_batch_is_one(dim: str, tmp_path: Path) -> None:
    proto = model("a = Relu(x) y = Flatten(a)", x="float[N,4,8,8]")
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    first.Clear()
    if dim.lstrip("-").isdigit():
        first.dim_value = int(dim)
    elif dim != "?":
        first.dim_param = dim
    # ONNX Runtime takes a 0 by its word.
    file = same_numbers(proto, tmp_path) if dim != "0" else read(saved(proto, tmp_path), None, "mine")
    assert shape_of(file.graph.input) == (1, 4, 8, 8)
    assert file.notes == ()


def test_other_dynamic_dimensions_are_stated(tmp_path: Path) -> None:
    proto = model("a = Conv(x, w) y = Flatten(a)", x="float[N,4,H,W]", weights={"w": (6, 4, 3, 3)})
    file = same_numbers(proto, tmp_path, (1, 4, 10, 12))
    assert shape_of(file.graph.output) == (1, 6 * 8 * 10)
    with pytest.raises(ConfigError, match=r"input 'x' has dynamic dimensions: \(N, 4, H, W\)") as caught:
        read(saved(proto, tmp_path), None, "mine")
    assert caught.value.hint == "state its shape, such as --input-shape 1,4,224,224"


def test_an_input_without_any_shape(tmp_path: Path) -> None:
    proto = model("y = Relu(x)")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert shape_of(same_numbers(proto, tmp_path, (1, 3, 4, 5)).graph.input) == (1, 3, 4, 5)
    with pytest.raises(ConfigError, match=r"\(\?, \?, \?, \?\)"):
        read(saved(proto, tmp_path), None, "mine")


@pytest.mark.parametrize("shape", [None, (1, 8, 10, 3)])
def test_channels_last_become_first(shape: tuple[int, ...] | None, tmp_path: Path) -> None:
    given = "float[1,8,10,3]" if shape is None else "float[N,H,W,3]"
    proto = model(
        "t = Transpose<perm=[0,3,1,2]>(x) a = Conv(t, w) y = Flatten(a)", x=given, weights={"w": (6, 3, 3, 3)}
    )
    path = saved(proto, tmp_path)
    file = read(path, shape, "mine")
    assert shape_of(file.graph.input) == (1, 3, 8, 10)
    assert operators(file) == ["Conv", "Flatten"]
    assert file.notes == ("the file's input is NHWC, (1, 8, 10, 3); the compiled one is NCHW",)
    image = np.random.default_rng(0).normal(size=(1, 3, 8, 10)).astype(np.float32)
    expected = load_onnx(path.read_bytes(), fused=False)(image.transpose(0, 2, 3, 1))[0]
    assert load_onnx(file.original, fused=False)(image)[0] == pytest.approx(expected)
    assert load_reference(file.graph)(image)[0] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def half(proto: ModelProto) -> ModelProto:
    """The model with its weights in half precision."""
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def test_half_precision_weights_behind_a_cast(tmp_path: Path) -> None:
    proto = half(model("c = Cast<to=1>(w) a = Conv(x, c) y = Relu(a)", weights={"w": (6, 4, 3, 3)}))
    file = same_numbers(proto, tmp_path)
    assert operators(file) == ["Conv", "Relu"]
    assert file.params == 216


def test_half_precision_throughout_is_widened(tmp_path: Path) -> None:
    proto = half(model("a = Conv(x, w) y = Relu(a)", x="float16[1,4,8,8]", weights={"w": (6, 4, 3, 3)}))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    path = saved(proto, tmp_path)
    file = read(path, None, "mine")
    assert file.notes == ("half precision was widened to float32, with the values that the file has",)
    image = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    expected = load_onnx(path.read_bytes(), fused=False)(image.astype(np.float16))[0]
    for run in (load_onnx(file.original, fused=False), load_reference(file.graph)):
        assert run(image)[0].dtype == np.float32
        assert run(image)[0] == pytest.approx(expected.astype(np.float32), rel=1e-2, abs=1e-2)


def test_what_is_recorded_of_a_file(tmp_path: Path) -> None:
    path = saved(model("y = Relu(x)"), tmp_path)
    file = read(path, None, "mine")
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.original == path.read_bytes()
    assert file.graph.model.graph.name == "mine"
    assert file.graph.serialized == read(path, None, "mine").graph.serialized


def test_what_the_file_says_of_its_maker_does_not_enter_the_graph(tmp_path: Path) -> None:
    proto = model("y = Relu(x)")
    proto.producer_name, proto.doc_string = "somewhere", "/home/someone"
    proto.graph.doc_string = proto.graph.node[0].doc_string = "/home/someone"
    helper.set_model_props(proto, {"path": "/home/someone"})
    serialized = read(saved(proto, tmp_path), None, "mine").graph.serialized
    assert b"some" not in serialized


# Refusals


def refused(path: Path, shape: tuple[int, ...] | None = None) -> EdgeCNNError:
    """The one error that reading raises: one line, with a hint."""
    with pytest.raises(EdgeCNNError) as caught:
        read(path, shape, "mine")
    assert type(caught.value) in (ConfigError, ConversionError)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def with_training(proto: ModelProto) -> ModelProto:
    proto.graph.node[1].output.extend(["mean", "var"])
    return proto


def poisoned(value: float) -> ModelProto:
    proto = model("a = Conv(x, w) y = Relu(a)", weights={"w": (6, 4, 3, 3)})
    array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[0, 0, 0, 1] = value
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))
    return proto


def edited(body: str, edit: Callable[[ModelProto], object], **weights: tuple[int, ...]) -> ModelProto:
    proto = model(body, weights=weights)
    edit(proto)
    return proto


def resize(proto: ModelProto, size: int) -> None:
    """State another number of output channels than the weight's data have."""
    proto.graph.initializer[0].dims[0] = size


def spoil_text(proto: ModelProto) -> None:
    proto.graph.node[0].attribute[0].s = b"\xff"


WEIGHT = (6, 4, 3, 3)
FLAT = helper.make_tensor_value_info("other", TensorProto.FLOAT, [1])
SCALES = {"s": np.float32(1), "z": np.uint8(0)}
REFUSED = {
    "too old": (
        edited("y = Relu(x)", lambda m: setattr(m.opset_import[0], "version", 8)),
        "has opset 8; 9 to 22 are taken",
    ),
    "too new": (
        edited("y = Relu(x)", lambda m: setattr(m.opset_import[0], "version", 23)),
        "has opset 23; 9 to 22 are taken",
    ),
    "no opset of ONNX's own": (
        edited("y = Relu(x)", lambda m: setattr(m.opset_import[0], "domain", "mine")),
        "states no opset of ONNX's own operators",
    ),
    "operators unknown": (
        model("a = Rleu(x) b = com.corp.Fuse(a) c = com.corp.Fuse(b) y = Relu(c)", extra=', "com.corp": 1'),
        "does not define, or with control flow or random numbers: 1 x Rleu, 2 x com.corp.Fuse",
    ),
    "operators that are gone": (
        model('y = Upsample<mode="nearest">(x, s)', 11, constants={"s": np.float32([1, 1, 2, 2])}),
        "opset 11 does not define.*1 x Upsample",
    ),
    "operators to come": (model("y = HardSwish(x)", 13), "opset 13 does not define.*1 x HardSwish"),
    "control flow": (
        model(
            "y = If<then_branch=a() => (float[1,4,8,8] t) {t=Neg(x)}, else_branch=b() => (float[1,4,8,8] e) "
            "{e=Abs(x)}>(c)",
            constants={"c": np.bool_(True)},
        ),
        "1 x If",
    ),
    "random numbers": (model("r = RandomNormalLike(x) y = Add(x, r)"), "1 x RandomNormalLike"),
    "what would end the process: parts that are not there": (
        model("a, b, c = Split<num_outputs=2>(x) y = Relu(a)", 18),
        "not valid ONNX: Split into 2 parts has 3 outputs",
    ),
    "what would end the process: an input left out": (
        edited("y = Max(x)", lambda m: m.graph.node[0].input.append("")),
        "not valid ONNX: Max lacks its input 'data_0'",
    ),
    "text that is none": (
        edited('y = MaxPool<auto_pad="VALID", kernel_shape=[2,2]>(x)', spoil_text),
        "is not an ONNX model, or is truncated",
    ),
    "an output that is the same for every image": (
        model("a = Relu(w) y = Neg(a)", weights={"w": (1, 4)}),
        "output does not depend on its input",
    ),
    "an empty tensor": (
        model("y = Slice(x, n, n, n)", constants={"n": INT64([1])}),
        r"tensor 'y' of shape \[1,0,8,8\] is empty",
    ),
    "an image beyond all use": (
        model("y = Relu(x)", x="float[1,3,30000,30000]"),
        r"tensor 'x' of shape \[1,3,30000,30000\] is empty, or too large",
    ),
    "quantised operators": (
        model("y = com.microsoft.QLinearAdd(x, x)", extra=', "com.microsoft": 1'),
        "operators that one runtime alone has: 1 x com.microsoft.QLinearAdd",
    ),
    "quantised for each image": (
        model("a, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(a, s, z)"),
        "quantised dynamically, with scales computed for each image: 1 x DynamicQuantizeLinear",
    ),
    "two inputs": (
        edited("y = Relu(x)", lambda m: m.graph.input.append(FLAT)),
        r"2 inputs \('x', 'other'\)",
    ),
    "no input": (edited("y = Relu(x)", lambda m: m.graph.ClearField("input")), "0 inputs"),
    "two outputs": (
        edited(
            "other = Neg(x) y = Relu(x)",
            lambda m: m.graph.output.append(FLAT),
        ),
        r"2 outputs \('y', 'other'\)",
    ),
    "uint8 input": (
        model("a = Cast<to=1>(x) y = Relu(a)", x="uint8[1,4,8,8]"),
        "input 'x' is of type uint8; an image .* of float32 is taken",
    ),
    "double input": (model("y = Relu(x)", x="double[1,4,8,8]"), "input 'x' is of type double"),
    "a vector": (model("y = Relu(x)", x="float[1,4]"), r"input 'x' has 2 dimensions \(1, 4\)"),
    "a batch": (model("y = Relu(x)", x="float[2,4,8,8]"), "a batch of 2"),
    "channels last, and used so": (
        model("y = Relu(x)", x="float[1,224,224,3]"),
        "seems to have its channels last",
    ),
    "training, batch norm": (
        model(NORMALIZED.format(extra=", training_mode=1"), weights=NORMALIZED_WEIGHTS),
        "BatchNormalization .* is in training mode",
    ),
    "training, batch norm of old": (
        with_training(model(NORMALIZED.format(extra=""), 9, weights=NORMALIZED_WEIGHTS)),
        "BatchNormalization .* is in training mode",
    ),
    "training, dropout": (
        model("y = Dropout(x, r, t)", 13, constants={"r": np.float32(0.5), "t": np.bool_(True)}),
        "Dropout .* is in training mode",
    ),
    "NaN": (poisoned(np.nan), "tensor 'w' holds 1 values that are NaN or infinite"),
    "infinity": (poisoned(np.inf), "tensor 'w' holds 1 values"),
    "too little data": (
        edited(
            "a = Conv(x, w) y = Relu(a)",
            lambda m: m.graph.initializer[0].dims.__setitem__(0, 7),
            w=(6, 4, 3, 3),
        ),
        r"data of tensor 'w' do not match its shape \(7, 4, 3, 3\)",
    ),
    "negative sizes": (
        edited(
            "a = Conv(x, w) y = Relu(a)",
            lambda m: m.graph.initializer[0].dims.__setitem__(0, -1),
            w=(6, 4, 3, 3),
        ),
        "data of tensor 'w' do not match",
    ),
    "names given twice, of weights": (
        edited(
            "a = Conv(x, w) y = Relu(a)",
            lambda m: m.graph.initializer.append(m.graph.initializer[0]),
            w=(6, 4, 3, 3),
        ),
        "1 tensor names given twice, 'w'",
    ),
    "names given twice, of nodes": (
        edited("a = Neg(x) b = Abs(x) y = Add(a, b)", lambda m: m.graph.node[1].output.__setitem__(0, "a")),
        "1 tensor names given twice, 'a'",
    ),
    "sparse weights": (
        edited("a = Conv(x, w) y = Relu(a)", lambda m: m.graph.sparse_initializer.add(), w=WEIGHT),
        "sparse tensors",
    ),
    "a cycle": (
        model("a = Add(x, b) b = Neg(a) y = Relu(b)"),
        "the graph has a cycle through (Add|Neg)",
    ),
    "a missing tensor": (
        edited("y = Relu(x)", lambda m: m.graph.node[0].input.__setitem__(0, "nothing")),
        r"Relu \(node 'y'\) takes 'nothing', which nothing gives",
    ),
    "attributes that do not exist": (model("y = Relu<alpha=1.0>(x)"), "not valid ONNX: .*alpha"),
    "shapes that do not fit": (
        model("y = Add(x, w)", weights={"w": (6, 3, 3, 3)}),
        "shapes do not fit together",
    ),
    "a shape that depends on the image": (
        model("n = NonZero(x) a = Transpose(n) b = Cast<to=1>(a) y = Relu(b)"),
        "no static shape",
    ),
    "a newer rule of Resize": (
        model(
            'y = Resize<antialias=1, mode="linear">(x, , s)',
            18,
            constants={"s": np.float32([1, 1, 0.5, 0.5])},
        ),
        "Resize .* attribute 'antialias', which opset 17 cannot express",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, tmp_path: Path) -> None:
    proto, message = REFUSED[what]
    assert isinstance(proto, ModelProto)
    error = refused(saved(proto, tmp_path))
    assert isinstance(error, ConversionError)
    assert re.search(message, str(error)), str(error)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 8, 9), r"input 'x' has shape \(1, 4, 8, 8\), which 1,4,8,9 contradicts"),
        ((4, 8, 8), "four positive sizes, not 4,8,8"),
        ((1, 1, 4, 8, 8), "four positive sizes, not 1,1,4,8,8"),
        ((1, 4, 0, 8), "four positive sizes, not 1,4,0,8"),
        ((1, 4, -8, 8), "four positive sizes, not 1,4,-8,8"),
    ],
)
def test_an_input_shape_that_cannot_be(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    error = refused(saved(model("y = Relu(x)"), tmp_path), shape)
    assert isinstance(error, ConfigError)
    assert re.search(message, str(error))
    assert "--input-shape 1,4,8,8" in str(error.hint)


def test_a_batch_that_was_asked_for(tmp_path: Path) -> None:
    assert "a batch of 2" in str(
        refused(saved(model("y = Relu(x)", x="float[N,4,8,8]"), tmp_path), (2, 4, 8, 8))
    )


def test_a_network_that_does_not_run(tmp_path: Path) -> None:
    error = refused(saved(model("y = Conv(x, w)", weights={"w": (6, 3, 3, 3)}), tmp_path))
    assert "has weights (6, 3, 3, 3) for an input (1, 4, 8, 8)" in str(error)
    assert "--input-shape" in str(error.hint)


def test_what_onnx_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    file = read(saved(model("y = Relu(x)"), tmp_path), None, "mine")
    with pytest.raises(ConversionError, match=r"ONNX Runtime cannot run the model: .") as caught:
        load_original(file)(np.zeros((1, 3, 8, 8), np.float32))
    assert "\n" not in str(caught.value)


# Files


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "none.onnx", "there is no file")):
        error = refused(path)
        assert isinstance(error, ConfigError)
        assert message in str(error)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "not a regular file" in str(refused(tmp_path / "pipe.onnx"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a checkpoint", "is not an ONNX model, or is truncated"),
        (b"\x00" * 1000, "is not an ONNX model, or is truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)
def test_files_that_hold_no_model(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(data)
    error = refused(path)
    assert isinstance(error, ConversionError)
    assert message in str(error)


def network() -> ModelProto:
    """A small network with most of what files hold: an old form, constants, batch norm, shape arithmetic."""
    body = (
        "a = Conv<pads=[1,1,1,1]>(x, w) n = BatchNormalization(a, s, b, m, v) c = Clip<min=0.0, max=6.0>(n) "
        "d = Dropout(c) g = GlobalAveragePool(d) t = Shape(g) z = Constant<value=int64 {0}>() "
        "k = Gather(t, z) u = Unsqueeze<axes=[0]>(k) i = Constant<value=int64[1] {-1}>() "
        "r = Concat<axis=0>(u, i) f = Reshape(g, r) p = MatMul(f, w2) q = Add(p, b2) y = Softmax(q)"
    )
    weights = NORMALIZED_WEIGHTS | {"w2": (6, 5), "b2": (5,)}
    return model(body, 9, x="float[N,4,8,8]", weights=weights, constants=VARIANCE)


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    data, path = network().SerializeToString(), tmp_path / "network.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path)


def test_damaged_bytes_give_an_error_or_a_network_that_can_be_checked(tmp_path: Path) -> None:
    data, path = network().SerializeToString(), tmp_path / "network.onnx"
    rng, image = np.random.default_rng(0), np.zeros((1, 4, 8, 8), np.float32)
    for _ in range(400):
        damaged = bytearray(data)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ConfigError, ConversionError):
            file = read(path, None, "mine")
            load_original(file)(image)


def with_data_beside(folder: Path) -> tuple[Path, ModelProto]:
    """A model whose weight lies in ``weights.bin``, and the model as the file has it."""
    path = folder / "network.onnx"
    proto = model("a = Conv(x, w, b) y = Relu(a)", weights={"w": (6, 4, 3, 3), "b": (6,)})
    onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path, onnx.load_model(path, load_external_data=False)


def point_to(proto: ModelProto, path: Path, **entries: str) -> None:
    """Change what the model says of where its first tensor lies."""
    for entry in proto.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())


def test_external_data_are_taken_in(tmp_path: Path) -> None:
    path, _ = with_data_beside(tmp_path)
    file, image = read(path, None, "mine"), np.ones((1, 4, 8, 8), np.float32)
    (tmp_path / "weights.bin").unlink()
    whole = model("a = Conv(x, w, b) y = Relu(a)", weights={"w": (6, 4, 3, 3), "b": (6,)})
    expected = load_onnx(whole.SerializeToString(), fused=False)(image)[0]
    for run in (load_original(file), load_reference(file.graph)):
        assert run(image)[0] == pytest.approx(expected, rel=1e-5)


def test_external_data_in_a_folder_below_and_behind_a_link_that_stays_inside(tmp_path: Path) -> None:
    path, proto = with_data_beside(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "data" / "moved.bin")
    (tmp_path / "weights.bin").symlink_to(tmp_path / "data" / "moved.bin")
    point_to(proto, path, location="data/moved.bin")
    assert read(path, None, "mine").params == 222


def test_external_data_that_are_missing_or_too_short(tmp_path: Path) -> None:
    path, proto = with_data_beside(tmp_path)
    whole = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(whole[:-1])
    assert re.search("end beyond 'weights.bin'", str(refused(path)))
    (tmp_path / "weights.bin").unlink()
    assert re.search("'w' are missing: there is no file .*weights.bin", str(refused(path)))
    (tmp_path / "weights.bin").mkdir()
    assert "not in a regular file" in str(refused(path))
    (tmp_path / "weights.bin").rmdir()
    (tmp_path / "weights.bin").write_bytes(whole)
    for entries in ({"offset": "1" + "0" * 12}, {"offset": "-4"}, {"length": "5"}, {"offset": "many"}):
        point_to(proto, path, **entries)
        assert "external data of 'w'" in str(refused(path))
        point_to(proto, path, offset="0", length=str(6 * 4 * 9 * 4))
    assert read(path, None, "mine").params == 222


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../secret.bin", "a/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", "", "."],
)
def test_external_data_outside_the_folder_are_not_opened(location: str, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path, proto = with_data_beside(tmp_path / "inside")
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    point_to(proto, path, location=location)
    assert re.search("outside the model's folder|not in a regular file", str(refused(path)))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_folder_are_not_followed(what: str, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path, proto = with_data_beside(tmp_path / "inside")
    (tmp_path / "inside" / "weights.bin").rename(tmp_path / "weights.bin")
    if what == "file":
        (tmp_path / "inside" / "weights.bin").symlink_to("../weights.bin")
    else:
        (tmp_path / "inside" / "data").symlink_to(tmp_path)
        point_to(proto, path, location="data/weights.bin")
    assert "behind a link out of the model's folder" in str(refused(path))


def test_more_than_two_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    path, proto = with_data_beside(tmp_path)
    proto.graph.initializer[0].dims[0] = 2**26
    with (tmp_path / "weights.bin").open("r+b") as stream:
        stream.truncate(2**34)  # a hole: no disk space
    point_to(proto, path, offset="0", length=str(2**26 * 4 * 9 * 4))
    assert "the model has 9.0 GB; models up to 2 GB are taken" in str(refused(path))
    with path.open("r+b") as stream:
        stream.truncate(2**31)
    assert "the model has 2.0 GB" in str(refused(path))
