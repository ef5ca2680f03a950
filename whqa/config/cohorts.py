"""A cohort from the words of a command line: name of the source, folder, settings."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from whqa.config.instantiate import config_dir, make
from whqa.config.words import compose_config
from whqa.data.case import Cohort
from whqa.data.formats.file_names import VOLUME_ENDINGS
from whqa.data.formats.volume_files import SpacingRule, read_grid
from whqa.data.reading import read_reference
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.dataset_json import FILE_NAME
from whqa.data.sources.listing import list_files
from whqa.errors import InputError

# It writes what it does not find, and what it wrote is read as MMWHS.
_WRITES = "phantom"
# Its patterns fit many folders whose label values it cannot know.
_NEVER_GUESSED = {"folder"}
# A data set with a description is read by what it says or not at all, and the reader's own line says why.
_SELF_DESCRIBING = ("nnunet", "decathlon")
# Settings that their refusals advise.
_ADVISED = ("links", "channel", "modality")
# Of sources that read one folder to the same cases.
_PREFERRED = ("mmwhs",)
# Where names of cases stand, which Hydra would read as numbers: 1_2 as 12, another case.
_OF_NAMES = ("without", "subjects")
_ELEMENT = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,]*?)\s*(?:,|$)""")


def sources() -> list[str]:
    """Names of the sources that read a folder, as `conf/data` has them."""
    return sorted(path.stem for path in (config_dir() / "data").glob("*.yaml") if path.stem != _WRITES)


def cohort_of(source: str, root: str | Path, settings: Sequence[str] = ()) -> Cohort:
    """The cohort that a source reads from a folder.

    Args:
        source: one of `sources()`.
        root: data folder; any name will do, it never goes through Hydra's grammar.
        settings: `key=value` of the source, e.g. `modality=mr`, or `data.modality=mr` as in an experiment; names of
            cases are taken as they stand.

    Raises:
        InputError: no such source or setting, or the reader's own.
    """
    _refuse_unknown(source)
    settings = _of_source(settings)
    for setting in settings:
        key, _, value = setting.partition("=")
        if not key or (not value and "=" not in setting):
            raise InputError(f"setting {setting!r}: must be key=value")
        if key.lstrip("+~") in ("root", "_target_"):
            raise InputError(f"setting {setting!r}: the folder is stated as such, and what reads it by --source")
    config = compose_config([f"data={source}", *(f"data.{_names_as_text(setting)}" for setting in settings)])
    return _read(config.data, root)


def recognised(root: str | Path, settings: Sequence[str] = ()) -> str:
    """The source whose layout a folder has.

    Where several read it, those count whose label values are those of the first label map, if there are any; of them
    the one wins with the fewest problems. Of the settings those have a say
    without which a described data set may not be readable at all.

    Raises:
        InputError: no such folder, no scan in it, or none or several of the sources read it equally well; the message
            names them.
    """
    folder = existing_folder(root, "a folder with scans")
    described = os.path.isfile(folder / FILE_NAME)
    found = dict(_readable(folder, _SELF_DESCRIBING if described else sources(), _of_source(settings)))
    if not found:
        if not list_files(folder).files:
            *endings, last = VOLUME_ENDINGS
            raise InputError(
                f"{folder}: not the layout of any source, it holds no {', '.join(endings)} or {last} file; state the "
                "folder of the scans"
            )
        raise InputError(
            f"{folder}: not the layout of any source that is recognised by itself; state --source, one of "
            f"{', '.join(sources())}; folder takes patterns: --source folder 'image=*_image.nii.gz' "
            "'label=*_label.nii.gz' 'scheme={lv:1,myo:2}'"
        )
    if len(found) > 1:
        found = {source: cohort for source, cohort in found.items() if _values_fit(cohort)} or found
    fewest = min(len(cohort.problems) for cohort in found.values())
    best = {source: cohort for source, cohort in found.items() if len(cohort.problems) == fewest}
    if len({_what_is_read(cohort) for cohort in best.values()}) > 1:
        raise InputError(f"{folder}: fits the sources {' and '.join(best)}; choose one with --source")
    return next((source for source in _PREFERRED if source in best), next(iter(best)))


def _readable(folder: Path, tried: Sequence[str], settings: Sequence[str]) -> Iterator[tuple[str, Cohort]]:
    for source in tried:
        if source in _NEVER_GUESSED:
            continue
        config = OmegaConf.load(config_dir() / "data" / f"{source}.yaml")
        assert isinstance(config, DictConfig)
        if source in _SELF_DESCRIBING:
            config.merge_with_dotlist([s for s in settings if s.partition("=")[0] in _ADVISED])
        try:
            yield source, _read(config, folder)
        except InputError as error:
            if (tried == _SELF_DESCRIBING and error.code != "other-source") or error.code == "both-layouts":
                raise


def _of_source(settings: Sequence[str]) -> list[str]:
    """The settings without the `data.` that messages and experiments put before them."""
    return [re.sub(r"^([+~]*)data\.", r"\1", setting) for setting in settings]


def _values_fit(cohort: Cohort) -> bool:
    case = next((c for c in cohort.cases if c.has_label), None)
    if case is None:
        return True
    try:
        read_reference(cohort, case, read_grid(case.label_files[0], cohort.spacing_rule))
    except InputError as error:
        return error.code != "unknown-labels"
    return True


def _what_is_read(cohort: Cohort) -> tuple[object, ...]:
    cases = sorted(cohort.cases, key=lambda case: case.image)
    # sources name patients each in its own way
    patients: dict[str, int] = {}
    files = tuple((c.files, tuple(c.parts), c.modality, patients.setdefault(c.patient, len(patients))) for c in cases)
    return files, tuple(cohort.scheme.values.items())


def _names_as_text(setting: str) -> str:
    key, _, value = setting.partition("=")
    value = value.strip()
    if key not in _OF_NAMES or value.lower() == "null":
        return setting
    if not value:
        raise InputError(f"setting {setting!r}: states no name; state names, [a, b], or a text file, or null for none")
    if not (value.startswith("[") and value.endswith("]")):
        return f"{key}={_quoted(value)}"
    inside = value[1:-1].strip()
    elements = [match[1] for match in _ELEMENT.finditer(f"{inside},")][:-1] if inside else []
    if "" in elements:
        raise InputError(f"setting {setting!r}: states an empty name; remove a comma")
    return f"{key}=[{','.join(map(_quoted, elements))}]"


def _quoted(name: str) -> str:
    whole = _ELEMENT.fullmatch(name)
    if whole and whole[1][:1] in ("'", '"') and whole[1][:1] == whole[1][-1:] and len(whole[1]) > 1:
        return name
    return QuotedString(name, Quote.single).with_quotes()


def _read(config: DictConfig, root: str | Path) -> Cohort:
    config = config.copy()
    # as text, a folder called "${x}" would be looked up
    config.root = Path(root) if str(root).strip() else ""
    cohort = make(config)
    assert isinstance(cohort, Cohort)
    if cohort.spacing_rule not in get_args(SpacingRule):
        rules = ", ".join(get_args(SpacingRule))
        raise InputError(f"data.spacing_rule={cohort.spacing_rule}: must be one of {rules}")
    return cohort


def _refuse_unknown(source: str) -> None:
    known = sources()
    if source == _WRITES:
        raise InputError(f"source {source!r}: it writes its cases (whqa data phantom); they are read as source mmwhs")
    if source not in known:
        near = difflib.get_close_matches(source.lower(), known, n=1, cutoff=0.5)
        raise InputError(
            f"no source {source!r}{f'; did you mean {near[0]!r}?' if near else '.'} There are {', '.join(known)}"
        )
