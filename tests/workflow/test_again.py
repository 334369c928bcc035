"""One table again: after any change exactly what it touches is redone, wherever the checkout and the results lie."""

import base64
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import MINI, ROOT, Checkout, copy_checkout

from ltpa.report.workspace import REDATE

pytestmark = pytest.mark.workflow

VIEWS = {"table", "check", "track", "report", "figures", "all_tables"}


@pytest.fixture
def edited(finished: Checkout):
    """Edits files of the finished checkout and puts them back."""
    originals: dict[Path, str] = {}

    def edit(name: str, old: str, new: str) -> None:
        path = finished.root / name
        text = originals.setdefault(path, path.read_text())
        assert old in text
        path.write_text(text.replace(old, new, 1))

    yield edit
    for path, text in originals.items():
        path.write_text(text)


def test_a_changed_variant_reruns_its_own_jobs_and_the_aggregation(finished: Checkout, edited):
    old = "architecture: {family: vgg-gap}"
    edited("config/variants.yaml", old, "architecture: {family: vgg-gap, legacy_grad_avg: true}")
    assert finished.planned("table1") == {"train": 4, "table": 1, "table1": 1}
    output = finished.snakemake("-n", "table1").stdout
    trained = [line for line in output.splitlines() if ": Training " in line]
    assert len(trained) == 4 and all(": Training vgg-gap on " in line for line in trained)


def test_a_changed_recipe_reruns_trainings_and_what_follows(finished: Checkout, edited):
    edited("config/recipes.yaml", "vgg-smoke:\n", "vgg-smoke:\n  weight_decay: 0.001\n")
    planned = finished.planned("table1")
    assert set(planned) == {"train", "table", "table1"}


def test_edited_training_code_reruns_trainings_and_their_descendants_only(finished: Checkout, edited):
    edited("ltpa/training/engine.py", "\nclass Trainer", "\nFAST = True\n\n\nclass Trainer")
    planned = finished.planned("all_tables")
    assert "prepare" not in planned and planned["train"] == 28
    assert set(planned) >= VIEWS
    why = ltpa(finished, "plan", "--why", "--config", str(MINI)).stdout
    assert "ltpa.training.engine: FAST added\n    train: vgg on digits10, seeds 0, 1\n" in why
    assert "ltpa.training.engine" not in why.partition("FAST added")[2] and "segmentation:" not in why


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ltpa/models/attention.py", '"""', '"""Edited. '),
        ("ltpa/training/engine.py", "\nclass Trainer", "\n# Edited.\n\n\nclass Trainer"),
        ("ltpa/stages/common.py", "seed: int, training: str)", "seed: 'int', training: object)"),
        ("ltpa/data/readers/stl.py", "\ndef read(", "\nEDITED = True\n\n\ndef read("),
        ("ltpa/__init__.py", "__version__ = ", "__version__ = '9' + "),
    ],
    ids=["docstring", "comment", "annotation", "another reader", "version"],
)
def test_what_changes_no_result_reruns_nothing(finished: Checkout, edited, name: str, old: str, new: str):
    edited(name, old, new)
    assert finished.planned("all_tables") == {}
    assert (
        "results, all of this configuration and this code"
        in ltpa(finished, "plan", "--why", "--config", str(MINI)).stdout
    )


def test_a_changed_statement_of_attention_reruns_the_networks_that_have_it(finished: Checkout, edited):
    edited("ltpa/models/attention.py", "\nclass AttentionUnit", "\nSHARP = True\n\n\nclass AttentionUnit")
    trained = [
        line for line in finished.snakemake("-n", "--", "all_tables").stdout.splitlines() if ": Training " in line
    ]
    networks = {line.split(": Training ")[1].split(" on ")[0] for line in trained}
    assert networks == {"vgg-att2-concat-dp", "vgg-att2-concat-pc"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--forcerun", "train"), {"train", "transfer", "fgsm", "segmentation", "query", "patches", "gallery"} | VIEWS),
        (("--forcerun", "train", "--until", "train"), {"train"}),
        (("--forcerun", "train", "--omit-from", "figures"), {"train", "transfer", "fgsm", "segmentation", "query"}
         | {"patches", "gallery", "table", "check", "track"}),
    ],
)  # fmt: skip
def test_rules_go_by_their_names(finished: Checkout, arguments: tuple[str, ...], expected: set[str]):
    assert set(finished.planned("all_tables", *arguments)) == expected


def test_an_edited_caption_reruns_its_table_only(finished: Checkout, edited):
    edited("config/tables.yaml", "Top-1 error on the test sets of CIFAR-10", "Error on the test sets of CIFAR-10")
    planned = finished.planned("all_tables")
    assert not {"train", "prepare", "fgsm", "transfer"} & planned.keys()
    assert planned["table"] == 1


def another_environment(folder: Path) -> str:
    """The python of a .venv elsewhere with the packages of this one, as `make setup` in another clone makes it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (folder / "lib").symlink_to(Path(sys.prefix, "lib"))
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), folder)
    return str(folder / "bin" / "python")


def test_a_fresh_clone_over_finished_results_reruns_nothing(finished: Checkout, tmp_path: Path):
    clone = copy_checkout(tmp_path / "a fresh clone")
    clone.python = another_environment(clone.root / ".venv")
    for path in clone.root.rglob("*"):
        if path.is_file():
            os.utime(path)
    shutil.copytree(finished.root / "results", clone.root / "results")
    shutil.copytree(finished.root / ".snakemake", clone.root / ".snakemake")
    assert clone.planned("all_tables") == {}


def test_results_alone_are_enough_for_another_clone(finished: Checkout, tmp_path: Path):
    clone = copy_checkout(tmp_path / "clone")
    shutil.copytree(finished.root / "results", clone.root / "results")
    for path in (clone.root / "ltpa").rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    for path in [clone.root / "Snakefile", *(clone.root / "config").rglob("*.yaml")]:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    planned = clone.planned("all_tables")
    assert not {"train", "prepare"} & planned.keys(), planned


def tables(checkout: Checkout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (checkout.results / "tables").iterdir()}


def test_forcerun_redoes_one_rule_and_gives_the_same_bytes(spoiled: Checkout):
    before = tables(spoiled)
    table = spoiled.results / "tables" / "table1.md"
    os.utime(table, (1_000_000_000, 1_000_000_000))
    done = spoiled.snakemake("--forcerun", "table", "--", "table1")
    assert done.returncode == 0, done.stdout
    assert table.stat().st_mtime > 1_000_000_000
    assert tables(spoiled) == before


def test_until_stops_before_the_evaluations(fresh: Checkout):
    planned = fresh.planned("all_tables", "--until", "prepare")
    assert set(planned) == {"prepare"}
    trained = fresh.planned("all_tables", "--until", "train")
    assert set(trained) == {"prepare", "train"}


def one_dataset(tmp_path: Path) -> Path:
    """A configuration whose table 4 takes two jobs."""
    values = {**yaml.safe_load(MINI.read_text()), "datasets": ["digits10"], "tables": ["table4"]}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({**values, "variants": ["vgg"], "protocols": {}}))
    return tmp_path / "one.yaml"


def test_results_go_where_directory_says(fresh: Checkout, tmp_path: Path):
    elsewhere = tmp_path / "else where"
    done = fresh.snakemake("--directory", str(elsewhere), "--", "table4", config=one_dataset(tmp_path))
    assert done.returncode == 0, done.stdout
    assert (elsewhere / "results" / "mini" / "tables" / "table4.md").is_file()
    assert not (fresh.root / "results").exists() and not (fresh.root / ".snakemake").exists()


@contextlib.contextmanager
def read_only(folder: Path):
    """Nobody can write below the folder: a read-only mount for root, whom file modes do not stop, modes for others."""
    if os.getuid() == 0:
        mount = [["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]]
        if any(subprocess.run(command, capture_output=True).returncode for command in mount):
            pytest.skip("root may write everywhere, and nothing can be mounted here")
        undo = [["umount", folder]]
    else:
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        undo = [["chmod", "-R", "u+w", folder]]
    try:
        yield
    finally:
        for command in undo:
            subprocess.run(command, check=True)


def test_a_read_only_source_tree_serves(fresh: Checkout, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    config = one_dataset(tmp_path)
    with read_only(fresh.root):
        with pytest.raises(OSError):
            (fresh.root / "written").touch()
        done = fresh.snakemake("--directory", str(elsewhere), "--", "table4", config=config)
        refused = fresh.snakemake("table4", config=config)
    assert done.returncode == 0, done.stdout
    assert (elsewhere / "results" / "mini" / "tables" / "table4.md").is_file()
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stdout or "Permission" in refused.stdout


def test_hostile_archive_folders_reach_no_shell(fresh: Checkout, tmp_path: Path):
    folders = ["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a\ntouch pwned", "{x} %s"]
    for folder in folders:
        (fresh.root / folder).mkdir()
    values = {**yaml.safe_load(MINI.read_text()), "jobs": {"archives": folders}}
    config = tmp_path / "hostile.yaml"
    config.write_text(yaml.safe_dump(values))
    done = fresh.snakemake("results/mini/data/digits10/manifest.json", config=config)
    assert done.returncode == 0, done.stdout
    assert not list(fresh.root.rglob("pwned"))


def start(checkout: Checkout, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--configfile", str(MINI), "--cores", "1", *arguments],
        cwd=checkout.root, env={**os.environ, "PYTHONPATH": ""}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def turkish(folder: Path) -> dict[str, str]:
    """Variables for a locale of other case rules and a decimal comma; a bare one where it is not to be had."""
    made = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")]
    if shutil.which("localedef") is None or subprocess.run(made, capture_output=True).returncode:
        return {"LC_ALL": "POSIX"}
    return {"LOCPATH": str(folder), "LC_ALL": "tr_TR.UTF-8"}


def test_another_time_zone_locale_and_clock_change_no_byte(spoiled: Checkout, tmp_path: Path):
    """What is there was made under a clock that is a day ahead of the one now."""
    before = tables(spoiled)
    for path in [*spoiled.results.rglob("*"), *(spoiled.root / ".snakemake").rglob("*")]:
        moment = path.lstat().st_mtime + 86400
        os.utime(path, (moment, moment))
    assert spoiled.planned("all_tables") == {}
    skewed = spoiled.snakemake("--forcerun", "table", "--", "table3")
    assert skewed.returncode != 0 and "has older modification time" in skewed.stdout
    subprocess.run(REDATE, shell=True, cwd=spoiled.root, check=True)
    elsewhere = {"TZ": "Pacific/Kiritimati", **turkish(tmp_path)}
    done = spoiled.snakemake("table3", variables=elsewhere)
    assert done.returncode == 0 and "Training" not in done.stdout, done.stdout
    assert tables(spoiled) == before


def ltpa(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "ltpa", *arguments], cwd=checkout.root, env={**os.environ, "PYTHONPATH": ""},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip


def test_a_store_that_is_locked_spoilt_or_gone_costs_no_table(spoiled: Checkout):
    copy = spoiled
    store = copy.results / "mlflow.db"
    store.write_text("spoilt")
    tables = copy.snakemake("--forcerun", "table", "--", "table1")
    assert tables.returncode == 0, tables.stdout
    assert store.read_text() == "spoilt"
    assert "--rebuild" in ltpa(copy, "doctor", "--config", str(MINI)).stdout
    refused = ltpa(copy, "track", "--config", str(MINI))
    assert refused.returncode != 0 and "--rebuild" in refused.stdout and "Traceback" not in refused.stdout
    rebuilt = ltpa(copy, "track", "--rebuild", "--config", str(MINI))
    assert rebuilt.returncode == 0, rebuilt.stdout
    store.unlink()
    again = ltpa(copy, "track", "--config", str(MINI))
    assert again.returncode == 0, again.stdout
    with sqlite3.connect(store) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        locked = ltpa(copy, "track", "--config", str(MINI))
        tables = copy.snakemake("--forcerun", "table", "--", "table2")
    assert locked.returncode != 0 and "locked by another program" in locked.stdout
    assert tables.returncode == 0, tables.stdout


def test_two_users_in_one_directory_and_the_messages_of_a_kill(fresh: Checkout):
    """The messages that docs/troubleshooting.md explains, and that its remedies work."""
    first = start(fresh, "all_tables")
    wait_for(lambda: list((fresh.root / ".snakemake" / "incomplete").glob("*")) or first.poll() is not None)
    second = fresh.snakemake("table4")
    assert second.returncode != 0 and "LockException" in second.stdout and "Traceback" not in second.stdout
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    for marker in (fresh.root / ".snakemake" / "incomplete").iterdir():
        output = fresh.root / base64.b64decode(marker.name).decode()
        if not output.exists():  # what a cut between the output and Snakemake's note of it leaves
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
    locked = fresh.snakemake("table4")
    assert "LockException" in locked.stdout
    assert fresh.snakemake("--unlock").returncode == 0
    profile = ("--workflow-profile", "none")
    plain = fresh.snakemake(*profile, "-n", "--", "all_tables")
    assert "IncompleteFilesException" in plain.stdout
    done = fresh.snakemake(*profile, "--rerun-incomplete", "--", "table4")
    assert done.returncode == 0, done.stdout


def test_conda_that_is_not_there_is_said(fresh: Checkout):
    output = fresh.snakemake("--sdm", "conda", "--", "table4")
    if shutil.which("conda"):
        pytest.skip("conda is installed here")
    assert output.returncode != 0
    assert "conda" in output.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--configfile", str(MINI), "all_tables"), ("FileNotFoundError", "'all_tables'")),
        (("table9",), ("No rule to produce table9",)),
        (("--sdm", "conda", "table4"), ("invalid choice: 'table4'",)),
        (("-q", "all_tables"), ("invalid choice: 'all_tables'",)),
    ],
)
def test_messages_that_the_troubleshooting_page_explains(fresh: Checkout, arguments, words: tuple[str, ...]):
    output = fresh.snakemake(*arguments)
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert output.returncode != 0
    assert all(word in output.stdout and word in page for word in words), output.stdout
