"""Networks of torchvision and timm, where these are installed: optional, and imported only when named."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from edgecnn.errors import ConfigError, MissingDependency, WeightsError
from edgecnn.fetch.cache import has_sha256
from edgecnn.fetch.fetch import fetch
from edgecnn.fetch.published import PublishedFile, UrlPlace
from edgecnn.progress import Progress
from edgecnn.source.recipes import RECIPES
from edgecnn.source.request import Request
from edgecnn.spec import Preprocess
from edgecnn.target import did_you_mean
from edgecnn.zoo.checkpoint import Checkpoint, load_into, read_checkpoint
from edgecnn.zoo.settle import settle_batch_norm
from edgecnn.zoo.weights import LoadedWeights, random_weights, read_weights_file, weights_of_file

Shape = tuple[int, int, int, int]
_DEFAULT_SHAPE: Shape = (1, 3, 224, 224)


def load(request: Request, progress: Progress) -> tuple[nn.Module, Shape, LoadedWeights]:
    """The library's network in eval mode, the shape of its input, and what it is loaded with.

    Raises:
        MissingDependency: the library is not installed, or does not import beside this torch.
        ConfigError: it has no such network, or no published weights for it.
        WeightsError: weights that cannot be had or do not fit.
    """
    make = _torchvision if request.kind == "torchvision" else _timm
    return make(request, _import(request.kind), progress)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MissingDependency(f"{name} is not installed", hint=f"pip install {name}") from error
        reason = str(error).partition("\n")[0]
    except Exception as error:  # operators that the installed torch does not have
        reason = str(error).partition("\n")[0]
    raise MissingDependency(
        f"{name} is installed but does not import: {reason}",
        hint="torch and torchvision must be of one build; or export the network to .onnx and pass that",
    )


def _torchvision(
    request: Request, torchvision: ModuleType, progress: Progress
) -> tuple[nn.Module, Shape, LoadedWeights]:
    models = importlib.import_module("torchvision.models")
    _check_name(request, models.list_models())
    options = {} if request.classes is None else {"num_classes": request.classes}
    published = models.get_model_weights(request.name).DEFAULT
    recipe, shape = _torchvision_recipe(published)
    shape = request.input_shape or shape
    module = models.get_model(request.name, weights=None, **options).eval()
    if request.weights != "imagenet":
        return module, shape, _chosen(request, module, shape, recipe)
    _refuse_changed_classes(request)
    # torch.hub's convention: the file's name ends in the first digits of its SHA-256.
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", published.url)
    if digits is None:
        raise WeightsError(
            f"torchvision publishes no SHA-256 for the weights of {request.name}",
            hint="pass --weights FILE with a copy of them, or --weights random",
        )
    name = published.url.rpartition("/")[2]
    checkpoint = read_checkpoint(
        fetch(PublishedFile(name, digits[1], None, (UrlPlace(published.url),)), progress)
    )
    load_into(module, request.variant, checkpoint)
    metrics = published.meta.get("_metrics", {}).get("ImageNet-1K", {})
    return module, shape, _published(
        checkpoint, recipe, f"ImageNet-1k weights of torchvision ({published})",
        tuple(published.meta["categories"]), metrics.get("acc@1"),
    )  # fmt: skip


def _timm(request: Request, timm: ModuleType, progress: Progress) -> tuple[nn.Module, Shape, LoadedWeights]:
    _check_name(request, timm.list_models())
    options = {} if request.classes is None else {"num_classes": request.classes}
    module: nn.Module = timm.create_model(request.name, pretrained=False, **options).eval()
    about: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    own = about.get("input_size", _DEFAULT_SHAPE[1:])
    shape = request.input_shape or (1, int(own[0]), int(own[1]), int(own[2]))
    recipe = RECIPES["imagenet"]
    if "mean" in about and "std" in about:
        side, ratio = int(own[1]), float(about.get("crop_pct") or 0.875)
        name = about.get("interpolation") if about.get("interpolation") in ("bilinear", "bicubic") else None
        recipe = Preprocess(
            max(side, int(side / ratio)), (side, side), tuple(about["mean"]), tuple(about["std"]),
            name or "bicubic",
        )  # fmt: skip
    if request.weights != "imagenet":
        return module, shape, _chosen(request, module, shape, recipe)
    _refuse_changed_classes(request)
    if not about.get("hf_hub_id"):
        raise WeightsError(
            f"timm publishes no weights for {request.name} whose SHA-256 can be checked",
            hint="pass --weights FILE with a copy of them, or --weights random",
        )
    checkpoint = _from_hub(str(about["hf_hub_id"]))
    load_into(module, request.variant, checkpoint)
    description = f"weights of timm ({about['hf_hub_id']})"
    return module, shape, _published(checkpoint, recipe, description)


def _from_hub(repository: str) -> Checkpoint:
    """The safetensors file of a repository on the model hub, fetched by its client.

    The hub stores large files under their SHA-256, and its client keeps them so; here it is checked.
    """
    hub = _import("huggingface_hub")
    try:
        path = Path(hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the client's errors and those of its transport
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"the weights of {repository} cannot be fetched: {reason}",
            hint="check the network, or pass --weights FILE with a copy of them, or --weights random",
        ) from error
    if not has_sha256(path, path.resolve().name):
        raise WeightsError(
            f"{path} has not the SHA-256 that the hub stores it under", hint="delete it and fetch it again"
        )
    return read_checkpoint(path)


def _chosen(request: Request, module: nn.Module, shape: Shape, recipe: Preprocess) -> LoadedWeights:
    """Random weights, or a checkpoint of the user's."""
    if request.weights == "random":
        settle_batch_norm(module, recipe.fitted(*shape[1:]))
        return random_weights(recipe)
    checkpoint = read_weights_file(request.weights)
    load_into(module, request.variant, checkpoint)
    return weights_of_file(checkpoint, recipe)


def _published(
    checkpoint: Checkpoint,
    recipe: Preprocess,
    description: str,
    labels: tuple[str, ...] | None = None,
    top1_percent: float | None = None,
) -> LoadedWeights:
    return LoadedWeights(
        kind="imagenet",
        description=description,
        sha256=checkpoint.sha256,
        file_name=checkpoint.name,
        preprocess=recipe,
        labels=labels,
        trained_resolution=recipe.crop[0],
        top1_percent=top1_percent,
    )


def _torchvision_recipe(published: Any) -> tuple[Preprocess, Shape]:
    """Preparation and input shape from the transforms that torchvision publishes with weights."""
    transforms = published.transforms()
    if not hasattr(transforms, "crop_size"):
        return RECIPES["imagenet"], _DEFAULT_SHAPE
    side, resize = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    mean, std = tuple(map(float, transforms.mean)), tuple(map(float, transforms.std))
    interpolation = str(getattr(transforms.interpolation, "value", "bilinear"))
    return Preprocess(resize, (side, side), mean, std, interpolation), (1, len(mean), side, side)


def _check_name(request: Request, known: list[str]) -> None:
    if request.name not in known:
        raise ConfigError(
            f"{request.kind} has no network '{request.name}'", hint=did_you_mean(request.name.lower(), known)
        )


def _refuse_changed_classes(request: Request) -> None:
    if request.classes is not None:
        raise ConfigError(
            f"the published weights of {request.name} have their own classes",
            hint="leave --classes out, or pass --weights random or --weights FILE",
        )
