"""Two int8 graphs timed in turns on the target that will run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgecnn.devices.address import open_device
from edgecnn.devices.job import Job
from edgecnn.graph.graph import Graph
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch
from edgecnn.target import Target

_TIME_S = 0.5
_RUNS = 30
_MOST_S = 5.0


@dataclass(frozen=True)
class Raced:
    """The latency of one graph beside another's."""

    first_ms: float
    """Median latency of the graph that it was compared with."""
    ms: float
    """Its own."""
    ratio: float
    """Its own over the other's, from neighbouring blocks."""
    ratio_low: float
    """Lower end of its 95 % interval."""
    ratio_high: float
    """Upper end of its 95 % interval."""
    differs: bool
    """Whether the two can be told apart."""


Race = Callable[[Graph, Graph], Raced]
"""Times the second graph beside the first."""


def race_on(
    target: Target, module: ModuleType, *, variant: str, macs: int, progress: Progress = silent
) -> Race:
    """Compile two int8 graphs for a target and time them in turns on its device; about two seconds.

    Args:
        target: what to compile for.
        module: its back end.
        variant: the model's full name.
        macs: multiply-accumulates of one inference.
        progress: told how far the measurement is.

    Returns:
        A function that raises ConversionError, MissingDependency or DeviceError where the target refuses one.
    """

    device = open_device(target.device)

    def race(first: Graph, second: Graph) -> Raced:
        with scratch("race") as folder:
            jobs = []
            for name, graph in (("first", first), ("second", second)):
                place = Path(folder) / name
                place.mkdir()
                files = module.compile(graph, target, place)
                jobs.append(
                    Job(
                        model=files[0],
                        companions=tuple(files[1:]),
                        runtime=target.runtime,
                        options=target.options,
                        target=target.name,
                        variant=variant,
                        precision="int8",
                        macs=macs,
                        min_time_s=_TIME_S,
                        min_runs=_RUNS,
                        max_time_s=_MOST_S,
                    )
                )
            a, b, comparison = device.compare(jobs[0], jobs[1], progress=progress)
        low, high = comparison.ratio_low, comparison.ratio_high
        return Raced(a.p50_ms, b.p50_ms, comparison.ratio, low, high, comparison.differs)

    return race
