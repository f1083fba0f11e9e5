"""What every activation tensor of a float graph holds on the calibration images, collected in one pass.

Every choice of ranges, corrected biases and equalised channels follows from these numbers, so that schemes
are compared without running the network again. Memory grows by two numbers a tensor and image.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from edgecnn.data.sets import Images
from edgecnn.errors import ConversionError, DataError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.progress import Progress, silent
from edgecnn.quantize.groups import WEIGHTED, scale_groups
from edgecnn.quantize.histogram import Histogram

# Of each tensor so many values an image go into its histogram: 4 in 10 000 of them lie beyond the range of a
# percentile, and 100 images give a tensor half a million.
_SAMPLES = 4096
_LEAST_SAMPLES = 2**19
_WORKERS = 2


@dataclass(frozen=True)
class Channels:
    """A tensor's channels (axis 1), each over all images; arrays of length C, float64."""

    low: np.ndarray = field(repr=False)
    """Lowest values."""
    high: np.ndarray = field(repr=False)
    """Highest values."""
    mean: np.ndarray = field(repr=False)
    """Mean values."""


@dataclass(frozen=True)
class TensorStatistics:
    """One activation tensor on the calibration images."""

    lows: np.ndarray = field(repr=False)
    """Lowest value on each image, (images,), float64."""
    highs: np.ndarray = field(repr=False)
    """Highest value on each image, (images,), float64."""
    histogram: Histogram = field(repr=False)
    """How its values are spread, from a sample of those of each image."""
    channels: Channels | None
    """Of tensors (1, C, H, W) and (1, C); None for others."""


Statistics = dict[str, TensorStatistics]
"""By the names of the float graph's tensors."""


@dataclass(frozen=True)
class Collected:
    """Statistics of calibration images, and some of the images to judge by."""

    everything: Statistics = field(repr=False)
    """Of all images."""
    unseen: Statistics = field(repr=False)
    """Of those that are not in ``judges``; of all where no other image is."""
    judges: tuple[np.ndarray, ...] = field(repr=False)
    """The images that were put aside, (1, C, H, W)."""


def collect(
    graph: Graph, images: Images, progress: Progress = silent, aside: Collection[int] = ()
) -> Collected:
    """Run a float graph on images, each (1, C, H, W), and count what its tensors hold.

    Args:
        graph: canonical, fp32.
        images: read once, one after the other; a few are in memory at a time.
        progress: called with a description, the images done and the total.
        aside: positions of the images to judge by.

    Raises:
        ConversionError: an operator without an int8 form, or a tensor that is not finite.
        DataError: there is no image.
    """
    names = _tensors(graph)
    source = str(graph.input.name)
    taps = [name for name in names if name != source]
    run = load_reference(graph, taps, fused=True)
    samples = max(_SAMPLES, -(-_LEAST_SAMPLES // max(len(images), 1)))
    judges: list[np.ndarray] = []

    def measure(index: int, image: np.ndarray) -> list[_Total]:
        arrays = dict(zip(taps, run(image), strict=True)) | {source: image}
        return [_of_image(name, arrays[name], samples, index) for name in names]

    def read() -> Iterator[np.ndarray]:
        for index, image in enumerate(images):
            if index in aside:
                judges.append(image)
            yield image

    seen: list[_Total] = []
    unseen: list[_Total] = []
    for index, found in enumerate(_in_order(measure, read())):
        totals = unseen if index in aside else seen
        totals[:] = [total.plus(new) for total, new in zip(totals, found, strict=True)] if totals else found
        progress("calibrating", index + 1, len(images))
    if not seen and not unseen:
        raise DataError("there is no image to calibrate on")
    every = (
        [one.plus(two) for one, two in zip(seen, unseen, strict=True)] if seen and unseen else seen or unseen
    )
    return Collected(_results(names, every), _results(names, seen or every), tuple(judges))


def _results(names: list[str], totals: list[_Total]) -> Statistics:
    return {name: total.result() for name, total in zip(names, totals, strict=True)}


def _tensors(graph: Graph) -> list[str]:
    """Tensors that may be quantised, and those that Conv and Gemm read."""
    members = scale_groups(graph.model).members.values()
    names = [str(value.name) for values in members for value in values]
    read = [node.inputs[0] for node in graph.model.graph if node.op_type in WEIGHTED]
    return list(dict.fromkeys([*names, *(str(value.name) for value in read if value is not None)]))


@dataclass(frozen=True)
class _Total:
    """One tensor on some images; ``channels.mean`` is a sum still."""

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    histogram: Histogram
    channels: Channels | None

    def plus(self, other: _Total) -> _Total:
        channels = None
        if (one := self.channels) is not None and (two := other.channels) is not None:
            low, high = np.minimum(one.low, two.low), np.maximum(one.high, two.high)
            channels = Channels(low, high, one.mean + two.mean)
        histogram = self.histogram.joined(other.histogram)
        return _Total(self.lows + other.lows, self.highs + other.highs, histogram, channels)

    def result(self) -> TensorStatistics:
        channels = self.channels
        if channels is not None:
            channels = Channels(channels.low, channels.high, channels.mean / len(self.lows))
        return TensorStatistics(np.asarray(self.lows), np.asarray(self.highs), self.histogram, channels)


def _of_image(name: str, array: np.ndarray, samples: int, index: int) -> _Total:
    channels = None
    if array.ndim in (2, 4) and len(array) == 1:
        rows = array.reshape(array.shape[1], -1)
        channels = Channels(rows.min(axis=1), rows.max(axis=1), rows.mean(axis=1, dtype=np.float64))
        low, high = float(channels.low.min()), float(channels.high.max())
    else:
        low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ConversionError(
            f"tensor '{name}' is not finite on calibration image {index + 1}",
            hint="the network overflows in float already; check its weights and its preprocessing",
        )
    flat = array.reshape(-1)
    # An odd stride, begun elsewhere in each image, meets every row and column.
    stride = flat.size // samples | 1
    return _Total((low,), (high,), Histogram.of(flat[index % stride :: stride]), channels)


def _in_order(
    measure: Callable[[int, np.ndarray], list[_Total]], images: Iterable[np.ndarray]
) -> Iterator[list[_Total]]:
    """What ``measure`` gives for each image, in order; computed beside the decoding, a few images ahead."""
    workers = min(_WORKERS, os.cpu_count() or 1)
    waiting: deque[Future[list[_Total]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index, image in enumerate(images):
                waiting.append(pool.submit(measure, index, image))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
