"""index.html of a batch: readable in any window, and without a single verdict."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from whqa.report.batch_page import render_index
from whqa.results.correction_time import CorrectionTime

HOSTILE = "<img src=x onerror=alert(1)>"


def _case(name, quality=None, error=None):
    return SimpleNamespace(name=name, folder=name, quality=quality, error=error, report=False)


@pytest.mark.parametrize(("width", "below"), [(420, True), (800, True), (1200, False)])
def test_the_reasons_lie_within_the_window(tmp_path: Path, assessed, width: int, below: bool) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or pytest.skip("no Chromium: apt-get install chromium")
    quality = assessed().quality
    page_file = tmp_path / "index.html"
    page_file.write_text(
        render_index([_case("a" * 60, quality), _case("b", quality)], "demo", CorrectionTime()), encoding="utf-8"
    )
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(page_file.as_uri())
        rows = page.locator("tbody tr").all()
        assert len(rows) == 2
        for row in rows:
            name, why = row.locator("th").bounding_box(), row.locator("td.why").bounding_box()
            assert why["x"] >= 0
            assert why["x"] + why["width"] <= width
            assert (why["y"] >= name["y"] + name["height"]) == below
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()


def test_a_page_without_a_single_verdict() -> None:
    page = render_index([_case("a", error="no such file")], HOSTILE, CorrectionTime())
    assert "no such file" in page
    assert "<img" not in page


@pytest.fixture
def listed(tmp_path: Path, assessed: Any) -> Path:
    """Three masks: case 10 rejected with little to correct, case 9 and 2 to review."""
    qualities = []
    for decision, score, pieces, heart in (("reject", 0.3, 1, 0.9), ("review", 0.5, 8, 0.5), ("review", 0.6, 4, None)):
        quality = copy.deepcopy(assessed(decision=decision).quality)
        quality["verdict"]["score"] = score
        quality["work"]["pieces"] = pieces
        quality["qi"]["heart"] |= {"value": heart}
        qualities.append(quality)
    qualities[2]["work"] |= {"pieces": 0, "ml": 0.0, "largest": []}
    cases = [_case(name, quality) for name, quality in zip(("case 10", "case 9", "case 2"), qualities, strict=True)]
    (tmp_path / "index.html").write_text(render_index(cases, "demo", CorrectionTime()), encoding="utf-8")
    return tmp_path / "index.html"


@contextmanager
def _opened(path: Path, width: int = 1200) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_context(offline=True, viewport={"width": width, "height": 800}).new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        yield page
        assert complaints == []
        browser.close()


def _names(page: Any) -> list[str]:
    return [
        name for row in page.locator("tbody tr").all() if row.is_visible() for name in [row.locator("th").inner_text()]
    ]


def test_the_worklist_is_filtered_and_sorted_in_the_page(listed: Path) -> None:
    with _opened(listed) as page:
        assert _names(page) == ["case 10", "case 9", "case 2"]
        page.get_by_role("button", name="case").click()
        assert _names(page) == ["case 2", "case 9", "case 10"]
        assert page.locator("th[data-sort=name]").get_attribute("aria-sort") == "ascending"
        page.get_by_role("button", name="case").click()
        assert _names(page) == ["case 10", "case 9", "case 2"]
        page.get_by_role("button", name="time").click()
        assert _names(page) == ["case 9", "case 10", "case 2"], "the longest first"
        page.get_by_role("button", name="QI, heart").click()
        assert _names(page) == ["case 9", "case 10", "case 2"], "the worst first, what is not known last"
        page.locator("input[name=decision][value=bad]").uncheck()
        assert _names(page) == ["case 9", "case 2"]
        page.locator("#most").fill("1")
        assert _names(page) == ["case 2"]
        assert page.locator("#shown").inner_text() == "1 of 3 masks, about 1 min"
        page.get_by_role("button", name="show all").click()
        assert _names(page) == ["case 10", "case 9", "case 2"]
        page.locator("#find").fill(" CASE 9")
        assert _names(page) == ["case 9"]
        page.locator("#find").fill("")
        words = page.locator("#structure option").nth(1).inner_text()
        page.locator("#structure").select_option(words)
        assert _names(page) == ["case 10", "case 9"]


def test_cards_of_a_narrow_window_are_sorted_by_a_list(listed: Path) -> None:
    with _opened(listed, 420) as page:
        page.locator("#sort").select_option("name")
        assert _names(page) == ["case 2", "case 9", "case 10"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_without_script_the_worklist_is_whole_and_has_no_dead_controls(listed: Path) -> None:
    html = listed.read_text(encoding="utf-8")
    listed.write_text(html[: html.rindex("<script>")], encoding="utf-8")
    with _opened(listed) as page:
        assert _names(page) == ["case 10", "case 9", "case 2"]
        assert not page.locator("#filters").is_visible()


def test_the_largest_piece_leads_to_its_place_in_the_report(assessed: Any) -> None:
    case = _case("a b")
    case.quality, case.report = assessed().quality, True
    page = render_index([case], "demo", CorrectionTime(case=2, piece=3, ml=4))
    assert 'href="a%20b/report.html#piece-1"' in page
    assert "2 for a case + 3 for each piece + 4 for each millilitre" in page
