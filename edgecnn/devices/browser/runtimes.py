"""The runtimes that run in a page: fetched once with npm, known by their SHA-256."""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from edgecnn.errors import ConfigError, MissingDependency
from edgecnn.fetch.archive import Archives
from edgecnn.fetch.cache import data_dir, has_sha256, work_folder
from edgecnn.fetch.published import Archive, FetchError
from edgecnn.progress import Progress, silent

# The folder that npm puts every member of a package in.
_TOP = "package/"


@dataclass(frozen=True)
class Package:
    """An npm package, and what is kept of it."""

    name: str
    """Name in the registry, with its scope."""
    version: str
    """Exact version."""
    sha256: str
    """SHA-256 of the archive."""
    size_bytes: int
    """Length of the archive."""
    files: dict[str, str]
    """SHA-256 of each file that is kept, by its path in the package."""

    @property
    def archive(self) -> Archive:
        """Where it is had."""
        return Archive("npm", self.name, self.version, self.sha256)


@dataclass(frozen=True)
class BrowserRuntime:
    """A runtime that is JavaScript and WASM."""

    name: str
    """What measurements call it, such as ``LiteRT.js``."""
    version: str
    """Its version."""
    licence: str
    """Its licence and who holds the copyright."""
    licence_url: str
    """Where the text of the licence lies."""
    packages: tuple[Package, ...]
    """What it consists of."""

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return data_dir().with_name("browser") / f"{self.name.replace(' ', '-')}-{self.version}"

    def cached(self) -> dict[str, Path] | None:
        """Its files by the names that the page asks for; None where one is not there, or not what it should
        be."""
        found = {}
        for package in self.packages:
            for member, sha256 in package.files.items():
                name = Path(member).name
                if not has_sha256(self.folder / name, sha256):
                    return None
                found[name] = self.folder / name
        return found

    def files(self, progress: Progress = silent) -> dict[str, Path]:
        """Its files by the names that the page asks for, fetched first where they are not in the cache.

        Raises:
            MissingDependency: no place delivers the right bytes.
            OutputError: the cache cannot be written.
        """
        if (found := self.cached()) is not None:
            return found
        with work_folder(self.folder) as scratch:
            for package in self.packages:
                self._fetch(package, Path(scratch), progress)
        if (found := self.cached()) is None:
            raise MissingDependency(
                f"{self.name} does not stay in the cache", hint=f"is the folder {self.folder} in use or full?"
            )
        return found

    def _fetch(self, package: Package, scratch: Path, progress: Progress) -> None:
        unpacked = Path(tempfile.mkdtemp(dir=scratch))
        wanted = frozenset(f"{_TOP}{member}" for member in package.files)
        try:
            found = Archives(scratch, self.folder, progress).take_out(package.archive, wanted, unpacked)
            for path, file in found.items():
                if not has_sha256(file, package.files[path.removeprefix(_TOP)]):
                    raise FetchError(f"{path} in it has the wrong SHA-256")
                os.replace(file, self.folder / Path(path).name)
        except (FetchError, OSError) as error:
            by_hand = "apt-get install npm" if shutil.which("npm") is None else "check the network"
            raise MissingDependency(
                f"{self.name} is not in the cache and cannot be fetched: {package.archive}: {error}",
                hint=f"{by_hand}; it is fetched once, into {self.folder}",
            ) from error


@cache
def browser_runtimes() -> dict[str, BrowserRuntime]:
    """The runtimes by the names that artifacts have for theirs: ``tflite`` and ``onnxruntime``."""
    text = (resources.files("edgecnn.devices.browser") / "runtimes.toml").read_text(encoding="utf-8")
    runtimes = {}
    for name, raw in tomllib.loads(text).items():
        packages = tuple(Package(**package) for package in raw.pop("packages"))
        runtimes[name] = BrowserRuntime(**raw, packages=packages)
    return runtimes


def browser_runtime(runtime: str) -> BrowserRuntime:
    """What runs the artifacts of a runtime in a page.

    Raises:
        ConfigError: nothing does.
    """
    known = browser_runtimes()
    if runtime not in known:
        raise ConfigError(
            f"no browser runs artifacts for {runtime}",
            hint=f"export for a target whose runtime is one of {', '.join(sorted(known))}",
        )
    return known[runtime]
