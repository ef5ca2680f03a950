"""What a report shows of a mask, and who draws it: in this process or in one beside it, the same pictures."""

from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from whqa.parallel.beside import process_beside
from whqa.report import assessment_page as assessment
from whqa.report import judged_pictures, judged_view, pictures, shown, slices, standing, style, summary_figures, wording
from whqa.report.assessment_page import render_report


@pytest.fixture(scope="module")
def view(assessed):
    return judged_view.judged_view(assessed())


@pytest.fixture
def two_cpus(monkeypatch):
    """A process beside is had here, however many CPUs and threads the tests have."""
    monkeypatch.setattr("whqa.parallel.beside.cpus", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def noting(start, begun):
    """Starts, and keeps what it was given."""

    def noted(work, item):
        begun.append(item)
        return start(work, item)

    return noted


def test_a_process_beside_draws_the_same_report(assessed, tmp_path, two_cpus):
    begun = []
    with process_beside(pictures.prepare) as start:
        assessment.begin_report(assessed(), noting(start, begun))(tmp_path / "report.html")
    assert len(begun) == 9
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(assessed())


def test_a_process_beside_draws_the_same_figures(two_cpus):
    def images():
        found = []
        for n in (2, 3, 4):
            figure = slices.new_figure(2, n)
            figure.subplots().plot([0, n], [n, 0], label="a")
            figure.legend()
            found.append(summary_figures.image_of(figure, f"figure {n}"))
        return found

    beside, begun = images(), []
    with process_beside(style.warm_up) as start:
        summary_figures.drawn(beside, noting(start, begun))
    assert begun == [image.figure for image in beside[::2]]
    assert [image.png for image in beside] == [image.png for image in images()]
    assert len({image.png for image in beside}) == 3


def test_view_is_the_same_whatever_the_order_of_the_axes(assessed):
    plain = assessed()
    expected = judged_view.judged_view(plain)
    for code in ("RAS", "AIL", "PIR"):
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(plain.affine), nib.orientations.axcodes2ornt(tuple(code))
        )
        names = ("image", "mask", "corrected", "error_probability", "error_map", "opinion")
        turned = {name: nib.apply_orientation(getattr(plain, name), turn) for name in names}
        affine = plain.affine @ nib.orientations.inv_ornt_aff(turn, plain.mask.shape)
        found = judged_view.judged_view(assessed(affine=affine, **turned))
        for name in ("image", "mask", "corrected", "probability", "error_map", "opinion"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
        assert (found.start, found.whole) == (expected.start, expected.whole)


def test_view_keeps_all_that_is_to_be_seen(assessed, view):
    plain = assessed()
    for part, whole in ((view.mask, plain.mask), (view.error_map, plain.error_map), (view.corrected, plain.corrected)):
        assert (part != 0).sum() == (whole != 0).sum()
    at = tuple(int(i) for i in np.argwhere(view.mask == 1)[0])
    world = view.affine @ [*at, 1]
    voxel = np.rint(np.linalg.solve(plain.affine, world))[:3].astype(int)
    assert plain.mask[tuple(voxel)] == 1
    assert plain.image[tuple(voxel)] == view.image[at]
    # phantoms are LPS: the first two indices rise towards left and back
    assert view.slice_words(2, at) == f"slice {voxel[2] + 1} of {plain.mask.shape[2]}, counted from the feet"
    for axis_index, side in ((0, "left"), (1, "back")):
        n = plain.mask.shape[axis_index]
        assert view.slice_words(axis_index, at) == f"slice {n - voxel[axis_index]} of {n}, counted from the {side}"


@pytest.mark.parametrize("axis_index", [0, 1, 2])
def test_a_single_slice_is_drawn_as_in_its_scan(view, axis_index):
    at = shown.worst_voxel(view.error_map, view.mask)
    (cut,) = (s for s in pictures.changed_slices(view) if s.axis_index == axis_index)
    assert cut.view.mask.shape[axis_index] == 1
    (cut,) = (s for s in pictures.error_slices(view) if s.axis_index == axis_index)
    for draw in (judged_pictures.plane_figure, judged_pictures.change_figure):
        assert style.png(draw(*cut[:3])) == style.png(draw(view, axis_index, at))
    here = [0 if i == axis_index else n for i, n in enumerate(at)]
    np.testing.assert_allclose(cut.view.affine @ [*here, 1], view.affine @ [*at, 1])
    assert cut.view.slice_words(axis_index, here) == view.slice_words(axis_index, at)


def test_drawing_needs_neither_torch_nor_what_reads_scans():
    """A process beside this one draws; each of these takes from a quarter of a second to two seconds to import."""
    code = "import sys; from whqa.report.pictures import prepare; prepare();"
    code += "print(sorted({'torch', 'nibabel', 'pandas'} & set(sys.modules)), 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_pictures_come_from_whoever_was_started(assessed, tmp_path):
    asked = []

    def start(work, item):
        asked.append(item)
        return lambda: work(item)

    write = assessment.begin_report(assessed(), start)
    assert len(asked) == 9
    write(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(assessed())


def test_standing_shows_every_mask_and_this_case(assessed):
    found = assessed()
    heart, *_ = standing.standings_of(found.population, found.quality)
    axis = judged_pictures.standing_figure(heart).axes[0]
    dots = np.concatenate(
        [np.column_stack(li.get_data()) for li in axis.lines if li.get_markersize() < 5 and li.get_marker() != "None"]
    )
    expected = np.array([(r["acc_heart"], r["qi_heart"]) for r in found.population])
    np.testing.assert_allclose(np.sort(dots, axis=0), np.sort(expected, axis=0))
    (bar,) = (li for li in axis.lines if li.get_marker() == "|")
    np.testing.assert_allclose(bar.get_xydata(), [(0.861, 0.912), (0.951, 0.912)])
    (star,) = (li for li in axis.lines if li.get_marker() == "*" and li.get_markersize() > 5)
    np.testing.assert_allclose(star.get_xydata(), [(0.912, 0.912)])
    lower = sum(r["qi_heart"] < 0.912 for r in found.population if r["mask_kind"] == "final")
    assert wording.rank_words(found.population, found.quality).startswith(f"{lower} of the run's 12 final masks ")
    renamed = [{**r, "mask_kind": "nnunet" if r["mask_kind"] == "final" else "corrupted1"} for r in found.population]
    words = wording.rank_words(renamed, found.quality)
    assert words.startswith(f"{lower} of the run's 12 masks of other programs ")
