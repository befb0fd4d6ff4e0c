"""Decoding names: a trie of all names, and beam search in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError


class Trie(nn.Module):
    """The beginnings of all names; state 0 is the empty beginning.

    Args:
        names: the token numbers of each item's name, 0 to `size` - 1, without the end token.
        size: number of tokens; `size` itself is the end token.

    Attributes:
        size: number of tokens, without the end.
        offsets: (states + 1,) int64, the ways on from state s are `offsets[s]` to `offsets[s + 1]`.
        token: (ways,) int32, the token of each way.
        target: (ways,) int32, the state that it leads to.
        item: (states,) int64, the item whose name, with its end, leads to the state; -1 for none.
        depth: number of tokens of the longest name, with its end.
    """

    offsets: Tensor
    token: Tensor
    target: Tensor
    item: Tensor

    def __init__(self, names: Sequence[Sequence[int]], size: int) -> None:
        super().__init__()
        children: list[dict[int, int]] = [{}]
        ends: list[tuple[int, int]] = []
        for item, name in enumerate(names):
            state = 0
            for part in (*name, size):
                if part not in children[state]:
                    children[state][part] = len(children)
                    children.append({})
                state = children[state][part]
            ends.append((state, item))
        if len({state for state, _ in ends}) < len(ends):
            raise ConfigError("two items have the same name; expected distinct names")
        ways = [way for ways in children for way in ways.items()]
        named = torch.full((len(children),), -1)
        named[[state for state, _ in ends]] = torch.tensor([one for _, one in ends])
        token, target = torch.tensor(ways, dtype=torch.int32).view(-1, 2).unbind(1)
        self.register_buffer("token", token.contiguous(), persistent=False)
        self.register_buffer("target", target.contiguous(), persistent=False)
        counts = torch.tensor([0, *map(len, children)])
        self.register_buffer("offsets", counts.cumsum(0), persistent=False)
        self.register_buffer("item", named, persistent=False)
        self.size = size
        self.depth = 1 + max(map(len, names), default=0)

    def after(self, state: Tensor) -> Tensor:
        """The states after each token, (...) -> (..., size + 1) int64; -1 where no name continues so."""
        here = state.flatten()
        first, count = self.offsets[here], self.offsets[here + 1] - self.offsets[here]
        row = torch.arange(len(here), device=here.device).repeat_interleave(count)
        way = torch.arange(len(row), device=here.device) + (first + count - count.cumsum(0))[row]
        found = torch.full((len(here), self.size + 1), -1, device=here.device)
        found[row, self.token[way].long()] = self.target[way].long()
        return found.view(*state.shape, -1)


def beam_search(step: Callable[[Tensor], Tensor], trie: Trie, rows: int, beam: int) -> tuple[Tensor, Tensor]:
    """The `beam` best names of each row: items (B, beam), -1 where there are fewer, and log-probabilities (B, beam).

    A name's score is the sum of the log-probabilities of its tokens and its end. With a beam as wide as the catalogue,
    every item is scored.

    Args:
        step: the tokens so far (B, b, t) -> log-probabilities of the next token (B, b, size + 1).
        trie: all names.
        rows: B.
        beam: names to keep at each step.
    """
    device = trie.item.device
    tokens = torch.zeros(rows, 1, 0, dtype=torch.int64, device=device)
    state = torch.zeros(rows, 1, dtype=torch.int64, device=device)
    score = torch.zeros(rows, 1, device=device)
    done_item = torch.full((rows, beam), -1, device=device)
    done_score = torch.full((rows, beam), -torch.inf, device=device)
    for _ in range(trie.depth):
        follow = trie.after(state)  # (B, b, size + 1)
        total = (score.unsqueeze(2) + step(tokens).float()).masked_fill(follow < 0, -torch.inf)
        size = follow.shape[2]
        ended = total[:, :, size - 1]  # (B, b)
        item = trie.item[follow[:, :, size - 1].clamp(min=0)].masked_fill(ended.isinf(), -1)
        done_score, best = torch.cat([done_score, ended], 1).topk(beam, 1)
        done_item = torch.cat([done_item, item], 1).gather(1, best)
        going = total[:, :, : size - 1].flatten(1)  # (B, b * size)
        score, best = going.topk(min(beam, going.shape[1]), 1)
        parent, token = best // (size - 1), best % (size - 1)
        tokens = torch.cat(
            [tokens.gather(1, parent.unsqueeze(2).expand(-1, -1, tokens.shape[2])), token[:, :, None]], 2
        )
        state = (
            follow.flatten(1).gather(1, parent * size + token).clamp(min=0)
        )  # where there is none, the score is -inf
        if bool(score.isinf().all()):
            break
    return done_item, done_score
