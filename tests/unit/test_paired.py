"""Paired tests over seeds: by hand, against SciPy, and as they stand below a table."""

import csv
import dataclasses

import numpy as np
import pytest
import tables_support as support
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ttest_rel
from tables_support import put, trained

from ltpa.core import layout
from ltpa.models.variants import get_variant, list_models
from ltpa.stages import table as stage
from ltpa.tables.build import build_table
from ltpa.tables.frame import index_records
from ltpa.tables.paired import holm, paired_p

SEEDS = [0, 1, 2]
BASELINES = {"vgg-att": "vgg"}


def test_three_differences_by_hand():
    """-1, -2, -3: mean -2, sd 1, t = -2 sqrt 3 = -3.4641; with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)."""
    assert paired_p([-1.0, -2.0, -3.0]) == pytest.approx(1 - np.sqrt(12 / 14))
    assert paired_p([1.0, 2.0, 3.0]) == paired_p([-1.0, -2.0, -3.0])


def test_a_test_is_withheld_below_three_seeds_and_where_nothing_varies():
    assert paired_p([]) is None and paired_p([1.0]) is None and paired_p([1.0, 2.0]) is None
    assert paired_p([0.0, 0.0, 0.0]) is None
    assert paired_p([0.3, 0.1 + 0.2, 0.3]) is None


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=3, max_size=9))
def test_agrees_with_scipy(pairs):
    ours, theirs = (np.array(column) / 8 for column in zip(*pairs, strict=True))
    p = paired_p((ours - theirs).tolist())
    if p is None:
        assert np.ptp(ours - theirs) == 0
    else:
        assert p == pytest.approx(ttest_rel(ours, theirs).pvalue, rel=1e-9, abs=1e-12)


def test_holm_by_hand():
    """Four tests: 4 x .01, 3 x .015, 2 x .03, 1 x .04, none below the one before."""
    assert holm([0.03, 0.01, 0.04, 0.015]) == pytest.approx([0.06, 0.04, 0.06, 0.045])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(values):
    found = holm(values)
    for p, adjusted in zip(values, found, strict=True):
        assert p <= adjusted <= min(1, len(values) * p) + 1e-15
    assert sorted(found) == [found[i] for i in np.argsort(values, kind="stable")]
    assert max(found) >= max(false_discovery_control(values)) - 1e-12  # stricter than Benjamini and Hochberg


def spec(**changes):
    return support.spec(**{"seeds": SEEDS, "baselines": BASELINES} | changes)


def records(folder, seeds=SEEDS):
    """VGG 7, 8, 9 on both sets; the attention network 1, 2, 3 points better on the first, 1 point on the second."""
    errors = {("digits10", "vgg"): (7, 8, 9), ("digits10", "vgg-att"): (6, 6, 6), ("svhn", "vgg"): (7, 8, 9)}
    errors["svhn", "vgg-att"] = (6, 7, 8)
    return [
        put(folder, trained(dataset, variant, seed, float(values[seed])))
        for (dataset, variant), values in errors.items()
        for seed in seeds
    ]


def build(folder, **changes):
    made = spec(**changes)
    index = index_records(records(folder, made.seeds), folder, made)
    return build_table(made, support.declaration(), support.PUBLISHED, index)


def test_the_test_stands_below_the_table_and_in_the_csv(tmp_path):
    table = build(tmp_path)
    assert any("Holm's correction for the 1 tests" in note for note in table.notes)
    (line,) = [note for note in table.notes if note.startswith("VGG-att against VGG")]
    assert line == "VGG-att against VGG: cifar10 -2.00, n=3, p = 0.074; svhn -1.00, n=3, withheld"
    stage.run(spec(), tmp_path, records(tmp_path))
    with open(layout.table_path(tmp_path, "small", "csv")) as stream:
        rows = [row for row in csv.DictReader(stream) if row["baseline"]]
    assert [(row["row"], row["baseline"], row["paired_n"]) for row in rows] == [("VGG-att", "VGG", "3")] * 2
    assert float(rows[0]["paired_p"]) == float(rows[0]["paired_p_holm"]) == paired_p([-1.0, -2.0, -3.0])
    assert rows[1]["paired_p"] == rows[1]["paired_p_holm"] == ""


def test_other_readings_are_tested_in_families_of_their_own(tmp_path):
    """Nothing but the headline moves the headline's p values; here the other reading repeats its numbers."""
    panels = [{"title": "Headline"}, {"title": "Again", "secondary": True}]
    declared = support.declaration(layout="long", panels=panels)
    made = spec()
    table = build_table(made, declared, support.PUBLISHED, index_records(records(tmp_path), tmp_path, made))
    assert any("for the 1 tests of this table (panels of other readings" in note for note in table.notes)
    lines = [note for note in table.notes if note.startswith("VGG-att against VGG")]
    assert [line.partition(": ")[2] for line in lines] == [
        "cifar10 -2.00, n=3, p = 0.074; svhn -1.00, n=3, withheld"
    ] * 2
    assert "(Headline)" in lines[0] and "(Again)" in lines[1]


def test_image_by_image_each_panel_is_tested_by_its_own_predictions(tmp_path):
    """Records know the images of the headline's metric and of another one; a mean over draws has no prediction."""
    names = ("test_error_pct", "train_error_pct", "chance_error_pct")
    paths = []
    for variant, right in (("vgg", [0b11100000, 0b10000000]), ("vgg-att", [0b11111000, 0b10000001])):
        found = trained("digits10", variant, 0, 5.0)
        metrics = [dataclasses.replace(found.metrics[0], name=name) for name in names]
        packed = {name: {"": bytes([bits]).hex()} for name, bits in zip(names, right, strict=False)}
        paths.append(
            put(tmp_path, dataclasses.replace(found, metrics=metrics, extra={"hits": packed, "hits_images": 8}))
        )
    panels = [{"title": name, **({"metric": name, "secondary": True} if number else {})}
              for number, name in enumerate(names)]  # fmt: skip
    declared = support.declaration(layout="long", panels=panels)
    made = spec(seeds=[0])
    table = build_table(made, declared, support.PUBLISHED, index_records(paths, tmp_path, made))
    lines = [note for note in table.notes if "only one gets right" in note]
    assert lines == [
        "VGG-att against VGG (test_error_pct), images that only one gets right: seed 0: 2 against 0, p = 0.5",
        "VGG-att against VGG (train_error_pct), images that only one gets right: seed 0: 1 against 0, p = 1",
    ]
    assert any("McNemar's exact test" in note for note in table.notes)


def test_a_table_may_name_another_baseline(tmp_path):
    made = spec(baselines={"vgg-att": "rn164"})
    index = index_records(records(tmp_path), tmp_path, made)
    named = build_table(made, support.declaration(baseline="vgg"), support.PUBLISHED, index)
    assert any(note.startswith("VGG-att against VGG: cifar10 -2.00") for note in named.notes)
    assert not any(
        "against" in note for note in build_table(made, support.declaration(), support.PUBLISHED, index).notes
    )


def test_below_three_seeds_there_is_one_line_and_no_p(tmp_path):
    table = build(tmp_path, seeds=[0, 1])
    assert "Paired test against the baseline: withheld below 3 seeds; here are 2." in table.notes
    assert not any("p =" in note for note in table.notes)


def test_only_seeds_that_both_have_are_paired(tmp_path):
    paths = records(tmp_path)
    failed = trained("digits10", "vgg-att", 1, 0.0, status="failed", reason="the loss is not finite")
    put(tmp_path, dataclasses.replace(failed, metrics=[]))
    made = spec()
    table = build_table(made, support.declaration(), support.PUBLISHED, index_records(paths, tmp_path, made))
    (line,) = [note for note in table.notes if note.startswith("VGG-att against VGG")]
    assert line.startswith("VGG-att against VGG: cifar10 -2.00, n=2, withheld;")


def test_without_a_baseline_nothing_is_said(tmp_path):
    table = build(tmp_path, baselines={})
    assert not any("paired" in note.lower() for note in table.notes)
    assert all(cell.comparison is None for row in table.panels[0].rows for cell in row.cells if cell)


def test_every_attention_network_of_the_paper_has_the_plain_one_of_its_family_as_baseline():
    for name in list_models(extensions=False):
        variant = get_variant(name)
        plain = {"vgg": "vgg", "resnet": "rn164"}[variant.recipe]
        assert variant.baseline == (plain if "-att" in name else None)
