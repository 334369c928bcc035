"""The commands `ltpa data ...`: what is declared, archives onto this machine, hashes checked, pictures."""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltpa.cli.options import LOOK, Command, add_config_option, load_plan
from ltpa.core import layout
from ltpa.core.errors import ConfigError, DataError, LtpaError
from ltpa.core.text import printable

if TYPE_CHECKING:
    from ltpa.archives.declare import Archive
    from ltpa.plan import Plan


def add_archives_option(parser: argparse.ArgumentParser) -> None:
    """Add `--archives DIR...`; `archive_folders` reads it. Without it the environment variable LTPA_ARCHIVES serves."""
    parser.add_argument(
        "--archives",
        metavar=f"DIR[{os.pathsep}DIR]",
        default=os.environ.get("LTPA_ARCHIVES", ""),
        help="folders searched before anything is downloaded",
    )


def archive_folders(options: argparse.Namespace) -> list[Path]:
    """The folders that `--archives` names.

    Raises:
        ConfigError: one does not exist; what lies in it would be downloaded.
    """
    folders = [Path(folder) for folder in options.archives.split(os.pathsep) if folder]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--archives {folder}: no such folder")
    return folders


def add_commands(command: Command) -> None:
    """Add `data` with `list`, `fetch`, `verify` and `show`."""
    action = Command(command("data", list_declared, "list, fetch, verify and show datasets"), "ACTION")
    listing = action("list", list_declared, "list the declared datasets, and whether they are prepared", LOOK)
    fetch = action("fetch", _fetch, "download archives and check them")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    fetch.add_argument("--allow-http", action="store_true", help="take unencrypted downloads without checksum on trust")
    add_archives_option(fetch)
    verify = action("verify", _verify, "check archives and prepared arrays against their hashes", LOOK)
    verify.add_argument(
        "names", nargs="*", metavar="NAME", help="datasets (default: all that are prepared or have an archive here)"
    )
    add_archives_option(verify)
    show = action("show", _show, "draw a contact sheet of a prepared dataset")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--out", type=Path, help="PNG to write (default: NAME.png)")
    show.add_argument("--masks", action="store_true", help="darken what lies outside the masks")
    for added in (listing, fetch, verify, show):
        add_config_option(added)


def list_declared(options: argparse.Namespace) -> None:
    """Print a line for each declared dataset: role, images, classes, size of its archives, whether it is prepared."""
    plan = load_plan(options)
    print(f"{'name':22} {'plays':21} {'images':>7} {'classes':>7} {'download':>9}  state     title")
    for name, declaration in plan.datasets.items():
        counts = [split.get("count") for split in declaration["splits"].values() if not split.get("optional")]
        images = "?" if None in counts else str(sum(counts))
        state = "prepared" if Path(plan.manifest(name)).is_file() else "-"
        role = declaration.get("plays", name)
        download = _download_size(declaration)
        print(
            f"{name:22} {role:21} {images:>7} {len(declaration['classes']):7} {download:>9}  {state:9} "
            f"{printable(declaration['title'])}"
        )


def _download_size(declaration: dict[str, Any]) -> str:
    archives = [archive for archive in declaration.get("archives", []) if not archive.get("optional")]
    if not archives:
        return "-"
    if not all("size" in archive for archive in archives):
        return "?"
    return f"{sum(archive['size'] for archive in archives) / 1e6:.0f} MB"


def _source(plan: "Plan", name: str) -> dict[str, Any]:
    """The declaration of a dataset under the configuration, checked to be one with files."""
    from ltpa.core.declared import unknown_name

    if name not in plan.datasets:
        raise ConfigError(unknown_name("dataset", name, list(plan.datasets)))
    return plan.prepare_spec(name).source


def _fetch(options: argparse.Namespace) -> None:
    from ltpa.archives.transfer import Policy
    from ltpa.data.real import fetch_archives

    plan = load_plan(options)
    policy, search = Policy(allow_http=options.allow_http), archive_search(plan, options)
    sources = {name: _source(plan, name) for name in options.names}
    for name, source in sources.items():
        if not source.get("archives"):
            print(f"{name}: nothing to fetch")
            continue
        for path in fetch_archives(name, source, layout.downloads_dir(plan.results), search, policy)[1]:
            print(f"{name}: {path}")


def archive_search(plan: "Plan", options: argparse.Namespace) -> list[Path]:
    """The folders of `--archives`, then those of the configuration (`jobs.archives`)."""
    return archive_folders(options) + [Path(folder) for folder in plan.config.jobs.archives]


def _verify(options: argparse.Namespace) -> None:
    plan = load_plan(options)
    places = [*archive_search(plan, options), layout.downloads_dir(plan.results)]
    sources = {name: _source(plan, name) for name in options.names or plan.datasets}
    prepared = [name for name in sources if Path(plan.manifest(name)).is_file()]
    archives = {name: _archives_here(name, source, places) for name, source in sources.items()}
    bare = [name for name in sources if name not in prepared and not archives[name]]
    if options.names and bare:
        raise ConfigError(
            f"nothing to verify of {', '.join(bare)}: not prepared at scale {plan.config.scale.name}, and no archive "
            f"in {', '.join(map(str, places))}; fetch or prepare it first, or leave it out"
        )
    if len(bare) == len(sources):
        print(f"nothing to verify: no dataset is prepared at scale {plan.config.scale.name}, and no archive is here")
    problems = []
    for name in sources:
        checks = [partial(_check_archive, *pair, places[-1]) for pair in archives[name]]
        if name in prepared:
            checks.append(partial(_check_arrays, layout.data_dir(plan.results, name)))
        for check in checks:
            try:
                print(f"{name}: {check()}")
            except (LtpaError, OSError) as error:
                problems.append(f"{name}: {error}")
        if name not in prepared and archives[name]:
            print(f"{name}: not prepared at scale {plan.config.scale.name}")
    if problems:
        raise DataError("; ".join(problems))


def _archives_here(name: str, source: dict[str, Any], places: list[Path]) -> list[tuple[Path, "Archive"]]:
    """The archives of a dataset that lie in one of the places."""
    from ltpa.archives.declare import parse_archives

    candidates = [(place / archive.name, archive) for archive in parse_archives(name, source) for place in places]
    return [(path, archive) for path, archive in candidates if path.is_file()]


def _check_archive(path: Path, archive: "Archive", downloads: Path) -> str:
    from ltpa.archives.trust import LOCK_FILE, Trust, check

    unseen = check(path, archive, Trust(downloads / LOCK_FILE))
    if unseen is not None and not archive.hashed:
        return f"{path} not seen before and without a declared checksum, so not verified"
    return f"{path} as declared or first seen"


def _check_arrays(folder: Path) -> str:
    from ltpa.data.arrays import PreparedDataset

    PreparedDataset.open(folder, verify=True)
    return "arrays as their manifest says"


def _show(options: argparse.Namespace) -> None:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.data.contact_sheet import contact_sheet

    plan = load_plan(options)
    _source(plan, options.name)
    out = options.out or Path(f"{options.name}.png")
    contact_sheet(PreparedDataset.open(layout.data_dir(plan.results, options.name)), out, options.masks)
    print(f"wrote {out}")
