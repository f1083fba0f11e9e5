"""Networks over many images: in order, each image once, and never again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.accuracy.predict import predict
from edgecnn.data.labelled import FilePictures
from edgecnn.errors import ConfigError, DataError

from .conftest import by_colour, coloured, fingerprints, recipe


def test_outputs_are_in_the_order_of_the_images() -> None:
    data = coloured(150)
    classifier = by_colour(recipe("imagenet"))
    [logits] = predict([classifier], data.pictures, fingerprints(data))
    run = classifier.load()
    expected = [run(x)[0][0] for x in data.inputs(classifier.recipe)]
    assert np.array_equal(logits, np.array(expected))


def test_nothing_is_computed_twice() -> None:
    data = coloured(40)
    ours, theirs = [], []
    one = by_colour(recipe("unit"), name="one", ran=ours)
    other = by_colour(recipe("unit"), name="other", trained=recipe("signed"), ran=theirs)
    some = data.take(range(0, 40, 2))
    [first] = predict([one], some.pictures, fingerprints(some))
    assert (len(ours), len(theirs)) == (20, 0)
    both = predict([one, other], data.pictures, fingerprints(data))
    again = predict([one, other], data.pictures, fingerprints(data))
    assert (len(theirs), np.array_equal(both, again)) == (40, True)
    assert np.array_equal(both[0][::2], first)
    predict([one], data.pictures, fingerprints(data))
    predict([other], some.pictures, fingerprints(some))
    assert (len(ours), len(theirs)) == (60, 40)
    predict([one.prepared(recipe("signed"))], data.pictures, fingerprints(data))
    predict([one.prepared(one.recipe, bgr=True)], data.pictures, fingerprints(data))
    assert len(ours) == 140


def test_an_interrupted_run_goes_on_where_it_was() -> None:
    data = coloured(200)
    ran: list[int] = []
    classifier = by_colour(recipe("unit"), ran=ran)

    def progress(what: str, done: float, total: float | None) -> None:
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict([classifier], data.pictures, fingerprints(data), progress)
    ran.clear()
    seen: list[float] = []
    [logits] = predict(
        [classifier], data.pictures, fingerprints(data), lambda what, done, total: seen.append(done)
    )
    assert len(ran) == 100
    assert (seen[1], seen[-1]) == (101, 200)
    assert (logits.argmax(axis=1) == data.labels).all()


KILLED = """
import sys, time
from tests.accuracy.conftest import by_colour, coloured, fingerprints, recipe
from edgecnn.accuracy.predict import predict
from dataclasses import replace

classifier = by_colour(recipe("unit"))
slow = replace(classifier, load=lambda: lambda x: (time.sleep(0.03), classifier.load()(x))[1])
data = coloured(2000)
predict([slow], data.pictures, fingerprints(data))
"""


def test_a_killed_run_leaves_what_it_has_computed(cache: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        deadline = time.monotonic() + 60
        while not list(cache.rglob("*.rows")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    ran: list[int] = []
    data = coloured(2000)
    [logits] = predict([by_colour(recipe("unit"), ran=ran)], data.pictures, fingerprints(data))
    assert 0 < len(ran) < 2000
    assert (logits.argmax(axis=1) == data.labels).all()


def test_an_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
    paths[3].write_bytes(paths[3].read_bytes()[:40])
    pictures = FilePictures(tuple(paths))
    ran: list[int] = []
    classifier = by_colour(recipe("unit"), ran=ran)
    names = [pictures.fingerprint(index) for index in range(5)]
    with pytest.raises(DataError, match=r"3\.png"):
        predict([classifier], pictures, names)
    ran.clear()
    predict([classifier], pictures.take([0, 1, 2]), names[:3])
    assert ran == []


def test_networks_that_are_fed_differently_are_not_compared() -> None:
    data = coloured(4)
    with pytest.raises(ConfigError, match="prepare images differently"):
        predict([by_colour(recipe("unit")), by_colour(recipe("raw"))], data.pictures, fingerprints(data))
