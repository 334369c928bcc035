"""The MLflow store of a scale: `mlflow.db` (SQLite) and the artefact folder `mlruns/`, open to one process at a time.

MLflow makes the empty database, under a temporary name, for two processes that open a new one at once destroy it. What
is written later goes into MLflow's tables in one transaction (`ltpa.tracking.rows`): through MLflow's client every run
took ten, each with its wait for the disk.
"""

import contextlib
import errno
import functools
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ltpa.core import layout
from ltpa.core.errors import LtpaError
from ltpa.core.files import LITTLE, atomic_path, is_there, write_errors
from ltpa.runtime import lock
from ltpa.tracking.naming import ARTEFACTS

DATABASE = "mlflow.db"
MAPPING = layout.TRACKING  # record path to run id; written once the store was compared with the tables
PATIENCE_SECONDS = 5.0  # for another program that is writing
REBUILD = "make it anew from the records with `ltpa track --rebuild`"


class StoreBusyError(LtpaError):
    """Another process writes the store."""


@contextlib.contextmanager
def exclusive(results: Path) -> Iterator[None]:
    """Hold the store's lock; it is freed when the process ends, however it ends.

    Raises:
        StoreBusyError: another process holds it.
        LtpaError: the folder cannot be written, or its file system knows no locks.
    """
    path = Path(results) / ".mlflow.lock"

    def refuse(holder: str) -> None:
        raise StoreBusyError(f"{path}: {holder} writes this MLflow store; wait until it has finished")

    with lock.exclusive(path, refuse):
        yield


def remove_store(results: Path) -> None:
    """Delete the database and its artefacts; the records stay."""
    for path in Path(results).glob(f"{DATABASE}*"):
        with write_errors(path, "cannot be removed"):
            path.unlink()
    shutil.rmtree(Path(results) / ARTEFACTS, ignore_errors=True)


@contextlib.contextmanager
def open_store(results: Path) -> Iterator[sqlite3.Connection]:
    """The store below `results`, created where there is none. Call it under `exclusive`.

    What the block writes is one transaction: all of it is there afterwards, or, after an error, nothing.

    Raises:
        DiskFullError: the disk is full; the store is as good as before.
        LtpaError: the store is damaged, locked by another program, or of another version of MLflow; or there is none
            and mlflow is not installed.
    """
    database = Path(results).resolve() / DATABASE
    if not is_there(database):
        _create(database)
    with _connected(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _follow_folder(connection, database.parent)
        yield connection
        connection.execute("COMMIT")


@contextlib.contextmanager
def existing_store(results: Path) -> Iterator[sqlite3.Connection]:
    """The store below `results`, to be read.

    Raises:
        LtpaError: as `open_store`; there is none.
    """
    database = Path(results) / DATABASE
    if not is_there(database):
        raise LtpaError(f"{database}: no such MLflow store; {REBUILD}")
    with _connected(database) as connection:
        yield connection


@contextlib.contextmanager
def _connected(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that begins no transaction by itself, to a database that was looked at; closed afterwards."""
    check_database(database)
    with _database_errors(database):
        connection = sqlite3.connect(database, timeout=PATIENCE_SECONDS, isolation_level=None)
        with contextlib.closing(connection):
            yield connection


def _create(database: Path) -> None:
    """Have MLflow make an empty store."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise LtpaError(
            "mlflow is not installed: pip install mlflow, or set jobs.track to false; tables do not need it"
        ) from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # it prints tracebacks of errors that it raises
    with atomic_path(database) as temporary:
        temporary.unlink()
        try:
            MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments()
        except (MlflowException, SQLAlchemyError) as error:
            said = " ".join(str(error).split())
            _refuse_full_disk(database, said)
            raise LtpaError(f"{database}: MLflow says: {said[:300]}; {REBUILD}") from error


def _follow_folder(connection: sqlite3.Connection, results: Path) -> None:
    """Have a store that was copied or moved keep its artefacts beside it: MLflow notes their absolute paths."""
    here = (results / ARTEFACTS).as_uri()
    found = connection.execute("SELECT artifact_location FROM experiments WHERE name LIKE 'ltpa/%'").fetchall()
    for there in {location.rpartition("/")[0] for (location,) in found} - {here}:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (here, len(there) + 1, len(there) + 1, f"{there}/"),
            )


@contextlib.contextmanager
def _database_errors(database: Path) -> Iterator[None]:
    """Turn errors of SQLite into one line that names the remedy.

    Raises:
        DiskFullError: the disk is full; the store is as good as before.
        LtpaError: anything else that SQLite says.
    """
    try:
        yield
    except sqlite3.Error as error:
        _refuse_full_disk(database, str(error))
        if "locked" in str(error):
            raise LtpaError(
                f"{database}: locked by another program, perhaps `mlflow ui`; end it and try again"
            ) from error
        raise LtpaError(f"{database}: not a usable MLflow store ({error}); {REBUILD}") from error


def _refuse_full_disk(database: Path, said: str) -> None:
    """Raise `DiskFullError` where SQLite says that it has no room, in words of its own."""
    little = shutil.disk_usage(database.absolute().parent).free < LITTLE
    if "database or disk is full" in said or ("disk I/O error" in said and little):
        with write_errors(database):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_store(results: Path) -> str | None:
    """Look whether the store of a scale is whole; return a line of text where it was written and is gone.

    Raises:
        LtpaError: it is damaged, locked for long, or of another version of MLflow.
    """
    database, artefacts = Path(results) / DATABASE, Path(results) / ARTEFACTS
    if is_there(database):
        check_database(database)
    gone = [path for path in (database, artefacts) if not is_there(path)]
    if gone and is_there(Path(results) / MAPPING):
        return f"{gone[0]}: gone, though {MAPPING} tells of it; {REBUILD}. Tables do not need it"
    return None


def check_database(database: Path) -> None:
    """Look whether a database file is a whole MLflow store.

    Raises:
        DiskFullError: the disk is full, so that SQLite cannot even look.
        LtpaError: it is damaged, locked for long, no MLflow store, or one of another version of MLflow.
    """
    with (
        _database_errors(database),
        contextlib.closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection,
    ):
        state = connection.execute("PRAGMA quick_check").fetchone()[0]
        versions = [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    if state != "ok" or len(versions) != 1:
        raise LtpaError(f"{database}: damaged ({state}); {REBUILD}")
    expected = installed_schema()
    if expected not in (None, versions[0]):
        raise LtpaError(
            f"{database}: written by another version of MLflow (schema {versions[0]}; MLflow "
            f"{importlib.metadata.version('mlflow')}, which is installed here, has {expected}); {REBUILD}, or bring "
            f"a store of an older version up to date with `mlflow db upgrade sqlite:///{database.absolute()}`"
        )


@functools.cache
def installed_schema() -> str | None:
    """The version of the database schema that the installed MLflow has; None where it does not say.

    It is read from MLflow's migration scripts: the one that no other follows. Importing MLflow takes seconds, and
    asking its client would bring some older stores up to date unasked.
    """
    found = importlib.util.find_spec("mlflow")
    scripts = Path(found.origin or "").parent / "store" / "db_migrations" / "versions" if found else Path()
    made, followed = set(), set()
    for script in scripts.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        made.update(re.findall(r"^revision\b[^=]*= *['\"](\w+)['\"]", text, re.MULTILINE))
        for names in re.findall(r"^down_revision\b[^=]*=(.*)", text, re.MULTILINE):
            followed.update(re.findall(r"['\"](\w+)['\"]", names))
    last = made - followed
    return last.pop() if len(last) == 1 else None
