"""The timed loop, the same for every runtime."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

# Long enough for the median of a fast model's window to mean something, short enough for a slow one's.
WINDOW_S = 0.05
WINDOW_RUNS = 5
STEADY_WITHIN = 0.02


def timed_runs(
    prepare: Callable[[], None],
    infer: Callable[[], object],
    *,
    min_s: float,
    min_runs: int = 1,
    max_s: float = float("inf"),
) -> list[float]:
    """Run until ``min_s`` seconds and ``min_runs`` runs are reached, or ``max_s`` seconds; at least once.

    ``prepare`` copies the input into the runtime's own tensor before each run and is not timed; nor is the
    output read. What is timed is ``infer``, one synchronous inference, and nothing else.

    Returns:
        The duration of each run in milliseconds, in the order they ran.
    """
    clock = time.perf_counter_ns
    samples: list[int] = []
    append = samples.append
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a collection inside a run would be measured as the model's
    try:
        began = clock()
        min_ns, elapsed = min_s * 1e9, 0
        max_ns = max_s * 1e9
        while not samples or ((elapsed < min_ns or len(samples) < min_runs) and elapsed < max_ns):
            prepare()
            start = clock()
            infer()
            end = clock()
            append(end - start)
            elapsed = end - began
    finally:
        if collecting:
            gc.enable()
    return [ns / 1e6 for ns in samples]


def warm_up(
    prepare: Callable[[], None], infer: Callable[[], object], max_s: float
) -> tuple[list[float], bool]:
    """Run windows until the median of the newest is within 2 % of the one before, at most ``max_s`` seconds.

    Returns:
        The duration of each run in milliseconds, and whether it became steady.
    """
    samples: list[float] = []
    began = time.perf_counter()
    previous: float | None = None
    while (left := max_s - (time.perf_counter() - began)) > 0:
        window = timed_runs(prepare, infer, min_s=WINDOW_S, min_runs=WINDOW_RUNS, max_s=left)
        samples += window
        newest = statistics.median(window)
        if previous is not None and abs(newest - previous) <= STEADY_WITHIN * previous:
            return samples, True
        previous = newest
    return samples, False
