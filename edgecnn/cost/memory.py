"""Activations in memory: what each operator reads and writes, and what must be kept while it runs.

Assumed: a schedule in the graph's order; no operator works in place; Reshape and Flatten are views, which
neither move nor allocate anything; Concat, Slice, Transpose and Pad copy. Weights, workspaces and caches are
not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecnn.graph.operators import Operand, Operator

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
COPIES = frozenset({"Concat", "Slice", "Transpose", "Pad"})


def activations(op: Operator) -> list[Operand]:
    """The tensors that an operator reads and that are not constants, each once."""
    found = {operand.name: operand for operand in op.inputs if operand is not None and operand.data is None}
    return list(found.values())


def traffic(op: Operator) -> tuple[int, int]:
    """How many values an operator reads and how many it writes, each tensor counted once."""
    if op.op_type in VIEWS:
        return 0, 0
    written = sum(math.prod(operand.shape) for operand in op.outputs)
    if op.op_type == "Slice":
        return written, written
    return sum(math.prod(operand.shape) for operand in activations(op)), written


def live_values(ops: Sequence[Operator], source: str, result: str) -> list[int]:
    """How many values are in memory while each operator runs.

    A tensor is there from the operator that writes it to the last that reads it, both included: the
    network's input from the start to its last reader, its output to the end.

    Args:
        ops: in execution order.
        source: name of the network's input.
        result: name of the network's output.
    """
    buffers = {source: source}
    sizes, first, last = {source: 0}, {source: 0}, {source: 0}
    for index, op in enumerate(ops):
        for operand in activations(op):
            buffer = buffers[operand.name]
            last[buffer] = index
            if operand.name == source:
                sizes[source] = math.prod(operand.shape)
        for operand in op.outputs:
            if op.op_type in VIEWS:
                buffers[operand.name] = buffers[activations(op)[0].name]
                continue
            buffers[operand.name] = operand.name
            sizes[operand.name] = math.prod(operand.shape)
            first[operand.name] = last[operand.name] = index
    last[buffers[result]] = len(ops) - 1
    return list(_running_sum(sizes, first, last, len(ops)))


def _running_sum(
    sizes: dict[str, int], first: dict[str, int], last: dict[str, int], steps: int
) -> Iterator[int]:
    change = [0] * (steps + 1)
    for name, size in sizes.items():
        change[first[name]] += size
        change[last[name] + 1] -= size
    live = 0
    for step in range(steps):
        live += change[step]
        yield live
