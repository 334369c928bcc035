"""Each condition that would break a run is found beforehand, with its remedy."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tables_support import put, trained

from ltpa.cli import main
from ltpa.core import layout
from ltpa.core.errors import LtpaError
from ltpa.report import doctor, workspace
from ltpa.report.workspace import examine_workspace
from ltpa.tracking.store import check_database, check_store, installed_schema, open_store


def fine() -> None:
    """A store with nothing wrong."""


def bad(findings: list[tuple[str, str]]) -> list[str]:
    return [text for state, text in findings if state == "bad"]


def test_a_good_folder_has_no_bad_finding(tmp_path: Path):
    assert bad(examine_workspace(tmp_path, tmp_path / "results" / "demo", fine)) == []


def test_the_command_line_says_ok_here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "processor cores" in said and "[bad" not in said


def test_results_that_are_a_file_are_named(tmp_path: Path):
    (tmp_path / "results").write_text("")
    assert any("not a folder" in text for text in bad(examine_workspace(tmp_path, tmp_path / "results", fine)))


def test_a_locked_folder_and_cut_off_jobs_are_named(tmp_path: Path):
    for name in ("locks/0.input.lock", "incomplete/abc"):
        (tmp_path / ".snakemake" / name).parent.mkdir(parents=True)
        (tmp_path / ".snakemake" / name).write_text("")
    findings = examine_workspace(tmp_path, tmp_path / "results", fine)
    assert any("--unlock" in text for text in bad(findings))
    assert any(state == "note" and "--rerun-incomplete" in text for state, text in findings)


@pytest.mark.parametrize("name", ["data/digits10/manifest.json", "train/digits10/vgg/seed-0/model.safetensors"])
def test_files_from_the_future_are_named_and_the_remedy_helps(tmp_path: Path, name: str):
    results = tmp_path / "results" / "demo"
    path = results / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert bad(examine_workspace(tmp_path, results, fine)) == []
    os.utime(path, (time.time() + 86400,) * 2)
    (text,) = bad(examine_workspace(tmp_path, results, fine))
    assert f"{path.name} is dated in the future" in text
    (tmp_path / ".snakemake").mkdir()
    subprocess.run(text.split("`")[1], shell=True, cwd=tmp_path, check=True)
    assert bad(examine_workspace(tmp_path, results, fine)) == []


def test_a_damaged_record_is_named(tmp_path: Path):
    path = tmp_path / "demo" / "train" / "digits10" / "vgg" / "seed-0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert any(str(path) in text for text in bad(examine_workspace(tmp_path, tmp_path / "demo", fine)))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 3 * 10**9))
    assert bad(examine_workspace(tmp_path, tmp_path, fine)) == []
    (text,) = bad(examine_workspace(tmp_path, tmp_path, fine, needed_bytes=18 * 10**9))
    assert "3.0 GB free" in text and "18.0 GB needed" in text
    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 10**6))
    assert any("0.0 GB free" in text for text in bad(examine_workspace(tmp_path, tmp_path, fine)))


def test_a_small_and_a_read_only_disk_are_named(tmp_path: Path):
    results = tmp_path / "results" / "demo"
    results.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(results)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (text,) = bad(examine_workspace(tmp_path, results, fine))
        assert "0.0 GB free" in text and str(results) in text
        subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
        assert any(f"{results}: cannot write here" in text for text in bad(examine_workspace(tmp_path, results, fine)))
    finally:
        subprocess.run(["umount", str(results)], check=True)


def test_what_lies_there_already_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "results").mkdir()
    with open(tmp_path / "results" / "array", "wb") as stream:
        stream.truncate(4 * 10**9)
    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 3 * 10**9))
    assert bad(examine_workspace(tmp_path, tmp_path / "results", fine, needed_bytes=6 * 10**9)) == []


def seen_by_another_user(root: Path) -> list[str]:
    """What is bad in a folder for a user without root's rights: in a process that gave them up, where we have them."""
    root.chmod(0o777)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.chdir(root)
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            found = bad(examine_workspace(Path(), Path("results/demo"), lambda: check_store(Path("results/demo"))))
            os.write(writer, json.dumps(found).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with open(reader, "rb") as stream:
        return json.loads(stream.read())


@pytest.mark.parametrize(
    ("closed", "mode", "words"),
    [
        ("results", 0o000, "results: cannot write here"),
        ("results/demo/train/digits10/vgg/seed-0", 0o555, "seed-0: cannot write here"),
        ("results/demo/train", 0o000, "train: cannot write here"),
        ("results/demo/train/digits10/vgg/seed-0/model.safetensors", 0o000, "model.safetensors: cannot be read"),
        (".snakemake", 0o000, ".snakemake: cannot write here"),
        (".snakemake/locks", 0o555, "locks: cannot write here"),
        (".snakemake/conda", 0o555, ""),
    ],
)
def test_folders_and_files_of_another_user_are_named(tmp_path: Path, closed: str, mode: int, words: str):
    network = tmp_path / "results" / "demo" / "train" / "digits10" / "vgg" / "seed-0" / "model.safetensors"
    for folder in (network.parent, tmp_path / ".snakemake" / "locks", tmp_path / ".snakemake" / "conda"):
        folder.mkdir(parents=True)
    network.touch()
    for path in tmp_path.rglob("*"):
        path.chmod(0o777)
    assert seen_by_another_user(tmp_path) == []
    (tmp_path / closed).chmod(mode)
    found = seen_by_another_user(tmp_path)
    (tmp_path / closed).chmod(0o777)
    assert [words in text and "owner" in text and "--directory" in text for text in found] == ([True] if words else [])


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor._cache() == []
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-such-folder")
    ((state, text),) = doctor._cache()
    assert state == "bad" and "export XDG_CACHE_HOME=DIR" in text


def test_results_that_are_missing_are_counted_and_unreadable_ones_named(tmp_path: Path):
    results = tmp_path / "results" / "demo"
    put(results, trained("digits10", "vgg", 0, 7.0))
    wanted = [layout.run_dir(results, "train", "digits10", "vgg", seed) / layout.RECORD for seed in (0, 1, 2)]
    findings = examine_workspace(tmp_path, results, fine, wanted=wanted)
    (text,) = [text for state, text in findings if state == "note" and "missing" in text]
    assert text.startswith("2 of the 3 results") and str(wanted[1]) in text and "ltpa verify" in text
    wanted[0].write_text(wanted[0].read_text().replace("7.0", "NaN"))
    (said,) = bad(examine_workspace(tmp_path, results, fine, wanted=wanted))
    assert said.startswith(f"{wanted[0]}: not readable (NaN is no number")


def test_a_store_of_another_mlflow_is_named_with_both_remedies(tmp_path: Path):
    path = database(tmp_path / "mlflow.db", "0123abcd")
    (said,) = bad(examine_workspace(tmp_path, tmp_path, lambda: check_store(tmp_path)))
    assert said.startswith(f"{path}: written by another version of MLflow (schema 0123abcd;")
    assert "`ltpa track --rebuild`" in said and said.endswith(f"`mlflow db upgrade sqlite:///{path}`")
    with pytest.raises(LtpaError, match="written by another version of MLflow"):
        open_store(tmp_path).__enter__()


def test_what_does_not_fit_where_it_is_printed_is_one_line():
    command = [sys.executable, "-m", "ltpa", "data", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 7
    (line,) = done.stderr.splitlines()
    assert line.startswith("ltpa: error: ") and "No space left on device" in line


def test_a_store_that_is_gone_is_noted(tmp_path: Path):
    assert check_store(tmp_path) is None
    (tmp_path / "tracking.json").touch()
    assert "mlflow.db: gone" in str(check_store(tmp_path))
    database(tmp_path / "mlflow.db")
    assert "mlruns: gone" in str(check_store(tmp_path))
    (tmp_path / "mlruns").mkdir()
    assert check_store(tmp_path) is None
    findings = examine_workspace(tmp_path, tmp_path, lambda: "a store that is gone")
    assert ("note", "a store that is gone") in findings and bad(findings) == []


def test_file_names_in_another_encoding_are_said():
    command = [sys.executable, "-X", "utf8=0", "-c", "from ltpa.report.workspace import _encoding; print(_encoding())"]
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf8"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "LC_ALL=C.UTF-8" in said


def database(path: Path, schema: str | None = None) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("INSERT INTO alembic_version VALUES (?)", [schema or installed_schema()])
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    ("damage", "words"),
    [("nothing", ""), ("text", "--rebuild"), ("half", "--rebuild"), ("empty", "--rebuild"), ("locked", "locked by")],
)
def test_a_spoilt_store_is_named(tmp_path: Path, damage: str, words: str, monkeypatch: pytest.MonkeyPatch):
    path = database(tmp_path / "mlflow.db")
    holder = None
    if damage == "text":
        path.write_text("not a database, and long enough to be read as one" * 20)
    elif damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "locked":
        monkeypatch.setattr("ltpa.tracking.store.PATIENCE_SECONDS", 0.1)
        holder = sqlite3.connect(path)
        holder.execute("BEGIN EXCLUSIVE")
    found = bad(examine_workspace(tmp_path, tmp_path, lambda: check_database(path)))
    if holder is not None:
        holder.close()
    assert [words in text for text in found] == ([True] if words else [])


def test_conda_too_old_or_dumb_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "conda"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for said, state in (("conda 23.1.0", "note"), ("conda 26.3.2", "ok"), ("", "note")):
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
        ((found, text),) = doctor._conda()
        assert found == state and ("24.7.1" in text) == (state == "note")


@pytest.mark.parametrize(
    ("program", "state", "words"),
    [
        ("exit 1", "note", "no controller answers"),
        ("echo 'AccountingStorageType   = accounting_storage/none'", "note", "slurm-status-command: squeue"),
        ("echo 'AccountingStorageType   = accounting_storage/slurmdbd'", "ok", "the controller answers"),
    ],
)
def test_what_keeps_slurm_from_working_is_said(tmp_path: Path, monkeypatch, program: str, state: str, words: str):
    monkeypatch.setenv("PATH", str(tmp_path))
    ((found, text),) = doctor._slurm()
    assert found == "note" and "needs its sbatch" in text
    for name in ("sbatch", "scontrol"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
    ((found, text),) = doctor._slurm()
    assert found == state and words in text
    monkeypatch.setattr(doctor, "SLURM_PLUGIN", "no-such-plugin")
    ((found, text),) = doctor._slurm()
    assert found == "note" and "make setup" in text


def test_a_configuration_that_wants_a_gpu_where_none_is_stops_before_the_run(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [state for state, _ in doctor._processors(0)] == ["ok", "note"]
    assert "jobs: {gpus: 0}" in bad(doctor._processors(1))[0]
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert bad(doctor._processors(1)) == []  # a login node needs none
