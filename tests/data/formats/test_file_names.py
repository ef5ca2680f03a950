"""Names of volumes: endings and closing words in any case of letters, names with dots, names that are only a word."""

from __future__ import annotations

import pytest

from whqa.data.formats.file_names import IMAGE_WORDS, MASK_WORDS, VOLUME_ENDINGS, case_name, is_volume, stem


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
@pytest.mark.parametrize("spelt", [str.lower, str.upper, str.title])
def test_a_volume_is_known_by_its_ending_in_any_case_of_letters(ending, spelt):
    name = f"Scan.v2{spelt(ending)}"
    assert is_volume(name)
    assert stem(name) == "Scan.v2"


@pytest.mark.parametrize("name", ["notes.txt", "scan.dcm", "scan.v2", "nii", "scan.nii.gz.md5", "scan.gz", ""])
def test_another_name_is_no_volume_and_stays_whole(name):
    assert not is_volume(name)
    assert stem(name) == name


def test_a_name_that_is_only_an_ending_stays_whole():
    assert stem(".nii.gz") == ".nii.gz"
    assert case_name(".nii") == ".nii"


@pytest.mark.parametrize("word", [*IMAGE_WORDS, *MASK_WORDS])
def test_one_closing_word_is_taken_off_in_any_case_of_letters(word):
    assert case_name(f"case7{word}.nii.gz") == case_name(f"case7{word.upper()}.NII.GZ") == "case7"
    assert case_name(f"case7{word}{word}.nii.gz") == f"case7{word}"


@pytest.mark.parametrize("word", [*IMAGE_WORDS, *MASK_WORDS])
def test_a_name_that_is_only_a_word_keeps_it(word):
    assert case_name(f"{word}.nii.gz") == word
    assert case_name(f"{word[1:]}.nii.gz") == word[1:]


def test_dots_and_words_within_a_name_stay():
    assert case_name("site.A_image_2.1_IMG.NII") == "site.A_image_2.1"
    assert case_name("ct_0001.nii.gz") == "ct_0001"


def test_the_words_of_one_kind_leave_those_of_the_other():
    assert case_name("case7_label.nii.gz", IMAGE_WORDS) == "case7_label"
    assert case_name("case7_img.nii.gz", IMAGE_WORDS) == "case7"


def test_names_as_macos_and_3d_slicer_write_them() -> None:
    assert stem("fa\u0308.nii") == stem("f\u00e4.nii")
    assert [case_name(name) for name in ("x.nii.gz", "x.seg.nrrd", "x-label.nrrd")] == ["x"] * 3
