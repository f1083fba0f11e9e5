"""Float graph and calibration images -> canonical QDQ graph."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np

from edgecnn.data.sets import Images
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.progress import Progress, silent
from edgecnn.quantize.average import average_pools_as_convs
from edgecnn.quantize.depthwise import batch_norms_as_convs
from edgecnn.quantize.equalize import equalize, pairs
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.ranges import find_ranges, widest
from edgecnn.quantize.rounding import round_weights

# Networks with trained weights have shown 20 dB and more with NNCF's ranges.
_HEALTHY_DB = 20.0
_JUDGED = 16


def quantize(graph: Graph, images: Images, progress: Progress = silent) -> Graph:
    """Quantise a canonical fp32 graph to int8.

    AveragePool and BatchNormalization become the convolutions that they are (``edgecnn.quantize.average``,
    ``edgecnn.quantize.depthwise``). Weights are put on their grid first, so that calibration sees the very
    integers that the QDQ graph stores. Channels in front of depthwise convolutions are brought to one range
    (``edgecnn.quantize.equalize``) where that works for all of them; where it does not, NNCF gives each
    tensor one range from the start.

    NNCF's ranges leave out what only some images reach. A trained network gains by that (MobileNetV2: 5 dB).
    Where the result is poor, as with random weights, whose images differ in all they compute, ranges that
    hold every value are tried too, and the better graph is given.

    Args:
        graph: the float graph; it stays as it is.
        images: calibration images (1, C, H, W), iterated more than once and read a few at a time.
        progress: called with a description, the images done and the total.

    Raises:
        ConversionError: an operator that has no int8 form.
    """
    rounded = round_weights(batch_norms_as_convs(average_pools_as_convs(graph)))
    made = _convs(rounded) - _convs(graph)
    by_channel = bool(pairs(rounded, made))
    ranges = find_ranges(rounded, images, len(images), progress, by_channel=by_channel)
    equalized = equalize(rounded, ranges, made)
    narrow = to_qdq(equalized, ranges)
    if (reached_db := _sqnr_db(graph, narrow, images)) >= _HEALTHY_DB:
        return narrow
    wide = to_qdq(equalized, widest(equalized, ranges, images, len(images)))
    return wide if _sqnr_db(graph, wide, images) > reached_db else narrow


def _convs(graph: Graph) -> set[str]:
    return {str(node.name) for node in graph.model.graph if node.op_type == "Conv"}


def _sqnr_db(graph: Graph, qdq: Graph, images: Iterable[np.ndarray]) -> float:
    """Signal-to-quantisation-noise ratio of the output on the first calibration images."""
    expected, got = load_reference(graph, fused=True), load_reference(qdq)
    signal = noise = 0.0
    for image in itertools.islice(images, _JUDGED):
        exact = expected(image)[0]
        signal += float(np.square(exact).sum())
        noise += float(np.square(exact - got(image)[0]).sum())
    return 10 * math.log10(signal / noise) if signal and noise else math.inf
