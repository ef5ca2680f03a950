"""The one exception for everything that the user can put right."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: its text is one line that names the file or setting, what is wrong and what to do.

    The command line prints the text on standard error and exits with code 2.

    Args:
        message: the text; line breaks become spaces.
        code: what kind of fault it is, for programs, e.g. "grid-mismatch"; "" where nobody tells it from others.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.code = code
