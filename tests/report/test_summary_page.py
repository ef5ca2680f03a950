"""summary.html: self-contained, escaped, semantic, and its tables say what summary.json says."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from whqa.report import strips
from whqa.report.figures import method_colours
from whqa.results.failure_score import SCORES
from whqa.results.tables import ABLATIONS, METHOD_ORDER, read_run
from whqa.summarize import summarize

HOSTILE = '<img src=x onerror=alert(1)>"&$x_1$ %23'


class _Page(HTMLParser):
    """Tags with attributes, text, and every table as (caption, rows of cell texts)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._caption, self._rows, self._inside = "", [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            self._inside = "cell"
        elif tag == "caption":
            self._inside = "caption"

    def handle_endtag(self, tag):
        if tag in ("th", "td", "caption"):
            self._inside = ""
        elif tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        self.text.append(data)
        if self._inside == "caption":
            self._caption += data
        elif self._inside == "cell":
            self._rows[-1][-1] += ("|" if self._rows[-1][-1] else "") + data.strip()

    def table(self, start: str) -> list[list[str]]:
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return found

    def linked(self) -> list[str]:
        return [a["href"] for tag, a in self.tags if tag == "a" and a.get("href")]


def _picture(path: Path) -> None:
    plane = Figure(figsize=(1, 1))
    FigureCanvasAgg(plane)
    path.parent.mkdir(parents=True, exist_ok=True)
    plane.savefig(path)


def _finished(run: Path) -> tuple[Path, dict, _Page]:
    summary = summarize(run, Console(file=io.StringIO()))
    return run, summary, _Page((run / "summary.html").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_run):
    """A run with a label head, a hostile case, pictures of some masks and a report of one."""
    run = write_run(tmp_path_factory.mktemp("runs") / "demo", n_cases=45, hostile=HOSTILE, labels=True)
    folds = json.loads((run / "folds.json").read_text())["folds"]
    for k, cases in enumerate(folds):
        for case in cases[:3]:
            if "<" not in case:
                _picture(run / "errormap" / str(k) / "figures" / f"{case}-final.png")
    hostile = next(c for fold in folds for c in fold if "<" in c)
    _picture(
        run
        / "errormap"
        / str(next(k for k, f in enumerate(folds) if hostile in f))
        / "figures"
        / f"{hostile}-final.png"
    )
    (run / "reports" / hostile).mkdir(parents=True)
    (run / "reports" / hostile / "report.html").touch()
    return _finished(run)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, write_run):
    """An older run: no columns of labels and structures, no pictures."""
    return _finished(write_run(tmp_path_factory.mktemp("runs") / "older", kinds=("final", "side1")))


def test_page_is_self_contained_escaped_and_semantic(finished):
    run, _, page = finished
    html = (run / "summary.html").read_text()
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(names)
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "srcset", "data"):
            assert (attributes.get(name) or "data:").startswith("data:image/png;base64,") or name not in attributes
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert not re.search(r"https?://|url\(|@import", html)
    assert names.count("caption") == names.count("table") == len(page.tables)
    assert names.count("h1") == 1
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert HOSTILE in page.text
    text = " ".join(page.text)
    for word in ("not a medical device", "Definitions", "nested", "MAE of a constant", "10 mm", "95 % interval"):
        assert word in text
    assert "reproduced" not in text


def test_links_within_the_page_and_beside_it_lead_somewhere(finished):
    run, _, page = finished
    anchors = {a["id"] for _, a in page.tags if a.get("id")}
    linked = page.linked()
    assert {"#methods", "#correction", "#intervals", "#worst", "#picture-0"} <= set(linked)
    beside = [href for href in linked if not href.startswith("#")]
    assert {Path(href).name.split(".")[-1] for href in beside} == {"png", "html"}
    for href in linked:
        if href.startswith("#"):
            assert href[1:] in anchors
        else:
            assert re.match(r"(errormap/\d/figures|reports)/", href)
            assert (run / unquote(href)).is_file()


def test_every_picture_of_the_worst_is_embedded_worst_first(finished):
    run, _, page = finished
    rows = _own(run)
    rows["gap"] = (rows["qi_volume"] - rows["acc_volume"]).abs()
    rows = rows.sort_values("gap", ascending=False)
    drawn = {p.stem.removesuffix("-final") for p in run.glob("errormap/*/figures/*.png")}
    expected = [case for case in rows["case"] if case in drawn][:6]
    alts = [a["alt"] for tag, a in page.tags if tag == "img" and a["alt"].startswith("Overlay of ")]
    assert [re.match(r"Overlay of (.*), fold \d: mean Dice", alt).group(1) for alt in alts] == expected
    listed = page.table("Judged worst")
    assert [row[0] for row in listed[1:]] == list(rows["case"].head(10))
    column = listed[0].index("|QI - Acc| (volume)")
    assert [row[column] for row in listed[1:]] == [f"{gap:.4f}" for gap in rows["gap"].head(10)]
    rest = page.table("The other masks")
    assert len(rest) == 1 + 45 - 10


def _own(run: Path, kind: str = "final") -> pd.DataFrame:
    rows = pd.read_csv(run / "cases.csv", dtype={"case": str})
    return rows[(rows["method"] == "errormap") & (rows["mask_kind"] == kind)].copy()


def test_worst_masks_have_the_lowest_dice_and_their_place_by_qi(finished):
    run, _, page = finished
    rows = _own(run)
    rows["dice"] = rows[["dice_lv", "dice_rv", "dice_myo"]].mean(axis=1)
    rows["place"] = rows["qi_volume"].rank(method="first").astype(int)
    worst = rows.sort_values("dice").head(10)
    listed = page.table("Worst masks")
    column = listed[0].index("mean Dice of the mask")
    assert [row[column] for row in listed[1:]] == [f"{dice:.3f}" for dice in worst["dice"]]
    assert [row[listed[0].index("place by QI")] for row in listed[1:]] == [str(place) for place in worst["place"]]


def test_tables_say_what_summary_json_says(finished):
    _, summary, page = finished
    own = summary["methods"]["errormap"]

    def shown(entry, digits, signed=False):
        texts = [
            f"{x:{'+' if signed else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
            for x in (entry["mean"], *entry["ci95"])
        ]
        return f"{texts[0]}|{texts[1]} to {texts[2]}"

    methods = page.table("All mask kinds: error maps")
    assert methods[1][0] == "errormap"
    assert methods[1][1:3] == ["270", shown(own["all"]["error_dice"], 3)]
    assert methods[1][methods[0].index("ranked by")] == SCORES[own["all"]["failure"]["score"]]
    failing = page.table("AUROC of a failed structure (Dice below 0.7), final masks")
    myo = own["final"]["failure"]["auroc_per_structure"]["myo"]
    assert failing[3][:3] == ["myocardium", str(myo["positives"]), shown(myo, 3)]
    by_structure = page.table("Error Dice by structure, final masks")
    assert by_structure[0] == ["structure", *summary["methods"]]
    assert by_structure[2] == [
        "right ventricle",
        *(shown(numbers["final"]["by_structure"]["rv"]["error_dice"], 3) for numbers in summary["methods"].values()),
    ]
    by_kind = page.table("Error Dice by mask kind")
    assert [row[0] for row in by_kind[1:]] == ["final", "side1", "side2", "side3", "side4", "early"]
    assert by_kind[6][1] == shown(own["all"]["by_kind"]["early"]["error_dice"], 3)
    correction = page.table("Dice by structure, final masks")
    found = own["final"]["correction"]
    assert correction[1][1:] == [
        shown(found["dice_before"], 3),
        shown(found["dice_after"], 3),
        shown(found["gain"], 3, signed=True),
    ]
    kinds = page.table("Mean Dice by mask kind")
    assert kinds[1][4] == f"{100 * found['improved_share']:.0f}\N{NO-BREAK SPACE}%"
    intervals = page.table("Share of 90")
    held = summary["intervals"]["final"]["acc_volume"]["coverage"]["mean"]
    assert intervals[1][0] == "Acc (volume)"
    assert intervals[1][1].startswith(f"{100 * held:.0f}\N{NO-BREAK SPACE}%|")


def test_strata_say_what_summary_json_says(finished):
    _, summary, page = finished
    listed = page.table("All mask kinds, by true quality")
    names = [name for name, found in summary["methods"]["errormap"]["all"]["strata"].items() if found["n"]]
    assert len(names) > 2
    assert [row[0] for row in listed[1:]] == [f"{name}, {method}" for name in names for method in summary["methods"]]
    for row in listed[1:]:
        stratum, method = row[0].split(", ")
        found = summary["methods"][method]["all"]["strata"][stratum]
        assert row[1] == str(found["n"])
        bias = f"{found['bias']['mean']:+.3f}".replace("-", "\N{MINUS SIGN}")
        assert row[listed[0].index("bias (heart)")].split("|")[0] == bias
        alarms = f"{found['false_alarm']['mean']:.4f}".replace("-", "\N{MINUS SIGN}")
        assert row[listed[0].index("false alarms")].split("|")[0] == alarms
        held = found["coverage"]["mean"]
        shown = "n/a" if held is None else f"{100 * held:.0f}\N{NO-BREAK SPACE}%|width {found['width']['mean']:.3f}"
        assert row[listed[0].index("intervals (heart)")] == shown
    own = summary["methods"]["errormap"]["all"]["strata"]
    change = page.table("Change of Dice by correction, all mask kinds")
    rv = own[names[0]]["correction"]["per_structure"]["rv"]
    assert change[3][1] == f"{rv['mean']:+.3f}|worst {rv['worst']:+.3f}".replace("-", "\N{MINUS SIGN}")
    held = page.table("Intervals that hold the truth, all mask kinds")
    assert held[0] == ["interval for", *names]
    share = own[names[-1]]["dice"]["myo"]["coverage"]["mean"]
    assert held[5][-1].startswith(f"{100 * share:.0f}\N{NO-BREAK SPACE}%|")
    alts = [a["alt"] for tag, a in page.tags if tag == "img" and a["alt"].startswith("Reliability, all mask kinds")]
    last = summary["methods"]["errormap"]["all"]["reliability"]["heart"][-1]
    assert f"at QI {last['qi']:.3f} (n {last['n']})" in alts[0]


def test_headline_stands_beside_the_best_other_method(finished):
    _, summary, page = finished
    text = " ".join(" ".join(page.text).split())
    maes = {m: numbers["final"]["volume"]["mae"]["mean"] for m, numbers in summary["methods"].items()}
    best = min((m for m in maes if m != "errormap"), key=maes.get)
    assert f"best other method: {best} {maes[best]:.4f}" in text
    gain = summary["methods"]["errormap"]["final"]["correction"]["gain"]
    assert gain["ci95"][0] > 0
    assert f"Correction: gain in mean Dice {gain['mean']:+.3f}" in text
    assert "helps" in text


def test_best_of_a_column_is_bold(finished):
    run, summary, _ = finished
    html = (run / "summary.html").read_text()
    bold = re.findall(r'<span class="best">([^<]*)</span>', html)
    final = {m: numbers["final"] for m, numbers in summary["methods"].items()}
    assert f"{max(n['error_auprc']['mean'] for n in final.values()):.3f}" in bold
    assert f"{min(n['heart']['mae']['mean'] for n in final.values()):.5f}" in bold
    assert f"{max(n['heart']['mae']['mean'] for n in final.values()):.5f}" not in bold


def test_an_older_run_says_what_it_lacks(plain):
    _, summary, page = plain
    text = " ".join(" ".join(page.text).split())
    assert summary["methods"]["errormap"]["final"]["by_structure"]["lv"]["error_dice"]["mean"] is None
    for words in (
        "Error Dice by structure is not in the tables of this run",
        "Not measured: the method predicts no labels",
    ):
        assert words in text
    assert not any(caption.startswith(("Error Dice by structure", "Dice by structure")) for caption in page.tables)
    assert not any(a["alt"].startswith("Overlay") for tag, a in page.tags if tag == "img")
    assert all(href.startswith("#") for href in page.linked())


def test_masks_of_another_program_are_named_and_linked(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=True)
    cases = sorted(json.loads((run / "folds.json").read_text())["patients"])
    for k in range(3):
        table = pd.read_csv(run / f"errormap/{k}/cases.csv", dtype=str, keep_default_na=False)
        theirs = table[(table["mask_kind"] == "side1") & (table["method"] != "entropy")].assign(mask_kind="nnUNet")
        pd.concat([table, theirs]).to_csv(run / f"errormap/{k}/cases.csv", index=False)
    (run / "external" / "nnUNet").mkdir(parents=True)
    (run / "external" / "nnUNet" / "cases.csv").write_text("case\n" + "\n".join(cases) + "\n")
    fold = next(k for k in range(3) if cases[0] in json.loads((run / "folds.json").read_text())["folds"][k])
    _picture(run / "errormap" / str(fold) / "figures" / f"{cases[0]}-nnUNet.png")
    _, _, page = _finished(run)
    names = [row[0] for start in ("Judged worst", "The other masks") for row in page.table(start)[1:]]
    assert len(names) == 24
    assert {f"{cases[0]}, final", f"{cases[0]}, nnUNet"} <= set(names)
    assert f"errormap/{fold}/figures/{cases[0]}-nnUNet.png" in page.linked()
    kinds = page.table("Error Dice by mask kind")
    assert [row[0] for row in kinds[1:]] == ["final", "side1", "nnUNet"]
    assert kinds[3][1 + list(kinds[0][1:]).index("entropy")] == "n/a"
    assert any(caption.startswith("Error Dice by structure, masks of nnUNet") for caption in page.tables)


def test_a_run_of_one_kind_without_pictures_still_makes_a_page(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final",))
    for k in range(3):
        path = run / f"errormap/{k}/cases.csv"
        pd.read_csv(path, dtype=str, keep_default_na=False).assign(dice_lv="", dice_rv="", dice_myo="").to_csv(
            path, index=False
        )
    _, _, page = _finished(run)
    assert len(page.table("Judged worst")) == 11
    assert "mean Dice of the mask" not in page.table("Judged worst")[0]
    for start in ("Worst masks", "Error Dice by mask kind"):
        assert not any(caption.startswith(start) for caption in page.tables)


def test_names_that_are_no_file_names_lead_nowhere(tmp_path, write_run):
    name = "/../</script><script>alert(1)</script>"
    run = write_run(tmp_path / "runs" / "demo", kinds=("final",), hostile=name)
    _picture(tmp_path / "outside-final.png")
    for path in (*run.glob("*/*/cases.csv"), *run.glob("*/*/made_from.json"), run / "folds.json"):
        path.write_text(re.sub(r'(?m)(^|")1001(?=[",])', r"\1../../../../../outside", path.read_text()))
    _, _, page = _finished(run)
    assert name in page.text
    assert "../../../../../outside" in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    assert all(href.startswith("#") for href in page.linked())
    assert not any(a["alt"].startswith("Overlay") for tag, a in page.tags if tag == "img")


def test_a_method_without_an_error_map_stands_in_the_tables_and_out_of_the_figures_of_maps(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=True, regressor=True)
    _, summary, page = _finished(run)
    rows = {row[0]: row for caption, rows in page.tables.items() if "error" in caption.lower() for row in rows}
    assert "dice_regressor" in rows
    assert "nan" not in " ".join(page.text).lower().split()
    tables = read_run(run)
    for figure in (strips.kinds_figure(tables.judged), strips.structures_figure(tables.judged, tables.structures)):
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["errormap", "constant", "boundary", "entropy"]
    assert summary["methods"]["dice_regressor"]["all"]["n"] == summary["methods"]["errormap"]["all"]["n"]


def test_every_method_has_a_colour_of_its_own():
    methods = (*METHOD_ORDER, *ABLATIONS)
    assert len(set(method_colours(methods).values())) == len(methods)
