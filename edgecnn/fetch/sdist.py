"""Source packages from a Python package index, without pip, which would run their setup.py."""

from __future__ import annotations

import html
import http.client
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

from edgecnn.errors import one_line
from edgecnn.fetch.packages import TIMEOUT_S
from edgecnn.fetch.published import Archive, FetchError, PublishedFile
from edgecnn.fetch.url import download_url
from edgecnn.progress import Progress

_MAX_PAGE_BYTES = 32 << 20
_LINK = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"']+)["']""", re.IGNORECASE)


def download_sdist(package: Archive, folder: Path, parts: Path, progress: Progress) -> Path:
    """The package's .tar.gz, found through the index that pip is set to, and downloaded.

    The index is read as PEP 503 has it: a page of links for each package, relative to the page's own URL.

    Args:
        package: name and exact version.
        folder: an existing folder that no other process uses.
        parts: where a part waits for the next run if this one is cut short.
        progress: told of the bytes that came.

    Raises:
        FetchError: the index cannot be read, or has no such file.
    """
    page_url = f"{_index_url()}/{_normal(package.name)}/"
    request = urllib.request.Request(page_url, headers={"Accept": "text/html", "User-Agent": "edgecnn"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            page = reply.read(_MAX_PAGE_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(one_line(f"{page_url}: {getattr(error, 'reason', error)}")) from error
    ending = f"-{package.version}.tar.gz"
    for link in _LINK.findall(page):
        url = urllib.parse.urljoin(page_url, html.unescape(link)).partition("#")[0]
        name = urllib.parse.unquote(url.rpartition("/")[2])
        if name.endswith(ending) and _normal(name.removesuffix(ending)) == _normal(package.name):
            file = PublishedFile(name, package.sha256 or "", None, ())
            return download_url(file, url, folder, parts, progress)
    raise FetchError(f"{page_url} has no source package of version {package.version}")


def _index_url() -> str:
    """The index that pip uses, from its variables or its configuration files."""
    if os.environ.get("PIP_NO_INDEX"):
        raise FetchError("PIP_NO_INDEX is set")
    chosen = os.environ.get("PIP_INDEX_URL", "")
    if not chosen:
        command = [sys.executable, "-P", "-m", "pip", "config", "get", "global.index-url"]
        told = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
        chosen = told.stdout.strip() if told.returncode == 0 else ""
    return (chosen or _default_index()).rstrip("/")


def _default_index() -> str:
    """The one that pip uses where none was chosen, from its help."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--help"]
    told = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
    default = re.search(r"Package\s+Index\s+\(default\s+(\S+)\)", told.stdout)
    if default is None:
        raise FetchError("pip does not say which index it uses")
    return default[1]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
