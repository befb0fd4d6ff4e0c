"""The packed causal transformer against a padded one that is made of PyTorch's own layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dglrec.errors import DataError
from dglrec.graphs import Sequences
from dglrec.nn import CausalTransformer, attention
from dglrec.nn.attention import (
    BUCKET_RATIO,
    Buckets,
    _BucketAttention,
    biased_attention,
    causal_attention,
    full_attention,
)
from tests.contract.model_contract import OneDevice

DIM, ITEMS = 16, 30


def packed(lengths, seed=0):
    lengths = np.asarray(lengths)
    items = np.random.default_rng(seed).integers(ITEMS, size=lengths.sum())
    return Sequences(torch.as_tensor(np.concatenate([[0], np.cumsum(lengths)])), torch.as_tensor(items))


def make(layers=2, heads=2, dropout=0.0, length=50, dtype=torch.float64, **arguments):
    """An encoder with weights far from their initial symmetry, in double precision unless asked otherwise."""
    torch.manual_seed(1)
    encoder = CausalTransformer(DIM, length, layers, heads, 32, dropout, dropout, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder


def padded_reference(encoder, sequences, table):
    """The same network on sequences padded to the longest: nn.TransformerEncoderLayer with copied weights."""
    lengths = sequences.offsets.diff()
    rows, longest = len(lengths), int(lengths.max())
    real = torch.arange(longest) < lengths[:, None]  # (B, L)
    items = torch.zeros(rows, longest, dtype=torch.int64)
    items[real] = sequences.items
    x = nn.functional.layer_norm(
        table[items] + encoder.position.weight[:longest],
        (DIM,),
        encoder.norm.weight,
        encoder.norm.bias,
        encoder.norm.eps,
    )
    causal = torch.ones(longest, longest, dtype=torch.bool).triu(1)
    for block in encoder.blocks:
        layer = nn.TransformerEncoderLayer(
            DIM, block.heads, 32, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True, dtype=x.dtype
        )
        weights = {
            "self_attn.in_proj_weight": torch.cat([block.query.weight, block.key.weight, block.value.weight]),
            "self_attn.in_proj_bias": torch.cat([block.query.bias, block.key.bias, block.value.bias]),
            "self_attn.out_proj.weight": block.out.weight,
            "self_attn.out_proj.bias": block.out.bias,
            "linear1.weight": block.inner.weight,
            "linear1.bias": block.inner.bias,
            "linear2.weight": block.outer.weight,
            "linear2.bias": block.outer.bias,
            "norm1.weight": block.attention_norm.weight,
            "norm1.bias": block.attention_norm.bias,
            "norm2.weight": block.norm.weight,
            "norm2.bias": block.norm.bias,
        }
        masks = {"src_mask": causal, "src_key_padding_mask": ~real}
        x = torch.func.functional_call(layer.train(), weights, (x,), masks)
    return x[real]  # (T, d)


def compare(encoder, sequences, last, tolerance):
    table = torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    table = table.to(encoder.position.weight.dtype).requires_grad_()
    ours, reference = encoder(sequences, table, last=last), padded_reference(encoder, sequences, table)
    if last:
        reference = reference[sequences.offsets[1:] - 1]
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(ours.dtype)
    leaves = {"table": table, **dict(encoder.named_parameters())}
    # the last block's key bias moves all scores of a query alike: its gradient is 0, or None where it is not computed
    one, two = (
        torch.autograd.grad((x * weight).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        for x in (ours, reference)
    )
    for name, left, right in zip(leaves, one, two, strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("last", [False, True])
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_it_equals_the_padded_reference_in_values_and_gradients(last, lengths):
    compare(make(), packed(lengths), last, 1e-9)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (1, 4), (3, 2)])
def test_with_other_numbers_of_layers_and_heads(layers, heads, last):
    compare(make(layers, heads), packed([1, 50, 7, 7, 30, 2, 49]), last, 1e-9)


@pytest.mark.parametrize("last", [False, True])
def test_in_single_precision(last):
    compare(make(dtype=torch.float32), packed(np.arange(1, 51)), last, 2e-4)


def test_in_training_mode_without_dropout_it_is_the_same():
    encoder, sequences, table = make(), packed([3, 9, 1]), torch.randn(ITEMS, DIM, dtype=torch.float64)
    assert torch.equal(encoder.train()(sequences, table), encoder.eval()(sequences, table))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=10))
def test_the_last_states_are_rows_of_all_states(lengths):
    encoder, sequences = make().eval(), packed(lengths)
    table = torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = encoder(sequences, table)
    torch.testing.assert_close(encoder(sequences, table, last=True), whole[sequences.offsets[1:] - 1])


def test_without_blocks_the_last_states_are_rows_too():
    encoder, sequences = make(layers=0), packed([2, 5])
    table = torch.randn(ITEMS, DIM, dtype=torch.float64)
    assert torch.equal(encoder(sequences, table, last=True), encoder(sequences, table)[[1, 6]])


def test_no_state_depends_on_later_items_or_on_other_sequences():
    encoder, table = make().eval(), torch.randn(ITEMS, DIM, dtype=torch.float64)
    sequences = packed([9, 4, 9, 1])
    before = encoder(sequences, table)
    items = sequences.items.clone()
    items[5] = (items[5] + 1) % ITEMS  # the sixth item of the first sequence
    changed = (encoder(Sequences(sequences.offsets, items), table) - before).abs().amax(1) > 1e-12
    assert changed.tolist() == [False] * 5 + [True] * 4 + [False] * 14


@pytest.mark.parametrize("last", [False, True])
def test_sequences_of_one_item(last):
    encoder = make(dtype=torch.float32, dropout=0.5).train()
    table = torch.randn(ITEMS, DIM, requires_grad=True)
    out = encoder(packed([1, 1, 1]), table, last=last)
    assert out.shape == (3, DIM)
    assert torch.isfinite(out).all()
    out.sum().backward()
    grads = [p.grad for p in (table, *encoder.parameters()) if p.grad is not None]  # a key bias may have none
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_with_dropout_it_repeats_with_the_generator():
    encoder, sequences, table = (
        make(dropout=0.3, layers=1),
        packed([5, 8, 2]),
        torch.randn(ITEMS, DIM, dtype=torch.float64),
    )
    encoder.train()
    torch.manual_seed(4)
    one, two = encoder(sequences, table), encoder(sequences, table)
    torch.manual_seed(4)
    assert torch.equal(one, encoder(sequences, table))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("last", [False, True])
@torch.no_grad()
def test_attention_weights_are_dropped_in_training_alone(last):
    encoder, sequences = make(layers=1), packed([5, 8, 2])
    encoder.blocks[0].attention_dropout = 0.5
    table = torch.randn(ITEMS, DIM, dtype=torch.float64)
    one, two = (encoder.train()(sequences, table, last=last) for _ in range(2))
    assert not torch.allclose(one, two)
    one, two = (encoder.eval()(sequences, table, last=last) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("lengths", "seen"), [([3, 0, 2], "0 to 3"), ([51], "51 to 51"), ([], "no sequences"), ([50, 51, 1], "1 to 51")]
)
def test_lengths_that_cannot_be_read(lengths, seen):
    offsets = torch.as_tensor(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    sequences = Sequences(offsets, torch.zeros(int(offsets[-1]), dtype=torch.int64))
    with pytest.raises(DataError, match=seen):
        make()(sequences, torch.randn(ITEMS, DIM, dtype=torch.float64))


@pytest.mark.parametrize("last", [False, True])
def test_on_the_meta_device(last):
    encoder = make(dropout=0.5, dtype=torch.float32).train().to("meta")
    table = torch.empty(ITEMS, DIM, device="meta", requires_grad=True)
    with OneDevice():
        encoder(packed([4, 9, 1]).to("meta"), table, last=last).sum().backward()
    assert table.grad.shape == table.shape


# --- Buckets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 3])
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_buckets_hold_each_row_once(heads, lengths):
    buckets = Buckets(np.array(lengths))
    slots, places = (x.numpy() for x in (buckets.slots(heads).slots, buckets.slots(heads).places))
    np.testing.assert_array_equal(slots[places], np.arange(sum(lengths) * heads))
    assert sorted(buckets.order.tolist()) == list(range(len(lengths)))
    assert sum(rows for rows, _ in buckets.shapes) == len(lengths)
    assert sum(rows * length for rows, length in buckets.shapes) * heads == len(slots)
    ends, place, row = np.cumsum(lengths), 0, 0
    for rows, longest in buckets.shapes:
        for _ in range(rows):  # each line of a bucket: a head of a sequence, then its last row again
            sequence = int(buckets.order[row])
            assert lengths[sequence] == int(buckets.lengths[row]) <= longest
            first, last = ends[sequence] - lengths[sequence], ends[sequence] - 1
            expected = np.array([*range(first, last + 1), *[last] * (longest - lengths[sequence])])
            for head in range(heads):
                np.testing.assert_array_equal(slots[place : place + longest], expected * heads + head)
                place += longest
            row += 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_padding_is_bounded_whatever_the_lengths(lengths):
    buckets = Buckets(np.array(lengths))
    assert 0 <= buckets.padding < 1 - BUCKET_RATIO
    assert buckets.padding == pytest.approx(1 - sum(lengths) / sum(rows * length for rows, length in buckets.shapes))


def test_padding_on_lengths_as_they_are():
    """Lengths as on Amazon Beauty (mean 8 to 9, few long): a handful of buckets, less than a fifth of padding."""
    lengths = np.minimum(1 + np.random.default_rng(0).exponential(8, size=512).astype(np.int64), 50)
    buckets = Buckets(lengths)
    assert buckets.padding < 0.2
    assert len(buckets.shapes) < 10


# --- Attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_the_gradient_of_bucket_attention(p):
    """By finite differences, with the dropped weights the same at each call."""
    q, k, v, _, buckets = small_buckets()
    later = torch.full((1, 5, 5), -torch.inf, dtype=torch.float64).triu_(1)

    def attend(*x):
        torch.manual_seed(7)
        return _BucketAttention.apply(*x, later, buckets, 0.5, p)

    torch.autograd.gradcheck(attend, [x.requires_grad_() for x in (q, k, v)])


def small_buckets():
    """Padded rows of two heads, a bias of pairs, and their buckets: of 5, 4 and 4 rows, of 2, and of 1."""
    buckets = Buckets(np.array([4, 1, 5, 2, 4]))
    assert buckets.shapes == [(3, 5), (1, 2), (1, 1)]
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 2 * 18, 4, dtype=torch.float64, generator=random).unbind()
    return *rows, torch.randn(2, 5, 5, dtype=torch.float64, generator=random), buckets


def test_the_gradient_of_bucket_attention_with_a_bias():
    q, k, v, bias, buckets = small_buckets()
    arguments = [x.requires_grad_() for x in (q, k, v, bias)]
    torch.autograd.gradcheck(lambda *x: _BucketAttention.apply(*x, buckets, 1.0, 0.0, True), arguments)


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
def test_attention_with_a_bias_is_that_of_each_sequence_alone(device, monkeypatch):
    """On the path of a CPU and, here run on a CPU, on that of a GPU; values and gradients."""
    if device == "elsewhere":
        monkeypatch.setattr(attention, "USES_BUCKETS", ())
    lengths, random = np.array([7, 50, 3, 49, 1]), torch.Generator().manual_seed(0)
    rows = [torch.randn(110, 8, dtype=torch.float64, generator=random).requires_grad_() for _ in range(3)]
    bias = torch.randn(2, 50, 50, dtype=torch.float64, generator=random).requires_grad_()
    for several in (True, False):
        mixed = biased_attention(*rows, bias, Buckets(lengths, several=several))
        expected = []
        for q, k, v in zip(*(x.split(lengths.tolist()) for x in rows), strict=True):
            length = len(q)
            q, k, v = (x.view(length, 2, 4).transpose(0, 1) for x in (q, k, v))
            weights = (q @ k.transpose(1, 2) + bias[:, :length, :length]).softmax(2)
            expected.append((weights @ v).transpose(0, 1).reshape(length, 8))
        assert torch.allclose(mixed, torch.cat(expected))
        grads = [torch.autograd.grad((x**2).sum(), [*rows, bias]) for x in (mixed, torch.cat(expected))]
        assert all(torch.allclose(one, other) for one, other in zip(*grads, strict=True))


def test_full_attention_is_the_same_with_and_without_dropout_that_drops_nothing(monkeypatch):
    """With dropout a CPU takes a path of its own; at 1e-9 it keeps all. The path of a GPU has one bucket."""
    lengths, random = np.array([7, 50, 3, 49, 1]), torch.Generator().manual_seed(0)
    rows = [torch.randn(110, 8, dtype=torch.float64, generator=random).requires_grad_() for _ in range(3)]
    expected = full_attention(*rows, Buckets(lengths), 2, 0.0)
    towards = torch.randn_like(expected)
    for p, buckets in ((1e-9, Buckets(lengths)), (0.0, Buckets(lengths, several=False))):
        found = full_attention(*rows, buckets, 2, p)
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(x, rows, towards, retain_graph=True) for x in (found, expected)]
        torch.testing.assert_close(*grads)
    torch.manual_seed(0)
    mean = torch.stack([full_attention(*rows, Buckets(lengths), 2, 0.5) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, expected, rtol=0.2, atol=0.15)


def test_the_path_of_a_gpu_equals_that_of_a_cpu(monkeypatch):
    """One bucket and PyTorch's own attention, here run on a CPU."""
    q, k, v = torch.randn(3, 60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    lengths = np.array([7, 50, 3])
    expected = causal_attention(q, k, v, Buckets(lengths), 2, 0.0)
    monkeypatch.setattr(attention, "USES_BUCKETS", ())
    buckets = Buckets(lengths)
    assert buckets.shapes == [(3, 50)]
    torch.testing.assert_close(causal_attention(q, k, v, buckets, 2, 0.0), expected)
