"""Configs: what is misspelt or of the wrong type is an error that names the field and the closest one."""

from __future__ import annotations

import dataclasses
import json

import pytest

import dglrec
from dglrec.config import TrainConfig, replace
from dglrec.errors import ConfigError
from dglrec.models import PRESETS
from dglrec.models.gsau import GSAUConfig
from dglrec.models.sasrec import SASRecConfig


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("lr", "1e-4", 1e-4),
        ("lr", 1, 1.0),
        ("batch_size", "256", 256),
        ("batch_size", 64.0, 64),
        ("optimizer", "adamw", "adamw"),
        ("epochs", 0, 0),
        ("monitor", "recall@10", "recall@10"),
    ],
)
def test_values_are_cast_to_the_type_of_their_field(field, value, expected):
    changed = getattr(replace(TrainConfig(), {field: value}), field)
    assert changed == expected
    assert type(changed) is type(expected)


@pytest.mark.parametrize("value", ["true", "True", "1", True, 1, "false", "0", False, 0])
def test_truth_values(value):
    changed = replace(GSAUConfig(), {"rec": value}).rec
    assert changed is (str(value).lower() in ("true", "1"))


def test_fields_of_train_are_reached_by_a_dot_or_a_dict():
    one = replace(SASRecConfig(), {"train.lr": 0.5, "dim": 8})
    two = replace(SASRecConfig(), {"train": {"lr": 0.5}, "dim": 8})
    three = replace(SASRecConfig(), {"train": TrainConfig(lr=0.5), "dim": 8})
    assert one == two == three
    assert (one.train.lr, one.train.batch_size, one.dim, one.layers) == (0.5, 512, 8, 2)
    both = replace(SASRecConfig(), {"train": {"lr": 0.5}, "train.seed": 1})
    assert (both.train.lr, both.train.seed) == (0.5, 1)


def test_a_config_survives_json():
    """As config.json keeps it."""
    config = replace(GSAUConfig(), {"gamma": 0.3, "rec": True, "train.clip": 1.5})
    assert replace(GSAUConfig(), json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_configs_are_frozen_and_the_original_stays():
    config = TrainConfig()
    assert replace(config, {"lr": 1.0}) is not config
    assert config.lr == 1e-3
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 2.0


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (TrainConfig, {"learning_rate": 1}, "unknown field 'learning_rate'"),
        (TrainConfig, {"batchsize": 1}, "did you mean 'batch_size'"),
        (GSAUConfig, {"gama": 1}, "did you mean 'gamma'"),
        (GSAUConfig, {"train.lrr": 1}, "did you mean 'lr'"),
        (GSAUConfig, {"train": {"sed": 1}}, "did you mean 'seed'"),
        (GSAUConfig, {"tain.lr": 1}, "did you mean 'train'"),
        (GSAUConfig, {"gamma.x": 1}, "no parts"),
        (GSAUConfig, {"train": 3}, "train"),
        (GSAUConfig, {"gamma": "much"}, "'gamma' is 'much'; expected float"),
        (GSAUConfig, {"gamma": "nan"}, "gamma"),
        (GSAUConfig, {"gamma": float("inf")}, "gamma"),
        (GSAUConfig, {"gamma": True}, "gamma"),
        (GSAUConfig, {"gamma": None}, "gamma"),
        (GSAUConfig, {"rec": "yes"}, "'rec' is 'yes'; expected bool"),
        (GSAUConfig, {"negatives": "derangment"}, "did you mean 'derangement'"),
        (GSAUConfig, {"seen": "masked"}, "did you mean 'mask'"),
        (SASRecConfig, {"layers": 1.5}, "layers"),
        (SASRecConfig, {"layers": "two"}, "layers"),
        (SASRecConfig, {"layers": [2]}, "layers"),
        (TrainConfig, {"epochs": True}, "epochs"),
        (TrainConfig, {"monitor": 3}, "monitor"),
        (TrainConfig, {"lr": 0}, "train.lr is 0"),
        (TrainConfig, {"lr": -1e-3}, "train.lr"),
        (TrainConfig, {"batch_size": 0}, "train.batch_size is 0"),
        (TrainConfig, {"accumulate": 0}, "train.accumulate"),
        (TrainConfig, {"epochs": -1}, "train.epochs"),
        (TrainConfig, {"patience": -1}, "train.patience"),
        (TrainConfig, {"seed": -1}, "train.seed"),
        (TrainConfig, {"weight_decay": -0.1}, "train.weight_decay"),
        (TrainConfig, {"clip": -1}, "train.clip"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_does(config, changes, message):
    with pytest.raises(ConfigError) as error:
        replace(config(), changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- Presets -------------------------------------------------------------------------------------------------------


def test_every_preset_can_be_made_and_says_its_name(split):
    for name in PRESETS:
        model = dglrec.models.preset(name, split)
        assert model.preset == name
        assert model.seen in ("keep", "mask")
        assert isinstance(model.train_config, TrainConfig)


def test_an_unknown_preset_names_the_closest(split):
    with pytest.raises(ConfigError, match="did you mean 'sasrec'"):
        dglrec.models.preset("sasrek", split)


def test_fields_of_the_caller_stand_above_those_of_the_preset(split):
    assert dglrec.models.preset("gsau-rec", split).config.rec is True
    assert dglrec.models.preset("gsau-rec", split, rec=False).config.rec is False


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("sasrec", {"dim": 10, "heads": 3}),
        ("sasrec", {"dim": 0}),
        ("sasrec", {"heads": 0}),
        ("sasrec", {"max_length": 0}),
        ("sasrec", {"layers": -1}),
        ("sasrec", {"dropout": 1.5}),
        ("sasrec", {"dropout": -0.1}),
        ("sasrec", {"attention_dropout": 2.0}),
        ("sasrec", {"stride": 0}),
        ("sasrec", {"stride": 51}),
        ("lightgcn", {"layers": -1}),
        ("lightgcn", {"dim": -4}),
        ("lightgcn", {"temperature": 0.0}),
        ("gsau", {"graph": False, "sequential": False}),
        ("gsau", {"temperature": 0.0}),
    ],
    ids=str,
)
def test_a_value_that_no_model_can_have_is_an_error_when_the_model_is_made(name, fields, split):
    """Not a traceback, and not in the middle of training."""
    with pytest.raises(ConfigError) as error:
        dglrec.models.preset(name, split, **fields)
    assert next(iter(fields)) in str(error.value)
