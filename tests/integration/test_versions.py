"""An application's schema moves on while operations wait: nothing is lost, old and new applications
sync side by side."""
import json
import time

from harness import SLOW, cli, settle

V1 = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, height INTEGER, colour TEXT); PRAGMA user_version = 1;"
# title becomes name, colour goes, kind comes
TO_V2 = """
SELECT godwit_migrate('begin');
ALTER TABLE pins RENAME COLUMN title TO name;
ALTER TABLE pins DROP COLUMN colour;
ALTER TABLE pins ADD COLUMN kind TEXT NOT NULL DEFAULT 'site';
PRAGMA user_version = 2;
SELECT godwit_migrate('end');
"""
# height is in millimetres now and says so; a table comes
TO_V3 = """
SELECT godwit_migrate('begin');
ALTER TABLE pins ADD COLUMN height_mm INTEGER;
UPDATE pins SET height_mm = height * 1000;
ALTER TABLE pins DROP COLUMN height;
CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id), body TEXT);
PRAGMA user_version = 3;
SELECT godwit_migrate('end');
SELECT godwit_track('forms');
"""
SERVER_1 = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, height INTEGER, colour TEXT);"
SERVER_3 = """
CREATE TABLE pins (id TEXT PRIMARY KEY, name TEXT, kind TEXT NOT NULL DEFAULT 'site', height_mm INTEGER);
CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id), body TEXT);
"""
CONFIG_3 = """
[table pins]
former.name = title
dropped = colour
upcast.3.height_mm = :height * 1000
"""


def upgrade_server(server, schema, config):
    server.stop()
    with open(server.schema, "w") as stream:
        stream.write(schema)
    server.config = server.folder + "/godwit.conf"
    with open(server.config, "w") as stream:
        stream.write(config)
    server.start()


def device(world, name, server):
    return world.device(name, server, schema=V1, tables=("pins",))


def named(server):
    return server.query("SELECT id, name, kind, height_mm FROM pins ORDER BY id")


def test_three_versions_with_operations_queued_at_each(world):
    server = world.server(schema=SERVER_1)
    a, b = device(world, "a", server), device(world, "b", server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 2, 'red'), ('p-2', 'Tree', 9, 'green')")
    settle(a, b)
    # offline from here on; something of each version is in the queue, sealed or only captured
    a.run("UPDATE pins SET title = 'Old well', height = 3 WHERE id = 'p-1'")
    a.run("INSERT INTO pins VALUES ('p-3', 'of version 1', 1, 'blue')")
    b.run("UPDATE pins SET colour = 'black' WHERE id = 'p-1'")
    a.script(TO_V2)
    assert a.one("SELECT max(schema_ver) FROM godwit_op") == 1
    a.run("UPDATE pins SET name = 'Older well' WHERE id = 'p-1'")
    a.run("INSERT INTO pins(id, name, height) VALUES ('p-4', 'of version 2', 4)")
    a.run("UPDATE pins SET height = 10 WHERE id = 'p-2'")
    a.script(TO_V3)
    a.run("INSERT INTO pins(id, name, kind, height_mm) VALUES ('p-5', 'of version 3', 'new', 5500)")
    a.run("INSERT INTO forms VALUES ('f-1', 'p-5', 'x')")
    a.run("SELECT godwit_status()")
    assert a.pending() >= 7
    upgrade_server(server, SERVER_3, CONFIG_3)
    assert named(server) == [("p-1", "Well", "site", None), ("p-2", "Tree", "site", None)]
    a.sync()
    want = [("p-1", "Older well", "site", 3000), ("p-2", "Tree", "site", 10000),
            ("p-3", "of version 1", "site", 1000), ("p-4", "of version 2", "site", 4000),
            ("p-5", "of version 3", "new", 5500)]
    assert named(server) == want
    assert server.rows("forms") == [("f-1", "p-5", "x")]
    assert a.run("SELECT id, name, kind, height_mm FROM pins ORDER BY id") == want
    assert a.run("SELECT * FROM godwit_dead_letters") == [] and a.pending() == 0
    assert cli("doctor", a.path).code == 0
    # the old application goes on; it knows title
    b.sync()
    assert b.run("SELECT id, title, colour FROM pins WHERE id < 'p-3' ORDER BY id") == [
        ("p-1", "Older well", "red"), ("p-2", "Tree", "green")]  # nobody keeps colours any more
    b.run("UPDATE pins SET title = 'from the old one' WHERE id = 'p-2'")
    b.run("INSERT INTO pins VALUES ('p-6', 'also old', 6, 'grey')")
    settle(b, a)
    assert a.run("SELECT name, height_mm, kind FROM pins WHERE id IN ('p-2', 'p-6') ORDER BY id") == [
        ("from the old one", 10000, "site"), ("also old", 6000, "site")]
    # and is updated at last
    b.run("UPDATE pins SET title = 'queued', height = 7 WHERE id = 'p-6'")
    a.run("UPDATE pins SET name = 'meanwhile' WHERE id = 'p-3'")
    a.sync()
    b.script(TO_V2)
    b.script(TO_V3)
    settle(b, a)
    assert b.rows("pins") == a.rows("pins")
    assert b.run("SELECT name, height_mm FROM pins WHERE id IN ('p-3', 'p-6') ORDER BY id") == [
        ("meanwhile", 1000 * 1), ("queued", 7000)]
    assert b.run("SELECT * FROM godwit_dead_letters") == []
    assert [r[0] for r in server.query("SELECT name FROM pins WHERE id = 'p-3'")] == ["meanwhile"]


def test_a_migration_changes_what_it_renames(world):
    """The device has not heard of the new names yet, and two such migrations wait."""
    schema = ("CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, visits INTEGER, colour TEXT);"
              "PRAGMA user_version = 1;")
    server = world.server(schema=schema, config="[table pins]\npolicy.visits = counter\n")
    a, b = (world.device(name, server, schema=schema, tables=("pins",)) for name in "ab")
    a.run("INSERT INTO pins VALUES ('p-1', ' well ', 10, 'red'), ('p-2', 'tree', 20, 'green'), ('p-3', ' hut ', 30, '')")
    settle(a, b)
    b.run("UPDATE pins SET title = 'old oak', visits = visits + 1 WHERE id = 'p-2'")
    a.run("INSERT INTO pins VALUES ('p-4', ' of version 1 ', 1, NULL)")
    a.script("""
        SELECT godwit_migrate('begin');
        ALTER TABLE pins RENAME COLUMN title TO name;
        ALTER TABLE pins RENAME COLUMN visits TO seen;
        ALTER TABLE pins DROP COLUMN colour;
        ALTER TABLE pins ADD COLUMN kind TEXT DEFAULT 'site';
        UPDATE pins SET name = trim(name) WHERE name <> trim(name);
        UPDATE pins SET kind = 'house' WHERE id = 'p-3';
        UPDATE pins SET seen = seen + 100 WHERE id <> 'p-2';
        PRAGMA user_version = 2;
        SELECT godwit_migrate('end');""")
    a.run("UPDATE pins SET name = 'fountain', seen = seen + 1 WHERE id = 'p-1'")
    a.run("INSERT INTO pins VALUES ('p-5', 'of version 2', 5, 'cave')")
    a.script("""
        SELECT godwit_migrate('begin');
        ALTER TABLE pins RENAME COLUMN name TO label;
        ALTER TABLE pins RENAME COLUMN kind TO sort;
        UPDATE pins SET label = upper(label) WHERE id <> 'p-2';
        UPDATE pins SET label = NULL WHERE id = 'p-3';
        UPDATE pins SET seen = seen + 1000 WHERE id <> 'p-2';
        PRAGMA user_version = 3;
        SELECT godwit_migrate('end');""")
    upgrade_server(server, "CREATE TABLE pins (id TEXT PRIMARY KEY, label TEXT, seen INTEGER, sort TEXT DEFAULT 'site')", """
[table pins]
former.label = name, title
former.seen = visits
former.sort = kind
dropped = colour
policy.seen = counter
""")
    assert cli("doctor", a.path).code == 0
    settle(a, b)
    want = [("p-1", "FOUNTAIN", 1111, "site"), ("p-2", "old oak", 21, "site"), ("p-3", None, 1130, "house"),
            ("p-4", "OF VERSION 1", 1101, "site"), ("p-5", "OF VERSION 2", 1005, "cave")]
    assert server.query("SELECT id, label, seen, sort FROM pins ORDER BY id") == want
    assert a.run("SELECT id, label, seen, sort FROM pins ORDER BY id") == want
    assert b.run("SELECT id, title, visits FROM pins ORDER BY id") == [row[:3] for row in want]
    assert a.run("SELECT name FROM sqlite_schema WHERE name GLOB 'godwit_gained*'") == []
    assert cli("doctor", a.path).code == 0


def test_what_cannot_be_translated_is_kept(world):
    server = world.server(schema=SERVER_1)
    a = device(world, "a", server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 2, 'red')")
    a.sync()
    a.run("UPDATE pins SET height = 3")
    a.run("UPDATE pins SET title = 'goes through'")
    upgrade_server(server, SERVER_3, """
[table pins]
former.name = title
dropped = colour
upcast.3.height_mm = :height * :unit
""")
    a.sync_cli()
    letters = a.run("SELECT code, detail, payload FROM godwit_dead_letters")
    assert len(letters) == 1 and letters[0][0] == "invalid-value" and "height_mm" in letters[0][1]
    assert json.loads(letters[0][2]) == {"height": 3}
    assert server.query("SELECT name FROM pins") == [("goes through",)]


ENDLESS = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)"
TENS = "json_each('[0,1,2,3,4,5,6,7,8,9]')"
LONG = f"(WITH t AS (SELECT value FROM {TENS}) SELECT count(*) FROM t, t, t, t, t, t, t, t)"


def test_settings_about_older_schemas_are_checked(world):
    for line, part in [("former.nope = x", "nope"), ("former.id = key", "key"), ("upcast.3.name = (", "upcast"),
                       ("upcast.x.name = 1", "VERSION"), ("upcast.2.name = ?1", ":COLUMN"),
                       ("upcast.2.name = (SELECT name FROM sqlite_schema)", "not from tables"),
                       ("upcast.2.name = load_extension('x')", "does not understand"),
                       (f"upcast.2.name = {ENDLESS}", "not from tables"),
                       (f"upcast.2.name = {LONG}", "time or memory"),
                       ("upcast.2.name = hex(zeroblob(600000))", "time or memory"),
                       ('upcast.2.name = "caption"', "does not understand"),
                       ("dropped = id", "key"), ("former.name = kind", "kind")]:
        server = world.server(schema=SERVER_3, config=f"[table pins]\n{line}\n", start=False)
        server.spawn()
        assert server.process.wait(20) == 1 and part in server.log(), (line, server.log())
        done = cli("serve", "--check-config", "--config", server.config, "--schema", server.schema,
                   "--data", server.data + "-none")
        assert done.code == 1 and part in done.err, (line, done)
    done = cli("serve", "--check-config", "--schema", server.schema, "--data", server.data + "-none",
               "--config", server.folder + "/good.conf") if write_good(server) else None
    assert done.code == 0, done


def test_an_expression_that_a_value_makes_expensive(world):
    """What a device says must not keep the only writer busy, or take its memory."""
    server = world.server(schema=SERVER_1)
    a, b = device(world, "a", server), device(world, "b", server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 2, '[1,2]')")
    b.run("INSERT INTO pins VALUES ('p-2', 'Well', 1000000000, ?)", json.dumps([1] * 2000))
    upgrade_server(server, SERVER_3, """
[table pins]
former.name = title
dropped = colour
upcast.3.height_mm = length(printf('%*d', :height, 1))
upcast.3.name = (SELECT count(*) FROM json_each(:colour) AS x, json_each(:colour) AS y, json_each(:colour))
""")
    start = time.monotonic()
    b.sync_cli()
    a.sync_cli()
    assert time.monotonic() - start < 10 * SLOW
    assert [r[0] for r in b.run("SELECT code FROM godwit_dead_letters")] == ["invalid-value"]
    assert [r[:2] for r in server.rows("pins")] == [("p-1", "8")]


def write_good(server):
    with open(server.folder + "/good.conf", "w") as stream:
        return stream.write("[server]\nkeep_log = 10d\n" + CONFIG_3)


def test_a_table_is_renamed(world):
    """On the device; for the server and for others it stays what it was."""
    server = world.server(schema=SERVER_1)
    a, b = device(world, "a", server), device(world, "b", server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 2, 'red')")
    settle(a, b)
    a.run("UPDATE pins SET title = 'queued'")
    a.run("ALTER TABLE pins RENAME TO wells")
    a.run("INSERT INTO wells VALUES ('p-2', 'after', 1, NULL)")
    a.run("SELECT godwit_status()")
    a.run("UPDATE wells SET height = 5 WHERE id = 'p-2'")
    b.script("SELECT godwit_migrate('begin'); ALTER TABLE pins RENAME TO spots;"
             "UPDATE spots SET height = height + 1; SELECT godwit_migrate('end')")
    b.run("UPDATE spots SET colour = 'blue'")
    settle(a, b)
    want = [("p-1", "queued", 3, "blue"), ("p-2", "after", 5, None)]
    assert server.rows("pins") == a.rows("wells") == b.rows("spots") == want
    for device_ in (a, b):
        assert cli("doctor", device_.path).code == 0
