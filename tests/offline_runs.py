"""What W&B wrote to the file of an offline run, read back: nothing of wandb does it without a server."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages


def records(run_file: Path) -> Iterator[Any]:
    """The records of an offline run: a LevelDB log (blocks of 32 KiB, records split over them) of protobuf messages."""
    data, at, whole = run_file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield messages.Record.FromString(whole)
            whole = b""


def offline_run(directory: Path) -> SimpleNamespace:
    """What the only offline run below a directory holds."""
    (run_file,) = directory.glob("wandb/offline-run-*/*.wandb")
    # wandb's service may still be writing when finish() returns
    deadline = time.monotonic() + 240
    found = list(records(run_file))
    while not any(r.HasField("exit") for r in found) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = list(records(run_file))
    begun = next(r.run for r in found if r.HasField("run"))
    rows = [
        {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in r.history.item}
        for r in found
        if r.HasField("history")
    ]
    summary = {
        i.key or "/".join(i.nested_key): json.loads(i.value_json)
        for r in found
        if r.HasField("summary")
        for i in r.summary.update
    }
    ends = [r.exit.exit_code for r in found if r.HasField("exit")]
    config = {u.key: json.loads(u.value_json) for u in begun.config.update}
    return SimpleNamespace(begun=begun, rows=rows, summary=summary, ends=ends, config=config)
