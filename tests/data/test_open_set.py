"""Labelled sets that people bring, and what is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data.fit import fit_labels
from edgecnn.data.labelled import FilePictures, LabelledSet
from edgecnn.data.open_set import open_set
from edgecnn.errors import ConfigError, DataError, EdgeCNNError
from edgecnn.zoo.labels import read_labels


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def photos(folder: Path, counts: dict[str, int]) -> Path:
    """A folder of class folders; no two images are equal."""
    seed = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for _ in range(count):
            save(folder / name / f"{seed}.png", seed)
            seed += 1
    return folder


def refuse(text: str | Path, match: str, kind: type[EdgeCNNError] = DataError) -> str:
    with pytest.raises(kind, match=match) as caught:
        open_set(text)
    assert "\n" not in str(caught.value)
    return str(caught.value.hint)


def prints(data: LabelledSet) -> list[str]:
    return [data.pictures.fingerprint(index) for index in range(len(data))]


def test_class_folders(tmp_path: Path) -> None:
    folder = photos(tmp_path / "pets", {"dog": 2, "cat": 3})
    save(folder / "cat/more/9.png", 9)
    save(folder / "cat/.hidden/8.png", 8)
    (folder / ".cache").mkdir()
    data = open_set(folder)
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert data.labels.dtype == np.int64
    assert [Path(data.pictures.name(index)).parent.name for index in (0, 3, 5)] == ["cat", "more", "dog"]
    assert np.array_equal(np.asarray(data.pictures.open(4, 3)), np.asarray(Image.open(folder / "dog/0.png")))


def test_parts_follow_the_content(tmp_path: Path) -> None:
    folder = photos(tmp_path / "pets", {"cat": 20, "dog": 11})
    whole, test, train = (open_set(f"{folder}{part}") for part in ("", ":test", ":train"))
    assert (len(whole), len(test), len(train)) == (31, 6, 25)
    assert np.bincount(test.labels).tolist() == [4, 2]
    assert sorted(prints(test) + prints(train)) == sorted(prints(whole))
    assert test.name == "pets:test"
    assert open_set(folder, "test").sha256 == test.sha256
    assert open_set(f"{folder}:test", "train").sha256 == test.sha256
    # The same images under other names, in another order, are parted in the same way.
    renamed = tmp_path / "renamed"
    for number, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        (renamed / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, renamed / path.parent.name / f"{number:03d}.png")
    assert sorted(prints(open_set(renamed, "test"))) == sorted(prints(test))


def test_copies_are_on_one_side(tmp_path: Path) -> None:
    folder = photos(tmp_path / "pets", {"cat": 10, "dog": 10})
    for path in sorted(folder.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    train, test = open_set(folder, "train"), open_set(folder, "test")
    assert (len(train), len(test)) == (32, 8)
    assert not set(prints(train)) & set(prints(test))


def test_a_class_that_cannot_be_parted(tmp_path: Path) -> None:
    folder = photos(tmp_path / "pets", {"cat": 4, "dog": 1})
    refuse(f"{folder}:test", "one different image only in class dog")
    assert len(open_set(folder)) == 5
    shutil.copy(folder / "dog/4.png", folder / "dog/copy.png")
    refuse(f"{folder}:train", "one different image only in class dog")


def test_folders_that_are_no_labelled_sets(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "no class folders")
    save(tmp_path / "flat/1.png", 1)
    assert "class" in refuse(tmp_path / "flat", "no class folders")
    folder = photos(tmp_path / "mixed", {"cat": 2, "dog": 2})
    save(folder / "loose.png", 1)
    refuse(folder, r"loose\.png .* beside the class folders")
    folder = photos(tmp_path / "hollow", {"cat": 2, "dog": 0, "elk": 0})
    (folder / "elk/.hidden").write_text("")
    refuse(folder, r"classes without an image .*dog, elk")
    folder = photos(tmp_path / "one", {"cat": 1})
    assert "at least two" in refuse(folder, "has one image")
    folder = photos(tmp_path / "text", {"cat": 2})
    (folder / "cat/notes.txt").write_text("x")
    refuse(folder, r"not an image.*notes\.txt")
    parts = tmp_path / "parts"
    photos(parts / "train", {"cat": 2})
    photos(parts / "val", {"cat": 2})
    assert str(parts / "train") in refuse(parts, r"are parts \(train, val\)")


def test_unknown_sets_and_parts(tmp_path: Path) -> None:
    assert "cifar10" in refuse("cifar-10", "there is no data set", ConfigError)
    assert "train, test" in refuse("cifar10:val", "no part 'val'", ConfigError)
    refuse(tmp_path / "nowhere", "there is no data set", ConfigError)
    assert "imagenet70:test" in refuse("imagenet70:train", "has no train part")


def test_a_colon_in_a_path_is_no_part(tmp_path: Path) -> None:
    folder = photos(tmp_path / "shots:train", {"cat": 2, "dog": 2})
    assert len(open_set(folder)) == 4


CSV = {
    "plain": "a.png,cat\nsub/b.png,dog\nc.png,cat\n",
    "header": "file,label\na.png,cat\nsub/b.png,dog\nc.png,cat\n",
    "columns": "id,Label,width,Image\n1,cat,6,a.png\n2,dog,6,sub/b.png\n3,cat,6,c.png\n",
    "semicolons": "Path;Class\r\na.png; cat\r\n\r\nsub/b.png;dog\r\nc.png;cat\r\n",
    "tabs": "a.png\tcat\nsub/b.png\tdog\nc.png\tcat",
    "quoted": '"a.png","cat"\n"sub/b.png","dog"\n"c.png","cat"\n',
    "twice": "a.png,cat\na.png,cat\nsub/b.png,dog\nc.png,cat\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", CSV)
def test_csv(tmp_path: Path, form: str, encoding: str) -> None:
    for seed, name in enumerate(("a.png", "sub/b.png", "c.png")):
        save(tmp_path / name, seed)
    table = tmp_path / "table.csv"
    table.write_bytes(CSV[form].encode(encoding))
    data = open_set(table)
    assert (data.name, data.classes, data.labels.tolist()) == ("table", ("cat", "dog"), [0, 1, 0])
    assert data.pictures.name(1) == str(tmp_path / "sub/b.png")


def test_csv_of_numbers_and_strange_letters(tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path / f"Schäferhund 犬 {seed}.png", seed)
    table = tmp_path / "t.csv"
    rows = [f"Schäferhund 犬 {seed}.png,{label}" for seed, label in enumerate((10, 9, 0))]
    table.write_text("\n".join(rows), encoding="utf-8")
    data = open_set(table)
    assert (data.classes, data.labels.tolist()) == (("0", "9", "10"), [2, 1, 0])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"file,label\n", "names no image"),
        (b"a.png\nb.png\n", "line 1 has 1 columns, not 2"),
        (b"a.png,cat\nb.png,dog,7\n", "line 2 has 3 columns, not 2"),
        (b"id,file,label\n1,a.png,cat\n2,b.png\n", "line 3 has 2 columns, not 3"),
        (b"a.png,cat\nb.png,\n", "line 2: no label"),
        (b"a.png,cat\n,dog\n", "line 2: no file name"),
        (b"a.png,cat\n,\nb.png,\n", "line 3: no label"),
        (b"a.png,cat\nb.png,dog\na.png,dog\n", "line 3: a.png is 'dog' there, and 'cat' before"),
        (b"a.png,cat\nz.png,dog\ny.png,dog\n", r"do not exist: z\.png, y\.png \(2 of 3\)"),
        (b"a.png,cat\n" + b"x" * 5000 + b",dog\n", "do not exist"),
        (b"a.png,cat\nt.csv,dog\n", "not an image"),
        (b"a.png,cat\nb.png,Sch\xe4ferhund\n", "line 2 is not UTF-8"),
        (b"a.png,cat\0\n", "is not a text file"),
        (b'a.png,"cat\n', "is no CSV table"),
        (b"a.png,cat\n", "has one image"),
    ],
)
def test_csv_that_is_wrong(tmp_path: Path, content: bytes, match: str) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        save(tmp_path / name, seed)
    (tmp_path / "t.csv").write_bytes(content)
    refuse(tmp_path / "t.csv", match)


def labelled(*classes: str, used: list[int] | None = None) -> LabelledSet:
    labels = np.array(range(len(classes)) if used is None else used)
    return LabelledSet("set", classes, labels, FilePictures(tuple(Path(str(label)) for label in labels)))


IMAGENET = read_labels("imagenet")


@pytest.mark.parametrize(
    ("classes", "labels", "outputs", "expected"),
    [
        (("cat", "dog"), ("dog", "elk", "cat"), 3, [2, 0]),
        (("Great_White-Shark", "TENCH"), ("tench, Tinca tinca", "x", "great white shark"), 3, [2, 0]),
        (("tinca tinca",), ("tench, Tinca tinca", "x"), 2, [0]),
        (("Ma\u0308use",), ("m\u00e4use", "x"), 2, [0]),
        (("2", "0"), ("dog", "elk", "cat"), 3, [2, 0]),
        (("2", "0"), None, 3, [2, 0]),
        (("0", "1"), ("1", "0"), 2, [1, 0]),
        (("cat", "dog"), None, 2, [0, 1]),
        (("n01440764", "n15075141"), IMAGENET, 1000, [0, 999]),
        (("n01440764", "n15075141"), None, 1000, [0, 999]),
        (IMAGENET, IMAGENET, 1000, list(range(1000))),
        (IMAGENET, None, 1000, list(range(1000))),
        (("crane", "crane"), ("crane", "crane"), 2, [0, 1]),
    ],
)
def test_labels_that_fit(
    classes: tuple[str, ...], labels: tuple[str, ...] | None, outputs: int, expected: list[int]
) -> None:
    found = fit_labels(labelled(*classes), labels, outputs)
    assert (found.tolist(), found.dtype) == (expected, np.int64)


def test_classes_without_images_need_not_fit() -> None:
    data = labelled("cat", "unicorn", "dog", used=[0, 2, 2])
    assert fit_labels(data, ("dog", "cat"), 2).tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("classes", "labels", "outputs", "match"),
    [
        (("cat", "dgo", "elk"), ("cat", "dog"), 2, r"does not know \(2 of 3\): 'dgo', 'elk'"),
        (("cat", "dog", "elk"), None, 2, "2 outputs without names, set has 3 classes"),
        (("0", "1", "2"), None, 2, "'2' fit none"),
        (("1", "2"), None, 2, "'2' fit none"),
        (("cat", "0"), ("cat", "dog"), 2, "'0'"),
        (("crane",), ("crane, bird", "crane, machine"), 2, "'crane'"),
        (("cat", "Cat"), ("cat", "dog"), 2, "classes cat and Cat of set are one output"),
        (("n01440764",), None, 1001, "fit none"),
        (("\u0663",), None, 10, "fit none"),
    ],
)
def test_labels_that_do_not_fit(
    classes: tuple[str, ...], labels: tuple[str, ...] | None, outputs: int, match: str
) -> None:
    with pytest.raises(DataError, match=match) as caught:
        fit_labels(labelled(*classes), labels, outputs)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
