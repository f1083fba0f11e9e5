"""Float graph and calibration images -> canonical QDQ graph."""

from __future__ import annotations

from edgecnn.data.sets import Images
from edgecnn.graph.graph import Graph
from edgecnn.progress import Progress, silent
from edgecnn.quantize.average import average_pools_as_convs
from edgecnn.quantize.equalize import equalize, pairs
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.ranges import find_ranges
from edgecnn.quantize.rounding import round_weights


def quantize(graph: Graph, images: Images, progress: Progress = silent) -> Graph:
    """Quantise a canonical fp32 graph to int8.

    AveragePool becomes the convolution that it is (``edgecnn.quantize.average``). Weights are put on their
    grid first, so that NNCF calibrates and corrects biases for the very integers that the QDQ graph stores.
    Channels in front of depthwise convolutions are brought to one range (``edgecnn.quantize.equalize``) where
    that works for all of them; where it does not, NNCF gives each tensor one range from the start.

    Args:
        graph: the float graph; it stays as it is.
        images: calibration images (1, C, H, W), iterated more than once and read a few at a time.
        progress: called with a description, the images done and the total.

    Raises:
        ConversionError: an operator that has no int8 form.
    """
    rounded = round_weights(average_pools_as_convs(graph))
    by_channel = bool(pairs(rounded))
    ranges = find_ranges(rounded, images, len(images), progress, by_channel=by_channel)
    return to_qdq(*equalize(rounded, ranges))
