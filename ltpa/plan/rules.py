"""What the rules of the workflow ask of a plan: commands, spec files, and requests for memory and time."""

import functools
import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.code import code_hash
from ltpa.core.errors import LtpaError
from ltpa.core.files import write_text
from ltpa.core.specs import Spec
from ltpa.plan import jobs
from ltpa.plan.plan import Plan

Request = Callable[[Any, int], int]  # (wildcards, attempt) -> amount


def literal(text: object) -> str:
    """Text as one word of a shell command in which Snakemake replaces what stands in braces."""
    return shlex.quote(str(text)).replace("{", "{{").replace("}", "}}")


class Rules:
    """The side of a plan that Snakemake sees.

    Raises:
        LtpaError: something that is not a readable folder is in the way of the results.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.jobs = plan, plan.config.jobs
        self._specs: dict[str, Spec] = {}
        for folder in (plan.results.parent, plan.results):
            if folder.exists() and not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
                raise LtpaError(f"{folder}: not a folder that can be read; move it away or mend its rights")

    def environment(self, python: str, package: Path) -> str:
        """Shell commands before every job: what a job must know but must not make anything run anew.

        So another clone's interpreter, a moved folder of archives or another share of a GPU is no change of a rule.
        """
        return (
            f"set -euo pipefail; export PYTHONPATH={literal(package)} OMP_NUM_THREADS={self.jobs.threads} "
            f"LTPA_GPU_SHARE={self.jobs.gpu_share} LTPA_PYTHON={python} "
            f"LTPA_ARCHIVES={literal(os.pathsep.join(self.jobs.archives))}; "
        )

    @property
    def shell(self) -> str:
        """The shell command of every job, which replaces the shell: no process stands between a job and signals."""
        return (
            f'exec "$LTPA_PYTHON" -m ltpa {{params.command}} --spec @{{params.spec:q}} '
            f"--results {literal(self.plan.results)} > {{log:q}} 2>&1"
        )

    def networks(self, stage: str) -> str:
        """A pattern of the names that a stage's `variant` can take; of nothing where there is none."""
        return "|".join(jobs.networks(self.plan, stage)) or "(?!)"

    def log(self, rule: str, *names: str) -> str:
        """Path of a rule's log; `names` are further folders and the file's name."""
        return "/".join([str(self.plan.results), "logs", rule, *names]) + ".log"

    def benchmark(self, rule: str, *names: str) -> str:
        """Path of what Snakemake measures of a rule's job (seconds, memory), beside its log."""
        return self.log(rule, *names).removesuffix(".log") + ".tsv"

    def params(
        self, rule: str, make: Callable[..., Spec], *names: str, module: str = ""
    ) -> dict[str, Callable[[Any], str]]:
        """The rule's parameters: path of the spec that `make` gives for the wildcards called `names`, hash of the code.

        The path holds the spec's hash, so that the one changes exactly when the spec does, and the other exactly when
        the code does: that of `ltpa.stages.<module>` (default: as the rule) and what the spec names as `code`.
        """
        stage = f"ltpa.stages.{module or rule}"

        @functools.cache
        def made(values: tuple[str, ...]) -> tuple[str, Spec]:
            spec = make(*values)
            path = str(layout.spec_path(self.plan.results, rule, values, spec.hash()))
            self._specs[path] = spec
            return path, spec

        def values(wildcards: Any) -> tuple[str, ...]:
            return tuple(str(wildcards[name]) for name in names)

        return {
            "spec": lambda wildcards: made(values(wildcards))[0],
            "code": lambda wildcards: code_hash([stage, *made(values(wildcards))[1].code]),
        }

    def write_specs(self, paths: Iterable[str]) -> None:
        """Write the spec files that jobs are about to read; `paths` are parameters of rules."""
        for path in map(Path, paths):
            text = self._specs[str(path)].to_json()
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)

    def asks(self, minutes: str, network: bool = False) -> dict[str, int | Request]:
        """What a job asks of a scheduler; `minutes` is a key of `jobs.minutes`, and work on a `network` may use a GPU.

        A job that ran out of memory or time gets more of it at its next attempt. `cpus_per_task` is asked for apart
        from threads, because Snakemake cuts a submitted job's threads to the cores of the machine it runs on itself.
        """
        asked: dict[str, int | Request] = {
            "cpus_per_task": self.jobs.threads if minutes != "view" else 1,
            "mem_mb": self._grown(self.jobs.mem_mb),
            "runtime": self._grown(getattr(self.jobs.minutes, minutes)),
        }
        return {**asked, "gpu": self.jobs.gpus} if network else asked

    def _grown(self, amount: int) -> Request:
        most = self.jobs.max_growth
        return lambda wildcards, attempt: amount * min(attempt, most)
