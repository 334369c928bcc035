"""Write the conda environments anew: what their stages import, and all that this needs, pinned as in requirements.lock.

    python envs/renew.py            # after `make lock`, in the environment that was locked
    python envs/renew.py --check    # exit code 1 where a file is not what this would write

Third-party imports are read from the syntax trees of each stage and of the `ltpa` modules it imports; what they require
is read from the installed packages. Everything but python and pip comes by pip, in the versions of the lock file: there
is one set of versions, and jobs compute alike with and without conda.
"""

import argparse
import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from ltpa.core.code import PACKAGE, module_file, reached
from ltpa.core.registry import member
from ltpa.protocols.registry import built_in, module_name
from ltpa.training.recipe import KINDS

FOLDER = Path(__file__).resolve().parent
LOCK = FOLDER.parent / "requirements.lock"
TRAININGS = [member(place).job.partition(":")[0] for place in KINDS.values()]
ENVIRONMENTS = {
    "torch.yaml": (
        "Data, training, evaluation, figures.",
        (
            *("prepare", "train", *TRAININGS, "measure", *map(module_name, built_in()), "patches"),
            *("figures", "gallery", "patch_pictures", "step_pictures"),
        ),
    ),
    "analysis.yaml": ("Tables, checks, tracking, report.", ("table", "check", "track", "report")),
}
LOADED_BY_NAME = ("data", "models")  # packages whose modules jobs find by name, so that no import tells which
COMMAND_LINE = ("ltpa.cli", "ltpa.cli.jobs", "ltpa.report.progress")  # what every job passes through
NOT_NEEDED = {"torchvision", "snakemake"}  # imported by conversions and by the plan alone, never in a job


def normalised(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, tuple[str, str]]:
    """Name as spelled and version of every package of the lock file, by normalised name."""
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return {normalised(name): (name, version) for name, version in pairs}


def imported(stages: Iterable[str]) -> set[str]:
    """Normalised names of the distributions that the stages import anywhere."""
    distributions = importlib.metadata.packages_distributions()
    found = set(reached(tuple(stage if stage.startswith("ltpa.") else f"ltpa.stages.{stage}" for stage in stages)))
    for package in LOADED_BY_NAME:
        if f"ltpa.{package}.registry" in found:
            paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in (PACKAGE / package).rglob("*.py"))
            found.update(reached(tuple(".".join(path.parts).removesuffix(".__init__") for path in paths)))
    files = {module_file(name) for name in found | set(COMMAND_LINE)}
    names = set()
    for path in filter(None, files):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names |= {module.partition(".")[0] for module in modules}
    third_party = {name for name in names - sys.stdlib_module_names - {"ltpa"} if name in distributions}
    return {normalised(found) for name in third_party for found in distributions[name]} - NOT_NEEDED


def required(names: Iterable[str]) -> set[str]:
    """The distributions and all that they require here, without their extras."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(normalised(requirement.name))
    return found


def rendered(about: str, stages: Iterable[str]) -> str:
    """The environment file of some stages."""
    lock = locked()
    direct = imported(stages)
    unlocked = sorted(direct - lock.keys())
    if unlocked:
        sys.exit(f"{LOCK}: {', '.join(unlocked)} not pinned; run `make lock` first")
    others = (required(direct) & lock.keys()) - direct  # all that is installed is in the lock file but pip

    def pins(names: Iterable[str]) -> list[str]:
        return [f"      - {'=='.join(lock[name])}" for name in sorted(names)]

    lines = [f"# {about} Written by envs/renew.py from requirements.lock: do not edit.", "channels:", "  - conda-forge"]
    lines += ["dependencies:", "  - python=3.11", "  - pip", "  - pip:", *pins(direct)]
    lines += ["      # what these require", *pins(others)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    options = parser.parse_args()
    for name, (about, stages) in ENVIRONMENTS.items():
        text = rendered(about, stages)
        if options.check and (FOLDER / name).read_text(encoding="utf-8") != text:
            sys.exit(f"envs/{name} is out of date; run: python envs/renew.py")
        if not options.check:
            (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
