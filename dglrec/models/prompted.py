"""What GAL-Rec and related models share: a T5 that reads prompts, and the questions that it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..base import Model
from ..config import TrainConfig, check_limits
from ..data.flat import Ints
from ..data.splits import Split
from ..lm.backbone import Backbone
from ..lm.hop_prompts import Asked, CutShare, Packed, asked_batches
from ..lm.prompts import Neighbour, Prompter, Prompts
from ..streams import Streams


def t5_training(weight_decay: float = 1e-3) -> TrainConfig:
    """The training of a small T5 from scratch."""
    return TrainConfig(
        optimizer="adamw",
        batch_size=64,
        weight_decay=weight_decay,
        schedule="linear",
        warmup_share=0.05,
        clip=1.0,
        epochs=20,
        patience=5,
    )


@dataclass(frozen=True)
class PromptConfig:
    """The T5 and its prompts, the same in all these models.

    Attributes:
        backbone: "tiny", or the name or folder of a T5.
        dim, layers, heads, inner, dropout: of "tiny"; a pre-trained T5 has its own.
        max_length: number of newest items of a history in a prompt; in GAL-Rec also of users of an item, at hop 1.
        budget: maximum number of tokens in a prompt.
        epoch_targets: targets of an epoch, drawn anew each time; 0 for all.
        seen: whether evaluation keeps or masks the items of the history.
    """

    backbone: str = "tiny"
    dim: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 128
    dropout: float = 0.1
    max_length: int = 20
    budget: int = 256
    epoch_targets: int = 0
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=t5_training)

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", layers=">=1", heads=">=1", inner=">=1", dropout=">=0 <1")
        check_limits(self, max_length=">=1", budget=">=1", epoch_targets=">=0")


class PromptModel(Model):
    """Base of the models that read prompts; their config extends `PromptConfig`.

    Attributes:
        backbone: the T5; a model makes its own, and `_prompter` for it.
    """

    config: Any
    backbone: Backbone
    _prompter: Prompter

    def __init__(self, split: Split, config: Any = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        self._cut = CutShare()

    @property
    def targets_per_epoch(self) -> int:
        """The number of training positions that have a past, at most `epoch_targets`."""
        return min(super().targets_per_epoch, self.config.epoch_targets or len(self.split.train))

    def questions(self, split: Split, streams: Streams) -> Iterator[Asked]:
        """The questions of one epoch, `train.batch_size` at a time."""
        c, rng = self.config, streams.numpy("prompts")
        return asked_batches(split.train, self.targets_per_epoch, c.train.batch_size, c.max_length, rng)

    def written(self, type: str, nodes: Ints, hops: Sequence[Neighbour], question: bool = False) -> Prompts:
        """Prompts, see `Prompter`; in training, what the budget cuts is counted."""
        made = self._prompter(type, nodes, hops, question)
        if self.training:
            self._cut.add(made, hops)
        return made

    def packed(self, type: str, nodes: Ints, hops: Sequence[Neighbour], question: bool = False) -> Packed:
        """The same on the model's device."""
        made = self.written(type, nodes, hops, question)
        return Packed.of(made.offsets, made.tokens, self.device)

    def epoch_figures(self) -> dict[str, float]:
        """Number of encoded tokens in all prompts, the share of padding, and the share of entries cut by the budget."""
        return self.backbone.figures() | self._cut.figures()
