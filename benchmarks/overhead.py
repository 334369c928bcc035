"""How much of a finished run was process start and imports rather than work.

    python benchmarks/overhead.py [--config config/config.yaml]

Start-up is measured here and now: the best of three starts of a process that imports what the stage imports. Job times
are those that Snakemake noted while the run went on (`.snakemake/metadata`), so do both on an idle machine.
"""

import argparse
import base64
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import ltpa.stages
from ltpa.core.declared import config_dir
from ltpa.plan import Plan
from ltpa.plan.config import load_config

LAZY = {
    "figures": "matplotlib.figure",
    "gallery": "matplotlib.figure, skimage.filters",
    "track": "mlflow",
    "segmentation": "skimage.filters",
}


def start_seconds(stage: str, repeats: int = 3) -> float:
    """Best wall time of a process that imports the stage and what it loads on first use."""
    code = f"import ltpa.stages.{stage}" + (f", {LAZY[stage]}" if stage in LAZY else "")
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        best = min(best, time.perf_counter() - started)
    return best


def job_seconds(results: Path) -> dict[str, list[float]]:
    """Wall seconds of every job by stage, from what Snakemake notes of each file that a job made."""
    jobs: dict[tuple[str, int], list[dict]] = defaultdict(list)
    for path in Path(".snakemake", "metadata").rglob("*"):
        if path.is_file():
            output = Path(base64.b64decode(path.name + "=" * (-len(path.name) % 4)).decode())
            note = json.loads(path.read_text())
            if output.is_relative_to(results) and output.exists():
                jobs[note["rule"], note["job_hash"]].append(note)
    stages = sorted((path.stem for path in Path(ltpa.stages.__file__).parent.glob("*.py")), key=len, reverse=True)
    found = defaultdict(list)
    for (rule, _), notes in sorted(jobs.items()):
        stage = next(stage for stage in stages if rule.startswith(stage))
        seconds = max(note["endtime"] for note in notes) - min(note["starttime"] for note in notes)
        found[stage].append(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=config_dir() / "config.yaml")
    options = parser.parse_args()
    plan = Plan(load_config(options.config), str(options.config))
    jobs = job_seconds(plan.results)
    if not jobs:
        sys.exit(f"{plan.results}: no finished jobs; run `snakemake all_tables` first")
    print(f"{'stage':14}{'jobs':>6}{'start-up':>10}{'start-ups':>11}{'job time':>10}{'share':>8}")
    totals = [0.0, 0.0, 0]
    for stage, seconds in jobs.items():
        start = start_seconds(stage)
        print(
            f"{stage:14}{len(seconds):6}{start:9.2f}s{start * len(seconds):10.1f}s{sum(seconds):9.1f}s"
            f"{start * len(seconds) / sum(seconds):8.0%}"
        )
        totals = [totals[0] + start * len(seconds), totals[1] + sum(seconds), totals[2] + len(seconds)]
    print(f"{'all':14}{totals[2]:6}{'':10}{totals[0]:10.1f}s{totals[1]:9.1f}s{totals[0] / totals[1]:8.0%}")


if __name__ == "__main__":
    main()
