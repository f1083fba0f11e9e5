"""The page: one HTML file that holds all it shows and loads nothing."""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path

from edgecnn.errors import OutputError
from edgecnn.layer_noise import Layer, Range
from edgecnn.report.charts import decibel, depth_chart, heated, key, photograph, range_chart
from edgecnn.report.explain import Explanation
from edgecnn.report.pictures import Answer, Gallery, Picture, blurred
from edgecnn.report.report import Cell, Report, Table, Tone, Verdict

_WORDS: dict[Tone, str] = {"good": "Good", "caution": "Caution", "problem": "Problem", "open": "Not measured"}
# So many layers are marked in the chart and listed below it.
_RANKED = 5
_NUMERIC = frozenset({"", "SQNR, dB", "Lost here, dB", "Cut off"})
_TICK = (
    '<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true"><path d="M2 7.5 5.5 11 12 3.5" '
    'fill="none" stroke="currentColor" stroke-width="2" class="good" style="color:var(--good)"/></svg>'
)


def write_report(path: Path, report: Report) -> None:
    """Write the page.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.write_text(render(report), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def render(report: Report) -> str:
    """The page as HTML. It opens offline: it has no script, and its policy forbids to load anything."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    sections = [_verdicts(report)]
    if report.explanation is not None:
        if report.explanation.gallery is not None:
            sections.append(_gallery(report.explanation.gallery))
        if report.explanation.layers:
            sections.append(_layers(report.explanation))
    sections += [_section(verdict) for verdict in report.verdicts if verdict.details or verdict.tables]
    if report.checks:
        checks = "".join(f"<li>{_TICK}{_text(check)}</li>" for check in report.checks)
        sections.append(f'<section><h2>What was checked</h2><ul class="checks">{checks}</ul></section>')
    if report.facts:
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{_text(value)}</dd>" for name, value in report.facts)
        sections.append(f'<section><h2>How it was made</h2><dl class="facts">{facts}</dl></section>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(report.title)}: {escape(report.subtitle)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n{_header(report)}\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n<footer>Written by edgecnn. All that this page shows is in this one file.</footer>\n"
        "</body>\n</html>\n"
    )


def _text(sentence: str) -> str:
    """Plain text as HTML: what stands between backticks as code, numbers and their units on one line."""
    joined = re.sub(r"(?<=\d) (?=(%|dB|ms|MB|kB)(?!\w))", "&nbsp;", escape(sentence))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", joined)


def _sentence(verdict: Verdict) -> str:
    """A verdict's sentence with a capital, where it begins with a word, and a full stop."""
    first, space, others = verdict.sentence.partition(" ")
    whole = (first[:1].upper() + first[1:] if first.isalpha() else first) + space + others
    return _text(whole if whole.endswith((".", "!", "?")) else f"{whole}.")


def _anchor(verdict: Verdict) -> str:
    return re.sub(r"[^a-z0-9]+", "-", verdict.title.lower()).strip("-")


def _header(report: Report) -> str:
    reasons = "".join(f"<li><b>{escape(v.title)}.</b> {_sentence(v)}</li>" for v in report.reasons)
    figures = "".join(
        f"<div><dt>{_text(figure.meaning)}</dt><dd>{escape(figure.value)}</dd></div>"
        for figure in report.figures
    )
    return (
        f"<header><h1>{escape(report.title)} <span>{escape(report.subtitle)}</span></h1>"
        f'<div class="answer {report.tone}"><h2>{escape(report.headline)}</h2>'
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + "</div>"
        + (f'<dl class="figures">{figures}</dl>' if figures else "")
        + "</header>"
    )


def _verdicts(report: Report) -> str:
    rows = []
    for verdict in report.verdicts:
        title = escape(verdict.title)
        if verdict.details or verdict.tables:
            title = f'<a href="#{_anchor(verdict)}">{title}</a>'
        rows.append(
            f'<li class="{verdict.tone}"><h3>{title}</h3><span class="tone">{_WORDS[verdict.tone]}</span>'
            f"<p>{_sentence(verdict)}</p></li>"
        )
    return f'<section><h2>Why</h2><ul class="verdicts">{"".join(rows)}</ul></section>'


def _section(verdict: Verdict) -> str:
    details = "".join(f"<p>{_text(sentence)}</p>" for sentence in verdict.details)
    tables = "".join(_table(table, verdict.title) for table in verdict.tables)
    return f'<section id="{_anchor(verdict)}"><h2>{escape(verdict.title)}</h2>{details}{tables}</section>'


def _table(table: Table, title: str) -> str:
    columns = [tuple(row[i] for row in table.rows) for i in range(len(table.columns))]
    shown = [_column(cells) for cells in columns]
    numeric = [
        any(cell is not None for cell in cells) and not any(isinstance(cell, str) for cell in cells)
        for cells in columns
    ]
    head = "".join(
        f'<th scope="col"{_number(right)}>{_text(name)}</th>'
        for name, right in zip(table.columns, numeric, strict=True)
    )
    body = ""
    for i in range(len(table.rows)):
        cells = "".join(
            f"<td{_number(right)}>{_text(texts[i])}</td>"
            if number
            else f'<th scope="row">{_text(texts[i])}</th>'
            for number, (texts, right) in enumerate(zip(shown, numeric, strict=True))
        )
        body += f"<tr{' class=chosen' if i in table.chosen else ''}>{cells}</tr>"
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return _scroll(f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", title)


def _column(cells: tuple[Cell, ...]) -> list[str]:
    """A column's cells as text; its numbers have the decimals that four digits of the largest take."""
    numbers = [cell for cell in cells if isinstance(cell, float) and math.isfinite(cell)]
    tolerance = max(map(abs, numbers), default=0.0) / 2000
    decimals = next((d for d in range(6) if all(abs(round(x, d) - x) <= tolerance for x in numbers)), 6)
    texts = []
    for cell in cells:
        if isinstance(cell, float):
            texts.append(f"{cell:.{decimals}f}")
        else:
            texts.append("" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell)
    return texts


def _scroll(table: str, title: str) -> str:
    """A table in a frame that scrolls where the page is too narrow for it, by keyboard too."""
    return f'<div class="scroll" role="region" aria-label="{escape(title)}" tabindex="0">{table}</div>'


def _layers(explanation: Explanation) -> str:
    layers = explanation.layers
    noisy = [i for i, layer in enumerate(layers) if layer.form != "float" and layer.sqnr_db < math.inf]
    ranked = sorted(noisy, key=lambda i: layers[i].sqnr_db)[:_RANKED]
    images = explanation.layer_images
    of = f"{images} of the {explanation.which}" if images > 1 else f"one of the {explanation.which}"
    entries = [("faint", "int8"), ("strong", "int8, the lowest")]
    if any(layer.form == "float" for layer in layers):
        entries.append(("in-float", "float"))
    text = (
        f"The signal-to-noise ratio of each layer's output on {of}, from the image to the scores. At 20 dB "
        "the noise is a tenth of the signal, at 40 dB a hundredth. It includes the noise from the layers "
        "before; what a layer loses is how far it lies below its noisiest input, and adding up many values "
        "gains some of it back."
    )
    ranges = (
        "In a range, the wide bar is what the integers of an output can hold, the thin line what the images "
        "reached, and red what was cut off. Cutting off a few rare values is right: all others become finer."
    )
    lowest = ""
    if ranked:
        table = _layer_table([(rank, layers[i]) for rank, i in enumerate(ranked, 1)], "The lowest layers")
        lowest = f"<h3>The lowest {len(ranked)}</h3><p>{ranges}</p>{table}"
    everything = _layer_table(list(enumerate(layers, 1)), "All layers")
    return (
        f'<section id="layers"><h2>Layer by layer</h2><p>{text}</p>{depth_chart(layers, ranked)}'
        f"{key(*entries)}{lowest}"
        f"<details><summary>All {len(layers)} layers</summary>{everything}</details></section>"
    )


def _layer_table(rows: list[tuple[int, Layer]], title: str) -> str:
    columns = list(_layer_row(*rows[0]))
    if all(layer.form == "int8" for _, layer in rows):
        columns.remove("Computes in")
    head = "".join(f'<th scope="col"{_number(name in _NUMERIC)}>{name}</th>' for name in columns)
    body = ""
    for number, layer in rows:
        row = _layer_row(number, layer)
        cells = (
            f'<th scope="row">{row[name]}</th>'
            if name == "Layer"
            else f"<td{_number(name in _NUMERIC)}>{row[name]}</td>"
            for name in columns
        )
        body += f"<tr>{''.join(cells)}</tr>"
    return _scroll(
        f'<table class="layers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>', title
    )


def _layer_row(number: int, layer: Layer) -> dict[str, str]:
    """The cells of a layer as HTML, by the names of their columns."""
    return {
        "": str(number),
        "Layer": escape(layer.name),
        "SQNR, dB": decibel(layer.sqnr_db),
        "Lost here, dB": f"{layer.lost_db:+z.1f}".replace("-", "&minus;") if layer.lost_db else "",
        "Range": range_chart(layer.range) if layer.range is not None else "",
        "Cut off": _cut_off(layer.range),
        "Operator": escape(layer.op_type),
        "Output": " &times; ".join(map(str, layer.shape[1:])),
        "Computes in": layer.form,
    }


def _number(right: bool) -> str:
    return ' class="number"' if right else ""


def _cut_off(held: Range | None) -> str:
    if held is None:
        return ""
    if not held.cut_off:
        return "none"
    return f"{100 * held.cut_off:.2f}&nbsp;%" if held.cut_off >= 1e-4 else "&lt; 0.01&nbsp;%"


def _gallery(gallery: Gallery) -> str:
    kept, shown = gallery.kept, len(gallery.pictures)
    changed = kept.images - kept.hits
    if changed:
        title = "What changed"
        some = f"; the {shown} of which fp32 was surest are shown" if changed > shown else ""
        text = f"The int8 graph gives {changed} of {kept.images} {gallery.which} another class{some}."
    else:
        title = "What nearly changed"
        text = (
            f"All {kept.images} {gallery.which} keep their class. These are the {shown} on which fp32's two "
            "best scores lie closest together, where a change would come first."
        )
    how = (
        "Bright is where a change of the pixel would change the score of the network's own answer most: the "
        "gradient of the class score, its absolute value, the largest of the channels, slightly blurred. "
        "Where fp32 and int8 look at the same places, int8 has kept what the network learnt."
    )
    figures = "".join(map(_picture, gallery.pictures))
    return (
        f'<section id="images"><h2>{title}</h2><p>{text}</p><p class="soft">{how}</p>'
        f'<div class="gallery">{figures}</div></section>'
    )


def _picture(picture: Picture) -> str:
    views = [f"<div>{photograph(picture.pixels, picture.name)}<p>{escape(picture.name)}</p></div>"]
    for name, answer in (("fp32", picture.fp32), ("int8", picture.int8)):
        shown = photograph(
            heated(picture.pixels, blurred(answer.saliency)),
            f"where {name} looks for {answer.label} in {picture.name}",
        )
        views.append(f"<div>{shown}<p><b>{name}</b> {_answer(answer)}</p></div>")
    what = "The class changed. " if picture.changed else ""
    return (
        f'<figure><div class="views">{"".join(views)}</div><figcaption>{what}fp32\'s two best scores are '
        f"{picture.margin_steps:.1f} steps of the int8 output apart. The two maps correlate by "
        f"{picture.alike:.2f}.</figcaption></figure>"
    )


def _answer(answer: Answer) -> str:
    return f"{escape(answer.label)} {100 * answer.share:.0f}&nbsp;%"
