"""Losses against naive loops and PyTorch's own, in value and gradient, and what the large one costs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dglrec import losses
from dglrec.losses import (
    alignment,
    bpr,
    cross_uniformity,
    hinge,
    info_nce,
    item_cross_entropy,
    pair_cross_entropy,
    sum_of_squares,
    uniformity,
)
from tests.contract.model_contract import OneDevice


def unit(*shape, seed=0, dtype=torch.float64):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=-1).to(dtype).requires_grad_()


def assert_same(ours, reference, inputs, tolerance=1e-9):
    assert ours.item() == pytest.approx(reference.item(), rel=max(tolerance, 1e-6))
    for one, two in zip(gradients(ours, inputs), gradients(reference, inputs), strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


def gradients(loss, inputs):
    return torch.autograd.grad(loss, inputs, retain_graph=True)


# --- In a batch ----------------------------------------------------------------------------------------------------


def test_info_nce_is_a_softmax_over_the_positive_and_the_visible_negatives():
    query, key, queue = unit(5, 3) * 2, unit(5, 3, seed=1) * 3, unit(4, 3, seed=2)
    hidden = torch.rand(5, 4, generator=torch.Generator().manual_seed(3)) < 0.4
    hidden[0] = True  # a row without negatives gives 0
    naive = 0.0
    for row in range(5):
        own = (F.cosine_similarity(query[row], key[row], 0) / 0.2).exp()
        others = [F.cosine_similarity(query[row], queue[n], 0) for n in range(4) if not hidden[row, n]]
        naive = naive - torch.log(own / (own + sum((one / 0.2).exp() for one in others))) / 5
    assert_same(info_nce(query, key, queue, 0.2, hidden), naive, [query, key, queue])
    assert info_nce(query[:1], key[:1], queue, 0.2, hidden[:1]).item() == pytest.approx(0.0)


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_alignment_is_the_mean_squared_distance(rows):
    x, y = unit(rows, 4), unit(rows, 4, seed=1)
    naive = sum(((x[b] - y[b]) ** 2).sum() for b in range(rows)) / rows
    assert_same(alignment(x, y), naive, (x, y))


@pytest.mark.parametrize("t", [2.0, 0.5])
@pytest.mark.parametrize("rows", [2, 3, 9])
def test_uniformity_is_over_all_pairs(rows, t):
    raw = (unit(rows, 4) * 3).detach().requires_grad_()
    x = F.normalize(raw)  # for rows on the sphere alone is ||a - b||^2 = 2 - 2 a.b, in the gradient too
    naive = sum(torch.exp(-t * ((x[a] - x[b]) ** 2).sum()) for a in range(rows) for b in range(a))
    assert_same(uniformity(x, t), (naive / (rows * (rows - 1) / 2)).log(), (raw,))
    assert uniformity(x, t).item() == pytest.approx(F.pdist(x).pow(2).mul(-t).exp().mean().log().item())


def test_uniformity_counts_pairs_of_equal_rows():
    x = unit(1, 4).detach().repeat(3, 1).requires_grad_()
    assert uniformity(x).item() == pytest.approx(0.0)
    two = torch.cat([unit(1, 4), unit(1, 4), -unit(1, 4)])  # distances 0, 2, 2
    assert uniformity(two).item() == pytest.approx(math.log((1 + 2 * math.exp(-8)) / 3))


def test_uniformity_in_single_precision_of_a_full_batch():
    x = unit(512, 64, dtype=torch.float32)
    assert uniformity(x).item() == pytest.approx(uniformity(x.double()).item(), abs=1e-5)


def test_a_batch_of_one_has_no_pairs():
    x = unit(1, 4)
    loss = uniformity(x)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, x)[0].any()


@pytest.mark.parametrize("t", [2.0, 0.5])
@pytest.mark.parametrize("rows", [1, 5])
def test_cross_uniformity_is_over_the_given_pairs(rows, t):
    x, y = unit(rows, 4), unit(rows, 4, seed=1)
    naive = sum(torch.exp(-t * ((x[b] - y[b]) ** 2).sum()) for b in range(rows)) / rows
    assert_same(cross_uniformity(x, y, t), naive.log(), (x, y))


def test_bpr_is_the_mean_of_minus_log_sigmoid():
    positive = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    negative = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    naive = -sum(math.log(1 / (1 + math.exp(-(p - n)))) for p, n in zip([1, -2, 0.5], [0, 1, 0.5], strict=True)) / 3
    assert bpr(positive, negative).item() == pytest.approx(naive)
    assert_same(bpr(positive, negative), -F.logsigmoid(positive - negative).mean(), (positive, negative))
    many = torch.stack([negative, negative + 1], 1)  # (B, 2)
    assert_same(bpr(positive, many), -F.logsigmoid(positive[:, None] - many).mean(), (positive, negative))


def test_bpr_of_scores_far_apart_is_finite():
    assert bpr(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)
    assert bpr(torch.tensor([1e4]), torch.tensor([-1e4])).item() == 0


# --- Cross-entropy over all items ----------------------------------------------------------------------------------


def case(rows, items, dim=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = (torch.randn(rows, dim, generator=generator, dtype=torch.float64) * 3).to(dtype).requires_grad_()
    table = torch.randn(items, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return queries, table, torch.randint(items, (rows,), generator=generator)


def reference(queries, table, targets):
    return F.cross_entropy(queries @ table.T, targets)


@pytest.fixture
def chunks_of_16(monkeypatch):
    """The smallest chunk there is."""
    monkeypatch.setitem(losses.LOGITS_BYTES, "cpu", 1)


@pytest.mark.usefixtures("chunks_of_16")
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 32, 33, 100])
def test_cross_entropy_equals_pytorch_s_across_the_borders_of_chunks(rows):
    queries, table, targets = case(rows, 23)
    assert_same(item_cross_entropy(queries, table, targets), reference(queries, table, targets), (queries, table))


@pytest.mark.usefixtures("chunks_of_16")
@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 99))
def test_cross_entropy_equals_pytorch_s_on_any_shape(rows, items, seed):
    queries, table, targets = case(rows, items, seed=seed)
    assert_same(item_cross_entropy(queries, table, targets), reference(queries, table, targets), (queries, table))


def test_cross_entropy_in_single_precision_and_one_chunk():
    queries, table, targets = case(64, 500, dtype=torch.float32)
    assert_same(item_cross_entropy(queries, table, targets), reference(queries, table, targets), (queries, table), 1e-4)


@pytest.mark.usefixtures("chunks_of_16")
def test_the_gradient_from_above_scales_both():
    queries, table, targets = case(40, 23)
    ours, theirs = item_cross_entropy(queries, table, targets), reference(queries, table, targets)
    assert_same(ours * -2.5 + ours.detach(), theirs * -2.5 + theirs.detach(), (queries, table))


@pytest.mark.usefixtures("chunks_of_16")
def test_the_item_table_may_be_used_elsewhere_too():
    """As in a model, whose sequences are made of the items that they are scored against."""
    _, table, targets = case(40, 23)

    def objective(cross_entropy):
        return cross_entropy(table[targets].tanh() * 2, table, targets.flip(0)) + table.square().sum()

    assert_same(objective(item_cross_entropy), objective(reference), (table,))


def test_one_of_the_two_may_need_no_gradient():
    queries, table, targets = case(20, 23)
    for inputs in ((queries, table.detach()), (queries.detach(), table)):
        leaf = [x for x in inputs if x.requires_grad]
        assert_same(item_cross_entropy(*inputs, targets), reference(*inputs, targets), leaf)
    value = item_cross_entropy(queries.detach(), table.detach(), targets)
    assert not value.requires_grad
    with torch.no_grad():
        assert item_cross_entropy(queries, table, targets).item() == pytest.approx(value.item())


def test_going_backward_twice_is_right_or_refused():
    queries, table, targets = case(20, 23)
    loss = item_cross_entropy(queries, table, targets) * 0.5
    first = torch.autograd.grad(loss, (queries, table), retain_graph=True)
    expected = torch.autograd.grad(reference(queries, table, targets) * 0.5, (queries, table))
    for one, two in zip(first, expected, strict=True):
        torch.testing.assert_close(one, two)
    try:
        again = torch.autograd.grad(loss, (queries, table))
    except RuntimeError:
        return
    for one, two in zip(again, expected, strict=True):
        torch.testing.assert_close(one, two)


def test_scores_far_apart_stay_finite():
    queries = torch.tensor([[300.0], [-300.0], [0.0]], requires_grad=True)  # one is small
    table = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    loss = item_cross_entropy(queries, table, torch.tensor([0, 0, 0]))
    assert loss.item() == pytest.approx((600 + math.log(3)) / 3)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (queries, table)))


def test_inputs_stay_as_they_are():
    queries, table, targets = case(20, 23)
    before = queries.detach().clone(), table.detach().clone()
    item_cross_entropy(queries, table, targets).backward()
    assert torch.equal(queries.detach(), before[0])
    assert torch.equal(table.detach(), before[1])


def test_cross_entropy_under_autocast():
    """`train.precision="bfloat16"` calls it like this."""
    queries, table, targets = case(40, 23, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = item_cross_entropy(queries, table, targets)
    exact = reference(queries, table, targets)
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    ours = torch.autograd.grad(loss, (queries, table))
    for one, two in zip(ours, torch.autograd.grad(exact, (queries, table)), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_uniformity_under_autocast(dtype):
    """It is that of the rows as they come, computed in float32."""
    x = unit(200, 16, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = uniformity(x)
    exact = x.detach().double().requires_grad_()
    expected = uniformity(exact)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,), (other,) = gradients(loss, (x,)), gradients(expected, (exact,))
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, other.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-7)


def test_losses_on_the_meta_device():
    with OneDevice():
        x, y = (torch.empty(6, 4, device="meta", requires_grad=True) for _ in range(2))
        targets = torch.empty(6, dtype=torch.int64, device="meta")
        loss = alignment(x, y) + uniformity(x) + cross_uniformity(x, y) + bpr(x[:, 0], y[:, 0])
        (loss + item_cross_entropy(x, torch.empty(30, 4, device="meta", requires_grad=True), targets)).backward()


# --- Its cost ------------------------------------------------------------------------------------------------------

MEASURE = """
import json, re, sys, time, torch
from dglrec.losses import item_cross_entropy

def peak():
    # Not ru_maxrss, which starts from the parent's.
    return int(re.search("VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

torch.set_num_threads(1)
torch.manual_seed(0)
items, dim, targets = 1_000_000, 64, int(sys.argv[1])
table = torch.nn.Parameter(torch.empty(items, dim).normal_(std=.1))
queries = torch.randn(targets, dim, requires_grad=True)
wanted = torch.randint(items, (targets,))
small = torch.randn(9, dim, requires_grad=True)
item_cross_entropy(small, small, torch.arange(9)).backward()  # what a first call loads
before = peak()
start = time.perf_counter()
loss = item_cross_entropy(queries, table, wanted)
loss.backward()
seconds = time.perf_counter() - start
taken = peak() - before - table.numel() * 4
assert table.grad.shape == table.shape and bool(table.grad.any())
print(json.dumps({"bytes": taken, "loss": loss.item(), "seconds": seconds}))
"""


@pytest.mark.parametrize(
    "targets", [pytest.param(128, id="128"), pytest.param(4096, id="4096", marks=pytest.mark.slow)]
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_million_items_cost_less_than_two_gigabytes(targets):
    """Beyond the table and its gradient. All logits of 4,096 targets would take 16 GB, of 128 half a gigabyte."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(targets)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=900,
    )
    measured = json.loads(done.stdout)
    assert -(2**24) < measured["bytes"] < (2**31 if targets == 4096 else 2**28)
    assert measured["loss"] == pytest.approx(math.log(1e6) + 0.32, abs=0.6)  # logits of variance .64


def test_hinge_and_pair_cross_entropy_by_hand():
    positive, negative = torch.tensor([2.0, 0.5]), torch.tensor([0.0, 1.0])
    assert float(hinge(positive, negative)) == pytest.approx((0 + 1.5) / 2)
    logs = [-math.log(1 / (1 + math.exp(-p))) for p in (2.0, 0.5)] + [
        -math.log(1 - 1 / (1 + math.exp(-n))) for n in (0.0, 1.0)
    ]
    assert float(pair_cross_entropy(positive, negative)) == pytest.approx(sum(logs) / 4)


def test_info_nce_by_hand():
    torch.manual_seed(0)
    anchor, positive, negative = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 2, 4)

    def cosine(x, y):
        return float(x @ y / (x.norm() * y.norm()))

    def by_hand(others):
        total = 0.0
        for row in range(3):
            logits = [cosine(anchor[row], one) / 0.5 for one in (positive[row], *others(row))]
            total -= logits[0] - math.log(sum(math.exp(one) for one in logits))
        return total / 3

    assert float(info_nce(anchor, positive, negative, 0.5)) == pytest.approx(by_hand(lambda row: negative[row]))
    shared = negative[0]
    assert float(info_nce(anchor, positive, shared, 0.5)) == pytest.approx(by_hand(lambda row: shared))
    assert float(info_nce(anchor, positive, negative[:, :0])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_info_nce_under_autocast(shared):
    """Cosines of negatives are as exact as those of positives: over a small tau their rounding would show."""
    anchor, positive, negative = (
        torch.randn(shape, generator=torch.Generator().manual_seed(n))
        for n, shape in enumerate([(6, 32), (6, 32), (9, 32) if shared else (6, 9, 32)])
    )
    exact = info_nce(anchor, positive, negative, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert info_nce(anchor, positive, negative, 0.05).item() == pytest.approx(exact.item(), rel=1e-6)


def test_the_sum_of_squares_and_its_gradient():
    x = unit(3, 4).detach().reshape(2, 3, 2).transpose(0, 1).requires_grad_()  # not contiguous
    assert_same(sum_of_squares(x), (x**2).sum(), [x])
    (x.sum() * 2 + 0.5 * sum_of_squares(x)).backward()
    torch.testing.assert_close(x.grad, 2 + x.detach())
