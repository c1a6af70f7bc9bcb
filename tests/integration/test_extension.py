"""The loadable extension in real hosts: Python's sqlite3 and the sqlite3 shell."""
import json
import os
import re
import shutil
import sqlite3
import subprocess

import pytest

from harness import BUILD

EXTENSION = os.path.join(BUILD, "godwit")
SETTINGS = json.dumps({"url": "http://127.0.0.1:9", "scope": "s", "token": "t"})


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "app.db")


def connect(path, extension=True, uri=False, timeout=5):
    db = sqlite3.connect(path, isolation_level=None, uri=uri, timeout=timeout)
    if extension:
        db.enable_load_extension(True)
        db.load_extension(EXTENSION)
        db.enable_load_extension(False)
    return db


def one(db, sql, *values):
    row = db.execute(sql, values).fetchone()
    return row[0] if row else None


@pytest.fixture
def app(path):
    db = connect(path)
    db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, x, y)")
    db.execute("SELECT godwit_init(?)", (SETTINGS,))
    db.execute("SELECT godwit_track('t')")
    yield db
    db.close()


def log(db):
    return db.execute("SELECT op, pk, v0, v1, o0, o1 FROM godwit_log ORDER BY lsn").fetchall()


def shell(path, *statements):
    script = f".load {EXTENSION}\n" + "\n".join(statements)
    done = subprocess.run(["sqlite3", "-batch", path], input=script, capture_output=True, text=True, timeout=60)
    return done.stdout.strip(), done.stderr.strip()


# ---- loading ----

def test_loading_changes_nothing(path):
    db = connect(path)
    db.execute("CREATE TABLE t (id TEXT PRIMARY KEY)")
    db.close()
    before = open(path, "rb").read()
    db = connect(path)
    assert re.fullmatch(r"\d+\.\d+\.\d+", one(db, "SELECT godwit_version()"))
    assert one(db, "SELECT count(*) FROM sqlite_schema WHERE type <> 'index'") == 1
    assert one(db, "SELECT count(*) FROM temp.sqlite_schema") == 0
    assert one(db, "PRAGMA journal_mode") == "delete"
    for call in ("godwit_status()", "godwit_sync()", "godwit_next()", "godwit_doctor()", "godwit_untrack('t')",
                 "godwit_enqueue('create', 'a', 'b', '{}')", "godwit_migrate('begin')"):
        with pytest.raises(sqlite3.Error, match="does not use Godwit"):
            db.execute(f"SELECT {call}")
    db.close()
    assert open(path, "rb").read() == before


def test_only_the_entry_points_are_exported():
    listed = subprocess.run(["nm", "-D", "--defined-only", EXTENSION + ".so"], capture_output=True, text=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert names == {"sqlite3_extension_init", "sqlite3_godwit_init"}


def test_loading_into_a_database_that_uses_godwit_raises_durability(app, path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)
    assert (one(db, "PRAGMA journal_mode"), one(db, "PRAGMA synchronous")) == ("wal", 2)
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES ('a', 1, 1)")
    db.execute("INSERT INTO t VALUES ('b', 1, 1)")
    db.execute("COMMIT")
    assert db.execute("SELECT * FROM godwit_group").fetchall() == [(1, 2)], "without any call"
    db.close()


def test_setting_up_from_sql_raises_durability(path):
    db = connect(path)
    assert one(db, "PRAGMA journal_mode") == "delete"
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("SELECT godwit_init(?)", (SETTINGS,))
    assert (one(db, "PRAGMA journal_mode"), one(db, "PRAGMA synchronous")) == ("wal", 2)
    assert one(db, "PRAGMA recursive_triggers") == 0
    db.close()


def test_the_shell(path):
    out, err = shell(path, "CREATE TABLE t (id TEXT PRIMARY KEY, x);", f"SELECT godwit_init('{SETTINGS}');",
                     "SELECT godwit_track('t');", "BEGIN; INSERT INTO t VALUES ('a', 1), ('b', 2); COMMIT;",
                     "SELECT count(*) FROM sync_queue WHERE status = 'pending';", "SELECT first, last FROM godwit_group;")
    assert (out.splitlines(), err) == (["ok", "ok", "2", "1|2"], "")


def test_connections_close(app, path):
    """Nothing pins a connection that used everything: its files disappear with the last one."""
    app.execute("BEGIN")
    app.execute("INSERT INTO t VALUES ('a', 1, 1)")
    app.execute("SELECT godwit_enqueue('create', 't', 'a', '{}')").fetchall()
    app.execute("COMMIT")
    app.execute("SELECT godwit_status()").fetchall()
    app.execute("SELECT godwit_next()").fetchall()
    app.close()
    assert not os.path.exists(path + "-wal") and not os.path.exists(path + "-shm")


def test_loading_twice(app):
    app.enable_load_extension(True)
    app.load_extension(EXTENSION)
    app.execute("INSERT INTO t VALUES ('a', 1, 1), ('b', 1, 1)")
    assert app.execute("SELECT * FROM godwit_group").fetchall() == [(1, 2)]
    assert json.loads(one(app, "SELECT godwit_status()"))["queueLength"] == 2


# ---- functions ----

def test_status(app):
    app.execute("INSERT INTO t VALUES ('a', 1, 1)")
    status = json.loads(one(app, "SELECT godwit_status()"))
    assert status["tables"] == ["t"] and status["pendingOperations"] == 1 and status["scope"] == "s"
    assert status["lastSuccessfulSyncMs"] == 0 and status["migrating"] is False


def test_uuid7_grows_and_may_be_a_default(app):
    first, second = one(app, "SELECT godwit_uuid7()"), None
    for _ in range(50):
        second = one(app, "SELECT godwit_uuid7()")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first)
    assert first[:13] <= second[:13] and first != second
    app.execute("PRAGMA trusted_schema = OFF")
    app.execute("CREATE TABLE d (id TEXT PRIMARY KEY DEFAULT (godwit_uuid7()), x)")
    app.execute("INSERT INTO d(x) VALUES (1)")
    assert len(one(app, "SELECT id FROM d")) == 36


def test_clocks(app):
    assert one(app, "SELECT godwit_clock_compare(NULL, '{}')") == "equal"
    assert one(app, "SELECT godwit_clock_compare('{\"a\":1}', '{\"b\":1}')") == "concurrent"
    with pytest.raises(sqlite3.Error, match="vector clock"):
        app.execute("SELECT godwit_clock_merge('{\"a\":-1}', '{}')")


def test_functions_that_change_things_can_not_hide_in_the_schema(app):
    app.execute("CREATE VIEW trap AS SELECT godwit_untrack('t') AS x")
    with pytest.raises(sqlite3.Error, match="unsafe use"):
        app.execute("SELECT * FROM trap")
    app.execute("CREATE TRIGGER trap2 AFTER INSERT ON t BEGIN SELECT godwit_migrate('begin'); END")
    with pytest.raises(sqlite3.Error, match="unsafe use"):
        app.execute("INSERT INTO t VALUES ('a', 1, 1)")


def test_enqueue_options(app):
    first = one(app, "SELECT godwit_enqueue('create', 'photo', 'p', '{\"n\":1}', '{\"clientKey\":\"k\"}')")
    second = one(app, "SELECT godwit_enqueue('update', 'photo', 'p', '{\"n\":2}', ?)",
                 json.dumps({"dependsOn": [first]}))
    assert one(app, "SELECT depends_on FROM sync_queue WHERE id = ?", second) == first
    with pytest.raises(sqlite3.Error, match=first):
        app.execute("SELECT godwit_enqueue('create', 'photo', 'q', '{}', '{\"clientKey\":\"k\"}')")
    for options in ("[]", "{", '{"other":1}', '{"dependsOn":"x"}', '{"dependsOn":[1]}', '{"clientKey":5}'):
        with pytest.raises(sqlite3.Error):
            app.execute("SELECT godwit_enqueue('create', 'photo', 'q', '{}', ?)", (options,))
    assert one(app, "SELECT count(*) FROM sync_queue") == 2


def test_bad_arguments(app):
    for call in ("godwit_init('{\"url\":1}')", "godwit_init('{\"uri\":\"http://x\"}')", "godwit_init(NULL)",
                 "godwit_track()", "godwit_track(NULL)", "godwit_track('t', 'x', 'y')", "godwit_track('t', '{')",
                 "godwit_migrate(NULL)", "godwit_migrate('start')", "godwit_feed(1, 2)", "godwit_feed('{}')",
                 "godwit_retry(NULL)", "godwit_retry('[')", "godwit_retry('[1]')", "godwit_retry('[\"x\"]')",
                 "godwit_retry('a', 'b')", "godwit_edit('x', '{}')", "godwit_edit('{\"x\":1}')", "godwit_edit('[]')",
                 "godwit_discard('x')", "godwit_discard('[\"x\"]', 'y')", "godwit_discard()", "godwit_export(1, 2)", "godwit_enqueue('create')"):
        with pytest.raises(sqlite3.Error, match="godwit: .{8}"):
            app.execute(f"SELECT {call}")
    assert log(app) == []


def test_waiting_and_events(world, server):
    a = world.device("a", server)
    a.run("SELECT godwit_events_keep(1)")
    a.run("INSERT INTO pins(id) VALUES ('p')")
    operation = a.one("SELECT id FROM sync_queue")
    receipt = json.loads(a.one("SELECT godwit_wait(?, 10000)", operation))
    assert receipt == {"id": operation, "outcome": "applied", "commitSeq": 1}
    assert a.run("SELECT outcome FROM godwit_receipts") == [("applied",)]
    events = a.run("SELECT seq, kind FROM godwit_events")
    assert sorted(kind for _, kind in events) == ["online", "outcome", "queued", "sent"]
    a.run("SELECT godwit_events_done(?)", events[-1][0])
    assert a.run("SELECT * FROM godwit_events") == []
    server.stop()
    a.run("INSERT INTO pins(id) VALUES ('q')")
    operation = a.one("SELECT id FROM sync_queue WHERE entity_id = 'q'")
    assert json.loads(a.one("SELECT godwit_wait(?, 300)", operation)) == {"id": operation, "outcome": "pending"}


def test_first_call_inside_a_transaction(app, path):
    """As an ORM does it: everything, the enqueue too, in one transaction of a fresh connection."""
    db = connect(path)
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES ('a', 1, 1)")
    named = one(db, "SELECT godwit_enqueue('create', 't', 'a', '{}')")
    db.execute("INSERT INTO t VALUES ('b', 1, 1)")
    db.execute("COMMIT")
    assert one(db, "SELECT id FROM sync_queue WHERE entity_id = 'a'") == named
    assert db.execute("SELECT * FROM godwit_group").fetchall() == [(1, 2)]
    db.close()


# ---- other writers, other schemas ----

def test_a_writer_without_the_extension(app, path):
    plain = connect(path, extension=False)
    plain.execute("PRAGMA trusted_schema = OFF")
    plain.execute("INSERT INTO t VALUES ('a', 1, 2)")
    plain.execute("UPDATE t SET x = 3")
    plain.close()
    subprocess.run(["sqlite3", path, "DELETE FROM t"], check=True)
    assert log(app) == [(1, "a", 1, 2, None, None), (2, "a", 3, None, 1, None), (3, "a", None, None, 3, 2)]
    assert one(app, "SELECT count(*) FROM godwit_group") == 0
    assert {r[0] for r in app.execute("SELECT operation FROM sync_queue")} == {"create", "update", "delete"}


def test_a_connection_that_loaded_before_the_tables_existed(path):
    early = connect(path)
    early.execute("CREATE TABLE t (id TEXT PRIMARY KEY, x, y)")
    other = connect(path)
    other.execute("SELECT godwit_track('t')")
    early.execute("INSERT INTO t VALUES ('a', 1, 1), ('b', 1, 1)")
    assert len(log(early)) == 2, "captured at once"
    early.execute("SELECT godwit_status()").fetchall()
    early.execute("INSERT INTO t VALUES ('c', 1, 1), ('d', 1, 1)")
    assert early.execute("SELECT * FROM godwit_group").fetchall() == [(3, 4)], "grouped from its next call on"
    early.close()
    other.close()


def test_drop_column_needs_and_survives_a_migration(app):
    app.execute("INSERT INTO t VALUES ('a', 1, 2)")
    with pytest.raises(sqlite3.Error, match="error in trigger"):
        app.execute("ALTER TABLE t DROP COLUMN y")
    app.execute("SELECT godwit_migrate('begin')")
    app.execute("ALTER TABLE t DROP COLUMN y")
    app.execute("SELECT godwit_migrate('end')")
    app.execute("UPDATE t SET x = 9")
    assert one(app, "SELECT v0 FROM godwit_log ORDER BY lsn DESC LIMIT 1") == 9
    assert json.loads(one(app, "SELECT godwit_doctor()")) == {"findings": [], "remaining": 0}


def test_an_orm_rebuilds_the_table(app):
    """The twelve steps of SQLite's manual, as Drizzle and Alembic run them, without telling Godwit."""
    app.execute("INSERT INTO t VALUES ('a', 1, 2)")
    app.execute("PRAGMA foreign_keys = OFF")
    app.execute("BEGIN")
    app.execute("CREATE TABLE __new_t (id TEXT PRIMARY KEY NOT NULL, x INTEGER, z TEXT DEFAULT 'z')")
    app.execute("INSERT INTO __new_t(id, x) SELECT id, x FROM t")
    app.execute("DROP TABLE t")
    app.execute("ALTER TABLE __new_t RENAME TO t")
    app.execute("COMMIT")
    app.execute("INSERT INTO t VALUES ('missed', 5, 'q')")
    report = json.loads(one(app, "SELECT godwit_doctor()"))
    assert [f["code"] for f in report["findings"]] == ["unknown-rows"] and "1 rows" in report["findings"][0]["text"]
    app.execute("INSERT INTO t VALUES ('seen', 6, 'q')")
    assert json.loads(one(app, "SELECT godwit_doctor(1)"))["remaining"] == 0
    captured = [r[0] for r in app.execute("SELECT entity_id FROM sync_queue WHERE operation = 'create'")]
    assert captured == ["a", "seen", "missed"]


def test_a_dropped_table_is_named_by_the_doctor_and_a_renamed_one_followed(app):
    app.execute("ALTER TABLE t RENAME TO u")
    assert json.loads(one(app, "SELECT godwit_doctor()")) == {"findings": [], "remaining": 0}
    app.execute("INSERT INTO u(id) VALUES ('a')")
    assert one(app, "SELECT count(*) FROM sync_queue WHERE entity_id = 'a'") == 1
    app.execute("DROP TABLE u")
    report = json.loads(one(app, "SELECT godwit_doctor()"))
    assert [f["code"] for f in report["findings"]] == ["table-missing"] and '"u"' in report["findings"][0]["text"]


def test_the_applications_own_sync_queue_is_left_alone(path):
    db = connect(path)
    db.execute("CREATE TABLE sync_queue (id TEXT PRIMARY KEY, mine)")
    db.execute("CREATE TABLE t (id TEXT PRIMARY KEY)")
    db.execute("SELECT godwit_track('t')")
    db.execute("INSERT INTO sync_queue VALUES ('a', 1)")
    assert one(db, "SELECT mine FROM sync_queue") == 1
    assert json.loads(one(db, "SELECT godwit_status()"))["tables"] == ["t"]
    db.close()


# ---- files that can not be used ----

def content(path):
    return {ending: open(path + ending, "rb").read() for ending in ("", "-wal") if os.path.exists(path + ending)}


def test_a_read_only_file(path):
    db = connect(path)
    db.execute("CREATE TABLE t (id TEXT PRIMARY KEY)")
    db.close()
    before = content(path)
    db = connect(f"file:{path}?mode=ro", uri=True)
    for call in ("godwit_track('t')", "godwit_init('{\"url\":\"http://x\"}')"):
        with pytest.raises(sqlite3.OperationalError, match="can only be read|readonly"):
            db.execute(f"SELECT {call}")
    db.close()
    assert content(path) == before


def test_a_file_locked_for_long(path):
    db = connect(path, timeout=0.2)
    db.execute("CREATE TABLE t (id TEXT PRIMARY KEY)")
    locker = connect(path, extension=False)
    locker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        db.execute("SELECT godwit_track('t')")
    locker.execute("ROLLBACK")
    assert one(locker, "SELECT count(*) FROM sqlite_schema WHERE name GLOB 'godwit*'") == 0
    assert one(db, "SELECT godwit_track('t')") == "ok"
    locker.close()
    db.close()


def test_a_file_that_is_no_database(path):
    with open(path, "wb") as stream:
        stream.write(b"GIF89a" + bytes(range(256)) * 20)
    before = content(path)
    db = connect(path)
    for call in ("godwit_track('t')", "godwit_status()", "godwit_sync()"):
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            db.execute(f"SELECT {call}")
    db.close()
    assert content(path) == before


def test_a_full_disk(app, path):
    app.execute("INSERT INTO t VALUES ('a', 1, 1)")
    app.execute("CREATE TABLE u (id TEXT PRIMARY KEY, x)")
    app.executemany("INSERT INTO u VALUES (?, ?)", [(f"k{i:04}", "x" * 900) for i in range(900)])
    app.execute("PRAGMA max_page_count = 1")
    before = app.execute("SELECT count(*), max(lsn) FROM godwit_log").fetchone()
    schema = app.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        app.execute("SELECT godwit_track('u')")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        app.executemany("INSERT INTO t VALUES (?, 1, ?)", [(f"n{i}", "y" * 3000) for i in range(50)])
    rows, newest = app.execute("SELECT count(*), max(lsn) FROM godwit_log").fetchone()
    assert rows - before[0] == one(app, "SELECT count(*) - 1 FROM t"), "a row and its change, or neither"
    assert app.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall() == schema
    app.execute("PRAGMA max_page_count = 100000")
    assert one(app, "SELECT godwit_track('u')") == "ok"
    assert one(app, "SELECT count(*) FROM sync_queue WHERE entity_type = 'u'") == 900


def test_a_really_full_disk(tmp_path):
    """A small file system, where the test may make one."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(mount)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        db = connect(str(mount / "app.db"))
        db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, x)")
        db.execute("SELECT godwit_track('t')")
        kept = 0
        with pytest.raises(sqlite3.OperationalError, match="full"):
            for i in range(2000):
                db.execute("INSERT INTO t VALUES (?, ?)", (f"k{i}", "z" * 800))
                kept += 1
        assert one(db, "SELECT count(*) FROM t") == kept == one(db, "SELECT count(*) FROM godwit_log")
        db.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_copy_of_a_damaged_file(app, path, tmp_path):
    app.executemany("INSERT INTO t VALUES (?, ?, 1)", [(f"k{i}", "x" * 300) for i in range(300)])
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = str(tmp_path / "damaged.db")
    shutil.copy(path, damaged)
    with open(damaged, "r+b") as stream:
        stream.seek(4096 * 12)
        stream.write(b"\xff" * 4096 * 40)
    db = connect(damaged)
    try:
        report = json.loads(one(db, "SELECT godwit_doctor()"))
        assert "damaged" in [f["code"] for f in report["findings"]], report
    except sqlite3.DatabaseError as error:
        assert re.search("malformed|damaged", str(error)), error
    db.close()
