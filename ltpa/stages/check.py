"""The checks of a scale's own results: did every network learn, does attention attend, what does a query change."""

import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.checks import Check
from ltpa.core.errors import LtpaError
from ltpa.core.files import write_text
from ltpa.core.learned import outcomes
from ltpa.core.records import Record, metric_value, read_record
from ltpa.core.text import markdown_text
from ltpa.protocols.registry import find
from ltpa.tables.spec import CheckSpec

SPEC = CheckSpec


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
        elif stage == "patches":
            checks += _patches(spec, subject, variant, good)
        elif stage in spec.protocols:
            protocol = find(stage, spec.files.get(stage, ""))
            others = {name: records for (of, on, name), records in groups.items() if (of, on) == (stage, dataset)}
            checks += protocol.checks(spec.protocols[stage], subject, good, others)
    return checks


def _failures(stage: str, subject: str, group: Sequence[Record]) -> Iterator[Check]:
    check = "learns" if stage == "train" else "runs"
    for record in group:
        if record.status != "ok":
            yield Check(check, f"{subject}, {stage} seed {record.seed}", None, "a result", False, record.reason)


def _learns(spec: CheckSpec, subject: str, group: Sequence[Record]) -> Check:
    """The worst seed decides."""
    for record in group:
        metric_value(record, "chance_error_pct")
        metric_value(record, "test_error_pct")
    found = [outcome for record in group for outcome in outcomes(record)]
    worst = max(found, key=lambda outcome: outcome.share)
    limit = spec.max_error_of_chance[worst.learning]
    listed = ", ".join(f"{outcome.error_pct:.1f}" for outcome in found)
    shares = f"guessing {worst.chance_pct:.1f} %; worst/guessing {worst.share:.2f} (seed {worst.seed})"
    detail = f"test error {listed} %; {shares}"
    seeds = tuple(
        {"seed": outcome.seed, "error_pct": outcome.error_pct, "learned": not outcome.failure(spec.max_error_of_chance)}
        for outcome in found
    )
    return Check("learns", subject, worst.share, f"≤ {limit:g}", worst.share <= limit, detail, seeds)


def _patches(spec: CheckSpec, subject: str, source: str, group: Sequence[Record]) -> Iterator[Check]:
    """One check per limit declared for the source, of the mean over seeds; statistics are those of the test split."""
    for statistic, (low, high) in spec.patch_limits.get(source, {}).items():
        values = [metric_value(record, "patch_statistic", f"{record.dataset}/test", statistic) for record in group]
        mean = sum(values) / len(values)
        listed = ", ".join(f"{value:.3g}" for value in values)
        limit = f"{low:g} to {high:g}"
        yield Check("patches", subject, mean, limit, low <= mean <= high, f"{statistic} {listed}; mean {mean:.3g}")


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
            check.detail,
        ]
        for check in checks
    ]
    rows = [[cell if column == 0 else markdown_text(cell) for column, cell in enumerate(row)] for row in rows]
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
        "- patches: a statistic of the test images' patch boxes, mean over seeds, within the source's limits.",
        *(f"- {line}" for name in spec.protocols for line in find(name, spec.files.get(name, "")).about_checks),
    ]
    return "\n\n".join([f"# Checks of scale {spec.scale}", summary, table, "\n".join(legend)]) + "\n"
