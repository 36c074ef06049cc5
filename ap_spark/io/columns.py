"""Which columns of a table are the id, the features and the preference.

Columns are positions from 0: names may be equal, and a table of text may have none.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pyspark.sql.types import ArrayType, NumericType, StringType

from ap_spark.errors import InputError, SettingError
from ap_spark.io.records import LONGEST_EXAMPLE, format_text
from ap_spark.io.tables import Table
from ap_spark.wording import did_you_mean, format_count, has_have, is_are

__all__ = [
    "Chosen",
    "Columns",
    "check_header",
    "choose_columns",
    "format_names",
    "format_option",
    "is_number",
    "is_text",
    "leave_out_texts",
    "one_column",
    "warn_of_lookalikes",
]

logger = logging.getLogger(__name__)

_ID = "id"  # a column of this name is the id, where no other one is named
# Names that an id may have, pandas' for an index without a name among them; "paid" and "grid" are none.
_ID_LIKE = re.compile(r"(?i:(.*[\s_.-])?id|index|uuid|guid|unnamed: 0|)|.*[a-z](Id|ID)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MANY_NAMES = 12  # beyond, positions are shorter
_FEW = 4  # names such as 0, 1, 2 that might as well be a row of small numbers


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns chosen.

    Attributes
    ----------
    identity : int, optional
        The column with the ids; rows are numbered without one.
    is_id_settled : bool
        Whether there is one, or the user has said that there is none.
    features : tuple of int
        One vector column, or number columns.
    preference : int, optional
    is_vector : bool
        Whether the features are one vector column.
    by_default : bool
        Whether nobody has named the features.
    """

    identity: int | None
    is_id_settled: bool
    features: tuple[int, ...]
    preference: int | None
    is_vector: bool
    by_default: bool

    @property
    def numbers(self) -> list[int]:
        """The columns that have to hold numbers, or vectors of them."""
        return [*self.features] if self.preference is None else [*self.features, self.preference]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """How a table of points was understood, by the names of its columns.

    Attributes
    ----------
    id : str or None
        None where rows are numbered.
    features : list of str
    is_vector : bool
        Whether the features are one array or vector column.
    preference : str or None
    left_out : list of str
    """

    id: str | None
    features: list[str]
    is_vector: bool
    preference: str | None
    left_out: list[str]

    @classmethod
    def of(cls, columns: Columns, names: Sequence[str]) -> Chosen:
        used = {columns.identity, columns.preference, *columns.features}
        return cls(
            id=None if columns.identity is None else names[columns.identity],
            features=[names[column] for column in columns.features],
            is_vector=columns.is_vector,
            preference=None if columns.preference is None else names[columns.preference],
            left_out=[name for column, name in enumerate(names) if column not in used],
        )

    def __str__(self) -> str:
        """Return a line for each kind of column.

        >>> print(Chosen(id=None, features=["x", "y"], is_vector=False, preference=None, left_out=["title"]))
        id: the number of the row, from 0
        features: 2 columns: x, y
        left out: column title
        """
        names = self.features if len(self.features) <= _MANY_NAMES else [*self.features[:3], "...", self.features[-1]]
        features = f"{format_count(len(self.features), 'column')}: {', '.join(names)}"
        if self.is_vector:
            features = f"the elements of column {self.features[0]}"
        lines = [f"id: {'the number of the row, from 0' if self.id is None else f'column {self.id}'}"]
        lines += [f"features: {features}"] if self.features else []
        lines += [] if self.preference is None else [f"preference: column {self.preference}"]
        lines += [f"left out: {_count_names(self.left_out)}"] if self.left_out else []
        return "\n".join(lines)


def choose_columns(
    table: Table,
    id_column: str | None,
    feature_columns: str | Sequence[str] | None,
    preference_column: str | None,
) -> Columns:
    """Choose columns by what a user has named, and by the rules for the rest.

    A column called id is the id, unless another one is named or it is named as a feature. The only array or vector
    column holds the features; without one, all columns but the id and the preference do.

    Raises
    ------
    InputError
        If a column does not exist, is of no type for its purpose, or cannot be told from another one.
    SettingError
        If ``feature_columns`` is neither a string nor a list of strings.
    """
    names = table.names
    named = _named_features(names, feature_columns)
    preference = None if preference_column is None else one_column(names, preference_column)
    if id_column:
        identity: int | None = one_column(names, id_column)
    else:
        identity = one_column(names, _ID) if id_column is None and _ID in names else None
        if identity is not None and named is not None and identity in named:
            logger.warning(
                "column 'id' is a feature, so that rows are numbered: if it is the id, give %s, and leave it out of "
                "the features",
                format_option("id_column", _ID),
            )
            identity = None
    is_id_settled = identity is not None or id_column == ""
    features = _default_features(table, identity, preference, is_id_settled) if named is None else named
    vectors = [column for column in features if not is_number(table, column)]
    if vectors and len(features) > 1:
        raise InputError(
            f"features must be number columns or one vector column, but these are mixed: "
            f"{format_names([names[column] for column in features])}; to choose among them: "
            f"{format_option('feature_columns', names[vectors[0]])}"
        )
    if preference is not None and not is_number(table, preference):
        raise InputError(f"column {names[preference]!r} must hold a number for each point, but it holds vectors")
    return Columns(
        identity=identity,
        is_id_settled=is_id_settled,
        features=tuple(features),
        preference=preference,
        is_vector=bool(vectors),
        by_default=named is None,
    )


def _named_features(names: Sequence[str], wanted: str | Sequence[str] | None) -> list[int] | None:
    """Return the features that a user has named; None if that is nobody's choice."""
    wanted = getattr(wanted, "tolist", lambda: wanted)()  # of an array, or an index of pandas
    if wanted is None:
        return None
    if not isinstance(wanted, Sequence) or not all(isinstance(part, str) for part in wanted):
        raise SettingError(f"feature_columns must be a string, or a list of strings, got {wanted!r}")
    parts = wanted.split(",") if isinstance(wanted, str) else wanted
    return [column for part in parts if part for column in _some_columns(names, part)]


def _default_features(table: Table, identity: int | None, preference: int | None, is_id_settled: bool) -> list[int]:
    """Return the only vector column, or all columns but the id and the preference."""
    names = table.names
    others = [column for column in range(len(names)) if column not in (identity, preference)]
    if not others:
        raise InputError(f"there must be at least one feature column, but the table has only {format_names(names)}")
    vectors = [column for column in others if _is_vector(table, column)]
    if not vectors:
        return others
    if len(vectors) > 1:
        raise InputError(
            "features must be number columns or one vector column, but there are several vector columns: "
            f"{format_names([names[column] for column in vectors])}; to choose one: "
            f"{format_option('feature_columns', names[vectors[0]])}"
        )
    if beside := [column for column in others if column not in vectors]:
        texts = [column for column in beside if is_text(table, column)]
        if texts and not is_id_settled:
            raise InputError(_ask_for_id(names, texts, vectors))
        logger.warning(
            "%s %s left out beside the vectors of column %r%s",
            _count_names([names[column] for column in beside]),
            is_are(len(beside)),
            names[vectors[0]],
            "" if is_id_settled else "; rows are numbered: " + format_option("id_column", "NAME") + " names ids",
        )
    return vectors


def leave_out_texts(columns: Columns, texts: Collection[int], names: Sequence[str]) -> Columns:
    """Leave columns of text out of the features that nobody has chosen, with a warning.

    Raises
    ------
    InputError
        If nothing else is left; or if no column is known as the id, since a column of text may be it.
    """
    features = tuple(column for column in columns.features if column not in texts)
    if not columns.is_id_settled:
        raise InputError(_ask_for_id(names, sorted(texts), features))
    texts_named = _count_names([names[column] for column in sorted(texts)])
    if not features:
        raise InputError(f"there must be at least one feature column of numbers, but {texts_named} hold text")
    logger.warning(
        "%s %s no numbers and %s left out: to choose the features, give %s",
        *(texts_named, has_have(len(texts)), is_are(len(texts))),
        _format_choice(names, features),
    )
    return replace(columns, features=features)


def warn_of_lookalikes(columns: Columns, names: Sequence[str]) -> None:
    """Warn of features that nobody has chosen and whose names say that they are something else."""
    if not columns.by_default or columns.is_vector:
        return
    features = columns.features
    if sorted(names[column] for column in features) == ["i", "k", "s"]:
        logger.warning("columns i, k, s are taken for features: for similarities give --edges")
        return
    for column in features:
        name = names[column]
        if name.lower() == "preference" and columns.preference is None:
            hint = f"if it holds each point's own preference, give {format_option('preference_column', name)}"
        elif not _ID_LIKE.fullmatch(name):
            continue
        elif columns.is_id_settled:
            hint = f"to leave it out, give {_format_choice(names, [other for other in features if other != column])}"
        else:
            hint = f"if it is the id, give {format_option('id_column', name or str(column))}"
        logger.warning("column %r is taken for a feature: %s", name, hint)


def _ask_for_id(names: Sequence[str], texts: Sequence[int], features: Sequence[int]) -> str:
    """Return the message for columns of text where no column is known as the id."""
    text = names[texts[0]]
    chosen = _format_choice(names, features)
    more = f" (and {len(texts) - 1:,} more)" if len(texts) > 1 else ""
    pairs = ""
    if len(names) == 3 and len(texts) == 2 and len(features) == 1:
        pairs = ". If these are pairs of ids and their similarities, give --edges (in Python affinity_propagation)"
    return (
        f"features must be numbers, but column {text!r}{more} is text: if it is the id, give "
        f"{format_option('id_column', text)}; else choose the features, such as {chosen}{pairs}"
    )


def _format_choice(names: Sequence[str], features: Sequence[int]) -> str:
    """Return the option that chooses just these features: by name, or by position where there are many.

    >>> _format_choice(["a", "b", "c"], [1, 2])
    "--feature-columns b,c (in Python feature_columns='b,c')"
    >>> _format_choice(["0", "1", "2", "3"], [0, 2, 3])
    "--feature-columns 0,2-3 (in Python feature_columns='0,2-3')"
    """
    chosen = [names[column] for column in features]
    is_plain = all("," not in name and name and names.count(name) == 1 for name in chosen)
    if not is_plain or len(chosen) > _MANY_NAMES or chosen == list(map(str, features)):
        starts = [column for column in features if column - 1 not in features]
        ends = [column for column in features if column + 1 not in features]
        chosen = [f"{start}" if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    return format_option("feature_columns", ",".join(chosen) or "NAMES")


def check_header(table: Table, columns: Sequence[int]) -> None:
    """Check that the first line of a text file is no row of data.

    It is taken for names unless some of ``columns``, which hold numbers, would be called by numbers. Only whole numbers
    that count up from 0 or 1 are names, as in a file that pandas has written: 0, 1, 2.

    Raises
    ------
    InputError
        If it looks like data, and the user has not said that it is a header.
    """
    if not table.header_is_assumed or not any(map(_NUMBER.fullmatch, (table.names[column] for column in columns))):
        return
    numbers = list(filter(_NUMBER.fullmatch, table.names))
    line = format_text(format_names(table.names))
    count = len(numbers)
    if count < 2 or numbers not in (list(map(str, range(start, start + count))) for start in (0, 1)):
        raise InputError(
            f"the first line of a text file must name the columns, but that of {table.source} holds numbers: {line}. "
            "If the file has no header, give --no-header (in Python header=False); if these are names, --header "
            "(header=True)"
        )
    if count < _FEW:
        logger.warning(
            "the first line of %s is taken for names: %s. If it is data, give --no-header (in Python header=False); "
            "else --header (header=True)",
            *(table.source, line),
        )


def one_column(names: Sequence[str], wanted: str) -> int:
    """Return the position of a column, by its name or, if there is none of that name, by its position from 0."""
    for name in (wanted, wanted.strip()):
        places = [column for column, other in enumerate(names) if other == name]
        if len(places) > 1:
            raise InputError(
                f"a column must have a name of its own to be found by it, but {len(places)} are called {name!r}: "
                f"give the position, one of {', '.join(map(str, places))}"
            )
        if places:
            return places[0]
    if re.fullmatch("[0-9]+", wanted.strip()) and int(wanted) < len(names):
        return int(wanted)
    raise InputError(
        f"there is no column {wanted!r}{did_you_mean(wanted, names)}; there are {format_names(names)} "
        f"(or positions 0-{len(names) - 1})"
    )


def _some_columns(names: Sequence[str], wanted: str) -> list[int]:
    """Return the positions of the columns of one name, position, or range of positions.

    >>> _some_columns(["a", "b", "c"], "1-2")
    [1, 2]
    """
    if wanted not in names and (ends := re.fullmatch(r"\s*([0-9]+)-([0-9]+)\s*", wanted)):
        first, last = int(ends[1]), int(ends[2])
        if first > last:
            raise InputError(f"a range of columns must ascend, got {wanted!r}")
        if last >= len(names):
            one_column(names, ends[2])
        return list(range(first, last + 1))
    return [one_column(names, wanted)]


def is_text(table: Table, column: int) -> bool:
    """Return whether a column holds text."""
    return isinstance(table.kinds[column], StringType)


def _is_vector(table: Table, column: int) -> bool:
    """Return whether a column holds arrays of numbers, or vectors of pyspark.ml."""
    kind = table.kinds[column]
    return kind.typeName() == "vectorudt" or (isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType))


def is_number(table: Table, column: int) -> bool:
    """Return whether a column holds numbers, or text that stands for them; False if it holds vectors.

    Raises
    ------
    InputError
        If it holds neither.
    """
    if isinstance(table.kinds[column], (NumericType, StringType)):
        return True
    if _is_vector(table, column):
        return False
    raise InputError(
        f"column {table.names[column]!r} must hold numbers or vectors of numbers, but it holds "
        f"{table.kinds[column].simpleString()}: if it is no feature, choose those that are, "
        f"{format_option('feature_columns', 'NAMES')}"
    )


def format_names(names: Sequence[str]) -> str:
    """Format names for a message: twenty at most.

    >>> format_names(["a", "b", "a,b"])
    'a, b, a,b'
    """
    few = ", ".join(name if len(name) <= LONGEST_EXAMPLE else name[:LONGEST_EXAMPLE] + "..." for name in names[:20])
    return few if len(names) <= 20 else f"{few}, ... ({len(names):,} in all)"


def _count_names(names: Sequence[str]) -> str:
    return f"{'column' if len(names) == 1 else 'columns'} {format_names(names)}"


def format_option(name: str, value: str) -> str:
    """Return an option as it is given to the command, and in Python.

    >>> format_option("id_column", "customer id")
    "--id-column 'customer id' (in Python id_column='customer id')"
    """
    return f"--{name.replace('_', '-')} {shlex.quote(value)} (in Python {name}={value!r})"
