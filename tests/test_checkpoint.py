"""Saved models: whole, of the right model, unchanged, and nothing in them that could run code."""

from __future__ import annotations

import ast
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import dglrec
from dglrec.checkpoint import SHARD_BYTES, load_state, load_tensors, read_json, save_state, save_tensors, write_json
from dglrec.errors import CheckpointError, DglrecError
from tests.contract.model_contract import assert_same_bits, fit, weights_of

PACKAGE = Path(dglrec.__file__).parent


def make(split, **fields):
    return dglrec.models.preset("sasrec", split, **{"dim": 8, "inner": 16, "layers": 1, **fields})


@pytest.fixture(scope="module")
def folder(split, tmp_path_factory):
    """A run of two epochs; tests copy what they change."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(make(split), split, epochs=2, out=folder)
    return folder


# --- Files ---------------------------------------------------------------------------------------------------------


def test_tensors_come_back_to_the_bit(tmp_path):
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5),
        "c": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 7),
        "half": torch.randn(4).bfloat16(),
        "nan": torch.tensor([torch.nan, -0.0, torch.inf]),
        "turned": torch.randn(3, 4).T,
        "part": torch.randn(9)[2:5],
    }
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in loaded.items()} == {
        n: (t.dtype, t.shape) for n, t in tensors.items()
    }
    assert_same_bits(tensors, loaded)


def test_weights_that_are_tied_are_saved(split, tmp_path, monkeypatch):
    """Two names of one tensor, as in a model whose output layer is its table of items."""

    class Tied(dglrec.models.SASRec):
        def __init__(self, split, config=None, **fields):
            super().__init__(split, config, **fields)
            self.out = torch.nn.Linear(self.config.dim, self.num_items, bias=False)
            self.out.weight = self.item.weight

    monkeypatch.setitem(dglrec.models.PRESETS, "tied", dglrec.models.Preset(Tied, {}, "a test"))
    small = {"dim": 8, "inner": 8, "layers": 1}
    whole = fit(Tied(split, **small), split, epochs=2)
    fit(Tied(split, **small), split, epochs=1, out=tmp_path / "run")
    resumed = fit(Tied(split, **small), split, epochs=2, out=tmp_path / "run", resume=True)
    assert_same_bits(whole.model.state_dict(), resumed.model.state_dict())
    loaded = dglrec.load_model(tmp_path / "run")
    assert loaded.out.weight is loaded.item.weight
    assert_same_bits(whole.model.state_dict(), loaded.state_dict())


def test_a_large_state_comes_in_shards(tmp_path, monkeypatch):
    assert SHARD_BYTES <= 2**31
    monkeypatch.setattr("dglrec.checkpoint.SHARD_BYTES", 1000)
    tensors = {f"t{n}": torch.randn(n * 10) for n in range(1, 30)}
    save_state(tmp_path, tensors, {"epoch": 3, "rows": [{"loss": 1.0}]})
    shards = sorted((tmp_path / "state" / "epoch-00003").glob("*.safetensors"))
    assert len(shards) > 5
    sizes = [sum(tensor.numel() * 4 for tensor in load_tensors(path).values()) for path in shards]
    assert all(one + other > 1000 for one, other in pairwise(sizes))  # no more of them than needed
    largest = max(t.numel() for t in tensors.values()) * 4
    assert max(path.stat().st_size for path in shards) < max(1000, largest) + 4000
    loaded, values = load_state(tmp_path)
    assert_same_bits(tensors, loaded)
    assert (values["epoch"], values["rows"]) == (3, [{"loss": 1.0}])


def test_only_the_last_state_is_kept(tmp_path):
    for epoch in range(3):
        save_state(tmp_path, {"x": torch.tensor([epoch])}, {"epoch": epoch})
    assert [path.name for path in (tmp_path / "state").glob("epoch-*")] == ["epoch-00002"]
    assert load_state(tmp_path)[0]["x"].item() == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "damaged"), (b'{"a": ', "damaged"), (b"[1]", "list"), (b"\xff\xfe", "damaged")],
)
def test_json_that_cannot_be_read(content, message, tmp_path):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_json(path)
    write_json(path, {"ü": [1, None]})
    assert read_json(path) == {"ü": [1, None]}


@pytest.mark.parametrize("content", [None, b"", b"abc", b"\x10\0\0\0\0\0\0\0{", b"\xff" * 64])
def test_weights_that_cannot_be_read(content, tmp_path):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        load_tensors(path)


# --- Models --------------------------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_model(folder, split):
    loaded = dglrec.load_model(folder)
    assert (loaded.preset, type(loaded).__name__, loaded.config.dim) == ("sasrec", "SASRec", 8)
    assert loaded.split.digest == split.digest
    assert loaded.split.rule == split.rule
    assert loaded.split.log.user_ids.tolist() == split.log.user_ids.tolist()
    assert loaded.split.log.titles.tolist() == split.log.titles.tolist()
    assert not loaded.training
    metrics = dglrec.evaluate(loaded, loaded.split.test)
    assert metrics.protocol.same_column(dglrec.evaluate(make(split), split.test).protocol)
    history = split.log.item_ids[:3].tolist()
    assert len(loaded.recommend(history=history, k=4)) == 4
    assert loaded.recommend(user=str(split.log.user_ids[0]), k=1)[0].title


def test_the_weights_are_those_of_the_best_epoch(folder):
    best = {name: t for name, t in load_state(folder)[0].items() if name.startswith("best.")}
    weights = {f"best.{name}": t for name, t in load_tensors(folder / "weights.safetensors").items()}
    assert_same_bits(best, weights)


def test_a_model_is_not_saved_over_another(folder, split, tmp_path):
    dglrec.save_model(make(split), tmp_path / "new" / "model")
    before = (tmp_path / "new" / "model" / "weights.safetensors").read_bytes()
    with pytest.raises(DglrecError, match="holds a run"):
        dglrec.save_model(make(split), tmp_path / "new" / "model")
    assert (tmp_path / "new" / "model" / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "message"), [({"dim": 4}, "shape"), ({"layers": 2}, "another model"), ({"max_length": 9}, "position")]
)
def test_weights_of_another_model_are_refused(fields, message, folder, split, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    dglrec.save_model(make(split, **fields), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "weights.safetensors", tmp_path / "run")
    with pytest.raises(CheckpointError, match=message):
        dglrec.load_model(tmp_path / "run")


def test_weights_of_another_class_are_refused(folder, split, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    dglrec.save_model(dglrec.models.preset("lightgcn", split, dim=8), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "weights.safetensors", tmp_path / "run")
    with pytest.raises(CheckpointError, match="another model"):
        dglrec.load_model(tmp_path / "run")


def test_the_log_of_another_run_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    other = dglrec.leave_one_out(dglrec.data.sample("shop", users=61, items=43, seed=4))
    other.log.save(tmp_path / "run" / "ids.npz")
    with pytest.raises(CheckpointError, match="not the log that the run was trained on"):
        dglrec.load_model(tmp_path / "run")


@pytest.mark.parametrize("name", ["config.json", "ids.npz", "weights.safetensors"])
def test_a_missing_file_is_named(name, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(DglrecError, match=name.replace(".", r"\.")):
        dglrec.load_model(tmp_path / "run")


def places(size: int, header: int) -> list[int]:
    """Bytes to change: the first ones, the last ones, and some in between."""
    between = np.random.default_rng(size).integers(size, size=60).tolist()
    return sorted({*range(0, min(header, size), 3), *between, *range(max(0, size - 40), size, 3)})


@pytest.mark.parametrize("bit", [0x01, 0x20, 0xFF])
@pytest.mark.parametrize("name", ["config.json", "ids.npz", "weights.safetensors"])
def test_a_changed_byte_is_found_when_the_model_is_loaded(name, bit, folder, tmp_path):
    """Each time as an error of dglrec, in one line, that names the file; a changed file never loads."""
    run = tmp_path / "run"
    run.mkdir()
    for needed in ("config.json", "ids.npz", "weights.safetensors"):
        shutil.copy(folder / needed, run)
    content = (run / name).read_bytes()
    dglrec.load_model(run)
    missed = []
    for place in places(len(content), 120):
        changed = bytearray(content)
        changed[place] ^= bit
        (run / name).write_bytes(bytes(changed))
        try:
            dglrec.load_model(run)
            missed.append((place, "loaded"))
        except DglrecError as error:
            if name not in str(error) or "\n" in str(error):
                missed.append((place, str(error)))
        except Exception as error:
            missed.append((place, repr(error)))
    if name == "config.json":  # what stands between two words is no content
        missed = [(p, why) for p, why in missed if why != "loaded" or not chr(content[p]).isspace()]
    assert not missed


@pytest.mark.parametrize("bit", [0x01, 0xFF])
@pytest.mark.parametrize("name", ["state/latest.json", "shard"])
def test_a_changed_byte_is_found_when_a_run_is_resumed(name, bit, folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    path = run / name if name.endswith("json") else next((run / "state").rglob("shard*"))
    content, missed = path.read_bytes(), []
    expected, values = load_state(run)
    for place in places(len(content), 400):
        changed = bytearray(content)
        changed[place] ^= bit
        path.write_bytes(bytes(changed))
        try:
            tensors, found = load_state(run)
            if found.keys() - {"sha256"} != values.keys() or any(found[key] != values[key] for key in values):
                missed.append((place, "loaded"))
            assert_same_bits(expected, tensors)
        except DglrecError as error:
            if path.name not in str(error) and "state" not in str(error):
                missed.append((place, str(error)))
        except Exception as error:
            missed.append((place, repr(error)))
    assert not missed


@pytest.mark.parametrize("name", ["config.json", "ids.npz", "weights.safetensors", "state/latest.json"])
def test_a_file_that_was_cut_off_is_found(name, folder, tmp_path, split):
    shutil.copytree(folder, tmp_path / "run")
    content = (tmp_path / "run" / name).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 3):
        (tmp_path / "run" / name).write_bytes(content[:length])
        with pytest.raises(DglrecError, match=Path(name).name.replace(".", r"\.")):
            if name.startswith("state"):
                fit(make(split), split, epochs=3, out=tmp_path / "run", resume=True)
            else:
                dglrec.load_model(tmp_path / "run")


def test_a_format_of_the_future_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    values = read_json(folder / "config.json")
    values.pop("sha256")
    values["format"] = 99
    from dglrec.checkpoint import _json_digest

    write_json(tmp_path / "run" / "config.json", values | {"sha256": _json_digest(values)})
    with pytest.raises(CheckpointError, match="99"):
        dglrec.load_model(tmp_path / "run")


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.get_rng_state()
    dglrec.load_model(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_without_weights_it_is_the_model_at_its_start(folder, split):
    assert_same_bits(weights_of(make(split)), weights_of(dglrec.checkpoint.load(folder, weights=False)))


# --- Nothing that could run code -----------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "torch.load",
    "torch.save",
    "eval",
    "exec",
    "compile",
    "__import__",
    "pandas.read_pickle",
    "yaml.load",
}


def offences(source: str) -> list[str]:
    """Imports and calls that can run what a file holds, in a source text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] * (name in FORBIDDEN_CALLS or name.endswith((".read_pickle", ".to_pickle")))
            found += [
                f"{name}(allow_pickle=...)"
                for keyword in node.keywords
                if keyword.arg == "allow_pickle"
                and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            ]
    return found


def test_no_file_of_the_package_uses_pickle_or_eval():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    assert {str(path): bad for path in files if (bad := offences(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load('x')",
        "eval('1')",
        "exec(code)",
        "np.load(path, allow_pickle=True)",
        "frame.to_pickle('x')",
    ],
)
def test_the_search_finds_what_it_looks_for(line):
    assert offences(line)
    assert not offences("import torch\nmodel.eval()\nnp.load(path, allow_pickle=False)\nre.compile('x')")


def test_a_model_of_another_script_is_loaded_where_it_is_registered(split, tmp_path, monkeypatch):
    own = type("Own", (dglrec.models.Counts,), {})
    dglrec.checkpoint.save(own(split), tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"holds a 'Own', .* in PRESETS first, .* calls dglrec\.cli\.main\(\)"):
        dglrec.load_model(tmp_path / "own")
    monkeypatch.setitem(dglrec.models.PRESETS, "own", dglrec.models.Preset(own, {}, "a test"))
    assert type(dglrec.load_model(tmp_path / "own")) is own


def test_a_class_of_the_same_name_takes_no_run_of_another_preset(split, tmp_path, monkeypatch):
    dglrec.save_model(dglrec.models.preset("popularity", split), tmp_path / "run")
    own = type("Counts", (dglrec.models.Counts,), {})
    monkeypatch.setitem(dglrec.models.PRESETS, "own", dglrec.models.Preset(own, {}, "a test"))
    assert type(dglrec.load_model(tmp_path / "run")) is dglrec.models.Counts


def test_no_file_of_a_run_is_a_pickle(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05", b"PK\x03\x04\x00\x00\x08\x08\x00\x00"))
            assert path.suffix in {".json", ".jsonl", ".npz", ".safetensors", ".png"}
    with np.load(folder / "ids.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
    assert json.loads((folder / "config.json").read_text())["format"] == 1
