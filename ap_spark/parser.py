"""The command line: its commands, their options, their help with examples. None of this needs Spark."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from ap_spark.config_file import apply_file
from ap_spark.errors import SettingError
from ap_spark.options import Parser, add_options
from ap_spark.settings import (
    GROUPS,
    Animation,
    Checked,
    GraphOutput,
    NewPoints,
    Pictures,
    PointsInput,
    ReportOutput,
    Run,
    TablesOutput,
)
from ap_spark.version import __version__

__all__ = ["make_parser", "parse"]

_ABOUT = """\
Affinity propagation clustering on Apache Spark: it finds exemplars, real items that represent the others, and how many
of them there are."""

_FIRST_STEPS = """\
first steps, with some points to try them on:

  printf 'id,x,y\\na,1,1.2\\nb,1.5,2\\nc,2.1,1\\nd,8,8.3\\ne,8.4,9.1\\nf,9.2,8\\ng,1,9\\nh,2.2,9.4\\n' > points.csv

  how similar are they, and which preferences give few or many clusters?
    ap-spark graph points.csv

  what would a run read, do and write, and how long would it take?
    ap-spark cluster points.csv --output clusters --dry-run

  cluster them: assignments, exemplars, trace, quality and summary.json
    ap-spark cluster points.csv --output clusters

all options, with examples: ap-spark cluster --help"""

_CLUSTER_EXAMPLES = """\
examples (points.csv is that of ap-spark --help):

  fewer clusters by a smaller preference, in one file that a spreadsheet opens:
    ap-spark cluster points.csv -p -200 --output few --output-format csv --single-file
  so many clusters:
    ap-spark cluster points.csv --clusters 4 --output four
  more than a few thousand points: similarities to near neighbours alone
    ap-spark cluster points.csv --neighbors 2 --metric euclidean --output near
  similarities instead of points, each pair given once:
    printf 'left,right,score\\na,b,0.9\\nb,c,0.2\\nc,d,0.7\\n' > scores.csv
    ap-spark cluster scores.csv --edges --symmetrize union --output pairs
  every night: options from a file; a run that was killed resumes, one that is done is skipped
    printf '[cluster]\\nneighbors = 3\\ncheckpoint = "snapshots"\\n' > night.toml
    ap-spark cluster points.csv --config night.toml --output night --if-exists skip"""

_GRAPH_EXAMPLES = """\
examples (points.csv is that of ap-spark --help):

  degrees, components, and between which preferences the number of clusters changes:
    ap-spark graph points.csv --neighbors 3
  write the similarities, for programs of others:
    ap-spark graph points.csv --output similarities --output-format csv --single-file"""

_ASSIGN_EXAMPLES = """\
examples (clusters is the output of ap-spark --help):

  new points to the nearest of the exemplars that a run has found:
    printf 'id,x,y\\ng,2,2\\nh,50,50\\n' > new.csv
    ap-spark assign clusters new.csv --output assigned
  none that is farther away than 10:
    ap-spark assign clusters new.csv --min-similarity -100 --output near-ones --output-format csv"""

_REPORT_EXAMPLES = """\
examples (points.csv and clusters are those of ap-spark --help):

  a page of a result, with pictures of its points, which it finds by itself if they are where they were:
    ap-spark report clusters --output page
  the points from elsewhere, read with options of their own:
    ap-spark report clusters points.csv --id-column id --title 'Eight points' --output another-page

ap-spark cluster --report makes the page in the same run as the clusters."""

_ANIMATE_EXAMPLES = """\
examples (points.csv is that of ap-spark --help):

  how messages become exemplars, iteration by iteration:
    ap-spark animate points.csv --output messages.gif
  what the preference does:
    ap-spark animate points.csv --preference -20 --what preference --output preference.gif"""

_COMPLETION_EXAMPLES = """\
where to put it:

  bash: in ~/.bashrc
    eval "$(ap-spark completion bash)"
  zsh: in ~/.zshrc, after compinit
    eval "$(ap-spark completion zsh)"
  fish: once, and again after an update
    ap-spark completion fish > ~/.config/fish/completions/ap-spark.fish"""


@dataclass(frozen=True)
class _Command:
    """What a command is for, how it is used, its groups of options, its examples, and what stands before INPUT.

    ``input`` says how many paths INPUT is: at least one, "+", or any number, "*".
    """

    about: str
    usage: str
    groups: dict[str, type[Checked]]
    examples: str
    positional: dict[str, str] = field(default_factory=dict)
    input: str = "+"


_COMMANDS = {
    "cluster": _Command(
        "cluster a table of points, or of similarities: exemplars and assignments out",
        "INPUT [INPUT ...] --output DIR [options]",
        GROUPS,
        _CLUSTER_EXAMPLES,
    ),
    "graph": _Command(
        "describe the similarities of such a table, and what preferences would do, without clustering",
        "INPUT [INPUT ...] [options]",
        {name: group for name, group in GROUPS.items() if name not in ("Report", "Snapshots")}
        | {"Output": GraphOutput},
        _GRAPH_EXAMPLES,
    ),
    "assign": _Command(
        "assign new points to the exemplars that a run has found",
        "RESULT INPUT [INPUT ...] --output DIR [options]",
        {"Input": PointsInput, "Assignment": NewPoints, "Output": TablesOutput, "Run": Run},
        _ASSIGN_EXAMPLES,
        {"result": "the output directory of a run on points"},
    ),
    "report": _Command(
        "make a page of a result, with pictures, which opens without a network",
        "RESULT [INPUT ...] --output DIR [options]",
        {"Input": PointsInput, "Report": Pictures, "Output": ReportOutput, "Run": Run},
        _REPORT_EXAMPLES,
        {"result": "the output directory of ap-spark cluster"},
        input="*",
    ),
    "animate": _Command(
        "draw a moving picture of messages becoming exemplars, or of what a parameter does; up to 5,000 points",
        "INPUT [INPUT ...] --output FILE.gif [options]",
        {
            "Input": PointsInput,
            "Moving picture": Animation,
            **{name: GROUPS[name] for name in ("Similarities of points", "Clusters", "Levels", "Quality", "Run")},
        },
        _ANIMATE_EXAMPLES,
    ),
}
_Formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=28)
_SHELLS = ("bash", "zsh", "fish")
# argparse takes -1e3 for an option, where it takes -1000 for a number; preferences are often negative.
_NEGATIVE_NUMBER = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, with the options of the file that --config names.

    Help, the version and completion are printed, and end the program; so does a mistake, with 2.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    commands = parser.commands
    if given and given[0].startswith("-") and given[0] not in ("-h", "--help", "--version"):
        parser.error(f"the command comes first, one of {', '.join(commands)}, and options follow it, got {given[0]!r}")
    if given and (path := _config_of(given[1:])) and given[0] in _COMMANDS:
        try:
            apply_file(path, given[0], {name: commands[name] for name in _COMMANDS})
        except SettingError as error:
            commands[given[0]].error(str(error))
    found = parser.parse_args(given)
    if found.command == "completion":
        _print_completion(parser, found.shell)
    return found


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="ap-spark",
        description=_ABOUT,
        epilog=_FIRST_STEPS,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ap-spark {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    def add(name: str, about: str, usage: str, examples: str) -> Parser:
        added: Parser = commands.add_parser(
            name,
            usage=f"ap-spark {name} {usage}",
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=examples,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        return added

    for name, command in _COMMANDS.items():
        added = add(name, command.about, command.usage, command.examples)
        added._negative_number_matcher = _NEGATIVE_NUMBER
        for dest, about in command.positional.items():
            added.add_argument(dest, metavar=dest.upper(), help=about)
        added.add_argument(
            "input",
            metavar="INPUT",
            nargs=command.input,
            help="files, directories or patterns, anywhere Spark can read",
        )
        for title, group in command.groups.items():
            add_options(added.add_argument_group(title.lower()), group)
    shell = add(
        "completion",
        "print what makes a shell complete commands and options",
        f"{{{','.join(_SHELLS)}}}",
        _COMPLETION_EXAMPLES,
    )
    shell.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=f"one of {', '.join(_SHELLS)}")
    return parser


def _config_of(arguments: Sequence[str]) -> str | None:
    """Return the file that --config names; None without one, and where only help is wanted."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", nargs="?")  # one without a file is refused later
    first.add_argument("-h", "--help", action="store_true")
    found, _ = first.parse_known_args(arguments)
    return None if found.help else found.config


def _print_completion(parser: Parser, shell: str) -> NoReturn:
    """Print the script for a shell, and end."""
    import shtab  # slower to import than all the rest

    files = {"INPUT": shtab.FILE, "FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "RESULT": shtab.DIRECTORY}
    for command in parser.commands.values():
        for action in command._actions:
            if action.metavar in files:
                vars(action)["complete"] = files[action.metavar]
    print(shtab.complete(parser, shell))
    sys.exit()
