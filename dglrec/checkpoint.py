"""Run folders: what a training leaves behind, written so that a kill or a full disk leaves the last good state.

    config.json          preset, class, config, split rule and digest
    ids.npz              the interaction log: ids, titles, texts, histories (nothing pickled)
    weights.safetensors  of the best epoch
    protocol.json, metrics.jsonl, result.json, curves.png
    state/               to resume: weights and optimizer after the last finished epoch, in shards

Every tensor file carries a SHA-256 of what is in it, and so does config.json; nothing that is loaded can run code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import PRESETS, Model
from .data.files import atomic_write
from .data.log import InteractionLog
from .data.splits import make_split
from .errors import CheckpointError, DataError, closest

SHARD_BYTES = 2**30
FORMAT = 1


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as JSON, all or nothing."""
    with atomic_write(path) as file:
        file.write((json.dumps(values, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, damaged or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path} does not exist; expected a folder that `dglrec train --out` wrote") from None
    except OSError as error:  # such as a file of another user
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); it is damaged, so train again or restore it") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {type(values).__name__}; expected a JSON object")
    return values


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, all or nothing, with a digest of names, types, shapes and values in the header."""
    from safetensors.torch import save

    own: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if place in places else tensor  # safetensors refuses tied weights
        places.add(place)
    with atomic_write(path) as file:
        file.write(save(own, metadata={"sha256": _digest(own)}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors and check their digest.

    Raises:
        CheckpointError: the file is missing or has changed since it was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            expected = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; the run has saved no weights yet, or is incomplete") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore it or train again") from None
    if expected != _digest(tensors):
        raise CheckpointError(f"{path} has changed since it was written (SHA-256 differs); restore it or train again")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def save(model: Model, folder: str | os.PathLike[str]) -> None:
    """Write what `load` needs: config.json, ids.npz and weights.safetensors.

    Raises:
        DataError: the folder holds a run already, or cannot be written (a full disk, no permission).
    """
    path = Path(folder)
    if (path / "config.json").exists():
        raise DataError(f"{path} holds a run already; choose another folder")
    is_new = not path.exists()
    try:
        start_folder(model, path)
        save_weights(model, path)
    except DataError:
        for name in ("config.json", "ids.npz", "weights.safetensors"):
            (path / name).unlink(missing_ok=True)
        if is_new and path.exists():
            path.rmdir()
        raise


def start_folder(model: Model, folder: Path) -> None:
    """Write config.json and ids.npz, which stay as they are while the model trains."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}); choose another folder") from None
    model.split.log.save(folder / "ids.npz")
    write_config(model, folder)


def write_config(model: Model, folder: Path) -> None:
    """Write config.json, for the ids.npz that is there."""
    values = {
        "format": FORMAT,
        "preset": model.preset,
        "model": type(model).__name__,
        "config": dataclasses.asdict(model.config),
        "rule": model.split.rule,
        "split_digest": model.split.digest,
        "ids_sha256": hashlib.sha256((folder / "ids.npz").read_bytes()).hexdigest(),
    }
    write_json(folder / "config.json", values | {"sha256": _json_digest(values)})


def save_weights(model: Model, folder: Path) -> None:
    """Write weights.safetensors."""
    save_tensors(folder / "weights.safetensors", model.state_dict())


def _json_digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load(folder: str | os.PathLike[str], weights: bool = True) -> Model:
    """The model of a run folder, with its split, on the CPU and ready to evaluate and recommend.

    Args:
        folder: what `fit(..., out=folder)` or `save(model, folder)` wrote.
        weights: False leaves the initial weights, as for a run that is to be resumed.

    Raises:
        CheckpointError: something is missing, damaged, changed, or of another model.
    """
    path = Path(folder)
    values = read_json(path / "config.json")
    digest = values.pop("sha256", None)
    if digest != _json_digest(values):
        raise CheckpointError(f"{path / 'config.json'} has changed since it was written (SHA-256 differs); restore it")
    if values["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {values['format']}; this dglrec reads {FORMAT}")
    log = InteractionLog.load(path / "ids.npz")
    split = make_split(log, values["rule"])
    if split.digest != values["split_digest"]:
        raise CheckpointError(f"{path / 'ids.npz'} is not the log that the run was trained on (split digest differs)")
    if values.get("ids_sha256") not in (None, hashlib.sha256((path / "ids.npz").read_bytes()).hexdigest()):
        raise CheckpointError(f"{path / 'ids.npz'} has changed since it was written (SHA-256 differs); restore it")
    classes = {found.model.__name__: found.model for found in PRESETS.values()}
    if values["preset"] in PRESETS and (own := PRESETS[values["preset"]].model).__name__ == values["model"]:
        classes[own.__name__] = own  # another preset may have a class of that name
    if values["model"] not in classes:
        raise CheckpointError(
            f"{path} holds a {values['model']!r}, which no preset has ({closest(values['model'], classes)}); "
            "register your own in PRESETS first, for commands in a script that then calls dglrec.cli.main()"
        )
    model = classes[values["model"]](split, **values["config"])
    model.preset = values["preset"]
    if weights:
        set_weights(model, load_tensors(path / "weights.safetensors"), path / "weights.safetensors")
    return model.eval()


def set_weights(model: Model, tensors: dict[str, Tensor], path: Path) -> None:
    """Put tensors into the model; they have to fit exactly."""
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            seen = f"{name!r} of shape {tuple(tensors[name].shape)}" if name in tensors else f"no {name!r}"
            wanted = f"shape {tuple(own[name].shape)}" if name in own else "no such tensor"
            raise CheckpointError(f"{path} is of another model: it has {seen}, expected {wanted}")
    model.load_state_dict(tensors)


def save_state(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write what resuming needs into a new folder, then point `state/latest.json` at it, then drop the old one."""
    name = f"epoch-{values['epoch']:05d}"
    target = folder / "state" / name
    shutil.rmtree(target, ignore_errors=True)
    try:
        target.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{target} cannot be made ({error.strerror}); free some space and resume") from None
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        size += tensor.numel() * tensor.element_size()
        if size > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = tensor.numel() * tensor.element_size()
        shards[-1][key] = tensor
    try:
        for number, shard in enumerate(shards):
            save_tensors(target / f"shard-{number:03d}.safetensors", shard)
        values = values | {"folder": name, "shards": len(shards)}
        write_json(folder / "state" / "latest.json", values | {"sha256": _json_digest(values)})
    except DataError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    for old in (folder / "state").glob("epoch-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and values of the last `save_state`."""
    values = read_json(folder / "state" / "latest.json")
    if values.pop("sha256", None) != _json_digest(values):
        raise CheckpointError(f"{folder / 'state' / 'latest.json'} has changed since it was written; restore it")
    tensors: dict[str, Tensor] = {}
    for number in range(values["shards"]):
        tensors |= load_tensors(folder / "state" / values["folder"] / f"shard-{number:03d}.safetensors")
    return tensors, values
