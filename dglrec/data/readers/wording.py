"""What is wrong in a file, in words: where it is, and how values are shown."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError

STRAY_RETURN = "a carriage return within the line; save the file with line ends of Unix or Windows"


class Problem(NamedTuple):
    """Something wrong in a file: the line (1 is the header; None: the file as a whole), and what."""

    line: int | None
    text: str

    def error(self, path: Path) -> DataError:
        """The problem as an error, which names the file once."""
        if str(path) in self.text:
            return DataError(self.text)
        return DataError(f"{path}{'' if self.line is None else f' line {self.line}'}: {self.text}")


def first_error(path: Path, problems: Iterator[Problem]) -> DataError | None:
    """The first of the problems of a file as an error; None where there is none."""
    problem = next(problems, None)
    return None if problem is None else problem.error(path)


def reason(error: csv.Error | DataError) -> str:
    """What an error says, reworded where Python's `csv` speaks of its own use (old Macintosh line ends, limits)."""
    if "new-line character" in str(error):
        return STRAY_RETURN
    if "field limit" in str(error):
        return f"a field has more than {csv.field_size_limit():,} characters; is a closing quote or a line end missing?"
    return str(error)


def shown(text: str, width: int = 40) -> str:
    """A value for an error message: quoted, on one line, not too long.

    >>> shown("a very long value", width=9)
    "'a very...'"
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def undecodable(text: str) -> bool:
    """Whether bytes of a text were not UTF-8; `raw.text_lines` leaves surrogates in their places."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def is_half(text: str) -> bool:
    r"""Whether a text holds half a pair of surrogates, as JSON's "\ud800" is one."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
