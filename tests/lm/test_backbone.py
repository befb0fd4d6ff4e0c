"""The package's way through a T5 is the library's own, prompt by prompt."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from dglrec.lm import backbone
from dglrec.lm.backbone import Backbone, padded_parts
from dglrec.nn.attention import Buckets

LENGTHS = np.array([3, 40, 7, 1, 39, 12])
WORDS = ["a user took items", "and so did users", "what comes next"]


@pytest.fixture(params=["gated-gelu", "relu"])
def t5(request):
    model = Backbone("tiny", WORDS, dim=16, layers=3, heads=4, inner=24, dropout=0.1)
    if request.param == "relu":  # as the first T5 were
        from transformers import T5Config, T5Model

        config = T5Config(
            vocab_size=20, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=4, feed_forward_proj="relu"
        )
        other = T5Model(config)
        model.encoder, model.decoder = other.encoder, other.decoder
    for weights in model.parameters():  # the library begins so small that nothing would differ
        torch.nn.init.normal_(weights, std=0.3, generator=torch.Generator().manual_seed(weights.numel()))
    return model.double().eval()


def library_states(t5, vectors):
    """Encoder states and the decoder's first state of each prompt, one at a time, without padding."""
    states, answers = [], []
    for own in vectors.split(LENGTHS.tolist()):
        state = t5.encoder(inputs_embeds=own[None]).last_hidden_state
        states.append(state[0])
        mask = torch.ones(1, len(own), dtype=torch.int64)
        answers.append(t5.decode(state, mask, t5.start(1))[:, 0])
    return torch.cat(states), torch.cat(answers)


def test_packed_prompts_are_read_and_answered_as_by_the_library(t5):
    vectors = torch.randn(int(LENGTHS.sum()), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, grads = [], []
    for way in ("library", "here"):
        own = vectors.clone().requires_grad_()
        if way == "library":
            states, answers = library_states(t5, own)
        else:
            states, answers = t5.encode(t5.encoder, own, LENGTHS), t5.answers(own, LENGTHS)
        found.append((states, answers))
        t5.zero_grad()
        (states.square().sum() + answers.square().sum()).backward()
        grads.append({name: x.grad for name, x in t5.named_parameters() if x.grad is not None} | {"vectors": own.grad})
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other)
    # Queries and keys of the one token decide nothing in its self-attention: zeros by the library, none here.
    for name, expected in grads[0].items():  # norms are computed in single precision
        close = {"rtol": 1e-5, "atol": 1e-6 * float(expected.abs().max())}
        assert torch.allclose(grads[1].get(name, torch.zeros_like(expected)), expected, **close), name
    assert grads[1]["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].abs().max() > 0


def test_beams_are_continued_as_by_the_library(t5):
    """The last state of each beam of each prompt, where the prompts are padded; and it depends on all that was said."""
    generator = torch.Generator().manual_seed(1)
    states, said = (torch.randn(*shape, 16, dtype=torch.float64, generator=generator) for shape in ((3, 7), (3, 4, 5)))
    mask = (torch.arange(7) < torch.tensor([7, 2, 5])[:, None]).long()
    found = backbone.beam_states(t5.decoder, said, states, mask)
    for row in range(3):
        own = states[row : row + 1, : int(mask[row].sum())]
        for beam in range(4):
            wanted = t5.decode(own, torch.ones(own.shape[:2], dtype=torch.int64), said[row : row + 1, beam])[0, -1]
            torch.testing.assert_close(found[row, beam], wanted, rtol=1e-5, atol=1e-6)
    other = said.clone()
    other[:, :, 0] += 1
    assert not torch.allclose(backbone.beam_states(t5.decoder, other, states, mask), found)


def test_pieces_of_many_prompts_change_nothing(t5, monkeypatch):
    vectors = torch.randn(int(LENGTHS.sum()), 16, dtype=torch.float64)
    with torch.no_grad():
        whole = t5.encode(t5.encoder, vectors, LENGTHS), t5.pooled(t5.encoder, vectors, LENGTHS)
        monkeypatch.setitem(backbone.SLOTS, "cpu", 20)
        parts = t5.encode(t5.encoder, vectors, LENGTHS), t5.pooled(t5.encoder, vectors, LENGTHS)
    assert all(torch.allclose(one, other) for one, other in zip(whole, parts, strict=True))


def test_pooling(t5):
    vectors = torch.randn(int(LENGTHS.sum()), 16, dtype=torch.float64)
    last = torch.as_tensor(np.cumsum(LENGTHS) - 1)
    with torch.no_grad():
        states = t5.encode(t5.encoder, vectors, LENGTHS).split(LENGTHS.tolist())
        assert torch.allclose(t5.pooled(t5.encoder, vectors, LENGTHS), torch.stack([x.mean(0) for x in states]))
        assert torch.allclose(t5.pooled(t5.encoder, vectors, LENGTHS, last), torch.stack([x[-1] for x in states]))


def test_padded_parts_hold_each_prompt_once():
    states = torch.arange(int(LENGTHS.sum()), dtype=torch.float32)[:, None]
    seen = {}
    for rows, part, mask in padded_parts(states, LENGTHS, widen=1000):
        assert part.shape[:2] == mask.shape
        for row, own, real in zip(rows.tolist(), part, mask, strict=True):
            seen[row] = own[real.bool(), 0].tolist()
    expected = torch.arange(len(states)).split(LENGTHS.tolist())
    assert seen == {row: own.tolist() for row, own in enumerate(expected)}
    assert len(Buckets(LENGTHS).shapes) > 1
