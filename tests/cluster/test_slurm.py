"""The workflow on a real SLURM (`slurm.py` starts it): where and how often jobs ran changes no byte.

The short form runs wherever SLURM is installed and the user is root. `LTPA_CLUSTER=1` adds all tables of the mini scale
and what test_cut_off.py does to jobs, half an hour on two cores; `LTPA_CLUSTER=demo` the demo (test_demo.py), as much
again. GPUs are counts here: trainings compute on the processor, and ask for a GPU all the same where a test says so.
"""

from pathlib import Path

import pytest
import slurm
from checkouts import LONG, SHORT, SHORT_JOBS, Checkout, alike, job, shown, until

pytest_plugins = ["machine"]
pytestmark = [pytest.mark.cluster, pytest.mark.workflow]


def test_a_table_from_requeued_and_cancelled_jobs_is_that_of_a_local_run(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 10, SHORT_JOBS, **SHORT)
    distant = Checkout(tmp_path / "distant", 10, SHORT_JOBS, **SHORT)
    process = distant.submit("figure6", "--set-resources", "train:gpu=1")
    beside = local.start("figure6", "--cores", "1")
    trainings = {variant: f"rule_train_wildcards_digits-marks_{variant}_0" for variant in SHORT["variants"]}
    until("the second epoch", lambda: distant.epochs("digits-marks", "vgg-att2-concat-pc")[1:], process)
    held = slurm.run("squeue", "-h", "-t", "RUNNING", "-O", "tres-per-job:40").split()
    assert held and set(held) == {"gres:gpu:1"}
    slurm.run("scontrol", "requeue", job(trainings["vgg-att2-concat-pc"]))
    cancelled = job(trainings["vgg"]) or job(trainings["vgg"], "PENDING")
    if cancelled:
        slurm.run("scancel", cancelled)
    distant.finish(process)
    local.finish(beside)
    alike(local, distant, at_least=7)
    resumed = distant.epochs("digits-marks", "vgg-att2-concat-pc")
    assert resumed[0] >= 2, "the requeued training began anew"
    if cancelled:
        assert f"SLURM-job '{cancelled}' failed" in distant.output


def test_two_stream_and_patch_jobs_run_where_the_profile_sends_their_rules(cluster: slurm.Cluster, tmp_path: Path):
    """Their lines in the profile as a user edits them, for this cluster's GPUs, which are counts: see above."""
    checkout = Checkout(tmp_path / "sent", 1, SHORT_JOBS, **{**SHORT, "variants": [*SHORT["variants"], "vgg19"]})
    path = checkout.root / "profiles" / "slurm" / "profile.yaml"
    text = path.read_text().replace("'a100'\"}", "'fake'\", gpu: 1}")
    for rule, memory in (("train", ""), ("patches", ", mem_mb: 1234")):
        line = next(line for line in text.splitlines() if line.startswith(f"  # {rule}:"))
        text = text.replace(line, line.replace("# ", "", 1).replace("gpu: 1}", f"gpu: 1{memory}}}"))
    path.write_text(text)
    names = ("train/digits-marks/vgg19", "patches/digits-marks/center")
    process = checkout.submit(" ".join(f"results/mini/{name}/seed-0/result.json" for name in names))
    checkout.finish(process)
    for name, partition, memory, gpus in (
        ("prepare_wildcards_digits-marks", "work", "1500M", None),
        ("train_wildcards_digits-marks_vgg19_0", "gpu", "1500M", "gres:gpu:fake:1"),
        ("patches_wildcards_digits-marks_center_0", "gpu", "1234M", "gres:gpu:fake:1"),
    ):
        seen = shown(job(f"rule_{name}", "COMPLETED"))
        assert (seen["Partition"], seen["MinMemoryNode"], seen.get("TresPerJob")) == (partition, memory, gpus), name


@LONG
def test_all_tables_of_the_mini_scale_are_those_of_a_local_run(cluster: slurm.Cluster, tmp_path: Path):
    jobs = {"mem_mb": 1500}
    local = Checkout(tmp_path / "local", 1, jobs)
    distant = Checkout(tmp_path / "distant", 1, jobs)
    process = distant.submit("all_tables")
    beside = local.start("all_tables", "--cores", "1")
    distant.finish(process, seconds=3600)
    local.finish(beside, seconds=3600)
    alike(local, distant, at_least=30)
