"""Targets: what an artifact is compiled for. Each is one TOML file, shipped or the user's own."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgecnn.errors import ConfigError

PRECISIONS = ("fp32", "fp16", "int8")
DEVICE_KINDS = ("local", "ssh", "adb", "browser")
"""What the address of a device begins with; ``edgecnn.devices.address`` opens it."""


@dataclass(frozen=True)
class Target:
    """A place where a network runs: the runtime, the device kind, and what the pair accepts."""

    name: str
    """The file's stem, used in bundle names."""
    description: str
    """One line for ``edgecnn targets``."""
    runtime: str
    """The backend that compiles for it, a module of ``edgecnn.backends``."""
    device: str
    """Where it is measured: ``local``, ``ssh:pi@raspberrypi.local``, ``adb``, ``browser``."""
    precisions: tuple[str, ...]
    """Those of ``fp32``, ``fp16``, ``int8`` that the pair runs, best first."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the runtime as they are: text, numbers and truth values."""

    def check_precision(self, precision: str) -> None:
        """Refuse a precision that does not run here.

        Raises:
            ConfigError: it is unknown, or none of this target's.
        """
        if precision not in PRECISIONS:
            hint = did_you_mean(precision, list(PRECISIONS))
            raise ConfigError(f"unknown precision '{precision}'", hint=hint)
        if precision not in self.precisions:
            runs = ", ".join(self.precisions)
            raise ConfigError(f"target '{self.name}' does not run {precision}", hint=f"it runs {runs}")


def shipped_targets_dir() -> Path:
    """The folder of shipped target files: inside an installed package, or at the top of a checkout."""
    installed = Path(__file__).parent / "_targets"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "targets"


def list_targets() -> list[Target]:
    """All shipped targets, by name."""
    return [read_target(path) for path in sorted(shipped_targets_dir().glob("*.toml"))]


def load_target(name_or_path: str) -> Target:
    """The shipped target of that name, or the one in the user's own TOML file.

    Raises:
        ConfigError: no such target (the nearest known names are listed), or a file that is not a target.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(
                f"target file {path} does not exist",
                hint="`edgecnn targets` says where there are files to copy",
            )
        return read_target(path)
    known = {path.stem: path for path in sorted(shipped_targets_dir().glob("*.toml"))}
    if name_or_path not in known:
        raise ConfigError(
            f"unknown target '{name_or_path}'",
            hint=f"{did_you_mean(name_or_path, list(known))} (the name of your own file ends in .toml)",
        )
    return read_target(known[name_or_path])


def read_target(path: Path) -> Target:
    """Read and check one target file.

    Raises:
        ConfigError: TOML that does not parse, unknown or missing fields, values of the wrong type.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"target file {path} cannot be read: {error}") from error
    if wrong := _what_is_wrong(raw):
        raise ConfigError(f"target file {path}: {wrong[0]}", hint=wrong[1])
    return Target(**{"name": path.stem, **raw, "precisions": tuple(raw["precisions"])})


def _what_is_wrong(raw: dict[str, Any]) -> tuple[str, str | None] | None:
    """The first thing wrong with the content of a target file, and a hint."""
    known = [f.name for f in fields(Target) if f.name != "name"]
    if unknown := sorted(set(raw) - set(known)):
        return f"unknown field '{unknown[0]}'", did_you_mean(unknown[0], known)
    if missing := [key for key in known if key not in raw and key != "options"]:
        return f"the field '{missing[0]}' is missing", f"fields: {', '.join(known)}"
    for key in ("description", "runtime", "device"):
        if not isinstance(raw[key], str):
            return f"'{key}' must be a string", None
    if raw["device"].partition(":")[0] not in DEVICE_KINDS:
        return f"unknown device '{raw['device']}'", did_you_mean(raw["device"], list(DEVICE_KINDS))
    precisions = raw["precisions"]
    if not isinstance(precisions, list) or not precisions or not all(p in PRECISIONS for p in precisions):
        return "'precisions' must be a list of precisions", f"one or more of {', '.join(PRECISIONS)}"
    options = raw.get("options", {})
    if not isinstance(options, dict):
        return "'options' must be a table", None
    for key, value in options.items():
        # They go into JSON, which has neither dates nor infinity.
        if not isinstance(value, str | int | float) or value in (math.inf, -math.inf) or value != value:
            return f"option '{key}' must be text, a number, true or false", None
    return None


# Names in a hint; the zoo has more than a line holds.
_LISTED = 12


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint for a name that is not known: the nearest, or where none is near what there is."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"known: {', '.join(known[:_LISTED])}{more}"
