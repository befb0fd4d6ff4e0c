"""The quickstart as a newcomer runs it: a process of its own, in an empty home, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_quickstart_runs_from_a_fresh_checkout(tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)]))
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": paths}
    environment |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # nobody answers there
    environment.pop("DGLREC_DATA", None)
    command = [sys.executable, str(REPOSITORY / "examples" / "quickstart.py")]
    small = ["--users", "300", "--items", "200", "--epochs", "3"]
    for number in (1, 2):  # a second time too: it makes a folder of its own
        done = subprocess.run(command + small, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        folder = work / "runs" / f"quickstart-{number}"
        assert (folder / "gsau-rec" / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert f"{folder.relative_to(work)}" in done.stdout
    assert not (home / ".dgl").exists()

    for words in ("seen items", "reachable", "gsau-rec recommends", "Next:"):
        assert words in done.stdout
    saved = json.loads((folder / "results.json").read_text())
    found = {name: values["metrics"]["recall@10"] for name, values in saved["results"].items()}
    assert list(found) == ["popularity", "recency", "transitions", "sasrec", "gsau-rec"]
    assert max(found["sasrec"], found["gsau-rec"]) > 2 * max(found["popularity"], found["recency"])
    assert max(found.values()) < saved["reachable"]["recall@10"] + 0.1  # 300 queries: a standard error is about .03
    assert all(values["protocol"]["seen"] == "mask" for values in saved["results"].values())
