"""A quantised .onnx file as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model

from edgecnn.source.load import load
from edgecnn.source.request import make_request

NETWORK = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,3,16,16] x) => (float[1,6] y) {
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear<axis=0>(k, ws, wz)
    [conv] c = Conv<kernel_shape=[3,3]>(d, w, b) r = QuantizeLinear(c, t, o) e = DequantizeLinear(r, t, o)
    [mean] g = GlobalAveragePool(e) m = QuantizeLinear(g, u, o) n = DequantizeLinear(m, u, o) y = Flatten(n)
}"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = parse_model(NETWORK)
    rng = np.random.default_rng(0)
    constants = {
        "k": rng.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8),
        "ws": np.linspace(0.003, 0.006, 6, dtype=np.float32),
        "wz": np.zeros(6, np.int8),
        "b": np.zeros(6, np.float32),
        "s": np.float32(0.02),
        "z": np.int8(-9),
        "t": np.float32(0.03),
        "o": np.int8(-128),
        "u": np.float32(0.005),
    }
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    path = tmp_path / "quantized.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_network_has_the_integers_of_its_file_and_a_float_twin(file: Path) -> None:
    network = load(make_request(file))
    assert network.qdq is not None
    assert network.imported is not None
    assert (network.qdq.precision, network.graph.precision) == ("int8", "fp32")
    assert (network.imported.value, network.imported.top1_agreement) == (0.0, 1.0)
    assert [node.op_type for node in network.graph.model.graph] == [
        "Conv", "Relu", "GlobalAveragePool", "Flatten",
    ]  # fmt: skip
    assert network.notes
    assert network.params == 6 * 27 + 6


def test_a_float_file_has_no_integers(file: Path, tmp_path: Path) -> None:
    network = load(make_request(file))
    (tmp_path / "float.onnx").write_bytes(network.graph.serialized)
    again = load(make_request(tmp_path / "float.onnx"))
    assert again.qdq is None
    assert again.imported is None
    assert again.graph.precision == "fp32"
