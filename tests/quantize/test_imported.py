"""Files that others have quantised: the same numbers in canonical form, or a reason."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from onnx.parser import parse_model
from onnxruntime import quantization as ort_quantization
from onnxruntime.quantization import QuantType
from torch import nn
from torch.ao import quantization as torch_quantization

from edgecnn.errors import ConversionError, ParityError
from edgecnn.graph.from_onnx import OnnxFile, load_original, read
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.operators import Operator, operators
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.imported import Imported, bring, verify
from edgecnn.quantize.quantize import prepare
from edgecnn.quantize.scheme import Scheme
from tests.networks import filled

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,16,16] x, float[8,3,3,3] w0, float[8] b0, float[8,1,3,3] w1, float[8,8,1,1] w2,
    float[128,10] w3, float[10] b3) => (float[1,10] logits)
    <float zero = {0}, float six = {6}, int64[5] split = {1, 2, 8, 4, 4}, int64[4] merged = {1, 16, 4, 4},
     int64[1] from = {0}, int64[1] to = {8}, int64[1] along = {1}> {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, w0, b0)
    [relu6] r0 = Clip(c0, zero, six)
    [depthwise] c1 = Conv<group=8, kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1)
    [sigmoid] s = Sigmoid(c1)
    [scale] m = Mul(c1, s)
    [project] c2 = Conv<kernel_shape=[1,1]>(m, w2)
    [add] a = Add(r0, c2)
    [relu] r = Relu(a)
    [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    [mean] g = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c1)
    [concat] k = Concat<axis=1>(p, g)
    [split] h = Reshape(k, split)
    [shuffle] t = Transpose<perm=[0,2,1,3,4]>(h)
    [merge] u = Reshape(t, merged)
    [half] v = Slice(u, from, to, along)
    [flatten] f = Flatten(v)
    [classes] y = MatMul(f, w3)
    [bias] logits = Add(y, b3)
}"""
S = {"s": np.float32(0.03), "z": np.uint8(120), "t": np.float32(0.1), "o": np.uint8(0)}


def network() -> ModelProto:
    """The float network above, with random weights."""

    def fill(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
        fan_in = np.prod(shape[1:] if len(shape) == 4 else shape[:1])
        return rng.normal(size=shape) * np.sqrt(2 / fan_in)

    return filled(NETWORK, fill)


def images(shape: tuple[int, ...], count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


class Reader(ort_quantization.CalibrationDataReader):
    """Random images for ONNX Runtime's own quantiser."""

    def __init__(self) -> None:
        self._images = iter(images((1, 3, 16, 16)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image}


def quantize_static(folder: Path, **options: object) -> Path:
    """The network above, quantised by ONNX Runtime."""
    source, path = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(network(), source)
    defaults = {
        "quant_format": ort_quantization.QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    }
    ort_quantization.quantize_static(source, path, Reader(), **(defaults | options))
    return path


def text(body: str, folder: Path, **constants: np.ndarray) -> Path:
    """A file with one input x (1, 4, 8, 8), whose weights and scales are given."""
    model = parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,4,8,8] x) => (float y) {{{body}}}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in (S | constants).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    path = folder / "text.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def brought(path: Path) -> tuple[OnnxFile, Imported]:
    file = read(path, None, "mine")
    return file, bring(file.graph, file.original)


def same_numbers(path: Path, limit: float = 0.0, noise: float = 0.05) -> Imported:
    """Import a file, and compare what the canonical graph gives with what the file does."""
    file, imported = brought(path)
    original, canonical = load_original(file), load_reference(imported.qdq)
    twin = load_reference(imported.graph)
    for image in images(shape_of(imported.qdq.input)):
        expected, got, unrounded = original(image)[0], canonical(image)[0], twin(image)[0]
        assert np.abs(expected - got).max() <= limit
        assert np.square(unrounded - expected).sum() <= noise * np.square(expected).sum()
    in_form(imported.qdq)
    return imported


def in_form(qdq: Graph) -> None:
    """Whether what operators read and write is stored as the canonical form says."""
    assert {node.op_type for node in qdq.model.graph if node.domain} == set()
    names = [node.name for node in qdq.model.graph]
    assert len(names) == len(set(names))
    for operator in operators(qdq):
        for operand in (*operator.inputs, *operator.outputs):
            if operand is None or operand.scale is None:
                continue
            assert operand.zero_point is not None
            if operand.dtype == np.uint8:
                assert operand.scale.size == operand.zero_point.size == 1
            else:
                assert operand.data is not None
                assert not operand.zero_point.any()
                assert operand.axis in (None, 0)
        if (
            operator.op_type in ("Conv", "Gemm")
            and (weight := operator.inputs[1]) is not None
            and weight.scale is not None
        ):
            x, _, bias = operator.inputs
            assert x is not None
            assert bias is not None
            assert (weight.dtype, bias.dtype) == (np.int8, np.int32)
            np.testing.assert_array_equal(bias.scale, x.scale * weight.scale)
        if operator.op_type in ("MaxPool", "Reshape", "Transpose", "Slice", "Flatten"):
            x, result = operator.inputs[0], operator.outputs[0]
            assert x is not None
            assert (x.scale, x.zero_point) == (result.scale, result.zero_point)


def named(qdq: Graph) -> dict[str, Operator]:
    return {operator.name: operator for operator in operators(qdq)}


def floats(imported: Imported) -> set[str]:
    """Conv and Gemm layers that compute in float."""
    return {
        operator.name
        for operator in operators(imported.qdq)
        if operator.op_type in ("Conv", "Gemm") and operator.inputs[1].scale is None  # type: ignore[union-attr]
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_channel": False},
        {"activation_type": QuantType.QInt8},
        {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
        {"reduce_range": True},
        {"extra_options": {"DedicatedQDQPair": True, "UseQDQContribOps": True}},
        {"extra_options": {"AddQDQPairToWeight": True}},
    ],
)
def test_what_onnx_runtime_quantises_gives_the_same_numbers(
    options: dict[str, object], tmp_path: Path
) -> None:
    imported = same_numbers(quantize_static(tmp_path, **options))
    assert not floats(imported)


def test_weights_with_one_scale_a_tensor_keep_it(tmp_path: Path) -> None:
    weight = named(same_numbers(quantize_static(tmp_path, per_channel=False)).qdq)["first"].inputs[1]
    assert weight is not None
    assert weight.axis is None


def test_layers_that_the_file_leaves_in_float_stay_in_float(tmp_path: Path) -> None:
    imported = same_numbers(quantize_static(tmp_path, nodes_to_exclude=["project"]))
    assert floats(imported) == {"project"}
    assert any("1 of 4 layers compute in float" in note and "project" in note for note in imported.notes)


@pytest.fixture(scope="module")
def own() -> Graph:
    model = network()
    graph = canonicalize(Graph(onnx_model(model), "fp32"))
    return prepare(graph, images((1, 3, 16, 16))).qdq(Scheme(float_layers=frozenset({"project"})))


def onnx_model(model: ModelProto) -> object:
    from onnx_ir import serde

    read_in = serde.deserialize_model(model)
    read_in.producer_name = "edgecnn"
    return read_in


def test_edgecnns_own_artifact_comes_back_to_the_bit(own: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(own.serialized)
    file, imported = brought(path)
    assert imported.qdq.serialized == own.serialized
    assert floats(imported) == {"project"}
    check = verify(imported, load_original(file), images((1, 3, 16, 16)))
    assert check.value == 0.0


class Block(nn.Module):
    """A residual block that torch trains with fake quantisation."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch_quantization.QuantStub(), torch_quantization.DeQuantStub()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.add = torch.ao.nn.quantized.FloatFunctional()
        self.pool, self.mean, self.classes = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(self.quant(x))))
        x = self.add.add_relu(x, self.bn2(self.conv2(x)))
        return self.dequant(self.classes(self.mean(self.pool(x)).flatten(1)))


def trained() -> nn.Module:
    """The block after a few steps of quantisation-aware training."""
    fake = torch_quantization.FakeQuantize
    torch.manual_seed(0)
    block = Block().train()
    block.qconfig = torch_quantization.QConfig(
        activation=fake.with_args(
            observer=torch_quantization.MovingAverageMinMaxObserver,
            quant_min=0,
            quant_max=255,
            dtype=torch.quint8,
        ),
        weight=fake.with_args(
            observer=torch_quantization.MovingAveragePerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        ),
    )
    block = torch_quantization.fuse_modules_qat(block, [["conv1", "bn1", "relu1"], ["conv2", "bn2"]])
    block = torch_quantization.prepare_qat(block)
    optimizer = torch.optim.SGD(block.parameters(), 0.05)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(block(torch.randn(8, 3, 16, 16)), torch.randint(10, (8,))).backward()
        optimizer.step()
    return block.eval().apply(torch_quantization.disable_observer)


@pytest.mark.parametrize("converted", [False, True])
def test_torchs_quantisation_aware_training_gives_the_same_numbers(converted: bool, tmp_path: Path) -> None:
    path = tmp_path / "block.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = trained()
        block = torch_quantization.convert(block) if converted else block
        torch.onnx.export(block, (torch.randn(1, 3, 16, 16),), str(path), dynamo=False, opset_version=17)
    imported = same_numbers(path)
    # Fake quantisation leaves what the mean gives in float, and so the layer behind it.
    assert floats(imported) == (set() if converted else {"classes/Gemm"})
    assert any("reach -128" in note for note in imported.notes)


WEIGHT = np.random.default_rng(0).integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
SCALES = np.linspace(0.004, 0.01, 6, dtype=np.float32)
CONV = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear<axis=0>(k, ws, wz)
    [conv] c = Conv<kernel_shape=[3,3]>(d, w, b) """
STORED = {"k": WEIGHT, "ws": SCALES, "wz": np.zeros(6, np.int8)}
BIAS = np.float32(S["s"]) * SCALES * np.asarray([5, -3000, 0, 77, 1, -2], np.float32)


def test_a_relu_that_the_tool_left_out_is_in_the_float_twin(tmp_path: Path) -> None:
    path = text(
        CONV + "r = QuantizeLinear(c, t, o) y = DequantizeLinear(r, t, o)", tmp_path, b=BIAS, **STORED
    )
    imported = same_numbers(path)
    assert [node.op_type for node in imported.graph.model.graph] == ["Conv", "Relu"]


def test_a_clip_to_6_that_the_range_enforces_is_in_the_float_twin(tmp_path: Path) -> None:
    constants = STORED | {"t": np.float32(6 / 255)}
    path = text(
        CONV + "r = QuantizeLinear(c, t, o) y = DequantizeLinear(r, t, o)", tmp_path, b=BIAS, **constants
    )
    imported = same_numbers(path)
    assert [node.op_type for node in imported.graph.model.graph] == ["Conv", "Clip"]


def test_a_relu_that_the_quantisation_enforces_is_dropped(tmp_path: Path) -> None:
    body = CONV + "[relu] a = Relu(c) r = QuantizeLinear(a, t, o) y = DequantizeLinear(r, t, o)"
    imported = same_numbers(text(body, tmp_path, b=BIAS, **STORED))
    assert "Relu" not in {node.op_type for node in imported.qdq.model.graph}


def test_int8_activations_become_uint8(tmp_path: Path) -> None:
    body = CONV + "r = QuantizeLinear(c, t, o) y = DequantizeLinear(r, t, o)"
    constants = STORED | {"z": np.int8(-8), "o": np.int8(3)}
    imported = same_numbers(text(body, tmp_path, b=BIAS, **constants))
    conv = named(imported.qdq)["conv"]
    assert [operand.zero_point.item() for operand in (conv.inputs[0], conv.outputs[0])] == [120, 131]  # type: ignore[union-attr]


def test_biases_in_float_are_rounded_and_that_is_said(tmp_path: Path) -> None:
    body = CONV + "r = QuantizeLinear(c, t, o) y = DequantizeLinear(r, t, o)"
    bias = np.linspace(-0.3, 0.3, 6, dtype=np.float32)
    imported = same_numbers(text(body, tmp_path, b=bias, **STORED), limit=0.101)
    assert any("biases of 1 layers" in note for note in imported.notes)


def test_a_bias_beyond_int32_keeps_its_layer_in_float(tmp_path: Path) -> None:
    body = (
        CONV
        + """r = QuantizeLinear(c, t, o) e = DequantizeLinear(r, t, o)
        v = DequantizeLinear<axis=0>(k2, ws, wz) [second] f = Conv<kernel_shape=[1,1]>(e, v)
        r2 = QuantizeLinear(f, t, z) y = DequantizeLinear(r2, t, z)"""
    )
    k2 = WEIGHT[:, :1].repeat(6, 1)[:, :, :1, :1]
    bias = np.asarray([0, 0, 0, 0, 0, 3e6], np.float32)
    imported = same_numbers(text(body, tmp_path, b=bias, k2=k2, **STORED), noise=np.inf)
    assert floats(imported) == {"conv"}


def test_what_only_moves_values_is_quantised_like_its_neighbours(tmp_path: Path) -> None:
    """Forwards behind a quantised tensor, and backwards in front of one, through Concat too."""
    body = (
        CONV
        + """r = QuantizeLinear(c, t, o) e = DequantizeLinear(r, t, o)
        [pool] p = MaxPool<kernel_shape=[2,2]>(e) [flat] f = Reshape(p, shape)
        v = DequantizeLinear<axis=0>(k2, ws, wz) [second] g = Conv<kernel_shape=[1,1]>(d, v)
        [pool2] h = MaxPool<kernel_shape=[4,4]>(g) [flat2] i = Reshape(h, shape)
        [join] j = Concat<axis=1>(f, i) m = QuantizeLinear(j, u, z) y = DequantizeLinear(m, u, z)"""
    )
    k2 = WEIGHT[:, :, :1, :1]
    constants = STORED | {"k2": k2, "u": np.float32(0.12), "shape": np.asarray([1, -1])}
    imported = same_numbers(text(body, tmp_path, b=BIAS, **constants))
    assert not floats(imported)
    found = named(imported.qdq)
    assert found["second"].outputs[0].scale == np.float32(0.12)
    assert found["flat"].outputs[0].scale == np.float32(0.1)
    assert {operand.scale.item() for operand in found["join"].inputs} == {np.float32(0.12)}  # type: ignore[union-attr]


def test_a_tensor_that_is_quantised_again_is_requantised(tmp_path: Path) -> None:
    """int8 all the way, to another scale for one reader, and once to no effect."""
    body = (
        CONV
        + """r = QuantizeLinear(c, t, i) e = DequantizeLinear(r, t, i)
        r2 = QuantizeLinear(e, u, i) e2 = DequantizeLinear(r2, u, i)
        r3 = QuantizeLinear(e, t, i) e3 = DequantizeLinear(r3, t, i)
        [sum] a = Add(e2, e3) r4 = QuantizeLinear(a, u, i) y = DequantizeLinear(r4, u, i)"""
    )
    constants = STORED | {"i": np.int8(-8), "u": np.float32(0.21)}
    imported = same_numbers(text(body, tmp_path, b=BIAS, **constants))
    quantized = [operator for operator in operators(imported.qdq) if operator.op_type == "QuantizeLinear"]
    assert [operator.outputs[0].scale.item() for operator in quantized] == [
        np.float32(0.03),
        np.float32(0.21),
    ]  # type: ignore[union-attr]


def test_an_activation_alone_may_change_the_scale(tmp_path: Path) -> None:
    body = (
        CONV
        + """r = QuantizeLinear(c, t, z) e = DequantizeLinear(r, t, z)
        [relu] a = Relu(e) r2 = QuantizeLinear(a, u, o) y = DequantizeLinear(r2, u, o)"""
    )
    imported = same_numbers(text(body, tmp_path, b=BIAS, u=np.float32(0.05), **STORED))
    assert [operator.op_type for operator in operators(imported.qdq)] == [
        "QuantizeLinear", "Conv", "Relu", "DequantizeLinear",
    ]  # fmt: skip


def test_batch_norm_between_the_layer_and_its_quantisation_is_folded(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    body = (
        CONV
        + "n = BatchNormalization(c, g, h, m, v) r = QuantizeLinear(n, t, z) y = DequantizeLinear(r, t, z)"
    )
    norm = {
        "g": rng.normal(size=6),
        "h": rng.normal(size=6),
        "m": rng.normal(size=6),
        "v": rng.uniform(1, 2, 6),
    }
    norm = {name: array.astype(np.float32) for name, array in norm.items()}
    imported = same_numbers(text(body, tmp_path, b=BIAS, **STORED, **norm), limit=0.101)
    assert not floats(imported)


def test_channels_of_zeros_keep_their_biases_to_the_bit(tmp_path: Path) -> None:
    stored = STORED | {"k": WEIGHT * (np.arange(6) % 2).astype(np.int8).reshape(-1, 1, 1, 1)}
    body = CONV + "r = QuantizeLinear(c, t, z) y = DequantizeLinear(r, t, z)"
    bias = np.asarray([0.123, 0, -1.7, 0, 0, 0], np.float32)
    same_numbers(text(body, tmp_path, b=bias, **stored))


def test_a_tensor_quantised_in_two_ways_is_refused(tmp_path: Path) -> None:
    body = (
        CONV
        + """r = QuantizeLinear(c, t, z) e = DequantizeLinear(r, t, z)
        r2 = QuantizeLinear(c, s, z) e2 = DequantizeLinear(r2, s, z) y = Add(e, e2)"""
    )
    with pytest.raises(
        ConversionError, match=r"tensor 'conv' is quantised in 2 ways: scale 0\.03 and zero point 120"
    ):
        brought(text(body, tmp_path, b=BIAS, **STORED))


def test_a_file_without_one_layer_in_integers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="none of its layers can compute on integers"):
        brought(text(CONV + "y = Relu(c)", tmp_path, b=BIAS, **STORED))


def test_a_canonical_graph_that_computes_something_else_is_refused(own: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(own.serialized)
    file, imported = brought(path)
    original = load_original(file)
    with pytest.raises(ParityError, match="in the canonical form the quantised file computes something else"):
        verify(imported, lambda x: [original(x)[0][:, ::-1]], images((1, 3, 16, 16)))
    assert replace(imported, notes=()) != imported
