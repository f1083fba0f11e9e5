"""Whether int8 is faster than fp32 where it was measured; if not, which layers are to blame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgecnn.devices.device import Device
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import FLOAT_ISLANDS, operators
from edgecnn.layer_times import LayerTime, layer_times
from edgecnn.measurement import PROCESS_EFFECT, Comparison, Measurement
from edgecnn.progress import Progress, silent

_FORMS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_NAMED = 3
_BLAMED = 10
# A layer whose own time is within the profiler's noise is not to blame.
_LEAST_MS = 0.005
_FASTER = 1 / (1 + PROCESS_EFFECT)
# Layers that a runtime has under no name of the graph's: they are in fp32 too.
_NAMELESS = frozenset({"Convolution", "FullyConnected", "GroupConvolution"})


@dataclass(frozen=True)
class Blame:
    """One layer that int8 does not make faster."""

    layer: str
    """The node's name, or what the runtime does of its own, by its type."""
    int8_ms: float | None
    """What it takes in int8; None where the runtime has no profiler."""
    fp32_ms: float | None
    """What it takes in fp32, 0 for what fp32 does not have, or does within another layer."""
    why: str
    """What is to blame, in words."""

    @property
    def sentence(self) -> str:
        """The layer and what is to blame, without a full stop."""
        if self.int8_ms is None or self.fp32_ms is None:
            return f"{self.layer} ({self.why})"
        before = f"{self.fp32_ms:.2g} in fp32" if self.fp32_ms else "none in fp32"
        return f"{self.layer} ({self.int8_ms:.2g} ms, {before})"


@dataclass(frozen=True)
class PayOff:
    """int8 against fp32 on one target, timed in turns."""

    runtime: str
    """What ran both."""
    int8_ms: float
    """Median latency in int8."""
    fp32_ms: float
    """Median latency in fp32."""
    ratio: float
    """Latency of int8 over that of fp32."""
    ratio_low: float
    """Lower end of its 95 % interval."""
    ratio_high: float
    """Upper end of its 95 % interval."""
    blame: tuple[Blame, ...]
    """The layers that int8 makes slower or does not make faster, the worst first; none where it pays off."""

    @property
    def pays(self) -> bool | None:
        """Whether int8 is faster, by more than two processes that run one model may differ by.

        None where the interval holds both answers.
        """
        if self.ratio_high < _FASTER:
            return True
        return None if self.ratio_low < _FASTER else False

    @property
    def sentence(self) -> str:
        """The verdict, without a full stop."""
        times = f"{self.int8_ms:.3g} ms against {self.fp32_ms:.3g} ms"
        interval = f"{self.ratio_low:.2f} to {self.ratio_high:.2f} times its latency"
        if self.pays:
            range_ = f"{1 / self.ratio_high:.2f} to {1 / self.ratio_low:.2f}"
            speed = f"int8 is {1 / self.ratio:.2f} times as fast as fp32 on {self.runtime}"
            return f"{speed} (95 % interval {range_}): {times}"
        if self.pays is None:
            return f"whether int8 is faster than fp32 on {self.runtime} is not clear: {times} ({interval})"
        slower = "slower than" if self.ratio_low > 1 / _FASTER else "not faster than"
        verdict = f"int8 is {slower} fp32 on {self.runtime}: {times} ({interval})"
        if not self.blame:
            return f"{verdict}; no single layer is to blame"
        named = ", ".join(entry.sentence for entry in self.blame[:_NAMED])
        more = f" and {len(self.blame) - _NAMED} more" if len(self.blame) > _NAMED else ""
        return f"{verdict}; to blame are {named}{more}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the manifest."""
        return {**asdict(self), "pays": self.pays, "verdict": self.sentence}


def measure_payoff(
    graph: Graph,
    qdq: Graph,
    fp32: Job,
    int8: Job,
    device: Device = LOCAL,
    progress: Progress = silent,
) -> tuple[Measurement, Measurement, PayOff]:
    """Time both models of one target in turns; where int8 is not faster here, profile both.

    Args:
        graph: the canonical fp32 graph that ``fp32`` was compiled from.
        qdq: the int8 graph that ``int8`` was compiled from.
        fp32: how the one is measured.
        int8: how the other is.
        device: where; profiles are of this machine only.
        progress: told how far the measurement is.

    Returns:
        The measurements of fp32 and int8, and the verdict.

    Raises:
        ConfigError, MissingDependency, DeviceError: as ``Device.compare`` does.
    """
    of_fp32, of_int8, comparison = device.compare(fp32, int8, progress=progress)
    verdict = payoff(of_fp32, of_int8, comparison)
    if verdict.pays is False:
        progress("profiling", 0, None)
        times: list[dict[str, LayerTime]] = [{}, {}]
        if device is LOCAL:
            times = [
                layer_times(each, job.model, job.runtime, job.options, job.threads)
                for each, job in ((graph, fp32), (qdq, int8))
            ]
        verdict = payoff(of_fp32, of_int8, comparison, blamed(qdq, *times))
    return of_fp32, of_int8, verdict


def payoff(
    fp32: Measurement, int8: Measurement, comparison: Comparison, blame: tuple[Blame, ...] = ()
) -> PayOff:
    """The verdict on two measurements whose blocks were timed in turns, fp32 first."""
    return PayOff(
        int8.runtime,
        int8.p50_ms,
        fp32.p50_ms,
        comparison.ratio,
        comparison.ratio_low,
        comparison.ratio_high,
        blame,
    )


def blamed(qdq: Graph, fp32: Mapping[str, LayerTime], int8: Mapping[str, LayerTime]) -> tuple[Blame, ...]:
    """The layers that cost int8 most, over what they take in fp32; the worst 10.

    Without times it is those that compute in float between integers, and changes of scale or form, which
    are known from the graph.
    """
    if not fp32 or not int8:
        return tuple(_from_graph(qdq))[:_BLAMED]
    found = []
    for name, time in int8.items():
        if name in _NAMELESS:
            continue
        before_ms = fp32[name].ms if name in fp32 else 0.0
        if time.ms - before_ms > _LEAST_MS:
            why = "slower than in fp32" if name in fp32 else "no step of its own in fp32"
            found.append(Blame(name, time.ms, before_ms, why))
    found.sort(key=lambda entry: (entry.fp32_ms or 0.0) - (entry.int8_ms or 0.0))
    return tuple(found[:_BLAMED])


def _from_graph(qdq: Graph) -> list[Blame]:
    """What the graph itself tells: layers in float, then changes of form between layers."""
    in_float, forms = [], []
    edges = {str(qdq.input.name), str(qdq.output.name)}
    for operator in operators(qdq):
        if operator.op_type not in _FORMS:
            computes_floats = any(operand.scale is None for operand in operator.outputs)
            if computes_floats or operator.op_type in FLOAT_ISLANDS:
                in_float.append(Blame(operator.name, None, None, "computes in float"))
        elif edges.isdisjoint(operand.name for operand in (*operator.inputs, *operator.outputs) if operand):
            forms.append(Blame(operator.name, None, None, "changes scale or form"))
    return in_float + forms
