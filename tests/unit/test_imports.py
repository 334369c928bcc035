"""Imports point one way, and heavy libraries stay out of where they have no business (docs/design.md)."""

import ast
import functools
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ltpa
from ltpa.protocols.registry import built_in, module_name

PACKAGE = Path(ltpa.__file__).resolve().parent
DESIGN = PACKAGE.parent / "docs" / "design.md"

# From the bottom up. A part may import the parts of the lines before its own; those of one line do not know each other.
LAYERS = (
    ("core",),
    ("runtime",),
    ("archives",),
    ("data",),
    ("models",),
    ("evaluation", "training"),
    ("protocols", "tables", "tracking", "report"),
    ("pages",),
    ("stages", "plan"),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def name_of(path: Path) -> str:
    parts = ("ltpa", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
LAYERED = sorted(name for name in MODULES if name not in ("ltpa", "ltpa.__main__"))


@functools.cache
def imports(module: str) -> set[str]:
    """The `ltpa` modules that a module imports anywhere: at its top, in functions, for type checking."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write the whole name"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found.update(submodules or {str(node.module)})
    return found & MODULES.keys()


def part_of(module: str) -> str:
    return module.split(".")[1]


def test_every_part_of_the_package_has_its_layer():
    assert {part_of(name) for name in LAYERED} == LEVEL.keys()


@pytest.mark.parametrize("module", LAYERED)
def test_imports_point_down(module: str):
    own = part_of(module)
    for imported in imports(module) - {"ltpa"}:
        part = part_of(imported)
        assert part == own or LEVEL[part] < LEVEL[own], f"{module} imports {imported}"


def test_only_the_foundation_asks_the_package_for_its_place_and_version():
    asking = {name for name in LAYERED if "ltpa" in imports(name)}
    assert asking == {"ltpa.core.code", "ltpa.core.declared", "ltpa.core.provenance", "ltpa.archives.transfer"}


def test_the_package_itself_imports_nothing_at_run_time():
    body = ast.parse(MODULES["ltpa"].read_text(encoding="utf-8")).body
    top = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in top if isinstance(node, ast.ImportFrom)] == ["typing"]
    assert len(top) == 1


def test_no_module_imports_itself_by_a_detour():
    graph = {module: imports(module) - {"ltpa"} for module in LAYERED}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_design_document_lists_these_layers():
    block = DESIGN.read_text(encoding="utf-8").split("## Layout and import direction")[1].split("```")[1]
    listed = [
        tuple(word.removeprefix("ltpa/").rstrip("/") for word in line.split("  ")[0].split())
        for line in block.splitlines()
        if line.startswith("ltpa/")
    ]
    assert listed[::-1] == list(LAYERS)


HEAVY = ("torch", "numpy", "pandas", "mlflow", "snakemake", "torchvision", "sklearn", "skimage", "matplotlib")
MAY_LOAD = {
    "ltpa": set(),
    "ltpa.cli": set(),
    "ltpa.plan": set(),
    "ltpa.runtime.lost_jobs": set(),
    "ltpa.plan.power": set(),
    "ltpa.plan.views": set(),
    "ltpa.models": set(),
    "ltpa.stages.train": {"torch", "numpy"},
    "ltpa.stages.measure": {"numpy"},
    **{module_name(name): set() for name in built_in()},
    "ltpa.stages.cross_entropy": {"torch", "numpy"},
    "ltpa.stages.two_stream": {"torch", "numpy"},
    "ltpa.stages.prepare": {"numpy"},
    "ltpa.stages.check": set(),
}


# One interpreter forks for each module, so that what they may load is read from disk once.
_LOADING = """
import importlib, json, os, sys
import pydantic, yaml
may_load, heavy = json.loads(sys.argv[1])
loaded = {}
for module, known in sorted(may_load.items(), key=lambda item: len(item[1])):
    for name in known:
        importlib.import_module(name)
    read, write = os.pipe()
    if os.fork() == 0:
        importlib.import_module(module)
        os.write(write, " ".join(name for name in heavy if name in sys.modules).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        loaded[module] = said.read().split()
    assert os.wait()[1] == 0, module
print(json.dumps(loaded))
"""


def test_importing_loads_no_more_than_it_must():
    asked = json.dumps([{module: sorted(names) for module, names in MAY_LOAD.items()}, HEAVY])
    command = [sys.executable, "-c", _LOADING, asked]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {module: set(names) for module, names in json.loads(done.stdout).items()}
    assert {module: names for module, names in loaded.items() if not names <= MAY_LOAD[module]} == {}
    assert loaded.keys() == MAY_LOAD.keys()
