"""The page: self-contained, escaped, complete and deterministic."""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_example import MemoryRecord, counted, model_row, run_row

import saddlepoint.report
from saddlepoint.core.digests import canonical_json
from saddlepoint.ledger.claims import Exhibit
from saddlepoint.report.exhibits import amplified, panel, softmax
from saddlepoint.report.html import html_report
from saddlepoint.report.record import Record
from saddlepoint.report.untested import untested
from saddlepoint.report.wording import sentence
from saddlepoint.spec.bracket import Verdict

VOID = {"meta", "img", "link", "br", "hr", "input"}
TEMPLATES = Path(saddlepoint.report.__file__).parent / "templates"


class Page(HTMLParser):
    """Text, tags and attributes of a page; complains about tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.hidden = [], [], [], 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in ("p", "li") and self.open[-1] != tag:
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def page(record):
    return html_report(record, "runs/digits.ledger")


def small(counts=None, model=None, exhibits=(), **threat):
    claim = counted(counts or {Verdict.BROKEN: 1}, model, **threat)
    key = (claim.model.digest, canonical_json(claim.threat))
    return MemoryRecord([claim.model], [claim], {key: list(exhibits)}, [], [run_row()])


def exhibit(x0, adversarial=None, **changes):
    x0 = np.asarray(x0, dtype=np.float32)
    adversarial = x0 + np.float32(0.01) if adversarial is None else adversarial
    logits = np.array([[4, 1, 0], [0, 3, 0], [4, 2, 0]], dtype=np.float32)
    fields = {
        "id": "7",
        "label": 0,
        "x0": x0,
        "adversarial": adversarial,
        "random": x0,
        "logits": logits,
        "gauge": 0.01,
    }
    return Exhibit(**{**fields, **changes})


def test_memory_and_ledger_answer_the_same_questions(record):
    assert isinstance(record, Record)


def test_every_claim_is_told_in_its_sentence(page, record):
    words = Page(page).words
    for claim in record.claims():
        assert sentence(claim) in words
    for heading in ("The nearest failures", "What was run", "What was not tested", "Check it again"):
        assert heading in words
    assert "saddlepoint replay runs/digits.ledger" in words


def test_nothing_is_loaded_from_anywhere(page):
    parsed = Page(page)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:image/png;base64,", "#"))


def test_every_percent_sign_belongs_to_an_interval(page):
    words = Page(page).words
    assert set(re.findall(r"\S+ ?%(?: \w+)?", words)) <= {"95 % interval", "95 % intervals"}
    for place in re.finditer("95 % intervals? ", words):
        near = words[place.end() : place.end() + 60]
        assert "[" not in near or "n = " in words[place.end() : place.end() + 90]


def test_the_same_ledger_gives_the_same_bytes(page, record):
    assert html_report(record, "runs/digits.ledger") == page


def test_ids_are_unique_and_pictures_are_png(page):
    parsed = Page(page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag == "img" and "src" in attributes]
    # 2 models × (6 failures of 4 tiles under ℓ∞, 6 of 3 under rotation)
    assert len(sources) == 2 * (6 * 4 + 6 * 3)
    for source in sources:
        data = base64.b64decode(source.partition(",")[2])
        assert struct.unpack(">II", data[16:24]) == (96, 96)  # 8 × 8 pixels, each a block of 12


def test_no_images(record, page):
    text = html_report(record, images=False)
    assert "<img src" not in text
    assert "left out of this report" in text
    assert len(text) < len(page)


EVIL = '<script>alert("x")</script>&\'"'


def test_whatever_users_name_is_escaped():
    model = model_row(EVIL, "d0", spec=EVIL, class_names=(EVIL,) * 10, notes=(EVIL,), shape=(1, 2, 2))
    picture = exhibit(np.eye(2)[None], id=EVIL, logits=np.eye(3, 10, dtype=np.float32))
    record = small({Verdict.BROKEN: 2, Verdict.OPEN: 1}, model, [picture])
    claim = record.claim_rows[0]
    samples = [replace(s, id=EVIL, by=EVIL) for s in claim.samples]
    methods = [replace(m, name=EVIL, parameters={EVIL: EVIL}) for m in claim.methods]
    record.claim_rows = [replace(claim, samples=samples, methods=methods, label=EVIL)]
    record.calls = [run_row(spec={"data": EVIL, EVIL: [EVIL]}, versions={EVIL: EVIL}, untested=[EVIL])]
    record.happenings = [{"kind": "epoch", "run": EVIL, "epoch": e, "clean": 0.5} for e in (1, 2)]
    text = html_report(record, EVIL)
    assert "<script>alert" not in text
    parsed = Page(text)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert EVIL in parsed.words
    assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_names_with_dollars_are_not_formulas():
    record = small({Verdict.BROKEN: 2}, model_row("$x_1$ _net"))
    assert "$x_1$ _net" in Page(html_report(record)).words


def test_contradictions_are_shouted():
    words = Page(html_report(small({Verdict.CONTRADICTION: 2, Verdict.CERTIFIED: 1}))).words
    assert "2 of n = 3 samples have a proof and a witness that exclude each other" in words


def test_an_empty_ledger_is_a_page_too():
    words = Page(html_report(MemoryRecord())).words
    assert "Nothing was evaluated yet" in words
    assert "holds no claim" in words


def test_two_models_are_compared_on_the_same_samples():
    better = counted({Verdict.CERTIFIED: 90, Verdict.BROKEN: 10}, model_row("better", "d1"))
    worse = counted({Verdict.CERTIFIED: 20, Verdict.OPEN: 10, Verdict.BROKEN: 70}, model_row("worse", "d2"))
    words = Page(html_report(MemoryRecord([better.model, worse.model], [worse, better]))).words
    assert "better against worse: higher by 0.600 to 0.700 on these samples" in words
    assert "intervals do not meet" in words


def test_the_script_is_short_and_the_templates_are_packaged():
    lines = (TEMPLATES / "script.js").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert {path.suffix for path in TEMPLATES.iterdir()} == {".j2", ".css", ".js"}


# ------------------------------------------------------------------ exhibits
def test_softmax_of_large_logits():
    values = softmax(np.array([1000.0, 0.0, 1000.0]))
    assert values == pytest.approx([0.5, 0.0, 0.5])


@pytest.mark.parametrize(("largest", "factor"), [(0.01, "50"), (0.004, "100"), (0.25, "2"), (0.3, "1"), (1.0, "0.5")])
def test_perturbations_are_enlarged_by_round_factors(largest, factor):
    delta = np.array([[largest, -largest / 2], [0.0, 0.0]])
    text, picture = amplified(delta)
    assert text == factor
    assert picture[1, 1] == pytest.approx([1, 1, 1])  # nothing happened: white
    assert picture[0, 0, 0] > picture[0, 0, 2]  # plus is vermillion
    assert picture[0, 1, 2] > picture[0, 1, 0]  # minus is blue


def test_no_perturbation_is_no_division_by_zero():
    assert amplified(np.zeros((2, 2)))[0] == "1"


def test_grey_colour_and_features():
    claim = counted({Verdict.BROKEN: 1}, model_row(classes=3, class_names=("cat", "dog", "cow")))
    for shape, tiles in (((1, 4, 4), 3), ((3, 4, 4), 3), ((4, 4), 3), ((30,), 2), ((5, 4, 4), 2)):
        shown = panel(claim, exhibit(np.full(shape, 0.5)), "p")
        assert len(shown.tiles) == tiles
        assert bool(shown.chart) == (tiles == 2)
        assert [t.predicted for t in (*shown.tiles, shown.random) if t.predicted] == ["cat", "dog", "cat"]
        assert shown.tiles[0].right
        assert not shown.tiles[-1].right
        assert shown.tiles[-1].confidence == pytest.approx(np.exp(3) / (np.exp(3) + 2))


def test_rotations_show_their_parameters_and_no_difference():
    claim = counted({Verdict.BROKEN: 1}, kind="spatial", rotation="30", shift="3", size="1")
    shown = panel(claim, exhibit(np.ones((1, 4, 4)), parameters=(-12.5, 1.0, 0.25), survives_8bit=False), "p")
    assert [t.caption for t in shown.tiles] == ["clean", "transformed"]
    assert shown.notes[0] == "rotation −12.5°, shift +1.00 px in rows, +0.25 px in columns"
    assert "no longer broken" in shown.notes[1]


def test_logits_that_are_not_finite_have_no_confidence():
    claim = counted({Verdict.BROKEN: 1})
    logits = np.array([[np.nan, 0, 0], [0, np.inf, 0], [1, 0, 0]], dtype=np.float32)
    shown = panel(claim, exhibit(np.ones((1, 4, 4)), logits=logits), "p")
    assert shown.tiles[0].predicted == "no finite answer"
    assert shown.tiles[0].confidence is None


def test_the_models_domain_sets_black_and_white():
    model = model_row(domain={"kind": "box", "lower": [0.0], "upper": [255.0]})
    claim = counted({Verdict.BROKEN: 1}, model)
    dark = panel(claim, exhibit(np.full((1, 96, 96), 255.0), adversarial=np.zeros((1, 96, 96), np.float32)), "p")
    assert dark.tiles[0].source != dark.tiles[2].source


# ------------------------------------------------------------------ what was not tested
def test_untested_names_gaps_and_kinds():
    claim = counted({Verdict.OPEN: 3, Verdict.NOT_RUN: 2, Verdict.ERROR: 1})
    only_attacks = replace(claim, methods=[m for m in claim.methods if m.side == "upper"])
    record = MemoryRecord([claim.model], [only_attacks], calls=[run_row(interrupted=True)])
    text = "\n".join(untested(record))
    for words in (
        "3 of n = 6 samples are open",
        "2 of n = 6 samples were not run",
        "1 of n = 6 samples ended with an error",
        "nothing was certified",
        "ℓ2",
        "rotation",
        "poisoning",
        "physical",
        "Larger perturbations than ℓ∞ 2/255",
        "1 of 1 runs were interrupted",
        "The plan quick leaves out",
    ):
        assert words in text, words
    assert "ℓ∞ (every pixel" not in text
