"""Runs in the emulated machine: loads a model as the agent does, and marks where each run begins and ends.

Started there as ``python -m edgecnn.count.guest RUNTIME MODEL OPTIONS PACKAGES RUNS``, where of this package
only the agent is at hand. The plug-in writes its count at every marker: two for each of ``EMPTY_RUNS`` empty
runs, which tell what the markers themselves take, then two for the first inference and each of ``RUNS`` more.
What is no count goes to ``guest.json``: versions, or the sentence of an error.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import select
import sys
from collections.abc import Callable
from typing import Any

from edgecnn.agent.runtimes import RUNTIMES, import_runtime

# As in plugin.c.
MARKER = 0x5EED0000

EMPTY_RUNS = 21


def main(arguments: list[str]) -> None:
    """Carry it out, and leave ``guest.json``."""
    runtime, model, options, packages, runs = arguments
    sys.path.append(packages)
    try:
        said = mark_runs(runtime, model, json.loads(options), int(runs))
    except Exception as error:  # whatever a runtime raises: its sentence is wanted, not our stack
        said = {"error": f"{type(error).__name__}: {error}"}
    with open("guest.json", "w", encoding="utf-8") as file:
        json.dump(said, file)
    # Without the runtime's own teardown, in which nothing is counted and some crash.
    os._exit(0)


def mark_runs(runtime: str, model: str, options: dict[str, Any], runs: int) -> dict[str, str | None]:
    """Run nothing, then the model, with a marker before and after each run.

    Returns:
        The versions of what computes.

    Raises:
        Exception: whatever the runtime raises for a model that it cannot load or run.
    """
    import numpy as np

    module, version = import_runtime(runtime)
    loaded = RUNTIMES[runtime].load(module, model, 1, options)
    # The same everywhere, since some kernels branch on values or look them up.
    bytes_in_turn = np.arange(256)
    inputs = []
    for spec in loaded.inputs:
        values = bytes_in_turn / 255 if np.dtype(spec.dtype).kind == "f" else bytes_in_turn
        inputs.append(np.resize(values, spec.shape).astype(spec.dtype))
    gc.disable()
    for call in [nothing] * EMPTY_RUNS + [loaded.infer] * (1 + runs):
        stop_if_abandoned()
        loaded.bind(inputs)
        marked(call)
    return {"runtime": version, "numpy": np.__version__, "python": platform.python_version()}


def marked(call: Callable[[], object]) -> None:
    """Make a call between two markers."""
    mark()
    call()
    mark()


def mark() -> None:
    """Make the system call that the plug-in waits for; there is no such process."""
    try:
        os.getpgid(MARKER)
    except ProcessLookupError:
        return


def nothing() -> None:
    """An empty run."""


def stop_if_abandoned() -> None:
    """End the process once standard input has ended: the one who asked is gone."""
    if select.select([0], [], [], 0)[0]:
        os._exit(3)


if __name__ == "__main__":
    main(sys.argv[1:])
