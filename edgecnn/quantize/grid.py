"""The integers and the scale behind constants that were dequantised.

Between DequantizeLinear and the layer that reads it a weight may be transposed, reshaped or scaled by batch
norm, and its integers are lost. Its values still are multiples of one step a channel, and any step of which
they are whole multiples, within the integers' range, gives them back exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Of a step. Dequantising and scaling in float32 each move 127 steps by less than 1e-5.
_NEAR = 1e-4
# What the largest weight may be: 127 where tools quantise symmetrically, 64 or 63 with 7 bits, anything where
# training has moved weights. -128, which torch reaches, comes last: few weights fit many grids.
_LARGEST = (*range(127, 0, -1), 128)
# Enough columns to tell a grid that does not fit; the rest are looked at only where they do.
_SAMPLE = 64
_AT_ONCE = 2**22
# So many weights have a common divisor only if they were written on a coarser grid.
_TELLING = 8


@dataclass(frozen=True)
class Grid:
    """Constants as integers: real = scale * (stored - zero_point)."""

    stored: np.ndarray
    """int8 for weights, uint8 for other constants, in the constants' shape."""
    scale: np.ndarray
    """float32: one value (rank 0), or one an output channel."""
    zero_point: int
    """0 for weights."""


def weight_grid(weight: np.ndarray, bias: np.ndarray) -> Grid | None:
    """Weights (out, ...) as symmetric int8, with one scale a tensor where that is enough, else one a channel.

    Of the steps that fit it is the file's own, as far as that can be told: integers without a common divisor,
    unless the bias is a whole number of the finer steps alone.

    Args:
        weight: the dequantised weights.
        bias: (out,), in steps of the layer's input.

    Returns:
        None where a channel's values are no multiples of one step. Channels of zeros get the largest scale.
    """
    channels = weight.reshape(weight.shape[0], -1)
    if not channels.any():
        return Grid(np.zeros(weight.shape, np.int8), np.ones(weight.shape[0], np.float32), 0)
    scale = _tensor_scale(channels)
    if scale is not None:
        scale = _coarsest(channels.reshape(1, -1), scale.reshape(1), bias.reshape(1, -1))[0]
    elif (scales := _channel_scales(channels)) is not None:
        scale = _coarsest(channels, scales, bias.reshape(-1, 1))
    else:
        return None
    scale = np.asarray(scale)
    stored = np.rint(channels / scale.reshape(-1, 1)).astype(np.int8).reshape(weight.shape)
    return Grid(stored, scale, 0)


def is_whole(steps: np.ndarray) -> np.ndarray:
    """Whether each number is an integer to the rounding of float32, in which it was stored and scaled."""
    whole: np.ndarray = np.abs(steps - np.rint(steps)) <= np.maximum(1e-3, 4e-7 * np.abs(steps))
    return whole


def operand_grid(values: np.ndarray) -> Grid | None:
    """Constants that are added or multiplied by, as uint8 with one scale; None where they are on no grid."""
    exact = values.astype(np.float64)
    low, high = min(exact.min(), 0.0), max(exact.max(), 0.0)
    if low == high:
        return Grid(np.zeros(values.shape, np.uint8), np.ones((), np.float32), 0)
    for steps in range(255, 0, -1):
        scale = np.float32((high - low) / steps)
        zero_point = np.rint(-low / scale)
        integers = exact / scale + zero_point
        if np.abs(integers - np.rint(integers)).max() <= _NEAR:
            stored = np.rint(integers).clip(0, 255).astype(np.uint8)
            return Grid(stored, np.asarray(scale), int(zero_point))
    return None


def _tensor_scale(channels: np.ndarray) -> np.ndarray | None:
    """One scale, (1,), of which all values are multiples from -128 to 127; None where there is none."""
    lowest = channels.min()
    highest = max(channels.max(), -lowest)
    for largest in _LARGEST:
        scales = np.full(len(channels), highest / largest, np.float32)
        if (
            (largest < 128 or lowest == -highest)
            and _fit(channels[:8, :_SAMPLE], scales[:8]).all()
            and _fit(channels, scales).all()
        ):
            return scales[:1]
    return None


def _channel_scales(channels: np.ndarray) -> np.ndarray | None:
    """A scale for each row, of which its values are multiples from -128 to 127; None where one has none."""
    lowest = channels.min(axis=1)
    highest = np.maximum(channels.max(axis=1), -lowest)
    found = np.where(highest > 0, 0, highest.max()).astype(np.float32)
    for largest in _LARGEST:
        rows = np.flatnonzero((found == 0) & ((largest < 128) | (lowest == -highest)))
        scales = (highest[rows] / largest).astype(np.float32)
        fit = _fit(channels[rows, :_SAMPLE], scales)
        rows, scales = rows[fit], scales[fit]
        fit = _fit(channels[rows], scales)
        rows, scales = rows[fit], scales[fit]
        found[rows] = scales
        if found.all():
            break
    if not found.all():
        return None
    found[highest == 0] = found[highest > 0].max()
    return found


def _coarsest(channels: np.ndarray, scales: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """The scale of each row as the file has it, if a finer one was found first; ``biases`` (rows, any)."""
    divisors = np.ones(len(channels), np.int16)
    many = np.ones(len(channels), bool)
    for rows in _blocks(channels):
        integers = np.abs(np.rint(channels[rows] / scales[rows, None])).astype(np.int16)
        divisors[rows] = np.maximum(np.gcd.reduce(integers, axis=1), 1)
        many[rows] = np.count_nonzero(integers, axis=1) >= _TELLING

    def hold(scales: np.ndarray) -> np.ndarray:
        return np.asarray(is_whole(biases / scales[:, None].astype(np.float64)).all(axis=1))

    coarse = (scales * divisors).astype(np.float32)
    return _as_written(channels, np.where(hold(coarse) | (many & ~hold(scales)), coarse, scales))


def _fit(channels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Whether each row's values are multiples of its scale, and at most 127 of them."""
    fits = np.ones(len(channels), bool)
    for rows in _blocks(channels):
        steps = (
            channels[rows] / np.maximum(scales[rows], np.finfo(np.float32).tiny).astype(np.float64)[:, None]
        )
        integers = np.rint(steps)
        fits[rows] = (np.abs(steps - integers).max(axis=1) <= _NEAR) & (integers.max(axis=1) <= 127)
    return fits


def _as_written(channels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Of each scale and the two float32 numbers beside it, the one whose multiples are the row's values."""
    written = scales.copy()
    for rows in _blocks(channels):
        part, scale = channels[rows], scales[rows]
        integers = np.rint(part / scale[:, None])
        beside = [scale, np.nextafter(scale, np.float32(0)), np.nextafter(scale, np.float32(np.inf))]
        hits = [(integers * candidate[:, None] == part).sum(axis=1) for candidate in beside]
        written[rows] = np.stack(beside)[np.argmax(hits, axis=0), np.arange(len(scale))]
    return written


def _blocks(channels: np.ndarray) -> Iterator[slice]:
    """Rows a few at a time: the first dense layer of a VGG has 100 million weights."""
    rows = max(_AT_ONCE // max(channels.shape[1], 1), 1)
    return (slice(start, start + rows) for start in range(0, len(channels), rows))
