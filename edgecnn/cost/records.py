"""Costs as plain numbers for JSON and CSV: raw figures, the unit in each name, one convention at a time."""

from __future__ import annotations

import csv
import io
from typing import Any

from edgecnn.cost.convention import Convention
from edgecnn.cost.values import PRECISIONS, Bytes, Costs, LayerCost, ReceptiveField


def to_json(costs: Costs, convention: Convention) -> dict[str, Any]:
    """One JSON document: totals first, then ``layers`` in execution order.

    Args:
        costs: of a network.
        convention: the only one whose figures are in it.
    """
    peak = costs.peak_layer
    return {
        "model": costs.name,
        "convention": convention.name,
        "convention_means": convention.sentence,
        "input_shape": list(costs.input_shape),
        "trained_params": costs.trained_params,
        "params": costs.params,
        convention.key: convention.total(costs),
        **({"other_ops": costs.other_ops} if convention.key == "macs" else {}),
        "not_counted": list(costs.not_counted),
        **_bytes("weight", costs.weights),
        **_bytes("read", costs.read),
        **_bytes("written", costs.written),
        **_bytes("peak_activation", peak.live),
        "peak_layer": peak.name,
        **_intensity(costs),
        **_receptive(costs.receptive),
        "layers": [_layer(costs, layer, convention) for layer in costs.layers],
    }


def to_csv(costs: Costs, convention: Convention) -> str:
    """One line a layer under a line of names; shapes as 1x3x224x224, empty where there is nothing to say."""
    text = io.StringIO()
    records = [_layer(costs, layer, convention) for layer in costs.layers]
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _cell(value) for name, value in record.items()})
    return text.getvalue()


def _layer(costs: Costs, layer: LayerCost, convention: Convention) -> dict[str, Any]:
    return {
        "name": layer.name,
        "operator": layer.op_type,
        "activation": layer.activation,
        "kernel": _listed(layer.kernel),
        "stride": _listed(layer.stride),
        "dilation": _listed(layer.dilation),
        "groups": layer.groups,
        "input_shapes": [list(shape) for shape in layer.input_shapes],
        "output_shape": list(layer.output_shape),
        "params": layer.params,
        "params_share": costs.params_share(layer),
        convention.key: convention.count(layer),
        f"{convention.key}_share": convention.share(costs, layer),
        **({"other_ops": layer.other_ops} if convention.key == "macs" else {}),
        "counted": layer.counted,
        **_bytes("weight", layer.weights),
        **_bytes("read", layer.read),
        **_bytes("written", layer.written),
        **_bytes("live_activation", layer.live),
        **_intensity(layer),
        **_receptive(layer.receptive),
    }


def _bytes(what: str, amount: Bytes) -> dict[str, int]:
    return {f"{what}_bytes_{precision}": getattr(amount, precision) for precision in PRECISIONS}


def _intensity(cost: Costs | LayerCost) -> dict[str, float]:
    return {f"macs_per_byte_{precision}": cost.macs_per_byte(precision) for precision in PRECISIONS}


def _receptive(field: ReceptiveField | None) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for axis in ("height", "width"):
        extent = None if field is None else getattr(field, axis)
        for name in ("size_px", "stride_px", "first_centre_px", "everything"):
            record[f"receptive_{axis}_{name}"] = None if extent is None else getattr(extent, name)
    return record


def _listed(values: tuple[int, ...] | None) -> list[int] | None:
    return None if values is None else list(values)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        nested = any(isinstance(entry, list) for entry in value)
        return " ".join(map(_cell, value)) if nested else "x".join(map(str, value))
    return value
