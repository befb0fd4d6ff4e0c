"""Prompts: what stands in them, and what a budget cuts."""

from __future__ import annotations

import numpy as np
import pytest

from dglrec.data.flat import packed
from dglrec.errors import ConfigError, DataError
from dglrec.graphs import Neighbours, user_item
from dglrec.lm.hop_prompts import Asked, Packed, around_users, asked_batches, history_of, targets_of
from dglrec.lm.prompts import Neighbour, Prompter, texts
from dglrec.streams import Streams

WORDS = {word: number for number, word in enumerate(dict.fromkeys(" ".join(texts()).split()), 2)}
SPOKEN = {number: word for word, number in WORDS.items()} | {1: "</s>", 99: "somebody"}


def tokenize(text):
    return [WORDS[word] for word in text.split()]


def prompter(budget=100, items=None):
    """Users 100, 101, ...; items 200, 201, ..., or names of several tokens."""
    users = np.arange(11), np.arange(100, 110)
    items = packed(items or [[200 + number] for number in range(10)])
    return Prompter(tokenize, users, items, budget=budget, end=1, asker=99)


def lists(*rows):
    return Neighbour(*packed(rows))


def spoken(prompts, number=0):
    return " ".join(SPOKEN.get(token, str(token)) for token in prompts.of(number).tolist())


def test_prompts_of_a_user_hop_by_hop():
    make, nodes = prompter(), np.array([3, -1])
    hops = [lists([2, 1], [5]), lists([7, 8], []), lists([4], [])]  # newest first
    assert spoken(make("user", nodes)) == "user 103 </s>"
    assert spoken(make("user", nodes, hops[:1])) == "user 103 took 201 202 </s>"
    assert spoken(make("user", nodes, hops[:2])) == "user 103 took 201 202 and so did users 108 107 </s>"
    whole = make("user", nodes, hops, question=True)
    question = ". what does the user take next ? </s>"
    assert spoken(whole) == f"user 103 took 201 202 and so did users 108 107 who took 204 {question}"
    assert spoken(whole, 1) == f"user somebody took 205 {question}"
    assert whole.cut.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_the_tokens_of_a_name_are_one_part():
    make = prompter(items=[[200], [201, 202, 203], [204, 205]])
    made = make("user", np.array([3, -1]), [lists([2, 1], [0])], question=True)
    assert made.of(0).tolist()[2:8] == [WORDS["took"], 201, 202, 203, 204, 205]
    question = len(tokenize(texts()[-1]))
    assert made.parts.tolist() == [0, 1, 2, *[3] * 3, *[4] * 2, *[5] * question, 6, 0, 1, 2, 3, *[4] * question, 5]


def test_prompts_of_an_item():
    hops = [lists([3]), lists([6, 5])]
    assert spoken(prompter()("item", np.array([2]), hops)) == "item 202 taken by 103 who took 205 206 </s>"


def test_the_budget_cuts_the_farthest_and_oldest_first():
    hops, seen = [lists([2, 1, 0]), lists([7, 8])], []
    for budget in range(16, 2, -1):
        made = prompter(budget)("user", np.array([3]), hops)
        assert made.lengths[0] <= budget
        seen.append((spoken(made), made.cut[0].tolist()))
    assert list(dict.fromkeys(text for text, _ in seen)) == [
        "user 103 took 200 201 202 and so did users 108 107 </s>",
        "user 103 took 200 201 202 and so did users 107 </s>",
        "user 103 took 200 201 202 </s>",
        "user 103 took 201 202 </s>",
        "user 103 took 202 </s>",
        "user 103 </s>",
    ]
    assert dict(seen)["user 103 took 201 202 </s>"] == [1, 2]


def test_an_entry_is_never_cut_in_its_middle():
    """Nothing behind an entry that did not fit is kept, though it may be shorter."""
    make = prompter(9, [[200, 201, 202], [210], [220, 221]])
    made = make("user", np.array([0]), [lists([2, 0, 1])])
    assert spoken(made) == "user 100 took 200 201 202 220 221 </s>"
    assert made.cut.tolist() == [[1]]


def test_a_budget_below_the_shortest_prompt_is_refused():
    with pytest.raises(ConfigError, match="budget is 2 tokens, but a prompt without neighbours takes 3"):
        prompter(2)("user", np.array([0]))
    with pytest.raises(ConfigError, match="4 hops of neighbours; a prompt has words for at most 3"):
        prompter()("user", np.array([0]), [lists([1])] * 4)


@pytest.mark.parametrize(
    ("type", "nodes", "hops", "words"),
    [
        ("item", [3, -1], (), "name item -1; there are 10 names, from 0$"),
        ("item", [10], (), "name item 10"),
        ("user", [10], (), "name user 10; there are 10 names, from 0, or -1 for one without a name"),
        ("user", [-2], (), "name user -2"),
        ("user", [0], ([[11]],), "name item 11"),
        ("user", [0], ([[1]], [[-1]]), "name user -1; there are 10 names, from 0$"),
    ],
)
def test_a_node_without_a_name_is_refused(type, nodes, hops, words):
    with pytest.raises(DataError, match=words):
        prompter()(type, np.array(nodes), [lists(*hop) for hop in hops])


def test_another_type_is_refused():
    with pytest.raises(ConfigError, match="type is 'tag'; expected 'user' or 'item'"):
        prompter()("tag", np.array([0]))


def test_many_prompts_are_as_each_alone():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(10, size=rng.integers(6)).tolist() for _ in range(40)] for _ in range(2)]
    nodes, make = rng.integers(-1, 10, size=40), prompter(15)
    whole = make("user", nodes, [lists(*hop) for hop in rows], question=True)
    for number in range(40):
        alone = make("user", nodes[[number]], [lists(hop[number]) for hop in rows], question=True)
        assert np.array_equal(alone.of(0), whole.of(number))
        assert np.array_equal(alone.cut[0], whole.cut[number])
    assert whole.lengths.max() <= 15


def test_questions_of_the_log_and_of_queries(split):
    train = split.train
    rows = np.flatnonzero(train.position > 0)[[0, 5, 20]]
    asked = targets_of(train, rows, 3)
    assert np.array_equal(asked.target, train.item[rows])
    for number, row in enumerate(rows):
        own = asked.history.nodes[slice(*asked.history.offsets[number : number + 2])]
        size = min(3, train.position[row])
        assert own.tolist() == train.item[row - size : row][::-1].tolist()
    part = split.test[:4]
    found = history_of(part, 2)
    assert found.history.nodes[:2].tolist() == part.items[: part.offsets[1]][::-1][:2].tolist()
    assert np.array_equal(found.time, part.time)


def test_an_epoch_draws_its_targets_anew(split):
    """Each at most once in an epoch, with the newest events before it, and after some epochs all of them."""
    train, seen = split.train, []
    for epoch in range(12):
        parts = list(asked_batches(train, 200, 64, 3, Streams(1, epoch).numpy("prompts")))
        assert [len(part.target) for part in parts] == [64, 64, 64, 8]
        keys = np.concatenate([part.user * train.num_items + part.target for part in parts])
        assert len(np.unique(keys)) == 200
        seen.append(set(keys.tolist()))
    assert len(seen[0] & seen[1]) < 150
    wanted = (train.user * train.num_items + train.item)[train.position > 0]
    assert len(set.union(*seen)) > 0.9 * len(wanted)


def test_neighbours_of_a_user_count_once_and_never_the_user(split):
    graph = Neighbours(user_item(split.train))
    asked = targets_of(split.train, np.flatnonzero(split.train.position > 2), 5)
    _, users = around_users(graph, asked, [4], before=asked.time, order="recent")
    row = np.repeat(np.arange(len(asked.user)), np.diff(users.offsets))
    assert len(users.nodes)
    assert not (users.nodes == asked.user[row]).any()
    assert len(np.unique(row * 1000 + users.nodes)) == len(row)


def test_a_history_that_is_empty_has_no_neighbours(split):
    graph = Neighbours(user_item(split.train))
    nothing = Asked(np.array([0]), lists([]), None, np.array([-1]))
    assert [len(part.nodes) for part in around_users(graph, nothing, [4, 4], before=None, order="recent")] == [0, 0, 0]


def test_packed_lists_are_joined():
    one, two = (Packed.of(*packed(rows), "cpu") for rows in ([[1, 2], []], [[3]]))
    joined = Packed.joined([one, two])
    assert (joined.offsets.tolist(), joined.values.tolist(), joined.rows.tolist()) == (
        [0, 2, 2, 3],
        [1, 2, 3],
        [0, 0, 2],
    )
    assert joined.lengths.tolist() == [2, 0, 1]
    assert two.repeated(2).values.tolist() == [3, 3]
