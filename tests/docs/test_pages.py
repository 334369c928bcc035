"""Every code block of README.md and docs/ does what its page says.

Commands are typed into a real bash in a copy of the checkout. `snakemake` and `make` only say there what they would do
(`-n`); everything else runs, and its output is compared with the one that the page shows. Pages mark what cannot run
here (`pages.py` says how); of a command of `ltpa` even then the arguments are checked.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import CODE, NO_CODE, PAGES, ROOT, blocks

PARTS = ("Snakefile", "Makefile", "pyproject.toml", "requirements.lock")
PARTS += ("benchmarks", "config", "envs", "ltpa", "profiles", "workflow")
MODEL = "results/demo/train/digits10/vgg-att2-concat-pc/seed-0/model.safetensors"
BUILDS_ON = {"add-a-table.md": "add-a-variant.md"}  # its files are there when the page begins
# Blocks of each page of which something is not run: a guard against marks by habit.
NOT_RUN = {
    "README.md": 2,
    "docs/add-a-dataset.md": 2,
    "docs/add-a-table.md": 1,
    "docs/add-a-variant.md": 1,
    "docs/cluster.md": 4,
    "docs/finegrained.md": 1,
    "docs/measurements.md": 3,
    "docs/running.md": 10,
    "docs/survey.md": 1,
    "docs/troubleshooting.md": 1,
}
_LOAD = """
import sys
from pathlib import Path
from ltpa.plan.config import load_config
from ltpa.plan import Plan
for path in map(Path, sys.argv[1:]):
    Plan(load_config(path), str(path))
"""
_seen: set[str] = set()  # commands that pages have typed which change no file


def _paths(text: str, checkout: Path) -> str:
    """`text` with the folder of data, which a page places at the root, below the checkout."""
    return re.sub(r"(?<![\w.])/data/", f"{checkout}/data/", text)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """What readers have: results of a run, a network, pictures."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("things")
    _save_network(folder / MODEL)
    _save_table(folder / "results" / "demo")
    random = np.random.default_rng(0)
    names = ["photo.jpg", "another.png", "digit.png"]
    names += [f"FOLDER/{label}/{number}.png" for label in "01" for number in range(2)]
    names += [f"data/my/pictures/{label}/{number:02d}.jpg" for label in _CLASSES for number in range(12)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(folder / name)
        mask = folder / name.replace("FOLDER", "MASKS")
        if mask != folder / name:
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(60, dtype=np.uint8)).save(mask)
    return folder


_CLASSES = ("bush", "leaves", "pagoda", "petals")


def _save_network(path: Path) -> None:
    """An untrained network of the demo's shape; its classifier is biased to class 8, the answer that README shows."""
    import torch

    from ltpa.data.normalise import build_normaliser
    from ltpa.models import create_model
    from ltpa.models.store import save_model

    torch.manual_seed(0)
    model = create_model("vgg-att2-concat-pc", 10, 20, 0.0625, dropout=0.0, bn_weight="one")
    model.preprocessing = build_normaliser("none", 20)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if value.shape == (10,))[8] = 100.0
    save_model(
        path,
        model,
        variant="vgg-att2-concat-pc",
        architecture=model.architecture,
        num_classes=10,
        image_size=20,
        classes=[str(digit) for digit in range(10)],
    )


def _save_table(results: Path) -> None:
    """Table 1 of a demo in which nothing has run yet."""
    from ltpa.plan import Plan, views
    from ltpa.plan.config import load_config
    from ltpa.stages import table

    table.run(views.table_spec(Plan(load_config(ROOT / "config" / "config.yaml"), "config"), "table1"), results, [])


@pytest.fixture
def checkout(tmp_path, things):
    """A copy of the checkout, what readers have, and a PATH on which `snakemake` and `make` run nothing."""
    root = tmp_path / "checkout"
    shutil.copytree(things, root)
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, root / name)
    python = shlex.quote(sys.executable)
    commands = {
        "python": f"exec {python}",
        "ltpa": f"exec {python} -m ltpa",
        "snakemake": f"exec {python} -m snakemake -n",
        "make": f"exec {shutil.which('make')} -n",
    }
    for name, command in commands.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\n{command} "$@"\n')
        path.chmod(0o755)
    activate = root / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    return root


def _run(words: list[str], checkout: Path, text: str = "") -> str:
    variables = {"PYTHONPATH": str(checkout), "PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        words,
        cwd=checkout,
        env={**os.environ, **variables, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}"
    return done.stdout


def _write(block, checkout: Path) -> None:
    """The block of a file: written, or put at its end."""
    path = checkout / block.file
    before = path.read_text(encoding="utf-8") if block.kind == "append" else ""
    path.write_text(before + _paths(block.text, checkout), encoding="utf-8")


def _check_part(part, whole, where: str) -> None:
    """All keys of `part` have the same values in `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        for key, value in part.items():
            _check_part(value, whole.get(key), f"{where}: {key}")
    else:
        assert part == whole, where


def _type(block, checkout: Path, changed: bool) -> None:
    """Type the commands of a block that run, in one bash, and compare their outputs."""
    commands = block.commands()
    for command in commands:
        if not command.runs:
            _check_arguments(command.text)
    script, typed = ["set -e"], []
    for command in commands:
        text = _paths(command.text, checkout)
        if command.runs and (changed or _essence(text) not in _seen):
            typed.append((text, command))
            script += [text, "printf '\\n@@@@\\n'"]
    if not typed:
        return
    outputs = _run(["bash"], checkout, "\n".join(script)).split("\n@@@@\n")
    for (text, command), output in zip(typed, outputs, strict=False):
        if not changed and "=" not in text.split()[0]:
            _seen.add(_essence(text))
        if not text.startswith(("snakemake", "make")):
            _compare(f"{block.where}: {command.text}", command.output, output)


def _essence(text: str) -> str:
    """A command without what makes no difference to a dry run."""
    return re.sub(r" (-n|--cores \d+)(?= |$)", "", text.partition("#")[0]).strip()


def _compare(where: str, shown: list[str], output: str) -> None:
    """The lines that a page shows are lines of the output, in this order; `...` stands for any number of lines."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    for line in shown:
        wanted = " ".join(line.split())
        assert wanted in ("...", "") or wanted in lines, f"{where}: prints no {line!r}, but:\n{output}"


def _check_arguments(text: str) -> None:
    """Where a command is one of `ltpa`, its arguments are those that it takes."""
    from ltpa.cli import _parser

    words = shlex.split(text, comments=True)
    if words[:3] == ["python", "-m", "ltpa"]:
        words = words[2:]
    if words[0] == "ltpa":
        _parser()[0].parse_args(words[1:])


def test_every_block_is_code_of_a_known_kind_or_none():
    for page in PAGES:
        for block in blocks(page):
            assert block.language in (*CODE, *NO_CODE), f"{block.where}: {block.language!r}"
            if block.language in ("yaml", "csv"):
                assert block.file, f"{block.where}: say in a comment which file it belongs to"


def test_what_is_not_run_is_counted():
    counts = {}
    for page in PAGES:
        count = sum(bool(block.not_run) for block in blocks(page))
        counts |= {str(page.relative_to(ROOT)): count} if count else {}
    assert counts == NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, checkout):
    for block in blocks(page.with_name(BUILDS_ON[page.name])) if page.name in BUILDS_ON else []:
        if block.file:
            _write(block, checkout)
    python, configurations = [], set()
    changed = page.name in BUILDS_ON or any(block.kind in ("file", "append") for block in blocks(page))
    for block in blocks(page):
        if block.kind == "part of":
            _check_part(yaml.safe_load(block.text), yaml.safe_load((ROOT / block.file).read_text()), block.where)
        elif block.file:
            _write(block, checkout)
            if block.language == "python":
                _run(["python", "-c", f"import {block.file.removesuffix('.py').replace('/', '.')}"], checkout)
            elif block.language == "yaml":
                configurations.add("config/config.yaml" if block.file.startswith("config/") else block.file)
        elif block.language == "console":
            _type(block, checkout, changed)
        elif block.language == "python":
            python.append(block)
    if configurations:
        _run(["python", "-c", _LOAD, *sorted(configurations)], checkout)
    if python:
        script = "\nprint('@@@@')\n".join(block.text for block in python)
        outputs = _run(["python", "-"], checkout, script).split("@@@@\n")
        for block, output in zip(python, outputs, strict=True):
            assert block.output in (None, output), f"{block.where}: prints\n{output}"


def test_links_lead_to_pages_and_headings():
    headings = {
        page: {_anchor(line) for line in page.read_text().splitlines() if line.startswith("#")} for page in PAGES
    }
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in headings[file], f"{page.name}: {target}"


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")
