"""The W&B workspace: its panels show what runs log, and one line says why it cannot be saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from whqa.callbacks.summary_run import headline_numbers
from whqa.callbacks.workspace import main, workspace

# Of TrackRun and log_summary, whose own tests see that they are logged.
MEDIA = {
    *(f"{phase}/overlay/{i}" for phase in ("val", "test") for i in (1, 2, 3)),
    *(f"{name}_{region}" for name in ("test/qi_accuracy", "qi_accuracy/final") for region in ("volume", "heart")),
    *("test/cases", "cases"),
}


NUMBERS = {
    *("train/loss", "val/dice", "val/hd95", "val/error_dice", "val/error_auprc"),
    *("val/qi_pcc", "val/qi_mae", "val/qi_mae_constant", "val/qi_spearman"),
}
# of pydantic, when wandb_workspaces is imported
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def keys_of(node: Any) -> Iterator[str]:
    """All keys that panels of a saved workspace name."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("metrics", "mediaKeys") and value:
                yield from value
            elif key == "tableKey" and isinstance(value, str):
                yield value
            else:
                yield from keys_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from keys_of(value)


def test_every_panel_shows_something_that_runs_log() -> None:
    pytest.importorskip("wandb_workspaces", reason="pip install 'whqa[workspace]'")
    model = workspace("team", "hearts")._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True))
    structures = ("lv", "rv", "la", "ra", "myo", "ao", "pa")
    logged = {*MEDIA, *NUMBERS, *(f"val/dice_{key}" for key in structures)}
    entry = {"mean": 0.5, "ci95": None}
    halves = {"final": {"error_dice": entry, "volume": {"pcc": entry}}}
    logged |= set(
        headline_numbers(
            {
                "segmentation": {"dice": {"per_structure": dict.fromkeys(structures, entry)}},
                "methods": dict.fromkeys(("errormap", "opinion", "boundary", "constant"), halves),
            }
        )
    )
    named = set(keys_of(spec["section"]["panelBankConfig"]["sections"]))
    assert named - logged == set()
    assert {"val/dice", "val/error_dice", "val/dice_lv", "test/overlay/1", "test/qi_accuracy_heart"} <= named
    names = [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]
    assert names == ["segmenters", "error-map networks", "both stages", "structures", "QI against Acc", "worst cases"]


def test_folds_are_a_band_and_stages_lines_of_their_own() -> None:
    pytest.importorskip("wandb_workspaces", reason="pip install 'whqa[workspace]'")
    model = workspace("team", "hearts")._to_model()
    section = json.loads(model.spec.model_dump_json(by_alias=True))["section"]
    config = section["panelBankConfig"]["sections"][0]["panels"][0]["config"]
    assert (config["metrics"], config["groupAgg"], config["groupArea"]) == (["val/dice"], "mean", "minmax")
    grouping = section["runSets"][0]["grouping"]
    assert [one["name"] for one in grouping] == ["group", "jobType"]


@pytest.mark.parametrize("words", [[], ["hearts"], ["team/"], ["a/b", "c"]])
def test_a_project_that_is_none_gets_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(
        "name one project, as in: python -m whqa.callbacks.workspace my-team/whqa\n"
    )


def test_what_cannot_be_saved_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refused:
        def save(self) -> None:
            raise ValueError("no API key configured\nmore")

    monkeypatch.setattr("whqa.callbacks.workspace.workspace", lambda entity, project: Refused())
    with pytest.raises(SystemExit) as end:
        main(["team/hearts"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "whqa.callbacks.workspace: team/hearts: W&B does not take the workspace (no API key configured); "
        "try `wandb login`\n"
    )
