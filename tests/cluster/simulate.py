"""The DAG of config/paper.yaml on a real SLURM, with stand-ins that sleep in place of the stages.

    python tests/cluster/simulate.py --slots 1 2 8 32

Shows what scheduling costs: each job's time on its node beside the work in it, and the whole run's time beside what no
schedule can beat, max(GPU work / slots, longest chain of jobs). Times of the work are a guess from arithmetic counts
(MINUTES), shortened to `--seconds-per-minute`; what is measured is the rest. Needs what tests/cluster/slurm.py needs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import slurm
import yaml

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = ("prepare", "table", "check", "figures", "gallery", "track", "report")
# Minutes of one network on one GPU, per seed; `factor` for datasets of another size than CIFAR's.
MINUTES = {
    "train": {"plain": 3, "attention": 19, "resnet": 27},
    "factor": {"svhn": 1.5, "cub200": 0.7},
    "prepare": 3, "transfer": 10, "maps": 2, "causal": 2, "patches": 1, "protocol": 1,  # of any other protocol
    "table": 0.5, "check": 0.5, "figures": 1, "gallery": 1, "track": 1, "report": 1,
}  # fmt: skip


def prepare(run: Path, seeds: int, seconds_per_minute: float) -> list[str]:
    """Fill a folder with stand-ins and the paper's configuration of so many seeds; return Snakemake's command there."""
    shutil.copytree(Path(__file__).with_name("standin"), run, ignore=shutil.ignore_patterns("__pycache__"))
    (run / "simulation.json").write_text(json.dumps({"minutes": MINUTES, "seconds_per_minute": seconds_per_minute}))
    values = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**values, "seeds": list(range(seeds))}))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(run)]
    return [*command, "--configfile", str(run / "config.yaml")]


def simulate(slots: int, seeds: int, seconds_per_minute: float, target: str) -> dict[str, float]:
    """Run the DAG once on a SLURM with so many GPUs and return what was seen."""
    folder = Path(tempfile.mkdtemp(prefix="ltpa-slurm-"))
    run = folder / "run"
    nodes = min(2, slots)
    command = [
        *prepare(run, seeds, seconds_per_minute), "--profile", str(ROOT / "profiles" / "slurm"),
        "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20",
        "--jobs", "500", "--", target,
    ]  # fmt: skip
    with slurm.Cluster(folder, slots // nodes, cpus=4 * slots // nodes + 32, memory=16000 * (slots + 16), nodes=nodes):
        started = time.monotonic()
        with open(folder / "output", "w") as stream:
            environment = {**os.environ, "PYTHONPATH": ""}
            done = subprocess.run(command, cwd=run, env=environment, stdout=stream, stderr=stream)
        makespan = time.monotonic() - started
        listed = slurm.run("squeue", "-h", "-t", "all", "-O", "jobid:12,submittime:24,starttime:24,endtime:24")
    if done.returncode:
        sys.exit(f"Snakemake failed; see {folder}/output")
    jobs = [json.loads(line) for line in (run / "simulation.jsonl").read_text().splitlines()]
    times = {number: [_seconds(text) for text in stamps] for number, *stamps in map(str.split, listed.splitlines())}
    on_node = [times[job["job"]][2] - times[job["job"]][1] - job["seconds"] for job in jobs]
    shutil.rmtree(folder)
    ideal = max(sum(job["seconds"] for job in jobs if job["stage"] not in NO_GPU) / slots, longest_chain(jobs))
    return {
        "slots": slots, "jobs": len(jobs), "submissions": len(times), "makespan_s": makespan, "ideal_s": ideal,
        "ratio": makespan / ideal, "overhead_on_node_s": statistics.median(on_node),
        "overhead_per_job_s": (makespan - ideal) * min(slots, len(jobs)) / len(jobs),
    }  # fmt: skip


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))


def longest_chain(jobs: list[dict]) -> float:
    """Seconds of work in the longest chain of jobs that wait for one another."""
    prepared = {job["dataset"]: job["seconds"] for job in jobs if job["stage"] == "prepare"}
    trained: dict[tuple[str, str], float] = {}
    for job in sorted(
        jobs, key=lambda job: job["dataset"] == "cub200"
    ):  # networks on CUB start from those on CIFAR-100
        if job["stage"] == "train":
            before = trained.get(("cifar100", job["variant"]), 0) if job["dataset"] == "cub200" else 0
            end = max(prepared[job["dataset"]], before) + job["seconds"]
            trained[job["dataset"], job["variant"]] = max(end, trained.get((job["dataset"], job["variant"]), 0))
    evaluated = [
        trained.get((j["dataset"], j["variant"]), prepared[j["dataset"]]) + j["seconds"]
        for j in jobs
        if j["stage"] not in (*NO_GPU, "train")
    ]
    views = [sum(j["seconds"] for j in jobs if j["stage"] == stage) for stage in ("report",)]
    tables = [job["seconds"] for job in jobs if job["stage"] in ("table", "figures", "gallery", "check", "track")]
    return max([*trained.values(), *evaluated]) + max(tables) + sum(views)


def main() -> None:
    """Print one line of a Markdown table per number of slots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 8, 32], help="GPUs of the cluster")
    parser.add_argument("--seeds", type=int, default=1, help="how many of the paper's five seeds")
    parser.add_argument("--seconds-per-minute", type=float, default=0.5, help="how long a minute of work sleeps")
    parser.add_argument("--target", default="all_tables", help="what is asked of Snakemake")
    options = parser.parse_args()
    if reason := slurm.missing():
        sys.exit(f"{parser.prog}: {reason}")
    for index, slots in enumerate(options.slots):
        seen = simulate(slots, options.seeds, options.seconds_per_minute, options.target)
        if index == 0:
            print("| " + " | ".join(seen) + " |\n|" + "---:|" * len(seen))
        print("| " + " | ".join(f"{value:.4g}" for value in seen.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
