"""Channel shuffles, which a graph writes as Reshape, Transpose and Reshape (ShuffleNet, arXiv 1707.01083).

Between them the channels' axis is split in two. In TFLite's layout that axis is the last: taken one by one
the three would need a transposition to ONNX's layout and one back.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgecnn.graph.operators import Operator

_REARRANGES = frozenset({"Reshape", "Flatten", "Transpose"})


def merged(operators: Sequence[Operator]) -> list[Operator]:
    """The operators with each channel shuffle as one, a ``ChannelShuffle`` with the attribute ``groups``."""
    readers = Counter(
        operand.name for operator in operators for operand in operator.inputs if operand is not None
    )
    result: list[Operator] = []
    position = 0
    while position < len(operators):
        chain = operators[position : position + 3]
        groups = _groups(chain) if _is_chain(chain, readers) else None
        if groups is None:
            result.append(operators[position])
            position += 1
        else:
            head, last = chain[0], chain[-1]
            result.append(
                Operator("ChannelShuffle", head.name, head.inputs[:1], last.outputs, {"groups": groups})
            )
            position += len(chain)
    return result


def _is_chain(chain: Sequence[Operator], readers: Counter[str]) -> bool:
    """Whether three operators only rearrange feature maps, each read by the next alone."""
    if len(chain) != 3 or [operator.op_type in _REARRANGES for operator in chain] != [True] * 3:
        return False
    x, result = chain[0].inputs[0], chain[-1].outputs[0]
    if x is None or len(x.shape) != 4 or x.shape != result.shape or x.shape[0] != 1:
        return False
    return all(
        following.inputs[0] is not None
        and following.inputs[0].name == operator.outputs[0].name
        and readers[operator.outputs[0].name] == 1
        for operator, following in itertools.pairwise(chain)
    )


def _groups(chain: Sequence[Operator]) -> int | None:
    """The groups of the shuffle that three rearrangements make of feature maps; None where they make none."""
    x = chain[0].inputs[0]
    assert x is not None
    channels, pixels = x.shape[1], math.prod(x.shape[2:])
    places = np.arange(channels * pixels, dtype=np.int32).reshape(x.shape)
    for operator in chain:
        if operator.op_type == "Transpose":
            places = places.transpose(operator.attributes.get("perm"))
        places = places.reshape(operator.outputs[0].shape)
    moved = places.reshape(channels, pixels)
    order = moved[:, 0] // pixels
    if channels < 2 or order[1] < 1 or channels % order[1]:
        return None
    groups = channels // int(order[1])
    shuffled = np.arange(channels * pixels, dtype=np.int32).reshape(groups, -1, pixels).swapaxes(0, 1)
    return groups if np.array_equal(shuffled.reshape(channels, pixels), moved) else None
