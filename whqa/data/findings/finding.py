"""One thing that is wrong, odd or worth knowing, and the order in which people want to read such things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from whqa.errors import InputError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        severity: "error": the case cannot be used, or results would be wrong. "warning": look at it before use.
            "note": good to know.
        code: what kind, stable, e.g. "missing-structure".
        message: one line that says what is found and what to do.
        case: id of the case, or None where it concerns the folder.
    """

    severity: Severity
    code: str
    message: str
    case: str | None = None

    @classmethod
    def of_error(cls, error: Exception, case: str | None) -> Finding:
        """A file that cannot be read, or read as what it should be."""
        if isinstance(error, InputError):
            return cls("error", error.code or "unreadable", str(error), case)
        text = " ".join(str(error).split())
        return cls("error", "failed", f"{type(error).__name__}: {text}" if text else type(error).__name__, case)


class Group(NamedTuple):
    """Findings of one kind: `cases` of them are named at all; `shared` where most cases of the cohort have it."""

    findings: list[Finding]
    cases: int
    shared: bool


def grouped(findings: Iterable[Finding], n_cases: int) -> list[Group]:
    """Findings by kind, the severest kinds first; the order within a kind is kept.

    A kind is shared where it holds for at least half of the cases, and for three or more.
    """
    kinds: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.code), []).append(finding)
    groups = []
    for kind in sorted(kinds, key=lambda k: SEVERITIES.index(k[0])):
        cases = len({f.case for f in kinds[kind] if f.case is not None})
        groups.append(Group(kinds[kind], cases, cases >= max(3, n_cases / 2)))
    return groups


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings of each severity there are, the severest first."""
    found = Counter(f.severity for f in findings)
    return {severity: found[severity] for severity in SEVERITIES}
