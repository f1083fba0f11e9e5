"""Latency of edgecnn's MobileNetV2 files against the other converters' files for the same runtime.

    python benchmarks/latency.py

Each pair runs on one installation of the runtime, one thread, float32 input and output, in turns of short
blocks (edgecnn.devices.agent_device): the ratio of two neighbouring blocks is free of whatever else the
machine does. Two processes that run one model may differ by 2 % for as long as they live, so each pair is
measured in several rounds of new processes; the table gives the median round and the span of all the rounds'
95 % intervals.

TFLite: litert-torch (int8: ai-edge-quantizer) and onnx2tf. ONNX Runtime: its quantize_static and the plain
torch.onnx.export. OpenVINO: NNCF on the OpenVINO model and openvino.convert_model of the plain export.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import ours
import table
from peers.environments import PEERS, Peer, built
from results import argument_parser, machine, say, write

from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.measurement import Measurement, block_medians
from edgecnn.versions import tool_versions


def main() -> None:
    """Measure, write ``results/latency.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of new processes [default: %(default)s]")
    parser.add_argument("--seconds", type=float, default=4.0, help="a file and round [default: %(default)s]")
    parser.add_argument("--runtime", choices=sorted({peer.runtime for peer in PEERS}), help="only this one")
    arguments = parser.parse_args()
    work = arguments.work.resolve()

    say("compiling")
    files = ours.make().files(work / "edgecnn" / ours.MODEL)
    inputs = ours.inputs(work)
    peers = [peer for peer in PEERS if arguments.runtime in (None, peer.runtime)]
    theirs = {peer.name: built(peer, inputs, work) for peer in peers}
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": tool_versions(("openvino", "ai-edge-litert")),
        "threads": 1,
        "pairs": [],
    }
    for number in range(arguments.rounds):
        for peer in peers:
            for precision in ("fp32", "int8"):
                model = theirs[peer.name][precision]
                companions = [model.with_suffix(".bin")] if model.suffix == ".xml" else []
                other = _job(peer, peer.name, precision, [model, *companions], arguments.seconds)
                own_files = files[peer.runtime, precision]
                own = _job(peer, "edgecnn", precision, own_files, arguments.seconds)
                of_peer, of_ours, comparison = LOCAL.compare(other, own, seed=number)
                compared = f"{peer.runtime} {precision}, edgecnn / {peer.name}"
                say(f"round {number + 1}: {compared}: {comparison.ratio:.3f}")
                result["pairs"].append(
                    {
                        "round": number + 1,
                        "runtime": peer.runtime,
                        "precision": precision,
                        "peer": peer.name,
                        "ratio": comparison.ratio,
                        "ratio_low": comparison.ratio_low,
                        "ratio_high": comparison.ratio_high,
                        "edgecnn": _recorded(of_ours),
                        "other": _recorded(of_peer),
                    }
                )
    path = write("latency", result)
    print(table.latency(result))
    say(f"medians of every block in {path}")


def _job(peer: Peer, variant: str, precision: str, files: list[Path], seconds: float) -> Job:
    return Job(
        model=files[0],
        companions=tuple(files[1:]),
        runtime=peer.runtime,
        target=peer.runtime,
        variant=variant,
        precision=precision,
        min_time_s=seconds,
        warmup_max_s=2.0,
    )


def _recorded(measurement: Measurement) -> dict[str, Any]:
    """The block medians instead of tens of thousands of samples, and what the runtime told."""
    kept = asdict(measurement)
    for name in ("samples_ms", "warmup_ms", "block_runs", "block_at_s", "block_took_s", "telemetry"):
        del kept[name]
    for name in ("cpu_features", "options", "macs"):
        del kept[name]
    return {**kept, "p50_ms": measurement.p50_ms, "block_medians_ms": block_medians(measurement)}


if __name__ == "__main__":
    main()
