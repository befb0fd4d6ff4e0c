"""Random streams depend on their names and on nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dglrec.streams import Streams, global_generator, seeded


def first(stream):
    return stream.integers(2**63)


def test_a_stream_is_a_function_of_its_four_names():
    draws = {}
    for seed, epoch, step, name in itertools.product(
        [0, 1, 2020, 2**31, 2**40], [0, 1, 299], [0, 1, 5], ["edges", "prefixes"]
    ):
        key = (seed, epoch, step, name)
        draws[key] = first(Streams(seed, epoch).numpy(name, step)), Streams(seed, epoch).torch_seed(name, step)
    assert len({numpy for numpy, _ in draws.values()}) == len(draws)
    assert len({seed for _, seed in draws.values()}) == len(draws)
    for (seed, epoch, step, name), values in reversed(draws.items()):  # whatever was drawn before
        assert values == (first(Streams(seed, epoch).numpy(name, step)), Streams(seed, epoch).torch_seed(name, step))


def test_streams_of_one_epoch_do_not_disturb_each_other():
    streams = Streams(3, 1)
    one, other = streams.numpy("a"), streams.numpy("b")
    mixed = [first(one), first(other), first(one)]
    alone = streams.numpy("a")
    assert mixed[::2] == [first(alone), first(alone)]


def test_the_draws_are_those_of_every_machine():
    """A result of a seed can be repeated only while these numbers stay: the names' CRC-32 stands last."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([2020, 3, 0, 3215592885])))
    assert np.array_equal(Streams(2020, 3).numpy("edges").random(4), generator.random(4))
    state = np.random.SeedSequence([2020, 3, 7, 2458513353]).generate_state(1, np.uint64)
    assert Streams(2020, 3).torch_seed("dropout", 7) == int(state[0]) >> 1


def test_a_torch_seed_fits_torch():
    for step in range(100):
        seed = Streams(1, 2).torch_seed("dropout", step)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fails", [False, True])
def test_the_global_generator_is_put_back(fails):
    before = torch.get_rng_state()
    try:
        with global_generator():
            torch.manual_seed(5)
            torch.rand(3)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(before, torch.get_rng_state())


def test_a_seeded_block_repeats_and_leaves_no_trace():
    before, draws = torch.get_rng_state(), []
    for seed, name in ((1, "init"), (1, "init"), (2, "init"), (1, "other")):
        with seeded(seed, name):
            draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3
    assert torch.equal(before, torch.get_rng_state())


def test_weights_of_a_model_open_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("get_rng_state", "get_rng_state_all", "manual_seed", "manual_seed_all"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_: pytest.fail("a GPU was asked"))
    with seeded(1, "init"):
        torch.rand(3)
