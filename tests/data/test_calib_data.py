"""The shipped photographs: every one decodes, has its licence and origin, and is there once."""

import hashlib
import re
from dataclasses import dataclass

import pytest
from PIL import Image

from edgecnn.data.images import open_image
from edgecnn.data.sets import calibration_images, shipped_photos_dir, verification_images

# What a licence cell may say: all allow redistribution and changes, none asks for the same licence.
LICENCES = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "Public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
}
PHOTOS = calibration_images() + verification_images()


@dataclass(frozen=True)
class Row:
    """One row of the table in the README."""

    file: str
    subject: str
    licence: str
    credit: str
    origin: str
    changes: str


def _rows() -> list[Row]:
    text = (shipped_photos_dir() / "README.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return [Row(row[0].strip("`"), *row[1:]) for row in cells]


def test_counts_and_size() -> None:
    """Enough to calibrate with, small enough to travel."""
    assert len(calibration_images()) >= 64
    assert len(verification_images()) == 15
    assert 80 <= len(PHOTOS) <= 100
    everything = [path for path in shipped_photos_dir().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in everything) < 4_000_000


def test_one_row_a_file_and_one_file_a_row() -> None:
    """Nothing travels without its licence."""
    listed = [row.file for row in _rows()]
    shipped = [path.relative_to(shipped_photos_dir()).as_posix() for path in PHOTOS]
    assert len(set(listed)) == len(listed)
    assert sorted(listed) == sorted(shipped)


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.file)
def test_row_is_complete(row: Row) -> None:
    """Licence by name and address, who made it, which package it came in, and what was changed."""
    licence = re.fullmatch(r"\[(.+)\]\((.+)\)", row.licence)
    assert licence
    assert LICENCES[licence[1]] == licence[2]
    assert row.subject
    assert row.credit
    assert re.match(r"(Debian|PyPI|npm) `[^`]+` [\d:][\d.:-]+, `[^`]+`", row.origin)
    assert row.changes.startswith(("none:", "scaled from ", "saved as JPEG"))
    if licence[1].startswith("CC BY"):
        assert re.search(r"<https?://\S+>", row.origin)


def test_the_readme_counts_right() -> None:
    """Its sentences say what its tables hold."""
    text = (shipped_photos_dir() / "README.md").read_text(encoding="utf-8")
    unmodified = sum(row.changes.startswith("none:") for row in _rows())
    assert f"`calibration/` ({len(calibration_images())})" in text
    assert f"`verification/` ({len(verification_images())})" in text
    assert f"the {unmodified} files whose changes" in text
    assert f"The other {len(PHOTOS) - unmodified} were" in text


def test_no_photograph_twice() -> None:
    """Not in one folder, not in both, not under another name."""
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in PHOTOS}) == len(PHOTOS)
    assert len({path.stem for path in PHOTOS}) == len(PHOTOS)


def test_all_decode_and_most_are_large_enough() -> None:
    """Both for colour and for grey networks; most need not be scaled up for 224 pixels."""
    for path in PHOTOS:
        assert open_image(path, channels=3).mode == "RGB"
        assert open_image(path, channels=1).mode == "L"
    large = [path for path in PHOTOS if min(open_image(path, channels=1).size) >= 224]
    assert len(large) >= 0.9 * len(PHOTOS)


def test_no_metadata_travels() -> None:
    """No camera, place or profile."""
    for path in PHOTOS:
        with Image.open(path) as image:
            assert not image.getexif()
            assert not {"exif", "icc_profile", "xmp", "comment"} & set(image.info)
