"""Jobs that SLURM lost or will not run again: they end, and Snakemake submits them anew while retries last.

Snakemake's SLURM plugin waits without end for a job that no answer of SLURM names any more (its controller lost its
records, or there is no accounting to ask), and for one that stays PREEMPTED or NODE_FAIL because the cluster requeues
nothing. None of these is in the controller's queue, which lists what waits, runs or ends. So a job that the plugin
still waits for is looked for there, and counts as gone once it has been absent for long while the controller answered.
Its files decide how it ended: if all of them were written since it was submitted, it succeeded; else it failed.
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

# Absence is counted from the first check that misses a job. The plugin asks first after the time that
# `slurm-init-seconds-before-status-checks` names; a job that ended is seen as ended within a few of its checks.
PATIENCE_INTERVALS = 10
_QUERY_SECONDS = 60


class Absences:
    """Which of the jobs that are waited for have been out of the queue for long.

    Args:
        patience: seconds.
        clock: seconds since any moment, never set back.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience, self._clock = patience, clock
        self._since: dict[str, float] = {}

    def gone(self, waiting: Iterable[str], queue: set[str] | None) -> set[str]:
        """The jobs absent from every queue for `patience` seconds; `queue` is None where the controller is silent."""
        waiting, now = set(waiting), self._clock()
        if queue is not None:
            missing = {number for number in waiting if number.partition("_")[0] not in queue}
            self._since = {number: self._since.get(number, now) for number in missing}
            return {number for number, since in self._since.items() if now - since >= self.patience}
        return set()


def queued_jobs(run: str) -> set[str] | None:
    """Numbers of the jobs of a run (their name in SLURM) that wait, run or end; None where SLURM does not answer."""
    command = ["squeue", "--noheader", "--format=%F", "--name", run]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None


def all_written_since(paths: Iterable[Path], moment: float) -> bool:
    """Whether every file is there and was written at `moment` (seconds since the epoch) or later."""
    try:
        return all(path.stat().st_mtime >= moment for path in paths)
    except OSError:
        return False


def extend(executor: type[Any]) -> type[Any]:
    """The executor class of Snakemake's SLURM plugin, with an end to the wait for jobs that are gone."""

    class Executor(executor):
        """Submits to SLURM, and gives up jobs that it lost."""

        def __post_init__(self, *arguments: Any, **options: Any) -> None:
            super().__post_init__(*arguments, **options)
            interval = self.workflow.executor_settings.init_seconds_before_status_checks
            self._absences = Absences(PATIENCE_INTERVALS * interval)
            self._submitted: dict[str, float] = {}

        def report_job_submission(self, job_info: Any, *arguments: Any, **options: Any) -> None:
            self._submitted[job_info.external_jobid] = time.time()
            super().report_job_submission(job_info, *arguments, **options)

        async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
            waiting = [job async for job in super().check_active_jobs(active_jobs)]
            gone = set()
            if waiting and not self._submitted_job_clusters:  # the queues of other clusters would have to be asked
                queue = await asyncio.to_thread(queued_jobs, self.run_uuid)
                gone = self._absences.gone((job.external_jobid for job in waiting), queue)
            for job in waiting:
                if job.external_jobid not in gone:
                    yield job
                elif all_written_since(map(Path, job.job.output), self._submitted[job.external_jobid]):
                    self.report_job_success(job)
                else:
                    self.report_job_error(
                        job,
                        msg=f"SLURM-job '{job.external_jobid}' is lost: SLURM answered, and had it neither waiting nor "
                        f"running for {self._absences.patience:.0f} s. ",
                        aux_logs=[str(job.aux["slurm_logfile"])],
                    )

    return Executor


def extend_slurm_plugin() -> None:
    """Have Snakemake use the extended executor wherever `slurm` is asked for; nothing where its plugin is missing."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    registry = ExecutorPluginRegistry()
    if registry.is_installed("slurm"):
        plugin = registry.get_plugin("slurm")
        plugin.executor = extend(plugin.executor)
