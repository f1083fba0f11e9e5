"""The images whose class int8 changes, and where both networks look."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgecnn.accuracy.interval import Share
from edgecnn.data.sets import Images
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import load_reference
from edgecnn.report.saliency import load_saliency
from edgecnn.spec import Preprocess

MOST = 6
"""So many images whose class changed are shown, those first of whose class the float network was surest."""
NARROW = 3
"""Where none changed, so many are shown that came nearest to it."""
BLUR = 1 / 112
"""Radius by which a saliency map is blurred, as a share of its side: a gradient is grainy."""


@dataclass(frozen=True)
class Answer:
    """What a network says about an image."""

    index: int
    """The class with the highest score."""
    label: str
    """Its name, or ``class 17``."""
    share: float
    """Its share after a softmax, from 0 to 1."""
    saliency: npt.NDArray[np.float32] = field(repr=False)
    """(H, W), not negative: what a change of each pixel does to the class's score."""


@dataclass(frozen=True)
class Picture:
    """An image, and what the float and the int8 network say about it."""

    name: str
    """What people call it."""
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    """(H, W, 3): what the network saw of it."""
    fp32: Answer
    """Of the float network."""
    int8: Answer
    """Of the int8 network."""
    margin_steps: float
    """How far apart the float network's two best scores are, in steps of the int8 output."""
    alike: float
    """Correlation of the two saliency maps, blurred as they are shown, from -1 to 1."""

    @property
    def changed(self) -> bool:
        """Whether the class did."""
        return self.fp32.index != self.int8.index


@dataclass(frozen=True)
class Gallery:
    """What int8 does to a classifier's answers on some images."""

    which: str
    """What images: ``verification photographs``."""
    kept: Share
    """How many of them keep their class."""
    pictures: tuple[Picture, ...]
    """The images whose class changed, ``MOST`` of them at most; else those that came nearest."""


@dataclass(frozen=True)
class _Candidate:
    margin: float
    name: str
    image: np.ndarray
    fp32: np.ndarray
    int8: np.ndarray


def is_classifier(graph: Graph) -> bool:
    """Whether a network's output is one value a class."""
    shape = shape_of(graph.output)
    return len(shape) == 2 and shape[1] > 1


def compare_answers(
    graph: Graph,
    qdq: Graph,
    images: Images,
    names: Sequence[str],
    which: str,
    recipe: Preprocess,
    labels: Sequence[str] | None,
) -> Gallery:
    """Run both graphs on all images, and look at the ones whose class changed.

    Args:
        graph: the canonical fp32 graph of a classifier.
        qdq: the graph in which some or all layers are int8; it is run as it is written, unfused.
        images: inputs (1, C, H, W), one at least; a few of them are in memory at a time.
        names: what people call each.
        which: what images they are.
        recipe: how they became inputs.
        labels: names of the classes, where they are known.
    """
    expected, got = load_reference(graph, fused=True), load_reference(qdq)
    total = kept = 0
    changed: list[_Candidate] = []
    near: list[_Candidate] = []
    for name, image in zip(names, images, strict=True):
        fp32, int8 = expected(image)[0][0], got(image)[0][0]
        total += 1
        second, first = np.partition(fp32, -2)[-2:]
        candidate = _Candidate(float(first - second), name, image, fp32, int8)
        if fp32.argmax() == int8.argmax():
            kept += 1
            bisect.insort(near, candidate, key=lambda c: c.margin)
            del near[NARROW:]
        else:
            bisect.insort(changed, candidate, key=lambda c: -c.margin)
            del changed[MOST:]
    shown = changed or near
    of_fp32, of_int8 = load_saliency(graph), load_saliency(qdq)
    step = _output_step(qdq)
    pictures = []
    for c in shown:
        answers = []
        for scores, saliency in ((c.fp32, of_fp32), (c.int8, of_int8)):
            index = int(scores.argmax())
            label = labels[index] if labels is not None and index < len(labels) else f"class {index}"
            answers.append(Answer(index, label, _share(scores, index), saliency(c.image, index)))
        alike = _correlation(*(blurred(answer.saliency) for answer in answers))
        pixels = _pixels(c.image, recipe)
        pictures.append(Picture(c.name, pixels, answers[0], answers[1], c.margin / step, alike))
    return Gallery(which, Share(kept, total), tuple(pictures))


def blurred(saliency: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A saliency map as it is shown: blurred by ``BLUR`` of its side."""
    radius = BLUR * min(saliency.shape)
    reach = int(3 * radius)
    taps = np.exp(-np.square(np.arange(-reach, reach + 1) / max(radius, 1e-6)) / 2).astype(np.float32)
    result = saliency
    for axis in (0, 1):
        padded = np.pad(result, [(reach, reach) if axis == side else (0, 0) for side in (0, 1)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis)
        result = windows @ (taps / taps.sum())
    return result


def _output_step(qdq: Graph) -> float:
    """The scale of the output; 1 where it is float."""
    name = qdq.output.name
    for operator in operators(qdq):
        for operand in operator.outputs:
            if operand.name == name and operand.scale is not None:
                return float(operand.scale[0])
    return 1.0


def _share(scores: np.ndarray, index: int) -> float:
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 0.02:  # a Softmax is in the network
        return float(scores[index])
    exponents = np.exp(scores.astype(np.float64) - float(scores.max()))
    return float(exponents[index] / exponents.sum())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if not (a.std() and b.std()):
        return 0.0
    return float(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1])


def _pixels(image: np.ndarray, recipe: Preprocess) -> npt.NDArray[np.uint8]:
    """What an input shows, (H, W, 3): the first three channels, or the first as grey."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (recipe.mean, recipe.std))
    chw = np.clip(np.rint((image[0] * std + mean) * 255), 0, 255).astype(np.uint8)
    rgb = chw[:3] if len(chw) >= 3 else np.repeat(chw[:1], 3, axis=0)
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))
