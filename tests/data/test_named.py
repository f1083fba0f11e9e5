"""Named sets: from any place that has the right bytes, once, and never from one that has others."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data import catalogue, named
from edgecnn.data.catalogue import Group, NamedSet, Place, named_sets
from edgecnn.data.open_set import open_set
from edgecnn.errors import DataError, OutputError
from edgecnn.fetch.cache import data_dir
from edgecnn.fetch.published import Archive

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 2, 2, 1, 0])


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def idx(values: np.ndarray) -> bytes:
    head = struct.pack(f">2xBB{values.ndim}I", 8, values.ndim, *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


def records(first: int, last: int) -> bytes:
    planes = PIXELS[first:last].transpose(0, 3, 1, 2).reshape(last - first, -1)
    return np.concatenate([LABELS[first:last, None].astype(np.uint8), planes], 1).tobytes()


FORMS: dict[str, tuple[dict[str, bytes], tuple[str, ...], tuple[str, ...]]] = {
    "png_rows": (
        {
            "b.png": png(PIXELS[:4].reshape(4, 20, 3)),
            "a.png": png(PIXELS[4:].reshape(2, 20, 3)),
            "l.json": json.dumps(LABELS.tolist()).encode(),
        },
        ("b.png", "a.png"),
        ("l.json",),
    ),
    "cifar": ({"1.bin": records(0, 5), "2.bin": records(5, 6)}, ("1.bin", "2.bin"), ()),
    "idx": ({"x.gz": idx(PIXELS), "y.gz": idx(LABELS)}, ("x.gz",), ("y.gz",)),
}


def place(folder: Path, form: str, **changed: bytes) -> Place:
    """An archive on disk with the six images in that form."""
    members, images, labels = FORMS[form]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{form}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (members | changed).items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    return Place(Archive("url", path.as_uri()), form, images, labels)  # type: ignore[arg-type]


def known_set(*places: Place) -> NamedSet:
    whole = hashlib.sha256(PIXELS.tobytes() + LABELS.astype("<i8").tobytes()).hexdigest()
    group = Group("test", 6, (4, 5, 3), whole, places)
    return NamedSet("tiny", "six images", "here", "none", ("a", "b", "c"), (group,))


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_from_every_form(tmp_path: Path, cache: Path, form: str) -> None:
    data = named.open_named(known_set(place(tmp_path / "site", form)), "test")
    assert (data.name, data.labels.tolist(), data.classes) == ("tiny:test", LABELS.tolist(), ("a", "b", "c"))
    for index in range(6):
        assert np.array_equal(np.asarray(data.pictures.open(index, 3)), PIXELS[index])
    # From the cache, with no place in reach; nothing else is left in it.
    again = named.open_named(known_set(), "test")
    assert again.sha256 == data.sha256
    [folder] = (cache / "data/tiny").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "labels.npy"]


@pytest.mark.parametrize(
    "changed",
    [
        {"l.json": json.dumps(LABELS[::-1].tolist()).encode()},
        {"l.json": json.dumps(LABELS[:5].tolist()).encode()},
        {"l.json": b"[1, 0, 2,"},
        {"b.png": png(PIXELS[1:].reshape(5, 20, 3))},
        {"b.png": png(PIXELS[:3].reshape(3, 20, 3))},
        {"b.png": png(PIXELS[:4, :, :, ::-1].reshape(4, 20, 3))},
        {"b.png": b"no image"},
        {"b.png": png(PIXELS[:4, :3].reshape(4, 15, 3))},
    ],
    ids=["labels", "few-labels", "json", "many", "few", "bgr", "text", "size"],
)
def test_wrong_images_are_never_kept(tmp_path: Path, cache: Path, changed: dict[str, bytes]) -> None:
    wrong = place(tmp_path / "wrong", "png_rows", **changed)
    with pytest.raises(DataError, match=r"cannot be fetched: file:.*png_rows") as caught:
        named.open_named(known_set(wrong), "test")
    assert "\n" not in str(caught.value)
    assert list((cache / "data/tiny").iterdir()) == []
    right = place(tmp_path / "right", "idx")
    assert len(named.open_named(known_set(wrong, right), "test")) == 6


def test_damaged_cache_is_fetched_again(tmp_path: Path, cache: Path) -> None:
    known = known_set(place(tmp_path / "site", "cifar"))
    named.open_named(known, "test")
    [path] = (cache / "data/tiny").glob("*/images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert np.array_equal(np.asarray(named.open_named(known, "test").pictures.open(5, 3)), PIXELS[5])
    path.unlink()
    assert len(named.open_named(known, "test")) == 6


def test_image_files_keep_their_bytes(tmp_path: Path) -> None:
    files = {f"p/{name}_{label}.png": png(PIXELS[name]) for name, label in enumerate(LABELS)}
    folder = tmp_path / "site"
    folder.mkdir()
    with tarfile.open(folder / "f.tgz", "w:gz") as tar:
        for name, content in {**files, "p/x.txt": b"x"}.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    digests = b"".join(hashlib.sha256(content).digest() for content in files.values())
    whole = hashlib.sha256(digests + LABELS.astype("<i8").tobytes()).hexdigest()
    archive = Archive("url", (folder / "f.tgz").as_uri())
    there = Place(archive, "files", (r"p/\d_(?P<label>\d)\.png",), ())
    group = Group("test", 6, None, whole, (there,))
    data = named.open_named(replace(known_set(), groups=(group,)), "test")
    assert data.labels.tolist() == LABELS.tolist()
    found = [data.pictures.fingerprint(index) for index in range(6)]
    assert found == [hashlib.sha256(content).hexdigest() for content in files.values()]


def test_cache_folder_that_cannot_be_written(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        named.open_named(known_set(), "test")
    assert "EDGECNN_CACHE_DIR" in str(caught.value.hint)


def test_the_catalogue_can_be_read() -> None:
    assert set(named_sets()) == {"cifar10", "fashion_mnist", "imagenet70"}
    for known in named_sets().values():
        assert known.title
        assert known.licence
        for group in known.groups:
            assert len(bytes.fromhex(group.sha256)) == 32
            assert group.places
    assert [len(named_sets()[name].classes) for name in sorted(named_sets())] == [10, 10, 1000]
    assert catalogue.named_sets() is named_sets()


@pytest.mark.network
@pytest.mark.parametrize(
    ("text", "shape", "first", "counts"),
    [
        ("cifar10:train", (32, 32), [6, 9, 9, 4, 1, 1], [5000] * 10),
        ("cifar10", (32, 32), [3, 8, 8, 0, 6, 6], [1000] * 10),
        ("fashion_mnist:train", (28, 28), [9, 0, 0, 3, 0, 2], [6000] * 10),
        ("fashion_mnist:test", (28, 28), [9, 2, 1, 1, 6, 1], [1000] * 10),
        ("imagenet70", None, [243, 559, 438, 990, 949, 853], None),
    ],
)
def test_the_real_sets(
    text: str, shape: tuple[int, int] | None, first: list[int], counts: list[int] | None
) -> None:
    try:
        data = open_set(text)
    except DataError as error:
        pytest.skip(f"not in the cache {data_dir()} and not fetched: {error}")
    assert data.labels[:6].tolist() == first
    image = data.pictures.open(0, 3)
    assert (image.mode, shape or image.size) == ("RGB", image.size)
    if counts is None:
        assert (len(data), len(data.classes)) == (70, 1000)
    else:
        assert np.bincount(data.labels).tolist() == counts
