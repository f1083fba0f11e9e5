"""A small Debian for another machine, unpacked and not installed."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import MissingDependency, last_line, one_line
from edgecnn.fetch.kept import kept_folder
from edgecnn.fetch.packages import download_debian
from edgecnn.fetch.published import FetchError
from edgecnn.fetch.wheels import Platform
from edgecnn.progress import Progress

PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
"""The packages that it takes to run Python and the runtimes."""

_MACHINES = {"arm64": "aarch64", "armhf": "armv7l"}
# Names of the packages that a system consists of, in its own folder.
_LIST = "packages.txt"


@dataclass(frozen=True)
class System:
    """A Debian system for another machine that nothing has been started of."""

    folder: Path
    """Where it lies, as it would below ``/``."""
    machine: str
    """What its kernel would call the machine, such as ``aarch64``."""

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return next((self.folder / "usr" / "bin").glob("python3.*[0-9]"))

    @property
    def libc(self) -> str:
        """Version of its glibc: ``2.36-9+deb12u14``."""
        [package] = (line for line in self._packages() if line.startswith("libc6_"))
        return package.split("_")[1]

    @property
    def platform(self) -> Platform:
        """Which wheels fit it."""
        return Platform(
            self.interpreter.name.removeprefix("python"), self.machine, int(re.split(r"[.-]", self.libc)[1])
        )

    def _packages(self) -> list[str]:
        return (self.folder / _LIST).read_text(encoding="utf-8").splitlines()


def fetch_system(
    progress: Progress, architecture: str = "arm64", packages: tuple[str, ...] = PYTHON
) -> System:
    """A system with Python, of the release that runs here, fetched first where it is not in the cache.

    Args:
        progress: told how far it is.
        architecture: one of ``arm64`` and ``armhf``, as Debian calls them.
        packages: of which it consists, with all that they depend on.

    Raises:
        MissingDependency: it cannot be fetched or unpacked.
        OutputError: the cache cannot be written.
    """
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()

    def make(folder: Path, scratch: Path) -> None:
        unpacker = shutil.which("dpkg-deb")
        if unpacker is None:
            raise MissingDependency("dpkg-deb is not installed", hint="apt-get install dpkg")
        try:
            archives = download_debian(
                packages, architecture, scratch, f"fetching an {architecture} system", progress
            )
        except FetchError as error:
            raise MissingDependency(
                f"a Debian system for {architecture} cannot be fetched: {error}",
                hint="check the network, and that apt's sources have that architecture, as Debian's do; it "
                "is fetched once, and kept in the cache",
            ) from error
        for archive in archives:
            command = [unpacker, "-x", str(archive), str(folder)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                raise MissingDependency(
                    f"{archive.name} cannot be unpacked: {one_line(last_line(done.stderr))}"
                )
        if not (folder / "lib").exists():  # as from Debian 13 on
            (folder / "lib").symlink_to("usr/lib")
        names = "".join(f"{archive.name}\n" for archive in archives)
        (folder / _LIST).write_text(names, encoding="utf-8")

    name = f"system-{architecture}-{_release()}-{digest[:8]}"
    return System(kept_folder(name, make), _MACHINES[architecture])


def _release() -> str:
    """The release of the system that runs here, whose packages apt has: ``debian-12``."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return f"{release['ID']}-{release.get('VERSION_ID', 'unstable')}"
