"""What a job on SLURM does for itself when its node is wanted for others: it goes back to the queue under its number.

A preempted job gets SIGTERM and has the partition's grace time. One that ends by itself within it counts as
failed, and whoever submitted it has to do so again; only those that let themselves be killed are requeued. A job that
has saved its state need not wait for that: it asks to be requeued, and its processors are free at once.
"""

import os
import subprocess

PATIENCE_SECONDS = 1.0  # for each question; the controller may be slow or away, and the job has little time left


def requeue_if_preempted() -> bool:
    """Requeue the SLURM job that this process belongs to, if it is being preempted and may be requeued.

    Jobs that are cancelled, end by their time limit or run outside SLURM are left alone.

    Returns:
        Whether the job goes back to the queue.
    """
    number = os.environ.get("SLURM_JOB_ID", "")
    if not number.isdigit():
        return False
    facts: dict[str, str] = {}
    for word in _scontrol("show", "job", "--oneliner", number).split():
        key, equals, value = word.partition("=")
        if equals:
            facts.setdefault(key, value)  # a comment or a command line could look like a fact, and comes later
    preempted = facts.get("PreemptTime", "None") not in ("None", "(null)", "")
    if not preempted or facts.get("JobState") != "RUNNING" or facts.get("Requeue") != "1":
        return False
    try:
        return subprocess.run(["scontrol", "requeue", number], timeout=PATIENCE_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _scontrol(*arguments: str) -> str:
    """What `scontrol` prints; nothing where it fails."""
    try:
        done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
