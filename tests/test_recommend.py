"""Recommendations: what is masked, who is asked for, and that one by one and all at once agree."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch

import dglrec
from dglrec import ConfigError, DataError, DglrecError, Recommendations, leave_one_out, recommend
from dglrec.data import InteractionLog, Queries
from dglrec.models import PRESETS, Model, preset

USERS, ITEMS = 40, 30


def make_log(titles: bool = True) -> InteractionLog:
    rng = np.random.default_rng(0)
    length = rng.integers(4, 10, USERS)
    user = np.repeat(np.arange(USERS), length)
    item = np.concatenate([rng.permutation(ITEMS)[:n] for n in length])
    names = [f"Item number {number}" for number in range(ITEMS)]
    return InteractionLog.from_arrays(
        user,
        item,
        np.arange(len(user)) * 86_400.0,
        user_ids=[f"u{number}" for number in range(USERS)],
        item_ids=[f"i{number}" for number in range(ITEMS)],
        titles=names if titles else None,
        name="small",
    )


SPLIT = leave_one_out(make_log())


class Table(Model):
    """Scores from a table (M,): the same for every query."""

    Config = dglrec.models.CountsConfig

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__(SPLIT)
        self.register_buffer("table", scores)
        self.asked: list[Queries] = []

    def scores(self, queries: Queries, items: torch.Tensor | None = None) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.asked.append(queries)
        return self.table.expand(len(queries), -1)  # a view: writing into it would change every row


class TwoInterests(Model):
    """Even items are found by the first vector of a query, odd ones by the second; small numbers fit best."""

    Config = dglrec.models.CountsConfig

    def __init__(self, split: dglrec.Split = SPLIT) -> None:
        super().__init__(split)
        numbers = torch.arange(split.log.num_items)
        fit = 1 - numbers / split.log.num_items
        self.register_buffer("table", torch.stack([fit * (numbers % 2 == 0), fit * (numbers % 2 == 1)], dim=1))

    def query_vectors(self, queries: Queries) -> torch.Tensor:
        return torch.eye(2).expand(len(queries), 2, 2)

    def item_vectors(self) -> torch.Tensor:
        return self.table


class Generative(Table):
    """Lists of 12 of which the last two are padding; items are never scored."""

    beam = 12

    def scores(self, queries: Queries, items: torch.Tensor | None = None) -> torch.Tensor:
        raise AssertionError("a generative model has no scores")

    def top(self, queries: Queries, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert k == self.beam
        ids = torch.arange(k).masked_fill(torch.arange(k) >= k - 2, -1).repeat(len(queries), 1)
        return ids, -torch.arange(float(k)).repeat(len(queries), 1)


def falling() -> torch.Tensor:
    """i0 is best, then i1, and so on."""
    return -torch.arange(float(ITEMS))


def test_the_best_unseen_items_of_a_history() -> None:
    recs = recommend(Table(falling()), history=["i5", "i0", "i2"], k=4)
    assert [rec.item_id for rec in recs] == ["i1", "i3", "i4", "i6"]
    assert [rec.rank for rec in recs] == [1, 2, 3, 4]
    assert recs[0].score == -1.0
    assert recs[0].title == "Item number 1"
    assert [rec.item_id for rec in recs[1:3]] == ["i3", "i4"]
    assert recs[-1] == recs[3]
    assert len(recs) == 4
    assert recs.users == (None,)


def test_seen_items_are_kept_where_that_is_asked_for() -> None:
    recs = recommend(Table(falling()), history=["i5", "i0"], k=3, seen="keep")
    assert recs.item_ids.tolist() == ["i0", "i1", "i2"]


def test_a_known_user_is_asked_for_with_all_that_is_known() -> None:
    model, log = Table(falling()), SPLIT.log
    recs = model.recommend(user="u7", k=ITEMS)
    asked = model.asked[0]
    own = log.item[log.user == 7]
    assert asked.user.tolist() == [7]
    assert asked.items.tolist() == own.tolist()  # the validation and the test item too
    assert asked.times is not None
    assert asked.times.tolist() == log.time[log.user == 7].tolist()
    assert len(recs) == ITEMS - len(set(own))
    assert not set(recs.item_ids) & set(log.item_ids[own])
    assert recs.users == ("u7",)


def test_an_unknown_user_is_minus_one() -> None:
    model = Table(falling())
    recommend(model, histories=[["i1", "i2"], ["i3"]])
    asked = model.asked[0]
    assert asked.user.tolist() == [-1, -1]
    assert asked.offsets.tolist() == [0, 2, 3]
    assert asked.items.tolist() == [1, 2, 3]
    assert asked.times is None


def test_fewer_than_k_are_left() -> None:
    recs = recommend(
        Table(falling()), histories=[[f"i{n}" for n in range(28)], [f"i{n}" for n in range(30)], ["i0"]], k=3
    )
    assert recs.offsets.tolist() == [0, 2, 2, 5]
    assert [rec.item_id for rec in recs.of(0)] == ["i28", "i29"]
    assert len(recs.of(1)) == 0
    assert "nothing left" in str(recs.of(1))
    assert [rec.query for rec in recs] == [0, 0, 2, 2, 2]
    assert [rec.rank for rec in recs] == [1, 2, 1, 2, 3]


def test_items_that_a_model_rules_out_are_not_recommended() -> None:
    scores = falling()
    scores[:20] = -torch.inf
    assert recommend(Table(scores), history=["i20"], k=20).item_ids.tolist() == [f"i{n}" for n in range(21, 30)]


def test_items_of_one_score_stand_in_the_order_of_the_log() -> None:
    scores = torch.zeros(ITEMS)
    scores[7] = 1.0
    recs = recommend(Table(scores), histories=[["i3"], ["i0"]], k=ITEMS)
    assert recs.of(0).item_ids.tolist() == ["i7", *(f"i{n}" for n in range(ITEMS) if n not in (3, 7))]
    assert recs.of(1).item_ids.tolist() == ["i7", *(f"i{n}" for n in range(1, ITEMS) if n != 7)]


def test_each_item_says_which_interest_it_comes_from() -> None:
    """An interest is named by the two items of the history that it fits best; the same item counts once."""
    recs = recommend(TwoInterests(), histories=[["i9", "i2", "i8", "i2", "i6"], ["i4"]], k=4)
    assert recs.of(0).item_ids.tolist() == ["i0", "i1", "i3", "i4"]
    assert [rec.interest for rec in recs.of(0)] == [0, 1, 1, 0]
    assert [rec.interest_name for rec in recs.of(0)] == [
        "Item number 2; Item number 6",
        "Item number 9",
        "Item number 9",
        "Item number 2; Item number 6",
    ]
    assert [rec.interest_name for rec in recs.of(1)] == ["Item number 4", "", "Item number 4", ""]
    groups = recs.of(0).by_interest()
    assert {interest: [rec.item_id for rec in group] for interest, group in groups.items()} == {
        0: ["i0", "i4"],
        1: ["i1", "i3"],
    }
    with pytest.raises(DataError, match=r"these are 2 queries; take one, such as recs\.of\(0\)"):
        recs.by_interest()
    first = recs.to_dict()["recommendations"][0]
    assert (first["interest"], first["interest_name"]) == (0, "Item number 2; Item number 6")
    assert str(recs.of(0)).splitlines()[:2] == [
        "rank  item_id   score  title          interest",
        "   1  i0       1.0000  Item number 0  0: Item number 2; Item number 6",
    ]
    assert str(recs.of(1)).splitlines()[2].endswith("Item number 1  1")


class ThreeInterests(TwoInterests):
    """A third vector is the first one once more, and a fourth finds all items worse than either."""

    def query_vectors(self, queries: Queries) -> torch.Tensor:
        vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0 + 1e-7, 0.0], [0.1, 0.1]])
        return vectors.expand(len(queries), 4, 2)


def test_the_best_items_of_each_interest() -> None:
    """Also of one whose items all score below those of others; the list with the best item comes first."""
    recs = recommend(ThreeInterests(), histories=[["i9", "i2", "i8"], ["i1"]], per_interest=3)
    part = recs.of(0)
    assert part.item_ids.tolist() == ["i1", "i3", "i5", "i0", "i4", "i6", "i0", "i1", "i3"]
    assert [rec.interest for rec in part] == [1] * 3 + [0] * 3 + [3] * 3
    assert [rec.rank for rec in part] == [1, 2, 3] * 3
    assert [round(rec.score * ITEMS, 4) for rec in part] == [58, 54, 50, 30, 26, 24, 3, 2.9, 2.7]
    names = ["Item number 9", "Item number 2; Item number 8", ""]
    assert [group[0].interest_name for group in part.by_interest().values()] == names
    assert {interest: len(group) for interest, group in part.by_interest().items()} == {1: 3, 0: 3, 3: 3}
    assert [rec.item_id for rec in recs.of(1).by_interest()[1]] == ["i3", "i5", "i7"]
    assert [row["rank"] for row in recs.to_dict()["recommendations"]] == [1, 2, 3] * 6
    lines = str(part).splitlines()
    assert lines[:3] == [
        "rank  item_id   score  title",
        "interest 0: Item number 2; Item number 8",  # by number, the best list or not
        "   1  i0       1.0000  Item number 0",
    ]
    assert lines[5:7] == ["interest 1: Item number 9", "   1  i1       1.9333  Item number 1"]
    assert lines[9] == "interest 3: (no item of the history)"
    kept = recommend(ThreeInterests(), history=["i9", "i1"], per_interest=1, seen="keep")
    assert kept.item_ids.tolist() == ["i1", "i0", "i0"]
    left = [f"i{number}" for number in range(2, ITEMS)]
    assert recommend(ThreeInterests(), history=left, per_interest=5).offsets.tolist() == [0, 6]
    assert str(recommend(ThreeInterests(), history=[*left, "i0", "i1"], per_interest=5)).startswith("nothing left")


@pytest.mark.parametrize("name", ["mip", "comirec-sa", "comirec-dr", "mdgr"])
def test_lists_of_interests_are_those_of_their_vectors(name: str) -> None:
    model = preset(name, SPLIT, k=3)
    recs = recommend(model, histories=[["i9", "i2", "i8", "i5"], ["i4"]], per_interest=4, seen="keep")
    with torch.no_grad():
        vectors = model.eval().query_vectors(Queries.from_histories([[9, 2, 8, 5], [4]]))
        products = vectors @ model.item_vectors().T  # (2, 3, M)
    for number, part in enumerate(recs.queries()):
        groups = part.by_interest()
        assert len(groups) == 3 if number == 0 else name == "comirec-dr" or len(groups) == 1  # one item: one interest
        for interest, group in groups.items():
            best = products[number, interest].topk(4).values.tolist()
            assert [rec.score for rec in group] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "fields", "seen"),
    [
        ("sasrec", {"dim": 16}, "one vector per query"),
        ("mdgr", {"k": 1}, "one vector per query"),
        ("popularity", {}, "no vectors of a query that serve all items"),
        ("mdgr", {"candidate": "exact"}, "no vectors of a query that serve all items"),
    ],
)
def test_a_model_without_interests_has_no_lists_of_them(name: str, fields: dict[str, object], seen: str) -> None:
    says = f"per_interest is 5, but {name} has {seen}; use k instead, or take a model with several vectors per query"
    with pytest.raises(ConfigError, match=says):
        preset(name, SPLIT, **fields).recommend(user="u1", per_interest=5)


def test_interests_are_named_by_ids_where_there_are_no_titles() -> None:
    recs = recommend(TwoInterests(leave_one_out(make_log(titles=False))), history=["i4", "i2"], k=1)
    assert recs[0].interest_name == "i2; i4"
    assert recommend(Table(falling()), history=["i0"])[0].interest is None


@pytest.mark.parametrize("name", ["mip", "comirec-sa", "comirec-dr", "mdgr"])
def test_the_interest_of_an_item_gives_it_its_score(name: str) -> None:
    model = preset(name, SPLIT, k=3)
    recs = recommend(model, histories=[["i9", "i2", "i8", "i5"], ["i4"]], k=5)
    assert recs.interests is not None and recs.interest_names is not None
    assert any(recs.interest_names)
    with torch.no_grad():
        vectors = model.eval().query_vectors(Queries.from_histories([[9, 2, 8, 5], [4]]))
        products = vectors @ model.item_vectors().T  # (2, 3, M)
    for rec, item in zip(recs, SPLIT.log.item_index(recs.item_ids.tolist()), strict=True):
        assert products[rec.query, rec.interest, item].item() == pytest.approx(rec.score, abs=1e-6)


def test_interests_that_each_item_has_for_itself_are_not_told() -> None:
    recs = recommend(preset("mdgr", SPLIT, k=3, candidate="exact"), history=["i9", "i2"], k=2)
    assert recs.interests is None


def test_a_generative_model_lists_and_padding_never_shows() -> None:
    model = Generative(falling())
    recs = recommend(model, histories=[["i0", "i3"], ["i29"]], k=12)
    assert recs.of(0).item_ids.tolist() == [f"i{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)]
    assert recs.of(1).item_ids.tolist() == [f"i{n}" for n in range(10)]
    assert recommend(model, history=["i0"], k=2, seen="keep").item_ids.tolist() == ["i0", "i1"]
    with pytest.raises(ConfigError, match="k is 13; expected at least 1, and at most 12, the model's beam"):
        recommend(model, history=["i0"], k=13)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_one_by_one_and_all_at_once(name: str) -> None:
    fields = {} if "dim" not in PRESETS[name].model.Config.__dataclass_fields__ else {"dim": 16}
    model = preset(name, SPLIT, **fields)
    model.train()
    log = SPLIT.log
    histories = [log.item_ids[log.item[log.user == user]].tolist() for user in range(USERS)]
    for many, one in (
        (model.recommend(users=log.user_ids.tolist(), k=5), lambda n: model.recommend(user=f"u{n}", k=5)),
        (model.recommend(histories=histories, k=5), lambda n: model.recommend(history=histories[n], k=5)),
    ):
        assert many.num_queries == USERS
        for number, part in enumerate(many.queries()):
            alone = one(number)
            assert len(part) == 5
            assert not set(part.item_ids) & set(histories[number])
            np.testing.assert_allclose(part.scores, alone.scores, rtol=1e-5, atol=1e-6)
            if len(set(part.scores)) == 5:  # no ties
                assert part.item_ids.tolist() == alone.item_ids.tolist()
    assert model.training


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = preset("sasrec", SPLIT, dim=16)
    users = SPLIT.log.user_ids.tolist()
    whole = model.recommend(users=users)
    monkeypatch.setattr(importlib.import_module("dglrec.recommend"), "block_size", lambda *_: 7)
    parts = model.recommend(users=users)
    assert whole.item_ids.tolist() == parts.item_ids.tolist()
    assert whole.offsets.tolist() == parts.offsets.tolist()


def test_no_more_scores_at_once_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine queries at a time, of all items each; the products that name interests are as many at most."""
    module = importlib.import_module("dglrec.recommend")
    users, shapes = SPLIT.log.user_ids.tolist(), []
    expected = recommend(TwoInterests(), users=users)
    plain = module._ranked

    def noted(scores: torch.Tensor, *arguments: object) -> object:
        shapes.append(tuple(scores.shape))
        return plain(scores, *arguments)

    monkeypatch.setattr(module, "BLOCK_SCORES", 9 * ITEMS)
    monkeypatch.setattr(module, "_ranked", noted)
    found = recommend(TwoInterests(), users=users)
    assert shapes == [(9, ITEMS)] * 4 + [(4, ITEMS)]
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    assert found.interest_names is not None and expected.interest_names is not None
    assert found.interest_names.tolist() == expected.interest_names.tolist()


def test_mode_and_scores_are_left_as_they_were() -> None:
    model = Table(falling())
    model.train()
    recommend(model, history=["i0"])
    assert model.training
    assert torch.equal(model.table, falling())
    with pytest.raises(DglrecError, match="NaN"):
        recommend(Table(torch.full((ITEMS,), torch.nan)), history=["i0"])


def test_it_prints_itself() -> None:
    one = recommend(Table(falling()), history=["i0"], k=2)
    assert str(one) == (
        "rank  item_id    score  title\n   1  i1       -1.0000  Item number 1\n   2  i2       -2.0000  Item number 2"
    )
    many = str(recommend(Table(falling()), users=[f"u{n}" for n in range(12)], k=1))
    assert many.startswith("user u0\nrank")
    assert many.endswith("... and 2 more")
    assert str(recommend(Table(falling()), histories=[["i0"]] * 2, k=1)).count("history 1\n") == 1


def test_json() -> None:
    recs = recommend(Table(falling()), users=["u3", "u4"], k=1)
    rows = json.loads(json.dumps(recs.to_dict()))["recommendations"]
    assert [row["user"] for row in rows] == ["u3", "u4"]
    assert list(rows[0]) == ["query", "user", "rank", "item_id", "score", "title"]
    assert recommend(Table(falling()), history=["i0"]).to_dict()["recommendations"][0]["user"] is None


def test_a_log_without_titles() -> None:
    model = preset("popularity", leave_one_out(make_log(titles=False)))
    assert {rec.title for rec in model.recommend(user="u0")} == {""}


def test_titles_stay_on_their_line() -> None:
    recs = Recommendations(
        np.array(["a"]), np.array([1.0]), np.array(["two\nlines " + "x" * 100]), np.array([0, 1]), ("u",)
    )
    assert len(str(recs).splitlines()) == 2
    assert str(recs).endswith("...")


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ({"user": "u1x"}, DataError, "unknown user 'u1x'; did you mean"),
        ({"users": ["u1", "v1"]}, DataError, "unknown user 'v1'"),
        ({"history": ["i1", "i3x"]}, DataError, "unknown item 'i3x'; did you mean"),
        ({"histories": [["i1"], ["x"]]}, DataError, "unknown item 'x'"),
        ({"history": []}, DataError, "history is empty; expected at least one id, oldest first"),
        ({"histories": [["i1"], []]}, DataError, "history is empty"),
        ({"users": []}, DataError, "users is empty"),
        ({"history": "i1"}, DataError, "history is 'i1'; expected a list of ids"),
        ({"users": "u1"}, DataError, "users is 'u1'; expected a list of ids"),
        ({"histories": ["i1"]}, DataError, "a history is 'i1'; expected a list of ids"),
        ({"history": {"i1"}}, DataError, "history is {'i1'}; expected a list of ids"),
        ({"user": "u1", "k": 0}, ConfigError, "k is 0; expected at least 1"),
        ({"user": "u1", "k": 2.5}, ConfigError, "k is 2.5; expected a whole number"),
        ({"user": "u1", "k": "3"}, ConfigError, "k is '3'; expected a whole number"),
        ({"user": "u1", "per_interest": 1.5}, ConfigError, "per_interest is 1.5; expected a whole number"),
        ({"user": "u1", "per_interest": 0}, ConfigError, "per_interest is 0; expected at least 1"),
        ({"user": "u1", "seen": "hide"}, ConfigError, "seen is 'hide'; expected 'mask' or 'keep'"),
        ({}, ConfigError, "exactly one of user, users, history and histories"),
        ({"user": "u1", "history": ["i1"]}, ConfigError, "exactly one"),
    ],
)
def test_errors(query: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        recommend(Table(falling()), **query)


def test_a_user_without_events() -> None:
    log = InteractionLog.from_arrays([0] * 4, [0, 1, 2, 3], user_ids=["ann", "bob"], item_ids=list("abcde"))
    model = preset("popularity", leave_one_out(log, order="file"))
    assert model.recommend("ann").item_ids.tolist() == ["e"]
    with pytest.raises(DataError, match="user 'bob' has no interactions; give a history instead"):
        model.recommend("bob")


def test_no_such_query() -> None:
    recs = recommend(Table(falling()), users=["u0", "u1"], k=1)
    assert recs.of(-1).users == ("u1",)
    with pytest.raises(IndexError):
        recs.of(2)
