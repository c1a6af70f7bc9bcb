#!/usr/bin/env bats
# godwit pg: the SQL it prints, run as people run it, and what it says of a database.

bats_require_minimum_version 1.5.0

setup_file() {
    root="$(cd "$BATS_TEST_DIRNAME/../.." && pwd)"
    export PATH="${GODWIT_CLI_BUILD:-${GODWIT_BUILD:-$root/build}}:$PATH"
    [ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | head -n 1)" ] || return 0
    mkfifo "$BATS_FILE_TMPDIR/hold"
    "$root/tools/with-postgres" sh -c "echo \"\$GODWIT_POSTGRES\" >'$BATS_FILE_TMPDIR/url'; exec cat '$BATS_FILE_TMPDIR/hold'" 3>&- &
    for _ in $(seq 600); do
        [ -s "$BATS_FILE_TMPDIR/url" ] && break
        sleep 0.1
    done
    export server="$(cat "$BATS_FILE_TMPDIR/url")"
}

teardown_file() {
    [ -z "${server:-}" ] || { echo >"$BATS_FILE_TMPDIR/hold"; wait; }
}

setup() {
    cd "$BATS_TEST_TMPDIR"
    [ -n "${server:-}" ] || skip "no PostgreSQL"
    psql -qd "$server" -c "CREATE DATABASE t$BATS_TEST_NUMBER"
    db="${server/@\/postgres/@\/t$BATS_TEST_NUMBER}"
}

sql() {
    psql -XAtq -v ON_ERROR_STOP=1 -d "$db" "$@"
}

@test "each action is explained, mistakes are named" {
    run --separate-stderr godwit pg --help
    [ "$status" -eq 0 ]
    for word in install track untrack status --scope-column "psql app"; do
        [[ "$output" == *"$word"* ]]
    done
    run --separate-stderr godwit pg trak pins
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"did you mean track"* ]]
    run --separate-stderr godwit pg track
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"name the tables"* ]]
    run --separate-stderr godwit pg track pins --scope a --scope-column b
    [ "$status" -eq 2 ]
    run --separate-stderr env -u GODWIT_DB godwit pg status
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"--db"* ]]
    run --separate-stderr godwit pg status --db postgres://nobody@127.0.0.1:9/x
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"can't be reached"* ]]
}

@test "install is plain SQL that may run again, and brings an older schema up to date" {
    godwit pg install > install.sql
    grep -q "CREATE TABLE IF NOT EXISTS godwit.outbox" install.sql
    sql -f install.sql
    sql -c "DROP TABLE godwit.outbox; ALTER TABLE godwit.tracked DROP scope, DROP scope_column;
            ALTER TABLE godwit.device DROP own_lsn; DROP INDEX godwit.op_taken_over;
            CREATE INDEX op_origin ON godwit.op (scope, lineage, lsn);
            UPDATE godwit.meta SET v = 1 WHERE k = 'schema_version'"
    sql -c "INSERT INTO godwit.device(scope, device_id, user_id, lineage, registered_at) VALUES ('s', 'd', 'u', 'd', now());
            INSERT INTO godwit.op(scope, device_id, seq, lineage, lsn, op_key, commit_seq, outcome)
                VALUES ('s', 'd', 1, 'd', 7, '', 1, 'applied'), ('s', 'd', 2, 'other', 9, '', 1, 'applied')"
    sql -f install.sql
    sql -f install.sql
    [ "$(sql -c "SELECT v FROM godwit.meta WHERE k = 'schema_version'")" -eq 3 ]
    [ "$(sql -c "SELECT count(*) FROM godwit.outbox")" -eq 0 ]
    [ "$(sql -c "SELECT own_lsn FROM godwit.device WHERE scope = 's'")" -eq 7 ] # of its own lineage only
    # a newer one is left alone, and a server refuses it by name
    sql -c "UPDATE godwit.meta SET v = 99 WHERE k = 'schema_version'"
    sql -f install.sql
    [ "$(sql -c "SELECT v FROM godwit.meta WHERE k = 'schema_version'")" -eq 99 ]
    run --separate-stderr timeout 20 godwit serve --listen 127.0.0.1:0 --data data --db "$db"
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"version 99"*"use a newer server"* ]]
}

@test "a server brings an older schema up to date by itself" {
    godwit pg install | sql
    sql -c "DROP TABLE godwit.outbox; ALTER TABLE godwit.tracked DROP scope, DROP scope_column;
            ALTER TABLE godwit.device DROP own_lsn; DROP INDEX godwit.op_taken_over;
            CREATE INDEX op_origin ON godwit.op (scope, lineage, lsn);
            UPDATE godwit.meta SET v = 1 WHERE k = 'schema_version'"
    godwit serve --listen 127.0.0.1:0 --data data --db "$db" >out 2>log 3>&- &
    pid=$!
    for _ in $(seq 200); do grep -q listening out && break; sleep 0.05; done
    kill $pid && wait $pid
    [ "$(sql -c "SELECT v FROM godwit.meta WHERE k = 'schema_version'")" -eq 3 ]
}

@test "track looks at the tables first, changes no column, and is undone by untrack" {
    sql -c "CREATE TABLE pins (id uuid PRIMARY KEY, team text, title text); CREATE TABLE loose (a text);
            CREATE TABLE odd (at timestamptz PRIMARY KEY); CREATE TABLE \"We'ird\" (id int PRIMARY KEY)"
    godwit pg install | sql
    before="$(sql -c '\d pins' | grep '|')"
    for bad in "loose:no primary key" "odd:integers, text, uuid" "none:no such table"; do
        run --separate-stderr godwit pg track "${bad%%:*}" --db "$db"
        [ "$status" -eq 1 ]
        [[ "$stderr" == *"${bad#*:}"* ]]
    done
    run --separate-stderr godwit pg track pins --scope-column nix --db "$db"
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"no such scope column"* ]]
    godwit pg track pins --scope-column team --db "$db" > track.sql
    [ "$(sql -c 'SELECT count(*) FROM godwit.tracked')" -eq 0 ] # it only prints
    sql -f track.sql && sql -f track.sql
    godwit pg track "We'ird" | sql
    [ "$(sql -c '\d pins' | grep '|')" = "$before" ]
    sql -c "INSERT INTO pins VALUES ('6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00', 'red', 'x'); INSERT INTO \"We'ird\" VALUES (7)"
    [ "$(sql -c 'SELECT pk FROM godwit.outbox ORDER BY id')" = "$(printf '6e1e6cf6-8a5c-4f0c-9d2a-3f1b5c7d9e00\n7')" ]
    run --separate-stderr godwit pg status --db "$db"
    [ "$status" -eq 0 ]
    [[ "$output" == *"column team"* ]]
    run --separate-stderr env GODWIT_DB="$db" godwit pg status --json
    [ "$(jq -r '.[0] | [.table, .schema, .key, .columns, .noted, .waiting, .problem] | @csv' <<<"$output")" = \
        '"pins","public","id uuid",3,1,0,""' ]
    godwit pg untrack pins | sql
    sql -c "DELETE FROM pins"
    [ "$(sql -c "SELECT count(*) FROM godwit.outbox WHERE tbl = 'pins'")" -eq 0 ]
    [ "$(sql -c "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pins'::regclass")" -eq 0 ]
    [ "$(godwit pg status --db "$db" --json | jq length)" -eq 1 ]
}

@test "status says what stands in the way" {
    run --separate-stderr godwit pg status --db "$db"
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"pg install"* ]]
    godwit pg install | sql
    run --separate-stderr godwit pg status --db "$db"
    [[ "$output$stderr" == *"no table is tracked"* ]]
    sql -c "CREATE TABLE pins (id text PRIMARY KEY)"
    godwit pg track pins | sql
    sql -c "DROP TRIGGER godwit_insert ON pins"
    [[ "$(godwit pg status --db "$db" --json)" == *"not noticed"* ]]
    sql -c "ALTER TABLE pins DROP CONSTRAINT pins_pkey"
    [[ "$(godwit pg status --db "$db" --json)" == *"no primary key"* ]]
    sql -c "DROP TABLE pins"
    [[ "$(godwit pg status --db "$db" --json)" == *"no such table"* ]]
}
