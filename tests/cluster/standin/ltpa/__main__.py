"""A stand-in for `python -m ltpa <stage>`: sleeps as long as the stage would compute, and leaves files of its names.

For tests/cluster/simulate.py alone, which puts it into the folder that jobs run in. Nothing it writes is a result.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

TRAINED = ("model.safetensors", "history.csv", "logits.npy", "hits.npy", "result.json")

parser = argparse.ArgumentParser()
parser.add_argument("stage")
parser.add_argument("--spec", type=lambda text: json.loads(Path(text[1:]).read_text()), required=True)
parser.add_argument("--results", type=Path, required=True)
parser.add_argument("--seed", type=int, default=0)
options, _ = parser.parse_known_args()
spec, results = options.spec, options.results
stage = spec["protocol"] if options.stage == "measure" else options.stage

settings = json.loads(Path("simulation.json").read_text())
minutes = settings["minutes"]
dataset, variant = spec.get("dataset", ""), spec.get("variant", "")
if stage == "train":
    family = "resnet" if variant.startswith("rn") else "plain" if variant in ("vgg", "vgg-gap") else "attention"
    amount = minutes["train"][family] * minutes["factor"].get(dataset, 1)
else:
    amount = minutes[stage] if stage in minutes else minutes["protocol"]
started = time.time()
time.sleep(amount * settings["seconds_per_minute"])

run = results / stage / dataset / variant / f"seed-{options.seed}"
paths = {
    "patches": [run / name for name in ("result.json", "boxes.parquet", "boxes.json")],
    "prepare": [results / "data" / dataset / "manifest.json"],
    "train": [run / name for name in TRAINED],
    "table": [results / "tables" / f"{spec.get('table')}.{end}" for end in ("tidy.csv", "csv", "md", "tex", "html")],
    "gallery": [
        results / "figures" / "paper" / f"{n}.{e}" for n in spec.get("figures", {}) for e in ("png", "svg", "pdf")
    ]
    + [results / "figures" / "paper" / "index.json"],
    "check": [results / "checks.json", results / "checks.md"],
    "track": [results / "tracking.json"],
    "report": [results / "report" / "index.html", results / "report.zip"],
    "figures": [
        results / "figures" / n
        for n in ("index.json", "attention.png", "learning-curves.png", "fooling-rate.png", "map-use.png")
    ],
}.get(stage, [run / "result.json"])
for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("stand-in\n")
line = {
    "stage": stage, "dataset": dataset, "variant": variant, "start": started, "seconds": time.time() - started,
    "job": os.environ.get("SLURM_JOB_ID", ""),
}  # fmt: skip
with open("simulation.jsonl", "a") as stream:
    stream.write(json.dumps(line) + "\n")
sys.exit(0)
