"""``edgecnn inspect``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from edgecnn.cli.console import json_option, print_json, progress_bar
from edgecnn.cli.parameters import complete_model, shape_options
from edgecnn.cost.convention import CONVENTIONS, Convention
from edgecnn.cost.fold import fold
from edgecnn.cost.records import to_csv, to_json
from edgecnn.cost.values import Costs, Extent, LayerCost, ReceptiveField
from edgecnn.errors import ConfigError
from edgecnn.source.request import make_request


@click.command(short_help="Count a network's arithmetic, parameters and memory by layer.")
@click.argument("model", metavar="MODEL|FILE", shell_complete=complete_model)
@shape_options
@click.option("--convention", "convention_name", type=click.Choice(list(CONVENTIONS)), show_default=True,
              default=next(iter(CONVENTIONS)),
              help="macs: multiply-accumulates. flops: two a MAC, and one for every other operation. "
                   "lecture: one a MAC, and pooling by its window.")  # fmt: skip
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print one line a layer, with commas.")
def inspect(model: str, convention_name: str, as_json: bool, as_csv: bool, **source: Any) -> None:
    """Count what MODEL costs: arithmetic, parameters, memory and receptive field, by layer and in total.

    Counted is the graph that is compiled: batch norm is folded into convolutions, and a ReLU behind a
    convolution is part of its row. Nothing is run. Repeated sequences of equal layers are shown once.

    \b
    edgecnn inspect mobilenet
    edgecnn inspect resnet18 --resolution 160 --convention flops
    edgecnn inspect my_net.onnx --csv > layers.csv
    """
    if as_json and as_csv:
        raise ConfigError("--json and --csv cannot both be", hint="leave one of them out")
    convention = CONVENTIONS[convention_name]
    make_request(model, **source)  # refuses what cannot be before the seconds that importing torch takes
    from edgecnn.cost import inspect as count

    with progress_bar() as progress:
        progress("loading torch", 0, None)
        costs = count(model, **source, progress=progress)
    if as_json:
        print_json(to_json(costs, convention))
    elif as_csv:
        click.echo(to_csv(costs, convention), nl=False)
    else:
        print_costs(costs, convention)


def print_costs(costs: Costs, convention: Convention) -> None:
    """Totals, then a table of the layers, for people."""
    for title, text in _summary(costs, convention):
        click.echo(f"{click.style(title.ljust(13), bold=True)} {text}")
    click.echo()
    rows = list(_rows(costs))
    shown = _print_table(_columns(costs, convention), rows, _total(costs, convention))
    click.echo()
    if folded := len(costs.layers) - len(rows):
        click.echo(
            f"{len(costs.layers)} layers in {len(rows)} rows: {folded} are folded, which "
            "repeat those above with equal figures. x3 stands for three in a row, { | } for a sequence of "
            "layers. Figures are of one; receptive fields go from the first to the last."
        )
    if shown:
        names = ", ".join(dict.fromkeys(shown))
        click.echo(f"Left out for want of width: {names}. A wider window, --csv or --json has all.")


def _summary(costs: Costs, convention: Convention) -> Iterator[tuple[str, str]]:
    yield "model", f"{costs.name}, input {_by(costs.input_shape)}"
    yield "counted", f"{convention.name}: {convention.sentence}"
    yield "parameters", _parameters(costs)
    counted = f"{convention.total(costs):,}"
    yield (
        convention.unit,
        counted + (f", and {costs.other_ops:,} other operations" if convention.key == "macs" else ""),
    )
    if costs.not_counted:
        yield "not counted", f"the arithmetic of {', '.join(costs.not_counted)}, which edgecnn does not know"
    yield "weights", f"{_size(costs.weights.fp32)} fp32, {_size(costs.weights.int8)} int8"
    yield (
        "activations",
        f"{_size(costs.read.fp32)} read and {_size(costs.written.fp32)} written fp32, "
        f"{_size(costs.read.int8)} and {_size(costs.written.int8)} int8",
    )
    peak = costs.peak_layer
    yield (
        "peak memory",
        f"{_size(peak.live.fp32)} fp32, {_size(peak.live.int8)} int8 of activations, at {peak.name}",
    )
    yield (
        "intensity",
        f"{costs.macs_per_byte('fp32'):.3g} MACs a byte moved fp32, {costs.macs_per_byte('int8'):.3g} int8",
    )


def _parameters(costs: Costs) -> str:
    trained, deployed = costs.trained_params, costs.params
    if trained is None or trained == deployed:
        return f"{deployed:,}"
    why = "batch norm folded" if trained > deployed else "biases of zero added"
    # A convolution's batch norm has two values a channel; folding it cannot leave out more than those.
    channels = sum(layer.output_shape[1] for layer in costs.layers if layer.op_type == "Conv")
    if trained - deployed > 2 * channels:
        why = "batch norm folded, parts that only training uses left out"
    return f"{trained:,} trained; {deployed:,} deployed, {why}"


class _Row(NamedTuple):
    """One row of the table: a layer, and where in a repeated sequence it stands."""

    mark: str
    layer: LayerCost
    last: LayerCost
    """The same layer in the last repetition."""


def _rows(costs: Costs) -> Iterator[_Row]:
    for group in fold(costs.layers):
        times = f"x{group.times}" if group.times > 1 else ""
        for index, (layer, last) in enumerate(zip(group.layers, group.last, strict=True)):
            mark = times
            if len(group.layers) > 1:
                mark = f"{times} {{" if index == 0 else "}" if index == len(group.layers) - 1 else "|"
            yield _Row(mark, layer, last)


class _Column(NamedTuple):
    """One column of the table."""

    head: str
    cell: Callable[[_Row], str]
    leave: int
    """Columns with higher numbers are left out first where the terminal is narrow; 0 stays."""
    left: bool = False


def _columns(costs: Costs, convention: Convention) -> list[_Column]:
    columns = [
        _Column("", lambda row: row.mark, 0),
        _Column("layer", lambda row: row.layer.name, 0, left=True),
        _Column("operator", lambda row: _operator(row.layer), 0, left=True),
        _Column("window", lambda row: _window(row.layer), 0, left=True),
        _Column("groups", lambda row: f"{row.layer.groups or ''}", 4),
        _Column("output", lambda row: _by(row.layer.output_shape[1:]), 0, left=True),
        _Column("params", lambda row: _count(row.layer.params), 0),
        _Column("%", lambda row: _percent(costs.params_share(row.layer)), 9),
        _Column(convention.unit, lambda row: _count(convention.count(row.layer)), 0),
        _Column("% ", lambda row: _percent(convention.share(costs, row.layer)), 5),
        _Column("other ops", lambda row: _count(row.layer.other_ops) if row.layer.counted else "?", 6),
        _Column("read KB", lambda row: _kb(row.layer.read.fp32), 8),
        _Column("written KB", lambda row: _kb(row.layer.written.fp32), 8),
        _Column("live KB", lambda row: _kb(row.layer.live.fp32), 3),
        _Column("weights KB", lambda row: _kb(row.layer.weights.fp32), 10),
        _Column("MACs/B", lambda row: _intensity(row.layer), 7),
        _Column("field px", lambda row: _span(row, _length), 2),
        _Column("jump", lambda row: _span(row, lambda extent: _plain(extent, extent.stride_px)), 11),
        _Column("centre", lambda row: _span(row, lambda extent: _plain(extent, extent.first_centre_px)), 11),
    ]
    left_out = set()
    if convention.key != "macs":
        left_out.add("other ops")
    if all(layer.groups in (None, 1) for layer in costs.layers):
        left_out.add("groups")
    return [column for column in columns if column.head not in left_out]


def _total(costs: Costs, convention: Convention) -> dict[str, str]:
    """The last row, by head."""
    return {
        "layer": "total",
        "params": _count(costs.params),
        convention.unit: _count(convention.total(costs)),
        "other ops": _count(costs.other_ops),
        "read KB": _kb(costs.read.fp32),
        "written KB": _kb(costs.written.fp32),
        "live KB": f"peak {_kb(costs.peak_layer.live.fp32)}",
        "weights KB": _kb(costs.weights.fp32),
        "MACs/B": f"{costs.macs_per_byte('fp32'):.1f}",
    }


def _print_table(columns: list[_Column], rows: Sequence[_Row], total: dict[str, str]) -> list[str]:
    """Print it as wide as it must be, on a terminal as wide as that is; the heads that did not fit there."""
    from rich.console import Console
    from rich.table import Table

    def table(columns: list[_Column]) -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            made.add_column(column.head, justify="left" if column.left else "right", no_wrap=True)
        for row in rows:
            made.add_row(*(column.cell(row) for column in columns))
        made.add_row(*(total.get(column.head, "") for column in columns), style="bold")
        return made

    console = Console(markup=False, emoji=False, highlight=False)
    limitless = console.options.update(width=10_000)
    left_out: list[str] = []
    while (width := console.measure(table(columns), options=limitless).maximum) > console.width:
        first = max(column.leave for column in columns)
        if not console.is_terminal or not first:
            break
        left_out += [column.head.strip() for column in columns if column.leave == first]
        columns = [column for column in columns if column.leave < first]
    console.width = max(width, console.width)
    console.print(table(columns))
    return left_out


def _operator(layer: LayerCost) -> str:
    return layer.op_type + (f", {layer.activation}" if layer.activation else "")


def _window(layer: LayerCost) -> str:
    """Such as ``3x3 /2``, with ``d2`` for a dilation of 2."""
    if layer.kernel is None or layer.stride is None or layer.dilation is None:
        return ""
    text = f"{_by(layer.kernel)} /{_once(layer.stride)}"
    return text if set(layer.dilation) == {1} else f"{text} d{_once(layer.dilation)}"


def _span(row: _Row, shown: Callable[[Extent], str]) -> str:
    """Something of a receptive field, from the first repetition to the last where it differs."""
    texts = [_both(layer.receptive, shown) for layer in (row.layer, row.last)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _both(field: ReceptiveField | None, shown: Callable[[Extent], str]) -> str:
    if field is None:
        return "?"
    height, width = shown(field.height), shown(field.width)
    return height if height == width else f"{height}x{width}"


def _length(extent: Extent) -> str:
    return "all" if extent.everything else str(extent.size_px)


def _plain(extent: Extent, value: float) -> str:
    return "" if extent.everything else f"{value:g}"


def _intensity(layer: LayerCost) -> str:
    return f"{layer.macs_per_byte('fp32'):.1f}" if layer.macs else ""


def _once(sides: tuple[int, ...]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else _by(sides)


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share else ""


def _kb(size_bytes: int) -> str:
    return f"{size_bytes / 1e3:,.1f}" if size_bytes else ""


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:,.1f} KB"
