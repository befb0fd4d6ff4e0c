"""The command line: what each command prints, as text and as one JSON object, and what it leaves behind."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dglrec
from dglrec.cli import main
from dglrec.models import PRESETS

KEYS = {
    *("preset", "model", "data", "protocol", "seed", "test", "test_masked", "valid", "best_epoch", "epochs"),
    *("epoch_seconds", "valid_seconds", "steps_per_epoch", "targets_per_epoch", "train_seconds", "device", "threads"),
    *("peak_memory_bytes", "versions"),
}
TINY = ("--set", "dim=16", "--set", "inner=16", "--device", "cpu")

Say = Callable[..., tuple[int, str, str]]


def write_data(folder: Path, timestamps: bool = True, users: int = 40, items: int = 30) -> Path:
    """A folder with interactions.tsv and items.tsv."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["user_id\titem_id" + ("\ttimestamp" if timestamps else "")]
    for user in range(users):
        for position, item in enumerate(rng.permutation(items)[: rng.integers(4, 10)]):
            when = f"\t{86_400 * (20 * position + user % 20)}" if timestamps else ""
            lines.append(f"u{user}\ti{item}{when}")
    (folder / "interactions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    titles = [f"i{item}\tThing {item} für ☃" for item in range(items)]
    (folder / "items.tsv").write_text("\n".join(["item_id\ttitle", *titles]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DGLREC_DATA", raising=False)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in this process -> (exit code, standard output, standard error)."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one epoch of GSAU (rec); its data stand beside it."""
    base = tmp_path_factory.mktemp("trained")
    words = ["train", "gsau-rec", "--data", write_data(base / "small"), "--epochs", 1, "--out", base / "run", *TINY]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([str(word) for word in words]) == 0
    return base / "run"


def process(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    path = str(Path(dglrec.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))}
    environment |= {"OMP_NUM_THREADS": "1"} | options.pop("environment", {})
    command = [sys.executable, "-m", "dglrec", *(str(word) for word in words)]
    return subprocess.run(command, env=environment, text=True, **{"capture_output": True, **options})


# train


def test_train_prints_one_object_and_keeps_it(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small")
    code, out, err = say("train", "gsau-rec", "--data", data, "--epochs", 2, "--seed", 7, *TINY, "--json")
    assert code == 0
    result = json.loads(out)
    assert not KEYS - result.keys()
    assert (result["preset"], result["model"], result["data"], result["seed"]) == ("gsau-rec", "GSAU", "small", 7)
    assert (result["epochs"], result["best_epoch"] in (0, 1)) == (2, True)
    assert "recall@10" in result["test"].keys() & result["test_masked"].keys() & result["valid"].keys()
    assert result["protocol"]["part"] == "test"
    assert result["config"]["dim"] == 16
    folder = tmp_path / "runs" / "gsau-rec-small-seed7"
    assert json.loads((folder / "result.json").read_text()) == result
    assert str(Path("runs/gsau-rec-small-seed7")) in err


def test_no_run_is_overwritten(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small")
    words = ("train", "popularity", "--data", data)
    assert [say(*words)[0] for _ in range(3)] == [0, 0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "popularity-small-seed2020",
        "popularity-small-seed2020-2",
        "popularity-small-seed2020-3",
    ]
    code, _, err = say(*words, "--out", "runs/popularity-small-seed2020")
    assert code == 2
    assert "holds a run already" in err


def test_a_generative_model_says_before_training_that_it_ranks_no_candidates(say: Say, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    words = ("train", "p5", "--data", write_data(tmp_path / "small"), "--set", "split.negatives=9", "--set", "dim=16")
    code, out, err = say(*words)
    assert (code, out) == (2, "")
    assert "p5 is a generative model and cannot rank the given candidates of this split; nothing is trained" in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_train_in_words(say: Say, tmp_path: Path) -> None:
    write_data(tmp_path / "small")
    code, out, err = say("train", "sasrec", "--data", "small", "--epochs", 1, "--out", "run", *TINY)
    assert code == 0
    assert out.startswith("sasrec on small: best epoch 1 of 1; validation ndcg@20")
    assert "kept in the ranking" in out
    masked = json.loads(Path("run/result.json").read_text())["test_masked"]
    table = out.partition("\nwith seen items masked:\n")[2].splitlines()
    assert table[0].split() == ["@5", "@10", "@20", "@50"]
    assert table[1].split()[:2] == ["recall", f"{masked['recall@5']:.4f}"]
    assert "users with < 3 events 0," in out and "queries; measured in " in out
    assert "dglrec recommend run --user u0" in out
    assert len(err.splitlines()) == 1  # no bars where standard error is no terminal


def test_fields_of_data_and_split(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small")
    table = data / "interactions.tsv"
    table.write_text(table.read_text().replace("user_id", "uid").replace("timestamp", "when"))
    words = ("train", "popularity", "--data", data, "--set", "data.columns.user_id=uid")
    words += ("--set", "data.columns.timestamp=when", "--set", "data.name=mine", "--json")

    def protocol(*more: object) -> dict[str, Any]:
        code, out, err = say(*words, *more)
        assert code == 0, err
        result: dict[str, Any] = json.loads(out)["protocol"]
        return result

    plain = protocol()
    assert (plain["data"], plain["filters"], plain["tie_rule"], plain["kind"]) == ("mine", [], "file", "position")
    assert protocol("--k-core", 2)["filters"] == ["2-core"]
    assert protocol("--set", "data.k_core=2")["filters"] == ["2-core"]
    shuffled = protocol("--set", "split.ties=random", "--set", "split.seed=3")
    assert (shuffled["tie_rule"], "seed=3" in shuffled["split"]) == ("random", True)
    assert protocol("--ties", "random", "--set", "split.seed=3") == shuffled
    by_time = protocol("--split", "time-point", "--set", "split.targets=next", "--set", "split.test_share=0.2")
    assert by_time["kind"] == "time"
    assert "test_share=0.2" in by_time["split"]
    assert "order='file'" in protocol("--set", "data.order=file")["split"]
    sampled = ("--set", "split.negatives=9", "--set", "split.test_users=15", "--set", "split.seed=2")
    for way in ((), ("--split", "time-point", "--set", "split.targets=next", "--set", "split.test_share=0.2")):
        found = protocol(*sampled, *way)
        assert (found["candidates"], found["queries"]) == ("1+9", 15)
        assert "negatives=9, test_users=15, seed=2" in found["split"]


def test_how_a_file_is_read_by_train_as_by_check(say: Say, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in (write_data(tmp_path / "small") / "interactions.tsv").read_text().splitlines()]
    orders = tmp_path / "orders.csv"
    orders.write_text("\n".join(["customer,the product,when", *(",".join(row) for row in rows[1:])]) + "\n")
    words = ("train", "popularity", "--data", orders)
    assert "'customer the product when'; pass --columns user_id=..." in say(*words)[2]
    assert "pass --columns user_id=..." in say("data", "check", orders)[1]
    columns = ("--columns", "user_id=customer", "item_id=the product", "timestamp=when")
    assert say("data", "check", orders, *columns)[0] == 0
    titles = ("--items", tmp_path / "small" / "items.tsv")
    code, out, err = say(*words, *columns, *titles, "--order", "file", "--out", "run", "--json")
    assert code == 0, err
    assert "order='file'" in json.loads(out)["protocol"]["split"]
    assert dglrec.load_model("run").split.log.titles is not None
    assert "unknown format 'amazon'" in say(*words, "--format", "amazon")[2]
    assert "unknown field 'usr_id' in 'data.columns.'; did you" in say(*words, "--columns", "usr_id=a")[2]
    orders.write_text(orders.read_text().replace("the product", "Item Id"))
    assert "rename it, or pass --columns item_id='Item Id'" in say(*words, *columns[:2])[2]


def test_what_selecting_on_test_would_give(say: Say, tmp_path: Path) -> None:
    words = ("train", "lightgcn", "--data", write_data(tmp_path / "small"), "--epochs", 2, "--device", "cpu")
    words += ("--set", "dim=16", "--set", "split.negatives=9", "--set", "train.peek_at_test=true")
    code, out, _ = say(*words)
    assert code == 0
    assert "selected on the test queries" in out and "a leak, shown for its size only" in out
    assert "1+9 candidates" in out and "\nwith all items ranked:\n " in out
    result = json.loads(say(*words, "--json")[1])
    assert set(result["selected_on_test"]) == {"note", "epoch", "metrics"}


def test_a_preset_is_split_as_its_paper_does(say: Say, tmp_path: Path) -> None:
    """And where histories are too short for windows, which were not asked for, by leave-one-out; a line says so."""
    dglrec.sample("interests", users=12, items=300, seed=2).save(tmp_path / "long.npz")
    words = ("--epochs", 1, "--set", "dim=8", "--device", "cpu", "--json")

    def trained(*more: object) -> tuple[dict[str, Any], str]:
        code, out, err = say("train", *more, *words)
        assert code == 0, err
        return json.loads(out)["protocol"], err

    protocol, err = trained("mip", "--data", tmp_path / "long.npz", "--out", "run")
    assert (protocol["kind"], protocol["candidates"]) == ("window", "50+50")
    assert err.startswith("split by windows, as in the paper of mip; --split leave-one-out has the last item alone")
    resume = ("train", "--resume", "run", "--data", tmp_path / "long.npz", "--device", "cpu")
    assert say(*resume)[0] == 0
    assert "not on this split" in say(*resume, "--split", "leave-one-out")[2]
    protocol, err = trained("mip", "--data", tmp_path / "long.npz", "--split", "leave-one-out")
    assert (protocol["kind"], protocol["candidates"]) == ("position", "full") and len(err.splitlines()) == 1
    protocol, err = trained("mip", "--data", tmp_path / "long.npz", "--set", "split.by=user")
    assert protocol["kind"] == "user"
    short = write_data(tmp_path / "small")
    protocol, err = trained("mip", "--data", short)
    assert protocol["kind"] == "position"
    assert err.startswith(
        "split by leave-one-out, not by windows as in the paper of mip: no user of 'small' has enough events"
    )
    for explicit in (("--split", "windows"), ("--set", "split.by=user")):
        assert "for a window of 100; take shorter windows" in say("train", "mip", "--data", short, *explicit)[2]
    presets = {row["preset"]: row["split"] for row in json.loads(say("models", "--json")[1])["presets"]}
    assert (presets["mdgr"], presets["surge"], presets["sasrec"]) == ("windows", "windows", "leave-one-out")


def test_selfgnn_ranks_each_target_among_999_as_its_paper(say: Any, tmp_path: Path) -> None:
    """Where there are so many items that a user never touched; and where nobody says how many negatives there are."""
    sizes = (word for size in ("dim=8", "heads=2", "slices=2") for word in ("--set", size))
    words = ("--epochs", 1, *sizes, "--device", "cpu", "--json")

    def trained(*more: object) -> tuple[str, str]:
        code, out, err = say("train", "selfgnn", *more, *words)
        assert code == 0, err
        return json.loads(out)["protocol"]["candidates"], err

    rng = np.random.default_rng(0)
    rows = [(user, item, time) for user in range(600) for time, item in enumerate(rng.permutation(1100)[:6])]
    large = dglrec.InteractionLog.from_arrays(*np.array(rows).T[:2], np.array(rows).T[2].astype(float), name="large")
    large.save(tmp_path / "large.npz")
    candidates, err = trained("--data", tmp_path / "large.npz")
    assert candidates == "1+999" and "among 999 items, as in the paper of selfgnn; --set split.negatives=none" in err
    for more in ("--set", "split.negatives=none"), ("--split", "leave-one-out"):
        assert trained("--data", tmp_path / "large.npz", *more)[0] == "full"
    candidates, err = trained("--data", write_data(tmp_path / "small"))
    assert candidates == "full" and "not 999 sampled ones as in the paper of selfgnn: " in err


def test_a_paper_s_data_set_has_the_paper_s_slices(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGLREC_DATA", str(tmp_path))
    (tmp_path / "selfgnn-gowalla").mkdir()
    days = [np.datetime64("2010-01-01") + 40 * place for place in range(9)]
    rows = [f"{u}\t{days[n]}T10:00:00Z\t1.0\t2.0\ti{(u + n) % 9}" for u in range(30) for n in range(9)]
    (tmp_path / "selfgnn-gowalla" / "loc-gowalla_totalCheckins.txt").write_text("\n".join(rows) + "\n")
    words = ("--data", "selfgnn-gowalla", "--epochs", "0", "--device", "cpu", "--set", "dim=16", "--out")
    for number, (preset, given) in enumerate(
        [("selfgnn", ()), ("selfgnn-code", ("--set", "slices=2")), ("lightgcn", ())]
    ):
        code, _, messages = say("train", preset, *words, f"run-{number}", *given)
        assert code == 0, messages
        assert ("3 time slices" in messages) == (preset == "selfgnn")
        if preset != "lightgcn":
            assert dglrec.load_model(f"run-{number}").config.slices == (2 if given else 3)


def test_slices_that_are_far_from_equally_full_are_told(say: Say, tmp_path: Path) -> None:
    rows = [(user, item, 1000 - 900 * (item == 0)) for user in range(9) for item in range(6)]
    user, item, time = np.array(rows).T
    dglrec.InteractionLog.from_arrays(user, item, time + item * 10.0).save(tmp_path / "late.npz")
    words = ("train", "selfgnn", "--data", tmp_path / "late.npz", "--epochs", 0, "--device", "cpu", "--set", "slices=3")
    assert "75% of the training interactions are in one of the 3 time slices, which are" in (err := say(*words)[2])
    assert "--set by=equal_counts" in err
    assert "time slices" not in say(*words, "--set", "by=equal_counts")[2]


def test_an_empty_folder_is_no_folder(say: Say) -> None:
    code, _, err = say("train", "lightgcn", "--data", "sample", "--out", "")
    assert (code, err) == (2, "dglrec: --out is empty; expected a folder, or leave it out\n")


def test_a_log_without_timestamps(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small", timestamps=False)
    code, out, err = say("train", "popularity", "--data", data)
    assert (code, out) == (2, "")
    assert "add --order file" in err
    for order in ((), ("--order", "file")):
        err = say("train", "popularity", "--data", data, "--split", "time-point", *order)[2]
        assert "a split by time needs them; use leave-one-out, with --order file if" in err
        assert "selfgnn needs times, and 'small' has none" in say("train", "selfgnn", "--data", data, *order)[2]
    assert not (tmp_path / "runs").exists()
    assert say("train", "popularity", "--data", data, "--order", "file")[0] == 0


def test_fields_of_the_model(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small")
    fields = ("--set", "gamma=0.3", "--set", "train.lr=1e-2", "--set", "train.batch_size=64", "--set", "seen=mask")
    code, out, _ = say("train", "gsau-rec", "--data", data, "--epochs", 1, *TINY, *fields, "--json")
    config = json.loads(out)["config"]
    assert code == 0
    assert (config["gamma"], config["rec"], config["seen"]) == (0.3, True, "mask")
    assert (config["train"]["lr"], config["train"]["batch_size"], config["train"]["epochs"]) == (0.01, 64, 1)


# resume


def test_resume_ends_where_a_run_that_went_through_ends(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small")
    words = ("train", "gsau-rec", "--data", data, *TINY)
    assert say(*words, "--epochs", 2, "--out", "through")[0] == 0
    assert say(*words, "--epochs", 1, "--out", "stopped")[0] == 0
    code, out, _ = say("train", "--resume", "stopped", "--epochs", 2, "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["epochs"] == 2
    assert (tmp_path / "stopped/weights.safetensors").read_bytes() == (
        tmp_path / "through/weights.safetensors"
    ).read_bytes()
    assert say(*words, "--epochs", 2, "--resume", "stopped", "--out", "./stopped")[0] == 0  # said again, and agreeing


def test_a_model_of_ones_own_is_resumed_with_its_data(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fields are those of no preset, so that its name is that of its class."""
    own = type("Own", (dglrec.models.SASRec,), {})
    monkeypatch.setitem(PRESETS, "mine", dglrec.models.Preset(own, {"dim": 16}, "a test"))
    log = dglrec.sample("communities", users=30, items=20)
    log.save(tmp_path / "log.npz")
    model = own(dglrec.leave_one_out(log), dim=8, inner=8, layers=1)
    dglrec.fit(model, model.split, epochs=1, out=tmp_path / "run", device="cpu")
    words = ("train", "--resume", tmp_path / "run", "--data", tmp_path / "log.npz", "--device", "cpu", "--json")
    code, out, err = say(*words)
    assert code == 0, err
    assert json.loads(out)["preset"] == "own"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sasrec",), "is a run of 'gsau-rec', not of 'sasrec'"),
        (("--data", "sample:grammar"), "not on this split"),
        (("--data", "{data}", "--ties", "random"), "not on this split"),
        (("--set", "dim=32"), "was begun with other fields"),
        (("--seed", 3), "was begun with other fields"),
        (("--set", "dimm=32"), "unknown field 'dimm'"),
        (("--k-core", 2), "--k-core is about --data, and a run is resumed with its own"),
        (("--ties", "random"), "--ties is about --data"),
        (("--columns", "user_id=who"), "--columns is about --data"),
        (("--set", "data.k_core=2"), "--set data.k_core is about --data"),
        (("--set", "split.negatives=3"), "--set split.negatives is about --data"),
        (("--out", "elsewhere"), "a run is resumed in its own folder"),
    ],
)
def test_what_is_said_at_resume_has_to_agree(say: Say, trained: Path, words: tuple[str, ...], says: str) -> None:
    more = [str(word).format(data=trained.parent / "small") for word in words]
    before = (trained / "result.json").read_bytes()
    code, out, err = say("train", "--resume", trained, *more)
    assert (code, out) == (2, "")
    assert says in err
    assert (trained / "result.json").read_bytes() == before


def test_an_interrupt_says_how_to_go_on(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "small")

    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dglrec.models.GSAU, "loss", interrupted)
        code, out, err = say("train", "gsau", "--data", data, "--epochs", 1, "--out", "run", *TINY)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "dglrec: stopped; go on with: dglrec train --resume run"
    assert say("train", "--resume", "run", "--device", "cpu")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(dglrec.InteractionLog, "save", interrupted)  # nothing is there yet to go on with
        assert say("train", "gsau", "--data", data, "--out", "none", *TINY)[2].splitlines()[-1] == "dglrec: stopped"
    assert not Path("none").exists()
    monkeypatch.setattr(dglrec.data, "load", interrupted)
    assert say("train", "gsau", "--data", data)[2] == "dglrec: stopped\n"


def test_printed_commands_can_be_run_as_they_are(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"Anne O'Neil {n % 4},tea {n % 7},{n}\n" for n in range(40))
    )
    words = ("train", "popularity", "--data", "shop.csv", "--out", "my runs/it's one")
    code, out, _ = say(*words)
    assert code == 0
    command = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert command == ["dglrec", "recommend", "my runs/it's one", "--user", "Anne O'Neil 0"]
    assert say(*command[1:])[0] == 0

    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(dglrec.train.Run, "test", interrupted)
    err = say(*words[:-1], "my runs/2")[2].splitlines()[-1]
    assert shlex.split(err.partition("go on with: ")[2]) == ["dglrec", "train", "--resume", "my runs/2"]


# evaluate, recommend


def test_evaluate(say: Say, trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    code, out, _ = say("evaluate", trained, "--device", "cpu", "--json")
    values = json.loads(out)
    assert code == 0
    assert (values["preset"], values["model"], values["data"]) == ("gsau-rec", "GSAU", "small")
    assert values["metrics"] == pytest.approx(result["test"])
    assert values["protocol"] == result["protocol"]
    _, out, _ = say("evaluate", trained, "--device", "cpu", "--seen", "mask", "--k", 10, 50, "--json")
    values = json.loads(out)
    assert values["metrics"].keys() == {"recall@10", "recall@50", "ndcg@10", "ndcg@50"}
    assert values["metrics"]["recall@10"] == pytest.approx(result["test_masked"]["recall@10"])
    assert values["protocol"]["seen"] == "mask"
    assert "masked, except" in say("evaluate", trained, "--device", "cpu", "--seen", "mask")[1]
    assert say("evaluate", trained, "--seen", "mask", "--set", "seen=keep")[::2] == (
        *(2, "dglrec: --seen mask and --set seen=keep differ; give one of them\n"),
    )


def test_a_list_may_be_given_in_parts(say: Say, trained: Path) -> None:
    words = ("evaluate", trained, "--device", "cpu", "--json", "--k", 5)
    assert "recall@5" in json.loads(say(*words, "--k", 7)[1])["metrics"]
    words = ("recommend", trained, "--device", "cpu", "--json", "--history", "i3")
    assert json.loads(say(*words, "--history", "i4")[1])["history"] == ["i3", "i4"]


def test_evaluate_with_another_ranking_of_the_same_weights(say: Say, trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    words = ("evaluate", trained, "--device", "cpu")
    dot = json.loads(say(*words, "--json")[1])
    cosine = json.loads(say(*words, "--set", "rank=cosine", "--json")[1])
    assert (dot["set"], cosine["set"]) == ({}, {"rank": "cosine"})
    assert cosine["metrics"] != dot["metrics"]
    model = dglrec.load_model(trained)
    model.set_ranking(rank="cosine")
    assert cosine["metrics"] == pytest.approx(dict(dglrec.evaluate(model, model.split.test)))
    assert json.loads(say(*words, "--set", "rank=dot", "--json")[1])["metrics"] == dot["metrics"]
    assert say(*words, "--set", "rank=cosine")[1].startswith("with        rank=cosine\ndata ")
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("rank=cosin", "did you mean 'cosine'"),
        ("rnak=cosine", "unknown field 'rnak' of GSAUConfig; did you mean 'rank'?"),
        ("dim=32", "'dim' is fixed once the model is made; seen, rank can be set"),
        ("train.lr=1", "'train.lr' is fixed once the model is made"),
        ("rank", "--set 'rank' has no value"),
    ],
)
def test_what_evaluate_cannot_set(say: Say, trained: Path, change: str, says: str) -> None:
    code, out, err = say("evaluate", trained, "--device", "cpu", "--set", change)
    assert (code, out) == (2, "")
    assert says in err


def test_recommend(say: Say, trained: Path) -> None:
    model = dglrec.load_model(trained)
    expected = model.recommend(user="u3", k=4)
    code, out, err = say("recommend", trained, "--user", "u3", "--k", 4, "--device", "cpu")
    assert (code, out, err) == (0, f"{expected}\n", "")
    assert "für ☃" in out
    values = json.loads(say("recommend", trained, "--user", "u3", "--k", 4, "--device", "cpu", "--json")[1])
    assert (values["user"], values["history"], values["k"], values["seen"]) == ("u3", None, 4, "mask")
    assert [row["item_id"] for row in values["recommendations"]] == expected.item_ids.tolist()
    expected = model.recommend(history=["i3", "i4"], seen="keep")
    words = ("recommend", trained, "--history", "i3", "i4", "--seen", "keep", "--device", "cpu", "--json")
    values = json.loads(say(*words)[1])
    assert values["history"] == ["i3", "i4"]
    assert [row["item_id"] for row in values["recommendations"]] == expected.item_ids.tolist()
    assert [row["rank"] for row in values["recommendations"]] == list(range(1, 11))
    code, _, err = say("recommend", trained, "--user", "u3", "--per-interest", 2, "--device", "cpu")
    assert (code, "per_interest is 2, but gsau-rec has one vector per query" in err) == (2, True)


def test_recommend_by_interests(say: Say, tmp_path: Path) -> None:
    split = dglrec.leave_one_out(dglrec.load(write_data(tmp_path / "data")))
    model = dglrec.models.preset("comirec-sa", split, k=2, train={"epochs": 1})
    dglrec.fit(model, split, out=tmp_path / "run", device="cpu")
    words = ("recommend", tmp_path / "run", "--user", "u3", "--per-interest", 2, "--device", "cpu")
    assert say(*words)[1] == f"{model.recommend(user='u3', per_interest=2)}\n"
    values = json.loads(say(*words, "--json")[1])
    assert (values["per_interest"], values["k"]) == (2, None)
    assert [row["rank"] for row in values["recommendations"]] == [1, 2, 1, 2]
    assert {row["interest"] for row in values["recommendations"]} == {0, 1}
    assert "argument --k: not allowed with argument --per-interest" in say(*words, "--k", 3)[2]


# data, reproduce, models, doctor


def test_data_list_and_get(say: Say, tmp_path: Path) -> None:
    write_data(tmp_path / "cache" / "dglrec" / "ml-100k")
    code, out, _ = say("data", "list", "--json")
    found = {row["name"]: row for row in json.loads(out)["datasets"]}
    assert code == 0
    assert found["ml-100k"]["place"] == "cache"
    assert found["amazon-toys"]["place"] == "download"
    assert "sample:shop" in found
    assert str(tmp_path / "cache" / "dglrec" / "ml-100k") in say("data", "list")[1]
    assert say("data", "get", "ml-100k") == (0, f"{tmp_path / 'cache' / 'dglrec' / 'ml-100k'}\n", "")
    assert "did you mean 'ml-100k'" in say("data", "get", "ml-100")[2]


def test_data_check(say: Say, tmp_path: Path) -> None:
    data = write_data(tmp_path / "small")
    code, out, _ = say("data", "check", data)
    assert code == 0
    assert "Nothing is wrong." in out and "the papers use the 5-core, --k-core 5: " in out
    assert json.loads(say("data", "check", data, "--json")[1])["ok"]
    table = data / "interactions.tsv"
    table.write_text(table.read_text().replace("user_id", "uid"))
    assert say("data", "check", data, "--columns", "user_id=uid")[0] == 0
    assert "--columns user_id=uid" in say("data", "check", data, "--columns", "user_id")[2]
    code, out, _ = say("data", "check", data, "--json")
    assert code == 2
    assert not json.loads(out)["ok"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ml-1m", "; dglrec data get ml-1m fetches it"),
        ("selfgnn-yelp", "; it is filtered from its original when it is loaded"),
        ("sample", "; a sample is drawn when it is loaded, and is no file"),
        ("sample:shop", "; a sample is drawn when it is loaded"),
    ],
)
def test_data_check_of_a_name_without_a_file(say: Say, name: str, says: str) -> None:
    code, out, _ = say("data", "check", name)
    assert code == 2
    assert says in out
    assert "did you mean" not in out


def test_models(say: Say) -> None:
    code, out, _ = say("models")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == ["preset", *PRESETS]
    assert ["gsau-rec", "GSAU", "leave-one-out", "keep", "GSAU"] in [line.split()[:5] for line in lines]
    assert max(map(len, lines)) < 160
    code, out, _ = say("models", "gsau-rec", "sasrec")
    assert (code, out.split()[5], out.split("\n")[1].split()[0]) == (0, "sasrec", "sasrec")
    fields = out.partition("\nfields of gsau-rec (* set by the preset):\n")[2].partition("\nfields of sasrec")[0]
    assert {"  rec=True *", "  encoder=sasrec", "  train.patience=10"} <= set(fields.splitlines())
    assert [row["preset"] for row in json.loads(say("models", "mip", "--json")[1])["presets"]] == ["mip"]
    assert "did you mean 'sasrec'" in say("models", "sasrek")[2]
    rows = json.loads(say("models", "--json")[1])["presets"]
    assert [row["preset"] for row in rows] == list(PRESETS)
    assert {row["seen"] for row in rows} == {"keep", "mask"}


def test_doctor(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = importlib.import_module("dglrec.doctor")
    code, out, _ = say("doctor", "--json")
    assert code == (0 if json.loads(out)["ok"] else 1)
    sick = doctor.Doctor((doctor.Check("a", "one", mend="do this"),))
    monkeypatch.setattr(doctor, "report", lambda: sick)
    assert say("doctor") == (1, f"{sick}\n", "")


def test_reproduce_passes_on_what_is_asked_for(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("dglrec.reproduce")
    asked: list[dict[str, Any]] = []

    def reproduce(table: str, **options: Any) -> Any:
        asked.append({"table": table, **options})
        plan = importlib.import_module("dglrec.tables").Plan(table, "a title", (), (), (), "")
        return module.Table(plan, [], [], [])

    with monkeypatch.context() as patch:
        patch.setattr(module, "reproduce", reproduce)
        words = ("reproduce", "gsau-table1", "--row", "gsau", "--row", "gsau-rec", "--data", "small", "--device", "cpu")
        code, out, _ = say(*words, "--split", "user", "time", "--run", "--seed", 3, "--compare", "gsau", "--json")
        assert code == 0
        assert json.loads(out)["rows"] == []
        assert say(*words)[1] == "gsau-table1: a title\n"
    given = {"table": "gsau-table1", "rows": ["gsau", "gsau-rec"], "data": ["small"], "device": "cpu"}
    assert asked == [
        given | {"run": True, "seed": 3, "splits": ["user", "time"], "compare": "gsau"},
        given | {"run": False, "splits": None, "compare": None},
    ]
    assert json.loads(say("reproduce", "gsau-table1", "--json")[1])["table"] == "gsau-table1"
    assert "did you mean 'gsau-table1'" in say("reproduce", "gsau-table11")[2]
    with monkeypatch.context() as patch:
        patch.setattr(module, "reproduce", lambda *_, **__: pytest.fail("trained first"))
        words = ("reproduce", "gsau-table1", "--run", "--figure", "table.png")
        assert say(*words)[::2] == (2, "dglrec: gsau-table1 is a table; only figures can be drawn\n")


def test_reproduce_prints_a_split_and_draws_a_figure(say: Say, tmp_path: Path) -> None:
    """Of the results in the package."""
    words = ("reproduce", "mdgr-table2", "--data", "foursquare-nyc", "--row", "mip", "--json")
    for split in ("window", "user"):
        rows = json.loads(say(*words, "--split", split)[1])["rows"]
        assert {(row["data"], row["split"], row["row"]) for row in rows} == {("foursquare-nyc", split, "mip")}
    assert "did you mean 'user'" in say(*words, "--split", "users")[2]
    code, _, err = say("reproduce", "mdgr-figure5", "--figure", tmp_path / "figure.png")
    assert (code, err) == (0, f"drawn to {tmp_path / 'figure.png'}\n")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


# The words themselves


@pytest.mark.parametrize(
    "words",
    [[], ["train"], ["evaluate"], ["recommend"], ["data"], ["data", "check"], ["reproduce"], ["models"], ["doctor"]],
)
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: dglrec")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--seed", 3, "--set", "train.seed=4"), "--seed 3 and --set train.seed=4 differ; give one of them"),
        (("--epochs", 3, "--set", "train.epochs=4"), "--epochs 3 and --set train.epochs=4 differ"),
        (("--k-core", 3, "--set", "data.k_core=4"), "--k-core 3 and --set data.k_core=4 differ"),
        (("--ties", "file", "--set", "split.ties=random"), "--ties file and --set split.ties=random differ"),
        (
            ("--columns", "user_id=who", "--set", "data.columns.user_id=u"),
            "--columns user_id=who and --set data.columns.user_id=u differ",
        ),
    ],
)
def test_an_option_and_set_have_to_agree(say: Say, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    code, out, err = say("train", "gsau", "--data", write_data(tmp_path / "small"), *words)
    assert (code, out) == (2, "")
    assert says in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND; see dglrec --help"),
        (["trian"], "argument COMMAND: invalid choice: 'trian'; did you mean 'train'? see dglrec --help"),
        (["train", "gsau", "--data", "sampel"], "did you mean 'sample'?"),
        (["train", "gsau", "--unknown"], "unrecognized arguments: --unknown; see dglrec train --help"),
        (["data", "check", "x", "--unknown"], "unrecognized arguments: --unknown; see dglrec data check --help"),
        (["train"], "train needs PRESET and --data"),
        (["train", "gsau"], "train needs PRESET and --data"),
        (["train", "gsau", "--data", "x", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["train", "gsau", "--data", "x", "--epochs", "three"], "invalid int value: 'three'"),
        (["train", "gsau", "--data", "x", "--set", "dim"], "--set 'dim' has no value; expected FIELD=VALUE"),
        (["train", "gsau", "--data", "x", "--device", "gpu"], "unknown device 'gpu'"),
        (["train", "gsau", "--data", "sample", "--split", "random"], "invalid choice: 'random'"),
        (["recommend", "run"], "one of the arguments --user --history is required; see dglrec recommend --help"),
        (["recommend", "run", "--user", "a", "--history", "b"], "not allowed with"),
        (["data"], "required: COMMAND; see dglrec data --help"),
    ],
)
def test_wrong_words(say: Say, words: list[str], says: str) -> None:
    code, out, err = say(*words)
    assert (code, out) == (2, "")
    assert err.startswith("dglrec: ")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_bug_shows_its_traceback_and_a_lack_of_memory_does_not(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> Callable[..., object]:
        def report() -> object:
            raise error

        return report

    monkeypatch.setattr("dglrec.doctor.report", fails(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        say("doctor")
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 3 GiB\nand more")):
        monkeypatch.setattr("dglrec.doctor.report", fails(error))
        code, _, err = say("doctor")
        assert code == 2
        assert err.startswith("dglrec: out of memory")


def test_what_a_library_prints_does_not_reach_standard_output(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = importlib.import_module("dglrec.doctor")

    def report() -> object:
        print("a library says hello")
        return doctor.Doctor(())

    monkeypatch.setattr(doctor, "report", report)
    code, out, err = say("doctor", "--json")
    assert code == 0
    assert json.loads(out) == {"ok": True, "checks": []}
    assert err == "a library says hello\n"


def test_as_a_process() -> None:
    done = process("models", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["presets"]) == len(PRESETS)
    done = process("train", "gsauu", "--data", "sample")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dglrec: unknown preset 'gsauu'; did you mean 'gsau'?\n"


def test_an_output_that_cannot_show_a_letter(trained: Path) -> None:
    words = ("recommend", trained, "--user", "u3", "--device", "cpu")
    done = process(*words, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "\\u2603" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        done = process("models", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "dglrec: standard output: No space left on device\n")


def test_a_reader_that_goes_away() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = process("models", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (2, "dglrec: standard output: Broken pipe\n")
