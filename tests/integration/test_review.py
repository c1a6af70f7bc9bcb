"""What a stranger's application does: migrations that add columns, keys that ignore case, triggers of
its own, tables dropped and made again."""
import pytest

from harness import cli, settle


def pair(world, schema, tables, server=None):
    """A server and two devices that have tracked the tables; it adopts them unless given."""
    server = server or world.server(schema=None, dev=True)
    devices = []
    for name in ("a", "b"):
        device = world.device(name, server, schema=schema, tables=None)
        device.init()
        for table in tables:
            device.track(table)
        device.disconnect()
        devices.append(device)
    return server, *devices


def refused(device):
    return device.run("SELECT entity_id, code FROM godwit_dead_letters")


# ---- Columns that come later ----

def test_a_not_null_column_added_later(world):
    """The server's rows are older than the column: NULL there is the default here."""
    server, a, b = pair(world, "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT)", ["p"])
    a.run("INSERT INTO p VALUES ('1', 'x'), ('2', 'x')")
    settle(a, b)
    a.run("ALTER TABLE p ADD COLUMN n INTEGER NOT NULL DEFAULT 7")
    a.track("p")
    a.run("UPDATE p SET n = 8 WHERE id = '1'")
    a.sync()
    b.run("INSERT INTO p VALUES ('3', 'from a device without the column')")
    settle(b, a)
    assert [row[2] for row in a.rows("p")] == [8, 7, 7]
    b.run("ALTER TABLE p ADD COLUMN n INTEGER NOT NULL DEFAULT 7")
    settle(b, a)
    assert b.rows("p") == a.rows("p")
    for device in (a, b):
        assert cli("doctor", device.path).code == 0
    assert server.query("SELECT n FROM p WHERE id = '1'") == [(8,)]


def test_the_servers_schema_gains_a_not_null_column(world):
    old = "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT);"
    new = "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT, n INTEGER NOT NULL DEFAULT 7);"
    server, a, b = pair(world, old, ["p"], world.server(schema=old))
    a.run("INSERT INTO p VALUES ('1', 'x')")
    settle(a, b)
    server.stop()
    with open(server.schema, "w") as stream:
        stream.write(new)
    server.start()
    assert server.rows("p") == [("1", "x", 7)]
    for device in (a, b):
        device.run("ALTER TABLE p ADD COLUMN n INTEGER NOT NULL DEFAULT 7")
    a.run("INSERT INTO p VALUES ('2', 'y', 9)")
    settle(a, b)
    assert b.rows("p") == a.rows("p") == server.rows("p") == [("1", "x", 7), ("2", "y", 9)]


def test_what_a_new_column_holds_before_it_is_tracked(world):
    server, a, b = pair(world, "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT)", ["p"])
    a.run("INSERT INTO p VALUES ('1', 'x'), ('2', 'x')")
    settle(a, b)
    a.run("ALTER TABLE p ADD COLUMN w TEXT")
    a.run("UPDATE p SET w = 'set' WHERE id = '1'")
    a.run("INSERT INTO p VALUES ('3', 'y', 'inserted')")
    b.run("ALTER TABLE p ADD COLUMN w TEXT")
    settle(a, b)
    want = [("1", "x", "set"), ("2", "x", None), ("3", "y", "inserted")]
    assert a.rows("p") == b.rows("p") == server.rows("p") == want


def test_a_column_renamed_without_a_migration(world):
    """For the server that is another column: its values are sent, not emptied."""
    server, a, b = pair(world, "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT)", ["p"])
    a.run("INSERT INTO p VALUES ('1', 'x'), ('2', 'y')")
    settle(a, b)
    for device in (a, b):
        device.run("ALTER TABLE p RENAME COLUMN t TO title")
    settle(a, b)
    assert a.rows("p") == b.rows("p") == [("1", "x"), ("2", "y")]
    assert server.query("SELECT title FROM p ORDER BY id") == [("x",), ("y",)]


# ---- Keys that ignore case ----

@pytest.mark.parametrize("adopted", [True, False])
def test_a_key_changes_its_case_only(world, adopted):
    schema = "CREATE TABLE tags (id TEXT COLLATE NOCASE PRIMARY KEY, t TEXT COLLATE NOCASE);"
    server, a, b = pair(world, schema, ["tags"], None if adopted else world.server(schema=schema))
    a.run("INSERT INTO tags VALUES ('Abc', 'Hello')")
    settle(a, b)
    b.run("UPDATE tags SET id = 'ABC', t = 'HELLO'")
    settle(b, a)
    assert a.rows("tags") == b.rows("tags") == server.rows("tags") == [("ABC", "HELLO")]
    assert refused(a) == refused(b) == []


# ---- Triggers of the application ----

STAMPED = """CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT, n INT, updated_at TEXT);
CREATE TRIGGER p_i AFTER INSERT ON p BEGIN
  UPDATE p SET updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || hex(randomblob(4)) WHERE id = NEW.id;
END;
CREATE TRIGGER p_u AFTER UPDATE ON p BEGIN
  UPDATE p SET updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || hex(randomblob(4)) WHERE id = NEW.id;
END;
CREATE VIRTUAL TABLE f USING fts5(t, content='p', content_rowid='rowid');
CREATE TRIGGER p_fi AFTER INSERT ON p BEGIN INSERT INTO f(rowid, t) VALUES (NEW.rowid, NEW.t); END;
CREATE TRIGGER p_fd AFTER DELETE ON p BEGIN
  INSERT INTO f(f, rowid, t) VALUES ('delete', OLD.rowid, OLD.t);
END;
CREATE TRIGGER p_fu AFTER UPDATE OF t ON p BEGIN
  INSERT INTO f(f, rowid, t) VALUES ('delete', OLD.rowid, OLD.t);
  INSERT INTO f(rowid, t) VALUES (NEW.rowid, NEW.t);
END;"""


def test_a_trigger_that_stamps_rows(world):
    """SET updated_at fires while changes of others are applied; all replicas agree all the same, and
    full-text indexes follow."""
    server, a, b = pair(world, STAMPED, ["p"])
    a.run("INSERT INTO p(id, t) VALUES ('1', 'well'), ('2', 'spring')")
    settle(a, b)
    assert a.rows("p") == b.rows("p") == server.rows("p")
    a.run("UPDATE p SET t = 'old well' WHERE id = '1'")
    b.run("UPDATE p SET n = 5")
    settle(a, b)
    assert a.rows("p") == b.rows("p") == server.rows("p")
    assert [row[1:3] for row in a.rows("p")] == [("old well", 5), ("spring", 5)]
    commits = server.query("SELECT max(commit_seq) FROM godwit_commit")
    settle(a, b)
    assert server.query("SELECT max(commit_seq) FROM godwit_commit") == commits, "no stamp answers a stamp"
    for device in (a, b):
        device.run("INSERT INTO f(f, rank) VALUES ('integrity-check', 1)")
        assert device.one("SELECT count(*) FROM f WHERE f MATCH 'old'") == 1
        assert cli("doctor", device.path).code == 0


# ---- Tables that go away ----

def test_a_table_dropped_and_made_again_is_filled_again(world):
    """Dropping a table is no deletion of its rows: not here, and not on the other devices."""
    schema = "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT)"
    server, a, b = pair(world, schema, ["p"])
    a.run("INSERT INTO p VALUES ('1', 'x'), ('2', 'y')")
    settle(a, b)
    a.run("DROP TABLE p")
    a.run(schema)
    assert "missing-rows" not in cli("doctor", "--fix", a.path).out
    settle(a, b)
    assert a.rows("p") == b.rows("p") == server.rows("p") == [("1", "x"), ("2", "y")]
    a.run("UPDATE p SET t = 'z' WHERE id = '1'")
    a.run("DELETE FROM p WHERE id = '2'")
    settle(a, b)
    assert a.rows("p") == b.rows("p") == server.rows("p") == [("1", "z")]


@pytest.mark.parametrize("rename", [True, False])
def test_changes_of_a_table_that_was_away_are_fetched(world, rename):
    schema = "CREATE TABLE p (id TEXT PRIMARY KEY, t TEXT)"
    server, a, b = pair(world, schema, ["p"])
    a.run("INSERT INTO p VALUES ('1', 'x'), ('2', 'y')")
    settle(a, b)
    a.run("ALTER TABLE p RENAME TO away" if rename else "DROP TABLE p")
    b.run("UPDATE p SET t = 'by b' WHERE id = '1'")
    b.run("DELETE FROM p WHERE id = '2'")
    b.sync()
    a.sync()
    a.run("ALTER TABLE away RENAME TO p" if rename else schema)
    settle(a, b)
    assert a.rows("p") == b.rows("p") == server.rows("p") == [("1", "by b")]


# ---- Mistakes ----

def test_the_reason_why_no_scope_is_known(world):
    """Without a scope in the settings it comes from the token; where that is unreadable, this is named."""
    server = world.server(schema=None, dev=True)
    a = world.device("a", server, schema="CREATE TABLE p (id TEXT PRIMARY KEY)", tables=None)
    missing = a.path + ".nothing"
    assert cli("init", a.path, "--url", server.url, "--token-file", missing).code == 0
    a.track("p")
    a.run("INSERT INTO p VALUES ('1')")
    done = a.sync_cli()
    assert done.code == 1 and "the token file can't be read" in done.err, done
    with open(missing, "w") as stream:
        stream.write("not.a.token\n")
    done = a.sync_cli()
    assert done.code == 1 and "the token names no scope" in done.err, done
    with open(missing, "w") as stream:
        stream.write(server.token() + "\n")
    a.sync()
    assert server.rows("p") == [("1",)]


@pytest.mark.parametrize("kind", ["REAL", "DOUBLE PRECISION", "NUMERIC", "DECIMAL(10,2)"])
def test_a_key_of_real_numbers_is_refused_at_once(world, kind):
    """Not row by row when they are sent."""
    server = world.server(schema=None, dev=True)
    a = world.device("a", server, schema=f"CREATE TABLE p (id {kind} PRIMARY KEY, t)", tables=None)
    a.init()
    done = cli("track", a.path, "p")
    assert done.code == 1 and "a key is TEXT, INTEGER or BLOB" in done.err, done
