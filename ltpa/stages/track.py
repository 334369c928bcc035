"""Write the records of a scale into its MLflow store, and hold the tables against what it then says."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.core.errors import LtpaError
from ltpa.core.files import write_errors, write_text
from ltpa.tables.spec import TrackSpec
from ltpa.tracking.follow import Follower
from ltpa.tracking.pictures import keep_pictures
from ltpa.tracking.store import DATABASE, MAPPING, StoreBusyError, exclusive, open_store, remove_store
from ltpa.tracking.verify import verify
from ltpa.tracking.writer import Writer

SPEC = TrackSpec


def run(
    spec: TrackSpec, results: Path, records: Sequence[Path], tables: Sequence[Path] = (), rebuild: bool = False
) -> None:
    """Bring `mlflow.db` in line with `records`, verify `tables`, and write `tracking.json` (record path to run id).

    Unchanged records cost one look; changed ones replace their run. Run by one process at a time, which it ensures.

    Args:
        tables: tidy tables (`tables/<table>.tidy.csv`), each with its `<table>.csv` beside it.
        rebuild: delete the store first and make it anew.

    Raises:
        LtpaError: there are no records, the store is damaged or in use, there is none and mlflow is not installed, or a
            table differs from it.
        RecordError: a record is unreadable, edited, of another scale, or given twice.
    """
    results = Path(results)
    if not records:
        raise LtpaError(f"{results}: no result records to track; run the pipeline first, or name some with --records")
    mapping = results / MAPPING
    with exclusive(results):
        with write_errors(mapping, "cannot be removed"):
            mapping.unlink(missing_ok=True)  # it vouches for store and tables; until both hold there is none
        if rebuild:
            remove_store(results)
        with open_store(results) as connection:
            found = Writer(connection, results, spec.scale, spec.models).write(records)
        compared = verify(results, spec.scale, tables)
        write_text(mapping, json.dumps(found, indent=1) + "\n")
    keep_pictures(results)
    print(f"{len(found)} records in {results / DATABASE}; {compared} numbers of {len(tables)} tables agree with it")


def follow(
    spec: TrackSpec,
    results: Path,
    stop: Callable[[], bool],
    idle: float,
    say: Callable[[str], None],
    interval: float = 5.0,
) -> None:
    """Write the epochs of running trainings into the store as they end, until none has run for `idle` seconds.

    Trainings know nothing of it. The store is locked only while something is written; where another process has it, the
    next turn comes. Whole runs take the place of followed ones when `run` next brings the store in line.

    Args:
        stop: asked between turns; true ends the following.
        say: prints how many epochs were written.
        interval: seconds between turns.

    Raises:
        LtpaError: the store is damaged, or there is none and mlflow is not installed.
    """
    results = Path(results)
    follower = Follower(results, spec.scale)
    seen = time.monotonic()
    while True:
        if follower.running():
            seen = time.monotonic()
        over = stop() or time.monotonic() - seen > idle
        try:
            with exclusive(results), open_store(results) as connection:
                new = follower.look(connection)
            if new:
                say(f"{new} new epochs in {results / DATABASE}")
        except StoreBusyError as error:
            say(str(error))
        if over:
            return
        until = time.monotonic() + interval
        while time.monotonic() < until and not stop():
            time.sleep(min(0.2, interval))
