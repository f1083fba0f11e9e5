"""Runtimes for the arm64 system, unpacked from their wheels; nothing of them is run here."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from edgecnn.agent.runtimes import RUNTIMES
from edgecnn.count.kept import kept_folder
from edgecnn.count.process import last_words, run
from edgecnn.count.system import System
from edgecnn.errors import MissingDependency
from edgecnn.fetch.packages import TIMEOUT_S
from edgecnn.progress import Progress
from edgecnn.versions import version_of

# manylinux2014 is 2_17, the oldest that wheels are still made for (PEP 600).
_OLDEST_GLIBC_MINOR = 17


def fetch_runtime(runtime: str, system: System, progress: Progress) -> tuple[Path, str]:
    """The folder with a runtime and numpy, the runtime in the version that is installed here; fetched first
    where it is not in the cache.

    Returns:
        The folder, and the runtime's package with its version.

    Raises:
        MissingDependency: the runtime is not installed here, or its wheels cannot be fetched.
        OutputError: the cache cannot be written.
    """
    package = RUNTIMES[runtime].modules[0].partition(".")[0].replace("_", "-")
    version = version_of(package)
    if version is None:
        raise MissingDependency(
            f"{package} is not installed, whose version would be counted", hint=f"pip install {package}"
        )

    def make(folder: Path, scratch: Path) -> None:
        if importlib.util.find_spec("pip") is None:
            raise MissingDependency("there is no pip here to fetch wheels with", hint="python -m ensurepip")
        minors = range(system.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1)
        tags = [*(f"manylinux_2_{minor}_aarch64" for minor in minors), "manylinux2014_aarch64"]
        # -P: or a pip.py in the current folder would be run as pip.
        command = [sys.executable, "-P", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        command += ["--progress-bar=off", "--no-compile", f"--target={folder}", "--only-binary=:all:"]
        command += ["--implementation=cp", f"--python-version={system.python}"]
        command += [f"--platform={tag}" for tag in tags]
        command += [f"{package}=={version}", "numpy"]
        patience = {"PIP_DEFAULT_TIMEOUT": str(TIMEOUT_S), "PIP_RETRIES": "1"}
        env = {**patience, **os.environ, "TMPDIR": str(scratch)}
        log = scratch / "log"
        if run(command, log, lambda: progress(f"fetching {package} for arm64", 0, None), env=env) != 0:
            raise MissingDependency(
                f"{package} {version} for arm64 cannot be fetched: {last_words(log)}",
                hint="check the network, and whether that version has an arm64 wheel for Python "
                f"{system.python}",
            )

    return kept_folder(f"{package}-{version}-py{system.python}", make), f"{package} {version}"
