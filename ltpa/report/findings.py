"""What a run found, in sentences that its numbers choose: `findings.md` (`ltpa findings`).

A finding is a question with statements. A statement takes one difference of every network that was measured, with an
interval, and has a sentence for each outcome: above zero, below it, or neither in most networks. So a page says no more
than the records behind it do; where there are none, it says that.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ltpa.core.records import Metric, Record, epsilon_of

SAME = 1e-4  # change of a map that counts as none
MARGIN = 0.1  # of rank correlations, as in the check of randomised parameters
_T7 = 2.365  # 97.5 % point of Student's t with 7 degrees of freedom: 8 draws of untrained weights
_Z = 1.96


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference of one network.

    Attributes:
        value: in the statement's unit.
        half: half the width of its interval.
        n: images behind it.
    """

    value: float
    half: float
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below zero, else 0."""
        return (self.value - self.half > 0) - (self.value + self.half < 0)


@dataclasses.dataclass(frozen=True)
class Records:
    """What statements draw on.

    Attributes:
        by_stage: the records of networks that were trained and measured.
        compatibility: the scores of each variant whose attention a global vector decides on (`pc`, `dp`, `tanh`).
    """

    by_stage: Mapping[str, Sequence[Record]]
    compatibility: Mapping[str, str]

    def of(self, stage: str) -> Sequence[Record]:
        """Those of one stage."""
        return self.by_stage.get(stage, ())


@dataclasses.dataclass(frozen=True)
class Statement:
    """A quantity, and what it means.

    Attributes:
        stage: whose records it is measured in.
        quantity: the difference in words.
        unit: of the difference; empty for none.
        differences: finds it in the records, one for each network, or for each of its levels.
        above, below, neither: the sentence where most lie above zero, below it, or neither.
    """

    stage: str
    quantity: str
    unit: str
    differences: Callable[[Records], Iterable[Difference]]
    above: str
    below: str
    neither: str

    def text(self, records: Records) -> str:
        """The sentence that the records choose, and the numbers that chose it."""
        found = list(self.differences(records))
        if not found:
            return f"*Not shown: this run has no records of `{self.stage}` that say so ({self.quantity}).*"
        signs = [each.sign for each in found]
        above, below, most = signs.count(1), signs.count(-1), len(signs) / 2
        sentence = self.above if above > most else self.below if below > most else self.neither
        values = [each.value for each in found]
        counts = sorted({each.n for each in found})
        images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        unit = f" {self.unit}" if self.unit else ""
        middle, low, high = (_number(each) for each in (statistics.median(values), min(values), max(values)))
        return (
            f"**{sentence}** {self.quantity[0].upper()}{self.quantity[1:]}: median {middle}, from {low} to "
            f"{high}{unit}; of {len(found)} measured, {above} lie above zero and {below} below; {images} images each."
        )


@dataclasses.dataclass(frozen=True)
class Finding:
    """A question, its statements, what they do not say, and the table that shows the numbers."""

    question: str
    statements: Sequence[Statement]
    limits: str
    table: str


def findings_page(records: Records, scale: str, comparable: bool, missing: Mapping[str, int], command: str) -> str:
    """The page in Markdown.

    Args:
        comparable: whether the scale's numbers can stand beside published ones.
        missing: by stage how many planned records are not there, or are of failed trainings.
        command: what the tables are made with, without their names.
    """
    lines = [
        f"# Findings of scale {scale}",
        "",
        "Written by `ltpa findings` from the records of one run; no sentence is by hand. Each number is of one network "
        "(a variant and a seed, or one level of its attention), and counts as above or below zero where its 95 % "
        "interval over test images does. Shares of the same images are taken as independent, which makes intervals "
        "too wide rather than too narrow. Networks share images, so the counts are no test of their own.",
    ]
    if not comparable:
        lines += ["", "Images are stand-ins and networks small: this is about what was measured here, not the papers."]
    for number, finding in enumerate(FINDINGS, start=1):
        stages = dict.fromkeys(statement.stage for statement in finding.statements)
        gaps = [f"{missing[stage]} of `{stage}`" for stage in stages if missing.get(stage)]
        lines += ["", f"## {number}. {finding.question}", ""]
        lines += [f"* {statement.text(records)}" for statement in finding.statements]
        lines += ["", *([f"Missing or failed records: {', '.join(gaps)}."] if gaps else [])]
        lines += [f"{finding.limits} Numbers: `{command} {finding.table}`."]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2g}" if value else "0"


def _metrics(record: Record) -> dict[tuple[str, str], Metric]:
    """The metrics of the network's own dataset, by name and condition."""
    return {(m.name, m.condition): m for m in record.metrics if m.target in ("", record.dataset)}


def of_shares(first: Metric, second: Metric) -> Difference:
    """Difference of two shares (%) of images, each share moved a little to the middle, so that 0 % of 40 can err."""
    variance = 0.0
    for each in (first, second):
        share = (each.value / 100 * each.n + 1) / (each.n + 2)
        variance += share * (1 - share) / each.n
    return Difference(first.value - second.value, 100 * _Z * variance**0.5, min(first.n, second.n))


def _pair(
    stage: str, first: tuple[str, str], second: tuple[str, str], compare: Callable[[Metric, Metric], Difference]
) -> Callable[[Records], Iterator[Difference]]:
    def differences(records: Records) -> Iterator[Difference]:
        for record in records.of(stage):
            found = _metrics(record)
            if first in found and second in found:
                yield compare(found[first], found[second])

    return differences


def _map_change(compatibility: str) -> Callable[[Records], Iterator[Difference]]:
    def differences(records: Records) -> Iterator[Difference]:
        for record in records.of("query"):
            if records.compatibility.get(record.variant) == compatibility:
                for metric in record.metrics:
                    if metric.name == "relative_change":
                        yield Difference(metric.value, SAME, metric.n)

    return differences


def _untrained(record: Record) -> list[Metric]:
    return [
        m for (name, condition), m in _metrics(record).items() if name == "pointing_pct" and "untrained-" in condition
    ]


def _untrained_and_chance(records: Records) -> Iterator[Difference]:
    for record in records.of("segmentation"):
        draws, chance = _untrained(record), _metrics(record).get(("pointing_chance_pct", "combined"))
        if len(draws) > 1 and chance is not None:
            values = [draw.value for draw in draws]
            half = _T7 * statistics.stdev(values) / len(values) ** 0.5
            yield Difference(statistics.mean(values) - chance.value, half, draws[0].n)


def _trained_and_untrained(records: Records) -> Iterator[Difference]:
    for record in records.of("segmentation"):
        draws, own = _untrained(record), _metrics(record).get(("pointing_pct", "combined"))
        if draws and own is not None:
            yield of_shares(own, max(draws, key=lambda draw: draw.value))


def _weak_and_strong(records: Records) -> Iterator[Difference]:
    for record in records.of("robustness"):
        found = _metrics(record)
        norms = [condition for name, condition in found if name == "robust_accuracy_pct"]
        norm = max(norms, key=epsilon_of, default="")
        weak, strong = found.get(("fgsm_accuracy_pct", norm)), found.get(("robust_accuracy_pct", norm))
        if weak is not None and strong is not None:  # the images that stand under all are among those of one attack
            gap = weak.value - strong.value
            share = (gap / 100 * weak.n + 1) / (weak.n + 2)
            yield Difference(gap, 100 * _Z * (share * (1 - share) / weak.n) ** 0.5, weak.n)


def _failed_checks(records: Records) -> Iterator[Difference]:
    for record in records.of("robustness"):
        for metric in record.metrics:
            if metric.name == "failed_checks":
                yield Difference(metric.value, 0.5, metric.n)


def _own_and_centre(records: Records) -> Iterator[Difference]:
    """ROAD lies between -1 and 1 for each image, which bounds its spread."""
    for record in records.of("faithfulness"):
        found = _metrics(record)
        own, centre = found.get(("road_pct", "combined")), found.get(("road_pct", "centre"))
        if own is not None and centre is not None:
            bounds = sum(1 - (each.value / 100) ** 2 for each in (own, centre))
            yield Difference(own.value - centre.value, 100 * _Z * (bounds / own.n) ** 0.5, own.n)


def _seeds_and_images(records: Records) -> Iterator[Difference]:
    for record in records.of("sanity"):
        found = _metrics(record)
        for (name, level), metric in found.items():
            if name == "other_seed_correlation" and ("other_image_correlation", level) in found:
                other = found["other_image_correlation", level]
                yield Difference(metric.value - other.value, MARGIN, metric.n)


FINDINGS = (
    Finding(
        "Does the global vector decide where attention looks?",
        (
            Statement(
                "query",
                "relative change of maps with pc scores under another image's global vector",
                "",
                _map_change("pc"),
                "With pc scores the global vector moves the map, which their algebra excludes: something is wrong.",
                "",
                "With pc scores it does not: another image's global vector leaves the map as it is.",
            ),
            Statement(
                "query",
                "relative change of maps with dp scores",
                "",
                _map_change("dp"),
                "With dp scores it does.",
                "",
                "With dp scores it does not either, in this run.",
            ),
        ),
        "It is a property of the equations that a run can only confirm.",
        "query",
    ),
    Finding(
        "Is the map used, and is it needed?",
        (
            Statement(
                "causal",
                "accuracy with the own map minus that with a uniform one",
                "points",
                _pair("causal", ("own_accuracy_pct", ""), ("accuracy_pct", "uniform all"), of_shares),
                "The map is used: most networks lose accuracy when a uniform map takes its place.",
                "Most networks gain accuracy when a uniform map takes the place of their own.",
                "That the map is used is not shown: most networks cannot be told from themselves with a uniform map.",
            ),
            Statement(
                "causal",
                "accuracy of a readout fitted anew under own maps minus that under uniform ones",
                "points",
                _pair("causal", ("refit_accuracy_pct", "own"), ("refit_accuracy_pct", "uniform all"), of_shares),
                "It is needed: in most networks a new readout of plain averages stays behind.",
                "It does harm: in most networks a new readout of plain averages is better.",
                "That it is needed is not shown: in most networks a new readout of plain averages cannot be told from "
                "one of the map's.",
            ),
        ),
        "A drop alone only says that the classifier was trained with the map.",
        "causal",
    ),
    Finding(
        "Does a network have to be trained to point at the object?",
        (
            Statement(
                "segmentation",
                "pointing of untrained weights, mean of their draws, minus that of a random pixel",
                "points",
                _untrained_and_chance,
                "No: most networks point at the object more often than a random pixel before any training.",
                "Before training most networks point at the object less often than a random pixel.",
                "Before training most networks cannot be told from a random pixel.",
            ),
            Statement(
                "segmentation",
                "pointing after training minus that of the best untrained draw",
                "points",
                _trained_and_untrained,
                "Trained, most point better than the best of their untrained draws.",
                "Trained, most point worse than the best of their untrained draws.",
                "Trained, most cannot be told from the best of their untrained draws.",
            ),
            Statement(
                "segmentation",
                "pointing after training minus that of a Gaussian in the image's centre",
                "points",
                _pair("segmentation", ("pointing_pct", "combined"), ("pointing_pct", "centre"), of_shares),
                "Most point better than the centre of the image.",
                "Most point worse than the centre of the image.",
                "Most cannot be told from the centre of the image.",
            ),
        ),
        "Maps that point at the object need not be what decides.",
        "figure9",
    ),
    Finding(
        "Is accuracy under attack what one step of the gradient says?",
        (
            Statement(
                "robustness",
                "accuracy under FGSM minus that under all attacks run, at the largest norm",
                "points",
                _weak_and_strong,
                "No: most networks stand under one step where stronger attacks of the same size succeed.",
                "",
                "For most networks these images do not show that stronger attacks succeed more often.",
            ),
            Statement(
                "robustness",
                "number of failed checks",
                "",
                _failed_checks,
                "There are signs that attacks were fooled rather than resisted, so the accuracy is too high.",
                "",
                "No sign that attacks were fooled rather than resisted.",
            ),
        ),
        "An attack bounds accuracy from above; a stronger one may still lower it.",
        "robustness",
    ),
    Finding(
        "Do parts help to tell fine classes apart?",
        (
            Statement(
                "finegrained",
                "accuracy of the local stream minus that of the global one, mean over patches",
                "points",
                _pair("finegrained", ("mean_n_accuracy_pct", "local"), ("mean_n_accuracy_pct", "global"), of_shares),
                "The local stream is better than the global one in most networks.",
                "The local stream is worse than the global one in most networks.",
                "The local stream cannot be told from the global one in most networks.",
            ),
            Statement(
                "finegrained",
                "accuracy of both streams minus that of the global one",
                "points",
                _pair("finegrained", ("mean_n_accuracy_pct", "joint"), ("mean_n_accuracy_pct", "global"), of_shares),
                "Both together are better than the global stream in most networks.",
                "Both together are worse than the global stream in most networks.",
                "Both together cannot be told from the global stream in most networks.",
            ),
            Statement(
                "finegrained",
                "accuracy of the local stream on patches that hold the part minus that on patches that do not",
                "points",
                _pair(
                    "finegrained", ("part_held_accuracy_pct", "local"), ("part_missed_accuracy_pct", "local"), of_shares
                ),
                "Patches that hold the part are classified better than those that miss it.",
                "Patches that hold the part are classified worse than those that miss it.",
                "Patches that hold the part cannot be told from those that miss it.",
            ),
        ),
        "Controls with random and whole-image patches are among the networks.",
        "thesis_table5_1",
    ),
    Finding(
        "Do the pixels that the map marks decide?",
        (
            Statement(
                "faithfulness",
                "ROAD of the combined map minus that of a Gaussian in the centre",
                "points",
                _own_and_centre,
                "More than those in the image's centre.",
                "Less than those in the image's centre.",
                "These images cannot tell the map from the image's centre.",
            ),
        ),
        "The interval is the widest that the images' number allows.",
        "faithfulness",
    ),
    Finding(
        "Does another seed find the same map?",
        (
            Statement(
                "sanity",
                "rank correlation with another seed's map minus that with another image's map",
                "",
                _seeds_and_images,
                f"Most levels agree with another seed's by more than {MARGIN} beyond what all maps share.",
                f"Most levels agree with another seed's less, by more than {MARGIN}, than with another image's.",
                f"Most levels do not: their agreement is within {MARGIN} of what all maps share.",
            ),
        ),
        "A map that another seed does not find explains that run, not the task.",
        "sanity",
    ),
)
STAGES = tuple(dict.fromkeys(statement.stage for finding in FINDINGS for statement in finding.statements))
