"""What can be told from the graphs alone, once for all targets that are compiled from them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from edgecnn.data.sets import Images
from edgecnn.graph.graph import Graph
from edgecnn.layer_noise import Layer, measure_layers
from edgecnn.report.pictures import Gallery, compare_answers, is_classifier
from edgecnn.spec import Preprocess

LAYER_IMAGES = 4
"""So many images decide the figures of a layer; one may leave it nearly silent."""


@dataclass(frozen=True)
class Explanation:
    """Where an int8 graph loses what it loses."""

    layers: tuple[Layer, ...]
    """In execution order."""
    layer_images: int
    """Images that the layers were run on."""
    which: str
    """What images they are: ``verification photographs``."""
    gallery: Gallery | None
    """Answers on images; None for untrained weights, and for networks that are no classifiers."""


def explain(
    graph: Graph,
    qdq: Graph,
    images: Images,
    names: Sequence[str],
    which: str,
    recipe: Preprocess,
    labels: Sequence[str] | None,
    *,
    trained: bool = True,
) -> Explanation:
    """Look into an int8 graph beside the float graph it came from.

    Takes a second for MobileNetV2 and 15 images: 0.25 s for the layers, 0.4 s for the answers, 0.1 s for each
    image that is looked at more closely.

    Args:
        graph: the canonical fp32 graph.
        qdq: the graph in which some or all layers are int8.
        images: inputs (1, C, H, W) that calibration has not seen, one at least.
        names: what people call each.
        which: what images they are.
        recipe: how they became inputs.
        labels: names of the classes, where they are known.
        trained: whether the answers mean anything.
    """
    some = list(itertools.islice(images, LAYER_IMAGES))
    gallery = None
    if trained and is_classifier(graph):
        gallery = compare_answers(graph, qdq, images, names, which, recipe, labels)
    return Explanation(measure_layers(graph, qdq, some), len(some), which, gallery)
