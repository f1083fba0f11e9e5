"""What a page says while it runs a job, and what of it becomes a measurement."""

from __future__ import annotations

import json
import math
import queue
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from edgecnn.devices.browser.about import text_of
from edgecnn.errors import DeviceError
from edgecnn.progress import Progress

DOING = ("loading", "warming up", "measuring", "computing the outputs")
"""What a page may be doing, in this order."""

_KEEP_OPEN = "keep the page in front and the screen on until it shows the result"
# Of what a page says goes wrong, by its kind: what the user can do.
_HINTS = {
    "hidden": _KEEP_OPEN,
    "threads": "--threads 1; or --usb or --https, with which a page may have threads",
    "accelerator": "another browser, or its newest version, may offer it; wasm runs everywhere",
}
# What a measurement must have of a page, and what it is there.
_NUMBERS = ("load_ms", "first_ms", "runs")
_LISTS = ("warmup_ms", "samples_ms", "block_runs", "block_at_s", "block_took_s")


@dataclass(frozen=True)
class Told:
    """What a page told, from its first word to its result."""

    about: dict[str, Any]
    """Of the browser."""
    result: dict[str, Any]
    """Of the run."""
    started_at: str
    """When the page took the job, ISO 8601 in UTC."""
    timed_at: float | None
    """When it began the timed runs, in seconds since 1970."""


def listen(
    events: queue.Queue[dict[str, Any]],
    who: str,
    *,
    address: str,
    open_within_s: float,
    silent_s: float,
    run_s: float,
    progress: Progress,
) -> Told:
    """Follow what a page says up to its result.

    Args:
        events: of the exchange.
        who: runtime and model, for errors.
        address: where the page waits to be opened.
        open_within_s: how long to wait for that.
        silent_s: a page that has said nothing for this long is given up.
        run_s: all of the run may take no longer.
        progress: told how far it is.

    Raises:
        DeviceError: no page was opened in time, or it was closed, went to sleep, failed or sent nonsense.
    """
    progress(f"waiting for a browser at {address}", 0.0, None)
    taken = _next(events, time.monotonic() + open_within_s)
    if taken is None:
        raise DeviceError(
            f"no browser has opened the page within {open_within_s:g} s",
            hint="open the address, or scan the code, while the command waits",
        )
    started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    doing, done, timed_at = DOING[0], 0.0, None
    end = time.monotonic() + run_s
    while True:
        event = _next(events, min(end, time.monotonic() + silent_s))
        if event is None and time.monotonic() >= end:
            raise DeviceError(f"{who} has taken longer than {run_s:g} s in the browser", hint=_KEEP_OPEN)
        if event is None:
            raise DeviceError(
                f"the browser has reported nothing for {silent_s:g} s while {doing}: it may be asleep",
                hint=_KEEP_OPEN,
            )
        if event["event"] == "gone":
            raise DeviceError(f"the page was closed while {doing}", hint=_KEEP_OPEN)
        if event["event"] == "error":
            kind = text_of(event, "kind")
            said = text_of(event, "message") or "no message"
            raise DeviceError(f"{who} failed in the browser while {doing}: {said}", hint=_HINTS.get(kind))
        if event["event"] == "result":
            return Told(taken, event, started_at, timed_at)
        if event.get("doing") in DOING and _is_number(event.get("done")):
            doing, done = event["doing"], min(max(float(event["done"]), 0.0), 1.0)
        if doing == "measuring" and timed_at is None:
            timed_at = time.time()
        progress(doing, done, 1.0)


def write_result(told: Told, facts: dict[str, Any], folder: Path) -> None:
    """Write ``result.json``, as the agent would, from what a page measured.

    Args:
        told: by the page.
        facts: fields of a measurement that are known otherwise.
        folder: of the job.

    Raises:
        DeviceError: the page sent something else than a measurement.
    """
    result = told.result
    numbers = [result.get(name) for name in _NUMBERS]
    lists = [result.get(name) for name in _LISTS]
    if not (
        all(map(_is_number, numbers))
        and all(isinstance(values, list) and all(map(_is_number, values)) for values in lists)
        and isinstance(result.get("warm"), bool)
    ):
        raise DeviceError("the page sent something else than a measurement")
    cores = told.about.get("cores")
    kept = {
        **{name: result[name] for name in (*_NUMBERS, *_LISTS, "warm")},
        "cpu_count": cores if _is_number(cores) else None,
        "telemetry": _telemetry(result.get("telemetry")),
        **facts,
    }
    (folder / "result.json").write_text(json.dumps(kept), encoding="utf-8")


def write_outputs(told: Told, raw: Path, folder: Path) -> None:
    """Write ``outputs.npy``, as the agent would, from the bytes that a page sent batch by batch.

    Raises:
        DeviceError: they are not the outputs of all the inputs.
    """
    try:
        dtype = np.dtype(told.result["output"]["dtype"])
        shape = [int(size) for size in told.result["output"]["shape"]]
        if dtype.kind not in "fiu" or min(shape) < 1:
            raise ValueError(f"{dtype} {shape} is no tensor")
        values = np.fromfile(raw, dtype.newbyteorder("<")).astype(dtype, copy=False)
        outputs = values.reshape(-1, *shape[1:])
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise DeviceError(f"the page sent outputs that cannot be read: {error}") from error
    np.save(folder / "outputs.npy", outputs)


def _telemetry(readings: object) -> list[dict[str, Any]] | None:
    """The battery's readings, None where the browser gives none; they lie between the timed blocks."""
    kept = [
        {
            "at_s": reading["at_s"],
            "busy": False,
            **{name: reading[name] for name in ("battery_percent", "charging")},
        }
        for reading in (readings if isinstance(readings, list) else ())
        if isinstance(reading, dict)
        and _is_number(reading.get("at_s"))
        and _is_number(reading.get("battery_percent"))
        and isinstance(reading.get("charging"), bool)
    ]
    return kept or None


def _next(events: queue.Queue[dict[str, Any]], end: float) -> dict[str, Any] | None:
    try:
        return events.get(timeout=max(0.0, end - time.monotonic()))
    except queue.Empty:
        return None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
