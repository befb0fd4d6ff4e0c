"""What every model must do, as classes of tests that a new model inherits:

    class TestSASRec(ModelContract):
        preset, fields = "sasrec", {"dim": 16, "inner": 32}
        known = {"grammar": 0.9}

`ModelContract` is for models that give scores, `GenerativeContract` for those that give a list (they set `beam` and
override `top`), `ScoresContract` alone for models that do not learn by steps. Each says in `known` what it is made for:
kinds of sample, and the share of the best reachable recall that it must reach there.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dglrec
from dglrec.batches import Edges
from dglrec.checkpoint import load_state
from dglrec.data.files import atomic_write
from dglrec.data.queries import Queries
from dglrec.data.sample import sample, sample_oracle
from dglrec.errors import ConfigError
from dglrec.streams import Streams, global_generator
from dglrec.train import make_optimizer

EPOCHS = 3
KNOWN: dict[str, dict[str, Any]] = {  # kinds of sample, and how large
    "communities": {"users": 500, "items": 200},
    "grammar": {"users": 200, "items": 40},
}
BEATS = {  # what a model that is made for the kind beats there: on "grammar" counting transitions is all there is to do
    "communities": ("popularity", "recency", "transitions"),
    "grammar": ("popularity", "recency"),
}
# Names of a row that no term may take.
RESERVED = {"epoch", "seconds", "steps", "loss", "loss_sum", "valid_seconds", "test", "test_seconds"}


# --- Helpers -------------------------------------------------------------------------------------------------------


def fit(model, split, **arguments):
    """`dglrec.fit`, quietly and on the CPU."""
    return dglrec.fit(model, split, **{"progress": False, "device": "cpu", **arguments})


def weights_of(model) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Two sets of named tensors are equal to the bit, NaN counting as equal to itself."""
    assert one.keys() == other.keys()
    differing = [name for name in one if not bits(one[name]).equal(bits(other[name]))]
    assert not differing, f"these tensors differ: {differing}"


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def rows_of(tensor: Tensor, users: Tensor) -> Tensor:
    """A tensor with its users, in whatever dimension they are, in another order."""
    for dim, size in enumerate(tensor.shape):
        if size == len(users):
            return tensor.index_select(dim, users)
    return tensor


def draw_nothing(*arguments, **named) -> None:
    """In place of `save_curves`, which takes longer than a training here: a file that is written as the picture is."""
    path = next(one for one in (*arguments, *named.values()) if isinstance(one, Path))
    with atomic_write(path) as file:
        file.write(b"no picture")


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a batch: in its fields, their fields, and in lists, tuples and dicts of them."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        return [t for field in dataclasses.fields(value) for t in tensors_in(getattr(value, field.name))]
    if isinstance(value, dict):
        return [t for part in value.values() for t in tensors_in(part)]
    if isinstance(value, list | tuple):
        return [t for part in value for t in tensors_in(part)]
    return []


def assert_same_batches(model, split, other, other_split, epochs: int = 2) -> None:
    """Two models read batches that are equal to the bit."""
    for epoch in range(epochs):
        batches = model.batches(split, Streams(7, epoch)), other.batches(other_split, Streams(7, epoch))
        for one, two in zip(*batches, strict=True):
            one, two = tensors_in(one), tensors_in(two)
            assert len(one) == len(two) > 0
            for left, right in zip(one, two, strict=True):
                assert bits(left).equal(bits(right)), "a batch has changed"


def plain_epoch(model, split) -> int:
    """One epoch as `fit` should do it, written out; returns the number of batches."""
    config = model.train().train_config
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    streams, batches = Streams(config.seed, 0), 0
    with global_generator():
        model.before_training()
        for batches, batch in enumerate(model.batches(split, streams), 1):
            torch.manual_seed(streams.torch_seed("dropout", batches))
            loss = torch.stack(list(model.loss(batch).values())).sum()
            (loss / config.accumulate).backward()
            stepped = batches % config.accumulate == 0
            if stepped:
                if config.clip > 0:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimizer.step()
                optimizer.zero_grad()
            model.after_batch(stepped)
    return batches


class OneDevice(TorchDispatchMode):
    """Fails on an operation that mixes tensors of two devices; numbers (0 dimensions) and copies may."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.ndim]
        devices = {t.device.type for t in tensors}
        if len(devices) > 1 and "copy" not in str(func):
            raise AssertionError(f"{func} mixes devices: {[(t.device.type, tuple(t.shape)) for t in tensors]}")
        return func(*args, **kwargs)


def poisoned(split):
    """The split of the same log in which each held-out item is another one; ids and training rows stay."""
    log = split.log
    held_out = np.zeros(len(log), dtype=bool)
    last = log.offsets[1:][np.diff(log.offsets) >= 3]
    held_out[last - 1] = held_out[last - 2] = True
    item = np.where(held_out, (log.item + 1 + log.item.max() // 2) % log.num_items, log.item)
    other = dglrec.make_split(dataclasses.replace(log, item=item), split.rule)
    assert np.array_equal(other.train.item, split.train.item)
    assert not (other.valid.targets == split.valid.targets).any()
    assert not (other.test.targets == split.test.targets).any()
    return other


def relabelled(split, seed: int = 5):
    """The split of the same log with its users numbered in another order, and the new number of each old one."""
    log = split.log
    new = np.random.default_rng(seed).permutation(log.num_users)
    ids = np.empty_like(log.user_ids)
    ids[new] = log.user_ids
    other = dglrec.InteractionLog.from_arrays(
        new[log.user], log.item, log.time, user_ids=ids, item_ids=log.item_ids, titles=log.titles, name=log.name
    )
    return dglrec.make_split(other, split.rule), new


@functools.cache
def known_answer(kind: str):
    """A split of a sample, and the recall@10 of its oracle on the test queries."""
    split = dglrec.leave_one_out(sample(kind, **KNOWN[kind]))
    best = dglrec.evaluate(sample_oracle(kind, **KNOWN[kind]), split.test, seen="mask")["recall@10"]
    return split, best


@functools.cache
def reached_by_counting(kind: str, preset: str) -> float:
    split, _ = known_answer(kind)
    return dglrec.evaluate(dglrec.models.preset(preset, split), split.test, seen="mask")["recall@10"]


def histories(queries, unknown: bool = False) -> Queries:
    """The same histories, without targets, by the same users or by unknown ones."""
    parts = np.split(queries.items, queries.offsets[1:-1])
    times = None if queries.times is None else np.split(queries.times, queries.offsets[1:-1])
    return Queries.from_histories(parts, None if unknown else queries.user, times)


def ids_of(queries, log) -> list[list[str]]:
    return [log.item_ids[part].tolist() for part in np.split(queries.items, queries.offsets[1:-1])]


# --- What evaluate and recommend need ------------------------------------------------------------------------------


class EvaluateContract:
    """Any model under `evaluate` and `recommend`."""

    preset: ClassVar[str]
    fields: ClassVar[dict[str, Any]] = {}
    train: ClassVar[dict[str, Any]] = {"batch_size": 128, "lr": 5e-3}
    tolerance: ClassVar[float] = 1e-5  # of scores of a query alone against those among others
    user_free: ClassVar[bool] = True  # a history can be scored without its user

    @classmethod
    def make(cls, split, **changes):
        """The model of `preset`, with `fields`, `train` and changes to them."""
        train = {**cls.train, **changes.pop("train", {})}
        return dglrec.models.preset(cls.preset, split, **{**cls.fields, **changes, "train": train})

    @torch.no_grad()
    def answers(self, model, queries) -> Tensor:
        """What the model says to the queries, as one tensor."""
        model.eval()
        return model.scores(queries)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, split):
        return cls.make(split).eval()

    def test_metrics_are_in_range_and_say_their_protocol(self, model, split):
        k = (1, 5) if model.beam is None else (1, min(5, model.beam))
        metrics = dglrec.evaluate(model, split.valid, k=k)
        assert all(0 <= value <= 1 for value in metrics.values())
        assert metrics[f"recall@{k[0]}"] <= metrics[f"recall@{k[1]}"]
        assert metrics.protocol.seen == model.config.seen == model.seen
        assert metrics.protocol.split_digest == split.digest
        assert metrics.protocol.beam == model.beam
        assert metrics.protocol.queries == len(split.valid)
        other = "keep" if model.seen == "mask" else "mask"
        assert dglrec.evaluate(model, split.valid, k=k, seen=other).protocol.seen == other

    def test_answers_repeat(self, model, split):
        """No dropout and no memory of what was asked before."""
        first = self.answers(model, split.valid)
        self.answers(model, split.test[:7])
        assert torch.equal(first, self.answers(model, split.valid))

    def test_targets_are_not_read(self, model, split):
        queries = split.test
        others = dataclasses.replace(queries, targets=(queries.targets + 1) % split.log.num_items)
        assert torch.equal(self.answers(model, queries), self.answers(model, others))

    def test_permuting_queries_permutes_answers(self, model, split):
        order = np.random.default_rng(0).permutation(len(split.test))
        whole, permuted = self.answers(model, split.test), self.answers(model, split.test[order])
        torch.testing.assert_close(permuted, whole[torch.as_tensor(order)], rtol=1e-4, atol=1e-5)
        one_by_one = torch.cat([self.answers(model, split.test[query]) for query in range(5)])
        torch.testing.assert_close(one_by_one, whole[:5], rtol=10 * self.tolerance, atol=self.tolerance)

    def test_a_history_without_its_user(self, model, split):
        if not self.user_free:
            pytest.skip("this model knows users by their row alone, and says so")
        given = self.answers(model, histories(split.test, unknown=True))
        assert given.shape == self.answers(model, split.test).shape
        assert torch.isfinite(given).all()
        if given.is_floating_point():
            assert given.std(0).max() > 0, "all histories get the same scores"

    def test_another_split_is_refused(self, model, split):
        with pytest.raises(dglrec.DataError, match="split"):
            dglrec.evaluate(model, poisoned(split).valid, k=1)

    def test_recommend_leaves_out_what_was_seen(self, model, split):
        log, users = split.log, split.log.user_ids[:20].tolist()
        k = 10 if model.beam is None else min(10, model.beam)
        for seen in ("mask", "keep"):
            recommended = model.recommend(users=users, k=k, seen=seen)
            assert recommended.num_queries == len(users)
            for user, part in zip(users, recommended.queries(), strict=True):
                ids = [one.item_id for one in part]
                assert len(set(ids)) == len(ids) <= k
                assert set(ids) <= set(log.item_ids.tolist())
                history = set(log.item_ids[log.item[log.user == log.user_index(user)]].tolist())
                left = log.num_items - (len(history) if seen == "mask" else 0)
                assert len(ids) == min(k, left) or model.beam is not None
                assert seen == "keep" or not history & set(ids)
                assert [one.score for one in part] == sorted((one.score for one in part), reverse=True)
                assert all(math.isfinite(one.score) for one in part)

    def test_recommend_for_one_and_for_many(self, model, split):
        users, k = split.log.user_ids[:5].tolist(), 5 if model.beam is None else min(5, model.beam)
        many = model.recommend(users=users, k=k)
        for number, user in enumerate(users):
            one = model.recommend(user=user, k=k)
            assert [r.item_id for r in one] == [r.item_id for r in many.of(number)]

    def test_recommend_for_a_new_history(self, model, split):
        if not self.user_free:
            pytest.skip("this model knows users by their row alone, and says so")
        asked = ids_of(split.test[:6], split.log)
        k = 5 if model.beam is None else min(5, model.beam)
        many = model.recommend(histories=asked, k=k)
        assert many.num_queries == len(asked)
        for number, history in enumerate(asked):
            ids = [one.item_id for one in many.of(number)]
            assert ids
            assert not set(ids) & set(history)
            assert ids == [one.item_id for one in model.recommend(history=history, k=k)]

    def test_recommend_changes_nothing(self, model, split):
        model.train()
        before, state = weights_of(model), torch.get_rng_state()
        model.recommend(users=split.log.user_ids[:3].tolist(), k=2)
        assert model.training
        assert_same_bits(before, weights_of(model))
        assert torch.equal(state, torch.get_rng_state())
        model.eval()

    def test_saved_and_loaded_it_answers_the_same(self, model, split, tmp_path):
        dglrec.save_model(model, tmp_path / "model")
        loaded = dglrec.load_model(tmp_path / "model")
        assert type(loaded) is type(model)
        assert (loaded.config, loaded.preset, loaded.training) == (model.config, self.preset, False)
        assert loaded.split.digest == split.digest
        assert_same_bits(weights_of(model), weights_of(loaded))
        assert torch.equal(self.answers(model, split.test), self.answers(loaded, loaded.split.test))


class ScoresContract(EvaluateContract):
    """Models that score every item."""

    def test_scores_are_finite_and_have_a_row_a_query(self, model, split):
        scores = self.answers(model, split.test)
        assert scores.shape == (len(split.test), split.log.num_items)
        assert scores.is_floating_point()
        assert torch.isfinite(scores).all()

    def test_scores_of_given_items(self, model, split):
        queries = split.test[:9]
        items = torch.as_tensor(np.random.default_rng(1).integers(split.log.num_items, size=(len(queries), 13)))
        with torch.no_grad():
            given = model.eval().scores(queries, items=items)
        torch.testing.assert_close(given, self.answers(model, queries).gather(1, items), rtol=1e-4, atol=1e-5)

    def test_top_is_the_best_of_the_scores(self, model, split):
        queries = split.test[:9]
        with torch.no_grad():
            ids, values = model.eval().top(queries, 7)
        scores = self.answers(model, queries)
        assert ids.shape == values.shape == (len(queries), 7)
        torch.testing.assert_close(values, scores.sort(1, descending=True).values[:, :7], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores.gather(1, ids), values, rtol=1e-4, atol=1e-5)

    def test_candidates_of_a_query_are_ranked(self, model, split):
        """A query's candidates, the target among them: the rank is the target's place among their scores."""
        queries, rng = split.test[:9], np.random.default_rng(2)
        lists = []
        for target in queries.targets:
            others = np.setdiff1d(np.arange(split.log.num_items), [target])
            lists.append(np.append(rng.choice(others, size=6, replace=False), target))
        offsets = np.arange(len(queries) + 1) * 7
        asked = dataclasses.replace(queries, candidates=np.concatenate(lists), candidate_offsets=offsets)
        measured = dglrec.evaluate(model, asked, k=(3,), seen="keep", per_query=True).per_query["recall@3"]
        scores = self.answers(model, queries).numpy()
        for query, candidates in enumerate(lists):
            better = (scores[query, candidates[:-1]] > scores[query, candidates[-1]]).sum()
            tied = (np.abs(scores[query, candidates[:-1]] - scores[query, candidates[-1]]) < 1e-5).any()
            assert tied or measured[query] == float(better < 3)


class ListContract(EvaluateContract):
    """Generative models: a list of at most `beam` items."""

    @torch.no_grad()
    def answers(self, model, queries) -> Tensor:
        return model.eval().top(queries, model.beam)[0]

    def test_lists_are_distinct_items_best_first(self, model, split):
        with torch.no_grad():
            ids, scores = model.eval().top(split.test, model.beam)
        assert ids.shape == scores.shape == (len(split.test), model.beam)
        assert ids.dtype == torch.int64
        assert -1 <= int(ids.min())
        assert int(ids.max()) < split.log.num_items
        for row, values in zip(ids.tolist(), scores.tolist(), strict=True):
            listed = [item for item in row if item >= 0]
            assert listed
            assert len(set(listed)) == len(listed)
            assert row[: len(listed)] == listed, "-1 stands where a list ends, not within it"
            assert values[: len(listed)] == sorted(values[: len(listed)], reverse=True)

    def test_no_metric_beyond_the_beam(self, model, split):
        assert set(dglrec.evaluate(model, split.valid, k=(1, model.beam))) >= {f"recall@{model.beam}"}
        names = set()
        try:
            names = set(dglrec.evaluate(model, split.valid, k=(1, model.beam + 1)))
        except ConfigError as error:
            assert "beam" in str(error)  # noqa: PT017 - refusing is as good as leaving the cut out
        assert f"recall@{model.beam + 1}" not in names
        with pytest.raises(ConfigError, match="beam"):
            model.recommend(user=str(split.log.user_ids[0]), k=model.beam + 1)


# --- What fit needs ------------------------------------------------------------------------------------------------


class TrainingContract(EvaluateContract):
    """Models that learn by steps."""

    known: ClassVar[dict[str, float]]  # kinds of sample that the model is made for -> share of the oracle's recall@10
    known_fields: ClassVar[dict[str, Any]] = {"train": {"lr": 1e-2, "batch_size": 128}}
    known_epochs: ClassVar[int] = 6
    meta: ClassVar[bool] = True  # shapes of a step do not depend on the data's values

    def objective(self, model, batch) -> Tensor:
        """The loss of a batch, with the same dropout each time."""
        with global_generator():
            torch.manual_seed(11)
            return torch.stack(list(model.loss(batch).values())).sum()

    def targets(self, batch) -> list[tuple[int, int]] | list[int]:
        """What a batch teaches: its (user, item) pairs if it holds edges, its target items otherwise."""
        if isinstance(batch, Edges):
            return list(zip(batch.user.tolist(), batch.item.tolist(), strict=True))
        return batch.target.tolist()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def quick_files(cls):
        """Run folders without a picture and without waiting for the disk."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dglrec.curves.save_curves", draw_nothing)
            patch.setattr("os.fsync", lambda _: None)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, split, tmp_path_factory):
        """A run of EPOCHS epochs, with its folder."""
        return fit(cls.make(split), split, epochs=EPOCHS, out=tmp_path_factory.mktemp("run") / "run")

    def last_epoch(self, run) -> dict[str, Tensor]:
        """The weights after the last epoch, which are not always those of the best one."""
        tensors, _ = load_state(run.folder)
        return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}

    def test_the_loss_falls(self, trained):
        losses = [row["loss"] for row in trained.rows]
        assert len(losses) == EPOCHS
        assert losses[-1] < losses[0], losses

    def test_each_term_is_finite_and_named(self, trained, split):
        model = self.make(split).train()
        terms = model.loss(next(iter(model.batches(split, Streams(0)))))
        assert terms
        assert all(isinstance(name, str) and name not in RESERVED and "@" not in name for name in terms)
        assert all(term.shape == () and term.is_floating_point() for term in terms.values())
        for row in trained.rows:
            assert set(terms) <= set(row)
            assert all(math.isfinite(row[name]) for name in terms)
            assert row["loss"] == pytest.approx(sum(row[name] for name in terms))
            assert row["loss_sum"] == pytest.approx(row["loss"] * row["steps"])

    def test_every_parameter_that_learns_gets_a_gradient(self, split):
        model = self.make(split).train()
        self.objective(model, next(iter(model.batches(split, Streams(0))))).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert any(grad is not None and bool(grad.any()) for grad in gradients.values())
        assert all(torch.isfinite(grad).all() for grad in gradients.values() if grad is not None)

    def test_gradients_are_those_of_a_fresh_graph(self, split):
        """Two passes over the same batch give the same gradients: nothing is kept, freed or added up between them."""
        model = self.make(split).train()
        batch = next(iter(model.batches(split, Streams(0))))
        before, gradients = weights_of(model), []
        for _ in range(2):
            model.zero_grad()
            objective = self.objective(model, batch)
            assert all(p.grad is None for p in model.parameters()), "loss() itself goes backward"
            objective.backward()
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert_same_bits(*gradients)
        assert_same_bits(before, weights_of(model))

    def test_fit_is_the_plain_loop(self, split):
        """An epoch of `fit` is this: batches, loss, backward, step, with gradients of one batch only."""
        run = fit(self.make(split), split, epochs=1)
        model = self.make(split)
        steps = plain_epoch(model, split)
        assert run.rows[0]["steps"] == steps > 1
        assert_same_bits(weights_of(run.model), weights_of(model))

    def test_same_seed_same_weights(self, split):
        assert_same_bits(weights_of(self.make(split)), weights_of(self.make(split)))
        np.random.seed(1)  # noqa: NPY002 - no model reads NumPy's global generator
        with global_generator():
            torch.manual_seed(1)
            one = fit(self.make(split), split, epochs=2)
        np.random.seed(2)  # noqa: NPY002
        with global_generator():
            torch.manual_seed(2)
            two = fit(self.make(split), split, epochs=2)
        assert_same_bits(weights_of(one.model), weights_of(two.model))

    def test_another_seed_other_weights(self, split):
        one, two = self.make(split), self.make(split, train={"seed": 12})
        assert differ(weights_of(one), weights_of(two)), "initial weights do not depend on the seed"
        two.load_state_dict(one.state_dict())
        assert differ(weights_of(fit(one, split, epochs=1).model), weights_of(fit(two, split, epochs=1).model)), (
            "batches and dropout do not depend on the seed"
        )

    def test_every_target_once_an_epoch(self, split):
        """Nothing is dropped, not even the last, smaller batch, and nothing comes twice; epochs differ in order."""
        model, train = self.make(split), split.train
        size, orders = model.train_config.batch_size, []
        for epoch in range(2):
            parts = [self.targets(batch) for batch in model.batches(split, Streams(3, epoch))]
            assert all(len(part) == size for part in parts[:-1])
            orders.append([target for part in parts for target in part])
        learnt = orders[0]
        if isinstance(learnt[0], tuple):
            expected = list(zip(train.user.tolist(), train.item.tolist(), strict=True))
        else:
            expected = train.item[train.position > 0].tolist()
        assert Counter(learnt) == Counter(expected)
        assert orders[0] != orders[1]
        assert model.targets_per_epoch == len(learnt)

    def test_held_out_items_change_nothing(self, split, trained, tmp_path):
        """With other items in validation and test, batches, weights and training log stay as they are, to the bit."""
        other = poisoned(split)
        model = self.make(other)
        assert_same_batches(self.make(split), split, model, other)
        assert_same_bits(weights_of(self.make(split)), weights_of(model))
        buffers = dict(self.make(split).named_buffers())
        assert_same_bits(buffers, dict(model.named_buffers()))  # a graph that the model keeps
        run = fit(model, other, epochs=EPOCHS, out=tmp_path / "run")
        assert_same_bits(self.last_epoch(trained), self.last_epoch(run))
        assert [row["loss"] for row in run.rows] == [row["loss"] for row in trained.rows]

    def test_stopped_and_resumed_it_is_the_same(self, split, trained, tmp_path):
        """A run that dies within an epoch and is resumed by a new process's model ends with the same weights."""
        steps = trained.rows[0]["steps"]
        model, calls = self.make(split), []
        loss = model.loss

        def dies(batch):
            calls.append(None)
            if len(calls) == (EPOCHS - 1) * steps + steps // 2 + 1:
                raise KeyboardInterrupt
            return loss(batch)

        model.loss = dies
        with pytest.raises(KeyboardInterrupt):
            fit(model, split, epochs=EPOCHS, out=tmp_path / "run")
        resumed = fit(self.make(split), split, epochs=EPOCHS, out=tmp_path / "run", resume=True)
        assert_same_bits(weights_of(trained.model), weights_of(resumed.model))
        assert_same_bits(self.last_epoch(trained), self.last_epoch(resumed))
        assert resumed.best_epoch == trained.best_epoch
        times = ("seconds", "valid_seconds")
        rows = [[{k: v for k, v in row.items() if k not in times} for row in r.rows] for r in (trained, resumed)]
        assert rows[0] == rows[1]

    def test_the_run_folder_holds_the_trained_model(self, split, trained):
        loaded = dglrec.load_model(trained.folder)
        assert torch.equal(self.answers(trained.model, split.valid), self.answers(loaded, loaded.split.valid))

    def test_answers_follow_the_weights(self, split, trained):
        """Nothing that is kept between evaluations outlives a change of the weights."""
        model = self.make(split)
        first = self.answers(model, split.valid)
        model.load_state_dict(trained.model.state_dict())
        assert torch.equal(self.answers(model, split.valid), self.answers(trained.model, split.valid))
        assert not torch.equal(first, self.answers(model, split.valid))
        model.train()
        optimizer = make_optimizer(model.train_config, model.parameters())  # in its fused form it bumps no version
        self.objective(model, next(iter(model.batches(split, Streams(0))))).backward()
        optimizer.step()
        fresh = self.make(split)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(self.answers(model, split.valid), self.answers(fresh, split.valid))

    def test_validation_is_of_the_epoch_s_own_weights(self, split, trained):
        model = self.make(split)
        model.load_state_dict({name.removeprefix("model."): t for name, t in self.last_epoch(trained).items()})
        measured = dglrec.evaluate(model, split.valid)
        assert {name: trained.rows[-1][name] for name in measured} == pytest.approx(dict(measured), abs=1e-6)

    def test_users_in_another_order(self, split, trained):
        """With users numbered otherwise and the weights carried over, each user's answers stay; no metric changes."""
        other, new = relabelled(split)
        model = self.make(other)
        old = torch.as_tensor(np.argsort(new))  # number before, by number after
        state = weights_of(trained.model)
        model.load_state_dict({name: rows_of(tensor, old) for name, tensor in state.items()})
        order = np.argsort(new[split.test.user])  # queries stand in the order of their users
        assert np.array_equal(other.test.user, new[split.test.user][order])
        before, after = self.answers(trained.model, split.test), self.answers(model, other.test)
        if before.is_floating_point():
            torch.testing.assert_close(after, before[torch.as_tensor(order)], rtol=1e-4, atol=1e-5)
        k = (5, 10) if model.beam is None else (model.beam,)
        metrics = dglrec.evaluate(trained.model, split.test, k=k), dglrec.evaluate(model, other.test, k=k)
        assert dict(metrics[1]) == pytest.approx(dict(metrics[0]), abs=1e-3)

    def test_training_with_users_in_another_order(self, split, trained):
        """Which number a user has is no information: from scratch the loss takes nearly the same way."""
        other, _ = relabelled(split)
        run = fit(self.make(other), other, epochs=EPOCHS)
        first, last = trained.rows[0]["loss"], trained.rows[-1]["loss"]
        assert run.rows[-1]["loss"] == pytest.approx(last, abs=0.5 * max(first - last, 0.0) + 0.02 * abs(last))

    def test_a_step_on_the_meta_device(self, split):
        """A tensor that is left on the CPU, or made there, is found without a GPU."""
        if not self.meta:
            pytest.skip("shapes of a step depend on the data's values")
        model = self.make(split).train().to("meta")
        steps = 0
        for batch in model.batches(split, Streams(0)):
            found = {tensor.device.type for tensor in tensors_in(batch)}
            assert found == {"meta"}, f"a batch of a model on 'meta' is on {found}"
            with OneDevice():
                terms = model.loss(batch)
                assert {term.device.type for term in terms.values()} == {"meta"}
                torch.stack(list(terms.values())).sum().backward()
                model.after_batch(True)
            steps += 1
            if steps == 2:
                break
        assert steps == 2

    def test_it_learns_what_it_is_made_for(self):
        for kind, share in self.known.items():
            split, best = known_answer(kind)
            model = self.make(split, **copy.deepcopy(self.known_fields))
            fit(model, split, epochs=self.known_epochs)
            k = 10 if model.beam is None else min(10, model.beam)
            reached = dglrec.evaluate(model, split.test, seen="mask", k=(k,))[f"recall@{k}"]
            assert reached >= share * best, f"{kind}: recall@{k} {reached:.3f}; the oracle has {best:.3f}"
            for name in BEATS[kind]:
                counted = reached_by_counting(kind, name)
                assert reached > counted, f"{kind}: recall@{k} {reached:.3f}; {name} has {counted:.3f}"


class ModelContract(ScoresContract, TrainingContract):
    """All of it, for a model that learns and scores every item."""


class GenerativeContract(ListContract, TrainingContract):
    """All of it, for a model that learns and generates a list."""
