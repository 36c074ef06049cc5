"""The options of the command, made from the declared parameters (`settings.py`)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import Field, asdict
from typing import Any, NoReturn

from ap_spark.errors import SettingError
from ap_spark.settings import (
    Checked,
    Input,
    Output,
    Run,
    Settings,
    Similarity,
    Snapshots,
    is_required,
    option,
    parameters,
)
from ap_spark.wording import did_you_mean

__all__ = ["Parser", "add_options", "check_together", "record"]


def _declared() -> Iterator[Field[Any]]:
    """Yield all parameters that are options of a command."""
    for group in (Settings, Input, Similarity, Output, Snapshots, Run):
        for declared, _ in parameters(group):
            yield declared


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[^ =]+)|argument .*: invalid choice: '(.*?)'", message)
        if unknown and unknown[1]:
            message += did_you_mean(unknown[1], map(option, _declared()))
        elif unknown:
            message += did_you_mean(unknown[2], re.findall(r"[\w-]+", message.rpartition("(choose from ")[2]))
        self.exit(2, f"ap-spark: {message} (see {self.prog} --help)\n")


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
                "metavar": about["metavar"] or None,
            }
            if isinstance(declared.default, kind):
                keywords["help"] += f" [{declared.default}]"
        else:
            keywords |= {"action": "append", "metavar": about["metavar"], "default": []}
        if is_required(declared):
            keywords |= {"required": True, "default": None}
        to.add_argument(*names, **keywords)


def _number_or(none: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a type for argparse: a number of a kind, or None under its own word."""

    def number(text: str) -> Any:
        return None if text == none else kind(text)

    number.__name__ = f"number or {none!r}"  # argparse shows it
    return number


def record(group: type[Checked], given: argparse.Namespace) -> Any:
    """Return the checked record of one group of options."""
    return group(**{declared.name: getattr(given, declared.name) for declared, _ in parameters(group)})


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
            "give the preference in one way: --preference, --preference-quantile, --clusters or --preference-column"
        )
