"""Where a classifier looks: the gradient of a class's score with respect to the image.

Simonyan, Vedaldi and Zisserman (2013), "Deep inside convolutional networks" (arXiv 1312.6034), section 3: the
absolute value, and of the channels the largest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from edgecnn.graph.autograd import as_torch
from edgecnn.graph.graph import Graph

Saliency = Callable[[np.ndarray, int], npt.NDArray[np.float32]]


def load_saliency(graph: Graph) -> Saliency:
    """A function from an input (1, C, H, W) and a class to its saliency map (H, W), float32, not negative.

    The score is the class's own, before a Softmax, which would mix in the other classes', and before the
    output is quantised, where the winner's may be cut off.

    Raises:
        ConversionError: operators that have no gradient.
    """
    scores = as_torch(graph, _scores(graph))

    def saliency(image: np.ndarray, index: int) -> npt.NDArray[np.float32]:
        x = torch.from_numpy(image.astype(np.float32)).requires_grad_()
        (gradient,) = torch.autograd.grad(scores(x).reshape(-1)[index], x)
        return gradient.abs()[0].amax(0).numpy()

    return saliency


def _scores(graph: Graph) -> str:
    """The tensor that a Softmax at the end, and the quantisation behind it, read; else the output."""
    value = graph.output
    while (node := value.producer()) is not None and node.op_type in (
        "DequantizeLinear",
        "QuantizeLinear",
        "Softmax",
    ):
        source = node.inputs[0]
        assert source is not None
        value = source
    return str(value.name)
