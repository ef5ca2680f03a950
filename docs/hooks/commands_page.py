"""The reference of the command line, from the parsers that read it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from page_table import code, table

from whqa.cli.commands import command_parser
from whqa.config.settings_help import EXIT_CODES, train_help

_INTRO = f"""\
# Commands

Made from the parsers of whqa itself. Of every command, `--help` says the same.

{EXIT_CODES[0].upper()}{EXIT_CODES[1:]}. One line on standard error says what and where.
"""


def commands_page() -> str:
    """The page."""
    return "\n".join([_INTRO, *_commands(command_parser(), "whqa")]) + "\n"


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        said = {one.dest: one.help or "" for one in action._choices_actions}
        for word, command in action.choices.items():
            yield from _command(command, f"{name} {word}", said[word])
            yield from _commands(command, f"{name} {word}")


def _command(parser: argparse.ArgumentParser, name: str, said: str) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{said[0].upper()}{said[1:]}.\n"
    if name == "whqa train":
        # Hydra reads its words, no parser of ours
        usage = train_help().partition("\n\nsettings are")[0]
        yield f"```text\n{usage}\n```\n\nIts settings: [settings](settings.md).\n"
        return
    rows = [
        (code(_words(action)), _help(action), "" if action.required else _default(action))
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    if rows:
        columns = 3 if any(default for _, _, default in rows) else 2
        yield "\n".join(table(("argument", "meaning", "default")[:columns], [row[:columns] for row in rows])) + "\n"
    if parser.get_default("takes_settings"):
        yield "All settings, with defaults: [settings](settings.md).\n"
    if parser.epilog:
        text, _, example = parser.epilog.partition("Example: ")
        yield f"{text[:1].upper()}{text[1:].strip()}\n" if text.strip() else ""
        yield f"```sh\n{example % {'prog': name} if '%' in example else example}\n```\n" if example else ""


def _words(action: argparse.Action) -> str:
    takes = "" if action.nargs == 0 else str(action.metavar or (action.dest if not action.option_strings else ""))
    if action.choices is not None:
        takes = "{" + ",".join(map(str, action.choices)) + "}"
    elif action.option_strings and action.nargs != 0 and not takes:
        takes = action.dest.upper()
    words = f"{', '.join(action.option_strings)} {takes}".strip()
    return f"[{words}]" if action.nargs == "?" else f"{words} ..." if action.nargs == "+" else words


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _default(action: argparse.Action) -> str:
    # a help that tells the default in words tells more
    plain = action.default is None or isinstance(action.default, bool) or "default" in (action.help or "")
    return "" if plain or action.default is argparse.SUPPRESS else code(str(action.default))
