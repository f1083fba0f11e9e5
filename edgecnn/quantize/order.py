"""In which order layers of an int8 graph are best returned to float: most noise taken away for least cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgecnn.quantize.sensitivity import Noise, layers_of

# The longest run of layers that is weighed as one. An inverted residual with its addition has four.
_LONGEST_RUN = 8


@dataclass(frozen=True)
class Step:
    """Layers that are returned to float together."""

    layers: tuple[str, ...]
    """Names of their nodes, in execution order."""
    cost: float
    """What they cost in float, in the unit of the costs given."""
    gain: float
    """The noise that they take away, once the steps before them are in float."""


def order(model: ir.Model, noise: Noise, costs: Mapping[str, float]) -> list[Step]:
    """Steps whose sum is all layers, the best first.

    A layer alone takes away the noise of its weights. That of a tensor goes when all layers that write or
    read it are in float, so that a step is a layer, the layers around a tensor, or a run of layers that
    follow each other. Greedy: each step has the most gain for its cost, given those before it.

    Args:
        model: the float graph.
        noise: of its roundings.
        costs: of its layers in float, by node; 0 for what is not in it.
    """
    network = _Network.of(model, noise, costs)
    chosen = 0
    steps: list[Step] = []
    worth = {candidate: network.worth(candidate, 0) for candidate in network.candidates()}
    while worth:
        best = max(worth, key=lambda layers: (worth[layers][0], -layers.bit_count(), -layers))
        gain = worth[best][1]
        if not gain > 0:
            break
        new = best & ~chosen
        steps.append(Step(network.named(new), network.cost(new), gain))
        chosen |= best
        near = network.near(new)
        for candidate in list(worth):
            if not candidate & ~chosen:
                del worth[candidate]
            elif candidate & near:
                worth[candidate] = network.worth(candidate, chosen)
    if left := network.all & ~chosen:
        steps.append(Step(network.named(left), network.cost(left), 0.0))
    return steps


@dataclass(frozen=True)
class _Network:
    """Layers by their place in execution order; sets of layers are bits of an integer."""

    names: tuple[str, ...]
    costs: tuple[float, ...]
    roundings: tuple[tuple[int, float], ...]
    """The layers that must be in float for a rounding to go, and its noise."""
    touching: tuple[tuple[int, ...], ...]
    """Of each layer: the roundings that it has part in."""

    @staticmethod
    def of(model: ir.Model, noise: Noise, costs: Mapping[str, float]) -> _Network:
        pairs = list(layers_of(model))
        place = {node: index for index, pair in enumerate(pairs) for node in pair}
        around: dict[str, int] = {}
        for value in (*model.graph.inputs, *(output for _, last in pairs for output in last.outputs)):
            producer = value.producer()
            layers = {place[use.node] for use in value.uses()}
            layers |= {place[producer]} if producer is not None else set()
            around[str(value.name)] = sum(1 << layer for layer in layers)
        names = tuple(str(node.name) for node, _ in pairs)
        roundings = [(around[name], power) for name, power in noise.tensors.items()]
        roundings += [(1 << names.index(name), power) for name, power in noise.weights.items()]
        touching = tuple(
            tuple(index for index, (layers, _) in enumerate(roundings) if layers >> layer & 1)
            for layer in range(len(names))
        )
        # What costs nothing counts a little, so that rates stay finite.
        least = 1e-6 * (sum(costs.values()) or 1.0)
        return _Network(
            names, tuple(max(costs.get(name, 0.0), least) for name in names), tuple(roundings), touching
        )

    @property
    def all(self) -> int:
        return (1 << len(self.names)) - 1

    def candidates(self) -> set[int]:
        count = len(self.names)
        runs = {
            ((1 << length) - 1) << first
            for length in range(1, _LONGEST_RUN + 1)
            for first in range(count - length + 1)
        }
        return runs | {layers for layers, _ in self.roundings if layers}

    def worth(self, candidate: int, chosen: int) -> tuple[float, float]:
        """Gain for its cost, and gain, of a set of layers once ``chosen`` are in float."""
        new = candidate & ~chosen
        then = candidate | chosen
        indices = {index for layer in _places(new) for index in self.touching[layer]}
        gain = sum(
            power for layers, power in (self.roundings[index] for index in indices) if not layers & ~then
        )
        return gain / self.cost(new), gain

    def near(self, layers: int) -> int:
        """All layers that share a rounding with one of these."""
        found = layers
        for index in itertools.chain.from_iterable(self.touching[layer] for layer in _places(layers)):
            found |= self.roundings[index][0]
        return found

    def cost(self, layers: int) -> float:
        return sum(self.costs[layer] for layer in _places(layers))

    def named(self, layers: int) -> tuple[str, ...]:
        return tuple(self.names[layer] for layer in _places(layers))


def _places(layers: int) -> Iterator[int]:
    while layers:
        lowest = layers & -layers
        yield lowest.bit_length() - 1
        layers ^= lowest
