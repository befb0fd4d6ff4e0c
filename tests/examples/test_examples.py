"""Each example runs, small, and says what it promises. The quickstart has a file of its own."""

import ast
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from dglrec.reproduce import RESULTS

EXAMPLES = Path(__file__).parents[2] / "examples"
PRESETS = {"lightgcn.py": "lightgcn", "sasrec.py": "sasrec", "gsau.py": "gsau-rec"}  # of the papers' experiments


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs an example in an empty folder, as `python examples/NAME.py ...` would; returns what it printed."""

    def run_example(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


@pytest.fixture
def log_file(tmp_path):
    """A small part of the shop as a saved log."""
    import dglrec

    path = tmp_path / "shop.npz"
    dglrec.data.sample("shop", users=150, items=80).save(path)
    return str(path)


def test_every_example_is_tested_here():
    text = Path(__file__).read_text("utf-8") + (Path(__file__).parent / "test_quickstart.py").read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text, f"{path.name} has no test"


def test_build_graphs(run, tmp_path):
    out = run("build_graphs.py", "--out", "graphs.png")
    assert (tmp_path / "graphs.png").read_bytes().startswith(b"\x89PNG")
    assert "ann -> tea at 20 s\n   ann -> jam at 30 s\n   ann -> egg at 50 s\n   bob -> tea at 10 s" in out
    assert "counts [1, 1, 1, 2]" in out
    assert "320 edges" in out  # five items for each of 64 users: nobody in the shop has fewer


def test_build_graphs_from_a_file_without_titles_and_times(run, tmp_path):
    rows = [f"u{user},i{(user * step) % 17}" for user in range(30) for step in range(1, 6)]
    (tmp_path / "pairs.csv").write_text("\n".join(["user_id,item_id", *rows]) + "\n")
    out = run("build_graphs.py", "--data", "pairs.csv", "--out", "graphs.png")
    assert "4. users of 'i" in out
    assert "6. the first" not in out


def test_interest_graphs(run, tmp_path):
    out = run("interest_graphs.py", "--epochs", "6", "--rounds", "1", "--out", "interests.png")
    assert (tmp_path / "interests.png").read_bytes().startswith(b"\x89PNG")
    before, first, last = (float(one) for one in re.findall(r"planted interests (\d\.\d+|-0\.\d+)", out))
    assert abs(before) < 0.2 < 0.4 < min(first, last)


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--preset", "mdgr-dgc"]])
def test_interest_graphs_without_a_graph(run, arguments, capsys):
    with pytest.raises(SystemExit):
        run("interest_graphs.py", *arguments)
    assert "without a round no graph is built" in capsys.readouterr().err


def test_hop_prompts(run):
    out = run("hop_prompts.py", "--budget", "40", "--hops", "3")
    assert re.search(r"^hop 3: \d+ items", out, re.MULTILINE)
    assert "what does the user take next ? </s>" in out
    tokens, budget = re.search(r"(\d+) tokens of at most (\d+)", out).groups()
    assert int(tokens) <= int(budget) == 40


def test_galrec(run, tmp_path):
    pytest.importorskip("transformers")
    out = run("galrec.py", "--epochs", "1", "--picture", "hops.png")
    assert (tmp_path / "hops.png").read_bytes().startswith(b"\x89PNG")
    assert "with GAL: galrec-lightgcn on sample-hops: best epoch 1 " in out


def test_time_slices(run, tmp_path):
    out = run("time_slices.py", "--out", "slices.png")
    assert (tmp_path / "slices.png").read_bytes().startswith(b"\x89PNG")
    assert "6 slices over 2000 users and 1000 items" in out
    assert len(re.findall(r"^ +t\d  2020-", out, re.MULTILINE)) == 6
    last_two = re.search(r"in the last two: ([\d.]+) of the \d+ noisy users, ([\d.]+) of the others", out)
    assert float(last_two[1]) + 0.3 < float(last_two[2])  # noise is like nothing


def test_time_slices_of_the_shop_show_when_its_items_change(run):
    out = run("time_slices.py", "--data", "sample:shop", "--by", "equal_counts")
    churn = [float(share) for share in re.findall(r"([\d.]+)% +[\d.]+%$", out, re.MULTILINE)]
    assert len(churn) == 5
    assert min(churn[1:3]) > 2 * max(churn[0], *churn[3:])  # the items change in the third of six slices


def test_time_slices_of_months_some_of_them_silent(run, tmp_path):
    days = [31 * month + day for month in (0, 1, 2, 8, 11) for day in (3, 9, 20)]
    rows = [f"u{user},i{user * n % 17},{86_400 * day}" for user in range(30) for n, day in enumerate(days)]
    (tmp_path / "pairs.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    out = run("time_slices.py", "--data", "pairs.csv", "--by", "month", "--out", "slices.png")
    assert re.search(r"t\d+  - +- +0 +0 +0", out)
    assert "interests" not in out


def test_mdgr(run, tmp_path):
    out = run("mdgr.py", "--epochs", "4", "--m", "1", "--out", "run")
    assert (tmp_path / "run" / "curves.png").exists()
    assert "popularity, same protocol: recall@50" in out
    assert float(re.search(r"^auc_pooled +(\S+)", out, re.MULTILINE)[1]) > 0.6  # chance is .5, counts have .56
    assert 1 < len(re.findall(r"^interest \d", out, re.MULTILINE)) <= 8
    assert out.count("\n   3  item-") == len(re.findall(r"^interest \d", out, re.MULTILINE))  # three items each


@pytest.mark.parametrize("preset", ["selfgnn", "selfgnn-code", "selfgnn-inductive"])
def test_selfgnn(run, preset, tmp_path):
    out = run("selfgnn.py", "--epochs", "2", "--preset", preset, "--out", "run")
    assert (tmp_path / "run" / "curves.png").exists()
    assert "slices on tensors and by DGL differ by at most" in out
    assert "transitions, same protocol: recall@10" in out
    assert len(re.search(r"mean over users: (.*)", out)[1].split(", ")) == 6
    assert "in the last two, noisy users" in out


def test_selfgnn_of_a_file(run, log_file):
    out = run(
        "selfgnn.py", "--data", log_file, "--epochs", "1", "--by", "equal_counts", "--slices", "3", "--negatives", "5"
    )
    assert "selfgnn on sample-shop: best epoch" in out and "negatives=5" in out
    assert "noisy users" not in out


def test_hardgnn(run):
    out = run("hardgnn.py", "--epochs", "12")
    assert "info_nce" in out
    mined, chance = re.search(r"(\d+)% of the mined items .* by chance (\d+)%", out).groups()
    assert int(mined) > int(chance) + 30


def test_hardgnn_without_hard_negatives(run):
    out = run("hardgnn.py", "--epochs", "1", "--k", "0", "--lam", "0")
    assert "info_nce" not in out
    assert "mined" not in out


@pytest.mark.parametrize("name", ["selfgnn.py", "hardgnn.py"])
def test_models_on_slices_without_training(name, run):
    assert "nothing to train" in run(name, "--epochs", "0")


def test_gsau(run, log_file, tmp_path):
    out = run("gsau.py", "--data", log_file, "--epochs", "2", "--out", "run")
    assert (tmp_path / "run" / "curves.png").exists()
    by_hand = re.findall(r"^  (\w+) +(-?[\d.]+) +(-?[\d.]+)$", out, re.MULTILINE)
    assert [name for name, *_ in by_hand] == [
        "graph_alignment",
        "graph_uniformity",
        "cross_entropy",
        "sequence_uniformity",
    ]
    assert "kept in the ranking" in out
    assert "seen items masked: recall@5" in out
    assert "gsau-rec on sample-shop: best epoch" in run(
        "gsau.py", "--data", log_file, "--epochs", "3", "--out", "run", "--resume"
    )


def test_a_file_whose_name_begins_with_sample_is_no_sample(run, tmp_path):
    """It is trained as the paper's data, not with what is set for the sample."""
    rows = [f"c{user},p{(user + step) % 12},{1000 * step + user}" for user in range(40) for step in range(8)]
    (tmp_path / "samples.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    assert "fields {'gamma': 0.1, 'train': {'seed': 2020, 'epochs': 1}}" in run(
        "gsau.py", "--data", "samples.csv", "--epochs", "1"
    )


def test_gsau_with_alignment(run, log_file):
    out = run("gsau.py", "--data", log_file, "--epochs", "1", "--align", "--gamma", "0.2")
    assert "sequence_alignment" in out
    assert "gsau on sample-shop: best epoch" in out


def test_lightgcn(run, log_file):
    out = run("lightgcn.py", "--data", log_file, "--epochs", "3")
    assert "differ by at most" in out
    assert "masked, except a query's own targets" in out
    assert "after ['item-" in out


@pytest.mark.parametrize("targets", ["positions", "prefixes"])
def test_sasrec(run, log_file, targets):
    out = run("sasrec.py", "--data", log_file, "--epochs", "2", "--targets", targets)
    assert re.search(r"a step: \d+ targets from \d+ histories", out)
    assert "kept in the ranking" in out


def test_custom_data(run, tmp_path):
    out = run("custom_data.py", "--epochs", "4")
    assert "Nothing is wrong." in out
    assert "leave_one_out(" in out
    assert "time_point(" in out
    assert "queries older than what the model may know: 0%" in out
    assert re.search(r"a new user with the history \w+-\d+, .* may like:\nrank", out)
    recalls = [float(value) for value in re.findall(r"recall@10 ([\d.]+)", out)]
    assert len(recalls) == 6
    assert (tmp_path / "runs" / "custom-data-1" / "sasrec-by-time" / "weights.safetensors").exists()


def test_custom_data_with_a_file(run, tmp_path):
    rows = [f"c{user},p{(user + step) % 12},{1000 * step + user}" for user in range(40) for step in range(8)]
    (tmp_path / "mine.csv").write_text("\n".join(["who,what,at", *rows]) + "\n")
    names = ("--user", "who", "--item", "what", "--time", "at")
    out = run("custom_data.py", "--csv", "mine.csv", *names, "--epochs", "1")
    assert "rank" in out
    assert "InteractionLog(mine," in out
    assert "bookshop" not in out


def test_custom_data_says_what_is_wrong(run, tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("customer,product,bought_at\nann,tea,10\nann,jam,yesterday\n")
    with pytest.raises(SystemExit) as stopped:
        run("custom_data.py", "--csv", "bad.csv")
    assert stopped.value.code == 2
    assert "line 3: timestamp is 'yesterday'" in capsys.readouterr().out


# --- Numbers to expect ---------------------------------------------------------------------------------------------


def expected(name):
    """The lines "DATA   recall@10 X, ndcg@10 Y; T seconds|hours on N thread" of an example's docstring."""
    text = ast.get_docstring(ast.parse((EXAMPLES / name).read_text("utf-8")))
    line = r"^ +([\w-]+) +recall@10 ([\d.]+), ndcg@10 ([\d.]+); ([\d.]+) (seconds|hours) on (\d) threads?$"
    return {data: rest for data, *rest in re.findall(line, text, re.MULTILINE)}


@pytest.mark.parametrize("name", PRESETS)
def test_the_figures_of_real_data_are_those_of_the_results(name):
    real = {data: rest for data, rest in expected(name).items() if data != "sample"}
    assert real
    for data, (recall, ndcg, hours, unit, threads) in real.items():
        path = RESULTS / "runs" / f"{data}.leave-one-out.{PRESETS[name]}.2020.json"
        result = json.loads(path.read_text("utf-8"))
        assert (float(recall), float(ndcg)) == tuple(round(result["measured"][m], 4) for m in ("recall@10", "ndcg@10"))
        assert (float(hours), unit) == (round(result["seconds"] / 3600, 2), "hours")
        assert int(threads) == result["threads"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in (*PRESETS, "selfgnn.py", "hardgnn.py") if "sample" in expected(name)]
)
def test_the_figures_of_the_sample_are_what_it_prints(name, run):
    recall, ndcg, *_ = expected(name)["sample"]
    out = run(name)
    found = [re.search(rf"^{metric} .*", out, re.MULTILINE)[0] for metric in ("recall", "ndcg")]
    at_10 = [float(re.findall(r"([\d.]+) \+-", line)[1]) for line in found]
    assert at_10 == pytest.approx([float(recall), float(ndcg)], abs=0.02)
