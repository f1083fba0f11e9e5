"""What published weights are; the families' TOML files hold the rows."""

from __future__ import annotations

from dataclasses import dataclass

from edgecnn.fetch.published import PublishedFile
from edgecnn.spec import Preprocess


@dataclass(frozen=True)
class PublishedWeights:
    """Trained weights that their authors published for a network of the zoo at its own size."""

    file: PublishedFile
    """The checkpoint."""
    description: str
    """Data set and origin."""
    preprocess: Preprocess
    """The input preparation of the published accuracy."""
    labels: str
    """The label set that names the outputs, for :func:`edgecnn.zoo.labels.read_labels`."""
    licence: str
    """Licence of the weights, by its SPDX name."""
    ignore: tuple[str, ...] = ()
    """Beginnings of names in the state dict that the network has no use for, such as auxiliary heads."""
    rename: tuple[str, str] | None = None
    """A regular expression for names in the state dict and what its matches become (as in ``re.sub``), for
    files older than the names."""
