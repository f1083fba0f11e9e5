"""Rewrites from an exported ONNX graph to the canonical float graph. Each keeps the numbers as they are."""

from __future__ import annotations

import onnx_ir.passes.common as passes

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.rewrite.activation import (
    DropInferenceIdentities,
    NameHardActivations,
    OpenHardSigmoid,
    PlainArithmetic,
)
from edgecnn.graph.rewrite.constants import FoldConstants
from edgecnn.graph.rewrite.edit import bypass, constant, initializer
from edgecnn.graph.rewrite.limits import CheckLimits
from edgecnn.graph.rewrite.linear import AddBiases, FoldAffine, LoneAffine, NormalizeGemm
from edgecnn.graph.rewrite.names import ReadableNames
from edgecnn.graph.rewrite.padding import (
    CropNegativePads,
    ExplicitPads,
    PadIntoWindow,
    SeparateCountedPadding,
)
from edgecnn.graph.rewrite.pooling import GlobalMaxToMaxPool, KeepReducedAxes, WholeMapAverage
from edgecnn.graph.rewrite.shapes import ExplicitReshape, ExplicitSlice, SplitToSlices

__all__ = ["bypass", "canonicalize", "constant", "initializer"]


def canonicalize(graph: Graph) -> Graph:
    """The canonical form of an exported float graph.

    After it

    - constants are initialisers, and what followed from constants and shapes alone is one; every tensor has a
      static shape, every node one output and a readable, unique name, as has every weight;
    - no Identity, Dropout, Split, Squeeze, Unsqueeze or HardSigmoid is left; Reshape and Slice say in full
      what they do, and only Pad and AveragePool pad with values of their own;
    - every Conv and Gemm has a bias of shape (out,), Gemm is ``x @ W.T + b`` with W as (out, in); what scales
      or shifts a layer's output is in its weights, so that BatchNormalization is only where no layer is in
      front of it, and on feature maps;
    - a mean over height and width is GlobalAveragePool and GlobalMaxPool is MaxPool; no AveragePool counts
      its padding.

    Raises:
        ConversionError: more than one input or output, a shape that is not static, or what
            :class:`~edgecnn.graph.rewrite.limits.CheckLimits` refuses.
    """
    model = graph.copy()
    for rewrite in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.IdentityEliminationPass(),
        ReadableNames(),  # unique from here on, also where the exporter gave none
        FoldConstants(),
        CheckLimits(),
        DropInferenceIdentities(),
        ExplicitReshape(),
        SplitToSlices(),
        CropNegativePads(),
        ExplicitSlice(),
        ExplicitPads(),
        PadIntoWindow(),
        KeepReducedAxes(),
        GlobalMaxToMaxPool(),
        WholeMapAverage(),
        SeparateCountedPadding(),
        PlainArithmetic(),
        NameHardActivations(),
        passes.RemoveUnusedNodesPass(),
        OpenHardSigmoid(),
        NormalizeGemm(),
        AddBiases(),
        FoldAffine(),
        LoneAffine(),
        passes.RemoveUnusedNodesPass(),
        passes.ShapeInferencePass(),
        ReadableNames(),
    ):
        model = rewrite(model).model
    canonical = Graph(model, graph.precision)
    for value in (
        canonical.input,
        canonical.output,
        *(output for node in model.graph for output in node.outputs),
    ):
        shape_of(value)
    return canonical
