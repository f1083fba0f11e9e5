"""What ``bench`` and ``eval`` take: a bundle, or a network that is exported for the occasion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from edgecnn.errors import ConfigError
from edgecnn.source.request import is_file_source
from edgecnn.zoo import list_models


def is_bundle(subject: str) -> bool:
    """Whether it is a bundle's folder; a network's name is one, even where a folder has the same.

    Raises:
        ConfigError: it can be neither.
    """
    folder = Path(subject)
    if (folder / "manifest.json").is_file():
        return True
    if is_file_source(subject) or subject in (
        name for entry in list_models() for name in (entry.name, *entry.aliases)
    ):
        return False
    if folder.is_file():
        raise ConfigError(f"{subject} is a file, not a bundle", hint="pass the folder that an export made")
    if folder.is_dir():
        return True
    if len(folder.parts) > 1:
        raise ConfigError(f"there is no bundle {subject}", hint="make one with `edgecnn export`")
    return False


def refuse_model_options(bundle: str, source: Iterable[str]) -> None:
    """Refuse the options that say what a network is to become: a bundle is made already.

    Raises:
        ConfigError: ``target``, ``precision``, ``calibration`` or one of ``source`` is given.
    """
    context = click.get_current_context()
    for name in ("target", "precision", "calibration", *source):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{bundle} is a bundle, which has its own {name}", hint=f"leave {option} out")
