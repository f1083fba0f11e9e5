"""What 16-bit activations cost on a CPU: MobileNetV2 in fp32, int8, and int8 with int16 activations.

    python benchmarks/wide_activations.py

The accuracy guard returns layers to float. Activations of 16 bits are the other way; this is the latency of a
network that has them throughout, in TFLite, the one runtime of edgecnn's targets that has integer kernels for
them. All three files are of one converter, on one thread, timed in turns.
"""

from __future__ import annotations

from typing import Any

import ours
import table
from peers.environments import PEERS, built
from results import argument_parser, machine, say, write

from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.versions import tool_versions

FILES = {
    "fp32": "model_float32.tflite",
    "int8": "model_integer_quant.tflite",
    "int8 weights, int16 activations": "model_integer_quant_with_int16_act.tflite",
}


def main() -> None:
    """Measure, write ``results/wide_activations.json``, print the table."""
    work = argument_parser(__doc__).parse_args().work.resolve()
    [peer] = [peer for peer in PEERS if peer.name == "onnx2tf"]
    folder = built(peer, ours.inputs(work), work)["int8"].parent
    jobs = {
        kind: Job(folder / name, "tflite", target="tflite", variant=peer.name, precision=kind, min_time_s=4.0)
        for kind, name in FILES.items()
    }
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": tool_versions(("ai-edge-litert",)),
        "files": [],
    }
    for kind, job in jobs.items():
        say(kind)
        fp32, own, comparison = LOCAL.compare(jobs["fp32"], job)
        result["files"].append(
            {
                "activations": kind,
                "p50_ms": own.p50_ms,
                "fp32_p50_ms": fp32.p50_ms,
                "ratio": comparison.ratio,
                "ratio_low": comparison.ratio_low,
                "ratio_high": comparison.ratio_high,
            }
        )
    path = write("wide_activations", result)
    print(table.wide_activations(result))
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
