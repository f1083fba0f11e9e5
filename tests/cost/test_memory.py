"""What is in memory while each operator runs."""

from __future__ import annotations

from collections.abc import Callable

from edgecnn.cost import Bytes, Costs

CountText = Callable[..., Costs]
MAP = "float[1,2,4,4] x"  # 32 values


def live(costs: Costs) -> list[int]:
    return [layer.live.int8 for layer in costs.layers]


def test_a_chain_keeps_an_input_and_an_output(count_text: CountText) -> None:
    costs = count_text(MAP, "a = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) b = Tanh(a) y = Tanh(b)")
    assert live(costs) == [32 + 8, 8 + 8, 8 + 8]
    assert costs.peak_layer.op_type == "MaxPool"
    assert costs.peak_layer.live == Bytes(fp32=4 * 40, int8=40)


def test_nothing_works_in_place(count_text: CountText) -> None:
    assert live(count_text(MAP, "y = Sigmoid(x)")) == [64]


def test_a_shortcut_is_kept(count_text: CountText) -> None:
    costs = count_text(MAP, "a = Tanh(x) b = Sigmoid(a) c = Tanh(b) y = Add(a, c)")
    assert live(costs) == [64, 64, 96, 96]
    assert costs.peak_layer.op_type == "Tanh"
    assert costs.layers.index(costs.peak_layer) == 2


def test_the_network_input_is_kept_to_its_last_use(count_text: CountText) -> None:
    assert live(count_text(MAP, "a = Tanh(x) b = Tanh(a) y = Add(b, x)")) == [64, 96, 96]


def test_branches_wait_for_their_concat(count_text: CountText) -> None:
    costs = count_text(
        MAP,
        "a = Tanh(x) b = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) c = Sigmoid(a) "
        "y = Concat<axis=1>(b, c)",
    )
    assert live(costs) == [64, 64, 96, 128]
    concat = costs.layers[-1]
    assert (concat.read.int8, concat.written.int8) == (64, 64)


def test_views_move_and_allocate_nothing_but_keep_their_source(count_text: CountText) -> None:
    costs = count_text(MAP, "a = Flatten(x) b = Tanh(a) c = Tanh(b) y = Add(c, a)")
    assert [layer.op_type for layer in costs.layers] == ["Flatten", "Tanh", "Tanh", "Add"]
    assert live(costs) == [32, 64, 96, 96]
    assert (costs.layers[0].read, costs.layers[0].written) == (Bytes(0, 0), Bytes(0, 0))


def test_an_output_that_is_a_view_lives_to_the_end(count_text: CountText) -> None:
    assert live(count_text(MAP, "a = Tanh(x) y = Flatten(a)")) == [64, 32]


def test_copies_are_counted(count_text: CountText) -> None:
    transpose = count_text(MAP, "t = Transpose<perm=[0,2,3,1]>(x) y = Tanh(t)").layers[0]
    assert (transpose.read.int8, transpose.written.int8, transpose.live.int8) == (32, 32, 64)
    body = "b = Constant<value_ints=[1]>() e = Constant<value_ints=[2]>() s = Slice(x, b, e, b) y = Tanh(s)"
    [cut, _] = count_text(MAP, body).layers
    assert (cut.read.int8, cut.written.int8, cut.live.int8) == (16, 16, 48)


def test_one_tensor_read_twice_is_read_once(count_text: CountText) -> None:
    [layer] = count_text(MAP, "y = Mul(x, x)").layers
    assert (layer.read.int8, layer.live.int8) == (32, 64)
