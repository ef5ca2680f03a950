"""report.html and its pictures say what quality.json and the arrays say, and a hostile name stays a name."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from whqa.report import assessment_page as assessment
from whqa.report import judged_pictures, judged_view, pictures, shown, viewer, wording
from whqa.report.assessment_page import render_report, write_preview, write_report
from whqa.structures import label_scheme

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&{{7*7}}$x_{1}$.nii.gz"


class Page(HTMLParser):
    """Elements with attributes, text by enclosing element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._tag = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._tag = tag

    def handle_data(self, data):
        self.texts.append((self._tag, data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag]

    def text(self, *tags: str) -> str:
        return " ".join("".join(t for tag, t in self.texts if not tags or tag in tags).split())


@pytest.fixture(scope="module")
def html(assessed):
    return render_report(assessed())


@pytest.fixture(scope="module")
def view(assessed):
    return judged_view.judged_view(assessed())


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without the pictures, which take most of their time."""
    monkeypatch.setattr(assessment, "draw", lambda shown: pictures.DrawnPicture(b"", shown.alt, shown.caption))


@pytest.mark.parametrize("options", [{}, {"decision": "accept", "correct": False}])
def test_the_pages_are_tested_with_what_a_real_file_may_hold(assessed, unlike_contract, options):
    assert unlike_contract(assessed(**options).quality, "quality.schema.json") == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("segmenters", "what the run's own segmenters would have drawn."),
        ("probabilities", f"what is most probable to {HOSTILE}, whose probabilities were given."),
        (None, "Second opinion: no second opinion was heard."),
    ],
)
def test_the_page_says_whose_second_opinion_was_heard(assessed, undrawn, given, says):
    judged = assessed()
    source = {"source": given, "program": HOSTILE if given == "probabilities" else None, "path": None, "sha256": None}
    page = Page(render_report(replace(judged, quality=judged.quality | {"opinion": source if given else None})))
    assert says in page.text()
    assert ("Second opinion" in page.text("h3")) is (given is not None)


def test_nothing_is_loaded_from_elsewhere(html):
    page = Page(html)
    loading = {"src", "srcset", "data", "poster", "action", "formaction", "background"}
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "form", "base")
        for name, value in attributes.items():
            if name in loading:
                assert value.startswith("data:image/png;base64,"), (tag, name)
            if name == "href":
                assert value.startswith("#")
                assert value[1:] in {a.get("id") for _, a in page.elements}
            assert not name.startswith("on")
            assert name != "style"
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert "url(" not in style
    assert "@import" not in style


def test_only_the_pages_own_script_and_style_may_run(html):
    policy = next(a["content"] for a in Page(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = {r.split()[0]: r.split()[1:] for r in policy.split("; ")}
    assert rules["default-src"] == ["'none'"]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    for rule, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule][0] == f"'sha256-{digest}'"
    assert rules["script-src"][1:] == ["blob:"]
    assert "unsafe" not in policy


def test_hostile_names_and_texts_stay_text(assessed, monkeypatch):
    scheme = label_scheme({HOSTILE: 1, "lv": 2})
    plain = assessed()
    structure = plain.quality["structures"]["la"] | {"reason": HOSTILE, "name": HOSTILE}
    verdict = plain.quality["verdict"] | {"reasons": [HOSTILE], "rule": HOSTILE}
    found = assessed(
        name=HOSTILE,
        scheme=scheme,
        mask=(plain.mask > 0).astype(np.uint8),
        corrected=np.where(plain.corrected == 1, 2, plain.mask > 0).astype(np.uint8),
        population=tuple({**row, "case": HOSTILE, "mask_kind": HOSTILE} for row in plain.population),
        quality={
            "case": HOSTILE,
            "image": plain.quality["image"] | {"path": HOSTILE, "header": {HOSTILE: HOSTILE}},
            "mask": {"path": HOSTILE},
            "model": dict.fromkeys(("run", "cohort", "plan", "head", "modality"), HOSTILE) | {"folds": [0]},
            "structures": {HOSTILE: structure, "lv": structure},
            "verdict": verdict,
            "correction": plain.quality["correction"] | {"reason": HOSTILE, "out_of_fold": None},
            "qi": {k: v | {"interval": None, "reason": HOSTILE} for k, v in plain.quality["qi"].items()},
            "out_of_distribution": [{"feature": HOSTILE, "value": 1, "low": 0, "high": 0, "message": HOSTILE}],
            "warnings": [HOSTILE],
            "versions": {HOSTILE: HOSTILE},
        },
    )
    monkeypatch.setattr(viewer, "_licence", lambda: HOSTILE)
    html = render_report(found)
    page = Page(html)
    assert HOSTILE in [t for tag, t in page.texts if tag == "h1"]
    assert all(a["src"].startswith("data:") for a in page.all("img"))
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert [a.get("id") for a in page.all("script")] == ["volumes", "niivue", None]
    assert "alert(1)>" not in html
    assert "<script>alert" not in html
    assert page.text().count(HOSTILE) >= 15
    stored = re.search(r'id="volumes">(.*?)</script>', html, re.S).group(1)
    assert json.loads(stored)["labels"][0]["title"] == HOSTILE


def test_table_says_what_quality_says(assessed, html):
    quality = assessed().quality
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html, re.S)
    assert len(rows) == len(quality["structures"])
    for row, s in zip(rows, quality["structures"].values(), strict=True):
        text = Page("<table><tr><th>" + row).text()
        assert s["name"] in text
        assert f"{s['volume_ml']:.1f}" in text
        assert f"{s['volume_ml_corrected']:.1f}" in text
        assert s["correction"]["reason"] in text
        assert ("n/a" if s["dice_opinion"] is None else f"{s['dice_opinion']:.2f}") in text
        if s["dice_expected"] is None:
            assert s["reason"] in text
            assert "<rect class" not in row
        else:
            low, high = s["dice_interval"]
            assert f"{s['dice_expected']:.2f}" in text
            assert f"{low:.2f} to {high:.2f}" in text
            x, width = re.search(r'class="range" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', row).groups()
            assert (float(x), float(x) + float(width)) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize(
    ("tau", "rule", "said", "start"),
    [
        (0.319, "expected", "with an error probability of at least 31.9 %, set for this mask alone", 0.32),
        (0.5, "dice", "with an error probability of at least 50.0 %, set for all masks alike", 0.5),
        (2.0, "expected", "not even half a voxel of this mask is expected to be wrong", 1.0),
    ],
)
def test_slices_table_and_viewer_show_the_same_errors(assessed, undrawn, tau, rule, said, start):
    page = Page(render_report(assessed(quality={"error_map": {"threshold": tau, "rule": rule}})))
    assert said in page.text()
    (slider,) = (a for a in page.all("input") if a.get("id") == "viewer-threshold")
    assert float(slider["value"]) == start


@pytest.mark.parametrize("decision", ["accept", "review", "reject"])
def test_verdict_is_said_in_words_first(assessed, undrawn, decision):
    found = assessed(decision, correct=decision == "accept")
    page = Page(render_report(found))
    text = page.text()
    word = wording.HEADLINES[decision][1]
    assert page.text("title").startswith(f"{word}: ")
    for said in (word, *wording.how_sure(found.quality), *wording.what_to_do(found.quality), "not a medical device"):
        assert text.index(said) < text.index("Warnings") < text.index("volume in ml")
    assert ("changed by the correction" in text) == (decision == "accept")


def test_words_follow_the_numbers(assessed):
    quality = assessed().quality
    assert wording.what_is_wrong(quality)[:2] == [
        "8.8 % of the voxels in and around the heart look wrong.",
        "The mask holds no pulmonary artery.",
    ]
    for key, dice, share in (("ra", 0.4, 0.5), ("lv", 0.7, 0.12), ("rv", 0.95, 0.01)):
        quality["structures"][key] |= {"dice_expected": dice, "wrong_share": share}
    assert "Worst: right atrium (expected Dice 0.40, 50 % of its voxels look wrong) and left ventricle (" in " ".join(
        wording.what_is_wrong(quality)
    )
    assert (
        "7 of 20 were bad (35.0 % where each patient counts once, 95 % interval 15.0 to 59.0 %)"
        in wording.how_sure(quality)[1]
    )
    assert "unlike those" in wording.how_sure(quality)[-1]
    # a mask better than the run's own is judged too low
    assert wording.how_sure(quality)[-1].endswith("so these figures may be off in either direction.")
    quality["verdict"] |= {"decision": "reject", "score": 0.5}
    quality["out_of_distribution"] = []
    assert "the risk of this verdict is not known" in wording.how_sure(quality)[1]
    assert "unlike" not in wording.how_sure(quality)[-1]
    quality["qi"]["heart"] |= {"interval": None, "reason": "too few cases"}
    assert wording.how_sure(quality)[0] == "No interval can be given: too few cases."
    assert "right atrium and left ventricle first" in wording.what_to_do(quality)[0]


@pytest.mark.parametrize(("final", "masks"), [(True, "final masks"), (False, "masks")])
def test_correction_says_of_which_masks_it_was_measured(assessed, final, masks):
    quality = assessed().quality
    quality["correction"]["out_of_fold"]["final"] = final
    _, measured = wording.correction_words(quality)
    assert measured == (
        f"On 24 of the run's own {masks} (of scans that the networks had not seen), whose mean Dice was 0.750, "
        "correction changed it to 0.830 (+0.080, 95 % interval +0.050 to +0.100) and made 90 % of these masks better."
    )


@pytest.mark.parametrize(
    ("share", "words"), [(0.5, "50.0 %"), (1, "100.0 %"), (0, "0.0 %"), (0.99996, "over 99.9 %"), (1e-6, "under 0.1 %")]
)
def test_shares_are_not_rounded_to_all_or_nothing(share, words):
    assert wording.percent(share) == words


def test_page_copes_with_what_a_run_cannot_say(assessed):
    plain = assessed(correct=False)
    nothing = {"dice_expected": None, "dice_interval": None, "reason": "no label head", "wrong_share": None}
    found = assessed(
        correct=False,
        mask=np.zeros_like(plain.mask),
        corrected=np.zeros_like(plain.mask),
        error_map=np.zeros_like(plain.error_map),
        error_probability=np.zeros_like(plain.error_probability),
        image=np.full_like(plain.image, 3),
        population=(),
        quality={
            "structures": {
                k: {**s, **nothing, "volume_ml": 0.0, "volume_ml_corrected": 0.0}
                for k, s in plain.quality["structures"].items()
            },
            "qi": {
                k: {"value": 1.0, "soft": 1.0, "interval": None, "reason": "few cases"} for k in ("volume", "heart")
            },
            "out_of_distribution": [],
            "warnings": [],
            "mask": {"path": None, "sha256": None},
        },
    )
    text = Page(render_report(found)).text()
    for said in (
        "No voxel in or around the heart looks wrong",
        "holds no left ventricle",
        "no label head",
        "few cases",
    ):
        assert said in text
    assert "Warnings" not in text
    assert "nothing can be compared" in text
    assert "Left alone: on held-back training cases no correction helped." in text


def test_slices_with_most_predicted_error_are_shown(assessed, view, html):
    at = shown.worst_voxel(view.error_map, view.mask)
    counts = view.error_map.sum(axis=(0, 1))
    assert counts[at[2]] == counts.max()
    text = Page(html).text()
    for axis_index, plane in shown.PLANES:
        assert f"{plane.capitalize()}, {view.slice_words(axis_index, at)}" in text
    figure = judged_pictures.plane_figure(view, 2, at)
    tint = figure.axes[1].images[1].get_array()[..., 3]
    np.testing.assert_allclose(tint, 0.85 * view.probability[:, :, at[2]].T, atol=1e-6)
    changed = judged_pictures.change_figure(view, 2, at).axes[1].images[1].get_array()[..., 3]
    np.testing.assert_array_equal(changed > 0, (view.mask != view.corrected)[:, :, at[2]].T)


def test_preview_is_one_picture_with_the_verdict(assessed, tmp_path):
    write_preview(assessed("reject", name="心臓 $x_{ <b> café"), tmp_path / "out.png")
    picture = matplotlib.image.imread(tmp_path / "out.png")
    assert picture.shape[1] == assessment.PREVIEW_DPI * 10
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    view = judged_view.judged_view(assessed())
    figure = judged_pictures.preview_figure(view, HOSTILE, ["Reject: no"])
    assert figure.get_suptitle() == f"{HOSTILE}\nReject: no"
    assert len(figure.axes) == 6


def test_report_is_one_file(assessed, tmp_path, undrawn):
    write_report(assessed(), tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(assessed())


def test_page_without_the_viewers_package_says_so(assessed, monkeypatch, undrawn):
    monkeypatch.setattr(viewer, "PACKAGE", "no_such_package")
    viewer.niivue_script.cache_clear()
    try:
        page = Page(render_report(assessed()))
    finally:
        viewer.niivue_script.cache_clear()
    assert page.all("script") == []
    assert "script-src" not in next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert "The Python package no_such_package, which carries the viewer's script, is missing." in page.text()


@pytest.mark.slow
def test_noise_of_any_size_makes_no_large_file(assessed):
    rng = np.random.default_rng(0)
    shape = (256, 256, 256)
    noise = {
        "image": rng.normal(size=shape).astype(np.float32),
        "mask": rng.integers(0, 8, shape).astype(np.uint8),
        "corrected": rng.integers(0, 8, shape).astype(np.uint8),
        "error_probability": rng.random(shape, np.float32),
        "error_map": rng.random(shape) > 0.5,
    }
    assert len(render_report(assessed(**noise))) < 15_000_000
