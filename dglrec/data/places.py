"""Where data sets are looked for."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache of data sets: $XDG_CACHE_HOME/dglrec, or ~/.cache/dglrec."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "dglrec"


def folders() -> list[Path]:
    """Where data sets are looked for, in this order: $DGLREC_DATA where it is set, and the user's cache."""
    given = os.environ.get("DGLREC_DATA")
    return ([Path(given)] if given else []) + [cache_folder()]
