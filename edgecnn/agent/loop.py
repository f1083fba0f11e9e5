"""The timed loop, the same for every runtime."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

# Long enough for the median of a fast model's window to mean something ...
WINDOW_S = 0.05
WINDOW_RUNS = 5
# ... and of one that takes a good part of the time there is, fewer runs: each averages over as long itself.
WINDOW_SHARE = 0.2
STEADY_WITHIN = 0.02

# A load counts fully for Linux's governors and its choice between big and little cores after some half-lives
# of 32 ms (LOAD_AVG_PERIOD in kernel/sched/pelt.c); until then two windows may agree on the lower clock.
SHORTEST_S = 0.25


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
    """Run windows of some runs until the median of the newest is within 2 % of the one before.

    It takes a quarter of a second at least and ends with the window in which ``max_s`` seconds are over, but
    not before the second one: of a model that takes seconds, these are two runs.

    Returns:
        The duration of each run in milliseconds, and whether it became steady.
    """
    samples: list[float] = []
    began = time.perf_counter()
    previous: float | None = None
    longest_s = WINDOW_SHARE * max_s
    while True:
        window = timed_runs(prepare, infer, min_s=WINDOW_S, min_runs=WINDOW_RUNS, max_s=longest_s)
        samples += window
        newest = statistics.median(window)
        elapsed = time.perf_counter() - began
        agree = previous is not None and abs(newest - previous) <= STEADY_WITHIN * previous
        if agree and elapsed >= min(SHORTEST_S, max_s):
            return samples, True
        if previous is not None and elapsed >= max_s:
            return samples, False
        previous = newest
