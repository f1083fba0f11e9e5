"""A function in the user's own Python file that returns a network. It runs only because it was named."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

from edgecnn.errors import ConfigError, one_line
from edgecnn.source.recipes import RECIPES
from edgecnn.source.request import Request
from edgecnn.target import did_you_mean
from edgecnn.zoo.checkpoint import load_into
from edgecnn.zoo.weights import LoadedWeights, read_weights_file, weights_of_file


def build(request: Request) -> nn.Module:
    """Run the file and call its function; the network is put into eval mode.

    Raises:
        ConfigError: no such function, an error in the user's code, or a result that is no ``nn.Module``.
    """
    path = Path(request.name).resolve()
    where = f"{request.name}:{request.function}"
    known: list[str] = []
    spec = importlib.util.spec_from_file_location(f"edgecnn_factory_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    sys.path.insert(0, str(path.parent))  # as for a script: files beside it can be imported
    try:
        # Weights that it draws at random are the same each time.
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)  # type: ignore[attr-defined]
            spec.loader.exec_module(module)
            function = getattr(module, str(request.function), None)
            known = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
            made = function() if callable(function) else None
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        line = _line_in(error, path)
        raise ConfigError(
            f"{where} failed{line}: {type(error).__name__}: {one_line(error)}",
            hint="the error is the file's own; it is called without arguments and returns a torch.nn.Module",
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    if not callable(function):
        hint = did_you_mean(str(request.function), known) if known else "it has none"
        raise ConfigError(f"{request.name} has no function '{request.function}'", hint=hint)
    if not isinstance(made, nn.Module):
        kind = "a class" if isinstance(made, type) else f"a {type(made).__name__}"
        raise ConfigError(
            f"{where} returns {kind}", hint="a factory returns a network, an instance of torch.nn.Module"
        )
    return made.eval()


def load_weights(request: Request, module: nn.Module) -> LoadedWeights:
    """Load the checkpoint that the request names, or record the weights that the function gave.

    Raises:
        ConfigError: no such file.
        WeightsError: it cannot be read safely, or does not fit.
    """
    if request.weights != "own":
        checkpoint = read_weights_file(request.weights)
        load_into(module, request.variant, checkpoint)
        return weights_of_file(checkpoint, RECIPES["imagenet"])
    return LoadedWeights(
        kind="own",
        description=f"the weights that {Path(request.name).name}:{request.function} gave it",
        preprocess=RECIPES["imagenet"],
    )


def _line_in(error: BaseException, path: Path) -> str:
    """Where in the user's file it happened."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" in line {line}"
