"""Translates errors of a database: which database it is, what is wrong with it, and what to do."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from dialin.errors import DatabaseError
from dialin.store.tables import METADATA
from dialin.texts import one_line

# Parts of the messages of SQLite and of psycopg. SQLite's error codes would not tell these cases apart: a missing
# table and a missing column are both SQLITE_ERROR.
_DAMAGED = ("file is not a database", "malformed", "disk I/O error", "not a database")
_GONE = ("unable to open database", "readonly database", "no such table", "UndefinedTable")
_OTHER_VERSION = ("no such column", "has no column", "UndefinedColumn")
_NOT_NULL = re.compile(r"NOT NULL constraint failed: (\w+)\.(\w+)|null value in column \"(\w+)\" of relation \"(\w+)\"")


def explain_errors(engine: sa.Engine) -> None:
    """Make an engine raise DatabaseError wherever `explained` returns one."""

    def handle(context: sa.engine.ExceptionContext) -> None:
        error = explained(context.original_exception, engine.url)
        if error is not None:
            raise error from context.original_exception

    sa.event.listen(engine, "handle_error", handle)


def explained(error: BaseException, url: sa.URL | str) -> DatabaseError | None:
    """Return the DatabaseError for an error of the database's driver.

    None for an error that may be temporary, such as a lock, and for one that a wrong statement has caused.
    """
    said = f"{type(error).__name__}: {error}"
    name, remedy = shown(url), _remedy(url)
    if any(text in said for text in _DAMAGED):
        return DatabaseError(f"{name} is damaged ({_first_line(error)}); {remedy}")
    if any(text in said for text in _GONE):
        return DatabaseError(
            f"{name} is missing, has lost its tables, or cannot be opened or written ({_first_line(error)}); {remedy}"
        )
    if any(text in said for text in _OTHER_VERSION) or _names_unknown_column(said):
        text = "was made by another version of dialin, or of Optuna"
        return DatabaseError(f"{name} {text} ({_first_line(error)}); use that version with it, or another folder")
    return None


def shown(url: sa.URL | str) -> str:
    """Return a database's name for a message: the file of a SQLite database, else the URL without its password."""
    target = sa.make_url(url)
    if target.get_backend_name() == "sqlite" and target.database:
        return target.database
    return target.render_as_string(hide_password=True)


def other_schema(url: sa.URL | str, library: str, found: str, known: Collection[str], upgrade: str) -> DatabaseError:
    """Return the error for tables of another library in a version that the installed one does not work with.

    `known`: the versions that it can upgrade from, by the command `upgrade`; others are of a newer release.
    """
    said = f"{shown(url)} has {library}'s tables in version {found}"
    if found in known:
        remedy = f"Stop everything that uses it, make a copy of it, and run: {upgrade}"
        return DatabaseError(f"{said}, which is older than the installed {library} works with. {remedy}")
    remedy = f"Nothing was changed; install that version of {library}, or use another folder"
    return DatabaseError(f"{said}, which a newer {library} than the installed one has upgraded it to. {remedy}")


def check_mlflow_file(database: Path) -> None:
    """Raise DatabaseError if MLflow's SQLite file exists and cannot be read, or is of another version."""
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("select name from sqlite_master where name = 'alembic_version'").fetchall()
            found = connection.execute("select version_num from alembic_version").fetchone() if tables else None
    except sqlite3.DatabaseError as error:
        if any(text in str(error) for text in _DAMAGED):
            remedy = "restore a copy of it, or move it away: dialin sync STUDY writes a study into a new one"
            raise DatabaseError(f"{database} is damaged ({_first_line(error)}); {remedy}") from error
        return  # such as a locked file: MLflow repeats its own attempt
    known, head = mlflow_revisions()
    if found is not None and known and found[0] != head:
        url = f"sqlite:///{database}"
        raise other_schema(url, "MLflow", found[0], known, f"mlflow db upgrade {url}")


def mlflow_revisions() -> tuple[set[str], str]:
    """Return the revisions of MLflow's tables that the installed MLflow knows, and the newest of them.

    They are read from the files of its migrations, because importing MLflow takes seconds. MLflow does not document
    that folder: `tests/store/test_upstream.py` has a canary test for it. If the files are not found, both results are
    empty, and MLflow itself refuses an old database when it opens it.
    """
    found = importlib.util.find_spec("mlflow")
    folder = Path(found.origin).parent / "store" / "db_migrations" / "versions" if found and found.origin else Path()
    links = [re.findall(r"^(?:down_)?revision = [\"'](\w+)", file.read_text(), re.M) for file in folder.glob("*_*.py")]
    revisions = {names[0] for names in links if names}
    heads = revisions - {name for names in links for name in names[1:]}
    return (revisions, heads.pop()) if len(heads) == 1 else (set(), "")


def replaced_file(engine: sa.Engine) -> DatabaseError:
    """Return the error for a SQLite file that was removed or replaced while it was open."""
    return DatabaseError(f"{shown(engine.url)} was removed or replaced while it was in use; {_remedy(engine.url)}")


def _remedy(url: sa.URL | str) -> str:
    target = sa.make_url(url)
    if target.get_backend_name() != "sqlite" or not target.database:
        return "restore a copy of it"
    studies = Path(target.database).parent / "studies"
    kept = f"; the folders in {studies} still hold the event logs, logs and checkpoints" if studies.is_dir() else ""
    return f"restore a copy of it, or use another folder{kept}"


def _names_unknown_column(said: str) -> bool:
    """Return whether an error names a required column that this version does not know. A newer version has added it, or
    someone has changed the schema by hand."""
    found = _NOT_NULL.search(said)
    if found is None:
        return False
    table, column = (found[1], found[2]) if found[1] else (found[4], found[3])
    return table in METADATA.tables and column not in METADATA.tables[table].c


def _first_line(error: BaseException) -> str:
    return one_line(str(error).partition("\n")[0], 200)
