"""The model zoo: which architectures there are, how each is built, and where trained weights come from.

Importing this package loads no framework: :func:`build` imports torch and the family's file when it is
called, and :mod:`edgecnn.zoo.weights`, which reads checkpoints, is imported by those who load weights.
"""

from edgecnn.zoo.labels import read_labels
from edgecnn.zoo.registry import Entry, build, list_models, make_spec, resolve, variant

__all__ = ["Entry", "build", "list_models", "make_spec", "read_labels", "resolve", "variant"]
