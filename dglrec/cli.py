"""The command line: `dglrec train | evaluate | recommend | data | reproduce | models | doctor`.

Each command calls the function of the same name and prints what it returns: as text, or with `--json` as one JSON
object on standard output and nothing else. Progress and messages go to standard error. Errors are one or
two lines there, with exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from .config import replace
from .errors import CheckpointError, ConfigError, DataError, DglrecError, closest
from .text import aligned
from .version import __version__

if TYPE_CHECKING:
    from .data import InteractionLog, Split
    from .evaluate import Metrics
    from .models import Model
    from .train import Run

RUNS = Path("runs")  # folder of the runs that are given none
_WIDE = 400  # characters of a message, about two lines of a wide terminal
# How a message of the library names an argument -> how the command line does.
_ARGUMENTS = (
    (r'\bcolumns=\{"(\w+)": "(.*?)"\}', lambda found: f"--columns {found[1]}={shlex.quote(found[2])}"),
    (r"\border='file'", lambda found: "--order file"),
    (r"\bload\(\.\.\., k_core=(\d+)\)", lambda found: f"--k-core {found[1]}"),
)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Output:
    """What a command has to say: in words, as JSON-able values, and its exit code."""

    text: str
    values: dict[str, Any]
    code: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code.

    Args:
        arguments: the words after `dglrec`; those of the process by default.

    >>> main(["models", "--jsn"])
    2
    """
    try:
        args = _parser().parse_args(arguments)
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints
            output: Output = args.run(args)
        _write(json.dumps(output.values, indent=1) if args.json else output.text)
    except (Exception, KeyboardInterrupt) as error:
        text = _explain(error)
        if text is None:
            raise
        with contextlib.suppress(OSError):
            print(f"dglrec: {_limited(text)}", file=sys.stderr)
        return 2
    return output.code


def _explain(error: BaseException) -> str | None:
    """The message of an error; None for a bug, which shows its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        return f"{name}{error.strerror or error}"
    if isinstance(error, DglrecError | ImportError):
        return _as_options(str(error))
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return "out of memory; a smaller train.batch_size, or another --device, may help"
    return None


def _as_options(text: str) -> str:
    """A message with the arguments of Python in it as options of the command line.

    >>> _as_options('pass columns={"user_id": "the user"}')
    "pass --columns user_id='the user'"
    """
    for pattern, option in _ARGUMENTS:
        text = re.sub(pattern, option, text)
    return text


def _limited(text: str) -> str:
    """A message on one line, and not longer than two lines of a wide terminal."""
    line = " ".join(text.split())
    return line if len(line) <= _WIDE else line[: _WIDE - 3] + "..."


def _write(text: str) -> None:
    """Print to standard output now, so that a full disk or a closed pipe is noticed here."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        with contextlib.suppress(OSError):  # Python flushes again at its end, and must not fail then
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from None


# train ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """`--set data.columns.NAME=...`: the file's names of the columns."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    rating: str = "rating"
    timestamp: str = "timestamp"


@dataclass(frozen=True)
class DataOptions:
    """`--set data.NAME=...`: how the data are loaded, see `dglrec.load`."""

    order: Literal["time", "file"] = "time"
    k_core: int | None = None
    one_pass_core: bool = False
    items: str | None = None
    name: str | None = None
    format: str | None = None
    behaviors: str = "pv"  # of Taobao, separated by commas
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True)
class LeaveOneOut:
    """`--set split.NAME=...`, see `dglrec.leave_one_out`."""

    ties: Literal["file", "random"] = "file"
    seed: int = 0
    negatives: int | None = None
    test_users: int | None = None


@dataclass(frozen=True)
class TimePoint:
    """`--split time-point --set split.NAME=...`, see `dglrec.time_point`."""

    valid_share: float = 0.1
    test_share: float = 0.1
    valid_time: float | None = None
    test_time: float | None = None
    targets: Literal["all", "next"] = "all"
    negatives: int | None = None
    test_users: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Windows:
    """`--split windows --set split.NAME=...`, see `dglrec.windows`."""

    by: Literal["window", "user", "time"] = "window"
    inputs: int = 50
    targets: int = 50
    negatives: int = 50
    valid: float = 0.1
    test: float = 0.1
    last: Literal["drop", "keep"] = "drop"
    seed: int = 2020


@dataclass(frozen=True)
class Ratio:
    """`--split ratio --set split.NAME=...`, see `dglrec.ratio`."""

    valid: float = 0.1
    test: float = 0.1
    by: Literal["last", "random"] = "last"
    seed: int = 2020


@dataclass(frozen=True)
class Given:
    """`--split given --set split.NAME=...`, see `dglrec.given`."""

    valid: float | None = None
    seed: int = 2020


_SPLITS: dict[str, Any] = {
    "leave-one-out": LeaveOneOut,
    "time-point": TimePoint,
    "windows": Windows,
    "ratio": Ratio,
    "given": Given,
}


def _train(args: argparse.Namespace) -> Output:
    """Fit, select on validation, and read the test set once."""
    from .train import pick_device

    pick_device(args.device)  # an unknown one is refused before anything is read
    if args.out == "":
        raise ConfigError("--out is empty; expected a folder, or leave it out")
    if args.resume is not None:
        model, folder = _resumed_model(args), Path(args.resume)
    else:
        model = _new_model(args)
        folder = _free_folder(model) if args.out is None else Path(args.out)
    run, test = _fit(model, folder, args)
    lines = [str(run), "", str(test), ""]
    also = {"test_masked": "with seen items masked", "test_full": "with all items ranked"}
    for part, words in also.items():
        if part in run.result and not (part == "test_masked" and model.seen == "mask"):
            lines += [f"{words}:", run.tested[part].table(), ""]
    command = ("dglrec", "recommend", str(folder), "--user", str(model.split.log.user_ids[0]))
    lines.append(f"in {folder}: {shlex.join(command)}")
    return Output("\n".join(lines), run.result)


def _fit(model: Model, folder: Path, args: argparse.Namespace) -> tuple[Run, Metrics]:
    """Train in a folder; when that fails, a folder that was made here and holds no run yet is removed."""
    from .train import fit

    is_new = not folder.exists()
    _note(f"{model.preset} on {model.split.log!r}, in {folder}")
    try:
        run = fit(
            model,
            model.split,
            epochs=args.epochs,
            out=folder,
            device=args.device,
            resume=args.resume is not None,
        )
        return run, run.test()
    except KeyboardInterrupt:
        if not (folder / "config.json").exists():  # nothing is there to go on with
            raise
        raise DglrecError(f"stopped; go on with: dglrec train --resume {shlex.quote(str(folder))}") from None
    finally:
        if is_new and not (folder / "config.json").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _new_model(args: argparse.Namespace) -> Model:
    """The model that PRESET, --data and --set specify. All names are checked before data are read."""
    from .data import PAPER_SETS
    from .models import preset

    if args.preset is None or args.data is None:
        raise ConfigError("train needs PRESET and --data NAME_OR_PATH (or --resume DIR); see dglrec train --help")
    fields = _fields(args)
    _check_preset(args.preset, fields)
    split = _split(args, args.preset)
    if args.data in PAPER_SETS and _has_slices(args.preset) and "slices" not in fields:
        fields["slices"] = PAPER_SETS[args.data].slices
        _note(f"{fields['slices']} time slices, as in the paper on {args.data}; --set slices=N takes another number")
    model = preset(args.preset, split, **fields)
    if getattr(model.config, "by", None) == "equal_lengths":
        _warn_of_uneven_slices(model)
    return model


def _warn_of_uneven_slices(model: Any) -> None:
    """Say so where most of a log is in one of the slices of its time."""
    import numpy as np

    times = model.split.train.time
    sizes = np.bincount(np.searchsorted(model.boundaries, times, side="right"))
    if len(model.boundaries) and sizes.max() > len(times) / 2:
        _note(
            f"{sizes.max() / len(times):.0%} of the training interactions are in one of the {len(model.boundaries) + 1}"
            " time slices, which are equally long; --set by=equal_counts gives about the same number to each"
        )


def _has_slices(preset: str) -> bool:
    """Whether a preset cuts the log into time slices."""
    from .models import PRESETS

    return hasattr(PRESETS[preset].config, "slices")


def _resumed_model(args: argparse.Namespace) -> Model:
    """The model of a run folder, with its initial weights; other arguments have to agree with it."""
    from .checkpoint import load

    folder = Path(args.resume)
    if args.out is not None and Path(args.out).absolute() != folder.absolute():
        raise ConfigError(f"--out {args.out} and --resume {folder} differ; a run is resumed in its own folder")
    model = load(folder, weights=False)
    if args.preset is not None and args.preset != model.preset:
        raise CheckpointError(
            f"{folder} is a run of {model.preset!r}, not of {args.preset!r}; leave PRESET out, or resume another"
        )
    if args.data is None and (asked := _data_options(args)):
        raise ConfigError(f"{asked[0]} is about --data, and a run is resumed with its own; leave it out, or add --data")
    if args.data is not None and (split := _split(args, _preset_like(model))).digest != model.split.digest:
        raise CheckpointError(
            f"{folder} is a run on {model.split.log!r}, not on this split of {split.log!r}; "
            "leave --data and its options out"
        )
    wanted = replace(model.config, _fields(args))
    if args.epochs is not None:  # a run may be made longer; fit does that
        wanted = replace(wanted, {"train.epochs": model.config.train.epochs})
    if wanted != model.config:
        raise CheckpointError(
            f"{folder} was begun with other fields; resume it without --set and --seed, or begin a new run"
        )
    return model


def _data_options(args: argparse.Namespace) -> list[str]:
    """The given options that say how the data are read and split."""
    names = ("columns", "format", "items", "order", "k_core", "split", "ties")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, [])]
    settings = _settings(args)
    return given + [f"--set {part}.{name}" for part in ("data", "split") for name in settings[part]]


def _preset_like(model: Model) -> str:
    """The preset of a model, or one of its class where no preset has its fields."""
    from .models import PRESETS

    if model.preset in PRESETS:
        return model.preset
    return next(name for name, preset in PRESETS.items() if preset.model is type(model))


def _settings(args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """`--set` by what it concerns: data, split or model -> field -> value."""
    found: dict[str, dict[str, str]] = {"data": {}, "split": {}, "model": {}}
    for name, value in map(_assignment, args.set):
        head, _, rest = name.partition(".")
        if rest and head in ("data", "split"):
            found[head][rest] = value
        else:
            found["model"][name] = value
    return found


def _assignment(text: str) -> tuple[str, str]:
    """The field and the value of `--set FIELD=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text!r} has no value; expected FIELD=VALUE, e.g. --set train.lr=1e-4")
    return name, value


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the model's config."""
    return _agreeing(_settings(args)["model"], {"train.seed": args.seed, "train.epochs": args.epochs})


def _agreeing(settings: dict[str, str], given: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Fields of `--set` and of options of their own, None where not given; one that is in both must be the same."""
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if settings.get(name, str(value)) != str(value):
            head, _, last = name.rpartition(".")
            option = f"--columns {last}={value}" if head == "columns" else f"--{last.replace('_', '-')} {value}"
            raise ConfigError(f"{option} and --set {where}{name}={settings[name]} differ; give one of them")
    return settings | given


def _check_preset(name: str, fields: dict[str, Any]) -> None:
    from .models import PRESETS

    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; {closest(name, PRESETS)}")
    replace(PRESETS[name].config, fields)


def _split(args: argparse.Namespace, preset: str) -> Split:
    """The data and the split of --data, --k-core, --split, --ties and --set; by default the split of the preset."""
    from .data import leave_one_out, load, ratio, shares, time_point, windows
    from .models import PRESETS

    settings = _settings(args)
    model = PRESETS[preset].model
    kind = args.split or model.default_split
    given = {name: getattr(args, name) for name in ("k_core", "order", "items", "format")}
    given |= {f"columns.{ours}": theirs for ours, theirs in _columns(args).items()}
    options = replace(DataOptions(), _agreeing(settings["data"], given, "data."), where="data.")
    rule = dataclasses.asdict(
        replace(_SPLITS[kind](), _agreeing(settings["split"], {"ties": args.ties}, "split."), where="split.")
    )
    log = load(
        args.data,
        k_core=options.k_core,
        order=options.order,
        items=options.items,
        name=options.name,
        format=options.format,
        behaviors=options.behaviors.split(","),
        columns={ours: theirs for ours, theirs in dataclasses.asdict(options.columns).items() if ours != theirs},
    )
    log = log.one_pass_core() if options.one_pass_core else log
    if kind == "given":
        return shares.given(log, **rule)
    if kind == "time-point":
        return time_point(log, **rule)
    if log.time is None and _has_slices(preset):
        raise DataError(f"{preset} needs times, and {log.name!r} has none; train one without time slices, e.g. sasrec")
    if log.time is None and options.order == "time":
        raise DataError(f"{log.name!r} has no timestamps; if its rows are oldest first, add --order file")
    if kind == "ratio":
        return ratio(log, order=options.order, **rule)
    if kind == "leave-one-out":
        asked = args.split is not None or "negatives" in settings["split"]
        return _leave_one_out(log, rule | {"order": options.order}, None if asked else model.default_negatives, preset)
    try:
        split = windows(log, order=options.order, **rule)
    except DataError as error:
        if args.split is not None or settings["split"]:
            raise
        _note(f"split by leave-one-out, not by windows as in the paper of {preset}: {error}")
        return leave_one_out(log, order=options.order)
    if args.split is None:
        _note(f"split by windows, as in the paper of {preset}; --split leave-one-out has the last item alone as target")
    return split


def _leave_one_out(log: InteractionLog, rule: dict[str, Any], negatives: int | None, preset: str) -> Split:
    """Each target among as many sampled items as in the paper of a preset, where there are that many."""
    from .data import leave_one_out

    if negatives is None:
        return leave_one_out(log, **rule)
    try:
        split = leave_one_out(log, **rule | {"negatives": negatives})
    except DataError as error:
        split = leave_one_out(log, **rule)
        _note(f"all items are ranked, not {negatives} sampled ones as in the paper of {preset}: {error}")
    else:
        mend = "--set split.negatives=none ranks all items"
        _note(f"targets are ranked among {negatives} items, as in the paper of {preset}; {mend}")
    return split


def _free_folder(model: Model) -> Path:
    """runs/PRESET-DATA-seedN, with -2, -3, ... where that is taken."""
    name = re.sub(r"[^\w.-]+", "-", f"{model.preset}-{model.split.log.name}-seed{model.train_config.seed}")
    folder, number = RUNS / name, 1
    while folder.exists():
        number += 1
        folder = RUNS / f"{name}-{number}"
    return folder


# The other commands ---------------------------------------------------------------------------------------------------


def _evaluate(args: argparse.Namespace) -> Output:
    from .evaluate import evaluate

    model = _loaded(args)
    changes = dict(_assignment(text) for text in args.set)
    if args.seen is not None and changes.get("seen", args.seen) != args.seen:
        raise ConfigError(f"--seen {args.seen} and --set seen={changes['seen']} differ; give one of them")
    model.set_ranking(**changes)
    metrics = evaluate(model, model.split.test, k=args.k, seen=args.seen, progress=sys.stderr.isatty())
    fields = {name: getattr(model.config, name) for name in changes}
    words = "".join(f"with        {name}={value}\n" for name, value in fields.items())
    return Output(f"{words}{metrics}", _about(model) | {"set": fields} | metrics.to_dict())


def _recommend(args: argparse.Namespace) -> Output:
    from .recommend import recommend

    model = _loaded(args)
    asked = {name: getattr(args, name) for name in ("user", "history", "k", "per_interest", "seen")}
    found = recommend(model, **asked)
    values = _about(model) | asked | ({} if args.per_interest is None else {"k": None})
    return Output(str(found), values | found.to_dict())


def _loaded(args: argparse.Namespace) -> Model:
    """The model of a run folder, on the device."""
    from .checkpoint import load
    from .train import pick_device

    device = pick_device(args.device)
    return load(args.folder).to(device)


def _about(model: Model) -> dict[str, Any]:
    return {"preset": model.preset, "model": type(model).__name__, "data": model.split.log.name}


def _data_list(args: argparse.Namespace) -> Output:
    from .data import list_datasets

    rows = [{**dataclasses.asdict(info), "path": info.path and str(info.path)} for info in list_datasets()]
    table = aligned(
        ("name", "where", "terms"), ((row["name"], row["path"] or row["place"], row["terms"]) for row in rows)
    )
    return Output(table, {"datasets": rows})


def _data_check(args: argparse.Namespace) -> Output:
    from .data import check

    report = check(args.path, columns=_columns(args), format=args.format)
    return Output(_as_options(str(report)), report.to_dict(), 0 if report.ok else 2)


def _columns(args: argparse.Namespace) -> dict[str, str]:
    """`--columns` as our name of a column -> the file's."""
    pairs = [text.partition("=") for text in args.columns]
    if wrong := next((name for name, equals, theirs in pairs if not (name and equals and theirs)), None):
        raise ConfigError(f"--columns {wrong!r} names no column; expected e.g. --columns user_id=uid item_id=asin")
    return {ours: theirs for ours, _, theirs in pairs}


def _data_get(args: argparse.Namespace) -> Output:
    from tqdm import tqdm

    from .data import get
    from .data.datasets import REGISTRY, is_here

    if args.name in REGISTRY and not is_here(args.name):
        _note(REGISTRY[args.name].about(args.name))
        if not args.yes:
            _ask_for_terms()
    with tqdm(unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, size: int | None) -> None:
            bar.total = size
            bar.update(done - bar.n)

        folder = get(args.name, progress=progress)
    return Output(str(folder), {"name": args.name, "path": str(folder)})


def _ask_for_terms() -> None:
    """Go on only if the user agrees."""
    if not sys.stdin.isatty():
        raise DataError("these terms cannot be accepted without a terminal; add --yes to accept them")
    _note("fetch it under these terms? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise DataError("not fetched")


def _reproduce(args: argparse.Namespace) -> Output:
    from .reproduce import reproduce
    from .tables import plan_of

    if args.figure is not None:
        plan_of(args.table).check_drawn()  # before the first training, not after the last one
    seed = {} if args.seed is None else {"seed": args.seed}
    chosen = {"rows": args.row, "data": args.data, "splits": args.split, "compare": args.compare}
    table = reproduce(args.table, run=args.run_missing, device=args.device, **chosen, **seed)
    if args.figure is not None:
        table.save_figure(args.figure)
        _note(f"drawn to {args.figure}")
    return Output(str(table), table.to_dict())


def _models(args: argparse.Namespace) -> Output:
    from .models import PRESETS

    for name in args.name:
        _check_preset(name, {})
    rows = [
        {
            "preset": name,
            "model": preset.model.__name__,
            "split": preset.model.default_split,
            "seen": preset.config.seen,
            "fields": preset.fields,
            "source": preset.source,
        }
        for name, preset in PRESETS.items()
        if name in args.name or not args.name
    ]
    lines = [[row[column] for column in ("preset", "model", "split", "seen", "source")] for row in rows]
    text = [aligned(("preset", "class", "split", "seen", "source"), lines)]
    text += [f"\nfields of {name} (* set by the preset):\n{_fields_in_words(name)}" for name in args.name]
    return Output("\n".join(text), {"presets": rows})


def _fields_in_words(name: str) -> str:
    """The fields of a preset's config, one per line; a star where the preset differs from its class."""
    from .models import PRESETS

    preset = PRESETS[name]
    values = dataclasses.asdict(preset.config)
    values |= {f"train.{field}": value for field, value in values.pop("train").items()}
    return "\n".join(f"  {field}={value}{' *' if field in preset.fields else ''}" for field, value in values.items())


def _doctor(args: argparse.Namespace) -> Output:
    from .doctor import report

    doctor = report()
    return Output(str(doctor), doctor.to_dict(), doctor.exit_code)


def _note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


# Arguments ------------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown words here: the parser of all commands would point to its own help instead."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {closest(str(value), action.choices)}")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}{'' if message.endswith('?') else ';'} see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dglrec", description="Graph-based and sequential recommendation on DGL.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    _add_recommend(commands)
    _add_data(commands)
    _add_reproduce(commands)
    models = _command(commands, "models", _models, "the presets, and where they come from")
    models.add_argument("name", nargs="*", metavar="PRESET", help="only these, with the fields that --set can change")
    _command(commands, "doctor", _doctor, "what dglrec runs on, and how to mend what is wrong")
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def _add_train(commands: Any) -> None:
    train = _command(commands, "train", _train, "train a preset, select on validation, read the test set once")
    add = train.add_argument
    add("preset", nargs="?", metavar="PRESET", help="see dglrec models")
    add("--data", metavar="NAME_OR_PATH", help="a data set (see dglrec data list), a file or a folder")
    add("--set", action="append", default=[], metavar="FIELD=VALUE",
        help="a field of the model's config (see dglrec models PRESET), data.FIELD or split.FIELD")  # fmt: skip
    add("--epochs", type=int, metavar="N", help="maximum number of epochs")
    _add_device(add)
    add("--seed", type=int, metavar="N", help="seed of the training")
    add("--out", metavar="DIR", help="folder of the run (default: runs/PRESET-DATA-seedN)")
    add("--resume", metavar="DIR", help="continue the run in DIR, with its PRESET and --data")
    add = train.add_argument_group("how the data are read and split").add_argument
    _add_columns(add)
    add("--items", metavar="PATH", help="file of the items' titles (default: items.* beside interactions.*)")
    add("--order", choices=("time", "file"),
        help="sort each user's rows by time, or take the file's rows as oldest first (default: time)")  # fmt: skip
    add("--k-core", type=int, metavar="N", help="keep users and items with N interactions or more")
    add("--split", choices=tuple(_SPLITS), help="how queries are held out (default: as in the preset's paper)")
    add("--ties", choices=("file", "random"), help="order of a user's events at one time (default: file)")


def _add_evaluate(commands: Any) -> None:
    add = _command(commands, "evaluate", _evaluate, "measure a trained model on its test queries").add_argument
    add("folder", metavar="DIR", help="folder of a run")
    add("--seen", choices=("mask", "keep"),
        help="keep items of the history in the ranking, or mask them (default: as in the paper)")  # fmt: skip
    add("--k", type=int, nargs="+", action="extend", metavar="K", help="cuts of the ranking (default: 5 10 20 50)")
    add("--set", action="append", default=[], metavar="FIELD=VALUE",
        help="a field that changes the ranking and no weights, such as rank=cosine of GSAU")  # fmt: skip
    _add_device(add)


def _add_recommend(commands: Any) -> None:
    command = _command(commands, "recommend", _recommend, "the best items for a user, or after a history")
    command.add_argument("folder", metavar="DIR", help="folder of a run")
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID", help="a user of the data")
    who.add_argument("--history", nargs="+", action="extend", metavar="ID", help="items, oldest first")
    many = command.add_mutually_exclusive_group()
    many.add_argument("--k", type=int, default=10, metavar="K", help="number of items (default: 10)")
    text = "number of items of each interest, for a model with several vectors per query"
    many.add_argument("--per-interest", type=int, metavar="N", help=text)
    command.add_argument("--seen", choices=("mask", "keep"), default="mask",
        help="keep items of the history in the ranking, or mask them (default: mask)")  # fmt: skip
    _add_device(command.add_argument)


def _add_data(commands: Any) -> None:
    text = "list the data sets, check a file, or fetch one"
    data = commands.add_parser("data", help=text, description=text[0].upper() + text[1:] + ".")
    parts = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(parts, "list", _data_list, "the data sets that are here, or can be fetched")
    check = _command(parts, "check", _data_check, "what is in a file, and what is wrong with it, line by line")
    check.add_argument("path", metavar="PATH", help="a file, a folder or the name of a data set")
    _add_columns(check.add_argument)
    get = _command(parts, "get", _data_get, "fetch a data set into the cache; prints its folder")
    get.add_argument("name", metavar="NAME", help="see dglrec data list")
    get.add_argument("--yes", action="store_true", help="accept the terms of its source, which are shown first")


def _add_reproduce(commands: Any) -> None:
    add = _command(commands, "reproduce", _reproduce, "a paper's table beside what was measured here").add_argument
    add("table", metavar="TABLE", help="such as gsau-table1")
    add("--run", action="store_true", dest="run_missing", help="train what has no result yet")
    add("--row", nargs="+", action="extend", metavar="ROW",
        help="only these rows: presets, also with fields, such as mdgr,m=10")  # fmt: skip
    add("--data", nargs="+", action="extend", metavar="NAME", help="only these data sets")
    add("--split", nargs="+", action="extend", metavar="SPLIT", help="only these splits of the data")
    add("--compare", metavar="ROW", help="subtract the others from this row, user by user (default: the table's own)")
    add("--figure", type=Path, metavar="PATH", help="draw a figure of the paper to PATH, a PNG")
    add("--seed", type=int, metavar="N", help="seed of the trainings")
    _add_device(add)


def _add_columns(add: Any) -> None:
    """How a file of interactions is read."""
    add("--columns", nargs="+", action="extend", default=[], metavar="OURS=THEIRS",
        help="the file's names of the columns, such as user_id=customer item_id=product")  # fmt: skip
    add("--format", metavar="NAME", help="form of a file that is not tidy, such as amazon-ratings")


def _add_device(add: Any) -> None:
    add("--device", default="auto", metavar="auto|cpu|cuda", help="where to compute (default: auto: CUDA if there)")
