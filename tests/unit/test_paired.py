"""Tests between networks, over seeds and image by image: by hand, against SciPy, and as they stand below a table."""

import csv
import dataclasses

import numpy as np
import pytest
import tables_support as support
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, pearsonr, ttest_ind, ttest_rel
from tables_support import put, trained

from ltpa.core import layout
from ltpa.core.errors import RecordError
from ltpa.core.per_image import save_hits
from ltpa.models.variants import get_variant, list_models
from ltpa.stages import table as stage
from ltpa.tables.build import build_table
from ltpa.tables.crossed import crossed_interval
from ltpa.tables.frame import index_records
from ltpa.tables.paired import PAIRED, WELCH, difference, holm, holm_of, paired_p, welch_p

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


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=9), st.lists(st.integers(0, 1000), min_size=3, max_size=9))
def test_welch_agrees_with_scipy(first, second):
    ours, theirs = np.array(first) / 8, np.array(second) / 8
    p = welch_p(ours.tolist(), theirs.tolist())
    if p is None:
        assert np.ptp(ours) == np.ptp(theirs) == 0
    else:
        assert p == pytest.approx(ttest_ind(ours, theirs, equal_var=False).pvalue, rel=1e-9, abs=1e-12)


def test_welch_is_withheld_below_three_seeds_of_either():
    assert welch_p([1.0, 2.0], [1.0, 2.0, 3.0]) is None and welch_p([1.0, 2.0, 3.0], [1.0, 2.0]) is None


def seeds_of(values):
    return dict(enumerate(map(float, values)))


@pytest.mark.parametrize(
    ("first", "second", "test"),
    [
        ([1, 2, 3, 4, 5], [2, 3, 4, 5, 7], PAIRED),
        ([1, 2, 3, 4, 5], [3, 1, 5, 2, 4], WELCH),  # r = .3
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], WELCH),
        ([1, 2, 3, 4], [2, 3, 4, 6], WELCH),  # four seeds say nothing of a correlation
        ([1, 2, 3, 4, 5], [2, 2, 2, 2, 2], WELCH),
    ],
)
def test_pairs_are_made_only_where_five_seeds_go_together(first, second, test):
    found = difference(seeds_of(first), seeds_of(second))
    assert found.test == test and found.delta == pytest.approx(np.mean(first) - np.mean(second))
    known = len(first) >= 5 and np.ptp(second) > 0
    assert found.correlation == (pytest.approx(pearsonr(first, second).statistic) if known else None)
    expected = ttest_rel(first, second) if test == PAIRED else ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)


def test_welch_takes_all_seeds_of_both_and_a_paired_test_those_in_common():
    ours, theirs = seeds_of([1, 2, 3, 4, 5, 9]), seeds_of([2, 3, 4, 5, 7])
    found = difference(ours, theirs)
    assert (found.test, found.n, found.other_n, found.delta) == (PAIRED, 5, 5, pytest.approx(-1.2))
    found = difference(ours, {seed: value for seed, value in theirs.items() if seed < 4})
    assert (found.test, found.n, found.other_n, found.delta) == (WELCH, 6, 4, pytest.approx(4 - 3.5))


def test_holm_passes_over_tests_that_were_withheld():
    assert holm_of([0.03, None, 0.01]) == pytest.approx([0.03, None, 0.02])


def test_the_crossed_bootstrap_has_the_spread_of_seeds_and_of_images():
    """Seeds' effects of sd 1 over 8 seeds, images' of sd 30 over 900: se sqrt(.125 + 1) = 1.06 about the mean."""
    random = np.random.default_rng(0)
    differences = random.normal(0, 1, (8, 1)) + random.normal(0, 30, (1, 900))
    low, high = crossed_interval(differences)
    expected = np.sqrt(differences.mean(1).var() / 8 + differences.mean(0).var() / 900)
    assert (high - low) / (2 * 1.96) == pytest.approx(expected, rel=0.06)
    assert (low + high) / 2 == pytest.approx(differences.mean(), abs=0.1)
    assert crossed_interval(differences) == (low, high)
    alone = crossed_interval(np.repeat(differences.mean(1, keepdims=True), 900, axis=1))
    assert alone[1] - alone[0] < (high - low) / 2, "seeds alone are too sure of other images"
    assert crossed_interval(np.full((5, 10), 3.0)) == (3.0, 3.0)


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
    assert any("Holm's correction for the 2 tests" in note for note in table.notes)
    (line,) = [note for note in table.notes if note.startswith("VGG-att against VGG")]
    assert line == "VGG-att against VGG: cifar10 -2.00, n=3, p = 0.15; svhn -1.00, n=3, p = 0.29"
    stage.run(spec(), tmp_path, records(tmp_path))
    with open(layout.table_path(tmp_path, "small", "csv")) as stream:
        rows = [row for row in csv.DictReader(stream) if row["baseline"]]
    assert [(row["row"], row["baseline"], row["test"], row["test_n"], row["baseline_n"]) for row in rows] == [
        ("VGG-att", "VGG", "welch", "3", "3")
    ] * 2
    assert float(rows[0]["test_p"]) == pytest.approx(ttest_ind([6, 6, 6], [7, 8, 9], equal_var=False).pvalue)
    assert float(rows[0]["test_p_holm"]) == pytest.approx(2 * float(rows[0]["test_p"]))
    assert float(rows[1]["test_p_holm"]) == float(rows[1]["test_p"])


def test_other_readings_are_tested_in_families_of_their_own(tmp_path):
    """Nothing but the headline moves the headline's p values; here the other reading repeats its numbers."""
    panels = [{"title": "Headline"}, {"title": "Again", "secondary": True}]
    declared = support.declaration(layout="long", panels=panels)
    made = spec()
    table = build_table(made, declared, support.PUBLISHED, index_records(records(tmp_path), tmp_path, made))
    assert any("for the 2 tests of this table (panels of other readings" in note for note in table.notes)
    lines = [note for note in table.notes if note.startswith("VGG-att against VGG")]
    assert [line.partition(": ")[2] for line in lines] == [
        "cifar10 -2.00, n=3, p = 0.15; svhn -1.00, n=3, p = 0.29"
    ] * 2
    assert "(Headline)" in lines[0] and "(Again)" in lines[1]


def test_image_by_image_each_panel_is_tested_by_its_own_predictions(tmp_path):
    """Records know the images of the headline's metric and of another one; a mean over draws has no prediction."""
    names = ("test_error_pct", "train_error_pct", "chance_error_pct")
    paths = []
    ours, theirs = [[1, 1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]], [[1, 1, 1, 0, 0, 0, 0, 0], [1] + [0] * 7]
    for variant, right in (("vgg", theirs), ("vgg-att", ours)):
        found = trained("digits10", variant, 0, 5.0)
        metrics = [dataclasses.replace(found.metrics[0], name=name) for name in names]
        hits = {(name, ""): np.array(bits, bool) for name, bits in zip(names, right, strict=False)}
        extra = {"hits": save_hits(layout.run_dir(tmp_path, "train", "digits10", variant, 0), hits)}
        paths.append(put(tmp_path, dataclasses.replace(found, metrics=metrics, extra=extra)))
    panels = [{"title": name, **({"metric": name, "secondary": True} if number else {})}
              for number, name in enumerate(names)]  # fmt: skip
    declared = support.declaration(layout="long", panels=panels)
    made = spec(seeds=[0])
    table = build_table(made, declared, support.PUBLISHED, index_records(paths, tmp_path, made))
    lines = [note for note in table.notes if "only one gets right" in note]
    assert lines == [
        "VGG-att against VGG (test_error_pct, CIFAR-10), images that only one gets right: seed 0: 2 against 0, p = 0.5",
        "VGG-att against VGG (train_error_pct, CIFAR-10), images that only one gets right: seed 0: 1 against 0, p = 1",
    ]
    assert any("McNemar's exact test" in note and "drawn with" not in note for note in table.notes)


def test_from_five_seeds_on_the_crossed_bootstrap_stands_beside_mcnemars_test(tmp_path):
    paths, seeds = [], list(range(5))
    for variant, missed in (("vgg", 4), ("vgg-att", 2)):
        for seed in seeds:
            right = np.arange(20) >= missed + seed % 2
            extra = {"hits": save_hits(layout.run_dir(tmp_path, "train", "digits10", variant, seed),
                                       {("test_error_pct", ""): right})}  # fmt: skip
            paths.append(put(tmp_path, trained("digits10", variant, seed, 100 * (1 - right.mean()), extra=extra)))
    made = spec(seeds=seeds)
    table = build_table(made, support.declaration(), support.PUBLISHED, index_records(paths, tmp_path, made))
    (line,) = [note for note in table.notes if "only one gets right" in note]
    low, high = crossed_interval(
        100.0 * np.stack([(np.arange(20) >= 2 + s % 2) & (np.arange(20) < 4 + s % 2) for s in seeds])
    )
    assert line.endswith(f"right on +10.00 % of images ({low:+.2f} to {high:+.2f})") and low < 10 < high
    assert any("drawn with replacement 4,000 times" in note for note in table.notes)


def test_hits_that_are_not_those_of_the_record_are_refused(tmp_path):
    for variant in ("vgg", "vgg-att"):
        folder = layout.run_dir(tmp_path, "train", "digits10", variant, 0)
        extra = {"hits": save_hits(folder, {("test_error_pct", ""): np.ones(4, bool)})}
        put(tmp_path, trained("digits10", variant, 0, 0.0, extra=extra))
    paths = sorted(tmp_path.rglob("result.json"))
    made = spec(seeds=[0])
    save_hits(layout.run_dir(tmp_path, "train", "digits10", "vgg", 0), {("test_error_pct", ""): np.zeros(4, bool)})
    with pytest.raises(RecordError, match=r"digits10/vgg/seed-0/hits.npy: missing, or not the file") as caught:
        build_table(made, support.declaration(), support.PUBLISHED, index_records(paths, tmp_path, made))
    assert "\n" not in str(caught.value)


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
    assert "Test against the baseline: withheld below 3 seeds; here are 2." in table.notes
    assert not any("p =" in note for note in table.notes)


def test_a_failed_seed_is_left_out_of_the_test(tmp_path):
    paths = records(tmp_path)
    failed = trained("digits10", "vgg-att", 1, 0.0, status="failed", reason="the loss is not finite")
    put(tmp_path, dataclasses.replace(failed, metrics=[]))
    made = spec()
    table = build_table(made, support.declaration(), support.PUBLISHED, index_records(paths, tmp_path, made))
    (line,) = [note for note in table.notes if note.startswith("VGG-att against VGG")]
    assert line.startswith("VGG-att against VGG: cifar10 -2.00, n=2 and 3, withheld;")


def test_without_a_baseline_nothing_is_said(tmp_path):
    table = build(tmp_path, baselines={})
    assert not any("against the baseline" in note.lower() for note in table.notes)
    assert all(cell.comparison is None for row in table.panels[0].rows for cell in row.cells if cell)


def test_every_attention_network_of_the_paper_has_the_plain_one_of_its_family_as_baseline():
    for name in list_models(extensions=False):
        variant = get_variant(name)
        plain = {"vgg": "vgg", "resnet": "rn164"}[variant.recipe]
        assert variant.baseline == (plain if "-att" in name else None)
