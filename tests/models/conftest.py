"""What the tests of multi-interest models share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import dglrec
from dglrec.batches import Windows
from dglrec.data import sample, windows
from dglrec.graphs import Sequences


@pytest.fixture(scope="session")
def interest_windows():
    """Windows of 20 and 20 events of users who follow several interests; users are apart."""
    log = sample("interests", users=400, items=900, seed=1)
    return windows(log, by="user", inputs=20, targets=20, negatives=20, valid=0.2, test=0.2)


@pytest.fixture(scope="session")
def chance(interest_windows):
    """The pooled AUC of popularity on the test windows: nothing can be learned from it there."""
    model = dglrec.models.preset("popularity", interest_windows)
    return dglrec.evaluate(model, interest_windows.test)["auc_pooled"]


@pytest.fixture(scope="session")
def reversed_batch():
    """A function: the same batch of windows with its rows in the opposite order."""

    def turned(batch: Windows) -> Windows:
        order = torch.arange(len(batch.user)).flip(0)
        starts, sizes = batch.history.offsets[:-1][order], batch.history.lengths[::-1].copy()
        history: Sequences = batch.history.windows(starts, sizes)
        first = None if batch.first_time is None else batch.first_time[order]
        return replace(
            batch,
            history=history,
            positive=batch.positive[order],
            negative=batch.negative[order],
            user=batch.user[order],
            first_time=first,
        )

    return turned
