"""What `--help` says of settings: how to state them, which there are, where they lie."""

from __future__ import annotations

from omegaconf import OmegaConf

from whqa.config.instantiate import config_dir
from whqa.config.words import compose_config

# The keys that are changed most, with what they are; their values are those of the configuration.
_KEYS = {
    "folds": "of the cross-validation",
    "seed": "of folds, weights and patches",
    "runs_dir": "where experiments lie",
    "data_dir": "where phantoms lie, and data sets without data.root",
    "cache_dir": "prepared scans",
    "preprocess.spacing": "mm along R, A, S",
    "preprocess.crop_mm": "box round the heart, null for all",
    "network.width": "channels at full size",
    "segmenter.steps": "optimiser steps of stage one",
    "errormap.steps": "optimiser steps of stage two",
    "errormap.learning_rate": "its peak",
    "errormap.batch_size": "patches a step",
    "errormap.patch": "voxels",
    "errormap.head": "label or binary",
    "masks.kinds": "judged masks, null for all",
}
EXIT_CODES = "exit codes: 0 done, 1 a case or run failed, 2 bad arguments or input, 130 after Ctrl-C"
_TRAIN = """\
usage: whqa train [-m] [--cfg job] [--config-dir DIR] [--hydra-help] [GROUP=OPTION ...] [KEY=VALUE ...]

One stage of one fold through Hydra; `whqa cv` runs all of them. The same command resumes from the last checkpoint; a
directory with COMPLETED is finished, and one of other settings is refused.

  stage=segmenter|errormap   the error map after the segmenters of its mask plan
  fold=0                     the fold to leave out; of the nested plan also pairs, fold=0-1
  fit=false                  test again from the checkpoint
  -m, --multirun             every combination of several values, one run after the other; `whqa sweep` cross-validates
                             each and compares them
  --cfg job                  print the configuration and do nothing
  --config-dir DIR           groups of your own, such as DIR/experiment/mine.yaml
  --hydra-help               options of Hydra

examples:
  whqa train experiment=demo stage=segmenter fold=0
  whqa train -m experiment=demo stage=segmenter fold=0,0-1,0-2
  whqa train experiment=demo stage=errormap fold=0
  whqa train experiment=demo --cfg job
  whqa train -m experiment=demo stage=segmenter fold=0,1,2 segmenter.learning_rate=1e-3,2e-3
"""


def train_help() -> str:
    """All that `whqa train --help` says."""
    return f"{_TRAIN}\n{settings_help()}"


def settings_help() -> str:
    """How settings are stated, the groups with their options, the most used keys with their values."""
    folders = sorted(p for p in config_dir().iterdir() if p.is_dir() and p.name != "hydra")
    groups = [f"  {f.name}={'|'.join(sorted(p.stem for p in f.glob('*.yaml')))}" for f in folders]
    config = compose_config([])
    values = {key: str(OmegaConf.select(config, key)).replace(" ", "").replace("None", "null") for key in _KEYS}
    width = max(len(f"{key}={value}") for key, value in values.items())
    keys = [f"  {f'{key}={value}'.ljust(width)}  {_KEYS[key]}" for key, value in values.items()]
    return "\n".join(
        [
            f"settings are key=value and go over the files of {config_dir()}; a new key takes a plus sign, +key=value;",
            "what the shell or Hydra would read stands in quotes, 'data.patient=\"(\\d+)\"'.",
            "`whqa train --cfg job` prints all of them.",
            "",
            "groups and their options:",
            *groups,
            "",
            "keys that are changed most:",
            *keys,
            "",
            EXIT_CODES,
        ]
    )
