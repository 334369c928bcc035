"""The checks of a scale's own results: did every network learn, does attention attend, what does a query change."""

import dataclasses
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.errors import LtpaError
from ltpa.core.files import write_text
from ltpa.core.learned import outcomes
from ltpa.core.records import Record, metric_value, read_record
from ltpa.tables.spec import CheckSpec

_LEVEL = "combined"
_CENTRE, _UNTRAINED = "centre", "untrained-"
_STANDARD_ERRORS = 2.0  # by which a hit rate over so many images must exceed that of a random pixel
_LIKELY = 0.99  # with a single seed: the share of further untrained networks that stay below what must be beaten

SPEC = CheckSpec


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: `value` (None where there is nothing to measure) against `limit`, and in words what was found.

    `seeds` gives what was found of each seed, where seeds are judged one by one. A check that is not `required` and
    does not pass is reported as not shown; it fails no run.
    """

    check: str
    subject: str
    value: float | None
    limit: str
    passed: bool
    detail: str
    seeds: tuple[dict[str, Any], ...] = ()
    required: bool = True

    @property
    def fails(self) -> bool:
        """Whether the run fails for it."""
        return self.required and not self.passed


def run(spec: CheckSpec, results: Path, records: Sequence[Path]) -> None:
    """Write `checks.json` and `checks.md` below `results`, print what failed on stderr, and raise where that is asked.

    Raises:
        RecordError: a record is unreadable or edited.
        LtpaError: there are no training records, or a check failed and the checks are `strict`.
    """
    checks, files = contents(spec, results, records)
    for path, text in files.items():
        write_text(path, text)
    failed = [check for check in checks if check.fails]
    for check in failed:
        print(f"{'FAILED' if spec.strict else 'WARNING'} {_line(check)}", file=sys.stderr)
    if failed and spec.strict:
        more = f" (and {len(failed) - 1} more, printed above)" if len(failed) > 1 else ""
        raise LtpaError(
            f"{len(failed)} of {len(checks)} checks failed: {_line(failed[0])}{more}; with protocols.checks.strict: "
            "false they are warnings"
        )


def contents(spec: CheckSpec, results: Path, records: Sequence[Path]) -> tuple[list[Check], dict[Path, str]]:
    """All checks, and the text of `checks.json` and `checks.md` by path.

    Raises:
        RecordError: a record is unreadable or edited.
        LtpaError: there are no training records.
    """
    checks = examine(spec, [read_record(path) for path in records])
    if not any(check.check == "learns" for check in checks):
        raise LtpaError(f"{results}: no training records to check; pass them with --records")
    passed = not any(check.fails for check in checks)
    content = {
        "scale": spec.scale,
        "strict": spec.strict,
        "passed": passed,
        "checks": [dataclasses.asdict(check) for check in checks],
        "warnings": [] if spec.strict else [_line(check) for check in checks if check.fails],
    }
    plain = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return checks, {
        Path(results) / layout.CHECKS_JSON: plain,
        Path(results) / layout.CHECKS: _markdown(spec, checks),
    }


def examine(spec: CheckSpec, records: Sequence[Record]) -> list[Check]:
    """All checks that the records allow, grouped by stage, dataset and variant in the order of the records."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.stage, record.dataset, record.variant].append(record)
    checks: list[Check] = []
    for (stage, dataset, variant), group in groups.items():
        subject = f"{variant} on {dataset}"
        checks += _failures(stage, subject, group)
        good = [record for record in group if record.status == "ok"]
        if not good:
            continue
        if stage == "train":
            checks.append(_learns(spec, subject, good))
        elif stage == "segmentation" and variant in spec.compatibility:
            checks += _attends(spec, subject, good)
        elif stage == "query" and variant in spec.compatibility:
            checks.append(_query(spec, subject, spec.compatibility[variant], good))
        elif stage == "finegrained":
            checks.append(_learns(spec, subject, good))
            controls = spec.local_beats.get(dataset, {}).get(variant)
            if controls is not None:
                checks.append(_beats_global(subject, good))
                others = {name: groups.get((stage, dataset, name), []) for name in controls}
                checks += [_beats_control(subject, good, name, records) for name, records in others.items()]
        elif stage == "patches":
            checks += _patches(spec, subject, variant, good)
    return checks


def _failures(stage: str, subject: str, group: Sequence[Record]) -> Iterator[Check]:
    check = "learns" if stage == "train" else "runs"
    for record in group:
        if record.status != "ok":
            yield Check(check, f"{subject}, {stage} seed {record.seed}", None, "a result", False, record.reason)


def _learns(spec: CheckSpec, subject: str, group: Sequence[Record]) -> Check:
    """The worst seed decides."""
    for record in group:
        metric_value(record, "chance_error_pct" if record.stage == "train" else "chance_accuracy_pct")
        metric_value(record, "test_error_pct" if record.stage == "train" else "mean_n_accuracy_pct")
    found = [outcome for record in group for outcome in outcomes(record)]
    worst = max(found, key=lambda outcome: outcome.share)
    limit = spec.max_error_of_chance[worst.stage]
    listed = ", ".join(f"{outcome.error_pct:.1f}" for outcome in found)
    shares = f"guessing {worst.chance_pct:.1f} %; worst/guessing {worst.share:.2f} (seed {worst.seed})"
    detail = f"test error {listed} %; {shares}"
    seeds = tuple(
        {"seed": outcome.seed, "error_pct": outcome.error_pct, "learned": not outcome.failure(spec.max_error_of_chance)}
        for outcome in found
    )
    return Check("learns", subject, worst.share, f"≤ {limit:g}", worst.share <= limit, detail, seeds)


def _attends(spec: CheckSpec, subject: str, group: Sequence[Record]) -> Iterator[Check]:
    """One check per dataset with masks."""
    targets = dict.fromkeys(metric.target for metric in group[0].metrics if metric.name == "pointing_pct")
    if not targets:
        yield Check("attends", subject, None, "a hit rate", False, "the record has no pointing_pct")
    for target in targets:
        yield _attends_on(spec, f"{subject}, {target or group[0].dataset}", group, target)


def _attends_on(spec: CheckSpec, subject: str, group: Sequence[Record], target: str) -> Check:
    """Each seed's hit rate of the combined map, in percent, against those of maps that nothing was learnt for."""
    hits = [metric_value(record, "pointing_pct", target, _LEVEL) for record in group]
    draws = [
        metric.value
        for record in group
        for metric in record.metrics
        if metric.name == "pointing_pct" and metric.target == target and metric.condition.startswith(_UNTRAINED)
    ]
    chance = metric_value(group[0], "pointing_chance_pct", target, _LEVEL)
    bars = {
        "random": chance + _STANDARD_ERRORS * _standard_error(group[0], target, chance),
        "untrained": _highest_untrained(draws, len(group)),
        "centre": metric_value(group[0], "pointing_pct", target, _CENTRE),
    }
    beaten = [[name for name, bar in bars.items() if hit > bar] for hit in hits]
    middle = statistics.median(hits)
    judged = {"random": min(hits), "untrained": middle, "centre": middle}
    missed = [name for name in spec.attention_beats if judged[name] <= bars[name]]
    listed = "; ".join(
        f"seed {record.seed} {hit:.1f} % (beats {', '.join(names) or 'nothing'})"
        for record, hit, names in zip(group, hits, beaten, strict=True)
    )
    detail = (
        f"{_LEVEL} map peaks on the object: {listed}; a random pixel {chance:.1f} %, untrained "
        f"{bars['untrained']:.1f} % ({len(draws)} draws, {min(draws):.1f} to {max(draws):.1f} %), the centre "
        f"{bars['centre']:.1f} %"
    )
    if missed:
        detail += f"; not shown: {' and '.join(_MISSED[name] for name in missed)}"
    limits = {"random": "each seed > {:.1f}", "untrained": "median > {:.1f}", "centre": "median > {:.1f} (centre)"}
    limit = ", ".join(limits[name].format(bars[name]) for name in spec.attention_beats) or "anything"
    seeds = tuple(
        {"seed": record.seed, "pointing_pct": hit, "beats": names}
        for record, hit, names in zip(group, hits, beaten, strict=True)
    )
    required = spec.must_attend is None or group[0].variant in spec.must_attend
    return Check("attends", subject, middle, limit, not missed, detail, seeds, required)


def _standard_error(record: Record, target: str, chance: float) -> float:
    """Of the hit rate of a random pixel, in percentage points, over as many images as the maps were scored on."""
    images = next(m.n for m in record.metrics if (m.name, m.target) == ("pointing_chance_pct", target))
    return (chance * (100 - chance) / images) ** 0.5


_MISSED = {
    "random": "that every seed clearly beats a random pixel",
    "untrained": "that the median seed beats the network untrained",
    "centre": "that the median seed beats the centre",
}


def _highest_untrained(draws: Sequence[float], seeds: int) -> float:
    """What a hit rate must exceed to be no matter of the architecture alone: the highest of the untrained draws.

    A ninth of all untrained networks is higher than eight others. The median of several seeds rarely is; a single seed
    must also exceed the limit below which 99 % of further draws stay (Student's t).
    """
    highest = max(draws)
    if seeds > 1:
        return highest
    from scipy.stats import t

    count = len(draws)
    spread = statistics.stdev(draws) * (1 + 1 / count) ** 0.5
    return max(highest, statistics.fmean(draws) + float(t.ppf(_LIKELY, count - 1)) * spread)


def _query(spec: CheckSpec, subject: str, compatibility: str, group: Sequence[Record]) -> Check:
    changes = [metric.value for record in group for metric in record.metrics if metric.name == "relative_change"]
    if not changes:
        return Check("query", subject, None, "a change", False, "the record has no relative_change")
    largest = max(changes)
    passed, limit = (
        (largest <= spec.query_pc_max, f"≤ {spec.query_pc_max:g}") if compatibility == "pc" else (largest > 0, "> 0")
    )
    detail = f"largest mean relative change of a {compatibility} map under another query {largest:.2g}"
    return Check("query", subject, largest, limit, passed, detail)


def _patches(spec: CheckSpec, subject: str, source: str, group: Sequence[Record]) -> Iterator[Check]:
    """One check per limit declared for the source, of the mean over seeds; statistics are those of the test split."""
    for statistic, (low, high) in spec.patch_limits.get(source, {}).items():
        values = [metric_value(record, "patch_statistic", f"{record.dataset}/test", statistic) for record in group]
        mean = sum(values) / len(values)
        listed = ", ".join(f"{value:.3g}" for value in values)
        limit = f"{low:g} to {high:g}"
        yield Check("patches", subject, mean, limit, low <= mean <= high, f"{statistic} {listed}; mean {mean:.3g}")


def _beats_global(subject: str, group: Sequence[Record]) -> Check:
    """The local stream against the global one of the same images, on patches that hold the part."""
    local, whole = (_mean(group, "part_held_accuracy_pct", readout) for readout in ("local", "global"))
    detail = (
        f"{_mean(group, 'part_held_pct'):.0f} % of patches hold the part; on these local {local:.1f} %, global "
        f"{whole:.1f} % of the same images"
    )
    return Check("local beats global", subject, local - whole, "> 0", local > whole, detail)


def _beats_control(subject: str, group: Sequence[Record], control: str, others: Sequence[Record]) -> Check:
    """The local stream against that of a control, each on those of its patches that hold the part."""
    subject = f"{subject} and {control}"
    good = [record for record in others if record.status == "ok"]
    if not good:
        return Check("local beats control", subject, None, "> 0", False, f"no result of {control}")
    found = []
    for records in (group, good):
        held, alone = (_mean(records, name, "local") for name in ("part_held_accuracy_pct", "mean_n_accuracy_pct"))
        found.append((held, f"{held:.1f} % (mean of all an image's patches {alone:.1f} %)"))
    (ours, ours_text), (theirs, theirs_text) = found
    detail = f"local stream on patches that hold the part {ours_text}; that of the control {theirs_text}"
    return Check("local beats control", subject, ours - theirs, "> 0", ours > theirs, detail)


def _mean(group: Sequence[Record], name: str, condition: str | None = None) -> float:
    return sum(metric_value(record, name, condition=condition) for record in group) / len(group)


def _line(check: Check) -> str:
    return f"{check.check}: {check.subject}: {check.detail} (must be {check.limit})"


def _markdown(spec: CheckSpec, checks: Sequence[Check]) -> str:
    from tabulate import tabulate

    failing = "**FAIL**" if spec.strict else "**warning**"
    rows = [
        [
            "pass" if check.passed else failing if check.fails else "not shown",
            check.check,
            check.subject,
            "–" if check.value is None else f"{check.value:.3g}",
            check.limit,
            check.detail.replace("|", "\\|"),
        ]
        for check in checks
    ]
    failed, missed = sum(check.fails for check in checks), sum(not (check.passed or check.fails) for check in checks)
    summary = f"{len(checks)} checks, {failed} failed." if failed else f"{len(checks)} checks, none failed."
    if failed and not spec.strict:
        summary += " These are warnings; with `protocols: {checks: {strict: true}}` the run would fail."
    if missed:
        summary += (
            f" Of {missed} networks on a set it is not shown that their attention attends; no run fails for these."
        )
    table = tabulate(rows, ["", "check", "of", "value", "must be", "found"], tablefmt="pipe", disable_numparse=True)
    legend = [
        "- learns: test error of the worst seed as a share of that of guessing.",
        "- local beats global: accuracy of the local stream less the global one's, on patches that hold the part.",
        "- local beats control: the same, less that of the local stream of a network trained on other patches.",
        "- attends: percentage of images in which the peak of the map lies on the object, median over seeds; beside it "
        "that of a random pixel, of the same network untrained, and of the centre of the image.",
        "- patches: a statistic of the test images' patch boxes, mean over seeds, within the source's limits.",
        "- query: change of the maps under another image's global vector; exactly none for pc, some for dp.",
    ]
    return "\n\n".join([f"# Checks of scale {spec.scale}", summary, table, "\n".join(legend)]) + "\n"
