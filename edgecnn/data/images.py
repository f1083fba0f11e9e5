"""Finding and decoding images that nobody has vouched for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edgecnn.errors import DataError

# Pillow would also open formats that start other programs (EPS runs Ghostscript) or that nobody audits.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# 192 MB once decoded to RGB; a file of a few bytes can declare far more.
MAX_PIXELS = 64_000_000

# So many strangers in a folder are named, the rest counted.
_NAMED = 5
_SAVE_AS = "save it with 8 or 16 bits a channel"


def list_images(folder: Path) -> list[Path]:
    """All images below a folder, sorted by their path in it; hidden files and folders are skipped.

    Headers are read, pixels are not.

    Raises:
        DataError: the folder does not exist, is not a folder, holds no image, or holds a file that is not an
            image or declares more than ``MAX_PIXELS`` pixels.
    """
    if not folder.exists():
        raise DataError(f"image folder {folder} does not exist", hint="pass a folder of images")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", hint="pass the folder that holds the images")
    paths = sorted(_visible_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise DataError(f"image folder {folder} is empty", hint=f"put images into it: {', '.join(FORMATS)}")
    check_images(paths, folder)
    return paths


def check_images(paths: Sequence[Path], source: Path) -> None:
    """See that files are images, by their headers.

    Args:
        paths: the files.
        source: the folder or table that they come from, for the message.

    Raises:
        DataError: a file is not an image, or declares more than ``MAX_PIXELS`` pixels.
    """
    strangers = [path for path in paths if not _is_image(path)]
    if strangers:
        named = ", ".join(_name_in(path, source) for path in strangers[:_NAMED])
        more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
        raise DataError(
            f"not an image, in {source} ({len(strangers)} of {len(paths)} files): {named}{more}",
            hint=f"remove what is not an image; known formats: {', '.join(FORMATS)}",
        )


def open_image(path: Path, channels: int) -> Image.Image:
    """Decode one image, upright, in mode ``L`` where ``channels`` is 1, else ``RGB``, of 8 bits.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits, and of
    an animation the first frame is taken. Colour profiles are ignored, as torchvision ignores them.

    Raises:
        DataError: no such file, not an image, truncated or damaged, more than ``MAX_PIXELS`` pixels, or
            values whose range is unknown (float, 32-bit integers beyond 16 bits).
    """
    if not path.is_file():
        raise DataError(f"image {path} does not exist or is not a file")
    with _errors_about(path), Image.open(path, formats=FORMATS) as image:
        _check_size(path, image)
        image.load()
        # A frame of a GIF may be larger than the canvas its header declares.
        _check_size(path, image)
        upright = ImageOps.exif_transpose(image)
        return _to_8_bits(path, upright).convert("L" if channels == 1 else "RGB")


def _name_in(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)


def _visible_files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise DataError(f"folder {error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _is_image(path: Path) -> bool:
    # A pipe or a socket would be waited for.
    if not path.is_file():
        return False
    try:
        with _errors_about(path), Image.open(path, formats=FORMATS) as image:
            _check_size(path, image)
    except DataError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            return False
        raise
    return True


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    """Whatever Pillow raises, as one ``DataError`` that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except DataError:
            raise
        except UnidentifiedImageError as error:
            raise DataError(f"{path} is not an image", hint=f"known formats: {', '.join(FORMATS)}") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise _too_large(path) from error
        # Damaged files make Pillow's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            raise DataError(f"image {path} is damaged or cannot be decoded: {error}") from error


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path)


def _too_large(path: Path) -> DataError:
    return DataError(
        f"image {path} has more than {MAX_PIXELS // 1_000_000} megapixels", hint="shrink it or leave it out"
    )


def _to_8_bits(path: Path, image: Image.Image) -> Image.Image:
    """The image opaque and in 8 bits, in a mode that Pillow converts to RGB and L as it should."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips "I" at 255, which turns a 16-bit scan white.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"image {path} has 32-bit values of unknown range", hint=_SAVE_AS)
        return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))
    if image.mode == "F":
        raise DataError(f"image {path} has float values of unknown range", hint=_SAVE_AS)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image
