"""The page: complete, closed, closed to the network, and saying what its values say."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecnn.accuracy.interval import Share
from edgecnn.errors import OutputError
from edgecnn.layer_noise import Layer, Range
from edgecnn.report.bundle import bundle_report
from edgecnn.report.explain import Explanation
from edgecnn.report.page import render, write_report
from edgecnn.report.pictures import Answer, Gallery, Picture
from edgecnn.report.report import Figure, Report, Table, Verdict

_VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements that are opened and closed in turn, their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\xa0", " ").split())

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


def layer(name: str, sqnr_db: float, form: Any = "int8") -> Layer:
    held = Range(-1.0, 2.0, -1.5, 1.5, 0.004) if form != "float" else None
    return Layer(name, "Conv", (1, 8, 4, 4), form, sqnr_db, 1.25, held)


def picture(name: str, fp32: int = 1, int8: int = 2, side: int = 224) -> Picture:
    rng = np.random.default_rng(0)
    saliency = rng.random((side, side), np.float32)
    return Picture(
        name,
        rng.integers(0, 255, (side, side, 3), np.uint8),
        Answer(fp32, f"label {fp32}", 0.512, saliency),
        Answer(int8, f"label {int8}", 0.433, saliency),
        2.345,
        0.678,
    )


def explanation(pictures: tuple[Picture, ...] = (), hits: int = 15) -> Explanation:
    layers = [layer("image", 45.0), layer("quiet", math.inf), layer("dead", -math.inf)]
    layers += [layer(f"layer {i}", 20.0 + i) for i in range(8)] + [layer("exact", 30.0, "float")]
    gallery = Gallery("photographs", Share(hits, 15), pictures) if pictures else None
    return Explanation(tuple(layers), 4, "photographs", gallery)


def full() -> Report:
    table = Table(
        ("Layer", "SQNR, dB", "Images", "Share"),
        (("a<b", 21.25, 1200, None), ("`c`", 7.5, 3, 0.25)),
        chosen=frozenset({1}),
        caption="What each costs & gains.",
    )
    return Report(
        title="net-<1.0>",
        subtitle="int8 for tflite",
        verdicts=(
            Verdict("Arithmetic", "good", "It computes what was decided."),
            Verdict(
                "Pay-off & more", "caution", "1.5 % slower; see `--target`.", ("First.", "Second."), (table,)
            ),
        ),
        figures=(Figure("22.0 dB", "noise"),),
        explanation=explanation((picture("cat.jpg"), picture("dog.jpg", 1, 1)), 14),
        checks=("a check of 15 images",),
        facts=(("Command", "edgecnn export --weights '<file>'"),),
    )


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    html = render(full())
    page = Page(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(value.startswith("data:image/webp;base64,") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"https?:|url\(|@import", html)
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_sentences_of_other_parts_become_sentences() -> None:
    verdicts = (
        Verdict("Guard", "good", "the budget holds with `conv` in float"),
        Verdict("Pay-off", "problem", "int8 is slower; to blame is conv"),
    )
    text = Page(render(Report("net", "int8", verdicts))).text
    assert "The budget holds with conv in float." in text.replace(" .", ".")
    assert text.count("int8 is slower; to blame is conv.") == 2


def test_links_lead_somewhere_and_names_are_unique() -> None:
    page = Page(render(full()))
    anchors = page.values("id")
    assert len(set(anchors)) == len(anchors)
    assert {value.removeprefix("#") for value in page.values("href")} <= set(anchors)
    assert page.values("href") == ["#pay-off-more"]


def test_what_is_not_there_is_left_out() -> None:
    page = Page(render(Report("net", "int8", (Verdict("Arithmetic", "good", "Fine."),))))
    assert page.tags["section"] == 1
    assert page.tags["table"] == page.tags["img"] == page.tags["dl"] == 0


def test_names_are_text_whatever_they_hold() -> None:
    text = Page(render(full())).text
    assert "net-<1.0>" in text
    assert "a<b" in text
    assert "--weights '<file>'" in text
    assert "<code>--target</code>" in render(full())


def test_numbers_of_a_column_have_the_same_decimals() -> None:
    html = render(full())
    for cell in ("21.25", "7.50", "1,200", "0.25"):
        assert f'<td class="number">{cell}</td>' in html
    assert "1.5&nbsp;% slower" in html
    assert html.count("class=chosen") == 1


def test_images_can_be_seen_and_are_described() -> None:
    page = Page(render(full()))
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(sources) == 6
    for source in sources:
        content = base64.b64decode(source.removeprefix("data:image/webp;base64,"), validate=True)
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size) == ("WEBP", (224, 224))
    described = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert "where int8 looks for label 2 in cat.jpg" in described
    assert "The int8 graph gives 1 of 15 photographs another class." in page.text
    assert "fp32 label 1 51 %" in page.text
    assert "2.3 steps of the int8 output apart. The two maps correlate by 0.68." in page.text
    assert page.text.count("The class changed.") == 1


def test_images_that_nearly_changed_are_called_so() -> None:
    report = Report("net", "int8", (), explanation=explanation((picture("a", 1, 1),)))
    text = Page(render(report)).text
    assert "What nearly changed All 15 photographs keep their class." in text


def test_small_images_are_kept_pixel_by_pixel() -> None:
    shown = picture("digit", side=28)
    html = render(Report("net", "int8", (), explanation=explanation((shown,))))
    source = re.search(r'base64,([^"]+)" width="28" height="28" class=small', html)
    assert source is not None
    with Image.open(io.BytesIO(base64.b64decode(source[1]))) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), shown.pixels)


def test_layers_are_drawn_and_the_lowest_named() -> None:
    html = render(Report("net", "int8", (), explanation=explanation()))
    text = Page(html).text
    assert html.count('<rect class="hit"') == 12
    assert html.count('class="rank"') == 5
    assert "image, int8: 45.0 dB" in text
    assert "The lowest 5" in text
    listed = re.findall(r'<th scope="row">([^<]+)</th>', html)
    assert listed[:5] == ["dead", "layer 0", "layer 1", "layer 2", "layer 3"]
    assert listed[5:] == [entry.name for entry in explanation().layers]
    for words in ("no noise", "no signal", "0.40 %", "+1.2", "integers hold -1 to 2; reached -1.5 to 1.5"):
        assert words in text
    assert "nan" not in html.lower().replace("finance", "")
    assert "inf" not in re.sub(r"<style>.*</style>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("tones", "headline"),
    [
        (("good", "good"), "This file can be trusted."),
        (("good", "open"), "Sound so far; not measured yet: second."),
        (("open", "caution"), "This file can be used, with care."),
        (("caution", "problem"), "Do not ship this file yet."),
    ],
)
def test_the_worst_verdict_is_said_first(tones: tuple[Any, Any], headline: str) -> None:
    report = Report(
        "net",
        "int8",
        (Verdict("First", tones[0], "This is one."), Verdict("Second", tones[1], "This is two.")),
    )
    assert report.headline == headline
    before, _ = Page(render(report)).text.split(" Why ")
    assert headline in before
    assert ("Second. This is two." in before) == (tones[1] != "good")
    assert "First." not in before


def manifest(**changes: Any) -> dict[str, Any]:
    def graph(against: str, value: float) -> dict[str, Any]:
        return {
            "stage": "int8 graph", "against": f"float graph on {against}", "images": 15, "metric": "sqnr_db",
            "value": value, "limit": 8.0, "top1_agreement": 14 / 15,
        }  # fmt: skip

    return {
        "variant": "mobilenet_v2-1.0-224",
        "target": "tflite",
        "precision": "int8",
        "model_file": "model.tflite",
        "params": 3504872,
        "macs": 300774272,
        "weights": {
            "random": changes.get("random", False), "description": "weights of the test",
            "top1_percent": None, "top1_source": None, "trained_resolution": None, "licence": None,
        },
        "calibration": {"images": 78, "sha256": "ab"},
        "graph_sha256": "cd",
        "checks": [
            graph("calibration images", changes.get("seen", 22.5)),
            graph("verification photographs", changes.get("unseen", 22.0)),
            {"stage": "int8 artifact", "against": "int8 graph, unfused", "images": 15,
             "metric": "mean_abs_steps", "value": 0.75, "limit": 1.5, "top1_agreement": 1.0},
        ],
        "measured": changes.get("measured"),
        "versions": {"python": "3.11", "edgecnn": "0.1.0"},
        "command": ["edgecnn", "export", "mobilenet_v2", "--target", "tflite", "--precision", "int8"],
    }  # fmt: skip


def tones(report: Report) -> dict[str, str]:
    return {verdict.title: verdict.tone for verdict in report.verdicts}


def test_a_bundle_says_what_was_not_measured() -> None:
    report = bundle_report(manifest(), 3_600_000, explanation((picture("cat.jpg"),), 14))
    assert tones(report) == {
        "Arithmetic": "good",
        "Fidelity": "good",
        "Calibration": "good",
        "Accuracy": "open",
    }
    assert report.headline == "Sound so far; not measured yet: accuracy."
    text = Page(render(report)).text
    assert "14 of 15" in text
    assert "(95 % interval 70 to 99 %)" in text
    assert "keeps the class of 14 and moves the scores by 7.9 % of their size (SQNR 22.0 dB)" in text
    assert "3.6 MB" in text
    assert "ms" not in [figure.value.split()[-1] for figure in report.figures]
    assert "edgecnn export mobilenet_v2 --target tflite --precision int8" in text


def test_accuracy_that_was_measured_takes_its_place() -> None:
    measured = Verdict("Accuracy", "good", "71.3 % of 1,000 images.")
    report = bundle_report(manifest(), 1, None, (measured,))
    assert report.headline == "This file can be trusted."


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"unseen": 20.0}, {"Fidelity": "good", "Calibration": "good"}),
        ({"unseen": 17.0, "seen": 18.0}, {"Fidelity": "caution", "Calibration": "good"}),
        ({"unseen": 17.0, "seen": 25.0}, {"Fidelity": "caution", "Calibration": "caution"}),
        ({"unseen": 9.0, "seen": 9.0}, {"Fidelity": "problem", "Calibration": "good"}),
        ({"unseen": 9.0, "seen": 9.0, "random": True}, {"Fidelity": "good", "Calibration": "good"}),
    ],
)
def test_noise_is_judged(figures: dict[str, Any], expected: dict[str, str]) -> None:
    report = bundle_report(manifest(**figures), 1)
    assert tones(report).items() >= expected.items()
    if figures.get("random"):
        assert report.headline == "Right arithmetic, untrained weights: use it for latency only."
        assert "Accuracy" not in tones(report)


def test_an_unsteady_latency_is_said_to_be_one() -> None:
    measured = {
        "threads": 1, "cpu_model": "Some CPU", "cpu_arch": "x86_64", "steady": False, "p50_ms": 1.2345,
        "reason": "not steady: 7 runs are fewer than 20", "os": "Linux",
    }  # fmt: skip
    text = Page(render(bundle_report(manifest(measured=measured), 1))).text
    assert "≈ 1.2 ms" in text
    assert "7 runs are fewer than 20" in text
    steady = {**measured, "steady": True, "reason": "steady: spread 2.0%"}
    assert "1.234 ms" in Page(render(bundle_report(manifest(measured=steady), 1))).text


def test_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, full())
    assert path.read_text(encoding="utf-8") == render(full())
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "nowhere" / "report.html", full())
