"""The directory name of an experiment: what a run is, never when it ran."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

# What a run is, not how or where it is run: only the rest of the overrides becomes part of a run's name.
_NOT_IN_NAME = re.compile(
    r"^(name|experiment|stage|fold|fit|runs_dir|data_dir|cache_dir|debug|sweep|data\.root"
    r"|(segmenter|errormap)\.num_workers|(logger|hydra)(\..*|/.*|@.*)?|trainer(?!\.gradient_clip_)(\..*|/.*|@.*)?"
    r"|callbacks(\.(checkpoint|learning_rate)(\..*)?|/.*|@.*)?)$"
)
# In bytes; file systems allow 255, and files are written beside their place under longer names.
_LONGEST_NAME = 200
# That there are masks of a program makes another experiment, not where they lie.
EXTERNAL_ROOT = re.compile(r"^(masks\.external\.[\w-]+)\.root(=.*)?$", re.DOTALL)


def run_name(name: str, overrides: Sequence[str]) -> str:
    """Directory name of an experiment: its name, then the overrides that make it another experiment.

    `name=...` among the overrides stands alone: whoever names a run takes care of telling runs apart. Of a key that is
    given twice the last counts, as it does for Hydra.
    """
    given = {o.split("=", 1)[0].lstrip("+~"): o.lstrip("+") for o in overrides}
    if "name" in given:
        return name
    parts = sorted(EXTERNAL_ROOT.sub(r"\1", text) for key, text in given.items() if not _NOT_IN_NAME.match(key))
    full = ",".join([name, *(re.sub(r"[^\w.,=+~-]+", "_", part) for part in parts)])
    if len(full.encode()) <= _LONGEST_NAME:
        return full
    short = full.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
