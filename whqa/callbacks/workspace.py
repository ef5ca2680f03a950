"""A W&B workspace for whqa's runs: folds as a band, stages apart, structures, QI against Acc, worst cases.

    pip install 'whqa[workspace]'
    python -m whqa.callbacks.workspace my-team/whqa

saves it as a view of the project, of which W&B prints the address. Panels name keys that runs log: see
`whqa.callbacks.tracking` (a stage of a fold) and `whqa.callbacks.summary_run` (a whole cross-validation).
"""

from __future__ import annotations

import sys
from typing import Any

from whqa.callbacks.tracking import N_PICTURES
from whqa.errors import InputError
from whqa.structures import MMWHS

NAME = "whqa"
_REGIONS = ("volume", "heart")
_RIVALS = ("errormap", "opinion", "boundary", "constant")
_WANTS = "pip install 'whqa[workspace]'"


def workspace(entity: str, project: str) -> Any:
    """The workspace as an object, not saved yet.

    Raises:
        InputError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as spaces
    except ImportError:
        raise InputError(f"a workspace needs wandb-workspaces; {_WANTS}") from None

    def lines(*keys: str) -> list[Any]:
        # the runs' own grouping makes one line of the folds of a stage, with their smallest and largest as a band
        band = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        return [panels.LinePlot(title=key, x="Step", y=[key], **band) for key in keys]

    def bars(title: str, keys: list[str]) -> Any:
        return panels.BarPlot(title=title, metrics=keys, groupby="Group", groupby_aggfunc="mean", orientation="h")

    def pictures(title: str, keys: list[str]) -> Any:
        return panels.MediaBrowser(title=title, media_keys=keys, num_columns=2)

    sections = {
        "segmenters": lines("val/dice", "val/hd95"),
        "error-map networks": lines("val/error_dice", "val/error_auprc", "val/qi_pcc", "val/qi_mae"),
        "both stages": lines("train/loss"),
        "structures": [
            bars("Dice by structure, validation", [f"val/dice_{key}" for key in MMWHS.keys]),
            bars("Dice by structure, test", [f"segmentation/dice/per_structure/{key}" for key in MMWHS.keys]),
        ],
        "QI against Acc": [
            pictures("a fold", [f"test/qi_accuracy_{region}" for region in _REGIONS]),
            pictures("all folds", [f"qi_accuracy/final_{region}" for region in _REGIONS]),
            bars("error Dice, final masks", _of_rivals("error_dice")),
            bars("PCC of QI and Acc, final masks", _of_rivals("volume/pcc")),
        ],
        "worst cases": [
            pictures("test cases", [f"test/overlay/{i + 1}" for i in range(N_PICTURES)]),
            pictures("validation cases", [f"val/overlay/{i + 1}" for i in range(N_PICTURES)]),
            *(panels.WeavePanelSummaryTable(table_name=name) for name in ("test/cases", "cases")),
        ],
    }
    return spaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[spaces.Section(name=name, panels=found, is_open=True) for name, found in sections.items()],
        runset_settings=spaces.RunsetSettings(groupby=[spaces.Metric("Group"), spaces.Metric("JobType")]),
    )


def _of_rivals(number: str) -> list[str]:
    return [f"final/{method}/{number}" for method in _RIVALS]


def main(words: list[str]) -> None:
    """`python -m whqa.callbacks.workspace ENTITY/PROJECT`; exits with 2 where it cannot be saved."""
    entity, _, project = words[0].partition("/") if len(words) == 1 else ("", "", "")
    try:
        if not entity or not project:
            raise InputError("name one project, as in: python -m whqa.callbacks.workspace my-team/whqa")
        made = workspace(entity, project)
        try:
            made.save()
        except Exception as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{words[0]}: W&B does not take the workspace ({said}); try `wandb login`") from error
    except InputError as error:
        print(f"whqa.callbacks.workspace: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
