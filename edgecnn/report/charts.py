"""Drawings as inline SVG, and photographs as data in the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgecnn.layer_noise import Layer, Range

# Noise this far below the signal is drawn like none.
_TOP_DB = 50.0
_RANGE_PIXELS = (150, 12)
# The share of a narrow chart that a rank's circle takes; nearer ones are stacked.
_RANK_PERCENT = 6.0
# Dark to bright through purple and orange, after matplotlib's magma at 0, 1/4, 1/2, 3/4 and 1.
_HEAT = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float32)
# A few grains of a gradient are far brighter than the rest.
_BRIGHTEST_PERCENT = 99.5
_WEBP_QUALITY = 80
# Images up to this side are shown pixel by pixel.
_SMALL = 64


def decibel(value: float) -> str:
    """A ratio in dB with one digit, or in words where it has none."""
    if math.isinf(value):
        return "no noise" if value > 0 else "no signal"
    return f"{value:.1f}"


def depth_chart(layers: Sequence[Layer], ranked: Sequence[int]) -> str:
    """The SQNR of all layers from the input to the output, as columns.

    Args:
        layers: in execution order.
        ranked: numbers of the layers that are marked 1, 2, 3, ...
    """
    count = len(layers)
    top_db = max(10.0, math.ceil(min(_TOP_DB, max(_drawn(layer) for layer in layers)) / 10) * 10)
    lines = list(range(0, int(top_db) + 1, 10))

    def height(value_db: float) -> float:
        return 100 * max(0.0, min(value_db, top_db)) / top_db

    svg = "".join(
        f'<line class="grid" x1="0" x2="{count}" y1="{100 - height(db):.2f}" y2="{100 - height(db):.2f}"/>'
        for db in lines
    )
    for i, layer in enumerate(layers):
        of = height(_drawn(layer))
        kind = "in-float" if layer.form == "float" else "strong" if i in ranked else "faint"
        told = escape(f"{layer.name}, {layer.form}: {decibel(layer.sqnr_db)} dB")
        svg += (
            f'<rect class="{kind}" x="{i + 0.12:.2f}" y="{100 - of:.2f}" width="0.76" height="{of:.2f}"/>'
            f'<rect class="hit" x="{i}" y="0" width="1" height="100"><title>{told}</title></rect>'
        )
    labels = "".join(
        f'<span class="tick" style="top:{100 - height(db):.2f}%">{db}{" dB" * (db == lines[-1])}</span>'
        for db in lines
    )
    rightmost: list[float] = []  # on each level
    for i in sorted(ranked):
        left, top = 100 * (i + 0.5) / count, 100 - height(_drawn(layers[i]))
        free = (level for level, taken in enumerate(rightmost) if left - taken >= _RANK_PERCENT)
        raised = next(free, len(rightmost))
        rightmost[raised : raised + 1] = [left]
        labels += (
            f'<span class="rank" style="left:{left:.2f}%;top:calc({top:.2f}% - {1.4 * raised:g}rem)">'
            f"{ranked.index(i) + 1}</span>"
        )
    lowest = layers[ranked[0]] if ranked else layers[0]
    told = f"{count} layers; the lowest is {lowest.name} with {decibel(lowest.sqnr_db)} dB"
    return (
        f'<div class="plot"><svg viewBox="0 0 {count} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="SQNR of each layer: {escape(told)}">{svg}</svg>{labels}'
        '<span class="end">image</span><span class="end last">scores</span></div>'
    )


def _drawn(layer: Layer) -> float:
    return min(max(layer.sqnr_db, 0.0), _TOP_DB)


def range_chart(held: Range) -> str:
    """What the integers hold, what was reached in it, and what lay outside, on one line."""
    width, height = _RANGE_PIXELS
    low, high = min(held.low, held.reached_low), max(held.high, held.reached_high)
    span = (high - low) or 1.0

    def bar(kind: str, start: float, end: float, thick: int) -> str:
        x, long = width * (start - low) / span, width * (end - start) / span
        top = (height - thick) / 2
        place = f'x="{x:.1f}" y="{top:g}" width="{max(long, 0):.1f}" height="{thick}"'
        return f'<rect class="{kind}" {place} rx="1"/>'

    inside = max(held.low, held.reached_low), min(held.high, held.reached_high)
    svg = bar("faint", held.low, held.high, height) + bar("strong", *inside, 4)
    if held.cut_off:
        svg += bar("outside", held.reached_low, held.low, 4) if held.reached_low < held.low else ""
        svg += bar("outside", held.high, held.reached_high, 4) if held.reached_high > held.high else ""
    zero = width * (0 - low) / span
    svg += f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}"/>'
    told = (
        f"integers hold {held.low:.3g} to {held.high:.3g}; reached {held.reached_low:.3g} to "
        f"{held.reached_high:.3g}"
    )
    return (
        f'<svg class="range" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{told}"><title>{told}</title>{svg}</svg>'
    )


def photograph(pixels: npt.NDArray[np.uint8], alternative: str) -> str:
    """An image (H, W, 3) in the page."""
    stream = io.BytesIO()
    height, width = pixels.shape[:2]
    small = max(height, width) <= _SMALL
    Image.fromarray(pixels).save(stream, "WEBP", quality=_WEBP_QUALITY, lossless=small)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/webp;base64,{data}" width="{width}" height="{height}" '
        f'{"class=small " * small}loading="lazy" alt="{escape(alternative)}">'
    )


def heated(pixels: npt.NDArray[np.uint8], saliency: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A saliency map (H, W), bright where it is high, over its image (H, W, 3) in dark grey."""
    brightest = float(np.percentile(saliency, _BRIGHTEST_PERCENT)) or 1.0
    share = np.clip(saliency / brightest, 0, 1)[..., None]
    position = share[..., 0] * (len(_HEAT) - 1)
    below = np.minimum(position.astype(np.int64), len(_HEAT) - 2)
    part = (position - below)[..., None]
    colour = _HEAT[below] * (1 - part) + _HEAT[below + 1] * part
    grey = pixels.astype(np.float32).mean(2, keepdims=True) * 0.45
    shown: npt.NDArray[np.uint8] = np.rint(grey * (1 - share) + colour * share).astype(np.uint8)
    return shown


def key(*entries: tuple[str, str]) -> str:
    """A legend: the style sheet's classes of fills, each with its meaning."""
    listed = "".join(
        '<li><svg width="14" height="10" aria-hidden="true">'
        f'<rect class="{kind}" width="14" height="10" rx="1"/></svg>{escape(meaning)}</li>'
        for kind, meaning in entries
    )
    return f'<ul class="key">{listed}</ul>'
