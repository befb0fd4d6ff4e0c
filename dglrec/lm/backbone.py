"""T5 as a backbone: an encoder and a decoder over vectors, packed prompts in, one state per prompt out.

`transformers` is imported when a backbone is made. `tiny` is a small T5 from its config, with a tokenizer trained on
the given texts, so that it needs no download; any other name is that of a T5 on the hub, or a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.attention import Buckets, biased_attention, query_attention
from ..nn.dropout import Dropout

TINY = "tiny"
SLOTS = {"cpu": 1 << 14, "cuda": 1 << 18}  # maximum number of tokens encoded together, with padding
MEND = 'pip install "dglrec[lm]"'
KINDS = ("t5", "mt5")  # models of this architecture: all layers of a stack share the bias of their first
_PATIENCE = 10  # seconds for the hub to answer


def library(name: str) -> Any:
    """A library of the extra `lm`.

    Raises:
        ConfigError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise ConfigError(f"language models need {name}, which is not installed: {MEND}") from None


class Backbone(nn.Module):
    """The word table, the encoder and the decoder of a T5.

    Args:
        name: "tiny", the name of a T5 on the hub, or a folder that holds one.
        texts: what the tokenizer of "tiny" is trained on.
        dim, layers, heads, inner, dropout: of "tiny"; a pre-trained model has its own.

    Attributes:
        dim: width d.
        end: the token that ends a prompt.
        tokenize: text -> token numbers, without the end.
        pretrained: whether weights were loaded.

    Raises:
        ConfigError: `transformers` is not installed, the model is not on this machine and cannot be fetched, it is not
            a T5, or "tiny" has more heads than dimensions.
    """

    tokenize: Callable[[str], list[int]]
    _work: tuple[int, int] = (0, 0)  # tokens that were encoded in training, and their padding

    def __init__(
        self, name: str, texts: Sequence[str], dim: int, layers: int, heads: int, inner: int, dropout: float
    ) -> None:
        super().__init__()
        transformers = library("transformers")
        self.pretrained = name != TINY
        if self.pretrained:
            model, self.tokenize, self.end = _fetched(transformers, name)
        else:
            if heads > dim:
                raise ConfigError(f"heads is {heads} and dim {dim}; expected no more heads than dimensions")
            self.tokenize, count = _trained_tokenizer(texts)
            self.end = 1
            config = transformers.T5Config(
                vocab_size=count, d_model=dim, d_kv=dim // heads, d_ff=inner, num_layers=layers,
                num_decoder_layers=layers, num_heads=heads, dropout_rate=dropout, feed_forward_proj="gated-gelu",
                pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
            )  # fmt: skip
            model = transformers.T5Model(config)
        self.dim: int = model.config.d_model
        self.words = nn.Embedding.from_pretrained(model.shared.weight.detach().clone(), freeze=False)
        self.begin = nn.Parameter(self.words.weight[:1].detach().clone())  # T5 begins with its padding token
        self.encoder, self.decoder = model.encoder, model.decoder
        for stack in (self.encoder, self.decoder):
            stack.embed_tokens = None  # they are given vectors; the table is `words`
            _quicken(stack)

    def encode(self, encoder: nn.Module, vectors: Tensor, lengths: np.ndarray) -> Tensor:
        """The encoder's states of all tokens of all prompts, (T, d); in training, encoded tokens are counted.

        Args:
            encoder: this backbone's, or its momentum copy.
            vectors: (T, d) packed token vectors.
            lengths: (B,) tokens of each prompt.
        """
        states, first = [], 0
        for own in _pieces(lengths, SLOTS.get(vectors.device.type, SLOTS["cpu"])):
            tokens, buckets = int(own.sum()), Buckets(own, vectors.device, several=True)
            states.append(encode(encoder, vectors[first : first + tokens], buckets))
            first += tokens
            if self.training:
                slots = sum(rows * length for rows, length in buckets.shapes)
                self._work = self._work[0] + tokens, self._work[1] + slots - tokens
        return torch.cat(states)

    def pooled(self, encoder: nn.Module, vectors: Tensor, lengths: np.ndarray, at: Tensor | None = None) -> Tensor:
        """The mean of each prompt's states, (B, d), or the states of the tokens `at` (B,).

        Args:
            encoder, vectors, lengths: see `encode`.
            at: indices of tokens among all T.
        """
        states = self.encode(encoder, vectors, lengths)
        if at is not None:
            return states[at]
        starts = torch.as_tensor(np.cumsum(lengths) - lengths, device=states.device)
        tokens = torch.arange(len(states), device=states.device)
        return F.embedding_bag(tokens, states, starts, mode="mean")

    def answers(self, vectors: Tensor, lengths: np.ndarray) -> Tensor:
        """The decoder's first state for each prompt, (B, d): the answer is one token."""
        states = self.encode(self.encoder, vectors, lengths)
        said = self.begin.expand(len(lengths), -1)
        return first_states(self.decoder, said, states, Buckets(lengths, states.device, several=True))

    def figures(self) -> dict[str, float]:
        """Tokens that were encoded in training since the last call, and the share of padding in attention."""
        (tokens, padding), self._work = self._work, (0, 0)
        return {"tokens": tokens, "padding": padding / max(tokens + padding, 1)}

    def start(self, rows: int) -> Tensor:
        """(B, 1, d): what decoding begins with."""
        return self.begin.expand(rows, 1, -1)

    def decode(self, states: Tensor, mask: Tensor, said: Tensor) -> Tensor:
        """Decoder states (B, t, d) after the tokens so far (B, t, d), on encoder states (B, L, d) with mask (B, L)."""
        found = self.decoder(
            inputs_embeds=said, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        )
        return found.last_hidden_state


def encode(encoder: Any, vectors: Tensor, buckets: Buckets) -> Tensor:
    """A T5 encoder's states of packed prompts, (T, d) -> (T, d): its own layers on rows without padding.

    The library's own forward pass pads in every layer, and takes each bucket through all layers separately.
    """
    longest = buckets.shapes[0][1]
    bias = encoder.block[0].layer[0].SelfAttention.compute_bias(longest, longest)[0]  # (h, L, L), of all layers
    states: Tensor = encoder.dropout(vectors)
    for block in encoder.block:
        own, feed = block.layer
        attention, x = own.SelfAttention, own.layer_norm(states)
        mixed = biased_attention(attention.q(x), attention.k(x), attention.v(x), bias, buckets)
        states = feed(states + own.dropout(attention.o(mixed)))
    final: Tensor = encoder.dropout(encoder.final_layer_norm(states))
    return final


def first_states(decoder: Any, said: Tensor, states: Tensor, buckets: Buckets) -> Tensor:
    """A T5 decoder's states after one token each, (B, d), over encoder states (T, d).

    The one token attends to itself only, so that its self-attention is its value.
    """
    x: Tensor = decoder.dropout(said)
    for block in decoder.block:
        own, cross, feed = block.layer
        x = x + own.dropout(own.SelfAttention.o(own.SelfAttention.v(own.layer_norm(x))))
        attention = cross.EncDecAttention
        query = attention.q(cross.layer_norm(x)).unflatten(1, (attention.n_heads, -1))  # T5 does not scale
        mixed = query_attention(query, states, attention.k.weight, attention.v, buckets)
        x = feed(x + cross.dropout(attention.o(mixed)))
    final: Tensor = decoder.dropout(decoder.final_layer_norm(x))
    return final


def beam_states(decoder: Any, said: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """A T5 decoder's last state of each of w beams, (B, w, d), after the tokens so far (B, w, t, d).

    As the library computes it, but the keys and values of a prompt are made once for all of its beams.

    Args:
        decoder: of a T5.
        said: (B, w, t, d).
        states: (B, L, d) of the encoder.
        mask: (B, L), 0 for padding.
    """
    beams, steps = said.shape[1:3]
    later = torch.ones(steps, steps, dtype=torch.bool, device=said.device).triu(1)
    bias = decoder.block[0].layer[0].SelfAttention.compute_bias(steps, steps)  # (1, h, t, t), of all layers
    bias = bias.masked_fill(later, -torch.inf)
    real = mask[:, None, None].bool()  # (B, 1, 1, L)
    x: Tensor = decoder.dropout(said.flatten(0, 1))  # (B w, t, d)
    for block in decoder.block:
        own, cross, feed = block.layer
        inner = own.layer_norm(x)
        x = x + own.dropout(_attended(own.SelfAttention, inner, inner, bias))
        query = cross.layer_norm(x).unflatten(0, (-1, beams)).flatten(1, 2)  # (B, w t, d)
        mixed = _attended(cross.EncDecAttention, query, states, real).unflatten(1, (beams, steps)).flatten(0, 1)
        x = feed(x + cross.dropout(mixed))
    final: Tensor = decoder.dropout(decoder.final_layer_norm(x[:, -1]))
    return final.unflatten(0, (-1, beams))


def _attended(attention: Any, query: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """A T5's attention of queries (B, n, d) to states (B, L, d), which T5 does not scale -> (B, n, d)."""
    parts = (attention.q(query), attention.k(states), attention.v(states))
    q, k, v = (part.unflatten(2, (attention.n_heads, -1)).transpose(1, 2) for part in parts)  # (B, h, n, c)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    found: Tensor = attention.o(mixed.transpose(1, 2).flatten(2))
    return found


def _pieces(lengths: np.ndarray, limit: int) -> list[np.ndarray]:
    """Prompts in order, cut into pieces of about `limit` tokens."""
    ends = np.cumsum(lengths)
    cuts = np.flatnonzero(np.diff(ends // limit)) + 1
    return np.split(lengths, cuts)


def padded_parts(states: Tensor, lengths: np.ndarray, widen: int = 1) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Packed states in parts of similar length: which prompts (b,), their states (b, L, d), which are real (b, L).

    Args:
        states: (T, d).
        lengths: (B,).
        widen: how many times each prompt will be read; parts are smaller by this factor.
    """
    device = states.device
    buckets = Buckets(lengths, device, several=True)
    padded = buckets.slots().pad(states)  # a padding slot repeats a row, masked below
    first, slot = 0, 0
    limit = SLOTS.get(device.type, SLOTS["cpu"]) // widen
    for rows, length in buckets.shapes:
        step = max(1, limit // length)
        part = padded[slot : slot + rows * length].view(rows, length, -1)
        mask = (torch.arange(length, device=device) < buckets.lengths[first : first + rows, None]).long()
        for begin in range(0, rows, step):
            piece = slice(begin, begin + step)
            yield buckets.order[first : first + rows][piece], part[piece], mask[piece]
        first, slot = first + rows, slot + rows * length


def _quicken(stack: nn.Module) -> None:
    """Dropout by the package's own module, and none of the attention's weights: saves a quarter of a step on a CPU."""
    for module in list(stack.modules()):
        for name, part in list(module.named_children()):
            if type(part) is nn.Dropout:
                setattr(module, name, Dropout(part.p))
        if type(module).__name__ == "T5Attention":
            setattr(module, "dropout", 0.0)  # noqa: B010 - a number there, a module elsewhere


def in_order(found: list[Tensor], order: list[Tensor]) -> Tensor:
    """The rows of all parts, each at its own number."""
    rows = torch.cat(found)
    return torch.empty_like(rows).index_copy(0, torch.cat(order), rows)


def _trained_tokenizer(texts: Sequence[str]) -> tuple[Callable[[str], list[int]], int]:
    """A byte-pair tokenizer of the texts' words, and its number of tokens; 0 is padding, 1 the end, 2 unknown."""
    tokenizers = library("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return (lambda text: tokenizer.encode(text).ids), int(tokenizer.get_vocab_size())


def _fetched(transformers: Any, name: str) -> tuple[Any, Callable[[str], list[int]], int]:
    """A pre-trained T5, its tokenizer and its end token: from a folder, what was fetched before, or the hub."""
    if not name.strip():
        raise ConfigError(f"backbone is {name!r}; expected {TINY!r}, or the name or folder of a T5")
    is_here = Path(name).exists()
    try:
        return _read(transformers, name, local_files_only=True)
    except ConfigError:
        raise
    except Exception as error:  # the library raises a dozen different things
        failure = error
    try:
        if not is_here:
            # One request whether the hub has such a model: reading it makes many requests, with long pauses.
            library("huggingface_hub").HfApi().model_info(name, timeout=_PATIENCE)
            return _read(transformers, name, local_files_only=False)
    except ConfigError:
        raise
    except Exception as error:
        failure = error
    reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    raise ConfigError(
        f"backbone {name!r} is not a {'folder' if is_here else 'model'} that can be read ({reason[:120]}); without a "
        "network, use the folder of a downloaded T5 (with model.safetensors), or backbone='tiny', "
        "which needs no download"
    ) from None


def _read(transformers: Any, name: str, **how: Any) -> tuple[Any, Callable[[str], list[int]], int]:
    """See `_fetched`. Weights are read as safetensors, no code is fetched."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, **how)
    kind = transformers.AutoConfig.from_pretrained(name, **how).model_type
    if kind not in KINDS:  # the library would read what fits of another model, and leave out the rest
        raise ConfigError(f"backbone {name!r} is of the kind {kind!r}; expected a T5, such as google/flan-t5-small")
    model = transformers.T5ForConditionalGeneration.from_pretrained(name, use_safetensors=True, **how)
    return model, (lambda text: tokenizer.encode(text, add_special_tokens=False)), int(model.config.eos_token_id)
