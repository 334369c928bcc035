"""The published values: our files against facts of the paper, and bad files against clear errors."""

import json
from pathlib import Path

import pytest
from networks import EVERY
from tables_support import PUBLISHED_DIR

from ltpa.core.declared import load_declaration
from ltpa.core.errors import ConfigError
from ltpa.models import get_variant, list_models
from ltpa.tables.declaration import find_declaration, load_declarations
from ltpa.tables.published import COLUMNS, from_dicts, load_published, to_dicts
from ltpa.tables.slots import place

HEADER = ",".join(COLUMNS)
GOOD = "small,existing,vgg,VGG,cifar10,,,7.77,0.08,0,Table 0"


def cells(table: str) -> dict[tuple[str, str, str, str], float | None]:
    rows = load_published(PUBLISHED_DIR / f"{table}.csv")
    return {(row.label, row.source, row.target, row.condition): row.value for row in rows}


@pytest.mark.parametrize(
    ("table", "numbers", "quoted", "dashes"),
    [
        ("table1", 11 * 2, 0, 0),
        ("table2", 11, 2, 1),
        ("table3", 7 * (2 + 5 * 2), 0, 0),
        ("table4", 5 + 3 * 2 + 4 + 3 + 5 * 2 + 3, 0, 24),
        ("figure6", 5 * 2, 0, 0),
        ("figure9", 7 * 3 + 9 * 3, 21, 3),
        ("extensions", 2 * 2, 0, 10 * 2),
        ("query", 0, 0, 4 * 5),
    ],
)
def test_counts_of_published_values(table, numbers, quoted, dashes):
    rows = load_published(PUBLISHED_DIR / f"{table}.csv")
    assert sum(row.value is not None for row in rows) == numbers
    assert sum(row.quoted for row in rows) == quoted
    assert sum(row.value is None for row in rows) == dashes


def test_the_table_of_extensions_repeats_table_1_and_holds_every_extension():
    table1, extensions = cells("table1"), cells("extensions")
    for key, value in extensions.items():
        assert value is None or value == table1[key]
    variants = {row.variant: row.label for row in load_published(PUBLISHED_DIR / "extensions.csv")}
    for name in EVERY:
        variant = get_variant(name)
        assert name in variants or not variant.extension, f"{name}: give it a row in config/published/extensions.csv"
        assert variants.get(name, variant.label) == variant.label


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "figure6", "figure9"])
def test_no_extension_stands_in_a_table_of_the_paper(table):
    extensions = set(list_models()) - set(list_models(extensions=False))
    rows = load_published(PUBLISHED_DIR / f"{table}.csv")
    assert extensions and not extensions & {row.variant for row in rows}
    assert not {get_variant(name).label for name in extensions} & {row.label for row in rows}
    declaration = json.dumps(load_declaration("tables")[table])
    assert not [name for name in extensions if f'"{name}"' in declaration]


def test_improvements_stated_in_the_text_follow_from_the_tables():
    """Section 5.1: 2.5 and 7.4 points on CIFAR, 7.8 and 0.5 on CUB and SVHN over VGG; 4.5 over PAN on CUB."""
    table1, table2 = cells("table1"), cells("table2")
    best = "(VGG-att2)-concat-pc"
    gains = [table1["VGG", role, "", ""] - table1[best, role, "", ""] for role in ("cifar10", "cifar100")]
    assert [round(gain, 1) for gain in gains] == [2.5, 7.4]
    gains = [table2["VGG", role, "", ""] - table2[best, role, "", ""] for role in ("cub200", "svhn")]
    assert gains == pytest.approx([7.8, 0.5], abs=0.051)
    assert table2["VGG-PAN", "cub200", "", ""] - table2[best, "cub200", "", ""] == pytest.approx(4.5, abs=0.2)


def test_fooling_rates_stated_in_the_text_follow_from_figure_6():
    """Section 5.2: about 5 points lower at norm 1, about one point higher at norm 16."""
    rates = cells("figure6")
    difference = {
        n: rates["VGG-att2", "cub200", "", f"eps={n}"] - rates["VGG", "cub200", "", f"eps={n}"] for n in (1, 16)
    }
    assert difference[1] == pytest.approx(-4.8)
    assert difference[16] == pytest.approx(1.14)


def test_segmentation_margins_stated_in_the_text_follow_from_figure_9():
    """Section 5.4: at least 11 points over existing attention methods and 3 over MCG (best of our two sources)."""
    scores = cells("figure9")
    for subset in ("airplane", "car", "horse"):
        ours = scores["VGG-att3", "cifar10", "objectdiscovery", subset]
        others = [
            value
            for (label, source, _, what), value in scores.items()
            if label in ("VGG-GAP", "VGG-PAN") and what == subset and value is not None
        ]
        assert ours - max(others) >= 11
        assert ours - scores["MCG (Arbeláez et al. 2014)", "", "objectdiscovery", subset] >= 3


def test_every_declared_table_places_every_published_value():
    declarations = load_declarations()
    files = {path.stem for path in PUBLISHED_DIR.glob("*.csv")}
    assert files < declarations.keys() and all(declarations[name].beyond_paper for name in declarations.keys() - files)
    for name, declaration in ((name, declarations[name]) for name in files):
        published = load_published(PUBLISHED_DIR / f"{name}.csv")
        slots = [slot for slot in place(declaration, published) if not slot.secondary]
        assert [slot.entry for slot in slots if slot.panel == 0]
        assert sorted(map(repr, (slot.entry for slot in slots))) == sorted(map(repr, published))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace("7.77", "7,77"), "line 3: 12 fields"),
        (GOOD.replace("7.77", "seven"), "line 3: value is 'seven'"),
        (GOOD.replace("7.77", "nan"), "line 3: value is 'nan'"),
        (GOOD.replace("7.77", ""), "line 3: sd is 0.08"),
        (GOOD.replace("0.08", "-1"), "line 3: sd is -1"),
        (GOOD.replace(",0,Table", ",yes,Table"), "line 3: quoted is 'yes'"),
        (GOOD.replace("small", "large"), "line 3: table is 'large'"),
        (GOOD.replace("Table 0", ""), "line 3: label and where"),
        (GOOD.replace("cifar10", "svhn"), "the same cell as line 2"),
        (GOOD.replace("cifar10", "cifar10|cifar100"), "line 3: one value for 2 cells"),
        (GOOD.replace("cifar10", "cifar10|svhn").replace("7.77,0.08", ","), "line 3: the same cell as line 2"),
    ],
)
def test_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "small.csv"
    path.write_text(f"{HEADER}\n{GOOD.replace('cifar10', 'svhn')}\n{line}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_published(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(PUBLISHED_DIR.glob("*.csv")), ids=lambda path: path.stem)
def test_the_form_of_a_spec_is_short_and_loses_nothing(path):
    entries = load_published(path)
    packed = to_dicts(entries)
    assert from_dicts(packed) == entries
    assert len(json.dumps(packed)) < 64 * 1024  # an argument of a command may have 128 KiB


def test_a_line_without_a_value_may_stand_for_several_cells(tmp_path):
    path = tmp_path / "small.csv"
    path.write_text(f"{HEADER}\nsmall,,vgg,VGG,cifar10|svhn,,a|b,,,0,no published value\n")
    found = [(entry.source, entry.condition) for entry in load_published(path)]
    assert found == [("cifar10", "a"), ("cifar10", "b"), ("svhn", "a"), ("svhn", "b")]


@pytest.mark.parametrize(("text", "message"), [("a,b\n", "its columns are a,b"), (HEADER, "holds no values")])
def test_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "small.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_published(path)


def test_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.csv: cannot read"):
        load_published(Path("nowhere.csv"))


def test_unknown_table_is_answered_with_near_matches():
    with pytest.raises(ConfigError, match="unknown table 'tabel1'; did you mean table1"):
        find_declaration(load_declarations(), "tabel1")


def test_a_last_column_may_say_how_many_runs_stand_behind_a_value(tmp_path):
    path = tmp_path / "small.csv"
    path.write_text(f"{HEADER},n\n{GOOD},3\n{GOOD.replace('cifar10', 'svhn')},\n")
    entries = load_published(path)
    assert [entry.n for entry in entries] == [3, None]
    assert from_dicts(to_dicts(entries)) == entries
    for wrong in ("1", "0", "3.5", "many", "-3"):
        path.write_text(f"{HEADER},n\n{GOOD},{wrong}\n")
        with pytest.raises(ConfigError, match=rf"line 2: n is '{wrong}'; write the number of runs") as caught:
            load_published(path)
        assert "\n" not in str(caught.value)
