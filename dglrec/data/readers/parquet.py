"""Parquet files, column by column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError, first_line
from ..trial import mistake
from .header import Wanted
from .raw import most_unpacked
from .values import import_polars

if TYPE_CHECKING:
    import polars


def read_parquet(path: Path, wanted: Wanted) -> dict[str, polars.Series]:
    """The wanted columns of a Parquet file under our names.

    Raises:
        DataError: the file cannot be used.
    """
    pl = import_polars()
    try:
        most = most_unpacked(path.stat().st_size)
        names = {*wanted.required, *wanted.optional, *wanted.more, *wanted.columns.values()}
        if said := mistake(path, sorted(names), most_rows=most, most_bytes=most):
            raise pl.exceptions.ComputeError(said)
        lazy = pl.scan_parquet(path, glob=False)
        header = lazy.collect_schema().names()
        ours = {column: header[number] for column, number in wanted.places(header, str(path)).items()}
        rows = lazy.select(pl.len()).collect().item()
        if rows > most:
            raise DataError(
                f"{path} has {rows:,} rows in {path.stat().st_size:,} bytes, which no log has; "
                "if it is one, save it as .tsv"
            )
        frame: polars.DataFrame = lazy.select(sorted(set(ours.values()))).collect()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"{path} is damaged or not a parquet file ({first_line(error)}); fetch or save it again"
        ) from error
    return {column: frame[name] for column, name in ours.items()}
