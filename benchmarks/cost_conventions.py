"""How many operations other tools count for networks of the zoo, and what their figures are made of.

    pip install fvcore ptflops torchinfo
    python benchmarks/cost_conventions.py          counts, writes results and the tables of docs/cost.md
    python benchmarks/cost_conventions.py --check  fails where those are not what the results say

Nothing is timed, so the machine does not matter; ``--check`` needs none of the three packages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import table
from results import RESULTS, say, write

if TYPE_CHECKING:
    import torch

PAGE = RESULTS.parents[1] / "docs" / "cost.md"
TOOLS = ("torch", "fvcore", "ptflops", "torchinfo")
NETWORKS = (
    "lenet5",
    "alexnet",
    "vgg16",
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
)

# "GFLOPS" of the weights' records in torchvision 0.29.2, torchvision/models/*.py.
TORCHVISION_GFLOPS = {
    "alexnet": 0.714,
    "vgg16": 15.47,
    "resnet18": 1.814,
    "resnet50": 4.089,
    "densenet121": 2.834,
    "mobilenet_v2": 0.301,
    "mobilenet_v3_large": 0.217,
    "efficientnet_b0": 0.386,
}


def main() -> None:
    """Count with every tool, write ``results/cost_conventions.json``, fill in the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="fail where docs/cost.md is stale, write nothing"
    )
    if not parser.parse_args().check:
        result = {
            "versions": {name: importlib.metadata.version(name) for name in TOOLS},
            "networks": {name: count(name) for name in NETWORKS},
        }
        say(f"written to {write('cost_conventions', result)}")
    result = json.loads((RESULTS / "cost_conventions.json").read_text(encoding="utf-8"))
    current = PAGE.read_text(encoding="utf-8")
    filled = table.fill(current, {"counted": counted(result), "made of": made_of(result)})
    if parser.parse_args().check:
        if filled != current:
            sys.exit("docs/cost.md is stale: run python benchmarks/cost_conventions.py")
    else:
        PAGE.write_text(filled, encoding="utf-8")


def count(name: str) -> dict[str, Any]:
    """What edgecnn and every other tool count for one network, and what that is made of."""
    import ptflops
    import torch
    import torchinfo
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    from edgecnn.cost import analyze
    from edgecnn.cost.convention import CONVENTIONS
    from edgecnn.graph.from_torch import export
    from edgecnn.zoo import build, make_spec

    say(name)
    spec = make_spec(name)
    module, x = build(spec), torch.zeros(spec.input_shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    by_fvcore = FlopCountAnalysis(module, x)
    by_fvcore.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_ptflops = {
        backend: ptflops.get_model_complexity_info(
            module, spec.input_shape[1:], as_strings=False, print_per_layer_stat=False, backend=backend
        )[0]
        for backend in ("pytorch", "aten")
    }
    summary = torchinfo.summary(module, input_data=x, verbose=0)
    costs = analyze(export(module, name, spec.input_shape), sum(p.numel() for p in module.parameters()))
    return {
        "edgecnn": {
            "macs": costs.macs,
            "other_ops": costs.other_ops,
            "flops": CONVENTIONS["flops"].total(costs),
            "params_trained": costs.trained_params,
            "params": costs.params,
        },
        "FlopCounterMode": counter.get_total_flops(),
        "fvcore": int(by_fvcore.total()),
        "fvcore by operator": {operator: int(flops) for operator, flops in by_fvcore.by_operator().items()},
        "ptflops": by_ptflops["pytorch"],
        "ptflops aten": by_ptflops["aten"],
        "torchinfo": summary.total_mult_adds,
        "torchinfo params": summary.total_params,
        "parts": _parts(module, x),
    }


def _parts(module: torch.nn.Module, x: torch.Tensor) -> dict[str, int]:
    """What tools count beside MACs, in values, from the modules of one forward pass."""
    import torch
    from torch import nn

    parts = dict.fromkeys(
        ("biases", "norm values", "norm params", "relu values", "relu6 and silu values", "pooled values"), 0
    )

    def record(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            parts["biases"] += output.numel()
        if isinstance(layer, nn.BatchNorm2d):
            parts["norm values"] += output.numel()
            parts["norm params"] += sum(parameter.numel() for parameter in layer.parameters())
        if isinstance(layer, nn.ReLU):
            parts["relu values"] += output.numel()
        if isinstance(layer, (nn.ReLU6, nn.SiLU)):
            parts["relu6 and silu values"] += output.numel()
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            parts["pooled values"] += inputs[0].numel()

    hooks = [layer.register_forward_hook(record) for layer in module.modules()]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return parts


def counted(result: dict[str, Any]) -> str:
    """Millions that each tool prints."""
    header = ("network", "edgecnn MACs", "FlopCounterMode", "fvcore", "ptflops", "ptflops, aten", "torchinfo",
              "torchvision", "edgecnn flops")  # fmt: skip
    rows = []
    for name, found in result["networks"].items():
        tools = ("FlopCounterMode", "fvcore", "ptflops", "ptflops aten", "torchinfo")
        published = TORCHVISION_GFLOPS.get(name)
        rows.append(
            [
                name,
                _millions(found["edgecnn"]["macs"]),
                *(_millions(found[tool]) for tool in tools),
                "" if published is None else f"{published:g} G",
                _millions(found["edgecnn"]["flops"]),
            ]
        )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{_markdown(header, rows)}\n\nMillions. {versions}; torchvision 0.29.2 as it is published."


def made_of(result: dict[str, Any]) -> str:
    """What is left of each tool's figure once all that it is known to count is taken away."""
    header = ("network", "FlopCounterMode", "fvcore", "ptflops, aten", "torchinfo", "ptflops")
    rows = []
    for name, found in result["networks"].items():
        macs, parts = found["edgecnn"]["macs"], found["parts"]
        pooled_to_one = found["fvcore by operator"].get("adaptive_avg_pool2d", 0)
        once = pooled_to_one + parts["relu6 and silu values"]
        twice = 2 * (parts["norm values"] + parts["relu values"] + parts["pooled values"])
        left = (
            found["FlopCounterMode"] - 2 * macs,
            found["fvcore"] - macs - 2 * parts["norm values"] - pooled_to_one,
            found["ptflops aten"] - macs - parts["biases"],
            found["torchinfo"] - macs - parts["biases"] - parts["norm params"],
            found["ptflops"] - macs - parts["biases"] - twice - once,
        )
        rows.append([name, *(f"{rest:,}" for rest in left)])
    return _markdown(header, rows)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _millions(value: int) -> str:
    return f"{value / 1e6:,.2f}"


if __name__ == "__main__":
    main()
