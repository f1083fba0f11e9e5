"""What int8 does to the layers and the answers of one small classifier."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import onnx_ir.serde
import pytest

from edgecnn import layer_noise as layers_module
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.layer_noise import Layer, measure_layers
from edgecnn.quantize.quantize import Prepared, prepare
from edgecnn.report.explain import LAYER_IMAGES, explain
from edgecnn.report.pictures import MOST, NARROW, blurred, compare_answers
from edgecnn.report.saliency import load_saliency
from edgecnn.spec import Preprocess
from tests.networks import canonical

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
small (float[1,3,16,16] x, float[8,3,3,3] w0, float[8] b0, float[8,1,3,3] w1, float[8,8,1,1] w2,
    float[5,8] w3) => (float[1,5] logits) <float zero = {0}, float six = {6}> {
    [first] c0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
    r0 = Clip(c0, zero, six)
    [depthwise] c1 = Conv<group=8, kernel_shape=[3,3], pads=[1,1,1,1]>(r0, w1)
    r1 = Relu(c1)
    [project] c2 = Conv<kernel_shape=[1,1]>(r1, w2)
    [sum] a = Add(r0, c2)
    [pool] g = GlobalAveragePool(a)
    [flat] f = Flatten(g)
    [classes] logits = Gemm<transB=1>(f, w3)
}"""
# The same with a Softmax behind it.
WITH_SOFTMAX = NETWORK.replace("(float[1,5] logits)", "(float[1,5] shares)").replace(
    "(f, w3)\n", "(f, w3) shares = Softmax(logits)\n"
)
RECIPE = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-2, 2, size=(1, 3, 16, 16)).astype(np.float32) for _ in range(count)]


@functools.cache
def prepared(text: str = NETWORK) -> Prepared:
    return prepare(canonical(text), images(16))


def measured(count: int = 3, **scheme: object) -> dict[str, Layer]:
    calibrated = prepared()
    qdq = calibrated.qdq(replace(calibrated.scheme, **scheme))
    return {layer.name: layer for layer in measure_layers(calibrated.graph, qdq, images(count, seed=1))}


def test_layers_come_in_order_with_their_noise() -> None:
    layers = measured(1)
    assert list(layers) == ["first", "depthwise", "project", "sum", "pool", "flat", "classes"]
    assert layers["first"].shape == (1, 8, 16, 16)
    [image] = images(1, seed=1)
    [exact] = load_reference(prepared().graph, ["project"])(image)
    [got] = load_reference(prepared().qdq(), ["project:dequantized"])(image)
    of_project = 10 * math.log10(np.square(exact).sum() / np.square(exact - got).sum())
    assert layers["project"].sqnr_db == pytest.approx(of_project, abs=1e-3)
    below = layers["first"].sqnr_db - layers["depthwise"].sqnr_db
    assert layers["depthwise"].lost_db == pytest.approx(below)
    assert layers["first"].lost_db == 0


def test_noise_is_that_of_all_images_together() -> None:
    one, other, both = (
        next(iter(measure_layers(prepared().graph, prepared().qdq(), some)))
        for some in (images(2, seed=1)[:1], images(2, seed=1)[1:], images(2, seed=1))
    )
    assert min(one.sqnr_db, other.sqnr_db) < both.sqnr_db < max(one.sqnr_db, other.sqnr_db)


def test_ranges_are_what_the_integers_hold() -> None:
    layers = measured()
    held = layers["project"].range
    assert held is not None
    assert held.low < 0 < held.high
    assert (held.high - held.low) / 255 == pytest.approx(
        held.high / round(255 * held.high / (held.high - held.low))
    )
    held = layers["depthwise"].range
    assert held is not None
    assert held.reached_low == held.low == 0, "what a Relu would cut off was not there to be lost"


def test_values_beyond_the_range_are_counted() -> None:
    graph, some = prepared().graph, images(2)
    model = prepared().qdq().copy()
    tensor = next(str(node.outputs[0].name) for node in graph.model.graph if node.name == "project")
    scale = model.graph.initializers[f"{tensor}:scale"]
    halved = float(scale.const_value.numpy()) / 2
    scale.const_value = onnx_ir.tensor(np.float32(halved), name=scale.name)
    layers = {layer.name: layer for layer in measure_layers(graph, Graph(model, "int8"), some)}
    held = layers["project"].range
    assert held is not None
    values = np.concatenate([load_reference(graph, [tensor])(image)[0] for image in some])
    assert held.reached_high == pytest.approx(values.max(), rel=0.1)
    assert held.reached_low == pytest.approx(values.min(), rel=0.1)
    beyond = float(((values > held.high) | (values < held.low)).mean())
    assert beyond > 0.02
    assert held.cut_off == pytest.approx(beyond, rel=0.1)
    assert layers["project"].lost_db > 5


def test_mixed_graphs_say_what_each_layer_computes_in() -> None:
    layers = measured(float_layers=frozenset({"project"}))
    assert layers["project"].form == "float"
    assert layers["project"].range is None
    assert layers["first"].form == layers["classes"].form == "int8"
    assert measured(weight_bits=7)["classes"].form == "int8, 7-bit weights"
    assert layers["project"].sqnr_db >= measured()["project"].sqnr_db


def test_a_last_layer_in_float() -> None:
    layers = measured(float_layers=frozenset({"classes"}))
    assert layers["classes"].form == "float"
    assert math.isfinite(layers["classes"].sqnr_db)


def test_layers_may_be_run_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = measured()
    monkeypatch.setattr(layers_module, "_VALUES", 3000)
    assert measured() == at_once


def test_where_no_class_changes_the_nearest_are_shown() -> None:
    graph, some = prepared().graph, images(12, seed=2)
    gallery = compare_answers(graph, graph, some, [str(i) for i in range(12)], "images", RECIPE, None)
    assert (gallery.kept.hits, gallery.kept.images) == (12, 12)
    scores = [np.sort(load_reference(graph)(image)[0][0])[::-1] for image in some]
    nearest = sorted(range(12), key=lambda i: scores[i][0] - scores[i][1])[:NARROW]
    assert [picture.name for picture in gallery.pictures] == [str(i) for i in nearest]
    assert not any(picture.changed for picture in gallery.pictures)
    assert all(picture.alike == pytest.approx(1) for picture in gallery.pictures)


def test_images_whose_class_changed_come_with_both_answers() -> None:
    calibrated = prepared()
    model = calibrated.graph.copy()
    weight = model.graph.initializers["classes.weight"]
    turned = weight.const_value.numpy()[[1, 2, 3, 4, 0]]
    weight.const_value = onnx_ir.tensor(turned, name=weight.name)
    other, some = Graph(model, "fp32"), images(12, seed=2)
    labels = ("ant", "bee", "cat", "dog")  # one is missing
    gallery = compare_answers(
        calibrated.graph, other, some, [str(i) for i in range(12)], "images", RECIPE, labels
    )
    assert gallery.kept.hits < 12
    assert 1 <= len(gallery.pictures) <= MOST
    margins = [picture.margin_steps for picture in gallery.pictures]
    assert margins == sorted(margins, reverse=True), "the surest come first"
    for picture in gallery.pictures:
        scores = load_reference(calibrated.graph)(some[int(picture.name)])[0][0]
        assert picture.changed
        assert picture.fp32.index == scores.argmax()
        assert picture.fp32.label == (*labels, "class 4")[picture.fp32.index]
        exponents = np.exp(scores - scores.max())
        assert picture.fp32.share == pytest.approx(float(exponents.max() / exponents.sum()), rel=1e-4)
        assert picture.int8.index == load_reference(other)(some[int(picture.name)])[0][0].argmax()
        shown = (some[int(picture.name)][0] * 0.25 + 0.5) * 255
        np.testing.assert_allclose(picture.pixels.transpose(2, 0, 1), np.clip(shown, 0, 255), atol=0.51)


def test_saliency_is_the_largest_absolute_gradient_of_the_channels() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    linear (float[1,3,4,4] x, float[2,48] w) => (float[1,2] y) {
        f = Flatten(x) [scores] y = Gemm<transB=1>(f, w) }"""
    graph = canonical(text)
    weight = graph.model.graph.initializers["scores.weight"].const_value.numpy().reshape(2, 3, 4, 4)
    saliency = load_saliency(graph)(np.ones((1, 3, 4, 4), np.float32), 1)
    np.testing.assert_allclose(saliency, np.abs(weight[1]).max(0), rtol=1e-5)


def test_saliency_is_taken_before_a_softmax() -> None:
    x = images(1, seed=4)[0]
    plain, through = load_saliency(canonical(NETWORK))(x, 2), load_saliency(canonical(WITH_SOFTMAX))(x, 2)
    np.testing.assert_allclose(plain, through, rtol=1e-5)
    quantized = load_saliency(prepared(WITH_SOFTMAX).qdq())(x, 2)
    assert np.corrcoef(quantized.reshape(-1), plain.reshape(-1))[0, 1] > 0.75


def test_blur_keeps_the_sum_and_spreads_a_grain() -> None:
    grain = np.zeros((224, 224), np.float32)
    grain[100, 50] = 1
    spread = blurred(grain)
    assert spread.shape == grain.shape
    assert spread.sum() == pytest.approx(1, rel=1e-4)
    assert 0.01 < spread.max() < 0.1
    assert np.unravel_index(spread.argmax(), spread.shape) == (100, 50)
    small = grain[90:118, 40:68]
    np.testing.assert_array_equal(blurred(small), small)


def test_untrained_networks_and_feature_maps_have_no_answers() -> None:
    calibrated, some = prepared(), images(5, seed=1)
    names = [str(i) for i in range(5)]
    told = explain(calibrated.graph, calibrated.qdq(), some, names, "images", RECIPE, None)
    assert told.gallery is not None
    assert told.layer_images == LAYER_IMAGES
    untrained = explain(
        calibrated.graph, calibrated.qdq(), some, names, "images", RECIPE, None, trained=False
    )
    assert untrained.gallery is None
    assert untrained.layers == told.layers
    maps = canonical(
        '<ir_version: 8, opset_import: ["" : 17]> maps (float[1,3,16,16] x, float[4,3,3,3] w) => '
        "(float[1,4,14,14] y) { y = Conv<kernel_shape=[3,3]>(x, w) }"
    )
    qdq = prepare(maps, images(4)).qdq()
    assert explain(maps, qdq, some, names, "images", RECIPE, None).gallery is None
