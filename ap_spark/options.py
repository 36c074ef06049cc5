"""The options of the command, made from the declared parameters (`settings.py`)."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, asdict
from typing import Any, NoReturn

from ap_spark.errors import SettingError
from ap_spark.foreign_names import OURS
from ap_spark.settings import (
    GROUPS,
    Animation,
    Checked,
    Input,
    NewPoints,
    PointsInput,
    Settings,
    Similarity,
    TablesOutput,
    choice_meant,
    is_required,
    option,
    parameters,
)
from ap_spark.wording import did_you_mean

__all__ = ["Parser", "add_options", "check_new_points", "check_together", "record", "with_options"]

_INPUT = ": the input is named without an option"
_FOREIGN = {  # options of other programs that are none of ours by another name (`OURS`)
    "-f": _INPUT,
    "--file": _INPUT,
    "--input": _INPUT,
    "--data": _INPUT,
    "-o": ": --output DIR",
    "-k": ": --clusters K searches for a number of clusters",
    "-s": ": --edges says that INPUT holds similarities",
    "--similarities": ": --edges says that INPUT holds similarities",
    "--affinity": ": --metric names one, and --edges says that INPUT holds similarities",
    "-m": ": --master 'local[4]' takes 4 cores",
    "--multiprocessing": ": --master 'local[4]' takes 4 cores",
}


def _declared() -> Iterator[Field[Any]]:
    """Yield all parameters that are options of a command."""
    for group in (*GROUPS.values(), NewPoints, Animation):
        for declared, _ in parameters(group):
            yield declared


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, without the usage; unknown options first of all."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown at once: argparse would first say what else is missing."""
        given = sys.argv[1:] if args is None else list(args)
        options = given[: given.index("--")] if "--" in given else given
        unknown = [] if self._subparsers or {"-h", "--help"} & set(options) else list(filter(self._is_unknown, options))
        if unknown:
            names = dict.fromkeys(one.partition("=")[0] for one in unknown)
            what = "unknown option" if len(names) == 1 else "unknown options"
            self.error(f"{what} {', '.join(name + self.hint(name) for name in names)}")
        found, rest = super().parse_known_args(given, namespace)
        if rest and not self._subparsers:
            self.error(f"unrecognized arguments: {' '.join(rest)}: give all of INPUT together")
        return found, rest

    def _is_unknown(self, argument: str) -> bool:
        """Return whether an argument is an option, and none of ours."""
        if not re.match(r"--\w|-[A-Za-z]", argument) or " " in argument.partition("=")[0]:
            return False
        known = self._option_string_actions
        return argument.partition("=")[0] not in known and (argument.startswith("--") or argument[:2] not in known)

    def hint(self, name: str) -> str:
        """Say which option may have been meant; nothing if that is not known."""
        if name in _FOREIGN:
            return _FOREIGN[name]
        word = name.lstrip("-").replace("_", "-")
        ours = OURS.get(word.replace("-", "_"), word).replace("_", "-")
        known = {one.lstrip("-"): one for one in self._option_string_actions if one.startswith("--")}
        longer = [one for one in known if one.startswith(ours)] if len(ours) > 2 else []
        if ours not in known and len(longer) == 1:
            (ours,) = longer
        if ours in known:
            return f" (did you mean {known[ours]!r}?)"
        return re.sub("'(.*)'", lambda close: repr(known[close[1]]), did_you_mean(ours, known))

    @property
    def commands(self) -> dict[str, Parser]:
        """The parsers of the commands by name, where this is the parser that they are added to."""
        return dict(self._subparsers._group_actions[0].choices or {}) if self._subparsers else {}

    def error(self, message: str) -> NoReturn:
        if wrong := re.match(r"argument ([^ /:]+).*?: invalid choice: '(.*?)'", message):
            message += self.choice_meant(*wrong.groups())
        self.exit(2, f"ap-spark: {message} (see {self.prog} --help)\n")

    def choice_meant(self, name: str, given: str) -> str:
        """Say which choice of an option or argument, or which command, may have been meant."""
        if option := self._option_string_actions.get(name):
            return choice_meant(next(one for one in _declared() if one.name == option.dest), given)
        if self.commands and os.path.exists(given):
            return f": the command comes first: {self.prog} {next(iter(self.commands))} {given}"
        return did_you_mean(given, next((one.choices or () for one in self._actions if one.metavar == name), ()))


def add_options(to: argparse._ArgumentGroup, group: type[Checked]) -> None:
    """Add an option for each parameter of a record."""
    for declared, kind in parameters(group):
        about = declared.metadata
        names = [option(declared)] + ([f"-{about['short']}"] if about["short"] else [])
        text = about["help"].replace("%", "%%")
        if about["rule"] and not about["choices"]:
            text += f" ({about['rule']})"
        keywords: dict[str, Any] = {"dest": declared.name, "help": text, "default": declared.default}
        if kind is bool:
            keywords["action"] = "store_true"
            if declared.default is True:  # --X is what happens anyhow
                keywords |= {"action": argparse.BooleanOptionalAction, "help": f"{names[0]}: {text}"}
                names[0] = names[0].replace("--no-", "--")
            elif declared.default is None:
                keywords["action"] = argparse.BooleanOptionalAction
        elif kind in (int, float, str):
            keywords |= {
                "type": _number_or(about["none"], kind) if about["none"] else kind,
                "choices": about["choices"] or None,
                "metavar": about["metavar"] or (None if about["choices"] else {int: "N", float: "X"}.get(kind)),
            }
            if isinstance(declared.default, kind):
                keywords["help"] += f" [{declared.default}]"
        else:
            keywords |= {"action": "append", "metavar": about["metavar"], "default": []}
        if is_required(declared):
            keywords |= {"required": True, "default": None}
        to.add_argument(*names, **keywords)
        if keywords.get("action") == "store_true":  # takes back what a file of --config says
            opposite = names[0].replace("--", "--no-", 1)
            to.add_argument(opposite, dest=declared.name, action="store_false", default=False, help=argparse.SUPPRESS)


def _number_or(none: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a type for argparse: a number of a kind, or None under its own word."""

    def number(text: str) -> Any:
        return None if text == none else kind(text)

    number.__name__ = f"number or {none!r}"  # argparse shows it
    return number


def record(group: type[Checked], given: argparse.Namespace) -> Any:
    """Return the checked record of one group of options."""
    return group(**{declared.name: getattr(given, declared.name) for declared, _ in parameters(group)})


def with_options(message: str) -> str:
    """Return a message about parameters with the names that they have as options.

    >>> with_options("max_iter must be at least 1, got 0")
    '--max-iter must be at least 1, got 0'
    >>> with_options("give either preference or preference_quantile, not both")
    'give either --preference or --preference-quantile, not both'
    """
    names = {declared.name: option(declared) for declared in _declared()}
    alone = "|".join(names)
    long = "|".join(name for name in names if "_" in name)
    pattern = rf"^({alone})(?= must | belongs )|(?:(?<=give either )|(?<= or ))({alone})(?=,? (?:or|not) |, not)"
    pattern += r"|(?<= or )(preference|clusters)(?=,|$)"
    pattern += rf"|(?<![\w'\"/.-])({long})(?![\w'\"/.=-])"
    return re.sub(pattern, lambda found: names[found[0]], message)


def check_new_points(chosen: NewPoints, output: TablesOutput, source: PointsInput, paths: Sequence[str]) -> None:
    """Refuse options of new points that exclude each other."""
    if not chosen.stream:
        given = [name for name in ("checkpoint", "every", "once") if getattr(chosen, name) != getattr(NewPoints, name)]
        if given:
            raise SettingError(f"--{given[0]} is for streams: give --stream too")
        return
    if chosen.checkpoint is None:
        raise SettingError("--stream needs --checkpoint DIR, where Spark keeps what is done")
    if output.single_file or output.if_exists != TablesOutput.if_exists:
        raise SettingError("--stream adds to its output, so leave out --single-file, --overwrite and --if-exists")
    if len(paths) != 1:
        raise SettingError(f"--stream takes one directory as INPUT, got {len(paths)} paths")
    if source.id_column == "":
        raise SettingError(
            "--stream needs ids, since rows are numbered in each file anew: name a column, --id-column NAME"
        )


def check_together(settings: Settings, source: Input, similarity: Similarity) -> None:
    """Refuse options that exclude each other."""
    if source.edges:
        given = [name for name in ("feature_columns", "drop_missing") if getattr(source, name) != getattr(Input, name)]
        usual = asdict(Similarity())
        given += [name for name, value in asdict(similarity).items() if value != usual[name]]
        if given:
            raise SettingError(f"with --edges there are no features, so leave out --{given[0].replace('_', '-')}")
        if not source.points and (source.id_column or source.preference_column):
            raise SettingError(
                "with --edges, --id-column and --preference-column name columns of --points: give it too"
            )
    elif source.points:
        raise SettingError("--points goes with --edges: without it, INPUT itself holds the points")
    if similarity.neighbors is None and similarity.search != Similarity.search:
        raise SettingError("--search says how the neighbours of --neighbors N are found: give it too")
    if similarity.recall != Similarity.recall and (similarity.neighbors is None or similarity.search == "exact"):
        raise SettingError("--recall is for the approximate search of --neighbors N: the exact one finds all")
    if source.preference_column and settings.has_preference:
        raise SettingError(
            "give the preference in one way: --preference, --preference-quantile, --clusters, --cluster-size or "
            "--preference-column"
        )
