"""From what the user typed to which network is meant. No framework is imported, no network made."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgecnn.errors import ConfigError
from edgecnn.source.recipes import read_recipe
from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.target import did_you_mean
from edgecnn.zoo import make_spec, resolve, variant
from edgecnn.zoo.about import about
from edgecnn.zoo.shipped import shipped_weights

Kind = Literal["zoo", "torchvision", "timm", "factory", "onnx"]

LIBRARIES: tuple[Kind, ...] = ("torchvision", "timm")
_MAX_SIDE = 8192


@dataclass(frozen=True)
class Request:
    """One network, before anything of it is read or built."""

    kind: Kind
    """Where it comes from."""
    name: str
    """The zoo's canonical name, the library's name for it, or the path of the file."""
    variant: str
    """The name in file names."""
    spec: ModelSpec | None
    """Which variant of the zoo's network; None for other sources."""
    function: str | None
    """The function in a Python file that returns the network."""
    input_shape: tuple[int, int, int, int] | None
    """NCHW; None where the source says it itself."""
    classes: int | None
    """Number of outputs, where a library is asked for another than its own."""
    weights: str
    """``imagenet`` (published), the name of shipped ones, ``random``, ``own`` (those that the source comes
    with), or a checkpoint."""
    preprocess: Preprocess | None
    """Input preparation, where the user names one."""
    options: tuple[str, ...]
    """The source and its options as words of a command line."""


def make_request(
    model: str | Path,
    *,
    width: float | None = None,
    resolution: int | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    input_shape: tuple[int, ...] | str | None = None,
    weights: str | Path | None = None,
    preprocess: str | Path | None = None,
) -> Request:
    """What ``model`` and its options mean.

    Args:
        model: a name of the zoo, ``torchvision:NAME``, ``timm:NAME``, the path of an .onnx file, or
            ``path/to/file.py:function``.
        width: multiplier on the channel counts (zoo).
        resolution: side of the input in pixels (zoo).
        classes: number of outputs (zoo and libraries).
        in_channels: channels of the input (zoo).
        input_shape: NCHW, as numbers or as ``1,3,224,224`` (all but the zoo).
        weights: ``imagenet``, ``cifar10``, ``random``, or a checkpoint file; None for the source's own. A
            checkpoint of ``edgecnn train`` says itself which width, resolution and classes it has.
        preprocess: a name of ``recipes.RECIPES`` or a ``preprocess.json``.

    Raises:
        ConfigError: an unknown source, or an option that it does not have.
    """
    if not isinstance(model, (str, Path)):
        raise ConfigError(
            f"a network is named, not passed as a {type(model).__name__}",
            hint="pass a name of the zoo or the path of an .onnx file, or write a factory: file.py:function",
        )
    model = str(model)
    recipe = None if preprocess is None else read_recipe(str(preprocess))
    chosen = None if weights is None else str(weights)
    kind, name, function = _identify(model)
    given: dict[str, Any] = {
        "width": width,
        "resolution": resolution,
        "classes": classes,
        "in_channels": in_channels,
        "input_shape": input_shape,
        "weights": chosen,
    }
    _refuse_foreign(kind, model, given)
    if kind == "zoo":
        # A checkpoint that says which network it holds need not be told again.
        known = _trained(name, chosen)
        spec = make_spec(
            name,
            known.get("width") if width is None else width,
            known.get("resolution") if resolution is None else resolution,
            known.get("classes") if classes is None else classes,
            known.get("in_channels") if in_channels is None else in_channels,
        )
        chosen = chosen or next(iter(shipped_weights(spec)), "imagenet")
        words = _words(spec.name, given | asdict(spec) | {"name": None, "weights": chosen}, preprocess)
        return Request(
            kind, spec.name, variant(spec), spec, None, spec.input_shape, None, chosen, recipe, words
        )
    shape = None if input_shape is None else _shape(input_shape)
    if kind == "factory" and shape is None:
        raise ConfigError(
            f"which input does {model} take?", hint="say its shape, N,C,H,W: --input-shape 1,3,224,224"
        )
    stem = Path(name).stem if kind in ("factory", "onnx") else f"{kind}_{name}"
    label = re.sub(r"[^\w.]+", "_", f"{stem}_{function}" if function else stem).strip("._") or "model"
    size = "" if shape is None else f"-{shape[2]}" if shape[2] == shape[3] else f"-{shape[2]}x{shape[3]}"
    outputs = "" if classes is None else f"-{classes}classes"
    words = _words(model, given | {"input_shape": shape}, preprocess)
    chosen = chosen or ("imagenet" if kind in LIBRARIES else "own")
    return Request(
        kind, name, f"{label}{size}{outputs}", None, function, shape, classes, chosen, recipe, words
    )


def _trained(name: str, weights: str | None) -> dict[str, Any]:
    """What a checkpoint of ``edgecnn train`` says of the network in it, where that is the one asked for."""
    network = about(Path(weights)).get("network") if weights is not None else None
    same = isinstance(network, dict) and network.get("name") == resolve(name).name
    return network if same and isinstance(network, dict) else {}


def is_file_source(model: str) -> bool:
    """Whether what was typed names a file that holds a network."""
    return model.lower().endswith(".onnx") or ".py:" in model or model.endswith(".py")


def _identify(model: str) -> tuple[Kind, str, str | None]:
    for library in LIBRARIES:
        if model.startswith(f"{library}:"):
            return library, model.removeprefix(f"{library}:"), None
    if model.lower().endswith(".onnx"):
        return "onnx", model, None
    if model.endswith(".py"):
        raise ConfigError(
            f"which function of {model} returns the network?", hint=f"name it: {model}:my_function"
        )
    path, _, function = model.rpartition(":")
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise ConfigError(f"there is no file {path}", hint="it is looked up from the current folder")
        if not function.isidentifier():
            raise ConfigError(f"'{function}' is no name of a function", hint=f"as in {path}:my_function")
        return "factory", path, function
    if ":" in model and not Path(model).exists():
        prefix = model.partition(":")[0]
        hint = did_you_mean(prefix, [*LIBRARIES])
        raise ConfigError(f"unknown source '{prefix}:'", hint=f"{hint}, path/to/model.onnx, file.py:function")
    if Path(model).is_file():
        raise ConfigError(f"{model} is a file of an unknown kind", hint="an ONNX file ends in .onnx")
    return "zoo", model, None


_FOREIGN: dict[Kind, tuple[str, ...]] = {
    "zoo": ("input_shape",),
    "torchvision": ("width", "resolution", "in_channels"),
    "timm": ("width", "resolution", "in_channels"),
    "factory": ("width", "resolution", "in_channels", "classes"),
    "onnx": ("width", "resolution", "in_channels", "classes", "weights"),
}
"""The options that a kind of source does not have."""


_NOT_ZOO = {
    "width": "only the zoo has widths",
    "resolution": "its input is given by --input-shape",
    "in_channels": "its input is given by --input-shape",
    "classes": "its outputs are what the file says",
}


def _refuse_foreign(kind: Kind, model: str, given: dict[str, object]) -> None:
    for option in _FOREIGN[kind]:
        if given[option] is None:
            continue
        name = f"--{option.replace('_', '-')}"
        if kind == "zoo":
            hint = "a network of the zoo has a square input: --resolution, and --in-channels"
        elif option == "weights":
            hint = "an .onnx file has its own"
        else:
            hint = _NOT_ZOO[option]
        raise ConfigError(f"{model} has no {name}", hint=hint)
    if kind == "factory" and given["weights"] in ("imagenet", "random"):
        raise ConfigError(
            f"{model} has the weights that its function gives it",
            hint="leave --weights out, or pass a checkpoint file",
        )


def _shape(given: tuple[int, ...] | str) -> tuple[int, int, int, int]:
    words = given.replace("x", ",").split(",") if isinstance(given, str) else [str(size) for size in given]
    try:
        sizes = [int(word) for word in words]
    except ValueError:
        sizes = []
    if len(sizes) != 4 or min(sizes) < 1 or max(sizes[2:]) > _MAX_SIDE:
        raise ConfigError(
            f"'{given}' is no input shape",
            hint=f"four numbers N,C,H,W, height and width up to {_MAX_SIDE}, such as 1,3,224,224",
        )
    if sizes[0] != 1:
        raise ConfigError(f"a batch of {sizes[0]} cannot be", hint="artifacts take one image: 1,C,H,W")
    return sizes[0], sizes[1], sizes[2], sizes[3]


def _words(model: str, given: dict[str, Any], preprocess: str | Path | None) -> tuple[str, ...]:
    words = [model]
    for option, value in (*given.items(), ("preprocess", preprocess)):
        if value is not None:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{option.replace('_', '-')}", shown]
    return tuple(words)
