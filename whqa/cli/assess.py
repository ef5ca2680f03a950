"""`whqa assess`: a thin wrapper around `whqa.assessment`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whqa.errors import InputError
from whqa.files import printable

if TYPE_CHECKING:
    from whqa.assessment.batch_case import AssessOptions, BatchCase
    from whqa.assessment.model import TrainedRun
    from whqa.assessment.pairs import Pairs
    from whqa.parallel.beside import Start
    from whqa.results.correction_time import CorrectionTime

NO_MODEL = (
    "no --model: `make demo` trains one on built-in phantoms (then --model runs/demo); on your own scans, "
    "`whqa data check DIR` says whether they are read rightly and `whqa cv experiment=mmwhs_ct data=folder "
    "data.root=DIR name=mine` trains runs/mine (see README)"
)
# Decision -> the decisions at which `--fail-on` ends with the exit code.
FAIL_ON = {"reject": ("reject",), "review": ("review", "reject")}
EXIT_DECISION = 3
_NAMED = 5


def add_assess_command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; sets `run(options, overrides) -> exit code`."""
    parser.add_argument(
        "image",
        metavar="IMAGE",
        type=Path,
        nargs="?",
        help="a scan, the folder (or zip) of a DICOM series, a folder of scans, or a CSV table of pairs",
    )
    parser.add_argument(
        "mask",
        metavar="MASK",
        type=Path,
        nargs="?",
        help="its mask (NIfTI, NRRD, DICOM SEG, RTSTRUCT), a folder of its structure files, or the folder of the masks",
    )
    parser.add_argument(
        "--model", type=Path, metavar="RUN", help="a trained run, e.g. runs/demo, or a file of `whqa export`"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--fold", type=int, action="append", metavar="K", help="this fold's network (default: all)")
    _add_reading(parser)
    parser.add_argument("--confidence", type=float, default=0.9, help="of the intervals (default 0.9)")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="LABEL",
        help="its true label map, in the values of the mask: print what was said beside it",
    )
    _add_output_options(parser)
    parser.epilog = (
        "a table has the columns image and mask, and name, modality and probabilities if you like; files in two "
        "folders are matched by name; a second call goes on where the first one stopped. "
        "Example: whqa assess scan.nii.gz mask.nii.gz --model runs/demo -o out"
    )
    parser.set_defaults(run=_assess)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """How image and mask are read."""
    parser.add_argument(
        "--label-map",
        metavar="MAP",
        help="label values of the mask: a scheme of `whqa info`, lv=1,myo=2+5,ignore=7, a JSON or YAML file with such "
        "pairs, or nnU-Net's dataset.json (default: by the names in its file, else those of the run)",
    )
    parser.add_argument(
        "--probabilities",
        type=Path,
        metavar="PATH",
        help="softmax of the program that a run without segmenters learned with: nnU-Net's .npz, or the folder of "
        "them, matched by name",
    )
    parser.add_argument("--resample", action="store_true", help="bring a mask of another grid to the image's (nearest)")
    parser.add_argument(
        "--orientation",
        metavar="AXES",
        help="sides that the arrays' axes point to, e.g. LPS, of files whose header does not know them",
    )
    parser.add_argument(
        "--series", metavar="S", help="number or UID of the DICOM series that is meant, where IMAGE holds several"
    )
    parser.add_argument("--modality", choices=("ct", "mr"), help="of the images; needed where the run knows both")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preview", metavar="PNG", help="also one picture of this name in DIR")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="cases of a batch side by side, of one thread each (default: all CPUs)"
    )
    parser.add_argument(
        "--minutes",
        metavar="MODEL",
        help="that a correction takes, for the worklist: case=1,piece=0.5,ml=0.5 is 1 for a case, 0.5 for each piece "
        "and each ml that is more probably wrong than right (the default, an assumption)",
    )
    parser.add_argument(
        "--fail-on",
        choices=FAIL_ON,
        help="exit with 3 where a mask is rejected (reject), or not accepted (review); for pipelines",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("BEFORE", "AFTER"),
        help="folders of two earlier calls: what got better where masks were corrected; no IMAGE, MASK or --model; "
        "with -o also comparison.json and comparison.html",
    )
    parser.add_argument("--json", action="store_true", help="of --compare: for machines")
    parser.add_argument("--no-report", dest="report", action="store_false", help="no report.html")


def _assess(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.compare is not None:
        from whqa.cli.assess_compare import run_comparison

        return run_comparison(options, _usual())
    _check_given(options)
    if options.model is None:
        raise InputError(NO_MODEL)
    if not 0.5 <= options.confidence <= 0.999:
        raise InputError(f"--confidence {options.confidence:g}: must be between 0.5 and 0.999")
    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: must be at least 1")
    from whqa.results.correction_time import correction_time

    time = correction_time(options.minutes)
    preview = _preview(options.preview)
    pairs = _pairs(options)
    from whqa.assessment.label_map import parse_label_map
    from whqa.assessment.model_file import read_metadata
    from whqa.assessment.placing import stated_axes
    from whqa.results.run_folds import folds_of_model

    scheme = None if options.label_map is None else parse_label_map(options.label_map)
    axes = stated_axes(options.orientation)
    model_path = options.model.expanduser()
    read_metadata(model_path) if model_path.is_file() else folds_of_model(model_path)
    with _drawing_beside(options.report and pairs is None) as start:
        # after the words of the command line are checked: these imports take seconds
        from whqa.assessment.batch_case import AssessOptions
        from whqa.assessment.model import load_run

        settings = AssessOptions(
            options.modality,
            scheme,
            options.confidence,
            options.report,
            preview,
            options.resample,
            axes,
            options.series,
        )
        model = load_run(model_path, options.fold)
        _check_told(options, pairs, model)
        _check_reference(options, pairs)
        if pairs is None:
            return _assess_one(options, model, settings, start)
    return _assess_many(options, pairs, model, settings, time)


def _drawing_beside(wanted: bool) -> AbstractContextManager[Start]:
    """Where a report is drawn while the rest is written; cases of a batch share the CPUs already."""
    from whqa.parallel.beside import process_beside
    from whqa.report.pictures import prepare

    return process_beside(prepare) if wanted else nullcontext(partial)


def _usual() -> dict[str, Any]:
    """What the options are where they are not given."""
    parser = argparse.ArgumentParser()
    add_assess_command(parser)
    return vars(parser.parse_args([]))


def _check_reference(options: argparse.Namespace, pairs: Pairs | None) -> None:
    path = options.reference
    if path is not None and not path.exists():
        raise InputError(f"{path}: no such file; give the label map of {options.image}, or no --reference")
    if path is not None and pairs is not None:
        raise InputError(f"--reference {path}: is the truth of one mask; IMAGE and MASK are folders or a table")


def _check_given(options: argparse.Namespace) -> None:
    """What only a comparison does without, or takes."""
    if options.json:
        raise InputError("--json: is of --compare; quality.json in -o holds every number of an assessment")
    if options.image is None:
        raise InputError("IMAGE is missing: whqa assess scan.nii.gz mask.nii.gz --model runs/demo -o out")
    if options.out is None:
        raise InputError("-o is missing: add -o out, the folder of the results")


def _check_told(options: argparse.Namespace, pairs: Pairs | None, model: TrainedRun) -> None:
    """Whether the run takes or lacks probabilities, before a case is read."""
    from whqa.assessment.told_opinion import check_told

    of_pairs = () if pairs is None else (pair.probabilities for pair in pairs.found)
    check_told(model, options.probabilities or next(filter(None, of_pairs), None))


def _preview(name: str | None) -> str | None:
    """A file name below -o: nothing is written elsewhere."""
    if name is None:
        return None
    if Path(name).name != name or not name.lower().endswith(".png"):
        raise InputError(
            f"--preview {name}: must be a file name such as preview.png; the picture lies in the folder -o"
        )
    return name


def _pairs(options: argparse.Namespace) -> Pairs | None:
    """Of folders or of a table; None for a single image."""
    from whqa.files import is_text

    image, mask = options.image, options.mask
    for path in filter(None, (image, mask, options.probabilities)):
        if not is_text(path):
            raise InputError(f"{str(path)!a}: the name is no text (UTF-8), so that no result could tell it; rename it")
    if not image.exists():
        raise InputError(f"{image}: no such file or folder")
    from whqa.assessment.pairs import is_one_case, pairs_of_folders, pairs_of_table, with_probabilities

    def told(pairs: Pairs) -> Pairs:
        return pairs if options.probabilities is None else with_probabilities(pairs, options.probabilities)

    if mask is None:
        if image.suffix.lower() != ".csv":
            raise InputError(f"{image}: MASK is missing; only a CSV table of pairs stands alone")
        return told(pairs_of_table(image))
    if not mask.exists():
        raise InputError(f"{mask}: no such file or folder")
    one = is_one_case(image, mask)
    if image.is_dir() and not one and not mask.is_dir():
        from whqa.data.formats.volume_files import describe_foreign

        raise InputError(f"{image}: not a volume but {describe_foreign(image)}")
    if not one:
        return told(pairs_of_folders(image, mask))
    if options.probabilities is not None and not options.probabilities.is_file():
        raise InputError(f"{options.probabilities}: no such file; give the probabilities of {image}")
    return None


def _assess_one(options: argparse.Namespace, model: TrainedRun, settings: AssessOptions, start: Start) -> int:
    from whqa.assessment.against_truth import read_truth, said_and_true
    from whqa.assessment.input_places import InputFile
    from whqa.assessment.output_folder import QUALITY, REPORT, clear, new_folder, refuse_losing
    from whqa.assessment.pipeline import assess
    from whqa.assessment.writing import write_assessment

    out = options.out
    settings = replace(settings, dicom=InputFile(options.image).is_dicom)
    label_map = None if options.label_map is None else Path(options.label_map)
    given = (options.image, options.mask, options.probabilities, options.reference, label_map)
    refuse_losing(out, settings.outputs, given)
    truth = None
    if options.reference is not None:
        truth = read_truth(options.reference, settings.label_map, model.scheme)
    with new_folder(out):
        assessment = assess(
            options.image,
            options.mask,
            model,
            **settings.of_one_case,
            probabilities=options.probabilities,
        )
        preview = out / settings.preview if settings.preview else None
        # only now: a call that fails leaves what an earlier one wrote
        clear(out, settings.outputs)
        write_assessment(assessment, out, report=settings.report, preview=preview, start=start)
    quality = assessment.quality
    print(_line(assessment.name, quality))
    told = [*quality["verdict"]["reasons"], *(f"unfamiliar: {s['message']}" for s in quality["out_of_distribution"])]
    told += [f"warning: {w}" for w in quality["warnings"] if w not in quality["verdict"]["reasons"]]
    for line in told:
        print(f"  {printable(line)}")
    if truth is not None:
        print(said_and_true(assessment, truth))
    print(out / (REPORT if settings.report else QUALITY))
    return exit_code(options.fail_on, [(assessment.name, quality)])


def _assess_many(
    options: argparse.Namespace, pairs: Pairs, model: TrainedRun, settings: AssessOptions, time: CorrectionTime
) -> int:
    from whqa.assessment.batch import assess_many, usual_jobs
    from whqa.assessment.output_folder import INDEX, TABLE, WORKLIST, refuse_overwriting

    refuse_overwriting((options.out / name for name in (TABLE, WORKLIST, INDEX)), (options.image,))
    cases = assess_many(pairs, model, options.out, settings, jobs=options.jobs or usual_jobs(), time=time)
    for case in cases:
        if case.quality is not None:
            print(_line(case.name, case.quality))
    print(_counts(cases))
    print(options.out / INDEX)
    code = exit_code(options.fail_on, [(case.name, case.quality) for case in cases if case.quality is not None])
    return 1 if any(case.error for case in cases) else code


def exit_code(fail_on: str | None, judged: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """3 where a mask got a decision that `--fail-on` names, with one line on standard error; else 0.

    Args:
        fail_on: a key of `FAIL_ON`, or None.
        judged: name and quality.json of each mask; names may come twice.
    """
    failing = FAIL_ON[fail_on] if fail_on else ()
    names = [name for name, quality in judged if quality["verdict"]["decision"] in failing]
    if not names:
        return 0
    told = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    line = f"whqa assess: --fail-on {fail_on}: {len(names)} of {len(judged)} mask(s): {told}"
    print(printable(line), file=sys.stderr)
    return EXIT_DECISION


def _line(name: str, quality: Mapping[str, Any]) -> str:
    text = f"{name}: {quality['verdict']['decision']}, {_heart(quality['qi']['heart'])}"
    return printable(text)


def _heart(heart: Mapping[str, Any]) -> str:
    if heart["value"] is None:
        return f"no QI over the heart ({heart['reason']})"
    interval = heart["interval"]
    between = f"[{interval[0]:.3f}-{interval[1]:.3f}]" if interval else f"(no interval: {heart['reason']})"
    return f"QI over the heart {heart['value']:.3f} {between}"


def _counts(cases: Sequence[BatchCase]) -> str:
    decisions = [case.quality["verdict"]["decision"] for case in cases if case.quality is not None]
    words = [f"{decisions.count(d)} {d}" for d in ("accept", "review", "reject")]
    kept, failed = sum(case.kept for case in cases), sum(case.error is not None for case in cases)
    words += [f"{failed} failed"] if failed else []
    return f"{len(cases)} case(s): {', '.join(words)}" + (f"; {kept} kept from before" if kept else "")
