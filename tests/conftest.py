"""Settings and data that many tests share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

import dglrec
from dglrec.data.sample import sample

pytest.register_assert_rewrite("tests.contract.model_contract")

settings.register_profile("dglrec", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("dglrec")

# Work this small is slower on many threads. `test_train.py` has a test on two.
torch.set_num_threads(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; runs where the environment variable DGLREC_SLOW is set")


def pytest_collection_modifyitems(items):
    import os

    if os.environ.get("DGLREC_SLOW"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: set DGLREC_SLOW=1 to run it"))


@pytest.fixture(scope="session")
def split():
    """A small split in which no two numbers of anything are the same, so that a mixed-up dimension is found."""
    return dglrec.leave_one_out(sample("shop", users=61, items=43, seed=3))


@pytest.fixture(autouse=True)
def same_threads():
    """A test that changes the number of threads changes it for itself."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
