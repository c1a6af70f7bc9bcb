"""Writes from elsewhere on PostgreSQL: what psql, other services or an old application write to tracked
tables reaches every device as a commit, merges with what devices did meanwhile, and is held up by
nothing that Godwit does."""
import json
import time

import pytest

import postgres

PINS = "CREATE TABLE pins (id text PRIMARY KEY, title text, note text, lat double precision);"
DEVICE = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, note TEXT, lat REAL);"


@pytest.fixture
def db(cluster):
    d = cluster.fresh()
    yield d
    d.close()


@pytest.fixture
def pins(db, world):
    """Tracked pins in scope field, a server, a device."""
    db.run(PINS)
    db.track("pins", scope="field")
    server = db.server(world)
    device = world.device("phone", server, schema=DEVICE, tables=("pins",))
    device.sync()
    return device


def outside(db, sql):
    db.run(sql)
    db.drained()


def test_rows_that_were_there_reach_devices(db, world):
    db.run(PINS + "INSERT INTO pins SELECT 'p' || i, 'Pin ' || i, NULL, i / 2.0 FROM generate_series(1, 2500) i")
    assert "rows to sync: 2500" in db.track("pins", scope="field")
    server = db.server(world)
    db.drained()
    device = world.device("phone", server, schema=DEVICE, tables=("pins",))
    device.sync()
    assert device.run("SELECT count(*), sum(lat), max(title) FROM pins") == [(2500, 1563125.0, "Pin 999")]
    # one commit has at most a thousand of them; the log tells the same as the snapshot
    commits, _ = server.pull()
    assert sorted(len(c["changes"]) for c in commits) == [500, 1000, 1000]
    assert all(c["author"]["deviceId"] is None and c["author"]["userId"] == "postgres" for c in commits)


def test_each_kind_of_statement(db, pins):
    outside(db, "INSERT INTO pins VALUES ('a', 'Well', 'deep', 1.5), ('b', 'Hut', NULL, 2)")
    pins.sync()
    assert pins.run("SELECT * FROM pins ORDER BY id") == [("a", "Well", "deep", 1.5), ("b", "Hut", None, 2.0)]
    outside(db, "UPDATE pins SET title = title || '!' WHERE id = 'a'")
    outside(db, "UPDATE pins SET title = title")  # nothing
    outside(db, "DELETE FROM pins WHERE id = 'b'")
    outside(db, "UPDATE pins SET id = 'c' WHERE id = 'a'")
    outside(db, "INSERT INTO pins VALUES ('c', 'Spring') ON CONFLICT (id) DO UPDATE SET title = 'Spring'")
    commits, _ = pins.server.pull()
    seen = [[(x["kind"], x["entityId"], sorted(x.get("columns", {}))) for x in c["changes"]] for c in commits]
    every = ["id", "lat", "note", "title"]
    assert seen[1:] == [[("upsert", "a", ["title"])], [("delete", "b", [])],
                        [("delete", "a", []), ("upsert", "c", every)] if seen[3][0][0] == "delete" else
                        [("upsert", "c", every), ("delete", "a", [])],
                        [("upsert", "c", ["title"])]]
    pins.sync()
    assert pins.run("SELECT * FROM pins") == [("c", "Spring", "deep", 1.5)]
    outside(db, "TRUNCATE pins")
    pins.sync()
    assert pins.run("SELECT * FROM pins") == []


def test_a_transaction_is_one_commit(db, world):
    db.run(PINS + "CREATE TABLE forms (id int, pin_id text REFERENCES pins, body text, PRIMARY KEY (pin_id, id))")
    db.track("pins", "forms", scope="field")
    server = db.server(world)
    one, two, engine = db.session(), db.session(), db.session()
    engine.run("BEGIN; SELECT 1 FROM godwit.meta WHERE k = 'outbox' FOR UPDATE;")
    one.run("BEGIN; INSERT INTO pins VALUES ('p', 'one');")
    two.run("BEGIN; INSERT INTO pins VALUES ('q', 'two'); COMMIT;")
    one.run("INSERT INTO forms VALUES (1, 'p', 'x'), (2, 'q', 'y'); COMMIT;")
    engine.run("COMMIT;")
    db.drained()
    commits, _ = server.pull()
    assert [sorted(x["entityId"] for x in c["changes"]) for c in commits] == [["q"], ['["p","1"]', '["q","2"]', "p"]]
    one.run("BEGIN; DELETE FROM forms; INSERT INTO pins VALUES ('r'); DELETE FROM pins WHERE id = 'r'; ROLLBACK;")
    outside(db, "BEGIN; INSERT INTO pins VALUES ('r'); DELETE FROM pins WHERE id = 'r'; COMMIT")
    assert len(server.pull()[0]) == 2  # nobody ever saw it


def test_it_merges_with_what_devices_did(db, pins):
    outside(db, "INSERT INTO pins VALUES ('a', 'Well', 'deep', 1)")
    pins.sync()
    # different columns: both; the same column: the later one wins, the other is kept
    pins.run("UPDATE pins SET note = 'dry' WHERE id = 'a'")
    outside(db, "UPDATE pins SET lat = 7 WHERE id = 'a'")
    pins.sync()
    assert db.rows("SELECT * FROM pins") == [["a", "Well", "dry", "7"]]
    assert pins.run("SELECT * FROM pins") == [("a", "Well", "dry", 7.0)]
    assert db.run("SELECT count(*) FROM godwit.conflict") == "0"
    pins.run("UPDATE pins SET title = 'from the phone' WHERE id = 'a'")
    time.sleep(0.05)
    outside(db, "UPDATE pins SET title = 'from the office' WHERE id = 'a'")
    pins.sync()
    assert db.run("SELECT title FROM pins") == "from the office"
    assert pins.run("SELECT title FROM pins") == [("from the office",)]
    assert db.rows("SELECT kind, winner, ours ->> 'title', theirs ->> 'title' FROM godwit.conflict") == [
        ["field", "theirs", "from the phone", "from the office"]]
    # a delete against an edit that it did not know of: the edit wins, on both sides
    pins.run("UPDATE pins SET note = 'in use' WHERE id = 'a'")
    outside(db, "DELETE FROM pins")
    pins.sync()
    assert db.rows("SELECT * FROM pins") == [["a", "from the office", "in use", "7"]]
    assert db.run("SELECT kind FROM godwit.conflict ORDER BY commit_seq DESC LIMIT 1") == "delete_update"


def test_a_push_meets_what_was_not_taken_over_yet(db, pins):
    """Somebody keeps the server from taking it over: pushes of these rows wait, and only of these."""
    outside(db, "INSERT INTO pins VALUES ('a', 'Well', 'deep', 1), ('b', 'Hut', 'old', 1)")
    pins.sync()
    engine = db.session()
    engine.run("BEGIN; SELECT 1 FROM godwit.meta WHERE k = 'outbox' FOR UPDATE;")
    db.run("UPDATE pins SET lat = 9 WHERE id = 'a'; INSERT INTO pins VALUES ('c', 'new', NULL, 0)")

    def push(name, number, kind="update"):
        op = {"id": number, "idempotencyKey": number, "operation": kind, "entityType": "pins", "entityId": name,
              "payload": {"note": "dry"}}
        return pins.server.push([op], scope="field")
    assert push("a", "1").status == 503 and push("c", "2", "create").status == 503
    assert push("b", "3").status == 200
    pins.run("UPDATE pins SET note = 'mine'")
    pins.run("INSERT INTO pins VALUES ('c', 'mine', NULL, 0)")
    sync = pins.spawn_sync()
    time.sleep(0.1)
    engine.run("COMMIT;")
    sync.wait(30)
    pins.sync()
    db.drained()
    pins.sync()
    rows = [["a", "Well", "mine", "9"], ["b", "Hut", "mine", "1"], ["c", "mine", "", "0"]]
    assert db.rows("SELECT * FROM pins ORDER BY id") == rows
    assert [[i, t, n or "", str(int(x))] for i, t, n, x in pins.run("SELECT * FROM pins ORDER BY id")] == rows


def test_nobody_outside_waits_for_the_engine(db, pins):
    """Somebody holds all that Godwit locks for good measure: its scope, its outbox's turn, a device."""
    outside(db, "INSERT INTO pins SELECT 'p' || i, 't' FROM generate_series(1, 50) i")
    engine, writer = db.session(), db.session()
    engine.run("BEGIN; SELECT 1 FROM godwit.scope FOR UPDATE; SELECT 1 FROM godwit.meta FOR UPDATE;"
               "SELECT 1 FROM godwit.device FOR UPDATE;")
    start = time.monotonic()
    assert writer.run("UPDATE pins SET title = 'u'; DELETE FROM pins WHERE id = 'p1';", timeout=5) == ""
    assert time.monotonic() - start < 2
    engine.run("ROLLBACK;")
    db.drained()
    assert len(pins.server.pull()[0]) == 3


def test_somebody_outside_takes_his_time(db, pins):
    """An open transaction of somebody's holds a row: pushes of other rows go on, one of this row is asked to
    come again, and nobody is ended by a deadlock."""
    outside(db, "INSERT INTO pins SELECT 'p' || i, 't' FROM generate_series(1, 9) i")
    slow = db.session()
    assert slow.run("BEGIN; UPDATE pins SET title = 'slow' WHERE id = 'p1';") == ""
    op = {"id": "1", "idempotencyKey": "1", "operation": "update", "entityType": "pins", "entityId": "p2", "payload": {"title": "quick"}}
    assert pins.server.push([op], scope="field").json["results"][0]["status"] == "success"
    blocked = pins.server.push([dict(op, id="2", idempotencyKey="2", entityId="p1")], scope="field")
    assert blocked.status == 503 and blocked.headers["Retry-After"] == "1"
    # it goes on to where the engine was
    assert slow.run("UPDATE pins SET title = 'slow' WHERE id = 'p2'; COMMIT;") == ""
    db.drained()
    assert pins.server.push([dict(op, id="3", idempotencyKey="3", entityId="p1")], scope="field").json["results"][0]["status"] == "success"
    assert db.rows("SELECT id, title FROM pins WHERE id IN ('p1', 'p2') ORDER BY 1") == [["p1", "quick"], ["p2", "slow"]]


def test_large_statements_stay_usable(db, world):
    db.run(PINS + "CREATE TABLE plain (LIKE pins INCLUDING ALL);"
           "INSERT INTO pins SELECT 'p' || i, 'title ' || i, 'note', i FROM generate_series(1, 100000) i;"
           "INSERT INTO plain SELECT * FROM pins; ANALYZE")
    db.run(postgres.harness.cli("pg", "install").out)
    db.run("INSERT INTO godwit.tracked VALUES ('pins', 'public', 0); SELECT godwit.watch('pins');"
           "TRUNCATE godwit.outbox; VACUUM ANALYZE")
    took = {}
    for table in ("plain", "pins"):
        start = time.monotonic()
        db.run(f"UPDATE {table} SET title = title || '!', lat = lat + 1")
        took[table] = time.monotonic() - start
    assert db.run("SELECT count(*) FROM godwit.outbox") == "100000"
    ratio = took["pins"] / took["plain"]
    print(f"100,000 rows: {took['plain']:.2f} s without, {took['pins']:.2f} s with triggers, ratio {ratio:.1f}")
    assert ratio < 12


def test_columns_that_old_readers_look_at(db, world):
    db.run("CREATE TABLE pins (id text PRIMARY KEY, title text, deleted_at timestamptz, made_by text,"
           " updated_at timestamptz, vector_clock jsonb)")
    db.track("pins", scope="field")
    config = "[table pins]\ndeleted_column = deleted_at\ncreated_by_device_column = made_by\nupdated_at_column = updated_at\n"
    server = db.server(world, config=config)
    schema = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT);"
    device = world.device("phone", server, schema=schema, tables=("pins",))
    device.run("INSERT INTO pins VALUES ('a', 'Well'), ('b', 'Hut')")
    device.sync()
    assert db.run("SELECT count(*) FROM pins WHERE made_by IS NOT NULL AND updated_at IS NOT NULL AND"
                  " vector_clock ->> made_by IS NOT NULL AND deleted_at IS NULL") == "2"
    device.run("DELETE FROM pins WHERE id = 'b'")
    device.sync()
    assert db.rows("SELECT id, deleted_at IS NULL FROM pins ORDER BY 1") == [["a", "t"], ["b", "f"]]
    # and the other way: an old application marks, revives and edits
    outside(db, "UPDATE pins SET title = 'Spring' WHERE id = 'a'")
    head = db.run("SELECT head FROM godwit.scope WHERE scope = 'field'")
    assert json.loads(db.run("SELECT vector_clock FROM pins WHERE id = 'a'"))["$"] == int(head)
    device.sync()
    assert device.run("SELECT * FROM pins") == [("a", "Spring")]
    outside(db, "UPDATE pins SET deleted_at = now() WHERE id = 'a'")
    device.sync()
    assert device.run("SELECT * FROM pins") == []
    outside(db, "UPDATE pins SET deleted_at = NULL")
    device.sync()
    assert device.run("SELECT * FROM pins ORDER BY id") == [("a", "Spring"), ("b", "Hut")]


def test_scopes_by_a_column(db, world):
    db.run("CREATE TABLE pins (id text PRIMARY KEY, team text, title text)")
    db.run("INSERT INTO pins VALUES ('1', 'red', 'a'), ('2', 'blue', 'b'), ('3', NULL, 'c')")
    db.track("pins", scope_column="team")
    server = db.server(world)
    db.drained()
    assert [x["entityId"] for c in server.pull(scope="red", token=server.token(scope="red"))[0]
            for x in c["changes"]] == ["1"]
    outside(db, "UPDATE pins SET team = 'red' WHERE id = '2'")
    red = server.pull(scope="red", token=server.token(scope="red"))[0]
    blue = server.pull(scope="blue", token=server.token(scope="blue"))[0]
    assert [(x["kind"], x["entityId"]) for c in red for x in c["changes"]] == [("upsert", "1"), ("upsert", "2")]
    assert [(x["kind"], x["entityId"]) for c in blue for x in c["changes"]] == [("upsert", "2"), ("delete", "2")]
    # a row of nobody's waits, and says so
    told = postgres.harness.cli("pg", "status", "--db", db.url, "--json").json
    assert told[0]["waiting"] == 1 and "which scope" in told[0]["problem"], told


def test_untracked_and_tracked_again(db, pins):
    outside(db, "INSERT INTO pins VALUES ('a', 'Well', NULL, 1), ('b', 'Hut', NULL, 2)")
    db.run(postgres.harness.cli("pg", "untrack", "pins").out)
    db.run("UPDATE pins SET title = 'unseen' WHERE id = 'a'; DELETE FROM pins WHERE id = 'b'; INSERT INTO pins VALUES ('c')")
    assert db.run("SELECT count(*) FROM godwit.outbox") == "0"
    assert db.run("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'godwit%'") == "0"
    pins.server.restart()
    refused = pins.server.push([{"id": "1", "idempotencyKey": "1", "operation": "create", "entityType": "pins", "entityId": "x", "payload": {}}],
                               scope="field")
    assert refused.json["results"][0]["error"]["code"] == "unknown-entity"
    db.track("pins", scope="field")
    pins.server.restart()
    db.drained()
    pins.sync()
    assert pins.run("SELECT * FROM pins ORDER BY id") == [("a", "unseen", None, 1.0), ("c", None, None, None)]


def test_what_triggers_of_the_application_write(db, world):
    """A device's write makes a trigger write to another tracked table: that reaches the device, too."""
    db.run(PINS + "CREATE TABLE totals (id text PRIMARY KEY, pins int); INSERT INTO totals VALUES ('all', 0);"
           "CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE totals SET pins = pins + 1;"
           " RETURN NULL; END $$; CREATE TRIGGER bump AFTER INSERT ON pins FOR EACH ROW EXECUTE FUNCTION bump()")
    db.track("pins", "totals", scope="field")
    server = db.server(world)
    db.drained()
    device = world.device("phone", server, schema=DEVICE + "CREATE TABLE totals (id TEXT PRIMARY KEY, pins INTEGER);",
                          tables=("pins", "totals"))
    device.sync()
    device.run("INSERT INTO pins VALUES ('a', 'x', NULL, 1), ('b', 'y', NULL, 2)")
    device.sync()
    db.drained()
    device.sync()
    assert device.run("SELECT * FROM totals") == [("all", 2)]
    assert db.run("SELECT pins FROM totals") == "2"


def test_a_table_is_altered_under_way(db, pins):
    """Columns come and go between a write and its taking over; what can't be read any more waits aside."""
    engine = db.session()
    engine.run("BEGIN; SELECT 1 FROM godwit.meta WHERE k = 'outbox' FOR UPDATE;")
    db.run("INSERT INTO pins VALUES ('a', 'Well', 'deep', 1); ALTER TABLE pins ADD COLUMN n int;"
           "INSERT INTO pins VALUES ('b', 'Hut', 'old', 2, 5); ALTER TABLE pins ALTER COLUMN note TYPE int USING 7;"
           "UPDATE pins SET lat = 3 WHERE id = 'a'")
    engine.run("COMMIT;")
    db.drained()
    assert db.rows("SELECT pk, kind, waiting FROM godwit.outbox ORDER BY id") == [["a", "I", "t"], ["b", "I", "t"]]
    assert "outbox" in pins.server.log()
    pins.server.restart()
    pins.sync()
    assert pins.run("SELECT id, lat FROM pins") == [("a", 3.0)]


def test_names_that_would_be_mistaken(db, world):
    """Columns and tables called like what the triggers' own SQL uses."""
    names = ["n", "o", "d", "t", "k", "tx", "tbl", "pk", "kind", "cols", "image", "actor", "at", "select", "We'i\"rd"]
    columns = ", ".join('"' + name.replace('"', '""') + '" text' for name in names)
    db.run(f'CREATE TABLE "old_rows" (id text PRIMARY KEY, {columns})')
    db.track("old_rows", scope="field")
    db.server(world)
    db.run('INSERT INTO "old_rows" (id, n, o) VALUES (\'x\', \'1\', \'2\')')
    db.drained()
    db.run('UPDATE "old_rows" SET n = 3, o = 4, image = \'i\'; DELETE FROM "old_rows"')
    db.drained()
    assert db.rows("SELECT kind, cols ->> 'n', cols ->> 'image' FROM godwit.change ORDER BY commit_seq") == [
        ["U", "1", ""], ["U", "3", "i"], ["D", "", ""]]
    assert db.run("SELECT last_image ->> 'n' FROM godwit.row") == "3"


def test_the_actor_is_named(db, pins):
    db.run("CREATE ROLE clerk_of_tests LOGIN; GRANT ALL ON pins TO clerk_of_tests")
    # Supabase's way: a claim of the request
    db.run("SELECT set_config('request.jwt.claims', '{\"role\": \"x\", \"sub\": \"7f-ana\"}', false);"
           "INSERT INTO pins VALUES ('a')")
    db.run("SET ROLE clerk_of_tests; INSERT INTO pins VALUES ('b')")
    db.run("SET SESSION AUTHORIZATION clerk_of_tests; INSERT INTO pins VALUES ('c')")
    db.drained()
    commits, _ = pins.server.pull()
    assert [c["author"]["userId"] for c in commits] == ["7f-ana", "clerk_of_tests", "clerk_of_tests"]
