"""Options from a file: TOML, with the long names of the options, without dashes, as keys.

    neighbors = 50          # for every command that has the option

    [cluster]               # for this one alone; it wins over the lines above
    preference = -50.0
    output = "out/night"

The command line wins over the file.
"""

from __future__ import annotations

import argparse
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ap_spark.errors import SettingError
from ap_spark.options import Parser
from ap_spark.settings import Checked, option, parameters
from ap_spark.wording import did_you_mean

__all__ = ["apply_file", "format_given", "format_origin"]

_FROM_FILE = "from_file"  # in the namespace: what the file says, by the names of parameters


def apply_file(path: str, command: str, commands: Mapping[str, Parser]) -> None:
    """Make what a file says the defaults of a command's parser.

    Parameters
    ----------
    path : str
        A file of this machine.
    command : str
        The command that is to be parsed.
    commands : mapping
        The parsers of all commands. A key is unknown if no command has such an option, or the command of its table has
        none.

    Raises
    ------
    SettingError
        If the file cannot be read, is no TOML, has an unknown key, or a value that the option does not take.
    """
    content = _read(path)
    tables, for_all = {}, {}
    for name, value in content.items():
        if isinstance(value, dict) and not any(_action(parser, name) for parser in commands.values()):
            if name not in commands:
                raise SettingError(f"{path}: there is no command {name!r}{did_you_mean(name, commands)} for [{name}]")
            for key in value:
                _require_option(f"{path}, [{name}]", key, [commands[name]])
            tables[name] = value
        else:
            _require_option(path, name, list(commands.values()))
            for_all[name] = value
    parser = commands[command]
    ours = {key: value for key, value in for_all.items() if _action(parser, key)} | tables.get(command, {})
    values = dict(_value(path, parser, key, value) for key, value in ours.items())
    for action in parser._actions:
        if action.dest in values:
            action.required = False
    parser.set_defaults(**values, **{_FROM_FILE: values})


def format_given(given: argparse.Namespace, groups: Iterable[type[Checked]]) -> str:
    """Return the options of some groups that are not as by default, and which of them the file says.

    >>> from ap_spark.settings import Snapshots
    >>> given = argparse.Namespace(config="a.toml", from_file={"resume": False}, checkpoint="b", resume=False)
    >>> format_given(argparse.Namespace(**vars(given), checkpoint_every="10min"), [Snapshots])
    '--checkpoint b, --no-resume (a.toml)'
    """
    said = getattr(given, _FROM_FILE, {})
    found = []
    for group in groups:
        for declared, kind in parameters(group):
            name = declared.name
            value = getattr(given, name, declared.default)  # a command may not have the option
            if value != declared.default:
                shown = option(declared) + ("" if kind is bool else f" {shlex.quote(str(value))}")
                found.append(shown + f" ({given.config})" * (name in said and said[name] == value))
    return ", ".join(found) or "all by default"


def format_origin(message: str, given: argparse.Namespace) -> str:
    """Say which of the options that a message names are those of the file; nothing if none is.

    >>> given = argparse.Namespace(config="night.toml", damping=2.0, from_file={"damping": 2.0})
    >>> format_origin("--damping must be in [0.5, 1), got 2.0", given)
    ' (night.toml says damping)'
    """
    said = getattr(given, _FROM_FILE, {})
    words = message.replace(",", " ").split()
    names = [name.replace("_", "-") for name, value in said.items() if getattr(given, name) == value]
    named = [name for name in names if f"--{name}" in words or f"--no-{name}" in words]
    return f" ({given.config} says {', '.join(named)})" if named else ""


def _read(path: str) -> dict[str, Any]:
    """Return the content of a TOML file."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"--config must name a file that can be read, but {path}: {error.strerror}") from error
    except ValueError as error:  # TOML's own, or of the encoding
        raise SettingError(f"--config must name a TOML file, but {path} is none: {error}") from error


def _action(parser: Parser, key: str) -> argparse.Action | None:
    """Return what an option of a parser does, by its long name without dashes; None if there is none."""
    return parser._option_string_actions.get(f"--{key}") if key not in ("help", "config") else None


def _require_option(where: str, key: str, parsers: list[Parser]) -> None:
    """Raise SettingError unless one of the parsers has an option of this name."""
    if not any(_action(parser, key) for parser in parsers):
        hint = next(filter(None, (parser.hint(f"--{key}") for parser in parsers)), "").replace("'--", "'")
        raise SettingError(f"{where}: there is no option {key!r}{hint}")


def _value(path: str, parser: Parser, key: str, given: Any) -> tuple[str, Any]:
    """Return the name of a parameter and its value, checked as the command line checks it.

    Raises
    ------
    SettingError
        If the value has another type than the option, or is none of its choices.
    """
    action = _action(parser, key)
    assert action is not None
    if action.nargs == 0:  # --X and --no-X
        if not isinstance(given, bool):
            raise SettingError(f"{path}: {key} must be true or false, got {given!r}")
        return action.dest, given != key.startswith("no-")
    if isinstance(action.default, list):
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise SettingError(f"{path}: {key} must be a list of strings")  # a value may be a secret
        return action.dest, given
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        kind = {bool: "true or false", list: "a list", dict: "a table"}.get(type(given), type(given).__name__)
        raise SettingError(f"{path}: {key} must be a number or a string, got {kind}")
    try:
        value = parser._get_value(action, str(given))
        parser._check_value(action, value)
    except argparse.ArgumentError as error:
        raise SettingError(f"{path}: {key}: {error.message}{parser.choice_meant(f'--{key}', str(given))}") from error
    return action.dest, value
