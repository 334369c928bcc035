"""Code by meaning: what counts as a change, and which code a job depends on."""

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from networks import SURVEY

from ltpa.core import code, layout, registry
from ltpa.core.declared import config_dir
from ltpa.core.files import write_text
from ltpa.core.records import Record, write_record
from ltpa.data.registry import READERS
from ltpa.data.registry import code_of as reader_code
from ltpa.models import list_models, resolve_architecture
from ltpa.models.registry import code_of, parse_options
from ltpa.plan import Plan, jobs
from ltpa.plan.config import load_config
from ltpa.plan.why import differing, explain
from ltpa.protocols.registry import built_in, module_name
from ltpa.training.recipe import KINDS

SOURCE = '''
"""A module."""
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

RATE = 0.5
PLACES = Registry("place", {"here": "ltpa.core.files:write_text"})


class Layer(Base):
    """A layer."""

    width: int = 3

    def forward(self, x):
        # doubled
        return 2 * x


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    total = 0.0
    return np.mean(values) + total
'''


IMPORT = "from collections.abc import Sequence\n"


def changed(*edits: tuple[str, str]) -> list[str]:
    text = SOURCE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    before, after = code.parse_module(SOURCE), code.parse_module(text)
    names = [text.removeprefix("m: ") for text in differing({"m": before.definitions}, {"m": after.definitions})]
    assert bool(names) is (before.hash != after.hash)
    return names


@pytest.mark.parametrize(
    "edits",
    [
        [('"""A module."""', '"""Another docstring."""')],
        [('    """Their mean."""\n', "")],
        [("# doubled", "# twice as much")],
        [("    return 2 * x", "    return (\n            2 * x\n        )")],
        [("values: Sequence[float]) -> float", "values: list[float]) -> np.float64"), (IMPORT, "")],
        [("values: Sequence[float]) -> float", "values)"), (IMPORT, "")],
        [("total = 0.0", "total: float = 0.0")],
        [("RATE = 0.5", "RATE: float = 0.5\n\"\"\"A share.\"\"\"")],
        [("from ltpa.models.base import AttentionClassifier", "from ltpa.data.arrays import PreparedDataset")],
        [('{"here": "ltpa.core.files:write_text"}', '{"here": "ltpa.core.files:write_bytes", "there": "x:y"}')],
    ],
    ids=["docstring", "no docstring", "comment", "format", "annotation", "no annotation", "local", "constant", "typing",
         "registry"],
)  # fmt: skip
def test_what_has_no_effect_is_no_change(edits):
    assert changed(*edits) == []


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (("2 * x", "3 * x"), "Layer.forward changed"),
        (("width: int = 3", "width: int = 4"), "Layer changed"),
        (("width: int", "width: float"), "Layer changed"),
        (("RATE = 0.5", "RATE = 0.25"), "RATE changed"),
        (("import numpy as np", "import jax.numpy as np"), "(imports) changed"),
        (("def mean(", "def middle("), "mean removed"),
        (("np.mean(values)", "np.median(values)"), "mean changed"),
    ],
)
def test_what_has_an_effect_is_a_change_with_a_name(edit, name):
    assert name in changed(edit)


def test_the_order_of_definitions_counts():
    one, other = (code.parse_module(text) for text in ("A = 1\nB = A\n", "B = A\nA = 1\n"))
    assert one.hash != other.hash
    assert list(differing({"m": one.definitions}, {"m": other.definitions})) == ["m: order of definitions changed"]


def test_only_the_definitions_of_what_is_reached_count():
    found = code.reached(("ltpa.core.files",))
    assert found == ("ltpa.core", *(f"ltpa.core.{name}" for name in ("errors", "files")))
    assert code.definitions(["ltpa.core.records"])["ltpa.core.records"].keys() >= {"Record", "read_record"}
    assert "ltpa.models.store" in code.reached(("ltpa.models:load",))
    with pytest.raises(ModuleNotFoundError, match=r"ltpa\.core\.recods"):
        code.reached(("ltpa.core.recods",))


def loaded(program: str) -> set[str]:
    """The modules of the package that a program loads."""
    end = "; print(*[name for name in sys.modules if name.startswith('ltpa.')])"
    done = subprocess.run([sys.executable, "-c", f"import sys; {program}{end}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


ROOTS = [f"ltpa.stages.{stage.module or name}" for name, stage in jobs.STAGES.items()] + [*map(module_name, built_in())]


@pytest.mark.parametrize("stage", jobs.STAGES)
def test_a_stage_depends_on_every_module_that_it_loads(stage):
    name = f"ltpa.stages.{jobs.STAGES[stage].module or stage}"
    roots = (name, module_name(stage)) if stage in built_in() else (name,)
    assert loaded(f"import {', '.join(roots)}") <= set(code.reached(roots))


@pytest.mark.parametrize(
    "variant", [*(name for name in list_models() if name not in SURVEY), "vgg-sagan", "stn", "fc-64"]
)
def test_a_network_depends_on_every_module_that_it_is_built_by(variant):
    architecture = resolve_architecture(variant, width=0.125)
    size = architecture.get("image_size", 80)
    built = f"build_model({architecture!r}, 10, {size})"
    program = f"import torch; from ltpa.models import build_model; torch.set_default_device('meta'); {built}"
    job = KINDS.load(parse_options(architecture).learning).job
    needed = set(code.reached(("ltpa.stages.train", job, *code_of(architecture))))
    assert loaded(program) <= needed
    options = parse_options(architecture)
    attends = bool(options.map_levels) and options.learning == "cross-entropy" and variant not in SURVEY
    assert ("ltpa.models.attention" in needed) is attends


def test_only_its_own_reader_counts_for_a_dataset():
    def needed(reader: str) -> set[str]:
        return set(code.reached(("ltpa.stages.prepare", *reader_code(reader))))

    assert not [name for name in needed("embedded") if ".readers" in name or ".archives" in name]
    assert {name for name in needed("stl") if ".readers." in name} == {"ltpa.data.readers.stl"}
    for place in READERS.values():
        assert callable(registry.member(place))


def test_an_unknown_member_is_named_with_near_matches():
    with pytest.raises(ValueError, match=r"unknown reader 'cifr': did you mean cifar"):
        READERS.load("cifr")


def test_the_embedded_default_needs_no_reader_of_files():
    plan = Plan(load_config(config_dir() / "config.yaml"), "config.yaml")
    roots = list(ROOTS)
    roots += [place for name in plan.config.datasets for place in plan.prepare_spec(name).code]
    assert not [name for name in code.reached((*roots, "ltpa.stages.prepare")) if ".readers." in name]


MAY_IMPORT_BY_NAME = {"ltpa.core.registry", "ltpa.models", "ltpa.protocols.registry"}


def test_nothing_else_that_a_job_depends_on_imports_by_a_name_that_no_one_can_follow():
    needed = code.reached((*ROOTS, *(f"ltpa.stages.{stage}" for stage in ("prepare", "table", "gallery"))))
    found = set()
    for name in needed:
        for node in ast.walk(ast.parse(code.module_file(name).read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "import_module":
                found.add(name)
    assert found <= MAY_IMPORT_BY_NAME


def test_the_hashed_text_names_no_empty_fields_which_differ_between_versions_of_python():
    assert code._text(ast.parse("def f(x): return x").body[0]) == (
        "FunctionDef(name='f',args=arguments(args=[arg(arg='x')]),body=[Return(value=Name(id='x'))])"
    )


def test_why_names_statements_and_settings_and_the_jobs_that_they_rerun(tmp_path: Path, monkeypatch):
    demo = Plan(load_config(config_dir() / "config.yaml"), "config.yaml", tmp_path)
    vgg, other = (demo.train_spec("digits10", name) for name in ("vgg", "vgg-gap"))
    roots = ["ltpa.stages.train", *vgg.code]
    for spec, changes in ((vgg, {}), (other, {"recipe": {**other.recipe, "lr": 7.5}})):
        made = dataclasses.replace(spec, **changes)
        write_text(layout.spec_path(demo.results, "train", (made.dataset, made.variant), made.hash()), made.to_json())
        write_record(
            layout.run_dir(demo.results, "train", made.dataset, made.variant, 1) / layout.RECORD,
            Record(
                stage="train", scale="demo", dataset=made.dataset, variant=made.variant, seed=1, metrics=[],
                config_hash=made.hash(), data_hash="", code_hash=code.code_hash(["ltpa.stages.train", *made.code]),
                code_version="", libraries={}, device="cpu", threads=1, seconds=1.0, peak_memory_mb=1.0,
            ),
        )  # fmt: skip
    code.save_definitions(layout.code_path(demo.results, code.code_hash(roots)), roots)
    assert explain(demo) == "\n".join(
        [
            f"setting recipe.lr: 7.5 before, {other.recipe['lr']} now",
            "    train: vgg-gap on digits10, seeds 1",
            "These jobs run anew, and with them everything that reads their results.",
        ]
    )
    parsed = code.read_module("ltpa.models.vgg")
    edited = dataclasses.replace(parsed, definitions={**parsed.definitions, "build_vgg": "another"})
    known = code.read_module
    monkeypatch.setattr(code, "read_module", lambda name: edited if name == "ltpa.models.vgg" else known(name))
    code._code_hash.cache_clear()
    try:
        said = explain(demo)
    finally:
        code._code_hash.cache_clear()
    assert "ltpa.models.vgg: build_vgg changed\n    train: vgg on digits10, seeds 1\n" in said
    assert "order" not in said
