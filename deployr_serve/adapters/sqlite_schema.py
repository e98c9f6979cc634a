"""The tables of a SQLite store, as numbered steps: a file tells by its ``user_version`` how many it has taken."""

from __future__ import annotations

import sqlite3

from deployr_serve.core.errors import StoreUnavailable

_HAS_CHANGED = """
        CREATE TRIGGER {table}_{what} AFTER {what} ON {table} BEGIN
            DELETE FROM changes WHERE packet_id = NEW.packet_id;
            INSERT INTO changes (packet_id) VALUES (NEW.packet_id);
        END
"""
_IS_GONE = """
        CREATE TRIGGER packets_delete AFTER DELETE ON packets BEGIN
            DELETE FROM changes WHERE packet_id = OLD.packet_id;
        END
"""

_STEPS: tuple[tuple[str, ...], ...] = (
    # A file from before the steps were numbered has these tables already.
    (
        """
        CREATE TABLE IF NOT EXISTS packets (
            packet_id TEXT PRIMARY KEY, etag INTEGER NOT NULL, model_id TEXT NOT NULL, kind TEXT NOT NULL,
            body BLOB NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX IF NOT EXISTS packets_by_model ON packets (model_id, packet_id)",
        """
        CREATE TABLE IF NOT EXISTS deliveries (
            delivery_id TEXT PRIMARY KEY, packet_id TEXT NOT NULL REFERENCES packets, state TEXT NOT NULL,
            created_at TEXT NOT NULL, body BLOB NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (state, created_at)",
        """
        CREATE TABLE IF NOT EXISTS labels (
            label_id TEXT PRIMARY KEY, packet_id TEXT NOT NULL REFERENCES packets, rule TEXT NOT NULL,
            body BLOB NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX IF NOT EXISTS labels_by_packet ON labels (packet_id, rule)",
        """
        CREATE TABLE IF NOT EXISTS events (
            event_id TEXT PRIMARY KEY, packet_id TEXT NOT NULL, happened_at TEXT NOT NULL, body BLOB NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX IF NOT EXISTS events_by_packet ON events (packet_id, happened_at)",
        """
        CREATE TABLE IF NOT EXISTS records (
            kind TEXT NOT NULL, record_id TEXT NOT NULL, etag INTEGER NOT NULL, expires_at REAL, body BLOB NOT NULL,
            PRIMARY KEY (kind, record_id)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL",
    ),
    # Packets by when they were asked for. The index holds all that a page is chosen by, so that what lies outside the
    # period is passed over without being read.
    (
        "ALTER TABLE packets ADD COLUMN started_at TEXT NOT NULL DEFAULT ''",
        """
        UPDATE packets SET started_at = replace(json_extract(CAST(body AS TEXT), '$.started_at'), 'Z', '+00:00')
        """,
        "DROP INDEX packets_by_model",
        "CREATE INDEX packets_by_model ON packets (model_id, packet_id, started_at)",
    ),
    # Packets by patient. What stands in packets of before is filled in by `deployr store migrate`: it needs the key.
    (
        "ALTER TABLE packets ADD COLUMN patient_hash TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX packets_by_patient ON packets (patient_hash, packet_id)",
        "CREATE INDEX deliveries_by_packet ON deliveries (packet_id)",
    ),
    # Deliveries by when their next try is due, which of those of before is at once; and by id within a state.
    (
        "ALTER TABLE deliveries ADD COLUMN due_at TEXT NOT NULL DEFAULT ''",
        "UPDATE deliveries SET due_at = created_at",
        "DROP INDEX deliveries_by_state",
        "CREATE INDEX deliveries_due ON deliveries (state, due_at, delivery_id)",
        "CREATE INDEX deliveries_by_state ON deliveries (state, delivery_id)",
    ),
    # Labels that can be changed, by when that was last done; events by what happened. As above, the indexes hold all
    # that a page is chosen by.
    (
        "ALTER TABLE labels ADD COLUMN etag INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE labels ADD COLUMN attached_at TEXT NOT NULL DEFAULT ''",
        """
        UPDATE labels SET attached_at = replace(json_extract(CAST(body AS TEXT), '$.attached_at'), 'Z', '+00:00')
        """,
        "CREATE INDEX labels_by_rule ON labels (rule, packet_id, attached_at)",
        "ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT ''",
        "UPDATE events SET kind = json_extract(CAST(body AS TEXT), '$.kind')",
        "CREATE INDEX events_by_kind ON events (kind, event_id, happened_at)",
    ),
    # Packets in the order in which they, or what belongs to them, changed last. By triggers: no write can forget it.
    # No number is given twice, so that whoever reads on after one misses nothing.
    (
        "CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, packet_id TEXT NOT NULL UNIQUE)",
        "INSERT INTO changes (packet_id) SELECT packet_id FROM packets ORDER BY started_at",
        *(
            _HAS_CHANGED.format(table=table, what=what)
            for table in ("packets", "deliveries", "labels", "events")
            for what in ("insert", "update")
        ),
        _IS_GONE,
    ),
    # Packets under a number. Under their id, as a table without one, each comparison on the way to a packet reads its
    # neighbours whole, a dozen of 20 kB for every packet that is written.
    (
        """
        CREATE TABLE packets_numbered (
            place INTEGER PRIMARY KEY, packet_id TEXT NOT NULL UNIQUE, etag INTEGER NOT NULL, model_id TEXT NOT NULL,
            kind TEXT NOT NULL, started_at TEXT NOT NULL, patient_hash TEXT NOT NULL, body BLOB NOT NULL
        )
        """,
        """
        INSERT INTO packets_numbered (packet_id, etag, model_id, kind, started_at, patient_hash, body)
        SELECT packet_id, etag, model_id, kind, started_at, patient_hash, body FROM packets ORDER BY started_at
        """,
        "DROP TABLE packets",
        "ALTER TABLE packets_numbered RENAME TO packets",
        "CREATE INDEX packets_by_model ON packets (model_id, packet_id, started_at)",
        "CREATE INDEX packets_by_patient ON packets (patient_hash, packet_id)",
        *(_HAS_CHANGED.format(table="packets", what=what) for what in ("insert", "update")),
        _IS_GONE,
    ),
)


def migrate(db: sqlite3.Connection) -> None:
    """Take the steps that the file has not taken, all or none; one process at a time.

    A step that has been released is never edited: a change is a step more.

    Raises:
        StoreUnavailable: the file was made by a newer version, whose tables may mean something else.
    """
    if _steps_taken(db) == len(_STEPS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        taken = _steps_taken(db)
        if taken > len(_STEPS):
            raise StoreUnavailable(
                f"expected a store of schema version {len(_STEPS)} or older, this one has {taken}: use the version of"
                " deployr that made it, or a newer one"
            )
        for step in _STEPS[taken:]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_STEPS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _steps_taken(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
