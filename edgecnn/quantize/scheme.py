"""The choices that turn a float graph into an int8 graph."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Estimator = Literal["mean", "minmax", "percentile", "mse"]
ESTIMATORS: tuple[Estimator, ...] = ("mean", "minmax", "percentile", "mse")


@dataclass(frozen=True)
class Scheme:
    """One way to quantise. None leaves a choice open: calibration takes whichever is better."""

    ranges: Estimator | None = None
    """How a tensor's range follows from the calibration images: the mean of their extremes, the widest
    extremes, a percentile of all values, or the range of least squared error."""
    per_channel: bool = True
    """Weights have one scale an output channel; else one a tensor."""
    symmetric: bool = False
    """Activations have their zero point at 128, or at 0 where they are never negative."""
    bias_correction: bool | None = None
    """Biases make up for the mean shift that rounding causes."""
    equalize: bool | None = None
    """Channels in front of depthwise convolutions are brought to one range, where that works."""
    weight_bits: Literal[7, 8] = 8
    """8: weights in [-127, 127]. 7: in [-63, 63], which no pair of u8 x s8 products saturates."""
    portable_layers: frozenset[str] = frozenset()
    """Nodes whose scales are so large that no pair of u8 x s8 products saturates."""
    float_layers: frozenset[str] = frozenset()
    """Nodes that compute in float."""

    def filled(self, settled: Scheme) -> Scheme:
        """The scheme with what it leaves open taken from another."""
        return replace(
            self,
            ranges=self.ranges or settled.ranges,
            bias_correction=settled.bias_correction if self.bias_correction is None else self.bias_correction,
            equalize=settled.equalize if self.equalize is None else self.equalize,
        )

    def differences(self, other: Scheme) -> str:
        """What is other than in another scheme, in words; ``as it is`` where nothing is."""
        words = []
        if self.ranges != other.ranges:
            words.append(f"{self.ranges or 'any'} ranges")
        if self.per_channel != other.per_channel:
            words.append("weights per channel" if self.per_channel else "weights per tensor")
        if self.symmetric != other.symmetric:
            words.append("activations symmetric" if self.symmetric else "activations asymmetric")
        if self.bias_correction != other.bias_correction:
            words.append("biases corrected" if self.bias_correction else "biases as they are")
        if self.equalize != other.equalize:
            words.append("channels equalised" if self.equalize else "channels as they are")
        if self.weight_bits != other.weight_bits:
            words.append(f"{self.weight_bits}-bit weights")
        if self.portable_layers != other.portable_layers:
            words.append(f"{_layers(self.portable_layers)} that cannot saturate")
        if self.float_layers != other.float_layers:
            words.append(f"{_layers(self.float_layers)} in float")
        return ", ".join(words) or "as it is"

    def to_json(self) -> dict[str, Any]:
        """A plain dict; sets are sorted lists."""
        return {
            name: sorted(value) if isinstance(value, frozenset) else value
            for name, value in asdict(self).items()
        }


def _layers(names: frozenset[str]) -> str:
    return "1 layer" if len(names) == 1 else f"{len(names)} layers"


DEFAULT = Scheme()
"""What an export uses unless something else is asked."""
