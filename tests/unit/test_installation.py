"""What an installation rests on: the lock file, the Makefile, and the commit in an archive."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ltpa
from ltpa.core import provenance

ROOT = Path(__file__).resolve().parents[2]


def entries(name: str) -> set[str]:
    """The packages that a lock file pins."""
    lines = (ROOT / name).read_text().splitlines()
    return {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line and line[0] != "#"}


def test_all_that_the_package_asks_for_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: packages for name, packages in project["optional-dependencies"].items() if name != "libraries"}
    asked = project["dependencies"] + [name for packages in extras.values() for name in packages]
    names = {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in asked}
    assert names - {"pyautoattack"} <= entries("requirements.lock")  # compared with where it is there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose environment was installed, as far as make sees it."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (binaries / "python").chmod(0o755)
    (binaries / "snakemake").write_text(f"#!{binaries}/python\n")
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def would_do(folder: Path, target: str, **environment: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(["make", "-n", target], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_whole_environment_is_left_alone(folder: Path):
    assert "-m venv" not in would_do(folder, "setup")


@pytest.mark.parametrize("damage", ["python gone", "packages gone", "folder moved"])
def test_a_broken_environment_is_made_anew_in_spite_of_its_stamp(folder: Path, damage: str):
    if damage == "python gone":
        (folder / ".venv" / "bin" / "python").unlink()
    elif damage == "packages gone":
        (folder / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    else:
        folder = folder.rename(folder.with_name("moved"))
    assert "-m venv --clear" in would_do(folder, "setup")


def test_cores_are_counted_where_there_is_no_nproc(folder: Path):
    lacking = folder / "lacking"
    lacking.mkdir()
    (lacking / "nproc").write_text("#!/bin/sh\nexit 127\n")
    (lacking / "nproc").chmod(0o755)
    assert re.search(r"--cores [1-9]\d* ", would_do(folder, "demo", PATH=f"{lacking}:{os.environ['PATH']}"))


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_an_archive_without_git_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "source"
    (source / "ltpa" / "core").mkdir(parents=True)
    shutil.copy(ROOT / ".gitattributes", source)
    shutil.copy(ROOT / "ltpa" / "core" / "commit.txt", source / "ltpa" / "core")
    git(source, "init")
    git(source, "add", "--all")
    git(source, "commit", "--message", "one")
    git(source, "archive", "--prefix=archive/", "--output", str(tmp_path / "a.tar"), "HEAD")
    shutil.unpack_archive(tmp_path / "a.tar", tmp_path)
    commit = git(source, "rev-parse", "HEAD")[:12]
    assert provenance._archived(tmp_path / "archive" / "ltpa") == commit
    assert provenance._archived(source / "ltpa") == "", "not filled in"
    monkeypatch.setattr(ltpa, "__file__", str(tmp_path / "archive" / "ltpa" / "__init__.py"))
    assert provenance.code_version.__wrapped__() == f"{ltpa.__version__}+g{commit}"


def test_a_package_inside_a_foreign_repository_does_not_take_its_commit(tmp_path: Path):
    (tmp_path / "site-packages").mkdir()
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "--message", "theirs")
    assert provenance._checked_out(tmp_path) == git(tmp_path, "rev-parse", "HEAD")[:12]
    assert provenance._checked_out(tmp_path / "site-packages") == ""
