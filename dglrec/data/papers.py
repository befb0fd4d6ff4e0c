"""Data sets of SelfGNN and HardGNN by name, for those who have the originals: which file, which period, which filter.

`dglrec.load("selfgnn-gowalla")` looks for the original in a folder of that name (in DGLREC_DATA, the cache, or here)
and filters it. The papers' own files are pickles of indices; these logs are made as the papers say, and where they say
less than is needed, `PaperSet.remark` tells what was chosen. The sizes that the papers' files have are there to
compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .log import InteractionLog
from .places import folders


@dataclass(frozen=True)
class PaperSet:
    """How a paper's data set is made from its original.

    Attributes:
        name: what `dglrec.load` takes, and the name of the folder that holds the original.
        files: names that the original may have.
        format: its form, a key of `dglrec.data.forms.FORMATS`.
        page: where it comes from.
        period: first day, and the day after the last one; None: all.
        passes: of `InteractionLog.count_filter`; none: the 5-core.
        slices: number T of time slices in the paper; `dglrec train` takes it for models on time slices.
        users, items: sizes of the papers' files.
        remark: what the papers leave open.
    """

    name: str
    files: tuple[str, ...]
    format: str
    page: str
    period: tuple[str, str] | None
    passes: tuple[tuple[int, int], ...]
    slices: int
    users: int
    items: int
    remark: str

    def filter(self, log: InteractionLog) -> InteractionLog:
        """The paper's log from all of the original.

        Raises:
            DataError: there are no times, or nothing is left.
        """
        if self.period is not None:
            log = log.between(*self.period)
        return log.count_filter(*self.passes) if self.passes else log.k_core(5)


_FIVE_CORE = "the paper says '5-core'; its code for this set is not public, and the one that is filters otherwise"

PAPER_SETS = {
    one.name: one
    for one in (
        PaperSet(
            name="selfgnn-amazon-book",
            files=("ratings_Books.csv", "amazon_ratings_Books.csv"),
            format="amazon-ratings",
            page="http://jmcauley.ucsd.edu/data/amazon (ratings only, Books)",
            period=("2014-01-01", "2015-01-01"),
            passes=((20, 20), (15, 0), (5, 0)),
            slices=5,
            users=11_199,
            items=30_821,
            remark="the filter is that of the public code; the paper says '5-core'",
        ),
        PaperSet(
            name="selfgnn-gowalla",
            files=("loc-gowalla_totalCheckins.txt.gz", "loc-gowalla_totalCheckins.txt"),
            format="gowalla",
            page="https://snap.stanford.edu/data/loc-gowalla.html",
            period=("2010-01-01", "2011-01-01"),
            passes=(),
            slices=3,
            users=48_653,
            items=52_621,
            remark=_FIVE_CORE,
        ),
        PaperSet(
            name="selfgnn-movielens",
            files=("ratings.dat",),
            format="movielens-1m",
            page="https://grouplens.org/datasets/movielens/10m/",
            period=("2002-01-01", "2010-01-01"),
            passes=(),
            slices=6,
            users=24_312,
            items=8_688,
            remark=_FIVE_CORE,
        ),
        PaperSet(
            name="selfgnn-yelp",
            files=("yelp_academic_dataset_review.json",),
            format="yelp",
            page="https://www.yelp.com/dataset",
            period=None,
            passes=(),
            slices=12,
            users=19_751,
            items=38_391,
            remark="neither period nor filter are known; the 5-core of what is there is taken. HardGNN leaves it out",
        ),
    )
}


def original_of(paper: PaperSet) -> Path:
    """The original's file in the first folder that has one.

    Raises:
        DataError: it is not there; the message says where it comes from and goes to.
    """
    places = [*folders(), Path()]
    for folder in places:
        for file in paper.files:
            if (folder / paper.name / file).is_file():
                return folder / paper.name / file
    raise DataError(
        f"{paper.name!r} is made of {paper.files[0]}, which is not here; "
        f"get it from {paper.page} and put it into {places[0] / paper.name}"
    )
