"""What the agent's timing loop adds to an inference of about a millisecond.

    python benchmarks/loop_overhead.py

One process, one loaded model on ONNX Runtime with one thread, in turns of blocks of equally many runs:

- infer: a bare loop of inferences, with the clock read before and after the whole block.
- bound: the same with the input bound before each inference, as every measurement does.
- agent: ``timed_runs`` of edgecnn/agent/loop.py, which binds, and reads the clock around each inference.

The loop's overhead is what a block of the agent takes beyond one of ``bound``; how far the latencies that it
reports are off is their mean over that of ``infer``. Both are ratios of blocks of one round, whose order is
drawn; given are their median and its 95 % interval.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import table
from results import argument_parser, machine, say, write

from edgecnn.agent.loop import timed_runs, warm_up
from edgecnn.agent.runtimes import RUNTIMES, Loaded, import_runtime
from edgecnn.measurement import median_interval

WANTED_MS = 1.0
MOST_LAYERS = 256
SHAPE = (1, 16, 32, 32)


def main() -> None:
    """Measure, write ``results/loop_overhead.json``, print the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="of the three [default: %(default)s]")
    parser.add_argument("--runs", type=int, default=100, help="of a block [default: %(default)s]")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds, "runs": arguments.runs}
    module, result["onnxruntime"] = import_runtime("onnxruntime")
    with tempfile.TemporaryDirectory(prefix="edgecnn-benchmark-") as folder:
        model = _of_a_millisecond(module, Path(folder) / "model.onnx")
        blocks = _in_turns(model, arguments.rounds, arguments.runs)
    for name, took_ms in blocks.items():
        result[f"{name}_ms"] = [each / arguments.runs for each in took_ms]
    result["overhead"] = _beyond(blocks["agent"], blocks["bound"])
    result["reported_too_much"] = _beyond(blocks["reported"], blocks["infer"])
    written = write("loop_overhead", result)
    print(table.loop_overhead(result))
    say(f"blocks in {written}")


def _of_a_millisecond(module: Any, path: Path) -> Loaded:
    layers = 8
    for _ in range(3):  # a guess, and two corrections of it
        onnx.save(_chain(layers), path)
        model = RUNTIMES["onnxruntime"].load(module, str(path), 1, {})
        model.bind([_input()])
        samples, _ = warm_up(lambda: None, model.infer, 2.0)
        took_ms = statistics.median(samples[len(samples) // 2 :])
        if abs(took_ms / WANTED_MS - 1) < 0.1:
            break
        layers = min(MOST_LAYERS, max(1, round(layers * WANTED_MS / took_ms)))
    say(f"{layers} layers")
    return model


def _in_turns(model: Loaded, rounds: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each block, and the sum of what the agent reports of its own."""
    given = [_input()]
    took: dict[str, list[float]] = {"infer": [], "bound": [], "agent": [], "reported": []}

    def prepare() -> None:
        model.bind(given)

    def infer() -> None:
        for _ in range(runs):
            model.infer()

    def bound() -> None:
        for _ in range(runs):
            prepare()
            model.infer()

    def agent() -> None:
        took["reported"].append(sum(timed_runs(prepare, model.infer, min_s=0, min_runs=runs)))

    generator = random.Random(0)
    for _ in range(rounds):
        for block in generator.sample([infer, bound, agent], 3):
            began = time.perf_counter_ns()
            block()
            took[block.__name__].append((time.perf_counter_ns() - began) / 1e6)
    return took


def _input() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def _chain(layers: int) -> onnx.ModelProto:
    """So many convolutions, one after the other."""
    text = "\n".join(
        f"x{i + 1} = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(x{i}, w)" for i in range(layers)
    )
    size = ",".join(map(str, SHAPE))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\n'
        f"chain (float[{size}] x0) => (float[{size}] x{layers}) <float[16,16,3,3] w> {{ {text} }}"
    )
    # Of unit gain, or the values would leave the range of floats with their many layers.
    weights = np.random.default_rng(0).normal(size=(16, 16, 3, 3)) / np.sqrt(16 * 9)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(np.float32), "w"))
    return model


def _beyond(blocks: list[float], bare: list[float]) -> dict[str, Any]:
    """By which part of it a block takes longer than the bare one of its round."""
    parts = [block / other - 1 for block, other in zip(blocks, bare, strict=True)]
    return {"median": statistics.median(parts), "interval": median_interval(parts)}


if __name__ == "__main__":
    main()
