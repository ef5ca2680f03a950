"""The one exception for everything that the user can put right."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: its text is one line that names the file or setting, what is wrong and what to do.

    The command line prints the text on standard error and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
