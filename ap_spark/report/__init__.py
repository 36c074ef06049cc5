"""Pictures of a result, and the page that shows them: a few rows of its tables ──► pictures ──► one page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ap_spark.errors import SettingError

__all__ = ["packages_of_report"]


@contextmanager
def packages_of_report() -> Iterator[None]:
    """Say what to install where a package that pictures need is missing.

    Raises
    ------
    SettingError
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("jinja2", "markupsafe", "matplotlib", "PIL"):
            raise
        raise SettingError(
            f"pictures need {missing}, which is not installed: pip install 'ap-spark[report]'"
        ) from error
