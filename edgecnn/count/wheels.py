"""Runtimes for the arm64 system, unpacked from their wheels; nothing of them is run here."""

from __future__ import annotations

from pathlib import Path

from edgecnn.agent.runtimes import RUNTIMES
from edgecnn.errors import MissingDependency
from edgecnn.fetch.debian import System
from edgecnn.fetch.kept import kept_folder
from edgecnn.fetch.published import FetchError
from edgecnn.fetch.wheels import NoWheels, unpack_wheels
from edgecnn.progress import Progress
from edgecnn.versions import version_of


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
        progress(f"fetching {package} for arm64", 0, None)
        try:
            unpack_wheels([f"{package}=={version}", "numpy"], system.platform, folder)
        except (NoWheels, FetchError) as error:
            raise MissingDependency(
                f"{package} {version} for arm64 cannot be fetched: {error or 'there is no such wheel'}",
                hint="check the network, and whether that version has an arm64 wheel for Python "
                f"{system.platform.python}",
            ) from error

    return kept_folder(f"{package}-{version}-py{system.platform.python}", make), f"{package} {version}"
