"""index.html of a batch: readable in any window, and without a single verdict."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from whqa.report.batch_page import render_index

HOSTILE = "<img src=x onerror=alert(1)>"


def _case(name, quality=None, error=None):
    return SimpleNamespace(name=name, folder=name, quality=quality, error=error, report=False)


@pytest.mark.parametrize(("width", "below"), [(420, True), (800, True), (1200, False)])
def test_the_reasons_lie_within_the_window(tmp_path: Path, assessed, width: int, below: bool) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or pytest.skip("no Chromium: apt-get install chromium")
    quality = assessed().quality
    page_file = tmp_path / "index.html"
    page_file.write_text(render_index([_case("a" * 60, quality), _case("b", quality)], "demo"), encoding="utf-8")
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
    page = render_index([_case("a", error="no such file")], HOSTILE)
    assert "no such file" in page
    assert "<img" not in page
