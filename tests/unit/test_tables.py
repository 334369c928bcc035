"""Building tables: cells, reasons, heads, needs; and the table stage on real files."""

import csv
import dataclasses

import pytest
import tables_support as support
from tables_support import put, record, small_records, trained

from ltpa.core import layout
from ltpa.core.errors import ConfigError, DataError, RecordError
from ltpa.core.learned import failures
from ltpa.core.records import Metric
from ltpa.data.manifest import Manifest, SplitEntry, write_manifest
from ltpa.stages import table as stage
from ltpa.tables.build import build_table
from ltpa.tables.declaration import load_declarations, parse_declaration
from ltpa.tables.frame import index_records
from ltpa.tables.needs import needed
from ltpa.tables.published import load_published
from ltpa.tables.render import cell_texts
from ltpa.tables.slots import place


@pytest.fixture
def model(tmp_path):
    return build(tmp_path, support.spec())


def build(results, spec, paths=None):
    index = index_records(small_records(results) if paths is None else paths, results, spec)
    return build_table(spec, support.declaration(), support.PUBLISHED, index)


def cell(model, label, column):
    (row,) = [row for row in model.panels[0].rows if row.label == label]
    return row.cells[column]


def declared(name):
    return load_declarations()[name], load_published(support.PUBLISHED_DIR / f"{name}.csv")


def test_cell_with_all_seeds(model):
    found = cell(model, "VGG", 0)
    assert (found.estimate.mean, found.estimate.n, found.expected) == (7.5, 2, 2)
    assert found.delta == pytest.approx(-0.27)


@pytest.mark.parametrize(
    ("label", "column", "missing"),
    [
        ("VGG-GAP", 0, "not run: training failed: the loss of epoch 3 is not …"),
        ("VGG-GAP", 1, "quoted"),
        ("RN-34", 0, "quoted"),
        ("RN-34", 1, "no network of ours"),
        ("RN-164", 0, "not in this scale"),
        ("VGG-att", 0, "no such target"),
        ("VGG-att", 1, "not run: no record"),
    ],
)
def test_missing_cells_say_why(model, label, column, missing):
    found = cell(model, label, column)
    assert (found.estimate, found.delta, found.verdict, found.missing) == (None, None, "", missing)


def test_a_missing_seed_is_counted_and_named(model):
    found = cell(model, "VGG", 1)
    assert (found.estimate.n, found.expected, found.estimate.sd) == (1, 2, None)
    assert "Missing: train svhn vgg seed 1: no record" in model.notes


def test_failed_runs_are_named_in_full_below_the_table(model):
    reason = "training failed: the loss of epoch 3 is not finite; lower the rate"
    assert [note for note in model.notes if "Failed" in note] == [
        f"Failed: train digits10 vgg-gap seed {seed}: {reason}" for seed in (0, 1)
    ]


def test_a_metric_that_only_some_seeds_have_is_named(tmp_path):
    paths = [
        put(tmp_path, trained("digits10", "vgg", 0, 7.0)),
        put(tmp_path, record("train", "digits10", "vgg", 1, [])),
    ]
    model = build(tmp_path, support.spec(), paths)
    assert "Incomplete: train digits10 vgg seed 1: the record has no test_error_pct for digits10" in model.notes
    assert cell(model, "VGG", 0).estimate.n == 1


def test_verdicts_are_withheld_where_the_scale_is_not_comparable(model):
    assert {cell(model, "VGG", column).verdict for column in (0, 1)} == {"withheld (demo scale)"}


def test_verdicts_where_the_scale_is_comparable(tmp_path):
    """7.75, 7.80, 7.85 beside 7.77; one seed; 3.0, 2.9, 2.8 against 3.52 and a tolerance of 0.5."""
    paths = [put(tmp_path, trained("digits10", "vgg", seed, 7.75 + 0.05 * seed)) for seed in range(3)]
    paths += [put(tmp_path, trained("svhn", "vgg-att", seed, 2.7 + 0.01 * seed)) for seed in range(3)]
    paths.append(put(tmp_path, trained("svhn", "vgg", 0, 4.27)))
    model = build(tmp_path, support.spec(comparable=True, seeds=[0, 1, 2]), paths)
    assert cell(model, "VGG", 0).verdict == cell(model, "VGG", 0).judgement.word == "reproduced"
    assert cell(model, "VGG-att", 1).verdict == "better"
    assert cell(model, "VGG", 1).verdict == "undecided (n < 3, +2 seeds)"
    notes = "\n".join(model.notes)
    assert "3 verdicts. Were every true difference just at the tolerance, 0.15 of them" in notes
    assert "published sd²/n (5 runs assumed)" in notes and "taken as exact where no sd is published" in notes


def test_a_failed_seed_is_named_in_the_verdict_and_never_averaged_away(tmp_path):
    paths = [put(tmp_path, trained("digits10", "vgg", seed, 7.75 + 0.02 * seed)) for seed in range(4)]
    failed = record("train", "digits10", "vgg", 4, [], status="failed", reason="the loss is not finite")
    model = build(tmp_path, support.spec(comparable=True, seeds=list(range(5))), [*paths, put(tmp_path, failed)])
    found = cell(model, "VGG", 0)
    assert (found.estimate.n, found.expected, found.verdict) == (4, 5, "reproduced, 1 failed")
    assert "Failed: train digits10 vgg seed 4: the loss is not finite" in model.notes


def test_a_table_may_pool_the_spread_of_a_column(tmp_path):
    """VGG-att's seeds agree; VGG's spread serves. On the other set there is one seed, and nothing to pool."""
    paths = [put(tmp_path, trained("digits10", "vgg", seed, 7.75 + 0.05 * seed)) for seed in range(3)]
    paths += [put(tmp_path, trained("digits10", "vgg-att", seed, 5.67)) for seed in range(3)]
    paths.append(put(tmp_path, trained("svhn", "vgg", 0, 4.27)))
    made = support.spec(comparable=True, seeds=[0, 1, 2])
    index = index_records(paths, tmp_path, made)
    plain, pooled = (
        build_table(made, support.declaration(pooled_sd=asked), support.PUBLISHED, index) for asked in (False, True)
    )
    assert cell(plain, "VGG-att", 0).verdict == "undecided (sd 0)"
    assert cell(pooled, "VGG-att", 0).verdict == "reproduced (pooled sd)"
    assert cell(pooled, "VGG", 0) == cell(plain, "VGG", 0)
    assert cell(pooled, "VGG", 1).verdict == "undecided (n < 3, +2 seeds)"
    assert "No pooled sd for SVHN: too few values with a spread." in pooled.notes


def test_published_numbers_of_runs_are_used_and_declared(tmp_path):
    paths = [put(tmp_path, trained("digits10", "vgg", seed, 7.6 + 0.2 * seed)) for seed in range(3)]
    made = support.spec(comparable=True, seeds=[0, 1, 2])
    index = index_records(paths, tmp_path, made)
    of_its_own = [dataclasses.replace(support.PUBLISHED[0], sd=0.4, n=9)]
    declared = [dataclasses.replace(support.PUBLISHED[0], sd=0.4)]
    own = build_table(made, support.declaration(), of_its_own, index)
    same = build_table(made, support.declaration(published_n=9), declared, index)
    assumed = build_table(made, support.declaration(), declared, index)
    assert cell(own, "VGG", 0).judgement == cell(same, "VGG", 0).judgement != cell(assumed, "VGG", 0).judgement
    assert any("published sd²/n (runs as published, else 5 runs assumed)" in note for note in own.notes)
    assert any("published sd²/n (9 runs assumed)" in note for note in same.notes)


def test_head_warns_and_names_the_stand_ins(model):
    assert model.head == (
        "These numbers come from stand-in data at the demo scale and are not comparable with the paper: "
        "verdicts are withheld.",
        "Stand-ins: digits10 (Digits on textures) plays cifar10.",
        "Networks at 0.1 of the paper's width.",
    )
    assert model.panels[0].columns == ("CIFAR-10 [digits10]", "SVHN")


def test_a_comparable_scale_on_the_papers_data_needs_no_head(tmp_path):
    assert build(tmp_path, support.spec(comparable=True, standins={}, scale_note="")).head == ()


def test_secondary_panels_give_no_verdict_and_read_another_condition(tmp_path):
    columns = [{"title": "all", "source": "cifar10"}]
    panels = [
        {"title": "main", "measure": "raw"},
        {"title": "scaled", "measure": "l2", "secondary": True},
    ]
    shown = support.declaration(layout="long", columns=columns, panels=panels)
    published = [support.entry("VGG", "cifar10", 5.0)]
    metrics = [Metric("test_error_pct", 1.0, 5, "digits10", "raw"), Metric("test_error_pct", 2.0, 5, "digits10", "l2")]
    metrics.append(Metric("chance_error_pct", 90.0, 5, "digits10"))
    spec = support.spec(comparable=True, seeds=[0])
    index = index_records([put(tmp_path, record("train", "digits10", "vgg", 0, metrics))], tmp_path, spec)
    main, scaled = build_table(spec, shown, published, index).panels
    assert main.rows[0].cells[0].estimate.mean == 1.0 and main.rows[0].cells[0].judgement.word == "undecided"
    assert (scaled.rows[0].cells[0].estimate.mean, scaled.rows[0].cells[0].verdict) == (2.0, "other reading")


def test_panels_beyond_the_paper_show_no_published_value(tmp_path):
    columns = [{"title": "all", "source": "cifar10"}]
    panels = [{"title": "main"}, {"title": "more", "metric": "depth", "beyond_paper": True}]
    shown = support.declaration(layout="long", columns=columns, panels=panels)
    published = [support.entry("VGG", "cifar10", 5.0, sd=0.1), support.entry("RN-34", "cifar10", 9.0, quoted=True)]
    metrics = [Metric(name, 1.0, 5, "digits10") for name in ("test_error_pct", "chance_error_pct", "depth")]
    spec = support.spec(comparable=True, seeds=[0])
    index = index_records([put(tmp_path, record("train", "digits10", "vgg", 0, metrics))], tmp_path, spec)
    main, more = build_table(spec, shown, published, index).panels
    assert [row.label for row in main.rows] == ["VGG", "RN-34"]
    assert [row.label for row in more.rows] == ["VGG"]  # what others published has no such number
    cell = more.rows[0].cells[0]
    assert (cell.entry.value, cell.entry.sd, cell.entry.where) == (None, None, "no published value")
    assert (cell.estimate.mean, cell.delta, cell.verdict) == (1.0, None, "")


def test_a_stand_ins_own_condition_is_read(tmp_path):
    declaration, published = declared("figure9")
    subsets = {"airplane": "digit 0", "car": "digit 1", "horse": "digit 7"}
    metrics = [Metric("jaccard_pct", float(i), 9, "masked", name) for i, name in enumerate(subsets.values())]
    roles = {"cifar10": "digits10", "objectdiscovery": "masked"}
    spec = support.spec(roles=roles, seeds=[0], conditions={"objectdiscovery": subsets})
    index = index_records([put(tmp_path, record("segmentation", "digits10", "vgg-gap", 0, metrics))], tmp_path, spec)
    row = build_table(spec, declaration, published, index).panels[0].rows[0]
    assert [cell.estimate.mean for cell in row.cells] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "paper"}, "of scale 'demo', the table is of 'paper'"),
        ({"seeds": [0]}, "seed 1 is not among the table's seeds"),
    ],
)
def test_records_of_another_scale_or_seed_are_refused(tmp_path, changes, message):
    with pytest.raises(RecordError, match=message):
        build(tmp_path, support.spec(**changes))


def test_the_same_run_twice_is_refused(tmp_path):
    path = put(tmp_path, trained("digits10", "vgg", 0, 7.0))
    with pytest.raises(RecordError, match="the same run as train/digits10/vgg/seed-0"):
        build(tmp_path, support.spec(), [path, path])


def test_a_metric_twice_in_a_record_is_refused(tmp_path):
    metrics = [Metric("test_error_pct", 1.0, 5, target) for target in ("", "digits10")]
    path = put(tmp_path, record("train", "digits10", "vgg", 0, metrics))
    with pytest.raises(RecordError, match="twice"):
        build(tmp_path, support.spec(), [path])


def test_a_value_that_fits_no_column_is_refused():
    with pytest.raises(ConfigError, match=r"small \(VGG, cub200\) fits 0 columns"):
        needed(support.declaration(), [support.entry("VGG", "cub200", 1.0)], support.ROLES, support.VARIANTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decimal": 2}, "small.decimal: extra inputs"),
        ({"direction": "up"}, "small.direction: input should be"),
        ({"layout": "long"}, "layout 'long' needs panels"),
        ({"published_n": 1}, "small.published_n: input should be"),
        ({"tolerance": float("inf")}, "small.tolerance: input should be"),
        ({"kind": "datasets"}, "goes with stage 'prepare'"),
        ({"columns": [{"title": "x", "sauce": "cifar10"}]}, r"small.columns.0.sauce"),
    ],
)
def test_bad_declarations_are_one_line(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_declaration(support.DECLARATION | change, "small")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "runs", "first"),
    [
        ("table1", 11 * 2, ("train", "cifar10", "vgg")),
        ("table2", 4 + 5, ("train", "cub200", "vgg")),
        ("table3", 7 * 2, ("transfer", "cifar10", "vgg")),
        ("table4", 11, ("prepare", "cifar10", "")),
        ("figure6", 2, ("fgsm", "cub200", "vgg")),
        ("figure9", 5 + 4, ("segmentation", "cifar10", "vgg-gap")),
        ("extensions", 12 * 2, ("train", "cifar10", "vgg-att2-concat-pctanh")),
        ("query", 4, ("query", "cifar10", "vgg-att2-concat-dp")),
    ],
)
def test_needs_of_the_whole_paper(table, runs, first):
    """All roles and variants present. Of the 12 cells of table 2 two are quoted and one is a dash: 9 trainings."""
    declaration, published = declared(table)
    names = {name.partition("/")[0] for entry in published for name in (entry.source, entry.target)}
    variants = {entry.variant for entry in published}
    found = needed(declaration, published, {name: name for name in names}, variants)
    assert len(found) == len(set(found)) == runs
    assert first in found


def test_rows_beyond_the_paper_are_run_and_stand_without_a_verdict(tmp_path):
    published = [support.entry("VGG", "cifar10", 7.77), support.entry("VGG-GAP", "cifar10", None)]
    dashed, ours = (support.declaration(beyond_paper=beyond) for beyond in (False, True))
    wanted = [
        [run[2] for run in needed(declared_so, published, support.ROLES, support.VARIANTS)]
        for declared_so in (dashed, ours)
    ]
    assert wanted == [["vgg"], ["vgg", "vgg-gap"]]
    path = support.put(tmp_path, support.trained("digits10", "vgg-gap", 0, 12.5))
    spec = support.spec(comparable=True, seeds=[0])
    table = build_table(spec, ours, published, index_records([path], tmp_path, spec))
    cell = table.panels[0].rows[1].cells[0]
    assert (cell.estimate.mean, cell.delta, cell.verdict) == (12.5, None, "")
    assert cell_texts(table, cell) == ["–", "12.50 (–), n=1/1", "–", "–"]


def test_a_table_without_published_values_shows_ours_alone(tmp_path):
    published = [support.entry("VGG", "cifar10", None)]
    path = support.put(tmp_path, support.trained("digits10", "vgg", 0, 12.5))
    spec = support.spec(comparable=True, seeds=[0])
    table = build_table(spec, support.declaration(beyond_paper=True), published, index_records([path], tmp_path, spec))
    assert cell_texts(table, table.panels[0].rows[0].cells[0]) == ["12.50 (–), n=1/1"]
    assert not any("Verdict" in note for note in table.notes)


def test_needs_are_only_what_the_scale_has():
    declaration, published = declared("table1")
    assert needed(declaration, published, {"cifar10": "digits10"}, ["vgg", "rn164"]) == [
        ("train", "digits10", "vgg"),
        ("train", "digits10", "rn164"),
    ]


def test_stage_writes_all_files_the_same_twice(tmp_path):
    records = small_records(tmp_path)
    spec = support.spec()
    suffixes = (*layout.TABLE_SUFFIXES, "tidy.csv")
    written = []
    for order in (records, records[::-1]):
        stage.run(stage.SPEC.from_json(spec.to_json()), tmp_path, order)
        written.append([layout.table_path(tmp_path, "small", suffix).read_bytes() for suffix in suffixes])
    assert written[0] == written[1]
    assert all(written[0])


def test_csv_files_keep_every_digit(tmp_path):
    values = [0.1 + 0.2, 1 / 3]
    paths = [put(tmp_path, trained("digits10", "vgg", seed, value)) for seed, value in enumerate(values)]
    stage.run(support.spec(), tmp_path, paths)
    with open(layout.table_path(tmp_path, "small", "tidy.csv")) as stream:
        tidy = [float(row["value"]) for row in csv.DictReader(stream) if row["value"]]
    with open(layout.table_path(tmp_path, "small", "csv")) as stream:
        first = next(csv.DictReader(stream))
    assert tidy == values
    assert float(first["mean"]) == sum(values) / 2


def test_edited_record_stops_the_stage(tmp_path):
    paths = small_records(tmp_path)
    paths[0].write_text(paths[0].read_text().replace("7.25", "1.25"))
    with pytest.raises(RecordError, match="does not match its SHA-256"):
        stage.run(support.spec(), tmp_path, paths)
    assert not layout.table_path(tmp_path, "small", "csv").exists()


def manifest(results, name, counts, classes):
    splits = {split: SplitEntry(count=count, per_class=[], arrays={}) for split, count in counts.items()}
    write_manifest(
        layout.data_dir(results, name),
        Manifest(name=name, classes=classes, facts={}, splits=splits, data_hash="0" * 64),
    )
    return layout.data_dir(results, name) / layout.MANIFEST


def datasets_spec():
    declaration, published = declared("table4")
    return support.spec(
        table="table4",
        declaration=declaration.model_dump(mode="json"),
        published=[dataclasses.asdict(entry) for entry in published],
        roles={"cifar10": "digits10", "svhn": "svhn"},
    )


def test_table_of_datasets(tmp_path):
    paths = [
        manifest(tmp_path, "digits10", {"train": 2000, "test": 500}, list("0123456789")),
        manifest(tmp_path, "svhn", {"train": 73257, "test": 26032, "extra": 531131}, list("0123456789")),
    ]
    stage.run(datasets_spec(), tmp_path, paths)
    lines = layout.table_path(tmp_path, "table4", "md").read_text().splitlines()
    split = [[part.strip() for part in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = {label: texts for label, *texts in split}
    assert rows["CIFAR-10"][:2] == ["digits10: Digits on textures", "stand-in"]
    assert rows["CIFAR-10"][5:] == ["60000", "2500", "50000", "2000", "10000", "500", "–", "–", "10", "10"]
    assert rows["SVHN"][:2] == ["svhn", "as published"]
    assert rows["SVHN"][9:13] == ["26032", "26032", "531131", "531131"]
    assert rows["STL"][0] == "not in this scale"


def test_counts_that_differ_are_said_to_differ(tmp_path):
    stage.run(datasets_spec(), tmp_path, [manifest(tmp_path, "svhn", {"train": 73257, "test": 26031}, ["0"] * 10)])
    text = layout.table_path(tmp_path, "table4", "md").read_text()
    assert "differ" in next(line for line in text.splitlines() if line.startswith("| SVHN"))
    assert "not prepared" in next(line for line in text.splitlines() if line.startswith("| CIFAR-10 "))


def test_edited_manifest_is_refused(tmp_path):
    path = manifest(tmp_path, "svhn", {"train": 73257}, ["0"])
    path.write_text(path.read_text().replace("73257", "73258"))
    with pytest.raises(DataError, match="does not match its SHA-256"):
        stage.run(datasets_spec(), tmp_path, [path])
    with pytest.raises(DataError, match="no such file"):
        stage.run(datasets_spec(), tmp_path, [tmp_path / "none.json"])


def test_a_seed_that_did_not_learn_is_named_in_every_format(tmp_path):
    chance = Metric("chance_error_pct", 90.0, 500, "digits10")
    records = [trained("digits10", "vgg", seed, error) for seed, error in ((0, 44.0), (1, 46.0))]
    paths = [put(tmp_path, dataclasses.replace(each, metrics=[*each.metrics, chance])) for each in records]
    stage.run(support.spec(), tmp_path, paths)
    told = "vgg on digits10, seed 1: test error 46.0 %, beyond 0.5 of guessing (90.0 %)"
    files = {suffix: layout.table_path(tmp_path, "small", suffix).read_text() for suffix in layout.TABLE_SUFFIXES}
    for suffix in ("md", "tex", "html"):
        text = files[suffix].replace("\\%", "%")
        assert f"Did not learn, and is in the means above: {told}" in text and text.count("Did not learn") == 1
    rows = list(csv.DictReader(files["csv"].splitlines()))
    assert [row["unlearned"] for row in rows if row["unlearned"]] == ["1"]
    tidy = csv.DictReader(layout.table_path(tmp_path, "small", "tidy.csv").read_text().splitlines())
    assert {row["seed"]: row["reason"] for row in tidy if row["status"] == "ok"} == {"0": "", "1": told}


def test_what_uses_a_network_that_did_not_learn_says_so():
    """The record of an evaluation tells what its network errs."""
    network = {"learning": "cross-entropy", "dataset": "digits10", "variant": "vgg", "seed": 1, "chance_pct": 90.0}
    record_ = record("fgsm", "digits10", "vgg", 1, [], extra={"networks": [{**network, "error_pct": 50.0}]})
    assert failures(record_, {"cross-entropy": 0.5}) and not failures(record_, {"cross-entropy": 0.6})


def test_the_first_row_of_a_panel_shows_a_metric_of_its_own():
    declaration, published = declared("figure6")
    slots = place(declaration, published)
    for number, panel in enumerate(declaration.panels):
        first = [slot for slot in slots if slot.panel == number and slot.metric == "clean_accuracy_pct"]
        assert len(first) == (2 if panel.beyond_paper else 0)
        for slot in first:
            assert (slot.measure, slot.entry.value) == ("", None)
            assert slot == next(other for other in slots if (other.panel, other.column) == (number, slot.column))
    with pytest.raises(ConfigError, match="first_row goes with rows 'condition'"):
        panel = {"title": "", "first_row": {"label": "a", "metric": "b"}}
        parse_declaration({**support.DECLARATION, "layout": "long", "panels": [panel]}, "small")
