"""A configuration that somebody spoilt is refused in one line that names a key, or means what it says.

LTPA_FULL=1 spoils five times as many.
"""

import copy
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltpa.cli import main
from ltpa.core import declared
from ltpa.core.errors import ConfigError
from ltpa.models.variants import declared_variants
from ltpa.plan import Plan, declared_tables, jobs, views
from ltpa.plan.config import load_config

ROOT = Path(__file__).parents[2]
MORE = 5 if os.environ.get("LTPA_FULL") else 1
DEMO = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**70, 0.5, -0.5, 1e300, float("nan"), float("inf"), "", " ", "vgg",
    "cifar10", "0", "1e-4", "é", "x" * 300, [], [None], ["vgg"], ["vgg", "vgg"], [1, "a"], [[]], {}, {"a": 1}, {1: 2},
    {None: None},
)  # fmt: skip
HOSTILE = (
    "$(touch pwned)", "`touch pwned`", "; touch pwned", "' ; touch pwned ; '", '" ; touch pwned ; "', "a\ntouch pwned",
    "../../pwned", "/tmp/pwned", "{wildcards.dataset}", "{0}", "%s", "~", "a b", "\x00", "\u202e", "-rf", "*",
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all values inside nested mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def at(config: Any, path: tuple) -> Any:
    for key in path:
        config = config[key]
    return config


def mutate(config: dict, chance: random.Random) -> None:
    """Change one place: another value, a key misspelt, dropped, doubled or added."""
    path = chance.choice(places(config)[1:])
    holder, key = at(config, path[:-1]), path[-1]
    kind = chance.choice(("replace", "replace", "misspell", "drop", "double", "add"))
    if kind == "replace":
        holder[key] = copy.deepcopy(chance.choice(JUNK))
    elif kind == "misspell" and isinstance(holder, dict):
        letters = list(str(key))
        chance.shuffle(letters)
        holder["".join(letters)] = holder.pop(key)
    elif kind == "drop":
        del holder[key]
    elif kind == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif isinstance(holder, dict):
        holder[chance.choice(("extra", "seed", "", "0", "threads"))] = chance.choice(JUNK)
    else:
        holder.append(chance.choice(JUNK))


def judge(path: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Plan the configuration; an error must be one line with the file, a key of it, and exit code 2."""
    code = main(["plan", "--config", str(path)])
    error = capsys.readouterr().err
    if code:
        assert code == 2, error
        assert error.count("\n") == 1 and "Traceback" not in error, error
        assert path.name in error or "config/" in error, error
        assert "key '" in error, error
    return code


@pytest.mark.parametrize("part", range(2 * MORE))
def test_mutated_configurations(part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    refused = 0
    for number in range(part * 50, part * 50 + 50):
        chance = random.Random(number)
        config = copy.deepcopy(DEMO)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            mutate(config, chance)
        path = tmp_path / f"mutated-{number}.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        refused += judge(path, capsys) == 2
    assert refused > 20


def plan_everything(path: Path) -> None:
    """Make every spec of a configuration, as a run of the whole pipeline does."""
    plan = Plan(load_config(path), path.name)
    for run in views.all_runs(plan):
        jobs.spec(plan, *run)
    for table in plan.config.tables:
        views.table_spec(plan, table)
    views.check_spec(plan)
    views.figures_spec(plan)


@pytest.mark.parametrize("name", ["variants", "datasets", "recipes", "tables"])
def test_mutated_declarations(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = shutil.copytree(ROOT / "config", tmp_path / "config")
    for module in (declared, declared_tables, views):
        monkeypatch.setattr(module, "config_dir", lambda: folder)
    whole = yaml.safe_load((folder / f"{name}.yaml").read_text())
    refused = 0
    for number in range(12 * MORE):
        chance = random.Random(number)
        content = copy.deepcopy(whole)
        mutate(content, chance)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
        declared_variants.cache_clear()
        try:
            plan_everything(folder / "config.yaml")
        except ConfigError as error:
            assert "\n" not in str(error) and ("config" in str(error) or f"{name}.yaml" in str(error))
            refused += 1
    declared_variants.cache_clear()
    assert refused > 3 * MORE


def strings(config: dict) -> list[tuple]:
    """Paths of all text values, and of text inside lists."""
    return [path for path in places(config) if isinstance(at(config, path), str)]


def test_hostile_text_never_reaches_a_shell_or_leaves_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.yaml"
    accepted = []
    for place in strings({**DEMO, "jobs": {**DEMO["jobs"], "archives": ["folder"]}}):
        for text in random.Random(str(place)).sample(HOSTILE, MORE):
            config = copy.deepcopy(DEMO)
            config["jobs"]["archives"] = ["folder"]
            at(config, place[:-1])[place[-1]] = text
            path.write_text(yaml.safe_dump(config, allow_unicode=True))
            if judge(path, capsys) == 0:
                accepted.append(place)
    assert {place[:2] for place in accepted} <= {("jobs", "archives")}, "only folders of archives may be any text"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hostile.yaml"]
