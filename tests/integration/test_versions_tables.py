"""Tables come, go and change their names in updates of the application while operations wait for the
network: each operation arrives, or is kept with its content and a reason."""
import json

from harness import cli, settle
from test_versions import upgrade_server

PINS = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, height INTEGER);"
FORMS = "CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT, body TEXT CHECK (length(body) < 9));"
VERSION_1 = PINS + FORMS.replace(" CHECK (length(body) < 9)", "") + "PRAGMA user_version = 1;"


def migrate(device, version, *statements):
    device.script("SELECT godwit_migrate('begin');" + ";".join(statements) +
                  f";PRAGMA user_version = {version};SELECT godwit_migrate('end');")


def two(world, server):
    return [world.device(name, server, schema=VERSION_1, tables=("pins", "forms")) for name in "ab"]


def drop_in_a_migration(device):
    migrate(device, 2, "DROP TABLE forms")


def drop_plainly(device):
    device.script("DROP TABLE forms; PRAGMA user_version = 2;")


def check_dropped(world, drop):
    server = world.server(schema=PINS + FORMS)
    a, b = two(world, server)
    a.transaction("INSERT INTO pins VALUES ('p-1', 'Well', 2)", "INSERT INTO forms VALUES ('f-1', 'p-1', 'x')")
    settle(a, b)
    a.run("UPDATE forms SET body = 'sealed' WHERE id = 'f-1'")
    a.run("SELECT godwit_status()")  # seals
    a.run("INSERT INTO forms VALUES ('f-2', 'p-1', 'captured')")
    a.run("INSERT INTO forms VALUES ('f-3', 'p-1', 'much too long')")
    a.run("UPDATE forms SET pin_id = NULL WHERE id = 'f-3'")
    a.run("UPDATE pins SET title = 'goes on'")
    drop(a)
    assert a.pending() == 5
    b.run("UPDATE forms SET pin_id = 'p-2' WHERE id = 'f-1'")
    b.sync()
    a.sync_cli()
    # what the server takes has arrived, what it refuses is kept; the table's end stops nobody
    assert server.rows("forms") == [("f-1", "p-2", "sealed"), ("f-2", "p-1", "captured")]
    assert server.rows("pins") == [("p-1", "goes on", 2)] and a.pending() == 0
    letters = a.run("SELECT entity_id, operation, code, payload FROM godwit_dead_letters ORDER BY lsn")
    assert [r[:3] for r in letters] == [("f-3", "create", "check-failed"), ("f-3", "update", "dependency-failed")]
    assert json.loads(letters[0][3])["body"] == "much too long"
    # without the table nothing can be made again, and the content waits
    first = a.one("SELECT id FROM godwit_dead_letters ORDER BY lsn")
    fixed = json.dumps(dict(json.loads(letters[0][3]), body="short"))
    refused = cli("queue", "edit", a.path, first, "--payload", fixed)
    assert refused.code == 1 and "table forms is gone" in refused.err
    finding = cli("doctor", a.path)
    assert finding.code == 1 and "forms" in finding.out and "untrack" in finding.out
    a.run("SELECT godwit_untrack('forms')")
    settle(b, a)
    assert "much too long" in cli("queue", "export", a.path, "--failed").out
    # a later version has it again, with a row in it: its rows come back, and what waited goes
    a.script(FORMS + "INSERT INTO forms VALUES ('f-0', NULL, 'new')")
    a.track("forms")
    a.sync_cli()
    assert a.rows("forms") == server.rows("forms") and len(a.rows("forms")) == 3
    assert cli("queue", "edit", a.path, first, "--payload", fixed).code == 0
    a.sync()
    settle(b, a)
    assert server.rows("forms")[3:] == [("f-3", None, "short")]
    assert a.rows("forms") == b.rows("forms") == server.rows("forms")
    assert a.run("SELECT * FROM godwit_dead_letters") == [] and cli("doctor", a.path).code == 0


def test_a_table_is_dropped_while_its_operations_wait(world):
    check_dropped(world, drop_in_a_migration)


def test_a_table_is_dropped_outside_a_migration(world):
    check_dropped(world, drop_plainly)


def test_a_table_is_not_tracked_for_a_while(world):
    """What others did meanwhile comes when it is tracked again, and what was done here goes."""
    server = world.server(schema=PINS + FORMS)
    a, b = two(world, server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 1), ('p-2', 'Tree', 2), ('p-3', 'Hut', 3)")
    settle(a, b)
    a.run("SELECT godwit_untrack('pins')")
    a.run("UPDATE pins SET title = 'here' WHERE id = 'p-1'")
    a.run("DELETE FROM pins WHERE id = 'p-3'")
    b.run("UPDATE pins SET title = 'there' WHERE id = 'p-2'")
    b.run("INSERT INTO pins VALUES ('p-4', 'new', 4)")
    b.sync()
    a.sync()
    a.track("pins")
    settle(a, b)
    want = [("p-1", "here", 1), ("p-2", "there", 2), ("p-4", "new", 4)]
    assert a.rows("pins") == b.rows("pins") == server.rows("pins") == want
    # and one that was dropped and made again meanwhile is empty, not emptied
    a.script("SELECT godwit_untrack('pins'); DROP TABLE pins;" + PINS)
    a.track("pins")
    settle(a, b)
    assert a.rows("pins") == b.rows("pins") == server.rows("pins") == want


def test_a_table_changes_its_name_twice_with_operations_queued_at_each(world):
    server = world.server(schema=PINS + FORMS)
    a, b = two(world, server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 1), ('p-2', 'Tree', 2), ('p-3', 'Hut', 3)")
    settle(a, b)
    a.run("UPDATE pins SET title = 'of version 1' WHERE id = 'p-1'")
    a.run("INSERT INTO pins VALUES ('p-4', 'of version 1', 4)")
    migrate(a, 2, "ALTER TABLE pins RENAME TO wells", "UPDATE wells SET height = height + 10")
    a.run("UPDATE wells SET title = 'of version 2' WHERE id = 'p-2'")
    a.run("INSERT INTO wells VALUES ('p-5', 'of version 2', 5)")
    a.run("DELETE FROM wells WHERE id = 'p-3'")
    migrate(a, 3, "ALTER TABLE wells RENAME COLUMN title TO label", "ALTER TABLE wells RENAME TO places",
            "UPDATE places SET height = height + 100 WHERE id = 'p-1'")
    a.run("UPDATE places SET label = 'of version 3' WHERE id = 'p-4'")
    a.run("INSERT INTO places VALUES ('p-6', 'of version 3', 6)")
    assert sorted({r[0] for r in a.run("SELECT schema_ver FROM godwit_op WHERE state = 'pending'")}) == [1, 2]
    assert {q["entity_type"] for q in a.queue()} == {"pins"}
    b.run("UPDATE pins SET height = 40 WHERE id = 'p-2'")  # the old application goes on
    b.run("INSERT INTO pins VALUES ('p-7', 'of version 1', 7)")
    b.sync()
    upgrade_server(server, PINS.replace("title", "label") + FORMS, "[table pins]\nformer.label = title\n")
    settle(a, b)
    want = [("p-1", "of version 1", 111), ("p-2", "of version 2", 40), ("p-4", "of version 3", 14),
            ("p-5", "of version 2", 5), ("p-6", "of version 3", 6), ("p-7", "of version 1", 7)]
    assert a.rows("places") == b.rows("pins") == server.rows("pins") == want
    b.run("UPDATE pins SET title = 'from the old one' WHERE id = 'p-6'")
    settle(b, a)
    assert a.one("SELECT label FROM places WHERE id = 'p-6'") == "from the old one"
    for device in (a, b):
        assert device.run("SELECT * FROM godwit_dead_letters") == [] and device.pending() == 0
        assert cli("doctor", device.path).code == 0


def test_a_server_that_takes_any_table_adopts_columns_that_are_not_null(world):
    """It has no default for them: the device that has one fills it in."""
    server = world.server(schema=None, dev=True)
    a, b = two(world, server)
    a.run("INSERT INTO pins VALUES ('p-1', 'Well', 1)")
    settle(a, b)
    a.run("UPDATE pins SET title = 'before' WHERE id = 'p-1'")
    b.run("INSERT INTO pins VALUES ('p-2', 'of the old one', 2)")
    migrate(a, 2, "ALTER TABLE pins ADD COLUMN kind TEXT NOT NULL DEFAULT 'site'",
            "ALTER TABLE pins ADD COLUMN rank INTEGER NOT NULL DEFAULT 7")
    a.run("INSERT INTO pins VALUES ('p-3', 'of the new one', 3, 'house', 8)")
    a.run("UPDATE pins SET rank = 9 WHERE id = 'p-1'")
    settle(a, b)
    b.run("INSERT INTO pins VALUES ('p-4', 'later', 4)")
    b.run("UPDATE pins SET height = 30 WHERE id = 'p-3'")
    settle(b, a)
    want = [("p-1", "before", 1, "site", 9), ("p-2", "of the old one", 2, "site", 7),
            ("p-3", "of the new one", 30, "house", 8), ("p-4", "later", 4, "site", 7)]
    assert a.rows("pins") == want
    assert b.rows("pins") == [row[:3] for row in want] and a.run("SELECT * FROM godwit_dead_letters") == []
    assert cli("doctor", a.path).code == 0 and a.pending() == 0
    # a device that comes new has the columns' defaults too, and an edit of such a row is an edit
    c = world.device("c", server, schema=a.one("SELECT sql FROM sqlite_schema WHERE name = 'pins'") + ";",
                     tables=("pins",))
    c.sync()
    assert c.rows("pins") == want
    c.run("UPDATE pins SET rank = rank + 1 WHERE id = 'p-2'")
    migrate(b, 2, "ALTER TABLE pins ADD COLUMN kind TEXT NOT NULL DEFAULT 'site'",
            "ALTER TABLE pins ADD COLUMN rank INTEGER NOT NULL DEFAULT 7")
    settle(c, a, b)
    assert a.rows("pins") == b.rows("pins") == c.rows("pins")
    assert a.run("SELECT kind, rank FROM pins WHERE id = 'p-2'") == [("site", 8)]
    assert [cli("doctor", device.path).code for device in (a, b, c)] == [0, 0, 0]
