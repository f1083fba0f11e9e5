"""Downloading a file from a URL, in as many pieces as it takes."""

from __future__ import annotations

import http
import http.client
import os
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from edgecnn.fetch.cache import has_sha256
from edgecnn.fetch.packages import TIMEOUT_S
from edgecnn.fetch.published import FetchError, PublishedFile
from edgecnn.progress import Progress

_CHUNK_BYTES = 1 << 18
# Requests for one file while each brings new bytes.
_REQUESTS = 4


def download_url(file: PublishedFile, url: str, work: Path, parts: Path, progress: Progress) -> Path:
    """The file, downloaded into a folder of our own; continued where an earlier run left a part of it.

    Args:
        file: what is expected.
        url: where it is.
        work: an existing folder that no other process uses.
        parts: an existing folder where ``<name>.part`` waits for the next run if this one is cut short.
        progress: told of the bytes that came.

    Raises:
        FetchError: the server does not deliver the right bytes.
    """
    part = work / file.name
    shared = parts / f"{file.name}.part"
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
        raise FetchError("the bytes have the wrong SHA-256")
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
            raise FetchError(f"HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise FetchError(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            failure = f" ({str(error) or type(error).__name__})"
            in_pieces = True
        have = part.stat().st_size if part.exists() else 0
        if have <= start:
            break
    if have == total:
        return in_pieces
    whole = "an unknown number of" if total is None else total
    raise FetchError(f"the transfer ended after {have} of {whole} bytes{failure}")


def _append(
    file: PublishedFile, url: str, part: Path, start: int, total: int | None, progress: Progress
) -> tuple[bool, int | None]:
    """Write one response to ``part`` from byte ``start`` on.

    Returns:
        Whether the server resumed there (false: it began at 0 instead), and the file's length.
    """
    headers = {"User-Agent": "edgecnn"} | ({"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as reply:
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
        raise FetchError(f"the server sends more than the {total} bytes of the file")
    return resumes, have if total is None else total
