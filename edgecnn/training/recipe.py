"""How a network is trained, as one value that a record can hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgecnn.errors import ConfigError

_MAX_EPOCHS = 10_000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result beside network, data and first weights."""

    epochs: int
    """Passes over the training images."""
    frozen_epochs: int = 0
    """The first of them in which only the last layer learns."""
    batch: int = 128
    """Images a step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with Nesterov momentum 0.9, or AdamW (arXiv:1711.05101)."""
    learning_rate: float = 0.1
    """The last layer's, at its peak; it rises in a straight line and falls as a cosine (arXiv:1608.03983)."""
    first_layer_rate: float = 1.0
    """The first layer's rate as a share of it; layers between lie between, on a geometric scale."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises."""
    weight_decay: float = 5e-4
    """Of weights; biases, batch norms and depthwise kernels go without (arXiv:1704.04861, section 3.2)."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes (arXiv:1512.00567, section 7); no teacher's are."""
    ema_steps: int = 200
    """Length in steps of the moving average of the weights, which is what is kept; fewer at the start."""
    distill_weight: float = 0.0
    """Share of the loss that is the teacher's (arXiv:1503.02531); 0 without a teacher."""
    temperature: float = 4.0
    """Of teacher's and network's softmax in that share; 4 as in arXiv:1910.10699, section 4."""
    seed: int = 0
    """Of first weights, order and augmentation."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: a number out of its range.
        """
        for name, value, low, high in (
            ("epochs", self.epochs, 1, _MAX_EPOCHS),
            ("frozen_epochs", self.frozen_epochs, 0, self.epochs),
            ("batch", self.batch, 2, 65_536),
            ("learning_rate", self.learning_rate, 1e-9, 100),
            ("first_layer_rate", self.first_layer_rate, 1e-9, 1),
            ("label_smoothing", self.label_smoothing, 0, 0.9),
            ("weight_decay", self.weight_decay, 0, 10),
            ("seed", self.seed, 0, 2**31 - 1),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(
                    f"{name.replace('_', ' ')} cannot be {value:g}", hint=f"from {low:g} to {high:g}"
                )

    def rate(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step, of ``steps`` in all."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the record."""
        return asdict(self)


def scratch(epochs: int = 30) -> Recipe:
    """For a network that begins with random weights."""
    return Recipe(epochs)


def transfer(epochs: int = 12) -> Recipe:
    """For one that begins with another task's: the last layer first, then all, the first layers least.

    The rates are those of discriminative fine-tuning (arXiv:1801.06146, section 3.2) on a geometric scale.
    """
    return Recipe(
        epochs,
        frozen_epochs=epochs // 3,
        batch=32,
        optimizer="adamw",
        learning_rate=2e-3,
        first_layer_rate=0.05,
        weight_decay=0.02,
        ema_steps=20,
    )
