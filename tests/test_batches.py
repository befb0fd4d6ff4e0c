"""What batches hold: every target once, with the right history, and nothing that was held out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dglrec
from dglrec.batches import (
    days_since,
    edge_batches,
    position_batches,
    prefix_batches,
    unseen_items,
    window_batches,
    windows,
)
from dglrec.data.log import InteractionLog
from dglrec.errors import ConfigError, DglrecError
from dglrec.graphs import Sequences
from dglrec.losses import item_cross_entropy
from dglrec.nn import CausalTransformer
from tests.contract.model_contract import tensors_in

CPU = torch.device("cpu")

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def log_of(lengths, num_items=30, seed=0):
    """A log whose users have histories of these lengths; a row's item says nothing of its place."""
    user = np.repeat(np.arange(len(lengths)), lengths)
    item = np.random.default_rng(seed).integers(num_items, size=len(user))
    ids = [f"u{n}" for n in range(len(lengths))], [f"i{n}" for n in range(num_items)]
    return InteractionLog.from_arrays(user, item, np.arange(len(user)), user_ids=ids[0], item_ids=ids[1])


def numbered(lengths):
    """A log in which each row has an item of its own, so that an item tells its row."""
    user = np.repeat(np.arange(len(lengths)), lengths)
    ids = [f"u{n}" for n in range(len(lengths))], [f"i{n}" for n in range(len(user))]
    return InteractionLog.from_arrays(user, np.arange(len(user)), user_ids=ids[0], item_ids=ids[1])


def rng(seed=0):
    return np.random.default_rng(seed)


def parts(sequences):
    return [part.tolist() for part in torch.split(sequences.items, sequences.offsets.diff().tolist())]


def expected_prefixes(log, max_length):
    """{target row: (user, history rows)} by a Python loop."""
    found = {}
    for user in range(log.num_users):
        rows = list(range(log.offsets[user], log.offsets[user + 1]))
        for place in range(1, len(rows)):
            found[rows[place]] = (user, rows[max(0, place - max_length) : place])
    return found


# --- Edges ---------------------------------------------------------------------------------------------------------


@given(lengths, st.integers(1, 50))
def test_edges_come_once_each(sizes, size):
    log = log_of(sizes)
    batches = list(edge_batches(log, size, rng(), CPU))
    assert [len(batch.user) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert all(batch.negative is None for batch in batches)
    found = [pair for b in batches for pair in zip(b.user.tolist(), b.item.tolist(), strict=True)]
    assert Counter(found) == Counter(zip(log.user.tolist(), log.item.tolist(), strict=True))


def test_edges_are_shuffled_by_their_generator():
    log = log_of([20, 20, 20])
    one, same, other = (next(edge_batches(log, 60, rng(seed), CPU)).item.tolist() for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one != log.item.tolist()


@given(lengths, st.integers(0, 9))
def test_negatives_are_items_that_the_user_has_not_touched(sizes, seed):
    log = log_of(sizes, num_items=60)
    seen = set(zip(log.user.tolist(), log.item.tolist(), strict=True))
    for batch in edge_batches(log, 16, rng(seed), CPU, negatives=True):
        assert batch.negative.shape == batch.user.shape
        assert 0 <= int(batch.negative.min())
        assert int(batch.negative.max()) < log.num_items
        assert not seen & set(zip(batch.user.tolist(), batch.negative.tolist(), strict=True))


def test_negatives_are_uniform_over_the_unseen_items():
    log = log_of([3, 1], num_items=8)
    drawn = unseen_items(log, np.zeros(20_000, dtype=np.int64), rng())
    unseen = sorted(set(range(8)) - set(log.item[log.user == 0].tolist()))
    assert sorted(set(drawn.tolist())) == unseen
    counts = np.bincount(drawn, minlength=8)[unseen]
    assert counts == pytest.approx(20_000 / len(unseen), rel=0.08)


def test_a_user_who_has_touched_everything_gets_some_item():
    log = numbered([4, 1])
    log = InteractionLog.from_arrays([0, 0, 0, 1], [0, 1, 2, 0], user_ids=["a", "b"], item_ids=["x", "y", "z"])
    drawn = unseen_items(log, np.array([0, 1]), rng())
    assert 0 <= drawn[0] < 3
    assert drawn[1] in (1, 2)


# --- Prefixes ------------------------------------------------------------------------------------------------------


@given(lengths, st.integers(1, 50), st.integers(1, 12))
def test_prefixes_cover_every_target_once_with_its_history(sizes, size, max_length):
    log = numbered(sizes)
    expected = expected_prefixes(log, max_length)
    batches = list(prefix_batches(log, size, max_length, rng(), CPU))
    assert [len(batch.target) for batch in batches[:-1]] == [size] * max(0, len(batches) - 1)
    found = {}
    for batch in batches:
        assert len(batch.history) == len(batch.target) == len(batch.user)
        assert batch.history.lengths.tolist() == batch.history.offsets.diff().tolist()
        for target, user, history in zip(batch.target.tolist(), batch.user.tolist(), parts(batch.history), strict=True):
            assert target not in found
            found[target] = (user, history)
    assert found == expected


def test_prefixes_of_a_batch_are_of_many_users():
    """Independent prefixes, not all positions of a few users: losses that compare rows need them."""
    log = log_of([10] * 200)
    batch = next(prefix_batches(log, 100, 50, rng(), CPU))
    assert len(set(batch.user.tolist())) > 60


# --- Windows and positions -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 130), min_size=1, max_size=6), st.integers(1, 20), st.data())
def test_windows_make_each_position_a_target_once(sizes, max_length, data):
    stride = data.draw(st.integers(1, max_length))
    log = numbered(sizes)
    starts, ends, firsts = windows(log, max_length, stride)
    learnt = []
    for start, end, first in zip(starts.tolist(), ends.tolist(), firsts.tolist(), strict=True):
        user = log.user[start]
        assert log.offsets[user] <= start <= first < end < log.offsets[user + 1]
        assert end - start <= max_length
        for row in range(first, end):
            context = row + 1 - start
            available = row + 1 - log.offsets[user]
            assert context >= min(available, max_length - stride + 1)
            if stride == 1:
                assert context == min(available, max_length)
            learnt.append(row + 1)
    assert sorted(learnt) == np.flatnonzero(log.position > 0).tolist()


def test_half_a_window_is_context_at_least():
    starts, _, firsts = windows(numbered([200, 3, 51, 52]), 50, 25)
    later = firsts[firsts > starts]
    assert ((later - starts[firsts > starts]) >= 25).all()


@pytest.mark.parametrize("stride", [0, -1, 11])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    """Beyond `max_length` there would be targets without a context, below 1 no end."""
    with pytest.raises((DglrecError, ValueError)):
        windows(numbered([40, 12]), 10, stride)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(1, 40), st.integers(1, 15), st.data())
def test_positions_cover_every_target_once_with_its_context(sizes, size, max_length, data):
    stride = data.draw(st.integers(1, max_length))
    log = numbered(sizes)
    targets = np.flatnonzero(log.position > 0)
    batches = list(position_batches(log, size, max_length, stride, rng(), CPU))
    assert [len(batch.target) for batch in batches] == [
        min(size, len(targets) - first) for first in range(0, len(targets), size)
    ]
    learnt = []
    for batch in batches:
        history = batch.history
        assert history.lengths.tolist() == history.offsets.diff().tolist()
        assert 1 <= history.lengths.min()
        assert history.lengths.max() <= max_length
        window = np.searchsorted(history.offsets.numpy(), batch.row.numpy(), side="right") - 1
        for row, target, number in zip(batch.row.tolist(), batch.target.tolist(), window.tolist(), strict=True):
            start = int(history.offsets[number])
            context = history.items[start : row + 1].tolist()
            assert context == list(range(target - len(context), target))  # rows right before the target's
            user = log.user[target]
            assert (log.user[context] == user).all()
            available = target - log.offsets[user]
            assert min(available, max_length - stride + 1) <= len(context) <= max_length
            if stride == 1:
                assert len(context) == min(available, max_length)
            learnt.append(target)
    assert sorted(learnt) == targets.tolist()


def test_nothing_behind_the_last_target_is_read():
    """A window that a batch's end cuts ends there: no work on items whose states nobody asks for."""
    for batch in position_batches(numbered([80, 33, 7]), 16, 20, 10, rng(), CPU):
        ends = set((batch.history.offsets[1:] - 1).tolist())
        assert ends <= set(batch.row.tolist())


@settings(max_examples=8)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=3), st.integers(0, 3))
def test_all_positions_and_all_prefixes_have_one_loss_and_one_gradient(sizes, seed):
    """With dropout off and stride 1, in sum over targets; for users of more than 50 items too."""
    log = log_of([*sizes, 60], seed=seed)
    torch.manual_seed(seed)
    encoder = CausalTransformer(8, 50, 2, 2, 16, 0.0, 0.0).double()
    table = torch.randn(log.num_items, 8, dtype=torch.float64, requires_grad=True)
    leaves = [table, *encoder.parameters()]
    sums = []
    for batches in (position_batches(log, 64, 50, 1, rng(1), CPU), prefix_batches(log, 64, 50, rng(2), CPU)):
        total = 0.0
        for batch in batches:
            if hasattr(batch, "row"):
                states = encoder(batch.history, table)[batch.row]
            else:
                states = encoder(batch.history, table, last=True)
            total = total + item_cross_entropy(states, table, batch.target).double() * len(batch.target)
        sums.append((total, torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)))
    (one, gradients), (two, others) = sums
    assert one.item() == pytest.approx(two.item(), rel=1e-6)
    for left, right in zip(gradients, others, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


def test_half_windows_have_the_same_targets_and_shorter_contexts():
    """What stride 25 gives up against stride 1 is context only, and only beyond the first window."""
    log = numbered([120])
    contexts = {}
    for stride in (1, 25):
        for batch in position_batches(log, 1000, 50, stride, rng(), CPU):
            number = np.searchsorted(batch.history.offsets.numpy(), batch.row.numpy(), side="right") - 1
            start = batch.history.offsets.numpy()[number]
            contexts[stride] = dict(zip(batch.target.tolist(), (batch.row.numpy() - start + 1).tolist(), strict=True))
    assert contexts[1].keys() == contexts[25].keys()
    assert all(contexts[1][t] == contexts[25][t] for t in range(1, 51))
    assert all(26 <= contexts[25][t] <= 50 == contexts[1][t] for t in range(51, 120))


# --- All of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda log, device: edge_batches(log, 7, rng(), device, negatives=True),
        lambda log, device: prefix_batches(log, 7, 5, rng(), device),
        lambda log, device: position_batches(log, 7, 5, 2, rng(), device),
    ],
    ids=["edges", "prefixes", "positions"],
)
def test_batches_are_made_on_the_device(make):
    log = log_of([9, 1, 14, 2])
    on_cpu, on_meta = list(make(log, CPU)), list(make(log, torch.device("meta")))
    assert len(on_cpu) == len(on_meta) > 1
    for one, two in zip(on_cpu, on_meta, strict=True):
        for left, right in zip(tensors_in(one), tensors_in(two), strict=True):
            assert right.device.type == "meta"
            assert (left.shape, left.dtype) == (right.shape, right.dtype)


def test_users_of_one_item_give_no_target():
    log = log_of([1, 1])
    assert list(prefix_batches(log, 4, 5, rng(), CPU)) == []
    assert list(position_batches(log, 4, 5, 2, rng(), CPU)) == []


# --- Windows -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_windows():
    return dglrec.windows(log_of([25, 8, 40, 33, 1, 61], 50), inputs=4, targets=3, negatives=5, valid=3, test=3)


def test_every_training_window_comes_once_with_its_own_answers(by_windows):
    known, seen, orders = by_windows.windows, {}, []
    for epoch in range(2):
        sizes, order = [], []
        for batch in window_batches(by_windows, 4, rng(epoch), CPU):
            sizes.append(len(batch.user))
            assert batch.positive.shape[1:] == (3,) and batch.negative.shape[1:] == (5,)
            assert batch.history.times.dtype == batch.first_time.dtype == torch.float64
            for row, inputs in enumerate(parts(batch.history)):
                piece = (int(batch.user[row]), *inputs, *batch.positive[row].tolist(), float(batch.first_time[row]))
                order.append(piece)
                seen.setdefault(piece, set()).add(tuple(batch.negative[row].tolist()))
        assert sizes == [4] * (len(known) // 4) + ([len(known) % 4] if len(known) % 4 else [])
        orders.append(order)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    rows = zip(known.user, known.items.reshape(-1, 4), known.targets.reshape(-1, 3), known.first_time, strict=True)
    expected = [(int(u), *i.tolist(), *t.tolist(), float(f)) for u, i, t, f in rows]
    assert Counter(orders[0]) == Counter(expected)
    fixed = {piece: tuple(row) for piece, row in zip(expected, known.negatives.reshape(-1, 5).tolist(), strict=True)}
    assert all(negatives == {fixed[piece]} for piece, negatives in seen.items())  # the same in each epoch


def test_windows_can_be_read_in_part(by_windows):
    for whole, short in zip(
        window_batches(by_windows, 4, rng(), CPU), window_batches(by_windows, 4, rng(), CPU, max_length=2), strict=True
    ):
        assert parts(short.history) == [part[-2:] for part in parts(whole.history)]
        assert torch.equal(short.positive, whole.positive)


def test_a_split_without_windows_gives_prefixes():
    split = dglrec.leave_one_out(log_of([9, 3, 30, 12], 40))
    train, learnt = split.train, []
    for batch in window_batches(split, 8, rng(), CPU, max_length=5, negatives=3):
        assert batch.positive.shape[1:] == (1,) and batch.negative.shape[1:] == (3,)
        for row, inputs in enumerate(parts(batch.history)):
            user = int(batch.user[row])
            items = train.item[train.user == user].tolist()
            place = items.index(int(batch.positive[row]), len(inputs)) if len(items) else 0
            learnt.append((user, int(batch.positive[row])))
            assert 1 <= len(inputs) <= 5 and place > 0
            assert not set(batch.negative[row].tolist()) & set(items)
            assert float(batch.first_time[row]) == train.time[train.offsets[user]]
    target = train.position > 0
    assert Counter(learnt) == Counter(zip(train.user[target].tolist(), train.item[target].tolist(), strict=True))


def test_a_prefix_is_what_came_right_before_its_item():
    log = numbered([9, 3, 30, 12])
    split = dglrec.leave_one_out(log, order="file")
    for batch in window_batches(split, 8, rng(), CPU, max_length=5, negatives=3):
        begin = log.offsets[batch.user.numpy()].tolist()
        for first, inputs, item in zip(begin, parts(batch.history), batch.positive[:, 0].tolist(), strict=True):
            assert inputs == list(range(max(first, item - 5), item))


def test_days_are_counted_from_the_users_first_event(by_windows):
    batch = next(iter(window_batches(by_windows, 4, rng(), CPU)))
    days = days_since(batch.history, batch.first_time)
    assert days.dtype == torch.float32
    expected = (batch.history.times - batch.first_time.repeat_interleave(4)) / 86_400
    torch.testing.assert_close(days, expected.float())
    own = days_since(batch.history)  # nothing else is known of the user
    assert own.view(-1, 4)[:, 0].tolist() == [0.0] * len(batch.user)
    empty = Sequences(torch.tensor([0, 0, 1, 1]), torch.tensor([3]), torch.tensor([7.0], dtype=torch.float64))
    assert days_since(empty).tolist() == [0.0]
    with pytest.raises(ConfigError, match="these histories have none"):
        days_since(Sequences(empty.offsets, empty.items))
