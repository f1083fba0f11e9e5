"""The receptive field of each operator's output: how much of the image, how far apart, from where on.

Along one axis a window of k taps, dilated by d, with stride s and p elements of padding in front, that reads
elements with fields of size r, stride j and first centre c, gives

    size r + (k - 1) * d * j,  stride j * s,  first centre c + ((k - 1) * d / 2 - p) * j

(Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019,
doi:10.23915/distill.00021). Where branches meet, the field is the shortest that holds all of theirs. Matrix
products and windows that cover a whole map depend on everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgecnn.cost.layers import PER_ELEMENT, window
from edgecnn.cost.memory import activations
from edgecnn.cost.values import Extent, ReceptiveField

if TYPE_CHECKING:
    from edgecnn.graph.operators import Operator

_POINTWISE = frozenset({*PER_ELEMENT, "Clip", "LRN", "Concat", "Softmax"})
_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose"})


class _Seen(NamedTuple):
    """The fields of a tensor's elements."""

    height: Extent
    width: Extent
    map: tuple[int, ...]
    """The height and width that the fields' strides belong to."""

    @property
    def everything(self) -> bool:
        return self.height.everything and self.width.everything


def receptive_fields(
    ops: Sequence[Operator], source: str, shape: tuple[int, ...]
) -> list[ReceptiveField | None]:
    """The field of each operator's output elements; None where it cannot be told.

    Args:
        ops: in execution order.
        source: name of the network's input.
        shape: of that input, NCHW; without height and width nothing has a field.
    """
    if len(shape) != 4:
        return [None] * len(ops)
    sides = shape[2:]
    seen: dict[str, _Seen | None] = {source: _Seen(Extent(1, 1, 0.5), Extent(1, 1, 0.5), sides)}
    fields: list[ReceptiveField | None] = []
    for op in ops:
        found = _through(op, [seen[operand.name] for operand in activations(op)], sides)
        for operand in op.outputs:
            seen[operand.name] = found
        fields.append(None if found is None else ReceptiveField(found.height, found.width))
    return fields


def _through(op: Operator, inputs: list[_Seen | None], sides: tuple[int, ...]) -> _Seen | None:
    """The fields of an operator's output, from those of what it reads."""
    known = [seen for seen in inputs if seen is not None]
    if not known or len(known) < len(inputs):
        return None
    shape = op.outputs[0].shape
    if op.op_type in ("Gemm", "GlobalAveragePool") or any(seen.everything for seen in known):
        return _Seen(_whole(sides[0]), _whole(sides[1]), shape[2:])
    if op.op_type in _MOVES:
        return known[0]
    if op.op_type == "ReduceMean":
        return _mean(op, known[0], sides)
    if op.op_type in _POINTWISE:
        return _union(known) if _stays_in_place(op) else None
    x, steps = op.inputs[0], _steps(op)
    if x is None or steps is None or len(x.shape) != 4 or x.shape[2:] != known[0].map:
        return None
    height, width = (
        _step(extent, step, inputs, outputs, side)
        for extent, step, inputs, outputs, side in zip(
            (known[0].height, known[0].width), steps, x.shape[2:], shape[2:], sides, strict=True
        )
    )
    return _Seen(height, width, shape[2:])


def _mean(op: Operator, seen: _Seen, sides: tuple[int, ...]) -> _Seen | None:
    """The fields behind a ReduceMean that keeps its axes."""
    shape = op.outputs[0].shape
    if len(shape) != 4 or not op.attributes.get("keepdims", 1) or "axes" not in op.attributes:
        return None
    axes = [axis % 4 for axis in op.attributes["axes"]]
    height = _whole(sides[0]) if 2 in axes else seen.height
    width = _whole(sides[1]) if 3 in axes else seen.width
    return _Seen(height, width, shape[2:])


def _stays_in_place(op: Operator) -> bool:
    """Whether each output element depends only on elements at the same place of the map."""
    if op.op_type not in ("Concat", "Softmax"):
        return True
    return int(op.attributes.get("axis", -1)) % len(op.outputs[0].shape) <= 1


def _union(branches: list[_Seen]) -> _Seen | None:
    """The shortest fields that hold those of every branch; None where the branches' maps differ."""
    first, *others = branches
    strides = (first.height.stride_px, first.width.stride_px)
    if any((b.map, (b.height.stride_px, b.width.stride_px)) != (first.map, strides) for b in others):
        return None
    return _Seen(_hull([b.height for b in branches]), _hull([b.width for b in branches]), first.map)


def _hull(extents: list[Extent]) -> Extent:
    if whole := [extent for extent in extents if extent.everything]:
        return whole[0]
    begin = min(extent.first_centre_px - extent.size_px / 2 for extent in extents)
    end = max(extent.first_centre_px + extent.size_px / 2 for extent in extents)
    return Extent(round(end - begin), extents[0].stride_px, (begin + end) / 2)


class _Step(NamedTuple):
    """How an operator walks over one axis of its input."""

    span: int
    """Distance between the window's first and last tap."""
    stride: int
    before: int
    """Elements of padding in front; negative where it leaves the first ones out."""


def _steps(op: Operator) -> tuple[_Step, _Step] | None:
    """The walk along height and width; None for an operator whose walk is not known."""
    if (found := window(op)) is not None:
        height, width = (
            _Step((taps - 1) * gap, stride, before) for taps, stride, gap, before in zip(*found, strict=True)
        )
        return height, width
    if op.op_type == "Pad":
        amounts = _constant(op, 1)
        return None if len(amounts) != 8 else (_Step(0, 1, amounts[2]), _Step(0, 1, amounts[3]))
    if op.op_type == "Slice":
        return _slice_steps(op)
    return None


def _slice_steps(op: Operator) -> tuple[_Step, _Step] | None:
    x = op.inputs[0]
    starts = _constant(op, 1)
    axes = _constant(op, 3) or list(range(len(starts)))
    strides = _constant(op, 4) or [1] * len(starts)
    if x is None or not starts or min(strides) < 1:
        return None
    walk = {2: _Step(0, 1, 0), 3: _Step(0, 1, 0)}
    for start, axis, stride in zip(starts, axes, strides, strict=True):
        axis %= len(x.shape)
        walk[axis] = _Step(0, stride, -max(0, start + x.shape[axis] if start < 0 else start))
    return walk[2], walk[3]


def _step(extent: Extent, step: _Step, inputs: int, outputs: int, side: int) -> Extent:
    """One axis of a field, seen through one operator."""
    if extent.everything or (step.span >= inputs - 1 > 0 and outputs == 1):
        return _whole(side)
    centre = extent.first_centre_px + (step.span / 2 - step.before) * extent.stride_px
    return Extent(extent.size_px + step.span * extent.stride_px, extent.stride_px * step.stride, centre)


def _whole(side: int) -> Extent:
    return Extent(side, side, side / 2, everything=True)


def _constant(op: Operator, position: int) -> list[int]:
    """The integers of a constant input, none where it is absent or computed."""
    operand = op.inputs[position] if position < len(op.inputs) else None
    return [] if operand is None or operand.data is None else [int(v) for v in operand.data.tolist()]
