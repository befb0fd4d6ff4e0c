"""The errors that dglrec raises on purpose.

Every one of them says what was seen, what was expected and what to do about it, in one or two lines. The command line
prints the message without a traceback and exits with code 2; anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DglrecError(ValueError):
    """Base of all errors raised on purpose."""


class DataError(DglrecError):
    """Input data cannot be used: a file, a frame, a log, a split or a query."""


class ConfigError(DglrecError):
    """A preset, a field or a value of a configuration does not exist or does not fit."""


class CheckpointError(DglrecError):
    """A run folder or a weights file is damaged, incomplete or belongs to something else."""


def closest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the closest known name, or all of them.

    >>> closest("gammma", ["gamma", "layers"])
    "did you mean 'gamma'?"
    >>> closest("zzz", ["gamma", "layers"])
    'known: gamma, layers'
    """
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else "known: " + ", ".join(names)


def first_line(error: BaseException) -> str:
    """What an error says first; those on damaged bytes may quote them."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= 120 else line[:117] + "..."
