"""The cost of a network as values: what :func:`edgecnn.cost.analyze` returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PRECISIONS = ("fp32", "int8")
"""The precisions in which bytes are counted; each is a field of :class:`Bytes`."""


@dataclass(frozen=True)
class Bytes:
    """The same tensors in both precisions that are counted."""

    fp32: int
    """Bytes with 4 a value."""
    int8: int
    """Bytes with 1 a value, and 4 for each value of a bias."""


@dataclass(frozen=True)
class Extent:
    """What of the input one output element depends on, along one axis."""

    size_px: int
    """Length of the receptive field, in input pixels; it may reach over the input's borders."""
    stride_px: int
    """Distance between the fields of neighbouring outputs, in input pixels; also called jump."""
    first_centre_px: float
    """Centre of the first output's field. Pixel i covers i to i + 1, so a network's input has 0.5 here."""
    everything: bool = False
    """Whether it depends on the whole map; then ``size_px`` is the input's length."""


@dataclass(frozen=True)
class ReceptiveField:
    """What of the input one output element depends on."""

    height: Extent
    """Along the image's height."""
    width: Extent
    """Along the image's width."""


@dataclass(frozen=True)
class LayerCost:
    """What one operator costs for one input. Shapes are NCHW for feature maps."""

    name: str
    """The node's name."""
    op_type: str
    """ONNX's operator name."""
    activation: str | None
    """The Relu or Clip that the operator applies to its own result, None where there is none."""
    kernel: tuple[int, ...] | None
    """Height and width of a convolution's or pooling's window, for GlobalAveragePool the map; else None."""
    stride: tuple[int, ...] | None
    """The window's steps along height and width, in elements of its input; None where there is no window."""
    dilation: tuple[int, ...] | None
    """Distance between the window's taps; None where there is no window."""
    groups: int | None
    """Groups of a convolution's channels, as many as channels where it is depthwise; else None."""
    input_shapes: tuple[tuple[int, ...], ...]
    """Shapes of the activations that it reads."""
    output_shape: tuple[int, ...]
    """Shape of what it writes."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products."""
    other_ops: int
    """Operations of everything else, activation included; :mod:`edgecnn.cost.layers` says which."""
    counted: bool
    """Whether the arithmetic of this operator is known; where it is not, ``other_ops`` is too small."""
    params: int
    """Stored values: weights, biases, normalisation's scales and shifts."""
    weights: Bytes
    """Bytes of ``params``."""
    read: Bytes
    """Bytes of activations read, each tensor once."""
    written: Bytes
    """Bytes of activations written."""
    live: Bytes
    """Bytes of all activations that must be in memory while it runs: its own, and those needed later."""
    receptive: ReceptiveField | None
    """Of each output element; None where it is not known, or the network's input is no image."""

    def macs_per_byte(self, precision: str) -> float:
        """Arithmetic intensity: MACs over the bytes of activations read and written and of weights."""
        return _ratio(self.macs, _moved(self, precision))


@dataclass(frozen=True)
class Costs:
    """What a network costs for one input."""

    name: str
    """Of the network, as in file names."""
    input_shape: tuple[int, ...]
    """Shape of the network's input, NCHW."""
    layers: tuple[LayerCost, ...]
    """One for each operator that a runtime executes, in execution order."""
    trained_params: int | None = None
    """Learned parameters of the network that the graph was exported from, None where that is not known."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(layer.macs for layer in self.layers)

    @property
    def other_ops(self) -> int:
        """Operations that are no multiply-accumulates."""
        return sum(layer.other_ops for layer in self.layers)

    @property
    def params(self) -> int:
        """Deployed parameters: the values that the graph stores, batch norm folded where that can be."""
        return sum(layer.params for layer in self.layers)

    @property
    def weights(self) -> Bytes:
        """Bytes of ``params``."""
        return _sum(layer.weights for layer in self.layers)

    @property
    def read(self) -> Bytes:
        """Bytes of activations read, by all layers together."""
        return _sum(layer.read for layer in self.layers)

    @property
    def written(self) -> Bytes:
        """Bytes of activations written, by all layers together."""
        return _sum(layer.written for layer in self.layers)

    @property
    def peak_layer(self) -> LayerCost:
        """The first layer at which activations take the most memory; its ``live`` is the peak."""
        return max(self.layers, key=lambda layer: layer.live.fp32)

    @property
    def receptive(self) -> ReceptiveField | None:
        """Of each element of the network's output."""
        return self.layers[-1].receptive

    @property
    def not_counted(self) -> tuple[str, ...]:
        """The operators whose arithmetic is not known, by ONNX's names."""
        return tuple(sorted({layer.op_type for layer in self.layers if not layer.counted}))

    def macs_share(self, layer: LayerCost) -> float:
        """A layer's part of all MACs, from 0 to 1."""
        return _ratio(layer.macs, self.macs)

    def params_share(self, layer: LayerCost) -> float:
        """A layer's part of all deployed parameters, from 0 to 1."""
        return _ratio(layer.params, self.params)

    def macs_per_byte(self, precision: str) -> float:
        """Arithmetic intensity of the whole: MACs over all bytes that the layers move, one after another."""
        return _ratio(self.macs, _moved(self, precision))


def _moved(cost: LayerCost | Costs, precision: str) -> int:
    moved: int = sum(getattr(part, precision) for part in (cost.read, cost.written, cost.weights))
    return moved


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _sum(parts: Iterable[Bytes]) -> Bytes:
    found = list(parts)
    return Bytes(sum(part.fp32 for part in found), sum(part.int8 for part in found))
