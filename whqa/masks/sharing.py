"""One training for several experiments: a complete segmenter appears in the directory of another one.

Its files are hard links where the file system has them, copies elsewhere: they cost no space, and each experiment stays
whole when the other one is moved or removed. That is safe because whatever whqa writes again is a new file that takes
the place of the old one (`whqa.files.atomic_path`); the log, which is appended to, is copied.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from whqa.files import atomic_path
from whqa.masks.run_state import COMPLETED, LOG, is_complete

# Of who works in a directory, and a mirror that is uploaded once.
_OWN = {".lock", "wandb", "slurm.json"}


def share_run(source: Path, target: Path) -> None:
    """Let the complete run `source` be in `target` as well, unless `target` is complete itself.

    Raises:
        OSError: the disk does not take it.
    """
    if is_complete(target):
        return
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    # a run has begun once there are checkpoints, and is complete with its stamp
    files.sort(key=lambda name: (name.parts[0] == COMPLETED, name.parts[0] == "checkpoints"))
    for name in files:
        if name.parts[0] not in _OWN:
            with atomic_path(target / name) as temporary:
                _link(source / name, temporary)


def _link(source: Path, target: Path) -> None:
    if source.name != LOG:
        try:
            os.link(source, target)
            return
        except OSError:
            # no links on this file system, or to another one; what else is wrong shows in copying
            pass
    shutil.copy2(source, target)
