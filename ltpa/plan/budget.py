"""What a configuration costs, table by table: jobs, downloads, disk and time of training, each from measured numbers.

Times come from finished trainings of the same results folder where there are any, else from a benchmark file
(`benchmarks/train.py --save FILE`): images per second of the variant, or of the measured one of its training routine
that is nearest in size, scaled by multiply-accumulates per image. A network with far less arithmetic than the measured
one takes longer than its share, so that nothing is known of it then. Where neither tells anything, a training is
counted as unknown, never guessed. Each time belongs to the device that it was measured on; times of several devices are
never added.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ltpa.core.errors import ConfigError, RecordError
from ltpa.core.records import read_record
from ltpa.core.specs import TrainSpec
from ltpa.core.text import duration_text, markdown_text
from ltpa.plan.plan import Plan, Run
from ltpa.plan.summary import views
from ltpa.plan.views import all_runs, table_manifests, table_runs, with_ancestors

_FLOAT_BYTES = 4
_SMALLEST_SHARE = 0.5  # of the measured network's multiply-accumulates


@dataclasses.dataclass(frozen=True)
class Facts:
    """Size of a network: multiply-accumulates of one image's forward pass, and scalars its file holds."""

    macs: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Training speed by variant: images per second, and the multiply-accumulates per image it was measured at.

    Attributes:
        device: what was measured.
        speeds: (images per second, multiply-accumulates) by variant.
        source: the file, and the command that wrote it.
    """

    device: str
    speeds: Mapping[str, tuple[float, int]]
    source: str

    @classmethod
    def read(cls, path: Path) -> "Throughput":
        """Read what `benchmarks/train.py --save` wrote.

        Raises:
            ConfigError: the file is missing or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            speeds = {name: (float(s["images_per_second"]), int(s["macs"])) for name, s in content["variants"].items()}
            return cls(str(content["device"]), speeds, f"{Path(path).name}, written by `{content['command']}`")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: no throughput file ({error}); make one: benchmarks/train.py --save") from error


@dataclasses.dataclass
class Cost:
    """What some runs cost.

    Attributes:
        seconds: of training, by device.
        unknown: trainings whose time nothing tells.
    """

    jobs: int = 0
    download_bytes: int = 0
    disk_bytes: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown: int = 0


class Budget:
    """Costs of the runs of one plan.

    Args:
        facts: the size of the network a training spec describes.
        throughput: measured speeds, or None.
    """

    def __init__(self, plan: Plan, facts: Callable[[TrainSpec], Facts], throughput: Throughput | None) -> None:
        self.plan, self.facts, self.throughput = plan, facts, throughput
        self.past = {run: _past(plan, run) for run in all_runs(plan) if run.stage == "train"}

    def of_table(self, table: str) -> Cost:
        """Everything a table needs when nothing is there yet: its runs, their networks and datasets."""
        runs = set(with_ancestors(self.plan, table_runs(self.plan, table)))
        manifests = {Path(path).parent.name for path in table_manifests(self.plan, table)}
        return self._cost(runs, manifests, views=2)

    def total(self) -> Cost:
        """Everything `all_tables` needs."""
        return self._cost(set(all_runs(self.plan)), set(self.plan.config.datasets), views(self.plan) + 1)

    def _cost(self, runs: set[Run], datasets: set[str], views: int) -> Cost:
        """`views` counts the jobs that show results, the target's own included."""
        for run in runs:
            datasets = datasets | {run.dataset}
            if run.stage not in ("train", "patches"):
                datasets |= {target.name for target in self.plan.targets(run.stage, run.dataset, run.variant)}
        cost = Cost(jobs=views + len(datasets) + len(runs) * len(self.plan.config.seeds))
        cost.download_bytes = sum(_download_bytes(self.plan.datasets[name]) for name in datasets)
        cost.disk_bytes = cost.download_bytes + sum(_array_bytes(self.plan.datasets[name]) for name in datasets)
        seeds = len(self.plan.config.seeds)
        for run in runs & set(self.past):
            spec = self.plan.train_spec(run.dataset, run.variant)
            facts = self.facts(spec)
            cost.disk_bytes += seeds * facts.parameters * _FLOAT_BYTES
            known = self._time(run, spec, facts)
            if known is None:
                cost.unknown += seeds
            else:
                device, seconds = known
                cost.seconds[device] = cost.seconds.get(device, 0.0) + seeds * seconds
        return cost

    def _time(self, run: Run, spec: TrainSpec, facts: Facts) -> tuple[str, float] | None:
        """Device and seconds of one training, or None where nothing was measured."""
        if (past := self.past[run]) is not None:
            return past
        images = self.plan.datasets[run.dataset]["splits"].get("train", {}).get("count")
        speed = self._speed(run.variant, facts.macs)
        if not speed or not images or self.throughput is None:
            return None
        rate, macs = speed
        return self.throughput.device, spec.recipe["epochs"] * images * facts.macs / (rate * macs)

    def _speed(self, variant: str, macs: int) -> tuple[float, int] | None:
        """The measured speed that serves a variant of so many multiply-accumulates per image, or None."""
        speeds = self.throughput.speeds if self.throughput else {}
        routine = self.plan.variants[variant].recipe
        fitting = [
            (name != variant, abs(math.log(macs / measured)), (rate, measured))
            for name, (rate, measured) in speeds.items()
            if name in self.plan.variants
            and self.plan.variants[name].recipe == routine
            and macs >= _SMALLEST_SHARE * measured
        ]
        return min(fitting)[2] if fitting else None

    def markdown(self) -> str:
        """A Markdown table, a line per table and one for all, and where the times come from."""
        lines = ["| table | jobs | downloads | disk | training, one after the other |", "|---|---:|---:|---:|---|"]
        named: Iterable[tuple[str, Cost]] = [(table, self.of_table(table)) for table in self.plan.config.tables]
        for name, cost in (*named, ("all_tables", self.total())):
            times = [f"{duration_text(seconds)} on {device}" for device, seconds in cost.seconds.items()]
            unknown = [f"{cost.unknown} trainings of unknown time"] if cost.unknown else []
            text = markdown_text("; ".join([*times, *unknown]) or "none")
            lines.append(f"| {name} | {cost.jobs} | {_size(cost.download_bytes)} | {_size(cost.disk_bytes)} | {text} |")
        return "\n".join([*lines, "", self._sources()])

    def _sources(self) -> str:
        done = sum(past is not None for past in self.past.values())
        found = [f"{done} of {len(self.past)} networks from trainings that ended here"] if done else []
        if self.throughput:
            names = ", ".join(self.throughput.speeds)
            found.append(
                f"speeds of {names} as measured on {self.throughput.device}, one training at a time "
                f"({self.throughput.source}), and by multiply-accumulates for other networks of their routines"
            )
        times = "; ".join(found) or "nothing measured yet"
        gpu = (
            " This configuration asks for a GPU: times on a processor are not its own."
            if self.plan.config.jobs.gpus
            else ""
        )
        return (
            f"Times: {times}.{gpu} On another machine, above all a GPU: "
            "`python benchmarks/train.py VARIANT ... --save F`, then `--throughput F`. Tables share runs, so the "
            "lines do not add up. Disk: archives, arrays of images, networks; not the extracted files, nor what one "
            "training saves while it runs."
        )


def _past(plan: Plan, run: Run) -> tuple[str, float] | None:
    """The device of most of a run's finished trainings, and their mean seconds on it."""
    found: dict[str, list[float]] = {}
    for path in map(Path, plan.records(run)):
        if path.is_file():
            try:
                record = read_record(path)
            except RecordError:
                continue
            if record.status == "ok":
                found.setdefault(record.device, []).append(record.seconds)
    device = max(found, key=lambda name: len(found[name]), default="")
    return (device, statistics.fmean(found[device])) if device else None


def _download_bytes(declaration: Mapping[str, Any]) -> int:
    return sum(
        archive.get("size") or 0 for archive in declaration.get("archives", []) if not archive.get("optional", False)
    )


def _array_bytes(declaration: Mapping[str, Any]) -> int:
    images = sum(s.get("count") or 0 for s in declaration["splits"].values() if not s.get("optional", False))
    return int(images * declaration["image_size"] ** 2 * 3)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
