"""Float graph and calibration images -> canonical QDQ graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecnn.backends.onnxruntime import load_fused
from edgecnn.data.sets import Images
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.progress import Progress, silent
from edgecnn.quantize.average import average_pools_as_convs
from edgecnn.quantize.balance import balance
from edgecnn.quantize.biases import correct_biases
from edgecnn.quantize.depthwise import batch_norms_as_convs
from edgecnn.quantize.equalize import Equalized, equalize, pairs
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.ranges import Ranges, find_ranges
from edgecnn.quantize.rounding import round_weights
from edgecnn.quantize.scheme import DEFAULT, Scheme
from edgecnn.quantize.statistics import Statistics, collect
from edgecnn.sqnr import decibel

# Networks with trained weights have shown 20 dB and more with the mean of the images' extremes.
_HEALTHY_DB = 20.0
# At most so many images, and one of so many, are put aside to judge by.
_JUDGED = 16
_EVERY = 4
# So much better another choice must be on those images to be taken.
_WORTH_DB = 0.1
_FIRST = Scheme(ranges="mean", bias_correction=True, equalize=True)


@dataclass(frozen=True)
class Verdict:
    """An int8 graph against its float graph, on some of the calibration images."""

    images: int
    """How many images."""
    sqnr_db: float
    """Power of the float outputs over the power of the difference, in dB."""
    top1_agreement: float
    """Share of the images with the same top-1, from 0 to 1."""


_NONE = Verdict(0, -math.inf, 0.0)


@dataclass(frozen=True)
class Parts:
    """An int8 graph before its integers are written down."""

    scheme: Scheme
    """With nothing left open."""
    exact: Graph = field(repr=False)
    """Float, equalised."""
    rounded: Graph = field(repr=False)
    """The same with weights on their grid and with the biases that go with them."""
    ranges: Ranges = field(repr=False)
    """Of the tensors of both."""


@dataclass(frozen=True)
class Prepared:
    """A float graph that was calibrated once; ``qdq`` makes an int8 graph of it in a fraction of a second."""

    graph: Graph = field(repr=False)
    """The float graph as it was given."""
    convs: Graph = field(repr=False)
    """The same with AveragePool and BatchNormalization as convolutions and with balanced channels; its
    weights are not rounded."""
    statistics: Statistics = field(repr=False)
    """What the tensors of ``convs`` hold on the calibration images."""
    scheme: Scheme
    """The asked scheme, with what it leaves open settled."""
    verdict: Verdict
    """Of ``qdq(scheme)``."""
    _last: dict[Scheme, tuple[Equalized, Graph]] = field(default_factory=dict, repr=False, compare=False)

    def qdq(self, scheme: Scheme | None = None) -> Graph:
        """The canonical int8 graph by a scheme, by default by the one that was settled on.

        What it leaves open is as ``prepare`` settled it.

        Raises:
            ConfigError: a layer that is to stay in float and that the graph has not.
            ConversionError: an operator that has no int8 form.
        """
        parts = self.parts(scheme)
        return to_qdq(parts.rounded, parts.ranges, parts.scheme)

    def parts(self, scheme: Scheme | None = None) -> Parts:
        """What ``qdq`` writes down."""
        scheme = (scheme or self.scheme).filled(self.scheme)
        assert scheme.ranges is not None
        equalized, rounded = self._weights(scheme)
        found = find_ranges(self.convs, self.statistics, scheme.ranges)
        if scheme.bias_correction:
            means = {
                name: tensor.channels.mean
                for name, tensor in self.statistics.items()
                if tensor.channels is not None
            }
            means |= {name: means[name] * factors for name, factors in equalized.factors.items()}
            rounded = correct_biases(rounded, equalized.graph, means)
        ranges = Ranges(found.activations | equalized.activations)
        return Parts(scheme, equalized.graph, rounded, ranges)

    def _weights(self, scheme: Scheme) -> tuple[Equalized, Graph]:
        """The equalised float graph, and the same with rounded weights.

        The last is kept, since rounding takes most of the time, and ranges and biases do not change it.
        """
        key = replace(scheme, ranges=None, bias_correction=None, symmetric=False)
        found = self._last.get(key)
        if found is None:
            equalized = Equalized(self.convs, {}, {})
            if scheme.equalize:
                equalized = equalize(self.convs, self.statistics, scheme)
            found = equalized, round_weights(equalized.graph, scheme)
            self._last.clear()
            self._last[key] = found
        return found


def prepare(graph: Graph, images: Images, progress: Progress = silent, scheme: Scheme = DEFAULT) -> Prepared:
    """Calibrate a canonical fp32 graph, and settle what the scheme leaves open.

    What is left open is tried, one thing after the other, on images whose statistics are put aside for that:
    the widest value of each channel on the images that decided the ranges says nothing of the next image.
    EfficientNet-Lite0 equalised by such maxima looks 3 dB better than it is. The graph that is settled on
    then has the statistics of all of them.

    Args:
        graph: the float graph; it stays as it is.
        images: calibration images (1, C, H, W), read a few at a time; the first 16 twice.
        progress: called with a description, the images done and the total.
        scheme: how weights and activations become int8.

    Raises:
        ConversionError: an operator that has no int8 form, or a tensor that is not finite.
        DataError: an image that cannot be read, or none.
    """
    convs = balance(batch_norms_as_convs(average_pools_as_convs(graph)), images)
    every = max(_EVERY, -(-len(images) // _JUDGED))
    aside = range(0, len(images), every if len(images) >= _EVERY else 1)
    collected = collect(convs, images, progress, aside)
    reference = load_reference(graph, fused=True)
    expected = [reference(image)[0] for image in collected.judges]
    del reference

    def judged(qdq: Graph, load: Callable[[Graph], Runner]) -> Verdict:
        return _verdict(load(qdq), collected.judges, expected)

    first = scheme.filled(replace(_FIRST, equalize=bool(pairs(convs))))
    trial = Prepared(graph, convs, collected.unseen, first, _NONE)
    settled = _settle(scheme, first, lambda other: judged(trial.qdq(other), load_fused).sqnr_db)
    prepared = Prepared(graph, convs, collected.everything, settled, _NONE)
    return replace(prepared, verdict=judged(prepared.qdq(), load_reference))


def _settle(asked: Scheme, first: Scheme, reach_db: Callable[[Scheme], float]) -> Scheme:
    """The best found by changing what is left open in ``asked``, one thing after the other."""
    reached_db = {first: reach_db(first)}
    best = first

    def attempt(**changes: Any) -> None:
        nonlocal best
        other = replace(best, **changes)
        if other in reached_db or any(getattr(asked, name) is not None for name in changes):
            return
        reached_db[other] = reach_db(other)
        if reached_db[other] > reached_db[best] + _WORTH_DB:
            best = other

    # Weights are rounded anew only where equalisation changes.
    attempt(bias_correction=False)
    attempt(ranges="mse")
    if first.equalize:
        attempt(equalize=False)
        attempt(ranges="mse")
    if reached_db[best] < _HEALTHY_DB:
        attempt(ranges="minmax")
    return best


def quantize(graph: Graph, images: Images, progress: Progress = silent, scheme: Scheme = DEFAULT) -> Graph:
    """Quantise a canonical fp32 graph to int8: ``prepare``, and the graph of the settled scheme.

    Raises:
        ConversionError: an operator that has no int8 form.
    """
    return prepare(graph, images, progress, scheme).qdq()


def _verdict(run: Runner, images: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Verdict:
    signal = noise = 0.0
    agree = 0
    for image, exact in zip(images, expected, strict=True):
        got = run(image)[0]
        signal += float(np.square(exact).sum())
        noise += float(np.square(exact - got).sum())
        agree += int(np.argmax(exact) == np.argmax(got))
    return Verdict(len(images), decibel(signal, noise), agree / max(len(images), 1))
