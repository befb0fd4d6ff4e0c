"""What every model is: a config, the batches that it learns from, a loss with named terms, and how it scores items."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .batches import Windows, window_batches, window_targets
from .config import TrainConfig, check_limits, replace
from .data.queries import Queries
from .data.splits import Split, check_split
from .errors import ConfigError, closest
from .nn.products import candidate_products, largest_products
from .recommend import Recommendations, recommend
from .streams import Streams


class Model(nn.Module):
    """Base of all models. A new one defines `Config`, `batches`, `loss`, and both vectors (or `scores`, or `top`).

    Args:
        split: what to learn from; only `split.train` is read.
        config: an instance of the class's `Config`; its defaults if not given.
        fields: changes to it, such as `gamma=0.2` or `train={"lr": 1e-4}`.

    Raises:
        ConfigError: `split` is not a Split, or a field or value does not exist.

    Attributes:
        Config: the class of the config: a frozen dataclass with the fields `train` (TrainConfig) and `seen`.
        preset: name of the preset that the model was made from, or of its class.
        default_split: how its paper splits a log; the default of `dglrec train`.
        default_negatives: number of drawn items that a target is ranked among in its paper, and by default in
            `dglrec train`; None for all items.
        beam: maximum number of items that a generative model can rank; None if all items have a score.
        ranking_fields: fields of the config that are read only when items are ranked.
    """

    Config: ClassVar[type[Any]]
    ranking_fields: ClassVar[tuple[str, ...]] = ("seen",)
    default_split: ClassVar[Literal["leave-one-out", "windows"]] = "leave-one-out"
    default_negatives: ClassVar[int | None] = None
    beam: int | None = None
    config: Any

    def __init__(self, split: Split, config: Any = None, **fields: Any) -> None:
        super().__init__()
        check_split(split)
        self.config = replace(config if config is not None else self.Config(), fields)
        self.split = split
        self.preset = self._preset()
        self.num_users = split.train.num_users
        self.num_items = split.train.num_items

    def _preset(self) -> str:
        """The preset with the most fields that fits this class and config; the name of the class if none fits."""
        fitting = {
            name: len(known.fields)
            for name, known in PRESETS.items()
            if known.model is type(self) and all(attrgetter(k)(self.config) == v for k, v in known.fields.items())
        }
        return max(fitting, key=lambda name: fitting[name], default=type(self).__name__.lower())

    @property
    def train_config(self) -> TrainConfig:
        """The field `train` of the config."""
        train: TrainConfig = self.config.train
        return train

    @property
    def seen(self) -> Literal["keep", "mask"]:
        """Whether the paper's protocol keeps or masks the items of the history when this model is evaluated."""
        seen: Literal["keep", "mask"] = self.config.seen
        return seen

    def set_ranking(self, **fields: Any) -> None:
        """Change how the model ranks, not what it has learnt: fields of `ranking_fields`, also after training.

        Raises:
            ConfigError: another field, whose change would need a new training, or a wrong value.
        """
        config = replace(self.config, fields)
        if fixed := [name for name in fields if name not in self.ranking_fields]:
            raise ConfigError(
                f"{fixed[0]!r} is fixed once the model is made; {', '.join(self.ranking_fields)} can be set to rank "
                "with the same weights; to change another field, train a new model"
            )
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        tensor = next(iter(self.parameters()), next(iter(self.buffers()), None))
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def targets_per_epoch(self) -> int:
        """The number of training positions that have a past or, for graph models, of pairs."""
        return int((self.split.train.position > 0).sum())

    @property
    def batches_per_epoch(self) -> int:
        """Steps of `batches` in an epoch, where `train.batch_size` counts targets."""
        return math.ceil(self.targets_per_epoch / self.train_config.batch_size)

    def batches(self, split: Split, streams: Streams) -> Iterator[Any]:
        """The batches of one epoch, on the model's device; every draw comes from `streams`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns from: define batches()")

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Named terms of the loss of a batch; their sum is the objective."""
        raise NotImplementedError(f"{type(self).__name__} has no loss: define loss()")

    def before_training(self) -> None:
        """Load what comes from elsewhere, such as another model's vectors; `fit` calls this before the first epoch."""

    def after_batch(self, stepped: bool) -> None:
        """What a model does besides learning by gradient, such as filling a queue; `loss` itself changes nothing.

        Args:
            stepped: whether the optimizer has stepped after the batch; with `train.accumulate` it steps only after
                several. If too few batches are left at the end of an epoch, it steps, and this is called once more.
        """

    def epoch_figures(self) -> dict[str, float]:
        """What an epoch's row holds besides losses and metrics, such as "tokens"; `fit` calls this after each epoch.

        It begins to count anew with each call; `fit` also calls it before an epoch.
        """
        return {}

    def query_vectors(self, queries: Queries) -> Tensor:
        """(B, K, d): one or more vectors per query."""
        raise NotImplementedError(
            f"{type(self).__name__} has no query vectors: define query_vectors(), scores() or top()"
        )

    def item_vectors(self) -> Tensor:
        """(M, d): one vector per item."""
        raise NotImplementedError(
            f"{type(self).__name__} has no item vectors: define item_vectors(), scores() or top()"
        )

    def scores(self, queries: Queries, items: Tensor | None = None) -> Tensor:
        """How well each item fits each query: the largest dot product over the query's K vectors.

        Shapes: B queries, items (B, C) int64 or None for all -> (B, M) or (B, C).
        """
        vectors, table = self.query_vectors(queries), self.item_vectors()
        if items is not None:
            return candidate_products(vectors, table, items)
        return largest_products(vectors, table)

    @property
    def scores_are_products(self) -> bool:
        """Whether `scores` are largest dot products of query and item vectors, which can be made separately."""
        return type(self).scores is Model.scores

    def score_slices(self, queries: Queries, size: int) -> Iterator[Tensor]:
        """The rows of `scores(queries)` in turn, about `size` numbers at a time, for the evaluator.

        Each tensor is valid until the next one, which may overwrite it: queries are encoded together, and their scores
        are computed in one buffer that stays in the cache. For a model with its own `scores`, these are called.
        """
        if not self.scores_are_products:
            step = max(1, size // max(1, self.num_items))
            for first in range(0, len(queries), step):
                yield self.scores(queries[first : first + step]).clone()
            return
        vectors, table = self.query_vectors(queries), self.item_vectors()
        step = max(1, size // max(1, vectors.shape[1] * len(table)))
        buffer = vectors.new_empty(min(step, len(vectors)) * vectors.shape[1], len(table))
        for part in vectors.split(step):
            yield largest_products(part, table, out=buffer[: part.shape[0] * part.shape[1]])

    def top(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """The k best items of each query: ids (B, k), scores (B, k). Generative models override this."""
        best = self.scores(queries).topk(k, dim=1)
        return best.indices, best.values

    def recommend(
        self,
        user: str | None = None,
        *,
        users: Sequence[str] | None = None,
        history: Sequence[str] | None = None,
        histories: Sequence[Sequence[str]] | None = None,
        k: int = 10,
        per_interest: int | None = None,
        seen: Literal["mask", "keep"] = "mask",
    ) -> Recommendations:
        """The k best items for a known user, for a new history, or for many of either; see `dglrec.recommend`."""
        return recommend(
            *(self, user),
            users=users,
            history=history,
            histories=histories,
            k=k,
            per_interest=per_interest,
            seen=seen,
        )


class WindowModel(Model):
    """Base of the models that learn from windows; their config has `max_length`, `negatives` and `train.batch_size`."""

    default_split = "windows"

    @property
    def targets_per_epoch(self) -> int:
        """The positives of all windows."""
        return window_targets(self.split)

    @property
    def batches_per_epoch(self) -> int:
        """`train.batch_size` counts windows."""
        windows = window_targets(self.split) if self.split.windows is None else len(self.split.windows)
        return math.ceil(windows / self.train_config.batch_size)

    def batches(self, split: Split, streams: Streams) -> Iterator[Windows]:
        """`train.batch_size` windows per step."""
        c, rng = self.config, streams.numpy("windows")
        return window_batches(
            split, c.train.batch_size, rng, self.device, max_length=c.max_length, negatives=c.negatives
        )


def check_times(split: Split, wanted: bool, without: str = "times=false") -> None:
    """Refuse a log without times for a model that reads them.

    Args:
        split: what the model learns from.
        wanted: whether it reads times.
        without: the settings with which it does not read them, for the message.

    Raises:
        ConfigError: times are wanted, and the training log has none.
    """
    if wanted and split.train.time is None:
        raise ConfigError(f"the model reads times, and {split.log.name!r} has none; use data with times, or {without}")


def check_transformer(config: Any) -> None:
    """Refuse the sizes of a transformer that cannot be built.

    Raises:
        ConfigError: dim, layers, heads, inner, max_length or a dropout is out of range, or heads do not divide dim.
    """
    check_limits(config, dim=">=1", layers=">=0", heads=">=1", inner=">=1", max_length=">=1")
    check_limits(config, dropout=">=0 <1", attention_dropout=">=0 <1")
    if config.dim % config.heads:
        raise ConfigError(f"heads is {config.heads} and dim is {config.dim}; expected a dim that is divisible by heads")


@dataclass(frozen=True)
class Preset:
    """A model class, the fields in which it differs from the class's defaults, and where it comes from."""

    model: type[Model]
    fields: dict[str, Any]
    source: str

    @property
    def config(self) -> Any:
        """The config of the preset."""
        return replace(self.model.Config(), self.fields)


PRESETS: dict[str, Preset] = {}  # by name; those of this package are in `dglrec.models`, and yours can join them


def preset(name: str, split: Split, **fields: Any) -> Model:
    """The model of a preset, with changes to its config.

    Raises:
        ConfigError: no such preset, field or value; the closest name is given.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; {closest(name, PRESETS)}")
    found = PRESETS[name]
    model = found.model(split, found.config, **fields)
    model.preset = name
    return model
