"""Downloading packages with the clients of their registries; nothing is installed or executed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edgecnn.errors import one_line
from edgecnn.fetch.published import Archive, FetchError
from edgecnn.progress import Progress

# One silent socket operation; short, so that a machine without a network hears so soon.
TIMEOUT_S = 10
_POLL_S = 0.2


def download_package(package: Archive, folder: Path, title: str, progress: Progress) -> Path:
    """The package's archive, downloaded into an empty folder.

    Args:
        package: a wheel, an npm package or a Debian package.
        folder: an existing folder, for the client alone.
        title: what progress is called.
        progress: told of the bytes that came.

    Raises:
        FetchError: the client of its registry is not there, or does not deliver.
    """
    clients = {"wheel": _wheel, "npm": _npm, "debian": _debian}
    return clients[package.kind](package, folder, title, progress)


def _wheel(package: Archive, folder: Path, title: str, progress: Progress) -> Path:
    # -P: or a pip.py in the current folder would be run as pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    command += [f"--dest={folder}", f"{package.name}=={package.version}"]
    _run(command, folder, title, progress, {"PIP_DEFAULT_TIMEOUT": str(TIMEOUT_S), "PIP_RETRIES": "1"})
    return _only(folder, "*.whl", "pip")


def _npm(package: Archive, folder: Path, title: str, progress: Progress) -> Path:
    client = _client("npm", "npm is not installed (it comes with Node.js)")
    command = [client, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--loglevel=error"]
    # Its own cache would keep a second copy for good.
    command += [f"--cache={folder / 'npm'}", "--no-update-notifier", "--fetch-retries=1"]
    _run(command, folder, title, progress, {"npm_config_fetch_timeout": str(TIMEOUT_S * 1000)}, folder)
    return _only(folder, "*.tgz", "npm")


def _debian(package: Archive, folder: Path, title: str, progress: Progress) -> Path:
    client = _client("apt-get", "apt-get is not there (it is part of Debian and Ubuntu)")
    wanted = package.name if package.version is None else f"{package.name}={package.version}"
    # Downloads are left to another user, who may not write where we work.
    options = ["-o", "APT::Sandbox::User=", "-o", f"Acquire::http::Timeout={TIMEOUT_S}"]
    try:
        _run([client, *options, "download", wanted], folder, title, progress, {}, folder)
    except FetchError:
        # The machine's package lists are missing or out of date, and only root may renew them.
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True)
        options += ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={folder / 'apt'}"]
        _run([client, *options, "update"], folder, title, progress, {}, folder)
        _run([client, *options, "download", wanted], folder, title, progress, {}, folder)
    return _only(folder, "*.deb", "apt-get")


def download_debian(
    names: Sequence[str], architecture: str, folder: Path, title: str, progress: Progress
) -> list[Path]:
    """Debian packages for another architecture, with all that they depend on, from the places that this
    machine's apt is set to; apt checks them against their signed lists.

    Args:
        names: of the packages.
        architecture: as Debian calls it, such as ``arm64``.
        folder: an existing folder, for apt alone.
        title: what progress is called.
        progress: told of the bytes that came.

    Raises:
        FetchError: apt is not there, or does not deliver.
    """
    client = _client("apt-get", "apt-get is not there (it is part of Debian and Ubuntu)")
    archives = folder / "cache" / "archives"
    for place in (folder / "state" / "lists" / "partial", archives / "partial"):
        place.mkdir(parents=True)
    (folder / "status").touch()  # of a machine on which nothing is installed
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": TIMEOUT_S,
        "Debug::NoLocking": "true",
        "Dir::Cache": folder / "cache",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
    }
    command = [client, "--quiet", *(f"-o{name}={value}" for name, value in settings.items())]
    incomplete = None
    try:
        _run([*command, "update"], folder, title, progress, {})
    except FetchError as error:
        incomplete = error  # of some lists; the others may do
    try:
        _run([*command, "install", "--yes", "--download-only", *names], folder, title, progress, {})
    except FetchError as error:
        raise incomplete or error from error
    return sorted(archives.glob("*.deb"))


def _client(name: str, missing: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FetchError(missing)
    return found


def _run(
    command: Sequence[str],
    folder: Path,
    title: str,
    progress: Progress,
    patience: Mapping[str, str],
    cwd: Path | None = None,
) -> None:
    """Run a client, its temporary files in ``folder``.

    Args:
        command: what to run.
        folder: where it writes.
        title: what progress is called.
        progress: told how many bytes lie in the folder.
        patience: environment variables that the user's own take precedence over: whoever sits behind a slow
            mirror has set their own timeout.
        cwd: where it is run; None for the current folder.
    """
    scratch = {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")}
    log = folder / "client.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**patience, **os.environ, **scratch},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
                progress(title, _bytes_below(folder), None)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        prefixes = ("ERROR: ", "npm error ", "npm ERR! ", "E: ")
        errors = [line.removeprefix(start) for line in lines for start in prefixes if line.startswith(start)]
        name = Path(command[0]).name
        raise FetchError(
            one_line((errors or lines or [f"{name} exited with status {process.returncode}"])[-1])
        )


def _only(folder: Path, pattern: str, client: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise FetchError(f"{client} downloaded no package")
    return found[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(parent, name))
    return total
