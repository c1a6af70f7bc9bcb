#!/usr/bin/env bats
# The command line from outside: help, exit codes, hints, JSON, and what it says when things are wrong.

bats_require_minimum_version 1.5.0

setup() {
    root="$(cd "$BATS_TEST_DIRNAME/../.." && pwd)"
    export PATH="${GODWIT_CLI_BUILD:-${GODWIT_BUILD:-$root/build}}:$PATH"
    cd "$BATS_TEST_TMPDIR"
    unset NO_COLOR
    nowhere=http://127.0.0.1:9 # the discard port: nothing listens there
}

teardown() {
    [ -z "${watcher:-}" ] || kill "$watcher" 2>/dev/null || true
    [ -z "${demo:-}" ] || kill "$demo" 2>/dev/null || true
    [ -z "${server:-}" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }
}

# An application database with a pins table that is set up, with no server behind it.
offline_app() {
    sqlite3 app.db "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, lat REAL);
                    CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id));"
    echo no-token > token
    godwit init app.db --url $nowhere --scope team --token-file token
    godwit track app.db pins forms
}

# A server of our own on a free port: sets $url and $token.
start_server() {
    local port
    port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    godwit serve --listen 127.0.0.1:$port --data data "$@" >server.log 2>&1 3>&- &
    server=$!
    for _ in $(seq 200); do
        curl -sfo /dev/null "$url/readyz" && break
        sleep 0.05
    done
    godwit token --data data --sub ana --scope team > token
}

json() { /usr/bin/python3 -c "import json, sys; v = json.load(sys.stdin); print($1)" <<<"$output"; }

verbs="serve token devices backup restore init track untrack sync status queue conflicts history doctor demo version"

@test "every verb has help with an example, on standard output" {
    for verb in $verbs; do
        run --separate-stderr godwit $verb --help
        [ "$status" -eq 0 ]
        [ -z "$stderr" ]
        [[ "$output" == *"Usage: godwit $verb"* ]]
        [[ "$output" == *"Example"* ]]
        [[ "$output" == *"  godwit $verb"* ]]
        run godwit help $verb
        [ "$status" -eq 0 ]
        [[ "$output" == *"Usage: godwit $verb"* ]]
    done
}

@test "help lists every verb" {
    run --separate-stderr godwit help
    [ "$status" -eq 0 ]
    for verb in $verbs; do [[ "$output" == *"  $verb "* ]]; done
    run --separate-stderr godwit
    [ "$status" -eq 2 ]
    [ -z "$output" ]
}

@test "version prints one line, or JSON" {
    run --separate-stderr godwit version
    [ "$status" -eq 0 ]
    [[ "$output" =~ ^godwit\ [0-9]+\.[0-9]+\.[0-9]+ ]]
    run --separate-stderr godwit version --json
    [ -n "$(json 'v["version"]')" ]
    run godwit --version
    [ "$status" -eq 0 ]
}

@test "an unknown verb exits with 2 and suggests the nearest" {
    run --separate-stderr godwit snyc
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"did you mean 'sync'"* ]]
    [ -z "$output" ]
    run --separate-stderr godwit help nonsense
    [ "$status" -eq 2 ]
}

@test "an unknown option exits with 2 on every verb" {
    for verb in $verbs; do
        run --separate-stderr godwit $verb --no-such-option
        [ "$status" -eq 2 ]
        [ -z "$output" ]
        [ -n "$stderr" ]
    done
    run --separate-stderr godwit sync app.db --wach
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"did you mean --watch"* ]]
}

@test "missing and surplus arguments exit with 2" {
    for line in "init" "track app.db" "sync" "status" "history app.db pins" "sync a.db b.db" \
        "init a.db --url" "sync a.db --timeout soon" "queue" "queue a.db nonsense" "conflicts" \
        "init a.db --token x --token-file y" "version --json=1"; do
        run --separate-stderr godwit $line
        [ "$status" -eq 2 ]
        [[ "$stderr" == *"--help"* ]]
    done
    [ ! -e a.db ]
    [ ! -e app.db ]
}

@test "init and track need no network" {
    sqlite3 app.db "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT); INSERT INTO pins VALUES ('p', 'x')"
    run --separate-stderr godwit init app.db --url $nowhere --scope team --label "Ana's phone"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    run --separate-stderr godwit track app.db pins
    [ "$status" -eq 0 ]
    [ "$(sqlite3 app.db "SELECT count(*) FROM sync_queue WHERE status = 'pending'")" -eq 1 ]
    sqlite3 app.db "UPDATE pins SET title = 'y'" # a program without Godwit is captured, too
    [ "$(sqlite3 app.db "SELECT count(*) FROM sync_queue WHERE status = 'pending'")" -eq 2 ]
    godwit track app.db pins # again: the same
    godwit untrack app.db pins
    sqlite3 app.db "UPDATE pins SET title = 'z'"
    [ "$(sqlite3 app.db "SELECT count(*) FROM sync_queue WHERE status = 'pending'")" -eq 2 ]
}

@test "init makes a file that does not exist, and wants a URL the first time" {
    run --separate-stderr godwit init new.db
    [ "$status" -eq 1 ]
    [[ "$stderr" == *url* ]]
    godwit init new.db --url $nowhere
    [ -s new.db ]
    godwit init new.db --scope other # the rest stays
    run --separate-stderr godwit status new.db --json
    [ "$(json 'v["url"]')" = $nowhere ]
    [ "$(json 'v["scope"]')" = other ]
}

@test "a URL that is none is refused by name" {
    for bad in "" nonsense ftp://x "http://" "http://a b"; do
        run --separate-stderr godwit init new.db --url "$bad"
        [ "$status" -eq 1 ]
        [[ "$stderr" == *url* ]]
    done
}

@test "a typo in a table's name suggests the nearest" {
    offline_app
    run --separate-stderr godwit track app.db pinz
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"did you mean 'pins'"* ]]
    run --separate-stderr godwit untrack app.db form
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"did you mean 'forms'"* ]]
    run --separate-stderr godwit track app.db completely_different
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"There are:"*pins* ]]
}

@test "a table that can't be tracked says why" {
    offline_app
    sqlite3 app.db "CREATE TABLE loose (a); CREATE TABLE counted (id INTEGER PRIMARY KEY, a)"
    run --separate-stderr godwit track app.db loose
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"primary key"* ]]
    run --separate-stderr godwit track app.db counted
    [ "$status" -eq 1 ]
    [[ "$stderr" == *godwit_uuid7* ]]
    godwit track app.db counted --ids app
}

@test "sync without a server exits with 3 and says that the queue is intact" {
    offline_app
    sqlite3 app.db "INSERT INTO pins VALUES ('a', 'A', 1.5), ('b', 'B', 2.5)"
    run --separate-stderr godwit sync app.db
    [ "$status" -eq 3 ]
    [ -z "$output" ]
    [[ "$stderr" == *"The queue is intact: 2 operations pending"* ]]
    run --separate-stderr godwit sync app.db --json
    [ "$status" -eq 3 ]
    [ "$(json 'v["status"]')" = UNREACHABLE ]
    [ "$(json 'v["pending"]')" -eq 2 ]
    [ "$(sqlite3 app.db "SELECT count(*) FROM sync_queue WHERE status = 'pending'")" -eq 2 ]
    [ "$(sqlite3 app.db "SELECT count(*) FROM pins")" -eq 2 ]
}

@test "status and queue tell what is pending, as text and as JSON" {
    offline_app
    sqlite3 app.db "INSERT INTO pins VALUES ('a', 'A', 1.5)"
    run --separate-stderr godwit status app.db
    [ "$status" -eq 0 ]
    [[ "$output" == *"1 pending"* ]]
    [[ "$output" == *"pins, forms"* ]]
    run --separate-stderr godwit status app.db --json
    [ "$(json 'v["pendingOperations"]')" -eq 1 ]
    [ "$(json 'v["lastSuccessfulSync"]')" -eq 0 ]
    run --separate-stderr godwit queue app.db
    [ "$status" -eq 0 ]
    [[ "$output" == *create*pins* ]]
    run --separate-stderr godwit queue app.db list --json
    [ "$(json 'len(v)')" -eq 1 ]
    [ "$(json 'v[0]["entityId"]')" = a ]
    id=$(json 'v[0]["id"]')
    run --separate-stderr godwit queue app.db show ${id} --json
    [ "$(json 'v["id"]')" = "$id" ]
    run --separate-stderr godwit queue show app.db "$id" # the other order, too
    [ "$status" -eq 0 ]
    run --separate-stderr godwit queue app.db export
    [ "$(json 'v["entityType"]')" = pins ]
    run --separate-stderr godwit queue app.db list --failed
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    run --separate-stderr godwit queue app.db show 00000000
    [ "$status" -eq 1 ]
    run --separate-stderr godwit queue app.db retry "$id"
    [ "$status" -eq 1 ]
}

@test "conflicts and doctor have nothing to say about a healthy database" {
    offline_app
    run --separate-stderr godwit conflicts app.db
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    run --separate-stderr godwit conflicts app.db list --json
    [ "$(json 'len(v)')" -eq 0 ]
    run --separate-stderr godwit conflicts app.db show c-1
    [ "$status" -eq 1 ]
    run --separate-stderr godwit doctor app.db --offline
    [ "$status" -eq 0 ]
    run --separate-stderr godwit doctor app.db --offline --json
    [ "$(json 'v["remaining"]')" -eq 0 ]
    run --separate-stderr godwit doctor app.db --json
    [ "$status" -eq 1 ]
    [ "$(json 'v["findings"][0]["code"]')" = unreachable ]
}

@test "a refused init of a new file leaves nothing behind" {
    run --separate-stderr godwit init new.db
    [ "$status" -eq 1 ]
    [ ! -e new.db ] && [ ! -e new.db-wal ]
    sqlite3 mine.db "CREATE TABLE t (x)"
    run --separate-stderr godwit init mine.db
    [ "$status" -eq 1 ]
    [ -e mine.db ]
}

@test "doctor finds a trigger that is gone, and puts it back" {
    offline_app
    trigger=$(sqlite3 app.db "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'pins' LIMIT 1")
    sqlite3 app.db "DROP TRIGGER \"$trigger\""
    run --separate-stderr godwit doctor app.db --fix --offline
    [ "$status" -eq 0 ]
    [ "$(sqlite3 app.db "SELECT count(*) FROM sqlite_schema WHERE name = '$trigger'")" -eq 1 ]
}

@test "a file that is not there, not a database, or a folder" {
    run --separate-stderr godwit status missing.db
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"no such file"* ]]
    [[ "$stderr" == *"godwit init"* ]]
    [ ! -e missing.db ]
    head -c 10000 /dev/urandom > noise.db
    cp noise.db before.db
    for line in "init noise.db --url $nowhere" "track noise.db pins" "sync noise.db" "status noise.db"; do
        run --separate-stderr godwit $line
        [ "$status" -eq 1 ]
        [[ "$stderr" == *"not a database"* ]]
    done
    cmp noise.db before.db
    mkdir folder.db
    run --separate-stderr godwit init folder.db --url $nowhere
    [ "$status" -eq 1 ]
    [[ "$stderr" == *folder* ]]
}

@test "a database that init has not seen is left alone" {
    sqlite3 plain.db "CREATE TABLE t (id TEXT PRIMARY KEY)"
    cp plain.db before.db
    for verb in sync status queue conflicts doctor; do
        run --separate-stderr godwit $verb plain.db
        [ "$status" -eq 1 ]
        [[ "$stderr" == *"godwit init"* ]]
    done
    cmp plain.db before.db
}

@test "a read-only database says so" {
    [ "$(id -u)" -ne 0 ] || command -v setpriv >/dev/null || skip "root writes everywhere"
    offline_app
    chmod 444 app.db
    chmod 555 .
    as_user=()
    if [ "$(id -u)" -eq 0 ]; then
        as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
        "${as_user[@]}" cat app.db >/dev/null 2>&1 || { chmod 755 .; skip "no other user may read here"; }
        "${as_user[@]}" "$(command -v godwit)" version >/dev/null 2>&1 || { chmod 755 .; skip "the build is private"; }
    fi
    run --separate-stderr "${as_user[@]}" "$(command -v godwit)" sync app.db
    chmod 755 .
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"can't be written"* ]]
    [[ "$stderr" == *permissions* ]]
}

@test "a missing or empty token file is named" {
    offline_app
    rm token
    run --separate-stderr godwit sync app.db
    [ "$status" -ne 0 ]
    [[ "$stderr" == *token* ]]
    run --separate-stderr godwit conflicts --url $nowhere --token-file token
    [ "$status" -eq 1 ]
    [[ "$stderr" == *token* ]]
    : > token
    run --separate-stderr godwit conflicts --url $nowhere --token-file token
    [ "$status" -eq 1 ]
    [[ "$stderr" == *empty* ]]
}

@test "no colour when the output is no terminal" {
    offline_app
    run godwit status app.db
    [[ "$output" != *$'\033'* ]]
    run godwit snyc
    [[ "$output" != *$'\033'* ]]
}

@test "colour on a terminal, none with NO_COLOR" {
    command -v script >/dev/null || skip "no script(1)"
    run script -qec "TERM=xterm godwit help" /dev/null
    [[ "$output" == *$'\033'* ]]
    run script -qec "NO_COLOR=1 TERM=xterm godwit help" /dev/null
    [[ "$output" != *$'\033'* ]]
}

@test "two devices, a server, and what each verb says about them" {
    start_server --dev
    for name in ana ben; do
        sqlite3 $name.db "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, lat REAL)"
        godwit init $name.db --url $url --token-file token
        godwit track $name.db pins
    done
    sqlite3 ana.db "INSERT INTO pins VALUES ('p-1', 'Well', 47.37)"
    run --separate-stderr godwit sync ana.db --json
    [ "$status" -eq 0 ]
    [ "$(json 'v["sent"], v["applied"], v["pending"]')" = "1 1 0" ]
    godwit sync ben.db
    [ "$(sqlite3 ben.db "SELECT title FROM pins")" = Well ]

    sqlite3 ana.db "UPDATE pins SET title = 'first'"
    sqlite3 ben.db "UPDATE pins SET title = 'second'"
    godwit sync ana.db && godwit sync ben.db && godwit sync ana.db
    [ "$(sqlite3 ana.db "SELECT title FROM pins")" = "$(sqlite3 ben.db "SELECT title FROM pins")" ]

    run --separate-stderr godwit conflicts --url $url --token-file token list --json
    [ "$status" -eq 0 ]
    [ "$(json 'len(v)')" -eq 1 ]
    id=$(json 'v[0]["id"]')
    run --separate-stderr godwit conflicts --url $url --token-file token show "$id"
    [ "$status" -eq 0 ]
    [[ "$output" == *first* ]]
    run --separate-stderr godwit conflicts ana.db --json
    [ "$(json 'v[0]["id"]')" = "$id" ]

    run --separate-stderr godwit history ana.db pins p-1
    [ "$status" -eq 0 ]
    [[ "$output" == *Well* ]]
    run --separate-stderr godwit history ana.db pins p-1 --json
    [ "$(json 'len(v) >= 2')" = True ]
    run --separate-stderr godwit history ana.db pinz p-1
    [ "$status" -eq 1 ]

    run --separate-stderr godwit status ana.db
    [[ "$output" == *"0 pending"* ]]
    kill "$server"; wait "$server" || true; server=
    run --separate-stderr godwit history ana.db pins p-1
    [ "$status" -eq 3 ]
    run --separate-stderr godwit conflicts --url $url --token-file token
    [ "$status" -eq 3 ]
}

@test "a refused operation can be looked at, edited, retried and given up" {
    echo "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT NOT NULL CHECK (length(title) < 5))" > schema.sql
    start_server --schema schema.sql
    sqlite3 app.db "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT)"
    godwit init app.db --url $url --token-file token
    godwit track app.db pins
    sqlite3 app.db "INSERT INTO pins VALUES ('a', 'too long'); INSERT INTO pins VALUES ('b', 'long, too')"
    godwit sync app.db
    run --separate-stderr godwit queue app.db list --failed --json
    [ "$(json 'len(v)')" -eq 2 ]
    first=$(json 'v[0]["id"]') second=$(json 'v[1]["id"]')
    run --separate-stderr godwit queue app.db show "$first"
    [[ "$output" == *"too long"* ]]
    [[ "$output" == *"check-failed"* ]]
    run --separate-stderr godwit queue app.db wait "$first" --json
    [ "$status" -eq 1 ] # decided, and not as it should
    [ "$(json 'v["outcome"]')" = rejected ]
    sqlite3 app.db "INSERT INTO pins VALUES ('c', 'fine')"
    run --separate-stderr godwit queue app.db wait "$(sqlite3 app.db "SELECT id FROM sync_queue WHERE entity_id = 'c'")"
    [ "$status" -eq 0 ]
    [[ "$output" == *applied* ]]
    run --separate-stderr godwit queue app.db edit "$first" --payload '{"title":"ok"}'
    [ "$status" -eq 0 ]
    run --separate-stderr godwit queue app.db edit "$second" --payload 'nonsense'
    [ "$status" -eq 1 ]
    run --separate-stderr godwit queue app.db discard "$second" --reason "not needed"
    [ "$status" -eq 0 ]
    godwit sync app.db
    run --separate-stderr godwit queue app.db list --failed --json
    [ "$(json 'len(v)')" -eq 0 ]
    [ "$(sqlite3 app.db "SELECT group_concat(id || title) FROM pins")" = cfine,aok ]
}

@test "many refused operations are exported, edited in a file and brought back" {
    echo "CREATE TABLE pins (id TEXT PRIMARY KEY, n INTEGER CHECK (n < 10));
          CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id));" > schema.sql
    start_server --schema schema.sql
    sqlite3 app.db "CREATE TABLE pins (id TEXT PRIMARY KEY, n INTEGER);
                    CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id));"
    godwit init app.db --url $url --token-file token
    godwit track app.db pins forms
    for i in 1 2 3; do sqlite3 app.db "INSERT INTO pins VALUES ('p$i', 1$i)"; done
    sqlite3 app.db "INSERT INTO forms VALUES ('f1', 'p1')"
    godwit sync app.db
    [ "$(sqlite3 app.db "SELECT (SELECT count(*) FROM pins) + (SELECT count(*) FROM forms)")" -eq 0 ]
    godwit queue app.db export --failed > failed.ndjson
    [ "$(wc -l < failed.ndjson)" -eq 4 ]
    grep -q '"code":"check-failed".*"payload":{"id":"p2","n":12}' failed.ndjson

    run --separate-stderr godwit queue app.db retry "$(sqlite3 app.db "SELECT id FROM godwit_dead_letters WHERE entity_id = 'f1'")"
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"which was refused: retry that one"* ]]
    grep '"p[12]"' failed.ndjson | grep pins | sed 's/"n":1/"n":/' > edits.ndjson
    run --separate-stderr godwit queue app.db edit --from edits.ndjson --json
    [ "$status" -eq 0 ]
    [ "$(json '[e["status"] for e in v]')" = "['OK', 'OK', 'OK']" ] # the form came along
    [[ "$stderr" == *"3 operations queued again"* ]]
    run --separate-stderr godwit queue app.db discard --failed --reason "not needed" --json
    [ "$(json 'len(v)')" -eq 1 ]
    godwit sync app.db
    run --separate-stderr godwit queue app.db
    [ -z "$output" ]
    [[ "$stderr" == *"nothing is waiting"* ]]
    [ "$(sqlite3 app.db "SELECT group_concat(p.id || n) FROM pins AS p")" = p11,p22 ]
    [ "$(sqlite3 app.db "SELECT count(*) FROM forms")" -eq 1 ]

    run --separate-stderr godwit queue app.db retry --failed
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"0 operations"* ]]
    for wrong in "retry" "edit" "edit x" "discard" "discard x --failed" "edit x --payload {} --from f"; do
        run godwit queue app.db $wrong
        [ "$status" -eq 2 ]
    done
    echo '{"id":1}' > bad.ndjson
    run --separate-stderr godwit queue app.db edit --from bad.ndjson
    [ "$status" -eq 1 ]
    [[ "$stderr" == *"line 1 has no id and payload"* ]]
    run --separate-stderr godwit queue app.db edit --from missing.ndjson
    [ "$status" -eq 1 ]
}

@test "watch delivers a local change by itself and ends on a signal with 0" {
    start_server --dev
    sqlite3 app.db "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT)"
    godwit init app.db --url $url --token-file token
    godwit track app.db pins
    godwit sync app.db --watch --interval 60 --quiet >watch.log 2>&1 3>&- &
    watcher=$!
    for _ in $(seq 100); do
        [ "$(sqlite3 app.db "SELECT count(*) FROM godwit_cursor" 2>/dev/null)" = 1 ] && break
        sleep 0.05
    done
    sqlite3 -cmd ".timeout 5000" app.db "INSERT INTO pins VALUES ('w', 'watched')" >/dev/null
    for _ in $(seq 200); do
        [ "$(sqlite3 -readonly data/store.db "SELECT count(*) FROM pins" 2>/dev/null)" = 1 ] && break
        sleep 0.05
    done
    [ "$(sqlite3 -readonly data/store.db "SELECT title FROM pins")" = watched ]
    kill -USR1 $watcher # the network is back, says some script
    kill -TERM $watcher
    code=0
    wait $watcher || code=$?
    [ $code -eq 0 ]
}

@test "the demo passes, and leaves nothing behind" {
    mkdir stage
    run --separate-stderr env TMPDIR="$PWD/stage" godwit demo
    [ "$status" -eq 0 ]
    [[ "$output" == *" checks, 0 failed"* ]]
    [[ "$output" =~ "OPERATIONS MADE" ]]
    [ -z "$(ls -A stage)" ]
}

@test "the demo passes on a PostgreSQL of its own" {
    [ -x "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | head -n 1)" ] || skip "no PostgreSQL"
    run --separate-stderr "$root/tools/with-postgres" sh -c 'godwit demo --db "$GODWIT_POSTGRES"'
    [ "$status" -eq 0 ]
    [[ "$output" == *"over PostgreSQL"* ]]
    [[ "${lines[-1]}" == "30 checks, 0 failed"* ]]
    # it wants a database it may fill
    run --separate-stderr godwit demo --db postgres://nobody@127.0.0.1:9/none
    [ "$status" -eq 1 ]
    [[ "$output" == *"preparing the database"* ]]
}

@test "the demo fails when a step can't be carried out, and when it is interrupted" {
    run --separate-stderr env TMPDIR="$PWD/no-such-folder" godwit demo
    [ "$status" -eq 1 ]
    mkdir stage
    TMPDIR="$PWD/stage" godwit demo >story 2>&1 3>&- &
    demo=$!
    for _ in $(seq 200); do
        grep -q "^ 2" story && break
        sleep 0.05
    done
    kill -TERM $demo
    code=0
    wait $demo || code=$?
    [ $code -eq 1 ]
    grep -q interrupted story
    [ -z "$(ls -A stage)" ]
}
