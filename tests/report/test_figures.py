"""Figures show what the arrays and tables say, without pyplot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from whqa.report import figures, shown, slices, strips, style
from whqa.report.summary_strata import reliability_figure
from whqa.structures import MMWHS

SPACING = (1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def volume():
    mask = np.zeros((20, 24, 16), np.uint8)
    mask[4:14, 6:18, 3:12] = 1
    mask[8:12, 8:14, 5:9] = 5
    reference = mask.copy()
    reference[12:14, 10:16, 7:9] = 0
    image = np.random.default_rng(0).normal(size=mask.shape).astype(np.float16)
    return image, mask, reference


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = [
        {"case": str(i), "method": method, "mask_kind": kind, "error_dice": rng.random(), "dice_lv": rng.random()}
        | {f"{q}_{r}": 0.9 + 0.1 * rng.random() for q in ("acc", "qi", "qi_soft") for r in ("volume", "heart")}
        for i in range(5)
        for method in ("errormap", "constant", "tta")
        for kind in ("final", "side1", "corrupted")
    ]
    return pd.DataFrame(rows)


def _images(axis):
    return [i.get_array() for i in axis.images]


def test_overlay_goes_through_the_slice_with_most_errors(volume):
    image, mask, reference = volume
    wrong = mask != reference
    figure = slices.overlay_figure(
        image, mask, reference, 0.5 * wrong, wrong, SPACING, MMWHS.colours, MMWHS.titles, "case <1> $x_"
    )
    axes = figure.axes
    assert [a.get_title() for a in axes[:3]] == ["image and mask", "true error", "predicted error"]
    assert [axes[i].get_ylabel().split()[0] for i in (0, 3, 6)] == ["axial", "coronal", "sagittal"]
    worst = int(wrong.sum(axis=(0, 1)).argmax())
    assert axes[0].get_ylabel() == f"axial {worst + 1}/16"
    true, predicted = _images(axes[1])[1], _images(axes[2])[1]
    np.testing.assert_array_equal(true[..., 3] > 0, wrong[:, :, worst].T)
    np.testing.assert_allclose(predicted[..., 3], 0.5 * true[..., 3])
    assert style.png(figure).startswith(b"\x89PNG")


def test_planes_have_their_size_in_mm_and_the_right_on_the_left(volume):
    image, mask, _ = volume
    nothing = np.zeros(mask.shape, bool)
    figure = slices.overlay_figure(image, mask, None, None, nothing, SPACING, MMWHS.colours, MMWHS.titles, "t")
    assert len(figure.axes) == 6
    axial, sagittal = figure.axes[0], figure.axes[4]
    assert axial.get_xlim() == (20, 0)
    assert axial.get_ylim() == (0, 48)
    assert sagittal.get_xlim() == (0, 48)
    assert sagittal.get_ylim() == (0, 48)
    np.testing.assert_array_equal(_images(sagittal)[0], image[8].T)  # middle of 4..13


def test_planes_say_where_right_front_and_head_are(volume):
    image, mask, _ = volume
    nothing = np.zeros(mask.shape, bool)
    figure = slices.overlay_figure(image, mask, None, None, nothing, SPACING, MMWHS.colours, MMWHS.titles, "t")
    for axis, left, right, top, bottom in zip(figure.axes[::2], "RRP", "LLA", "ASS", "PII", strict=True):
        found = {t.get_text(): t.get_position() for t in axis.texts}
        assert set(found) == {left, right, top, bottom}
        assert found[left][0] < 0.5 < found[right][0]
        assert found[bottom][1] < 0.5 < found[top][1]


def test_structures_are_named_inside_themselves(volume):
    image, mask, _ = volume
    figure = slices.new_figure(3, 3)
    axis = figure.subplots()
    at = (9, 10, 6)
    slices.show_plane(axis, image, 2, at, SPACING, shown.grey_window(image))
    slices.draw_contours(axis, mask, 2, at, MMWHS.colours, MMWHS.keys)
    named = {t.get_text(): t.get_position() for t in axis.texts if t.get_text() in MMWHS.keys}
    assert set(named) == {"lv", "myo"}
    for key, (x, y) in named.items():
        assert MMWHS.keys[mask[int(x / SPACING[0]), int(y / SPACING[1]), 6] - 1] == key


def test_scatter_shows_every_row_of_every_method(table):
    figure = figures.scatter_figure(table, "heart", "t")
    panels = [a for a in figure.axes if a.get_visible()]
    assert [a.get_title(loc="left") for a in panels] == ["errormap", "constant", "tta"]
    for axis, method in zip(panels, ("errormap", "constant", "tta"), strict=True):
        drawn = np.concatenate([np.column_stack(line.get_data()) for line in axis.lines if line.get_marker() != "None"])
        rows = table[table["method"] == method]
        expected = rows[["acc_heart", "qi_heart"]].to_numpy()
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0))
        assert len({line.get_marker() for line in axis.lines} - {"None"}) == 3
    assert figures.scatter_figure(table, "volume", qi="qi_soft").axes[0].get_ylabel() == "soft QI (volume)"


def test_bland_altman_lines_are_bias_and_limits(table):
    rows = table[table["method"] == "errormap"]
    difference = rows["qi_volume"] - rows["acc_volume"]
    axis = figures.bland_altman_figure(table, "volume", "errormap").axes[0]
    levels = {round(float(line.get_ydata()[0]), 9) for line in axis.lines if line.get_marker() == "None"}
    limits = [difference.mean() + z * difference.std() for z in (0, 1.96, -1.96)]
    assert levels == {0.0, *(round(float(v), 9) for v in limits)}


def test_risk_coverage_ends_at_the_mean_risk(table):
    axis = figures.risk_coverage_figure(
        table, ("lv",), dict.fromkeys(("errormap", "constant", "tta"), "qi_volume")
    ).axes[0]
    rows = table[table["method"] == "errormap"]
    curves = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert set(curves) == {"perfect order", "errormap", "constant", "tta"}
    assert curves["errormap"][-1] == pytest.approx(1 - rows["dice_lv"].mean())
    assert curves["errormap"][0] == pytest.approx(1 - rows.loc[rows["qi_volume"].idxmax(), "dice_lv"])
    assert np.ptp(curves["constant"]) < 1e-12


def test_scatter_has_the_identity_the_intervals_and_notes(table):
    levels = np.linspace(0.9, 1.0, 5)
    band = (levels, levels - 0.01, np.minimum(levels + 0.02, 1.0))
    figure = figures.scatter_figure(table, "volume", notes={"tta": "MAE 0.1"}, bands={"errormap": band})
    first, _, third = (a for a in figure.axes if a.get_visible())
    (shaded,) = first.collections
    vertices = shaded.get_paths()[0].vertices
    assert vertices[:, 0].min() == pytest.approx(0.89)
    assert vertices[:, 0].max() == pytest.approx(1.0)
    assert not third.collections
    assert [t.get_text() for t in third.texts] == ["MAE 0.1"]
    for axis in (first, third):
        lines = [line for line in axis.lines if line.get_marker() == "None"]
        assert [line.get_slope() for line in lines] == [1]
        low, high = figures.span(table, "volume")
        assert axis.get_xlim() == axis.get_ylim() == pytest.approx((low, high))
    assert style.png(figure, dpi=40).startswith(b"\x89PNG")


def _dots(figure):
    """Values drawn as dots, by label of their group."""
    axis = figure.axes[0]
    named = {line.get_color(): line.get_label() for line in axis.lines if not line.get_label().startswith("_")}
    found = {label: [] for label in named.values()}
    for line in axis.lines:
        if line.get_linestyle() == "None" and len(line.get_ydata()):
            found[named[line.get_color()]] += list(line.get_ydata())
    return found


def test_strips_show_every_value_and_skip_what_is_empty(table):
    some = table.copy()
    some.loc[some["method"] == "tta", "error_dice"] = np.nan
    figure = strips.kinds_figure(some)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["final", "side1", "corrupted"]
    found = _dots(figure)
    assert "tta" not in found
    for method in ("errormap", "constant"):
        assert sorted(found[method]) == sorted(table.loc[table["method"] == method, "error_dice"])
    assert style.png(figure, dpi=40).startswith(b"\x89PNG")
    labels = [t.get_text() for t in strips.segmentation_figure(table, ["lv"]).axes[0].get_xticklabels()]
    assert labels == ["left\nventricle"]


def test_strips_of_structures_and_corrections_show_their_columns(table):
    rng = np.random.default_rng(2)
    rows = table[table["method"] == "errormap"].assign(error_dice_lv=lambda t: rng.random(len(t)))
    rows["dice_lv_corrected"] = rng.random(len(rows))
    rows.loc[rows.index[0], "dice_lv_corrected"] = np.nan
    found = _dots(strips.structures_figure(rows, ["lv"]))
    assert sorted(found["errormap"]) == sorted(rows["error_dice_lv"])
    known = rows.iloc[1:]
    for figure in (strips.correction_by_structure(rows, ["lv"]), strips.correction_by_kind(rows, ["lv"])):
        found = _dots(figure)
        assert sorted(found["before"]) == sorted(known["dice_lv"])
        assert sorted(found["after"]) == sorted(known["dice_lv_corrected"])
    axis = strips.correction_scatter(rows, ["lv"]).axes[0]
    drawn = np.concatenate([np.column_stack(line.get_data()) for line in axis.lines if line.get_marker() != "None"])
    expected = known[["dice_lv", "dice_lv_corrected"]].to_numpy()
    np.testing.assert_allclose(np.sort(drawn[~np.isnan(drawn).any(axis=1)], axis=0), np.sort(expected, axis=0))


def test_colours_of_methods_do_not_depend_on_what_else_is_shown():
    assert figures.method_colours(["entropy"])["entropy"] == figures.method_colours(["errormap", "zz"])["entropy"]
    shown = ["errormap", "constant", "boundary", "entropy", "qcresunet", "tta"]
    colours = figures.method_colours(shown)
    assert len({colours[method] for method in shown}) == len(shown)


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_legend_of_many_methods_stays_within_the_figure(n):
    bins = [
        {"qi": q, "acc": q, "n": 205 + k, "bias": {"mean": 0.0, "ci95": [0.0, 0.0]}} for k, q in enumerate((0.6, 0.9))
    ]
    numbers = {"final": {"n": 411, "reliability": {"volume": bins, "heart": bins}}}
    figure = reliability_figure({f"a_long_name_{k}": numbers for k in range(n)}, "final", "title")
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= min(axis.get_window_extent().y0 for axis in figure.axes)


def test_no_figure_is_left_with_pyplot(table):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figures.scatter_figure(table, "heart")
    strips.kinds_figure(table)
    assert pyplot.get_fignums() == before
