"""Training: one loop for every model, on a CPU or a GPU, that can be stopped and resumed to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ._dgl import dgl_version
from .base import Model
from .checkpoint import (
    load_state,
    read_json,
    save_state,
    save_weights,
    set_weights,
    start_folder,
    write_config,
    write_json,
)
from .config import TrainConfig
from .config import replace as replace_config
from .data.files import atomic_write
from .data.queries import Queries
from .data.splits import Split, check_split
from .errors import CheckpointError, ConfigError, DataError, DglrecError
from .evaluate import AT_K, WHOLE, Metrics, default_cuts, evaluate, has_pools
from .memory import peak_memory_bytes, return_free_memory, reused_memory
from .streams import Streams, global_generator
from .version import __version__

TRIM_STEPS = 100
# What `Run.test` adds to a result.
TESTED = ("protocol", "test", "test_masked", "test_full", "test_new", "standard_errors")


@dataclass(repr=False)
class Run:
    """A training: the model with the weights of its best epoch, a row per epoch, and the result.

    Attributes:
        model: the trained model.
        rows: one dict per epoch: epoch, seconds, loss (mean per step), loss_sum, every loss term, validation metrics,
            and with `train.peek_at_test` those of test in a dict of their own, "test".
        best_epoch: the epoch (from 0, as in `rows`; what is printed counts from 1) whose weights the model has; None if
            there was none to choose.
        valid: validation metrics of that epoch.
        folder: the run folder, or None.
        result: what `result.json` holds; `test` fills in the test metrics.
        tested: what `test` measured, with the values of each query: "test", "test_masked" and, where there are such,
            "test_full" and "test_new".
    """

    model: Model
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    valid: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None
    result: dict[str, Any] = field(default_factory=dict)
    tested: dict[str, Metrics] = field(default_factory=dict)

    def test(self) -> Metrics:
        """Read the test set, once and at the end: under the model's own protocol, and with seen items masked.

        Where some targets are in their history, the result also has `test_new`, for items that are new to the user.
        Where targets are ranked among sampled negatives it has `test_full`, the same queries with all items ranked, as
        sampled metrics may order systems otherwise (docs/evaluation.md).
        A run that is resumed keeps all this as long as its best epoch stays the same.
        """
        cuts, asked = default_cuts(self.model.beam), self.model.split.test
        test = evaluate(self.model, asked, k=cuts, per_query=True)
        masked = test if self.model.seen == "mask" else self._masked(asked, cuts)
        self.tested = {"test": test, "test_masked": masked}
        if asked.candidates is not None and self.model.split.windows is None:
            full = asked.without_candidates()
            self.tested["test_full"] = evaluate(self.model, full, k=cuts, per_query=True)
        new = asked.new_items()
        if len(new) > 0 and len(new.targets) < len(asked.targets):
            self.tested["test_new"] = self._masked(new, cuts)
        self.result |= {"protocol": test.protocol.to_dict(), "standard_errors": test.standard_errors}
        self.result |= {name: dict(metrics) for name, metrics in self.tested.items()}
        if self.folder is not None:
            write_json(self.folder / "result.json", self.result)
            write_json(self.folder / "protocol.json", test.protocol.to_dict())
        return test

    def _masked(self, queries: Queries, cuts: tuple[int, ...]) -> Metrics:
        return evaluate(self.model, queries, k=cuts, seen="mask", per_query=True)

    def __repr__(self) -> str:
        split, where = self.model.split, f"in {self.folder}" if self.folder is not None else "in memory"
        return f"Run({self.model.preset} on {split.log.name} by {split.rule['function']}: {self._best()}, {where})"

    def _best(self) -> str:
        """The epoch that was chosen, from 1, of all."""
        if not self.rows or self.best_epoch is None:
            return "nothing to train"
        return f"best epoch {self.best_epoch + 1} of {len(self.rows)}"

    def __str__(self) -> str:
        best = self._best()
        monitor = self.model.train_config.monitor
        values = f"validation {monitor} {self.valid[monitor]:.4f}" if monitor in self.valid else "validation -"
        if len(self.model.split.valid) == 0:
            best, values = f"the last of {len(self.rows)} epochs", "nothing is held out for validation"
        text = f"{self.model.preset} on {self.model.split.log.name}: {best}; {values}"
        if peeked := self.result.get("selected_on_test"):
            honest = "" if self.best_epoch is None else f", not {self.rows[self.best_epoch]['test'][monitor]:.4f}"
            text += (
                f"\nwith the epoch selected on the test queries (epoch {peeked['epoch'] + 1}) their {monitor} would be "
                f"{peeked['metrics'][monitor]:.4f}{honest}: a leak, shown for its size only"
            )
        return text


def fit(
    model: Model,
    split: Split,
    *,
    epochs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    device: Literal["auto", "cpu", "cuda"] | str = "auto",
    resume: bool = False,
    progress: bool | None = None,
    **changes: Any,
) -> Run:
    """Train `model` on `split.train`, select the epoch on `split.valid`; the test set is not read.

    Where nothing is held out for validation, as by `given(log, valid=0)`, all epochs are run and the last weights kept:
    for a last training on all there is, with the number of epochs that an earlier one found.

    A training that is stopped in its first epoch leaves the model with the weights that it began with.

    With `peek_at_test=True` the test queries are measured after each epoch as well. They select nothing: the result
    says under "selected_on_test" what selecting on them would give, as some published code does. It is a leak, and only
    there to show its size.

    Args:
        model: from `dglrec.models`; it is trained in place and ends with the weights of its best epoch.
        split: the split that the model was made from.
        epochs: maximum number of epochs, in place of the config's.
        out: a folder for the run (see `dglrec.checkpoint`); None keeps everything in memory.
        device: "auto" takes CUDA where there is one.
        resume: go on after the last finished epoch in `out`; the outcome is that of a run that was never stopped.
        progress: True or False for bars on standard error; None shows them on a terminal.
        changes: fields of TrainConfig to change, such as `lr=1e-4`.

    Raises:
        ConfigError: no split, or another one than the model's; an unknown device or field.
        DglrecError: the loss is not finite.
        DataError: `out` cannot be written.
    """
    check_split(split)
    if split.digest != model.split.digest:
        raise ConfigError(
            f"the model was made from split {model.split.digest[:12]}, not {split.digest[:12]}; make it anew"
        )
    own = {name for name in changes if hasattr(model.config, name)} - {f.name for f in dataclasses.fields(TrainConfig)}
    if own:
        raise ConfigError(f"{min(own)!r} is a field of the model; pass it to preset()")
    if "seed" in changes:
        raise ConfigError(
            "the seed also makes the initial weights; give it to the model: preset(..., train={'seed': 5})"
        )
    changes |= {} if epochs is None else {"epochs": epochs}
    if changes.get("monitor", model.train_config.monitor) == "auto":
        changes["monitor"] = "auc_pooled" if has_pools(split.valid) else "ndcg@20"
    if changes:
        model.config = replace_config(model.config, {"train": changes})
    model.to(pick_device(device))
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    trainer = _Trainer(model, split, None if out is None else Path(out), progress)
    with global_generator(model.device), reused_memory() if model.device.type == "cpu" else nullcontext():
        return trainer.run(resume)


def pick_device(device: str = "auto") -> torch.device:
    """The torch device of a name; "auto" is CUDA where torch sees one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"unknown device {device!r}; expected auto, cpu or cuda") from None
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; expected auto, cpu or cuda")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    if found.type == "cuda" and (found.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"device is {device!r}, but torch sees {count} GPUs, from cuda:0 to cuda:{count - 1}")
    return found


class _Trainer:
    """The state of one training: model, optimizer, rows so far, and the best epoch."""

    def __init__(self, model: Model, split: Split, folder: Path | None, progress: bool | None) -> None:
        self.model, self.split, self.folder, self.progress = model, split, folder, progress
        self.config: TrainConfig = model.train_config
        self.metrics, self.cuts = _monitored(model)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(self.config, self.parameters.values()) if self.parameters else None
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": None, "value": -math.inf, "valid": {}}
        self.best_weights: dict[str, Tensor] | None = None
        self.steps = 0  # optimizer steps, over all epochs
        self.warmup_steps = _warmup_steps(model)

    def run(self, resume: bool) -> Run:
        self._open(resume)
        epochs = self.config.epochs if self.parameters else 0
        if epochs and not self.rows:
            self.model.before_training()
            self.best_weights = self._weights()
        try:
            while len(self.rows) < epochs and not self._exhausted():
                self._epoch(len(self.rows))
        except BaseException:
            if not self.rows and self.best_weights is not None:  # nothing is finished, so it is as it was
                self.model.load_state_dict(self.best_weights)
            raise
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        if not self.rows and len(self.split.valid):
            self.best["valid"] = dict(evaluate(self.model, self.split.valid, k=self.cuts, metrics=self.metrics))
        self.model.eval()
        result = self._result() | (self._tested() if resume else {})
        run = Run(self.model, self.rows, self.best["epoch"], self.best["valid"], self.folder, result)
        if self.folder is not None:
            save_weights(self.model, self.folder)
            write_json(self.folder / "result.json", run.result)
            if self.rows:
                self._write_rows(self.folder)  # a run that died before it did so may have been resumed
                from .curves import save_curves

                title = f"{self.model.preset} on {self.split.log.name}, seed {self.config.seed}"
                save_curves(self.rows, self.config.monitor, self.best["epoch"], self.folder / "curves.png", title)
        return run

    def _tested(self) -> dict[str, Any]:
        """The test results of these weights, where a run that is resumed had them already."""
        assert self.folder is not None
        try:
            before = read_json(self.folder / "result.json")
        except CheckpointError:  # the run was stopped before its end
            return {}
        same = before.get("best_epoch") == self.best["epoch"]  # of one run, so its weights are the same too
        return {name: before[name] for name in TESTED if same and name in before}

    def _exhausted(self) -> bool:
        """Whether more than `patience` epochs in a row stayed below the best one."""
        return bool(self.rows) and len(self.rows) - 1 - (self.best["epoch"] or 0) > self.config.patience

    def _epoch(self, epoch: int) -> None:
        row = {"epoch": epoch} | self._train(epoch)
        valid, seconds, value = self._validated()
        row |= {"valid_seconds": seconds} | valid | self._peeked()
        self.rows.append(row)
        better = value >= self.best["value"]
        if better:
            self.best = {"epoch": epoch, "value": value, "valid": valid}
            self.best_weights = self._weights()
        if self.folder is not None:
            self._save(epoch)
        if self.progress or (self.progress is None and sys.stderr.isatty()):
            from tqdm import tqdm

            text = f"epoch {epoch + 1:3}  loss {row['loss']:.4f}"
            if valid:
                text += f"  {self.config.monitor} {valid[self.config.monitor]:.4f}"
            if "tokens" in row:
                text += f"  {row['tokens'] / row['seconds']:,.0f} tokens/s, {100 * row['padding']:.0f} % padding"
            if row.get("cut"):
                text += f", {100 * row['cut']:.0f} % of entries cut"
            tqdm.write(f"{text}{' *' if better else '  '}  {row['seconds']:.1f} s", file=sys.stderr)

    def _weights(self) -> dict[str, Tensor]:
        """A copy of all that the model has learnt so far."""
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def _validated(self) -> tuple[dict[str, float], float, float]:
        """Metrics on validation, their seconds, and the value that selects: the last epoch if nothing is held out."""
        if len(self.split.valid) == 0:
            return {}, 0.0, 0.0
        valid = evaluate(self.model, self.split.valid, k=self.cuts, metrics=self.metrics)
        return dict(valid), valid.seconds, round(valid[self.config.monitor], self.config.monitor_digits)

    def _peeked(self) -> dict[str, Any]:
        """The test metrics of a row, where the config says to peek at them."""
        if not self.config.peek_at_test:
            return {}
        test = evaluate(self.model, self.split.test, k=self.cuts, metrics=self.metrics)
        return {"test": dict(test), "test_seconds": test.seconds}

    def _train(self, epoch: int) -> dict[str, Any]:
        """One pass over the batches; mean of each loss term over the steps."""
        assert self.optimizer is not None
        self.model.train()
        # A training that was stopped in an epoch, in this process, has left gradients and counts.
        self.optimizer.zero_grad(set_to_none=True)
        self.model.epoch_figures()
        streams, start, batches = Streams(self.config.seed, epoch), time.perf_counter(), 0
        sums: dict[str, Any] = {}
        with _bar(f"epoch {epoch + 1}", self.progress) as bar:
            for batches, batch in enumerate(self.model.batches(self.split, streams), 1):
                torch.manual_seed(streams.torch_seed("dropout", batches))
                with self._precision():
                    terms = self.model.loss(batch)
                    loss = torch.stack(list(terms.values())).sum()
                (loss / self.config.accumulate).backward()
                stepped = batches % self.config.accumulate == 0
                if stepped:
                    self._step()
                self.model.after_batch(stepped)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + term.detach().double()  # bfloat16 does not count beyond 256
                bar.update(1)
                if batches % 20 == 0 and not bar.disable:
                    bar.set_postfix(
                        {name: f"{float(value) / batches:.3f}" for name, value in sums.items()}, refresh=False
                    )
                if batches % TRIM_STEPS == 0:
                    return_free_memory()
        if batches == 0:
            raise DataError(f"{self.split.log.name!r} has nothing that {self.model.preset} could learn from")
        if left := batches % self.config.accumulate:
            for parameter in self.parameters.values():  # the mean is over what is left
                if parameter.grad is not None:
                    parameter.grad *= self.config.accumulate / left
            self._step()
            self.model.after_batch(True)
        values = {name: float(value) for name, value in sums.items()}
        total = math.fsum(values.values())
        if not math.isfinite(total):
            where = f"epoch {epoch + 1} ({values})"
            raise DglrecError(f"the loss is {total} in {where}; lower train.lr (now {self.config.lr})")
        means = {name: value / batches for name, value in values.items()}
        seconds = time.perf_counter() - start
        row = {"seconds": seconds, "steps": batches, "loss": total / batches, "loss_sum": total}
        return row | means | self.model.epoch_figures()

    def _precision(self) -> Any:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16)

    def _step(self) -> None:
        assert self.optimizer is not None
        if self.config.clip > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * self._schedule()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    def _schedule(self) -> float:
        """Factor of the learning rate at this step."""
        c = self.config
        if self.steps < self.warmup_steps:
            return (self.steps + 1) / self.warmup_steps
        if c.schedule == "constant":
            return 1.0
        if c.schedule == "exponential":
            return c.decay ** len(self.rows)
        done = min(1.0, len(self.rows) / max(c.epochs, 1))
        return 1.0 - done if c.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2

    def _open(self, resume: bool) -> None:
        """Start the run folder, or take up what is in it."""
        if self.folder is None:
            if resume:
                raise ConfigError("resume needs the folder of the run; pass out=")
            return
        if not resume:
            if (self.folder / "config.json").exists():
                raise ConfigError(f"{self.folder} holds a run already; resume it, or choose another folder")
            start_folder(self.model, self.folder)
            return
        saved = read_json(self.folder / "config.json")
        if saved.get("split_digest") != self.split.digest or saved.get("model") != type(self.model).__name__:
            raise CheckpointError(
                f"{self.folder} is a run of {saved.get('model')} on another split; resume it with its own"
            )
        own, usual = (
            json.loads(json.dumps(dataclasses.asdict(config)))
            for config in (self.model.config, type(self.model.config)())
        )
        _check_same(saved.get("config", {}), own, usual, self.folder)
        before = saved["config"]["train"]["epochs"]
        if before != self.config.epochs:
            decays = self.config.schedule in ("linear", "cosine")
            if decays or self.config.warmup_share:
                what = f"the {self.config.schedule} schedule" if decays else "the share of warm-up"
                raise ConfigError(f"{what} was made for {before} epochs; resume it with these")
        # A run that was stopped in the first epoch has no state: nothing is finished, so it starts again.
        tensors, values = load_state(self.folder) if (self.folder / "state" / "latest.json").exists() else ({}, {})
        done = len(values.get("rows", ()))
        if done > self.config.epochs:
            raise ConfigError(
                f"{self.folder} has {done} finished epochs, and epochs is {self.config.epochs}; resume it with {done} "
                "or more, or begin a new run"
            )
        if before != self.config.epochs:
            write_config(self.model, self.folder)
        if values:
            self._take_up(tensors, values)

    def _take_up(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put what `_save` wrote into the model, the optimizer and this trainer."""
        assert self.folder is not None
        names = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        set_weights(self.model, names, self.folder / "state")
        self._set_optimizer(
            {name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")}
        )
        best = {name.removeprefix("best."): t for name, t in tensors.items() if name.startswith("best.")}
        self.best_weights = {name: t.to(self.model.device) for name, t in best.items()} or None
        self.rows, self.best, self.steps = values["rows"], values["best"], values["steps"]

    def _save(self, epoch: int) -> None:
        """State first, then what people read; a kill between the two is mended by the next epoch."""
        assert self.folder is not None and self.optimizer is not None
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (self.best_weights or {}).items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}/{key}"] = value
        save_state(self.folder, tensors, {"epoch": epoch, "rows": self.rows, "best": self.best, "steps": self.steps})
        self._write_rows(self.folder)

    def _write_rows(self, folder: Path) -> None:
        with atomic_write(folder / "metrics.jsonl") as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def _set_optimizer(self, tensors: dict[str, Tensor]) -> None:
        assert self.optimizer is not None
        for name, tensor in tensors.items():
            parameter, _, key = name.partition("/")
            self.optimizer.state[self.parameters[parameter]][key] = tensor.to(
                self.model.device if tensor.ndim else _step_device(self.optimizer, self.model.device)
            )

    def _result(self) -> dict[str, Any]:
        rows, device = self.rows, self.model.device
        return {
            "preset": self.model.preset,
            "model": type(self.model).__name__,
            "data": self.split.log.name,
            "config": dataclasses.asdict(self.model.config),
            "seed": self.config.seed,
            "valid": self.best["valid"],
            "best_epoch": self.best["epoch"],
            "epochs": len(rows),
            "epoch_seconds": float(np.median([row["seconds"] for row in rows])) if rows else 0.0,
            "valid_seconds": float(np.median([row["valid_seconds"] for row in rows])) if rows else 0.0,
            "steps_per_epoch": rows[-1]["steps"] if rows else 0,
            "targets_per_epoch": self.model.targets_per_epoch,
            "train_seconds": math.fsum(row["seconds"] + row["valid_seconds"] for row in rows),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_cpu_name()})",
            "threads": torch.get_num_threads(),
            "peak_memory_bytes": peak_memory_bytes(device),
            "versions": versions(),
        } | self._selected_on_test()

    def _selected_on_test(self) -> dict[str, Any]:
        """What the epoch that is best on the test queries gives on them: a leak, see `TrainConfig.peek_at_test`."""
        if not (self.config.peek_at_test and self.rows):
            return {}
        best = max(self.rows, key=lambda row: row["test"][self.config.monitor])  # the first of equals
        note = f"a leak: the best {self.config.monitor} on test chose this epoch; shown for its size, not as a result"
        return {"selected_on_test": {"note": note, "epoch": best["epoch"], "metrics": best["test"]}}


def _monitored(model: Model) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The metrics and cuts to compute each epoch, so that `train.monitor` is among them."""
    monitor = model.train_config.monitor
    name, _, cut = monitor.partition("@")
    if model.beam is not None:
        _check_list(model, monitor)
    if monitor in WHOLE:
        if monitor == "auc_pooled" and model.split.valid.candidates is None:
            raise ConfigError("train.monitor is 'auc_pooled', and this split has no candidates; take auc or ndcg@20")
        return ("recall", "ndcg", monitor), default_cuts(model.beam)
    if name not in AT_K or not cut.isdecimal() or int(cut) < 1:
        raise ConfigError(
            f"train.monitor is {monitor!r}; expected one of {', '.join(AT_K)} at a number, such as ndcg@20, "
            f"or {', '.join(WHOLE)} or auto"
        )
    if model.beam is not None and int(cut) > model.beam:
        raise ConfigError(f"train.monitor is {monitor!r}, but the model lists {model.beam} items; choose a smaller cut")
    return tuple(dict.fromkeys(["recall", "ndcg", name])), tuple(sorted({*default_cuts(model.beam), int(cut)}))


def _check_list(model: Model, monitor: str) -> None:
    """Refuse before the first epoch what a generative model cannot do: `evaluate` would do so only after it."""
    if any(queries.candidates is not None for queries in (model.split.valid, model.split.test)):
        raise ConfigError(
            f"{model.preset} is a generative model and cannot rank the given candidates of this split; nothing is "
            "trained. Take a split without candidates, such as dglrec.leave_one_out(log), or a model that gives scores"
        )
    if monitor in WHOLE:
        raise ConfigError(
            f"train.monitor is {monitor!r}, which needs a ranking of all items; {model.preset} gives a list of "
            f"{model.beam}: take ndcg@{min(20, model.beam or 20)}"
        )


def _check_same(
    saved: dict[str, Any], own: dict[str, Any], usual: dict[str, Any], folder: Path, prefix: str = ""
) -> None:
    """A run is resumed with the config that it was started with; only the number of epochs may change.

    A field that the saved run lacks was added later, and had its usual value in that run.
    """
    for name, value in own.items():
        before = saved.get(name, usual[name])
        if isinstance(value, dict):
            _check_same(before, value, usual[name], folder, f"{prefix}{name}.")
        elif before != value and prefix + name != "train.epochs":
            raise CheckpointError(
                f"{folder} was started with {prefix}{name}={before!r}, not {value!r}; resume it with the same config"
            )


def _warmup_steps(model: Model) -> int:
    """Steps of warm-up: a number, or a share of those of all epochs."""
    c = model.train_config
    if c.warmup_share == 0:
        return c.warmup_steps
    return int(c.warmup_share * c.epochs * math.ceil(model.batches_per_epoch / c.accumulate))


def make_optimizer(config: TrainConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Adam or AdamW, in their fused form: one pass over the parameters per step."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    parameters = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _step_device(optimizer: torch.optim.Optimizer, device: torch.device) -> torch.device:
    """Fused optimizers keep their step counter beside the parameters, others on the CPU."""
    return device if optimizer.defaults.get("fused") else torch.device("cpu")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "dglrec": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dgl": str(dgl_version()),
        "numpy": np.__version__,
    } | {name: metadata.version(name) for name in ("scipy", "scikit-learn", "numba") if _installed(name)}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _bar(text: str, progress: bool | None) -> Any:
    from tqdm import tqdm

    return tqdm(
        desc=text, unit=" steps", leave=False, file=sys.stderr, disable=None if progress is None else not progress
    )
