"""Names for nodes, tensors and weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir


class ReadableNames(ir.passes.InPlacePass):
    """Nodes are named by their module path, weights by their node, without slashes at the ends."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Name everything but the graph's inputs and outputs."""
        graph = model.graph
        taken = _Taken(str(value.name) for value in (*graph.inputs, *graph.outputs))
        # Taken out while nodes get their names: some of those may have been a weight's.
        stored = set(graph.initializers.values())
        graph.initializers.clear()
        for index, node in enumerate(graph):
            node.name = taken.unique(_module_path(node.name or f"{node.op_type}_{index}"))
            for output in node.outputs:
                if not output.is_graph_output():
                    output.name = node.name if len(node.outputs) == 1 else f"{node.name}:{output.index()}"
        renamed: dict[ir.Value, str] = {}
        for node in graph:
            for position, value in enumerate(node.inputs):
                if value is None or value not in stored or value in renamed:
                    continue
                role = {1: "weight", 2: "bias"}.get(position) if node.op_type in ("Conv", "Gemm") else None
                renamed[value] = taken.unique(f"{node.name}.{role or position}")
        for value, name in renamed.items():
            # A tensor of its own first: renaming a value renames its tensor, which the source graph has too.
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy(), name=name)
            value.name = name
            graph.initializers[name] = value
        return ir.passes.PassResult(model, True)


class _Taken:
    """Names given so far; the n-th asker for one gets it with ``_n`` behind."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._repeats: Counter[str] = Counter()

    def unique(self, name: str) -> str:
        """The name, or the next with a number behind it, which is taken from now on."""
        candidate = name
        while candidate in self._names:
            self._repeats[name] += 1
            candidate = f"{name}_{self._repeats[name] + 1}"
        self._names.add(candidate)
        return candidate


def _module_path(exported: str) -> str:
    """``/features/features.1/conv/conv.0/conv.0.0/Conv`` -> ``features.1.conv.0.0/Conv``.

    The exporter repeats the path of the enclosing container in each part; the last part that starts with
    its predecessor's name says it all.
    """
    *modules, op = exported.strip("/").split("/") if "/" in exported else ["", exported]
    path: list[str] = []
    for part in filter(None, modules):
        container = path[-1].rsplit(".", 1)[-1] if path else ""
        if path and (part.startswith(f"{path[-1]}.") or path[-1] == part):
            path[-1] = part
        elif container and part.startswith(f"{container}."):
            path[-1] += part[len(container) :]
        else:
            path.append(part)
    return "/".join([*path, op])
