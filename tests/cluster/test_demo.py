"""The demo's own tables through SLURM, with the profile edited as docs/cluster.md says: `LTPA_CLUSTER=demo`.

105 jobs and as many again in a local run: half an hour and more on two cores.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import slurm
from checkouts import STARTED, copy_parts

pytest_plugins = ["machine"]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.workflow,
    pytest.mark.skipif(os.environ.get("LTPA_CLUSTER") != "demo", reason="longest form: set LTPA_CLUSTER=demo"),
]


def edit_profile(root: Path) -> None:
    """Name the partition, and squeue as there is no accounting here: by taking away the first `# ` of two lines."""
    path = root / "profiles" / "slurm" / "profile.yaml"
    lines = path.read_text().splitlines()
    for index, line in enumerate(lines):
        if "# slurm_partition:" in line:
            lines[index] = """  slurm_partition: "'work'\""""
        elif "# slurm-status-command:" in line:
            lines[index] = line.replace("# ", "", 1)
    path.write_text("\n".join(lines) + "\n")


def start(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "snakemake", *arguments, "--", "all_tables"]
    with open(root / "output", "ab") as stream:
        process = subprocess.Popen(
            command, cwd=root, env={**os.environ, "PYTHONPATH": ""}, stdout=stream, stderr=stream
        )
    STARTED.append(process)
    return process


def written(root: Path) -> dict[str, bytes]:
    """Tables, checks and networks."""
    results = root / "results" / "demo"
    found = [*results.glob("tables/*"), results / "checks.md", *results.glob("train/*/*/*/model.safetensors")]
    return {str(path.relative_to(results)): path.read_bytes() for path in found}


def test_the_tables_of_the_demo_are_those_of_a_local_run(cluster: slurm.Cluster, tmp_path: Path):
    local, distant = tmp_path / "local", tmp_path / "distant"
    for root in (local, distant):
        copy_parts(root)
    edit_profile(distant)
    submitted = start(distant, "--profile", "profiles/slurm")
    assert submitted.wait(5400) == 0, (distant / "output").read_text()[-6000:]
    beside = start(local, "--cores", "2")
    assert beside.wait(3600) == 0, (local / "output").read_text()[-6000:]
    ours, theirs = written(local), written(distant)
    assert ours.keys() == theirs.keys()
    assert len([name for name in ours if name.startswith("tables/")]) >= 35
    assert len([name for name in ours if name.startswith("train/")]) >= 60
    assert [name for name in ours if ours[name] != theirs[name]] == []
