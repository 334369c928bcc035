"""What a run found, in sentences that its records choose."""

import re
from pathlib import Path

import pytest
import tables_support as support

from ltpa.cli import main
from ltpa.core.records import Metric
from ltpa.report.findings import FINDINGS, STAGES, Records, findings_page

NEED = FINDINGS[1]
DOCS = Path(__file__).parents[2] / "docs" / "findings.md"


def causal(own: float, uniform: float, n: int = 500, refit: float | None = None, seed: int = 0):
    metrics = [
        Metric("own_accuracy_pct", own, n, "digits10"),
        Metric("accuracy_pct", uniform, n, "digits10", "uniform all"),
    ]
    if refit is not None:
        metrics += [Metric("refit_accuracy_pct", own, n, "digits10", "own")]
        metrics += [Metric("refit_accuracy_pct", refit, n, "digits10", "uniform all")]
    return support.record("causal", "digits10", "vgg-att-pc", seed, metrics)


def said(finding, number, *records, **compatibility):
    by_stage = {}
    for record in records:
        by_stage.setdefault(record.stage, []).append(record)
    return finding.statements[number].text(Records(by_stage, compatibility))


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([(90, 50), (90, 60), (90, 89)], "above"),
        ([(50, 90), (60, 90), (89, 90)], "below"),
        ([(90, 89), (89, 90), (90, 50)], "neither"),
        ([(90, 50), (50, 90)], "neither"),  # half of them are not most
        ([(100, 100)], "neither"),
    ],
)
def test_most_networks_choose_the_sentence(pairs, sentence):
    statement = NEED.statements[0]
    text = said(NEED, 0, *(causal(*pair) for pair in pairs))
    assert text.startswith(f"**{getattr(statement, sentence)}**")
    assert f"of {len(pairs)} measured" in text and "500 images each" in text


def test_numbers_beside_the_sentence_are_those_of_the_records():
    text = said(NEED, 1, causal(90, 50, refit=90.4), causal(96, 50, refit=80, n=400, seed=1))
    assert "median +7.8, from -0.4 to +16.0 points; of 2 measured, 1 lie above zero and 0 below; 400 to 500" in text


def test_few_images_decide_less():
    assert said(NEED, 0, causal(90, 80)).startswith(f"**{NEED.statements[0].above}")
    assert said(NEED, 0, causal(90, 80, n=40)).startswith(f"**{NEED.statements[0].neither}")


def test_without_records_nothing_is_said():
    for finding in FINDINGS:
        for statement in finding.statements:
            assert statement.text(Records({}, {})).startswith("*Not shown: this run has no records of")
    assert "Not shown" in said(NEED, 1, causal(90, 50))  # the record has no readouts


def test_scores_are_told_apart_by_the_variant():
    metrics = [Metric("relative_change", value, 200, "digits10", "conv13") for value in (1e-7, 2e-7)]
    record = support.record("query", "digits10", "some", 0, metrics)
    assert said(FINDINGS[0], 0, record, some="pc").startswith(f"**{FINDINGS[0].statements[0].neither}")
    assert "Not shown" in said(FINDINGS[0], 1, record, some="pc")
    assert said(FINDINGS[0], 1, record, some="dp").startswith(f"**{FINDINGS[0].statements[1].neither}")
    moved = support.record("query", "digits10", "some", 0, [Metric("relative_change", 0.3, 200, "digits10", "conv13")])
    assert "something is wrong" in said(FINDINGS[0], 0, moved, some="pc")


def pointing(own: float, untrained: list[float], centre: float, chance: float = 8.0):
    named = {"combined": own, "centre": centre} | {f"untrained-{draw}": value for draw, value in enumerate(untrained)}
    metrics = [Metric("pointing_pct", value, 100, "digits10", condition) for condition, value in named.items()]
    metrics += [Metric("pointing_chance_pct", chance, 100, "digits10", "combined")]
    metrics += [Metric("pointing_pct", 99.0, 100, "digits-masked", "combined")]  # of another dataset
    return support.record("segmentation", "digits10", "vgg-att-pc", 0, metrics)


def test_untrained_networks_are_compared_by_their_draws():
    steady, wild = [20, 21, 22, 20, 21, 22, 20, 21], [2, 60, 3, 50, 1, 2, 40, 3]
    finding = FINDINGS[2]
    assert said(finding, 0, pointing(60, steady, 30)).startswith(f"**{finding.statements[0].above}")
    assert said(finding, 0, pointing(60, wild, 30)).startswith(f"**{finding.statements[0].neither}")
    assert said(finding, 0, pointing(60, steady, 30, chance=40)).startswith(f"**{finding.statements[0].below}")
    assert said(finding, 1, pointing(60, steady, 30)).startswith(f"**{finding.statements[1].above}")
    assert said(finding, 1, pointing(55, wild, 30)).startswith(f"**{finding.statements[1].neither}")
    assert said(finding, 2, pointing(10, steady, 40)).startswith(f"**{finding.statements[2].below}")


def attacked(weak: float, strong: float, failed: int = 0):
    values = [("fgsm_accuracy_pct", 90, "eps=2"), ("robust_accuracy_pct", 10, "eps=2")]
    values += [("fgsm_accuracy_pct", weak, "eps=16"), ("robust_accuracy_pct", strong, "eps=16")]
    values += [("failed_checks", failed, "")]
    metrics = [Metric(name, value, 40, "digits10", condition) for name, value, condition in values]
    return support.record("robustness", "digits10", "vgg", 0, metrics)


def test_attacks_are_compared_at_the_largest_norm():
    finding = FINDINGS[3]
    assert said(finding, 0, attacked(70, 50)).startswith(f"**{finding.statements[0].above}")
    assert said(finding, 0, attacked(70, 70)).startswith(f"**{finding.statements[0].neither}")
    assert said(finding, 1, attacked(70, 70)).startswith(f"**{finding.statements[1].neither}")
    assert said(finding, 1, attacked(70, 70, 2)).startswith(f"**{finding.statements[1].above}")


def test_maps_of_other_seeds_and_of_the_centre():
    def agreement(value):
        metrics = [Metric(f"other_{name}_correlation", each, 100, "digits10", "conv13") for name, each in value.items()]
        return support.record("sanity", "digits10", "vgg-att-pc", 0, metrics)

    for seed, sentence in ((0.8, "above"), (0.35, "neither"), (0.1, "below")):
        expected = getattr(FINDINGS[6].statements[0], sentence)
        assert said(FINDINGS[6], 0, agreement({"seed": seed, "image": 0.3})).startswith(f"**{expected}")

    def road(own, n):
        metrics = [Metric("road_pct", own, n, "digits10", "combined"), Metric("road_pct", 20, n, "digits10", "centre")]
        return support.record("faithfulness", "digits10", "vgg-att-pc", 0, metrics)

    assert said(FINDINGS[5], 0, road(50, 1000)).startswith(f"**{FINDINGS[5].statements[0].above}")
    assert said(FINDINGS[5], 0, road(50, 30)).startswith(f"**{FINDINGS[5].statements[0].neither}")
    assert said(FINDINGS[5], 0, road(-50, 1000)).startswith(f"**{FINDINGS[5].statements[0].below}")


def test_page_names_what_is_missing_and_how_to_see_the_numbers():
    page = findings_page(Records({"causal": [causal(90, 50)]}, {}), "mine", False, {"causal": 3}, "snakemake")
    assert page.startswith("# Findings of scale mine\n") and "Images are stand-ins" in page
    assert "Missing or failed records: 3 of `causal`." in page and "`snakemake causal`" in page
    assert "stand-ins" not in findings_page(Records({}, {}), "paper", True, {}, "snakemake")


def test_command_counts_the_records_that_a_configuration_lacks(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["findings"]) == 0
    page = (tmp_path / "results" / "demo" / "findings.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == "results/demo/findings.md"
    assert re.search(r"Missing or failed records: \d+ of `causal`", page)
    assert page.count("Not shown") == sum(len(finding.statements) for finding in FINDINGS)


def test_documented_page_says_what_the_template_can_say():
    page = DOCS.read_text(encoding="utf-8")
    sentences = {s for f in FINDINGS for each in f.statements for s in (each.above, each.below, each.neither)}
    found = re.findall(r"^\* \*\*(.*?)\*\* ", page, re.MULTILINE)
    assert found and set(found) <= sentences
    assert re.findall(r"^## \d+\. (.*)$", page, re.MULTILINE) == [finding.question for finding in FINDINGS]
    assert set(STAGES) == {"query", "causal", "segmentation", "robustness", "finegrained", "faithfulness", "sanity"}
