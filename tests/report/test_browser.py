"""report.html in real browsers, opened from disk, with no network: Chromium and Firefox, WebGL in software."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from scipy import ndimage

from whqa.report.assessment_page import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
# What playwright cannot ask of a Firefox that it has not built.
CHROMIUM_ALONE = pytest.mark.parametrize("browser", ["chromium"], indirect=True)
# The style "body {}" that playwright puts into a page before it takes its picture, and that the page's policy refuses.
BY_PLAYWRIGHT = "sha256-YjaKGiklmzC6wjXA513HAMmzus8VE61XCOT+SmwNZWA="
HOSTILE = "<img src=x onerror=alert(1)>"
SIZES = {"wide": (1200, 900), "narrow": (420, 800)}


class Watched:
    """A page, what it complained about and what it asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.hear(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.hear(str(error)))
        page.on("dialog", lambda dialog: (self.hear(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def hear(self, complaint: str) -> None:
        if BY_PLAYWRIGHT not in complaint:
            self.complaints.append(complaint)

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())

    def start_viewer(self) -> None:
        self.page.locator("#viewer").scroll_into_view_if_needed()
        self.page.locator("#viewer[data-state=ready]").wait_for(timeout=60_000)

    def canvas(self) -> np.ndarray:
        """What is painted, (H, W, 3) in 0..1, after the frame that is due."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return matplotlib.image.imread(BytesIO(self.page.locator("#viewer-canvas").screenshot()))[..., :3]

    def set(self, name: str, value: float) -> None:
        """Move a slider as a hand would: the value, then the event."""
        self.page.locator(f"#viewer-{name}").fill(str(value))


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(browsers: ModuleType, engine: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with browsers.launched(engine, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def report(assessed, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / f"{HOSTILE} #1?.html"
    write_report(assessed(name=HOSTILE), path)
    return path


@pytest.fixture(scope="module")
def ready(browser: Any, report: Path) -> Iterator[Watched]:
    """The page with its viewer running; tests put back what they change."""
    context = browser.new_context(offline=True, viewport={"width": 700, "height": 600})
    # two pictures painted in software take long on a busy machine
    context.set_default_timeout(180_000)
    watched = Watched(context.new_page())
    watched.open(report)
    watched.start_viewer()
    yield watched
    context.close()


def changed_share(before: np.ndarray, after: np.ndarray) -> float:
    return float((np.abs(before - after).max(axis=-1) > 0.02).mean())


def test_page_opens_from_disk_without_network_or_complaints(ready, report):
    assert ready.complaints == []
    # Firefox tells of no file
    assert {url for url in ready.requests if not url.startswith(("data:", "blob:"))} <= {report.as_uri()}
    assert ready.page.locator("h1").inner_text() == HOSTILE
    assert ready.page.title() == f"Review: {HOSTILE} - whqa report"


@pytest.mark.parametrize("size", SIZES)
def test_verdict_table_and_pictures_are_there_at_every_width(browser, report, size):
    width, height = SIZES[size]
    context = browser.new_context(offline=True, viewport={"width": width, "height": height})
    watched = Watched(context.new_page())
    watched.open(report)
    page = watched.page
    assert page.locator(".verdict h2").is_visible()
    assert page.locator("table.structures tbody tr").count() == 7
    pictures = page.locator("figure img").evaluate_all("all => all.map(i => [i.complete && i.naturalWidth, i.alt])")
    assert len(pictures) == 9
    assert all(wide > 100 and alt for wide, alt in pictures)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert watched.complaints == []
    context.close()


def test_viewer_draws_slices_and_structures(ready):
    picture = ready.canvas()
    grey = np.ptp(picture, axis=-1) < 0.02
    assert len(np.unique((255 * picture[grey]).astype(int), axis=0)) > 50
    assert (~grey).mean() > 0.03


def test_opacity_slider_moves_and_changes_the_picture(ready):
    before = ready.canvas()
    ready.set("mask", 0)
    faint = ready.canvas()
    assert ready.page.locator("#viewer-mask + output").inner_text() == "0 %"
    assert changed_share(before, faint) > 0.02
    ready.set("mask", 0.45)
    assert changed_share(before, ready.canvas()) == 0


def test_threshold_slider_hides_less_probable_errors(ready):
    def magenta() -> float:
        picture = ready.canvas()
        return float(((picture[..., 0] > 0.6) & (picture[..., 2] > 0.4) & (picture[..., 1] < 0.5)).mean())

    shares = []
    for threshold in (0.05, 0.5, 1):
        ready.set("threshold", threshold)
        shares.append(magenta())
    assert shares[0] > shares[1] > shares[2]
    ready.set("threshold", 0.4)


def test_a_probability_keeps_its_colour_wherever_the_errors_shown_begin(ready):
    ready.page.locator("#viewer-view").select_option("AXIAL")
    painted = {}
    for threshold in (0.3, 0.6):
        ready.set("threshold", threshold)
        painted[threshold] = ready.canvas()
    ready.page.locator("#viewer-show-error").uncheck()
    probable = ndimage.binary_erosion(np.abs(painted[0.6] - ready.canvas()).max(axis=-1) > 0.02, iterations=8)
    assert probable.sum() > 50
    # at the border the viewer blends neighbouring voxels
    assert changed_share(painted[0.3][probable], painted[0.6][probable]) < 0.2
    ready.page.locator("#viewer-show-error").check()
    ready.set("threshold", 0.4)
    ready.page.locator("#viewer-view").select_option("MULTIPLANAR")


def test_structures_toggle_one_by_one(ready):
    before = ready.canvas()
    boxes = ready.page.locator("input[name=structure]")
    assert boxes.count() == 7
    ready.page.get_by_label("LV left ventricle").uncheck()
    without = ready.canvas()
    gone = np.abs(before - without).max(axis=-1) > 0.02
    assert gone.mean() > 0.005
    # what went was the orange of the left ventricle
    red, _, blue = before[gone].mean(axis=0)
    assert red > blue + 0.1
    ready.page.get_by_role("button", name="none").click()
    assert changed_share(without, ready.canvas()) > 0.005
    ready.page.get_by_role("button", name="all").click()
    assert changed_share(before, ready.canvas()) == 0


def test_every_label_map_can_be_shown(ready):
    layers = ready.page.locator("#viewer-labels")
    painted = {}
    for name in ("corrected", "opinion", "none", "mask"):
        layers.select_option(name)
        painted[name] = ready.canvas()
    for name in ("corrected", "opinion", "none"):
        assert changed_share(painted["mask"], painted[name]) > 0.001, name
    assert changed_share(painted["corrected"], painted["opinion"]) > 0.001
    place = ready.page.locator("#viewer-place").inner_text()
    assert [word in place for word in ("mask:", "corrected:", "second opinion:")] == [True] * 3


def test_the_list_of_pieces_leads_to_them(ready, assessed):
    page, pieces = ready.page, assessed(name=HOSTILE).quality["work"]["largest"]
    rows = page.locator("#piece-list tbody tr")
    assert rows.count() == min(20, len(pieces)) > 1
    page.get_by_role("button", name="show piece 2", exact=True).click()
    assert "shown" in (rows.nth(1).get_attribute("class") or "")
    slices = [page.locator(f"#viewer-{axis} + output").inner_text().split()[0] for axis in "zyx"]
    told = rows.nth(1).locator("td").last.inner_text()
    assert told == "axial {}, coronal {}, sagittal {}".format(*slices)
    assert page.evaluate("document.activeElement.id") == "viewer-canvas"
    page.keyboard.press("p")
    assert "shown" in (rows.nth(0).get_attribute("class") or "")
    page.keyboard.press("n")
    assert "shown" in (rows.nth(1).get_attribute("class") or "")
    for key, axis, by in (("ArrowUp", "z", 1), ("ArrowLeft", "x", 1), ("PageDown", "y", -1)):
        before = int(page.locator(f"#viewer-{axis}").input_value())
        page.keyboard.press(key)
        assert int(page.locator(f"#viewer-{axis}").input_value()) == before + by
    for key, name in (("2", "corrected"), ("3", "opinion"), ("0", "none"), ("1", "mask")):
        page.keyboard.press(key)
        assert page.locator("#viewer-labels").input_value() == name
    page.keyboard.press("e")
    assert not page.locator("#viewer-show-error").is_checked()
    page.keyboard.press("e")
    page.locator("#viewer-goto").select_option("0")
    page.locator("#viewer-goto").dispatch_event("change")


def test_two_pictures_side_by_side_show_one_place(ready):
    page = ready.page
    page.locator("#viewer-side").check()
    second = page.locator("#viewer-canvas-2")
    second.wait_for()
    page.locator("#viewer-side:enabled").wait_for()
    page.locator("#viewer-labels-2").select_option("mask")
    page.locator("#viewer-show-error-2").check()

    def pictures() -> list[np.ndarray]:
        return [ready.canvas(), matplotlib.image.imread(BytesIO(second.screenshot()))[..., :3]]

    assert page.locator("#viewer-view").input_value() == "AXIAL"
    for _ in range(2):
        left, right = pictures()
        assert changed_share(left[:, :300], right[:, :300]) < 0.02, "the same layers at the same place"
        page.locator("#viewer-goto").select_option(label="left ventricle")
    page.locator("#viewer-labels-2").select_option("none")
    left, right = pictures()
    assert changed_share(left[:, :300], right[:, :300]) > 0.02
    second.click(position={"x": 150, "y": 120})
    place = page.locator("#viewer-place").inner_text()
    page.locator("#viewer-canvas").click(position={"x": 150, "y": 120})
    assert page.locator("#viewer-place").inner_text() == place
    page.locator("#viewer-side").uncheck()
    assert not second.is_visible()
    assert page.locator("#viewer-view").input_value() == "MULTIPLANAR"
    page.locator("#viewer-goto").select_option("0")
    page.locator("#viewer-goto").dispatch_event("change")
    assert ready.complaints == []


def test_an_address_leads_to_a_piece(browser, report):
    context = browser.new_context(offline=True, viewport={"width": 700, "height": 600})
    page = context.new_page()
    page.goto(f"{report.as_uri()}#piece-2")
    page.locator("#viewer[data-state=ready]").wait_for(timeout=60_000)
    assert "shown" in (page.locator("#piece-2").get_attribute("class") or "")
    assert page.locator("#viewer-z + output").inner_text().split()[0] in page.locator("#piece-2").inner_text()
    context.close()


def test_keyboard_alone_reaches_and_moves_everything(ready):
    page = ready.page
    page.locator("#viewer-view").focus()
    reached = []
    for _ in range(29):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.value || 'x'"))
        page.keyboard.press("Tab")
    for name in (
        "view",
        "goto",
        "side",
        "labels",
        "canvas",
        "mask",
        "show-error",
        "error",
        "threshold",
        "mist",
        "x",
        "y",
        "z",
        "azimuth",
    ):
        assert f"viewer-{name}" in reached
    assert {"lv", "rv", "la", "ra", "myo", "ao", "pa"} <= set(reached)
    place, before = page.locator("#viewer-place").inner_text(), ready.canvas()
    slider, number = page.locator("#viewer-z"), page.locator("#viewer-z + output")
    # the count of the pictures: in the whole scan
    told = page.locator("figcaption").first.inner_text()
    assert number.inner_text() in told
    slider.focus()
    first = int(slider.input_value())
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert int(slider.input_value()) == first - 4
    now, of, whole = number.inner_text().split()
    assert f"slice {int(now) + 4} {of} {whole}," in told
    assert changed_share(before, ready.canvas()) > 0.01
    assert page.locator("#viewer-place").inner_text() != place
    page.locator("#viewer-goto").select_option("0")
    page.locator("#viewer-goto").dispatch_event("change")
    assert page.locator("#viewer-place").inner_text() == place
    assert "error probability" in place


def test_structures_and_views_can_be_gone_to(ready):
    page = ready.page
    page.locator("#viewer-goto").select_option(label="left ventricle")
    assert "mask: left ventricle" in page.locator("#viewer-place").inner_text()
    before = ready.canvas()
    page.locator("#viewer-view").select_option("RENDER")
    render = ready.canvas()
    assert changed_share(before, render) > 0.1
    ready.set("azimuth", 40)
    assert changed_share(render, ready.canvas()) > 0.01
    ready.set("azimuth", 150)
    page.locator("#viewer-view").select_option("MULTIPLANAR")
    page.locator("#viewer-goto").select_option("0")
    assert ready.complaints == []


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_without_webgl_the_page_works_and_says_so(browsers, engine, report, name):
    with browsers.launched(engine, name, webgl=False) as browser:
        watched = Watched(browser.new_context(offline=True).new_page())
        watched.open(report)
        page = watched.page
        page.locator("#viewer[data-state=unavailable]").wait_for()
        assert "needs WebGL 2" in page.locator("#viewer-status").inner_text()
        assert not page.locator("#viewer-canvas").is_visible()
        assert not page.locator("#viewer-mask").is_visible()
        assert page.locator("table.structures").is_visible()
        assert page.locator("#piece-list tbody tr").count() > 1
        assert [c for c in watched.complaints if "WebGL" not in c] == []


@CHROMIUM_ALONE
def test_without_script_the_page_works_and_says_so(browser, report):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "needs JavaScript" in page.locator("#viewer-status").inner_text()
    assert page.locator("table.structures").is_visible()
    assert not page.locator("#viewer-canvas").is_visible()
    context.close()


def test_injected_code_would_not_run(browser, report, tmp_path):
    """The policy is a second wall: markup that got past the escaping neither runs nor loads."""
    html = report.read_text(encoding="utf-8")
    attack = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    broken = html.replace("<main>", f"<main>{attack}<img src='https://example.org/x.png'>")
    (tmp_path / "broken.html").write_text(broken, encoding="utf-8")
    context = browser.new_context(offline=True)
    watched = Watched(context.new_page())
    watched.open(tmp_path / "broken.html")
    assert watched.page.title() != "owned"
    assert sum("Content Security Policy" in c or "settings blocked" in c for c in watched.complaints) >= 3
    context.close()


@CHROMIUM_ALONE
def test_on_paper_the_controls_are_gone(browser, report):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert not page.locator("#viewer").is_visible()
    assert page.get_by_text("Open this file in a browser").is_visible()
    assert page.locator("table.structures").is_visible()
    assert page.pdf().startswith(b"%PDF")
    context.close()
