"""Configurations: typed, frozen dataclasses whose misspelt or ill-typed fields are errors.

A model's config is one dataclass with fields named as in its paper; `TrainConfig` is its field `train`. `replace` is
the one way in for values from outside (keyword arguments, `--set field=value`, `config.json`).
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, TypeVar

import numpy as np

from .errors import ConfigError, closest

Config = TypeVar("Config")

CUTS = (5, 10, 20, 50)  # of the ranking, by default

_LIMITS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    ">": (operator.gt, "above"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "below"),
    "<=": (operator.le, "at most"),
}


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the same fields for every model.

    Attributes:
        optimizer: "adam" or "adamw".
        lr: learning rate.
        batch_size: targets (or edges) per step, so that every target weighs the same.
        weight_decay: L2 of Adam, or the decoupled decay of AdamW.
        schedule: "constant", "linear" or "cosine" decay of the learning rate to zero over `epochs`, or "exponential",
            the rate times `decay` after each epoch.
        decay: factor per epoch in the "exponential" schedule.
        warmup_steps: steps of linear warm-up before the schedule.
        warmup_share: the same as a share of all steps of `epochs`, such as 0.05; one of the two is 0.
        clip: largest global norm of the gradient; 0 leaves gradients alone.
        accumulate: batches whose gradients are averaged before the optimizer steps.
        precision: "float32", or "bfloat16" (autocast of the forward pass).
        epochs: maximum number of epochs.
        patience: training stops when more than `patience` epochs in a row did not reach the best validation value.
        monitor: the validation metric that selects the epoch, such as "ndcg@20"; "auto" is "auc_pooled" where the
            queries have several targets among candidates, as those of windows do, and "ndcg@20" elsewhere.
        monitor_digits: decimals kept before two epochs are compared (RecBole rounds to 4); a tie counts as better.
        peek_at_test: also measure the test queries after each epoch, and say in the result what the epoch that is best
            on them gives ("selected_on_test"). That number is a leak: some published code selects so, and it is only
            there to show how much that adds. It selects nothing here, and the training stays the same to the bit.
        seed: seed of every random stream.
    """

    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3
    batch_size: int = 512
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    decay: float = 0.96
    warmup_steps: int = 0
    warmup_share: float = 0.0
    clip: float = 0.0
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    epochs: int = 300
    patience: int = 10
    monitor: str = "ndcg@20"
    monitor_digits: int = 4
    peek_at_test: bool = False
    seed: int = 2020

    def __post_init__(self) -> None:
        check_limits(
            self, "train.", lr=">0", weight_decay=">=0", clip=">=0", decay=">0 <=1", batch_size=">=1", accumulate=">=1"
        )
        check_limits(self, "train.", epochs=">=0", patience=">=0", warmup_steps=">=0", monitor_digits=">=0", seed=">=0")
        check_limits(self, "train.", warmup_share=">=0 <1")
        if self.warmup_steps and self.warmup_share:
            raise ConfigError(
                f"train.warmup_steps is {self.warmup_steps} and train.warmup_share {self.warmup_share}; set one of them"
            )


def replace(config: Config, changes: dict[str, Any], where: str = "") -> Config:
    """A copy of `config` with `changes` made, each checked against the type of its field.

    Keys may be dotted (`train.lr`) or hold a nested dict; values may be text, as from the command line.

    Raises:
        ConfigError: a field does not exist (the closest one is named) or a value does not fit its type.

    >>> replace(TrainConfig(), {"lr": "1e-4", "epochs": 3}).lr
    0.0001
    """
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(config))
    nested: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if head not in fields:
            label = f" in {where!r}" if where else f" of {type(config).__name__}"
            raise ConfigError(f"unknown field {head!r}{label}; {closest(head, fields)}")
        if dataclasses.is_dataclass(hints[head]):
            if rest:
                nested.setdefault(head, {})[rest] = value
            elif isinstance(value, dict):
                nested.setdefault(head, {}).update(value)
            elif isinstance(value, typing.cast(type, hints[head])):
                values[head] = value
            else:
                raise ConfigError(
                    f"field {head!r} is {value!r}; expected fields of {hints[head].__name__}, e.g. {head}.lr=1e-3"
                )
        elif rest:
            raise ConfigError(f"field {where + head!r} has no parts; {key!r} cannot be set")
        else:
            values[head] = _cast(value, hints[head], where + head)
    for head, inner in nested.items():
        values[head] = replace(values.get(head, getattr(config, head)), inner, where=f"{where}{head}.")
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def check_limits(config: Any, where: str = "", **limits: str) -> None:
    """Refuse a config with a number outside of its limits, such as `check_limits(config, dim=">=1", dropout=">=0 <1")`.

    Raises:
        ConfigError: the first field that does not keep to its limits; `where` precedes its name.
    """
    for name, text in limits.items():
        value = getattr(config, name)
        for limit in text.split():
            number = limit.lstrip("<>=")
            keeps, words = _LIMITS[limit.removesuffix(number)]
            if not keeps(value, float(number)):
                raise ConfigError(f"{where}{name} is {value}; expected {words} {number}")


def is_whole(number: Any) -> TypeGuard[int]:
    """Whether an argument is a whole number, of Python's or NumPy's; a truth value is not."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def check_even(config: Any, name: str) -> None:
    """Refuse an odd size of an encoding, which is made of pairs of a sine and a cosine.

    Raises:
        ConfigError: it is odd.
    """
    if (value := getattr(config, name)) % 2:
        raise ConfigError(f"{name} is {value}; expected an even number, as sines and cosines come in pairs")


def _cast(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type `hint`, or a ConfigError; text is read as the type that the field has."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value in choices:
            return value
        raise ConfigError(f"field {name!r} is {value!r}; {closest(str(value), [str(c) for c in choices])}")
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return _cast(value, inner, name)
    if hint is bool:
        text = str(value).lower()
        if text in ("true", "1", "false", "0"):
            return text in ("true", "1")
    elif hint is int and not isinstance(value, bool):
        try:
            if not isinstance(value, float) or value.is_integer():
                return int(value)
        except (TypeError, ValueError):
            pass
    elif hint is float and not isinstance(value, bool):
        try:
            number = float(value)
            if math.isfinite(number):
                return number
        except (TypeError, ValueError):
            pass
    elif hint is str and isinstance(value, str):
        return value
    raise ConfigError(f"field {name!r} is {value!r}; expected {getattr(hint, '__name__', hint)}")
