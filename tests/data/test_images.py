"""Finding and decoding images: the ordinary modes, and files that are meant to do harm."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data.images import MAX_PIXELS, list_images, open_image
from edgecnn.errors import DataError


def _photo(size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _png_declaring(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 99)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _gif(canvas: tuple[int, int], frame: tuple[int, int]) -> bytes:
    palette = b"\0\0\0\xff\xff\xff"
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", *canvas, 0x80, 0, 0)
        + palette
        + b","
        + struct.pack("<HHHHB", 0, 0, *frame, 0)
        + b"\x02\x02\x4c\x01\x00;"
    )


# --- list_images ------------------------------------------------------------------------------------------


def test_lists_recursively_and_sorted_without_hidden_files(tmp_path: Path) -> None:
    """The order does not depend on the file system."""
    for name in ("b.png", "a/z.jpg", "a/B.PNG", "c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        _photo().save(tmp_path / name)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a/B.PNG", "a/z.jpg", "b.png", "c.webp"]


def test_contents_decide_what_an_image_is(tmp_path: Path) -> None:
    """A PNG without a suffix is one, and text with the suffix of one is not."""
    _photo().save(tmp_path / "photo", format="PNG")
    assert list_images(tmp_path) == [tmp_path / "photo"]
    (tmp_path / "notes.jpg").write_text("not a photograph")
    with pytest.raises(DataError, match=r"not an image.*\(1 of 2 files\): notes\.jpg"):
        list_images(tmp_path)


def test_names_five_strangers_and_counts_the_rest(tmp_path: Path) -> None:
    """A long list of strangers stays one readable line."""
    _photo().save(tmp_path / "photo.png")
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text("text")
    with pytest.raises(DataError) as caught:
        list_images(tmp_path)
    assert "8 of 9 files" in str(caught.value)
    assert "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_refuses_missing_empty_and_plain_files(tmp_path: Path) -> None:
    """Each error names the path and says what to do."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_text("x")
    _photo().save(tmp_path / "photo.png")
    for name, words in (("nowhere", "does not exist"), ("empty", "is empty"), ("photo.png", "not a folder")):
        with pytest.raises(DataError, match=words) as caught:
            list_images(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.hint


def test_formats_that_start_programs_are_not_images(tmp_path: Path) -> None:
    """EPS would be handed to Ghostscript."""
    _photo().save(tmp_path / "drawing.eps")
    with pytest.raises(DataError, match=r"drawing\.eps"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="is not an image"):
        open_image(tmp_path / "drawing.eps", channels=3)


# --- files that are meant to do harm ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("bomb.png", _png_declaring(30_000, 30_000)),
        ("warning.png", _png_declaring(10_000, 10_000)),
        ("just_above.png", _png_declaring(8_001, 8_000)),
        ("bomb.gif", _gif((30_000, 30_000), (30_000, 30_000))),
        ("frame.gif", _gif((10, 10), (30_000, 30_000))),
    ],
)
def test_bombs_are_refused(tmp_path: Path, name: str, contents: bytes) -> None:
    """A file of some bytes that declares gigabytes of pixels is refused before they are allocated."""
    path = tmp_path / name
    path.write_bytes(contents)
    with pytest.raises(DataError, match="megapixels") as caught:
        open_image(path, channels=3)
    assert name in str(caught.value)
    assert len(contents) < 300


def test_listing_refuses_a_bomb(tmp_path: Path) -> None:
    """It is an image, so the error is not that it is none."""
    (tmp_path / "bomb.png").write_bytes(_png_declaring(30_000, 30_000))
    with pytest.raises(DataError, match=r"bomb\.png has more than 64 megapixels"):
        list_images(tmp_path)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    """64 megapixels pass; that one fails for its pixels, which are not there."""
    (tmp_path / "large.png").write_bytes(_png_declaring(8_000, MAX_PIXELS // 8_000))
    assert list_images(tmp_path) == [tmp_path / "large.png"]
    with pytest.raises(DataError, match="damaged"):
        open_image(tmp_path / "large.png", channels=3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
def test_truncated_files_are_errors(tmp_path: Path, suffix: str) -> None:
    """Half a file is not half an image."""
    path = tmp_path / f"photo.{suffix}"
    _photo((200, 150)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError) as caught:
        open_image(path, channels=3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    """Whatever random bytes do to a decoder, the error is ours and names the file."""
    path = tmp_path / f"photo.{suffix}"
    _photo((60, 40)).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(100):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 400), 6):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            open_image(path, channels=3)
        except DataError as error:
            messages.append(str(error))
    assert messages
    assert all(str(path) in message for message in messages)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """Neither is waited for or read."""
    for path in (tmp_path / "nowhere.jpg", tmp_path):
        with pytest.raises(DataError, match="does not exist or is not a file"):
            open_image(path, channels=3)


# --- modes ------------------------------------------------------------------------------------------------


def test_rgb_passes_unchanged(tmp_path: Path) -> None:
    """Lossless in, the same values out; with one channel, Pillow's luma."""
    photo = _photo()
    photo.save(tmp_path / "photo.png")
    assert np.array_equal(open_image(tmp_path / "photo.png", channels=3), photo)
    grey = open_image(tmp_path / "photo.png", channels=1)
    assert grey.mode == "L"
    assert np.array_equal(grey, photo.convert("L"))


def test_grey_and_bilevel(tmp_path: Path) -> None:
    """Grey becomes three equal channels."""
    grey = _photo().convert("L")
    for image, name in ((grey, "grey.png"), (grey.convert("1"), "bilevel.png")):
        image.save(tmp_path / name)
        rgb = np.asarray(open_image(tmp_path / name, channels=3))
        assert all(np.array_equal(rgb[..., channel], image.convert("L")) for channel in range(3))
        assert np.array_equal(open_image(tmp_path / name, channels=1), image.convert("L"))


def test_palette(tmp_path: Path) -> None:
    """The colours, not the indices."""
    indexed = _photo().quantize(16)
    for suffix in ("png", "gif"):
        indexed.save(tmp_path / f"photo.{suffix}")
        assert np.array_equal(open_image(tmp_path / f"photo.{suffix}", channels=3), indexed.convert("RGB"))


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    """What lies under transparent pixels is invisible, so it does not count."""
    for mode, colour in (("RGBA", (200, 0, 0, 0)), ("LA", (10, 0))):
        Image.new(mode, (4, 4), colour).save(tmp_path / f"{mode}.png")
        assert np.all(np.asarray(open_image(tmp_path / f"{mode}.png", channels=3)) == 255)
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "half.png")
    assert open_image(tmp_path / "half.png", channels=3).getpixel((0, 0)) == (255, 127, 127)


def test_transparent_palette_index(tmp_path: Path) -> None:
    """GIFs and palette PNGs mark one index as transparent."""
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    indexed.putpixel((1, 1), 1)
    indexed.save(tmp_path / "photo.png", transparency=0)
    rgb = open_image(tmp_path / "photo.png", channels=3)
    assert rgb.getpixel((0, 0)) == (255, 255, 255)
    assert rgb.getpixel((1, 1)) == (200, 100, 50)


def test_cmyk(tmp_path: Path) -> None:
    """No ink is white, all black ink is black."""
    cmyk = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    cmyk.paste((0, 0, 0, 255), (0, 0, 8, 16))
    cmyk.save(tmp_path / "photo.tiff")
    cmyk.save(tmp_path / "photo.jpg", quality=100)
    for name in ("photo.tiff", "photo.jpg"):
        rgb = np.asarray(open_image(tmp_path / name, channels=3)).astype(int)
        assert abs(rgb[8, 2]).max() <= 3
        assert abs(rgb[8, 13] - 255).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    """0, 257, 32896 and 65535 are 0, 1, 128 and 255."""
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / f"scan.{suffix}")
    assert np.asarray(open_image(tmp_path / f"scan.{suffix}", channels=1)).tolist() == [[0, 1, 128, 255]]
    assert np.asarray(open_image(tmp_path / f"scan.{suffix}", channels=3))[0, 2].tolist() == [128] * 3


def test_big_endian_16_bit_grey(tmp_path: Path) -> None:
    """TIFF stores either byte order."""
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257, 65535))
    image.save(tmp_path / "scan.tiff")
    assert np.asarray(open_image(tmp_path / "scan.tiff", channels=1)).tolist() == [[1, 255]]


def test_values_of_unknown_range_are_refused(tmp_path: Path) -> None:
    """Nobody can say what is white in a float image."""
    Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "wide.tiff")
    for name in ("float.tiff", "wide.tiff"):
        with pytest.raises(DataError, match="unknown range") as caught:
            open_image(tmp_path / name, channels=3)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_270),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, undo: Image.Transpose | None) -> None:
    """All eight, by the EXIF specification: 6 needs a quarter turn clockwise to be upright."""
    stored = _photo((40, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    upright = stored if undo is None else stored.transpose(undo)
    assert np.array_equal(open_image(tmp_path / "photo.png", channels=3), upright)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    """A still is what a classifier takes."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "two.gif", channels=3).getpixel((0, 0)) == (255, 0, 0)
