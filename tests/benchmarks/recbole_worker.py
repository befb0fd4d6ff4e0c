"""Times one task of RecBole 1.2.1 in a process of its own, and writes what it saw as JSON.

Runs in the environment of `recbole_env.py`; `speed.py` starts it. RecBole's own trainer, data loaders, models and
optimizer do the work. The steps of an epoch are timed from one request of the trainer for a batch to the next, so that
loading, forward, backward and optimizer all count.

    sasrec     Trainer._train_epoch on the first STEPS batches: prefix augmentation, cross-entropy, 50 items a prefix
    lightgcn   Trainer._train_epoch: BPR with one sampled negative (all batches where STEPS is 0)
    evaluate   Trainer.evaluate of LightGCN, full ranking, on the first USERS test users
    gsau       the step of GSAU (rec) made of RecBole's LightGCN and SASRec over shared tables, with the paper's losses:
               a stand-in for the authors' code (a fork of RecBole that no package index has), not that code
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

DATA = "amazon-beauty"
COMMON = {
    "data_path": "",
    "use_gpu": False,
    "seed": 2020,
    "state": "ERROR",
    "show_progress": False,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "train_batch_size": 512,
    "learning_rate": 1e-3,
    "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    "metrics": ["Recall", "NDCG"],
    "topk": [5, 10, 20, 50],
    "valid_metric": "NDCG@20",
}
SASREC = {
    "MAX_ITEM_LIST_LENGTH": 50,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": 64,
    "inner_size": 256,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "hidden_act": "gelu",
    "loss_type": "CE",
    "train_neg_sample_args": None,
}
LIGHTGCN = {"embedding_size": 64, "n_layers": 2, "reg_weight": 1e-5}


class Timed:
    """A training loader that ends after `steps` batches (0: never) and notes when each batch was asked for."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader = loader
        self.shuffle = loader.shuffle
        self.steps = min(steps, len(loader)) if steps else len(loader)
        self.asked: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        for _ in range(self.steps):
            self.asked.append(time.perf_counter())
            yield next(batches)
        self.asked.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each step, the first included."""
        return [after - before for before, after in pairwise(self.asked)]


def prepare(model: str, data_path: str, settings: dict[str, Any]) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """RecBole's configuration, data set and its three loaders."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    config = Config(model=model, dataset=DATA, config_dict={**COMMON, "data_path": data_path, **settings})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return config, dataset, data_preparation(config, dataset)


def model_of(config: Any, loaders: tuple[Any, Any, Any]) -> Any:
    from recbole.utils import get_model

    return get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])


def train(model_name: str, data_path: str, settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Seconds of RecBole's training steps, and of an epoch."""
    from recbole.trainer import Trainer

    config, _, loaders = prepare(model_name, data_path, settings)
    trainer = Trainer(config, model_of(config, loaders))
    timed = Timed(loaders[0], steps + 1 if steps else 0)  # the first step is the warm-up
    trainer._train_epoch(timed, 0)
    return {"targets": len(loaders[0]._dataset), **summary(timed.seconds(), len(loaders[0]))}


def summary(seconds: list[float], steps_per_epoch: int) -> dict[str, Any]:
    """A whole epoch as it was, or the median step (without the first) times the steps of an epoch."""
    whole = len(seconds) == steps_per_epoch
    timed = seconds if whole else seconds[1:]
    step = statistics.median(timed)
    return {
        "steps_per_epoch": steps_per_epoch,
        "steps_timed": len(timed),
        "step_seconds_median": step,
        "step_seconds_min": min(timed),
        "step_seconds_max": max(timed),
        "epoch_seconds": sum(seconds) if whole else step * steps_per_epoch,
        "epoch_is": "measured whole" if whole else "median step x steps an epoch",
    }


def evaluate(data_path: str, users: int, users_per_block: int) -> dict[str, Any]:
    """Users a second of RecBole's full-ranking evaluation of LightGCN, training items masked.

    RecBole divides `eval_batch_size` by the number of items, so that its default of 4096 ranks one user at a time; and
    as it appends each block to its results with `torch.cat`, its time grows faster than the number of users: users a
    second of a part of the users say little about all of them.
    """
    from recbole.trainer import Trainer

    settings = dict(LIGHTGCN)
    if users_per_block:
        settings["eval_batch_size"] = users_per_block * 12_102  # a multiple of the items, with RecBole's padding item
    config, _, loaders = prepare("LightGCN", data_path, settings)
    test = loaders[2]
    all_users = len(test.sampler.data_source)
    count = min(users, all_users) if users else all_users
    trainer = Trainer(config, model_of(config, loaders))
    test.sampler.data_source = range(min(test.step * 2, count))
    trainer.evaluate(test, load_best_model=False)  # warm-up: two blocks; also propagates once and keeps the result
    test.sampler.data_source = range(count)
    trainer.eval_collector.data_struct._data_dict.clear()
    began = time.perf_counter()
    trainer.evaluate(test, load_best_model=False)
    seconds = time.perf_counter() - began
    return {
        "users": count,
        "users_in_all": all_users,
        "users_per_block": test.step,
        "eval_batch_size": config["eval_batch_size"],
        "seconds": seconds,
        "users_per_second": count / seconds,
    }


def gsau(data_path: str, steps: int) -> dict[str, Any]:
    """Seconds of a step of GSAU (rec), gamma .1, made of RecBole's encoders and its loaders."""
    import torch
    import torch.nn.functional as F

    graph_config, _, graph_loaders = prepare("LightGCN", data_path, {**LIGHTGCN, "train_neg_sample_args": None})
    graph_model = model_of(graph_config, graph_loaders)
    sequence_config, _, sequence_loaders = prepare("SASRec", data_path, SASREC)
    sequence_model = model_of(sequence_config, sequence_loaders)
    graph_model.item_embedding = sequence_model.item_embedding  # one item table
    graph_model.train()
    sequence_model.train()
    parameters = {id(p): p for model in (graph_model, sequence_model) for p in model.parameters()}
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-3)

    def align(x: Any, y: Any) -> Any:
        return (x - y).norm(dim=1).square().mean()

    def uniform(x: Any) -> Any:
        return torch.pdist(x).square().mul(-2).exp().mean().log()

    timed = Timed(graph_loaders[0], steps + 1 if steps else 0)
    sequence_batches = iter(sequence_loaders[0])
    for edges in timed:
        try:
            prefixes = next(sequence_batches)
        except StopIteration:  # the sequence loader is shorter than the graph's and starts again
            sequence_batches = iter(sequence_loaders[0])
            prefixes = next(sequence_batches)
        optimizer.zero_grad()
        users, items = graph_model.forward()
        user = F.normalize(users[edges["user_id"]], dim=-1)
        item = F.normalize(items[edges["item_id"]], dim=-1)
        targets = prefixes["item_id"]
        table = sequence_model.item_embedding.weight
        state = F.normalize(sequence_model.forward(prefixes["item_id_list"], prefixes["item_length"]), dim=-1)
        target = F.normalize(table[targets], dim=-1)
        negative = target.roll(1, 0)
        cross = (state - negative).norm(dim=1).square().mul(-2).exp().mean().log()
        loss = align(user, item) + F.cross_entropy(state @ table.T, targets)
        loss = loss + 0.1 * (uniform(user) + uniform(item) + uniform(state) + uniform(target) + cross)
        loss.item()
        loss.backward()
        optimizer.step()
    return {
        "targets": len(sequence_loaders[0]._dataset),
        "edges": len(graph_loaders[0]._dataset),
        **summary(timed.seconds(), len(graph_loaders[0])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["sasrec", "lightgcn", "evaluate", "gsau"])
    parser.add_argument("--data-path", required=True, help="folder that holds amazon-beauty/amazon-beauty.inter")
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="steps to time after one warm-up step; 0: a whole epoch")
    parser.add_argument("--users", type=int, default=0, help="test users to rank; 0: all")
    parser.add_argument("--users-per-block", type=int, default=0, help="0: RecBole's default eval_batch_size")
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads the command line as well
    warnings.filterwarnings("ignore")
    out, data_path = os.path.abspath(args.out), os.path.abspath(args.data_path)

    import numpy
    import pandas
    import recbole
    import scipy
    import torch

    torch.set_num_threads(args.threads)
    load = list(os.getloadavg())
    with tempfile.TemporaryDirectory() as scratch:  # RecBole writes logs and checkpoints where it runs
        os.chdir(scratch)
        if args.task == "sasrec":
            result = train("SASRec", data_path, SASREC, args.steps)
        elif args.task == "lightgcn":
            result = train("LightGCN", data_path, LIGHTGCN, args.steps)
        elif args.task == "evaluate":
            result = evaluate(data_path, args.users, args.users_per_block)
        else:
            result = gsau(data_path, args.steps)
        os.chdir(os.path.dirname(out))
    modules = {"recbole": recbole, "torch": torch, "numpy": numpy, "scipy": scipy, "pandas": pandas}
    result.update(
        threads=torch.get_num_threads(),
        load_average_before=load,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        versions={"python": platform.python_version(), **{name: m.__version__ for name, m in modules.items()}},
    )
    with open(out, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
