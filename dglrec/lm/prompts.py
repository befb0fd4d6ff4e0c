"""Prompts: the neighbourhood of a user or an item in words, as token numbers, under a budget (GAL-Rec, section IV-B).

A prompt of hop 0 names the node, one of hop 1 also its neighbours, one of hop 2 also theirs:

    user U took A B C and so did users V W . what does the user take next ?
    item A taken by U V who took B C

An entry of a prompt is the tokens of a node's name, which stay together. If the budget is exceeded, the farthest hop's
oldest entries are cut first. All prompts of a batch are made at once from flat arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..data.flat import Ints, first_of_pairs, ranges, row_pointers
from ..errors import ConfigError, DataError
from ..graphs import Hop

# The words before a node's own name, and before the names of its neighbours at each hop.
WORDS = {
    "user": ("user", "took", "and so did users", "who took"),
    "item": ("item", "taken by", "who took", "and so did users"),
}
QUESTION = ". what does the user take next ?"
MAX_HOPS = 3

# A part of each of some prompts: their rows (n,), the place within them, and start and number of its tokens.
_Segment: TypeAlias = tuple[Ints, Ints, Ints, Ints]
_Hop: TypeAlias = tuple[list[_Segment], Ints, Ints]


def texts() -> list[str]:
    """All words of the prompts, for a tokenizer to be trained on."""
    return [*WORDS["user"], *WORDS["item"], QUESTION]


@dataclass(frozen=True, eq=False)
class Prompts:
    """B prompts as packed token numbers.

    Attributes:
        offsets: (B + 1,) int64.
        tokens: (T,) int64.
        parts: (T,) int64, which part of its prompt a token is of, from 0: the words, the node, each neighbour's name.
        cut: (B, hops) int64, entries that the budget left out at each hop.
    """

    offsets: Ints
    tokens: Ints
    parts: Ints
    cut: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """(B,) tokens of each prompt."""
        return np.diff(self.offsets)

    def of(self, prompt: int) -> Ints:
        """The tokens of one prompt."""
        return self.tokens[self.offsets[prompt] : self.offsets[prompt + 1]]


@dataclass(frozen=True, eq=False)
class Neighbour:
    """The neighbours of B nodes at one hop: those of node b are `nodes[offsets[b]:offsets[b + 1]]`, nearest first.

    Attributes:
        offsets: (B + 1,) int64.
        nodes: (N,) int64, those that are cut last come first.
    """

    offsets: Ints
    nodes: Ints

    @classmethod
    def of(cls, hop: Hop, row: Ints, rows: int) -> Neighbour:
        """A hop of trees whose seeds belong to prompts: `row` (S,) ascends; a node counts once in a prompt."""
        own = row[hop.root]
        keep = first_of_pairs(own, hop.nodes, 1 + int(hop.nodes.max(initial=0)))
        return cls(row_pointers(np.bincount(own[keep], minlength=rows)), hop.nodes[keep])


class Prompter:
    """Makes prompts.

    Args:
        tokenize: text -> token numbers; called once for each of `texts()`.
        user_names: (U + 1,) offsets and tokens of the users' names.
        item_names: (M + 1,) offsets and tokens of the items' names.
        budget: maximum number of tokens in a prompt.
        end: the token that ends a prompt; None for none.
        asker: the token of a user without a name (-1); None for none.
    """

    def __init__(
        self,
        tokenize: Callable[[str], Sequence[int]],
        user_names: tuple[Ints, Ints],
        item_names: tuple[Ints, Ints],
        *,
        budget: int,
        end: int | None = None,
        asker: int | None = None,
    ) -> None:
        self.budget = budget
        phrases = [tokenize(text) for text in texts()] + [[] if one is None else [one] for one in (end, asker, None)]
        parts = [np.asarray(phrase, dtype=np.int64) for phrase in phrases] + [user_names[1], item_names[1]]
        starts = row_pointers(np.array([len(part) for part in parts]))
        self._tokens = np.concatenate(parts)  # all that a prompt may hold
        lengths = np.diff(starts)
        # The phrases by (type, hop), the question, the end, the asker, nothing: start and length of each.
        self._words = {"user": (starts[:4], lengths[:4]), "item": (starts[4:8], lengths[4:8])}
        self._question, self._end, self._asker, self._nothing = ((starts[k], lengths[k]) for k in (8, 9, 10, 11))
        self._names = {
            "user": (starts[12] + user_names[0][:-1], np.diff(user_names[0])),
            "item": (starts[13] + item_names[0][:-1], np.diff(item_names[0])),
        }

    def __call__(self, type: str, nodes: Ints, hops: Sequence[Neighbour] = (), question: bool = False) -> Prompts:
        """The prompts of B nodes.

        Args:
            type: of the nodes, "user" or "item".
            nodes: (B,); a user may be -1, the asker.
            hops: neighbours at hop 1, 2, ...; the oldest come first in the prompt, and are cut first.
            question: end with the question for the next item, as the recommendation task does.

        Raises:
            ConfigError: the budget is smaller than a prompt without any neighbour, or there are more hops than words,
                or the type is unknown.
            DataError: a node or a neighbour has no name.
        """
        if type not in WORDS:
            raise ConfigError(f"type is {type!r}; expected 'user' or 'item'")
        if len(hops) > MAX_HOPS:
            raise ConfigError(f"{len(hops)} hops of neighbours; a prompt has words for at most {MAX_HOPS}")
        self._check(type, nodes, least=-1 if type == "user" else 0)
        rows = len(nodes)
        own_start, own_length = (
            np.append(part, asker)[nodes] for part, asker in zip(self._names[type], self._asker, strict=True)
        )
        word_start, word_length = self._words[type]
        ends = [self._question if question else self._nothing, self._end]
        used = own_length + word_length[0] + sum(length for _, length in ends)  # (B,)
        if rows and used.max() > self.budget:
            raise ConfigError(
                f"budget is {self.budget} tokens, but a prompt without neighbours takes {used.max()}; raise the budget"
            )
        each = np.arange(rows)
        fixed = [(word_start[0], word_length[0]), (own_start, own_length)]
        segments = [(each, np.full(rows, place), *_filled(part, rows)) for place, part in enumerate(fixed)]
        place, cut = len(segments), np.zeros((rows, len(hops)), dtype=np.int64)
        here = type
        for number, hop in enumerate(hops):
            here = "item" if here == "user" else "user"
            self._check(here, hop.nodes, least=0)
            # Nothing far is kept where something near was cut.
            room = np.where(cut.any(1), -1, self.budget - used)
            own, count, spent = self._hop(here, hop, (word_start[number + 1], word_length[number + 1]), room, place)
            segments += own
            cut[:, number], used = np.diff(hop.offsets) - count, used + spent
            place += int(count.max(initial=0)) + 1
        segments += [(each, np.full(rows, place + after), *_filled(part, rows)) for after, part in enumerate(ends)]
        return self._joined(segments, rows, cut)

    def _hop(self, type: str, hop: Neighbour, words: tuple[Ints, Ints], room: Ints, place: int) -> _Hop:
        """The segments of a hop, from `place` on, and how many entries and tokens they are in each prompt, (B,) each.

        Args:
            type: of the neighbours.
            hop: the neighbours.
            words: what stands before them, where there are any.
            room: (B,) tokens that they may take; the newest are kept.
            place: the first free place of the prompts.
        """
        rows = len(room)
        row = np.repeat(np.arange(rows), np.diff(hop.offsets))
        start, length = (part[hop.nodes] for part in self._names[type])
        from_end = np.arange(len(row)) - hop.offsets[row]  # 0 for the newest, which comes last
        cost = length + np.where(from_end == 0, words[1], 0)
        kept = _running(cost, hop.offsets, row) <= room[row]
        count = np.bincount(row[kept], minlength=rows)
        spent = np.bincount(row[kept], cost[kept], rows).astype(np.int64)
        named = np.flatnonzero(count)
        before = named, np.full(len(named), place), *_filled(words, len(named))
        entries = row[kept], place + int(count.max(initial=0)) - from_end[kept], start[kept], length[kept]
        return [before, entries], count, spent

    def _joined(self, segments: list[_Segment], rows: int, cut: Ints) -> Prompts:
        """The prompts that segments in any order make."""
        row, place, start, length = (np.concatenate(column) for column in zip(*segments, strict=True))
        order = np.argsort(row * (1 + int(place.max(initial=0))) + place, kind="stable")
        row, start, length = row[order], start[order], length[order]
        tokens, _ = ranges(start, start + length)
        parts = np.repeat(np.arange(len(row)) - np.searchsorted(row, row), length)
        sizes = np.bincount(row, length, rows).astype(np.int64)
        return Prompts(row_pointers(sizes), self._tokens[tokens], parts, cut)

    def _check(self, type: str, nodes: Ints, least: int) -> None:
        count = len(self._names[type][0])
        wrong = np.flatnonzero((nodes < least) | (nodes >= count))
        if len(wrong):
            asker = ", or -1 for one without a name" if least < 0 else ""
            raise DataError(f"a prompt cannot name {type} {nodes[wrong[0]]}; there are {count} names, from 0{asker}")


def _filled(part: tuple[Ints, Ints], rows: int) -> tuple[Ints, Ints]:
    start, length = (np.broadcast_to(one, rows).astype(np.int64) for one in part)
    return start, length


def _running(values: Ints, offsets: Ints, row: Ints) -> Ints:
    """(n,) sum of each row's values up to and including each of them."""
    total = np.cumsum(values)
    before = np.concatenate([[0], total])[offsets[:-1]]
    return total - before[row]
