"""Each type of PostgreSQL's, written by a device and by psql: the device ends up with what PostgreSQL stores,
and PostgreSQL with what it would have stored of the same text."""
import pytest

from harness import cli

# type, what a device writes, what PostgreSQL then holds (as text), what every device then holds
TYPES = [
    ("smallint", 7, "7", 7),
    ("integer", "42", "42", 42),
    ("bigint", 9007199254740993, "9007199254740993", 9007199254740993),
    ("real", 1.1, "1.1", 1.1),
    ("double precision", 0.1, "0.1", 0.1),
    ("double precision", float("inf"), "Infinity", float("inf")),
    ("numeric", 12.5, "12.5", 12.5),
    ("numeric(10,2)", 3.14159, "3.14", 3.14),
    ("numeric(40,9)", "12345678901234567890.123456789", "12345678901234567890.123456789", "12345678901234567890.123456789"),
    ("boolean", 1, "true", 1),
    ("boolean", "no", "false", 0),
    ("text", "Zürich 🏔", "Zürich 🏔", "Zürich 🏔"),
    ("text", "", "", ""),
    ("varchar(40)", "kept", "kept", "kept"),
    ("char(5)", "ab", "ab   ", "ab   "),
    ("bytea", b"\x00\xff\x10", "\\x00ff10", b"\x00\xff\x10"),
    ("uuid", "6E1E6CF6-8A5C-4F0C-9D2A-3F1B5C7D9E00", "6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00",
     "6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00"),
    ("json", '{"b":1, "a":[1.50]}', '{"b":1, "a":[1.50]}', '{"b":1, "a":[1.50]}'),
    ("jsonb", '{"b":1, "a":[1.50]}', '{"a": [1.50], "b": 1}', '{"a": [1.50], "b": 1}'),
    ("timestamptz", "2026-01-02T03:04:05.678+01:00", "2026-01-02 02:04:05.678+00", "2026-01-02T02:04:05.678+00:00"),
    ("timestamp", "2026-01-02 03:04:05", "2026-01-02 03:04:05", "2026-01-02T03:04:05"),
    ("date", "2026-02-28", "2026-02-28", "2026-02-28"),
    ("time", "03:04", "03:04:00", "03:04:00"),
    ("interval", "90 minutes", "01:30:00", "01:30:00"),
    ("interval", "-1 day -02:03:04", "-1 days -02:03:04", "-1 days -02:03:04"),
    ("text[]", '["a","b c",null,"\\"q\\""]', '{a,"b c",NULL,"\\"q\\""}', '["a","b c",null,"\\"q\\""]'),
    ("integer[]", "[1,2,3]", "{1,2,3}", "[1,2,3]"),
    ("integer[]", "{4,5}", "{4,5}", "[4,5]"),
    ("mood", "glad", "glad", "glad"),
    ("inet", "192.0.2.5/24", "192.0.2.5/24", "192.0.2.5/24"),
    ("point", "(1,2)", "(1,2)", "(1,2)"),
    ("int4range", "[1,5]", "[1,6)", "[1,6)"),
    ("tsvector", "a fat cat", "'a' 'cat' 'fat'", "'a' 'cat' 'fat'"),
    ("money_amount", 5, "5.00", 5),
    ("place", "(47.5,8)", "(47.5,8)", "(47.5,8)"),
]
MADE = ("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN money_amount AS numeric(8,2) CHECK (VALUE >= 0);"
        "CREATE TYPE place AS (lat float8, lng float8);")
COLUMNS = [f"c{i}" for i in range(len(TYPES))]
DECLARED = {"smallint": "INTEGER", "integer": "INTEGER", "bigint": "INTEGER", "real": "REAL",
            "double precision": "REAL", "bytea": "BLOB", "numeric": "NUMERIC", "money_amount": "NUMERIC",
            "boolean": "BOOLEAN", "numeric(10,2)": "NUMERIC"}


@pytest.fixture
def db(cluster):
    d = cluster.fresh()
    yield d
    d.close()


def same(a, b):
    return type(a) is type(b) and a == b


def test_every_type_comes_back_as_it_is_stored(db, world):
    columns = ", ".join(f"{name} {kind}" for name, (kind, *_) in zip(COLUMNS, TYPES))
    db.run(MADE + f"CREATE TABLE things (id text PRIMARY KEY, {columns})")
    db.track("things", scope="field")
    server = db.server(world)
    declared = ", ".join(f"{name} {DECLARED.get(kind, 'TEXT')}" for name, (kind, *_) in zip(COLUMNS, TYPES))
    schema = f"CREATE TABLE things (id TEXT PRIMARY KEY, {declared});"
    one = world.device("one", server, schema=schema, tables=("things",))
    two = world.device("two", server, schema=schema, tables=("things",))
    one.run(f"INSERT INTO things VALUES ('device', {', '.join('?' for _ in TYPES)})", *[t[1] for t in TYPES])
    one.sync()
    stored = {}
    for name, (kind, _, text, _) in zip(COLUMNS, TYPES):
        stored[name] = db.run(f"SET TimeZone = 'UTC'; SELECT {name}::text FROM things WHERE id = 'device'")
        expected = text.strip() if kind.startswith("char(") else text
        assert stored[name].strip() == expected.strip(), (kind, stored[name])
    # the same values by psql, changed and put back, so that they travel by way of the outbox
    db.run("INSERT INTO things SELECT 'outside', " + ", ".join(COLUMNS) + " FROM things")
    db.drained()
    for device in (one, two, one):
        device.sync()
    for device in (one, two):
        for row in ("device", "outside"):
            got = device.run(f"SELECT {', '.join(COLUMNS)} FROM things WHERE id = ?", row)[0]
            for (kind, _, _, expected), value in zip(TYPES, got):
                assert same(value, expected), (device.name, row, kind, value, expected)
    assert db.run("SELECT count(*) FROM godwit.conflict") == "0"
    # and NULL is NULL
    db.run("UPDATE things SET " + ", ".join(f"{c} = NULL" for c in COLUMNS))
    db.drained()
    one.sync()
    assert set(one.run(f"SELECT {', '.join(COLUMNS)} FROM things WHERE id = 'device'")[0]) == {None}
    one.run("UPDATE things SET c0 = 3, c26 = '[7]' WHERE id = 'device'")
    one.sync()
    two.sync()
    assert db.run("SELECT c0 || c26::text FROM things WHERE id = 'device'") == "3{7}"


@pytest.mark.parametrize("kind, declared, key, other", [
    ("text", "TEXT", "a'b", "ü"), ("uuid", "TEXT", "6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00",
                                   "00000000-0000-4000-8000-000000000001"),
    ("bigint", "INTEGER", -9223372036854775808, 7), ("smallint", "INTEGER", 1, 2),
    ("bytea", "BLOB", b"\x00\x01", b"\xff"), ("mood", "TEXT", "sad", "glad"), ("varchar(9)", "TEXT", "k", "l"),
])
def test_each_type_of_key(db, world, kind, declared, key, other):
    db.run(MADE + f"CREATE TABLE things (id {kind} PRIMARY KEY, v text)")
    db.track("things", scope="field")
    server = db.server(world)
    device = world.device("one", server, schema=f"CREATE TABLE things (id {declared} PRIMARY KEY, v TEXT);", tables=())
    device.init()
    device.track("things", **({"ids": "app"} if declared == "INTEGER" else {"initial": "upload"}))
    device.disconnect()
    device.run("INSERT INTO things VALUES (?, 'made')", key)
    device.run("INSERT INTO things VALUES (?, 'made')", other)
    device.sync()
    device.run("UPDATE things SET v = 'changed' WHERE id = ?", key)
    device.run("DELETE FROM things WHERE id = ?", other)
    device.sync()
    assert db.run("SELECT v FROM things") == "changed"
    db.run("UPDATE things SET v = v || ' outside'")
    db.drained()
    device.sync()
    assert device.run("SELECT id, v FROM things") == [(key, "changed outside")]
    db.run("DELETE FROM things")
    db.drained()
    device.sync()
    assert device.run("SELECT count(*) FROM things") == [(0,)]


def test_composite_keys(db, world):
    db.run("CREATE TABLE lines (form uuid, no int, blob bytea, t text, PRIMARY KEY (no, blob, form))")
    db.track("lines", scope="field")
    server = db.server(world)
    schema = "CREATE TABLE lines (form TEXT, no INTEGER, blob BLOB, t TEXT, PRIMARY KEY (no, blob, form));"
    device = world.device("one", server, schema=schema, tables=("lines",))
    device.run("INSERT INTO lines VALUES ('6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00', 5, x'00ff', 'made')")
    device.sync()
    db.run("UPDATE lines SET t = 'outside'; INSERT INTO lines VALUES ('6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00', 6, '', 'new')")
    db.drained()
    device.sync()
    assert device.run("SELECT no, blob, t FROM lines ORDER BY no") == [(5, b"\x00\xff", "outside"), (6, b"", "new")]


def test_what_the_database_computes(db, world):
    """Generated and identity columns, defaults, triggers that change what is written."""
    db.run("CREATE TABLE things (id text PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED,"
           " no bigint GENERATED ALWAYS AS IDENTITY, maybe bigint GENERATED BY DEFAULT AS IDENTITY,"
           " made timestamptz DEFAULT '2026-01-01 00:00Z', name text NOT NULL DEFAULT 'nobody');"
           "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := upper(NEW.name);"
           " RETURN NEW; END $$;"
           "CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION shout()")
    db.track("things", scope="field")
    server = db.server(world)
    schema = "CREATE TABLE things (id TEXT PRIMARY KEY, a INTEGER, twice INTEGER, no INTEGER, maybe INTEGER, made TEXT, name TEXT);"
    device = world.device("one", server, schema=schema, tables=("things",))
    token = server.token()
    made = server.push([{"id": "1", "idempotencyKey": "1", "operation": "create", "entityType": "things",
                         "entityId": "x", "payload": {"a": 4}}], scope="field", token=token).json["results"][0]
    whole = {"id": "x", "a": 4, "twice": 8, "no": 1, "maybe": 1, "made": "2026-01-01T00:00:00+00:00", "name": "NOBODY"}
    assert made["result"] == whole, made
    device.sync()
    assert device.run("SELECT * FROM things") == [("x", 4, 8, 1, 1, whole["made"], "NOBODY")]
    device.run("UPDATE things SET a = 5, name = 'ana' WHERE id = 'x'")
    device.sync()
    assert device.run("SELECT a, twice, name FROM things") == [(5, 10, "ANA")]
    db.run("UPDATE things SET a = 6; INSERT INTO things (id, a) VALUES ('y', 1)")
    db.drained()
    device.sync()
    assert device.run("SELECT id, a, twice, no, maybe, name FROM things ORDER BY id") == [
        ("x", 6, 12, 1, 1, "ANA"), ("y", 1, 2, 2, 2, "NOBODY")]


@pytest.mark.parametrize("how", ["ALWAYS", "BY DEFAULT"])
def test_keys_that_the_database_numbers(db, world, how):
    db.run(f"CREATE TABLE things (id bigint GENERATED {how} AS IDENTITY PRIMARY KEY, v text);"
           "INSERT INTO things (v) VALUES ('one'), ('two')")
    db.track("things", scope="field")
    server = db.server(world)
    device = world.device("one", server, schema="CREATE TABLE things (id INTEGER PRIMARY KEY, v TEXT);", tables=())
    device.init()
    device.track("things", ids="app")
    device.disconnect()
    device.sync()
    assert device.run("SELECT * FROM things") == [(1, "one"), (2, "two")]
    device.run("INSERT INTO things VALUES (1000, 'device')")
    device.run("UPDATE things SET v = 'changed' WHERE id = 1")
    device.sync()
    assert db.rows("SELECT * FROM things ORDER BY 1") == [["1", "changed"], ["2", "two"], ["1000", "device"]]
    db.run("INSERT INTO things (v) VALUES ('three')")
    db.drained()
    device.sync()
    assert device.run("SELECT count(*), max(id) FROM things") == [(4, 1000)]


def test_a_value_that_the_column_refuses(db, world):
    db.run(MADE + "CREATE TABLE things (id text PRIMARY KEY, n int, m mood, a money_amount)")
    db.track("things", scope="field")
    server = db.server(world)
    device = world.device("one", server, schema="CREATE TABLE things (id TEXT PRIMARY KEY, n INTEGER, m TEXT, a NUMERIC);", tables=("things",))
    for i, values in enumerate([("'word'", "NULL", "NULL"), ("NULL", "'bored'", "NULL"), ("NULL", "NULL", "-1"),
                                ("99999999999", "NULL", "NULL"), ("5", "'sad'", "1")]):
        device.run(f"INSERT INTO things VALUES ('t{i}', {', '.join(values)})")
    device.sync_cli()
    assert db.run("SELECT id FROM things") == "t4"
    assert device.run("SELECT code, count(*) FROM godwit_dead_letters GROUP BY 1 ORDER BY 1") == [
        ("check-failed", 1), ("invalid-value", 3)]


def test_status_shows_keys(db):
    db.run(MADE + "CREATE TABLE things (a mood, b uuid, PRIMARY KEY (b, a))")
    db.track("things")
    assert cli("pg", "status", "--db", db.url, "--json").json[0]["key"] == "b uuid, a mood"
