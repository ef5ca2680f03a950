"""summary.html in a real browser, opened from disk, with no network: Debian's Chromium."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from whqa.summarize import summarize

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

# as root, in a container, without GPU
QUIET = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
HOSTILE = '<img src=x onerror=alert(1)>"&$x_1$' + "_a_name_without_end" * 5
SIZES = {"wide": (1200, 900), "narrow": (420, 800)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run) -> Path:
    """A summarised run of 45 cases with a label head and a picture of every mask of fold 0."""
    run = write_run(tmp_path_factory.mktemp("runs") / "<b>demo #1?", n_cases=45, hostile=HOSTILE, labels=True)
    plane = Figure(figsize=(2, 2))
    FigureCanvasAgg(plane)
    (run / "errormap/0/figures").mkdir()
    for case in json.loads((run / "folds.json").read_text())["folds"][0]:
        plane.savefig(run / "errormap/0/figures" / f"{case}-final.png")
    summarize(run, Console(file=io.StringIO()))
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=CHROMIUM, args=[*QUIET])
        yield found
        found.close()


@pytest.fixture(params=SIZES)
def page(request, browser: Any, run: Path) -> Iterator[Any]:
    width, height = SIZES[request.param]
    # without smooth scrolling a jump has arrived when the next line runs
    context = browser.new_context(
        offline=True, viewport={"width": width, "height": height}, reduced_motion="reduce", device_scale_factor=0.5
    )
    opened = context.new_page()
    opened.complaints, opened.requests = [], []
    opened.on("console", lambda m: opened.complaints.append(m.text) if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.complaints.append("dialog"), dialog.dismiss()))
    opened.on("request", lambda asked: opened.requests.append(asked.url))
    opened.goto((run / "summary.html").as_uri())
    yield opened
    context.close()


def _sizes(page: Any, selector: str) -> list[list[float]]:
    """Width inside and width of the content of every such element."""
    return page.evaluate("s => [...document.querySelectorAll(s)].map(e => [e.clientWidth, e.scrollWidth])", selector)


def test_page_opens_from_disk_without_network_or_complaints(page, run):
    assert page.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in page.requests)
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert page.title() == "<b>demo #1? \N{EN DASH} whqa summary"
    assert page.locator("h1").inner_text() == "<b>demo #1?"
    assert page.locator("img[src=x]").count() == 0
    pictures = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(pictures) > 15
    assert all(complete and width > 100 for complete, width in pictures)


def test_nothing_leaves_the_window_sideways(page):
    (whole,) = _sizes(page, "html")
    assert whole[1] <= whole[0]
    tables = _sizes(page, ".scroll")
    assert tables
    # wide tables scroll by themselves, and a keyboard reaches them
    for width, inside in tables:
        assert inside >= width
    unreachable = ".scroll:not([tabindex='0']), figure.wide:not([tabindex='0'])"
    assert page.locator(unreachable).count() == 0
    header = page.locator("table.masks th[scope=row]").filter(has_text="onerror").first
    assert header.bounding_box()["width"] < 0.6 * page.viewport_size["width"]


def test_keyboard_reaches_contents_tables_and_links(page, run):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#methods"
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('nav, .scroll, figure, details, body').tagName"))
    assert {"DIV", "FIGURE", "DETAILS"} <= reached
    page.locator("nav.contents a[href='#worst']").click()
    assert page.locator("#worst").bounding_box()["y"] < page.viewport_size["height"]


def test_further_masks_unfold_and_links_open_pictures(page):
    rest = page.locator("details table.masks")
    assert not rest.is_visible()
    page.locator("summary").click()
    assert rest.is_visible()
    assert rest.locator("tbody tr").count() == 35
    link = page.locator("table.masks td a").filter(has_text="picture").first
    address = link.evaluate("a => a.href")
    assert address.startswith("file:")
    # its hidden words name the mask
    assert link.text_content().startswith("picture of ")
    page.goto(address)
    assert page.evaluate("document.images[0].naturalWidth") > 100


def test_page_prints_on_a_few_sheets_with_nothing_cut_off(browser, run):
    context = browser.new_context(offline=True, viewport={"width": 695, "height": 983})
    page = context.new_page()
    page.goto((run / "summary.html").as_uri())
    page.emulate_media(media="print")
    assert not page.locator("nav.contents").is_visible()
    assert [sizes for sizes in _sizes(page, "html, .scroll, figure") if sizes[1] > sizes[0] + 1] == []
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 20
    context.close()


def test_page_is_not_blank(page):
    shot = matplotlib.image.imread(io.BytesIO(page.screenshot(full_page=True)))[..., :3]
    # every band of the page has ink, and colours besides grey
    assert all(shot[i : i + 300].std() > 0.005 for i in range(0, len(shot) - 300, 300))
    assert (shot.max(axis=-1) - shot.min(axis=-1) > 0.3).mean() > 0.001
