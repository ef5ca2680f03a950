"""Masks of any quality made of other programs' masks: what a segmenter's would be, kept, made again when they must."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import write_rows
from whqa.masks.drawn import drawn_masks
from whqa.masks.external_made import with_made_masks
from whqa.masks.faulty import faulty_masks
from whqa.masks.importing import Imported, digest_of
from whqa.masks.made_from import MadeFrom, refuse_mixed_origins, refuse_other_masks, write_made_from
from whqa.masks.opinion import MADE_INDEX, OPINION, Opinion, index_digests, write_opinion
from whqa.masks.plan import AUGMENTED_KINDS, MASK_KINDS, is_made
from whqa.masks.store import MaskItem, mask_path, read_arrays, read_index, write_mask

CASES, FOLDS, SEED = ("a", "b", "c"), Folds((("a", "c"), ("b",)), seed=0), 6
KINDS = tuple(filter(is_made, MASK_KINDS))


@dataclass
class Study:
    """Labels of three cases and the masks of some programs, as `import_masks` leaves them."""

    root: Path
    label: np.ndarray
    spacing: tuple[float, float, float]
    structures: Sequence[str]

    def mask(self, case: str, program: str) -> np.ndarray:
        return np.roll(self.label, 1 + CASES.index(case), axis=0 if program == "nnunet" else 1)

    def bring(
        self, program: str, cases: Sequence[str] = CASES, unseen: bool = True, axis: int | None = None
    ) -> Imported:
        place, items, rows = self.root / "external" / program, [], []
        for case in cases:
            mask = self.mask(case, program) if axis is None else np.roll(self.label, 1, axis)
            path, rate = mask_path(place, case, program), float((mask != self.label).mean())
            write_mask(path, mask, None, program, unseen)
            items.append(MaskItem(case, program, path, program, unseen, rate, has_entropy=False))
            row = {"case": case, "mask_kind": program, "error_rate": rate, "mask_sha256": digest_of(mask)}
            rows.append(row)
        write_rows(place / "cases.csv", list(rows[0]), rows)
        return Imported(program, tuple(items), index_digests(place), {})

    def told(self, program: str, cases: Sequence[str] = CASES, p_other: float = 0.2) -> Imported:
        """The same with a softmax of the cases, p = `p_other` for the label that follows the mask's."""
        brought, opinions = self.bring(program), {}
        for case in cases:
            mask, n = self.mask(case, program), len(self.structures) + 1
            p = np.stack([(mask == c) * (1 - p_other) + ((mask + 1) % n == c) * p_other for c in range(n)])
            write_opinion(self.root / "external" / program, case, torch.from_numpy(p).clamp_min(1e-6).log(), True)
            path = mask_path(self.root / "external" / program, case, OPINION)
            opinions[case] = Opinion(case, path, program)
        more = {f"{case}/{OPINION}": f"{p_other}" for case in cases}
        return replace(brought, digests=dict(brought.digests) | more, opinions=opinions)

    def make(
        self,
        *imported: Imported,
        kinds: Sequence[str] = KINDS,
        seed: int = SEED,
        learned_from: Sequence[str] | None = None,
    ) -> list[Imported]:
        cases: Any = {
            case: SimpleNamespace(
                label=lambda: self.label, directory=Path(f"{case}-0"), patient=case.upper(), spacing=self.spacing
            )
            for case in CASES
        }
        return with_made_masks(imported, kinds, self.root, self.structures, FOLDS, cases, seed, learned_from)


@pytest.fixture
def study(tmp_path: Path, even_heart: Any) -> Study:
    step = (slice(None, None, 2),) * 3
    return Study(tmp_path, even_heart.mask[step].copy(), (8.0, 8.0, 8.0), even_heart.structures)


def _made(imported: Imported) -> dict[tuple[str, str], MaskItem]:
    return {(item.case, item.kind): item for item in imported.items if item.kind in MASK_KINDS}


def test_they_are_those_that_a_segmenter_with_these_final_masks_would_get(study: Study) -> None:
    (found,) = study.make(study.bring("nnunet"))
    assert sorted(_made(found)) == sorted((case, kind) for case in CASES for kind in KINDS)
    for case in CASES:
        own = {"final": study.mask(case, "nnunet")}
        wanted = faulty_masks(case, study.label, own, study.spacing, study.structures, SEED)
        for kind, mask, record in [("reference", study.label, "[]"), *wanted]:
            item = _made(found)[case, kind]
            np.testing.assert_array_equal(item.mask(), mask)
            assert (item.segmenter, item.unseen, item.has_entropy) == ("nnunet", True, False)
            assert item.error_rate == pytest.approx((mask != study.label).mean(), rel=1e-6)
            assert json.loads(str(read_arrays(item.path, "faults")[0])) == json.loads(record)
            assert found.digests[f"{case}/{kind}"] == digest_of(mask)
    assert {f"{case}/nnunet" for case in CASES} < set(found.digests)


def test_where_a_softmax_speaks_masks_are_drawn_from_it_and_others_made_of_these(study: Study) -> None:
    (found,) = study.make(study.told("nnunet", cases=("a", "b")), kinds=(*AUGMENTED_KINDS, *KINDS))
    made = _made(found)
    assert {case for case, kind in made if kind in AUGMENTED_KINDS} == {"a", "b"}
    assert {kind for case, kind in made if case == "c"} == set(KINDS)
    codes = Opinion("b", mask_path(study.root / "external" / "nnunet", "b", OPINION), "nnunet").codes()
    drawn = dict(drawn_masks("b", codes, study.spacing, SEED))
    own = {"final": study.mask("b", "nnunet")} | drawn
    wanted = faulty_masks("b", study.label, own, study.spacing, study.structures, SEED)
    for kind, mask in [*drawn.items(), *((kind, mask) for kind, mask, _ in wanted)]:
        np.testing.assert_array_equal(made["b", kind].mask(), mask)
        assert (made["b", kind].segmenter, made["b", kind].unseen) == ("nnunet", True)
    assert made["b", "augmented1"].error_rate == pytest.approx((drawn["augmented1"] != study.label).mean(), rel=1e-6)


def test_a_program_that_is_only_judged_has_no_part_in_them_by_its_softmax_either(study: Study) -> None:
    kinds = (*AUGMENTED_KINDS, *KINDS)
    alone = _made(study.make(study.bring("other"), kinds=KINDS)[0])
    both = study.make(study.told("nnunet"), study.bring("other"), kinds=kinds, learned_from=["other", "augmented"])
    assert [len(_made(one)) for one in both] == [0, len(CASES) * len(KINDS)]
    for key, item in _made(both[1]).items():
        np.testing.assert_array_equal(item.mask(), alone[key].mask())


def test_another_softmax_makes_them_again(study: Study) -> None:
    before = study.make(study.told("nnunet"), kinds=AUGMENTED_KINDS)[0].digests
    assert study.make(study.told("nnunet"), kinds=AUGMENTED_KINDS)[0].digests == before
    after = study.make(study.told("nnunet", p_other=0.4), kinds=AUGMENTED_KINDS)[0].digests
    assert all(before[f"{case}/{kind}"] != after[f"{case}/{kind}"] for case in CASES for kind in AUGMENTED_KINDS)


def test_the_index_says_whose_they_are(study: Study) -> None:
    study.make(study.bring("nnunet"))
    rows = read_index(study.root / "external" / "nnunet", MADE_INDEX)
    assert [(row["case"], row["mask_kind"]) for row in rows] == [(case, kind) for case in CASES for kind in KINDS]
    for row in rows:
        assert (row["patient"], row["fold"]) == (row["case"].upper(), str(FOLDS.fold_of(row["case"])))
        assert (row["segmenter"], row["unseen"]) == ("nnunet", "1")
        assert (float(row["error_rate"]) == 0) == (row["mask_kind"] == "reference")


def test_only_the_wanted_kinds_are_made(study: Study) -> None:
    nnunet = study.bring("nnunet")
    assert study.make(nnunet, kinds=()) == [nnunet]
    (found,) = study.make(nnunet, kinds=("reference", "novel1"))
    assert {kind for _, kind in _made(found)} == {"reference", "novel1"}
    assert not mask_path(study.root / "external" / "nnunet", "a", "corrupted1").exists()


def test_another_seed_makes_others(study: Study) -> None:
    nnunet = study.bring("nnunet")
    first, second = (study.make(nnunet, seed=seed)[0].digests for seed in (1, 2))
    same = {name for name in first if first[name] == second[name]}
    assert same == {f"{case}/{kind}" for case in CASES for kind in ("nnunet", "reference")}


def _times(study: Study) -> dict[tuple[str, str], int]:
    place = study.root / "external" / "nnunet"
    return {(c, k): mask_path(place, c, k).stat().st_mtime_ns for c in CASES for k in KINDS}


def test_what_is_there_is_kept(study: Study) -> None:
    nnunet = study.bring("nnunet")
    first, before = study.make(nnunet), _times(study)
    index = (study.root / "external" / "nnunet" / MADE_INDEX).stat().st_mtime_ns
    assert study.make(nnunet) == first
    assert _times(study) == before
    assert (study.root / "external" / "nnunet" / MADE_INDEX).stat().st_mtime_ns == index


def _damage(place: Path) -> None:
    mask_path(place, "b", "mixed2").write_bytes(b"PK\x03\x04 half")


def _lose(place: Path) -> None:
    mask_path(place, "b", "corrupted3").unlink()


def _lose_row(place: Path) -> None:
    lines = (place / MADE_INDEX).read_text().splitlines(keepends=True)
    (place / MADE_INDEX).write_text("".join(line for line in lines if not line.startswith("b,")))


def _garble_index(place: Path) -> None:
    (place / MADE_INDEX).write_bytes(b"\xff\xfe\x00case\x00\n1\n")


@pytest.mark.parametrize("change", [_damage, _lose, _lose_row, _garble_index])
def test_what_is_damaged_is_made_again(study: Study, change: Callable[[Path], None]) -> None:
    nnunet = study.bring("nnunet")
    first, before = study.make(nnunet), _times(study)
    change(study.root / "external" / "nnunet")
    assert study.make(study.bring("nnunet")) == first
    remade = {case for (case, _), time in _times(study).items() if time != before[case, _]}
    assert remade == (set(CASES) if change is _garble_index else {"b"})


def test_another_prediction_makes_others_of_its_case_and_a_network_of_the_former_is_refused(study: Study) -> None:
    nnunet = study.bring("nnunet")
    (first,) = study.make(nnunet)
    run_dir = study.root / "errormap" / "0"
    write_made_from(run_dir, MadeFrom({}, {"nnunet": first.digests}))
    (run_dir / "checkpoints").mkdir()
    refuse_other_masks([run_dir], {"nnunet": study.make(nnunet)[0].digests})
    refuse_mixed_origins(study.root, [])
    before = _times(study)
    changed = study.bring("nnunet", axis=2)
    (second,) = study.make(changed)
    after = _times(study)
    # all are another roll than before
    assert {case for (case, kind) in before if before[case, kind] != after[case, kind]} == set(CASES)
    assert first.digests["a/mixed1"] != second.digests["a/mixed1"]
    assert first.digests["a/corrupted1"] == second.digests["a/corrupted1"]
    with pytest.raises(InputError, match=r"with other masks .*\(masks of nnunet: case a, b, c\)"):
        refuse_other_masks([run_dir], {"nnunet": second.digests})
    with pytest.raises(InputError, match="saw other data than the other runs"):
        refuse_mixed_origins(study.root, [])


def test_of_several_programs_each_case_draws_one(study: Study) -> None:
    programs = [study.bring("nnunet"), study.bring("person", unseen=False)]
    drawn = set()
    for seed in range(8):
        found = study.make(*programs, seed=seed)
        assert [one.name for one in found] == ["nnunet", "person"]
        for case in CASES:
            (maker,) = [one.name for one in found if (case, "mixed1") in _made(one)]
            item = _made(found[("nnunet", "person").index(maker)])[case, "mixed1"]
            assert (item.segmenter, item.unseen) == (maker, maker == "nnunet")
            mask = item.mask()
            assert ((mask == study.label) | (mask == study.mask(case, maker))).all()
            drawn.add((case, maker))
    assert len(drawn) == 6


def test_a_case_without_any_programs_mask_gets_none(study: Study) -> None:
    found = study.make(study.bring("nnunet", ("a",)), study.bring("person", ("a", "b")))
    made = {(case, one.name) for one in found for case, _ in _made(one)}
    assert {case for case, _ in made} == {"a", "b"}
    assert ("b", "person") in made


def test_what_is_judged_alone_is_no_part_of_any_mask_that_is_learned_from(study: Study) -> None:
    programs = [study.bring("nnunet"), study.bring("person")]
    learned, judged = study.make(*programs, learned_from=["nnunet", "corrupted"])
    assert sorted(_made(learned)) == sorted((case, kind) for case in CASES for kind in KINDS)
    assert judged == programs[1]


@pytest.mark.parametrize("learned_from", [None, ["corrupted"]])
def test_where_no_program_is_named_all_serve(study: Study, learned_from: list[str] | None) -> None:
    programs = [study.bring("nnunet"), study.bring("person")]
    makers = {
        one.name
        for seed in range(8)
        for one in study.make(*programs, seed=seed, learned_from=learned_from)[1:]
        if _made(one)
    }
    assert makers == {"person"}
