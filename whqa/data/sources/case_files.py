"""What the readers of all sources share: files go to their cases, whatever does not fit becomes a line that names it.

files = CaseFiles(list_files(existing_folder(root, EXPECTED)), EXPECTED)
for path in files.listing.files.values():
    files.add("image", "case1", path)
files.tell_unpaired()
return files.cohort(files.cases("ct"), name, scheme, spacing_rule, without)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from whqa.data.case import Case, Cohort, Modality, Problem
from whqa.data.formats.file_names import is_volume, stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.choice import Names, leave_out
from whqa.data.sources.listing import Listing, same_file
from whqa.errors import InputError
from whqa.structures import LabelScheme


class CaseFiles:
    """Images and labels of a data set by case, as its reader meets them.

    Attributes:
        folder: of the data set.
        listing: the files below it.
        images: case -> path.
        labels: case -> path.
        problems: lines about what is missing or superfluous, see `whqa.data.case.Problem`.
        passed_over: volumes that the layout has for something else, and those that a problem names.
    """

    def __init__(self, listing: Listing, expected: str) -> None:
        """No case yet; `expected` is what the folder should look like."""
        self.folder, self.listing, self.expected = listing.root, listing, expected
        self.images: dict[str, Path] = {}
        self.labels: dict[str, Path] = {}
        self.problems: list[str] = list(self.listing.problems)
        self.passed_over: set[Path] = set()

    def tell(self, line: str, *cases: str) -> None:
        """Add a problem of these cases."""
        self.problems.append(Problem(line, *cases))

    def add(self, what: str, case: str, path: Path) -> None:
        """Add an "image" or a "label" to its case; a second one is a problem, unless it is a link to the first."""
        first = {"image": self.images, "label": self.labels}[what.lower()].setdefault(case, path)
        if first != path:
            self.passed_over.add(path)
        if not same_file(first, path):
            self.tell(f"{path}: the same case is also at {first}; remove or rename one of them", case)

    def add_described(self, where: str, case: str, image: Path, label: Path | None) -> None:
        """Add the files that entry `where` of a description states; those that are missing are problems."""
        missing = [path for path in (image, label) if path and not os.path.isfile(path)]
        for path in missing:
            self.tell(f"{where}: {path} is missing; add it or remove the entry", case)
        if case in self.images:
            self.tell(f"{where}: the same case is also at {self.images[case]}; remove or rename one of them", case)
        elif image not in missing:
            self.images[case] = image
            if label and label not in missing:
                self.labels[case] = label

    def pass_over_other_channels(self) -> None:
        """Pass over nnU-Net's `case_0001` beside a `case_0000` or whichever channel is the image of the case."""
        for path in self.listing.files.values():
            match = re.fullmatch(r"(.+)_\d{4}", stem(path.name))
            if match and match[1] in self.images:
                self.passed_over.add(path)

    def tell_unpaired(
        self,
        needs_label: Callable[[str], bool] = lambda case: True,
        where: str = "",
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Tell of labels without an image, and of images without a label.

        Args:
            needs_label: whether a case must have one.
            where: where the partner was looked for, for the message.
            names: case -> how its files' names begin; None: with the case.
        """
        names = names or {}
        for case in sorted(self.labels.keys() - self.images.keys()):
            name = f"{names.get(case, case)}_image.nii.gz"
            self.tell(f"{self.labels[case]}: image {name} is missing{where}; add it or remove the label", case)
        for case in sorted(filter(needs_label, self.images.keys() - self.labels.keys())):
            name = f"{names.get(case, case)}_label.nii.gz"
            self.tell(f"{self.images[case]}: label file {name} is missing{where}; add it or remove the image", case)

    def cases(
        self, modality: Modality | Callable[[str], Modality], patient_of: Callable[[str], str] = str
    ) -> list[Case]:
        """The cases that have an image, by name; `modality` and `patient_of` may go by the case's name."""
        return [
            Case(
                case,
                patient_of(case),
                modality(case) if callable(modality) else modality,
                image,
                self.labels.get(case),
            )
            for case, image in sorted(self.images.items())
        ]

    def cohort(
        self,
        cases: Iterable[Case],
        name: str,
        scheme: LabelScheme,
        spacing_rule: SpacingRule,
        without: Names | None,
        *,
        what: str = "images",
        among: str = "",
    ) -> Cohort:
        """The cohort with all problems, and with the volumes that belong to no case.

        Args:
            cases: of the cohort.
            name: of the cohort.
            scheme: of its label maps.
            spacing_rule: what holds where a header's pixdim and affine disagree.
            without: names of cases to leave out, see `leave_out`.
            what: the folder holds none of, for the message.
            among: regular expression of the files that should belong to a case, as `Listing.files` has them.

        Raises:
            InputError: there are no cases, or as `leave_out`.
        """
        found = tuple(cases)
        if not found:
            line = f"{self.folder}: no {what} found; it should be {self.expected}"
            raise InputError(self.problems[0] if self.problems else line)
        known = self.passed_over.union(self.images.values(), self.labels.values(), *(case.files for case in found))
        unused = (
            path
            for inside, path in self.listing.files.items()
            if is_volume(path.name) and path not in known and re.match(among, inside)
        )
        cohort = Cohort(name, found, scheme, spacing_rule, tuple(self.problems), tuple(unused))
        return leave_out(cohort, without)
