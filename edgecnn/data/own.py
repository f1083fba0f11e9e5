"""Labelled sets that people bring: a folder of class folders, or a CSV file of image and label."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgecnn.data.images import check_images, list_images
from edgecnn.data.labelled import FilePictures, LabelledSet
from edgecnn.errors import DataError

_FILE_COLUMNS = frozenset({"file", "filename", "file_name", "path", "filepath", "image", "image_path", "img"})
_LABEL_COLUMNS = frozenset({"label", "labels", "class", "class_name", "classname", "category", "target"})
_PART_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
# So many of what does not fit are named, the rest counted.
_NAMED = 5


def open_folder(folder: Path) -> LabelledSet:
    """The images of a folder whose folders are the classes, in the order of their names.

    Hidden files and folders are skipped; a class's images may lie in folders of its own.

    Raises:
        DataError: no class folders, a class without images, files beside the class folders, or a file that
            is not an image.
    """
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from error
    classes = [path for path in inside if path.is_dir()]
    if not classes:
        raise DataError(
            f"{folder} has no class folders",
            hint="put the images of each class into a folder with its name, or pass a CSV of image and label",
        )
    if len(classes) < len(inside):
        beside = [path.name for path in inside if not path.is_dir()]
        raise DataError(
            f"{_named(beside, len(inside))} beside the class folders of {folder}",
            hint="put each image into the folder of its class, and what is no image elsewhere",
        )
    if all(path.name.lower() in _PART_FOLDERS for path in classes):
        raise DataError(
            f"the folders of {folder} are parts ({', '.join(path.name for path in classes)}), not classes",
            hint=f"pass one of them: {classes[0]}",
        )
    empty = [path.name for path in classes if not _has_files(path)]
    if empty:
        raise DataError(
            f"classes without an image in {folder}: {_named(empty, len(classes))}",
            hint="put images into them, or remove the folders",
        )
    paths = [list_images(path) for path in classes]
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in paths])
    pictures = FilePictures(tuple(path for images in paths for path in images))
    return LabelledSet(folder.resolve().name, tuple(path.name for path in classes), labels, pictures)


def open_csv(path: Path) -> LabelledSet:
    """The images that a CSV file names, a row each: file and label, relative to the CSV file's folder.

    Columns are parted by commas, semicolons or tabs. A first row of column names may say which two of several
    columns count (``file`` or ``path``, ``label`` or ``class``, ...); without one there are two columns.
    Classes are ordered by number where all are numbers, else by name. The text is UTF-8, or UTF-16 with its
    byte order mark.

    Raises:
        DataError: no such table, files that do not exist or are no images, or an image with two labels.
    """
    rows = _rows(path)
    files: dict[Path, str] = {}
    missing = []
    for line, name, label in rows:
        if not name or not label:
            raise DataError(f"{path} line {line}: {'no label' if name else 'no file name'}")
        image = path.parent / name
        if files.setdefault(image, label) != label:
            raise DataError(f"{path} line {line}: {name} is '{label}' there, and '{files[image]}' before")
        if not os.path.isfile(image):  # unlike Path.is_file, it bears names that cannot be
            missing.append(name)
    if missing:
        raise DataError(
            f"{path} names files that do not exist: {_named(missing, len(rows))}",
            hint=f"names are relative to the folder of the CSV file, {path.parent}",
        )
    if not files:
        raise DataError(f"{path} names no image", hint="write a row for each image: file,label")
    check_images(list(files), path)
    classes = _ordered(files.values())
    index = {label: place for place, label in enumerate(classes)}
    labels = np.array([index[label] for label in files.values()], np.int64)
    return LabelledSet(path.stem, classes, labels, FilePictures(tuple(files)))


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """Line number, file and label of each row that is not blank."""
    text = _text(path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
        stripped = ([cell.strip() for cell in row] for row in reader)
        rows = [(reader.line_num, row) for row in stripped if any(row)]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table: {error}") from error
    if not rows:
        raise DataError(f"{path} is empty", hint="write a row for each image: file,label")
    columns = _header(rows[0][1])
    if columns is not None:
        rows = rows[1:]
    width = 2 if columns is None else max(columns) + 1
    file, label = columns or (0, 1)
    for line, row in rows:
        if len(row) < width or (columns is None and len(row) > width):
            raise DataError(
                f"{path} line {line} has {len(row)} columns, not {width}",
                hint="write file,label in each row; names of columns in the first row pick two of several",
            )
    return [(line, row[file], row[label]) for line, row in rows]


def _header(row: Sequence[str]) -> tuple[int, int] | None:
    """Which columns hold file and label, if the row says so."""
    names = [name.lower() for name in row]
    files = [index for index, name in enumerate(names) if name in _FILE_COLUMNS]
    labels = [index for index, name in enumerate(names) if name in _LABEL_COLUMNS]
    return (files[0], labels[0]) if len(files) == 1 and len(labels) == 1 else None


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {line} is not UTF-8 text", hint="save the table as UTF-8 (CSV UTF-8)"
        ) from error
    if "\0" in text:
        raise DataError(f"{path} is not a text file", hint="pass a CSV table of image and label")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _ordered(labels: Iterable[str]) -> tuple[str, ...]:
    names = set(labels)
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _has_files(folder: Path) -> bool:
    return any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def _named(names: Sequence[str], of: int) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} ({len(names)} of {of})"
