"""What the int8 stage found, as verdicts of the report."""

from __future__ import annotations

from edgecnn.int8 import Int8
from edgecnn.payoff import PayOff
from edgecnn.quantize.guard import Guarded
from edgecnn.quantize.portability import Portability
from edgecnn.quantize.search import Searched
from edgecnn.report.report import Table, Tone, Verdict
from edgecnn.target import Target

_LAYERS = 20


def verdicts(portable: Portability, payoff: PayOff | None, int8: Int8, target: Target) -> tuple[Verdict, ...]:
    """On accuracy where a budget was asked, on other CPUs, and on speed where it was measured."""
    found = [_guard(int8, int8.guarded, target)] if int8.guarded is not None else []
    if int8.searched is not None:
        found.append(_search(int8.searched, guarded=int8.guarded is not None))
    found.append(_portability(portable))
    return (*found, *([_payoff(payoff)] if payoff is not None else []))


def _guard(int8: Int8, guarded: Guarded, target: Target) -> Verdict:
    tone: Tone = "problem" if int8.over_budget(target) else "good"
    rows = tuple(
        (
            ", ".join(row.layers),
            100 * row.macs_share,
            None if row.alone is None else row.alone.sqnr_db,
            None if row.after is None else 100 * row.after.agreement,
            None if row.after is None or row.after.top1 is None else 100 * row.after.top1,
        )
        for row in guarded.rows
    )
    returned = Table(
        ("returned to float", "% of MACs", "SQNR with it alone, dB", "then agreement, %", "then top-1, %"),
        rows,
        caption="Layers that compute in float, in the order in which they were returned.",
    )
    costly = sorted(guarded.sensitivity, key=lambda layer: -(layer.weights_noise + layer.output_noise))
    sensitivity = Table(
        ("layer", "% of MACs", "% of the noise from its weights", "% of the noise from its output"),
        tuple(
            (layer.layer, 100 * layer.macs_share, 100 * layer.weights_noise, 100 * layer.output_noise)
            for layer in costly[:_LAYERS]
        ),
        caption="What the rounding of each layer alone does to the network's output, the worst first.",
    )
    tables = tuple(table for table in (returned, sensitivity) if table.rows)
    return Verdict("Accuracy", tone, int8.describe(target), tables=tables)


def _search(searched: Searched, *, guarded: bool) -> Verdict:
    table = Table(
        ("way to quantise", "top-1, %", "agreement, %", "SQNR, dB", "latency over the first", "on the front"),
        tuple(
            (
                row.name,
                None if row.judged is None or row.judged.top1 is None else 100 * row.judged.top1,
                None if row.judged is None else 100 * row.judged.agreement,
                None if row.judged is None else row.judged.sqnr_db,
                None if row.raced is None else row.raced.ratio,
                "refused" if row.refused else "yes" if row.on_front else "",
            )
            for row in searched.rows
        ),
        chosen=frozenset({searched.rows.index(searched.chosen)}),
        caption="On the front: no other is clearly better in one without being worse in the other.",
    )
    return Verdict(
        "Search" if guarded else "Accuracy", "good", f"Chosen: {searched.sentence}", tables=(table,)
    )


def _portability(found: Portability) -> Verdict:
    layers = Table(
        ("layer", "pairs that can saturate", "of", "% of its outputs touched", "mean loss, steps"),
        tuple((x.name, x.pairs, x.of, 100 * x.touched, x.mean_steps) for x in found.layers[:_LAYERS]),
        caption="Neighbouring products u8 x s8 that together leave int16.",
    )
    remedy = "" if found.portable else ". Export with --portable to make these weights coarser"
    return Verdict(
        "Portability",
        "good" if found.portable else "caution",
        found.sentence + remedy,
        tables=(layers,) if found.layers else (),
    )


def _payoff(found: PayOff) -> Verdict:
    blame = Table(
        ("layer", "int8, ms", "fp32, ms", "why"),
        tuple((x.layer, x.int8_ms, x.fp32_ms, x.why) for x in found.blame),
        caption="Layers that int8 does not make faster, the worst first.",
    )
    return Verdict(
        "Speed",
        "good" if found.pays else "caution",
        found.sentence,
        tables=(blame,) if found.blame else (),
    )
