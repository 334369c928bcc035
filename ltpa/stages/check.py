"""The checks of a scale's own results: did every network learn, does attention attend, what does a query change."""

import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltpa.core.errors import LtpaError
from ltpa.core.files import write_text
from ltpa.core.records import Record, read_record
from ltpa.tables.spec import CheckSpec

_COMBINED = "combined"


SPEC = CheckSpec


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: `value` (None where there is nothing to measure) against `limit`, and in words what was found."""

    check: str
    subject: str
    value: float | None
    limit: str
    passed: bool
    detail: str


def run(spec: CheckSpec, results: Path, records: Sequence[Path]) -> None:
    """Write `checks.json` and `checks.md` below `results`, print what failed on stderr, and raise if anything did.

    Raises:
        RecordError: a record is unreadable or edited.
        LtpaError: there are no training records, or a check failed.
    """
    checks = examine(spec, [read_record(path) for path in records])
    if not any(check.check == "learns" for check in checks):
        raise LtpaError(f"{results}: no training records to check; pass them with --records")
    failed = [check for check in checks if not check.passed]
    content = {"scale": spec.scale, "passed": not failed, "checks": [dataclasses.asdict(check) for check in checks]}
    write_text(Path(results) / "checks.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(Path(results) / "checks.md", _markdown(spec, checks))
    for check in failed:
        print(f"FAILED {_line(check)}", file=sys.stderr)
    if failed:
        more = f" (and {len(failed) - 1} more, printed above)" if len(failed) > 1 else ""
        raise LtpaError(f"{len(failed)} of {len(checks)} checks failed: {_line(failed[0])}{more}")


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
            checks += _two_streams(spec, subject, good)
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
    """On the primary dataset the worst seed decides, elsewhere the mean over seeds."""
    errors = [_one(record, "test_error_pct") for record in group]
    chance = _one(group[0], "chance_error_pct")
    if group[0].dataset == spec.primary:
        name, error, limit = "worst", max(errors), spec.max_error_of_chance
    else:
        name, error, limit = "mean", sum(errors) / len(errors), spec.max_error_of_chance_elsewhere
    share = error / chance
    listed = ", ".join(f"{error:.1f}" for error in errors)
    detail = f"test error {listed} %; guessing {chance:.1f} %; {name}/guessing {share:.2f}"
    return Check("learns", subject, share, f"≤ {limit:g}", share <= limit, detail)


def _attends(spec: CheckSpec, subject: str, group: Sequence[Record]) -> Iterator[Check]:
    """One check per dataset with masks."""
    levels: dict[str, list[str]] = defaultdict(list)
    for metric in group[0].metrics:
        if metric.name == "pointing_pct":
            levels[metric.target].append(metric.condition)
    if not levels:
        yield Check("attends", subject, None, "a hit rate", False, "the record has no pointing_pct")
    for target, conditions in levels.items():
        level = _COMBINED if _COMBINED in conditions else conditions[-1]
        hits = [_one(record, "pointing_pct", target, level) for record in group]
        chance = [_one(record, "pointing_chance_pct", target, level) for record in group]
        ratio = sum(hits) / sum(chance)
        yield Check(
            "attends",
            f"{subject}, {target or group[0].dataset}",
            ratio,
            f"≥ {spec.min_pointing_over_chance:g}",
            ratio >= spec.min_pointing_over_chance,
            f"{level} map peaks on the object in {sum(hits) / len(hits):.1f} % of images; "
            f"a random pixel in {sum(chance) / len(chance):.1f} %; ratio {ratio:.2f}",
        )


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
        values = [_one(record, "patch_statistic", f"{record.dataset}/test", statistic) for record in group]
        mean = sum(values) / len(values)
        listed = ", ".join(f"{value:.3g}" for value in values)
        limit = f"{low:g} to {high:g}"
        yield Check("patches", subject, mean, limit, low <= mean <= high, f"{statistic} {listed}; mean {mean:.3g}")


def _two_streams(spec: CheckSpec, subject: str, group: Sequence[Record]) -> Iterator[Check]:
    """The joint prediction against guessing."""
    errors = [100 - _one(record, "mean_n_accuracy_pct", condition="joint") for record in group]
    chance = 100 - _one(group[0], "chance_accuracy_pct")
    share, limit = sum(errors) / len(errors) / chance, spec.max_twostream_error_of_chance
    detail = f"test error {', '.join(f'{error:.1f}' for error in errors)} %; guessing {chance:.1f} %; ratio {share:.2f}"
    yield Check("learns", subject, share, f"≤ {limit:g}", share <= limit, detail)


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
    return sum(_one(record, name, condition=condition) for record in group) / len(group)


def _one(record: Record, name: str, target: str | None = None, condition: str | None = None) -> float:
    """The record's value of a metric; `target` and `condition` select among several.

    Raises:
        LtpaError: the record lacks it.
    """
    for metric in record.metrics:
        if metric.name == name and target in (None, metric.target) and condition in (None, metric.condition):
            return metric.value
    where = f"{record.stage} {record.dataset} {record.variant} seed {record.seed}"
    raise LtpaError(f"the record of {where} has no {name}; delete it and run again to remake it")


def _line(check: Check) -> str:
    return f"{check.check}: {check.subject}: {check.detail} (must be {check.limit})"


def _markdown(spec: CheckSpec, checks: Sequence[Check]) -> str:
    from tabulate import tabulate

    rows = [
        [
            "pass" if check.passed else "**FAIL**",
            check.check,
            check.subject,
            "–" if check.value is None else f"{check.value:.3g}",
            check.limit,
            check.detail.replace("|", "\\|"),
        ]
        for check in checks
    ]
    failed = sum(not check.passed for check in checks)
    summary = f"{len(checks)} checks, {failed} failed." if failed else f"All {len(checks)} checks passed."
    table = tabulate(rows, ["", "check", "of", "value", "must be", "found"], tablefmt="pipe", disable_numparse=True)
    seeds = f"the worst seed on {spec.primary}, elsewhere the mean" if spec.primary else "the mean over seeds"
    legend = [
        f"- learns: test error as a share of that of guessing; {seeds}.",
        "- local beats global: accuracy of the local stream less the global one's, on patches that hold the part.",
        "- local beats control: the same, less that of the local stream of a network trained on other patches.",
        "- attends: how much oftener than a random pixel the peak of the map lies on the object, over seeds.",
        "- patches: a statistic of the test images' patch boxes, mean over seeds, within the source's limits.",
        "- query: change of the maps under another image's global vector; exactly none for pc, some for dp.",
    ]
    return "\n\n".join([f"# Checks of scale {spec.scale}", summary, table, "\n".join(legend)]) + "\n"
