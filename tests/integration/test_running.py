"""Background mode and `godwit sync --watch` against a real server: who wakes when, how many requests that
costs, and what processes that share a database do to each other."""
import json
import os
import re
import signal
import sqlite3
import subprocess
import time

import pytest

from harness import BUILD, CLI_BUILD, SLOW, cli, settle, wait_until

START = '{"intervalMs":3600000}'  # nothing happens by the clock


def watch(device, *arguments):
    """`godwit sync --watch` as a process."""
    return subprocess.Popen([os.path.join(CLI_BUILD, "godwit"), "sync", device.path, "--watch", "--interval", "3600",
                             "--quiet", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def end(process):
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=10 * SLOW)[0]
    assert process.returncode == 0, output
    return output


def titles(server):
    return [row[0] for row in server.query("SELECT title FROM pins ORDER BY title")]


def count_of(server, name):
    text = server.get("/metrics", token="").body.decode()
    return sum(int(float(n)) for n in re.findall(r"^%s(?:\{[^}]*\})? ([0-9.]+)$" % re.escape(name), text, re.M))


def requests(server, route):
    text = server.get("/metrics", token="").body.decode()
    return sum(int(n) for n in re.findall(r'^godwit_http_requests_total\{route="%s",status="\d+"\} (\d+)$' % route, text,
                                          re.M))


def test_background_mode_sends_and_fetches(world, server):
    a, b = world.device("a", server), world.device("b", server)
    a.run("SELECT godwit_start(?)", START)
    a.run("INSERT INTO pins(id, title) VALUES ('1', 'from a')")
    wait_until(lambda: titles(server) == ["from a"], what="a's change on the server")
    b.sync()
    b.run("INSERT INTO pins(id, title) VALUES ('2', 'from b')")
    begun = time.monotonic()
    b.sync()
    wait_until(lambda: a.one("SELECT count(*) FROM pins") == 2, what="b's change on a")
    assert time.monotonic() - begun < 5 * SLOW  # the server woke it, not the clock
    assert a.run("SELECT godwit_stop(), godwit_stop()") == [("ok", "ok")]
    a.run("INSERT INTO pins(id, title) VALUES ('3', 'kept')")
    time.sleep(0.6)
    assert titles(server) == ["from a", "from b"] and a.pending() == 1
    a.run("SELECT godwit_start()")
    wait_until(lambda: "kept" in titles(server), what="what was kept")
    a.disconnect()  # ends the thread, too


def test_the_hosts_connection_is_left_alone(world, server):
    """Its transactions, its changes() and its open statements are its own."""
    d = world.device("a", server)
    d.run("SELECT godwit_start(?)", START)
    d.db.execute("BEGIN IMMEDIATE")
    d.db.execute("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    other = world.device("b", server)
    other.run("INSERT INTO pins(id, title) VALUES ('2', 'two')")
    other.sync()
    time.sleep(0.5)  # the thread has been woken and waits for the lock
    assert d.db.in_transaction and d.one("SELECT changes()") == 1
    assert d.one("SELECT count(*) FROM pins") == 1
    d.db.execute("COMMIT")
    wait_until(lambda: titles(server) == ["one", "two"], what="both changes")
    wait_until(lambda: d.one("SELECT count(*) FROM pins") == 2, what="the other's change")
    before = d.db.total_changes
    other.run("INSERT INTO pins(id, title) VALUES ('3', 'three')")
    other.sync()
    wait_until(lambda: d.one("SELECT count(*) FROM pins") == 3, what="the other's next change")
    assert d.db.total_changes == before
    d.disconnect()


def test_watch_is_woken_and_asks_little(world, server, processes):
    a, b = world.device("a", server), world.device("b", server)
    watcher = watch(a)
    processes.append(watcher)
    wait_until(lambda: count_of(server, "godwit_parked_requests") == 1, what="listening")
    syncs, polls = requests(server, "/v1/sync"), requests(server, "/v1/sync/changes")
    accepted = count_of(server, "godwit_connections_accepted_total")
    time.sleep(2)
    mine = 1  # each look at the counters is a connection
    assert requests(server, "/v1/sync") == syncs and requests(server, "/v1/sync/changes") == polls
    assert count_of(server, "godwit_connections_accepted_total") <= accepted + 2 + 2 * mine
    for n in range(3):
        b.run("INSERT INTO pins(id, title) VALUES (?, 'x')", str(n))
        b.sync()
        wait_until(lambda: a.one("SELECT count(*) FROM pins") == n + 1, what=f"change {n}")
    a.run("INSERT INTO pins(id, title) VALUES ('own', 'y')")
    wait_until(lambda: "y" in titles(server), what="a's own change")
    # a wake-up costs the poll that told it and the pass; b's own syncs are two each
    assert requests(server, "/v1/sync") - syncs < 30
    assert requests(server, "/v1/sync/changes") - polls < 15
    end(watcher)


def test_a_stop_does_not_wait_for_the_network(world, server, processes):
    d = world.device("a", server)
    d.run("SELECT godwit_start(?)", START)
    d.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    wait_until(lambda: titles(server) == ["one"], what="the first change")
    server.process.send_signal(signal.SIGSTOP)  # accepts, and answers nothing
    try:
        d.run("INSERT INTO pins(id, title) VALUES ('2', 'two')")
        wait_until(lambda: sqlite3.connect(d.path).execute("SELECT count(*) FROM godwit_lease").fetchone()[0],
                   what="a request in flight")
        begun = time.monotonic()
        d.run("SELECT godwit_stop()")
        assert time.monotonic() - begun < 2 * SLOW
        d.run("SELECT godwit_start(?)", START)
        watcher = watch(d)
        processes.append(watcher)
        time.sleep(0.5)
        begun = time.monotonic()
        end(watcher)
        d.disconnect()
        assert time.monotonic() - begun < 4 * SLOW
    finally:
        server.process.send_signal(signal.SIGCONT)
    d.sync()
    assert titles(server) == ["one", "two"]
    assert server.query("SELECT count(*), count(DISTINCT seq) FROM godwit_op") == [(2, 2)]


def test_the_network_comes_back(world, server):
    d = world.device("a", server)
    d.sync()
    server.stop()
    d.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    for _ in range(8):  # the waits are minutes now
        assert d.sync_cli().code == 3
    d.run("UPDATE godwit_meta SET v = v + 600000 WHERE k = 'next_attempt_ms'")
    d.run("SELECT godwit_start(?)", START)
    wait_until(lambda: d.one("SELECT failures FROM godwit_metrics") > 8, what="one more failure")
    d.run("UPDATE godwit_meta SET v = v + 600000 WHERE k = 'next_attempt_ms'")
    server.start()
    d.run("SELECT godwit_notify_network()")
    begun = time.monotonic()
    wait_until(lambda: titles(server) == ["one"], what="the change")
    assert time.monotonic() - begun < 5 * SLOW
    wait_until(lambda: d.one("SELECT failures FROM godwit_metrics") == 0, what="the answer")
    d.disconnect()


def test_new_settings_are_used_at_once(world, server):
    d = world.device("a", server)
    with open(d.token_file, "w", encoding="utf-8") as stream:
        stream.write("eyJhbGciOiJIUzI1NiJ9.e30.AAAA\n")
    d.run("SELECT godwit_start(?)", START)
    d.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    wait_until(lambda: d.one("SELECT retries FROM godwit_metrics") > 0, what="a refusal")
    d.refresh_token()
    d.run("SELECT godwit_init(json_object('tokenFile', ?))", d.token_file)
    wait_until(lambda: titles(server) == ["one"], what="the change under the new token")
    d.disconnect()


def test_the_server_goes_and_comes(world, server, processes):
    d = world.device("a", server)
    watcher = watch(d)
    processes.append(watcher)
    wait_until(lambda: count_of(server, "godwit_parked_requests") == 1, what="listening")
    for n in range(3):
        server.restart()
        d.run("INSERT INTO pins(id, title) VALUES (?, 'x')", str(n))
        wait_until(lambda: len(titles(server)) == n + 1, timeout=20, what=f"change {n}")
    end(watcher)


def test_processes_take_turns(world, server, processes):
    """Two watchers, a program that syncs in between and one that writes, all on one file."""
    d, other = world.device("a", server), world.device("b", server)
    for _ in range(2):
        processes.append(watch(d))
    for n in range(60):
        d.transaction(("INSERT INTO pins(id, title) VALUES (?, 'x')", f"p{n}"),
                      ("INSERT INTO forms(id, pin_id) VALUES (?, ?)", f"f{n}", f"p{n}"))
        if n % 20 == 0:
            done = d.sync_cli()
            assert done.code in (0, 1), done  # 1: another one is syncing
            assert done.code == 0 or "is syncing this database" in done.err, done
        if n % 6 == 0:
            other.run("INSERT INTO pins(id, title) VALUES (?, 'y')", f"q{n}")
            other.sync()
    wait_until(lambda: d.pending() == 0 and d.one("SELECT count(*) FROM pins") == 70, timeout=30, what="all of it")
    for process in processes:
        end(process)
    settle(d, other)
    assert d.rows("pins") == other.rows("pins") == server.rows("pins")
    # each operation once, in one stream without gaps; transactions whole, whoever of the three sent them
    assert server.query("SELECT count(*), count(DISTINCT seq), max(seq) FROM godwit_op GROUP BY device_id"
                        " ORDER BY 1") == [(10, 10, 10), (120, 120, 120)]
    assert server.query("SELECT count(*) FROM (SELECT 1 FROM godwit_op GROUP BY commit_seq HAVING count(*) = 2)") == [(60,)]


def test_a_killed_holder_is_not_waited_for(world, server, processes):
    d = world.device("a", server)
    d.sync()
    d.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    server.process.send_signal(signal.SIGSTOP)
    try:
        holder = d.spawn_sync()
        processes.append(holder)
        wait_until(lambda: d.one("SELECT count(*) FROM godwit_lease"), what="the lease is held")
        waiting = d.sync_cli("--timeout", "5")
        assert waiting.code == 1 and f"process {holder.pid} is syncing" in waiting.err, waiting
        holder.kill()
        holder.wait()
        holder.stderr.close()
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert d.one("SELECT count(*) FROM godwit_lease") == 1  # it had no time to give it back
    begun = time.monotonic()
    d.sync()
    assert time.monotonic() - begun < 5 * SLOW
    assert titles(server) == ["one"] and d.one("SELECT count(*) FROM godwit_lease") == 0


def test_news_of_each_scope_wakes(world, server):
    """Scopes take turns with the request that waits."""
    a = world.device("a", server, scope=["field", "office", "store"], tables=("pins",))
    cli("init", a.path, "--scope", "field")
    a.track("forms", scope="office")
    b = world.device("b", server, scope="office", tables=("forms",))
    a.sync()
    a.run("SELECT godwit_start(?)", '{"intervalMs":3600000,"waitSeconds":2}')
    for i in range(3):
        b.run("INSERT INTO forms(id, name) VALUES (?, 'of b')", f"f-{i}")
        b.sync()
        wait_until(lambda: a.one("SELECT count(*) FROM forms") == i + 1, what="what is new in the other scope")
    a.run("SELECT godwit_stop()")


def test_waiting_ends_when_the_thread_needs_a_person(world, server):
    d = world.device("a", server)
    d.run("SELECT godwit_start(?)", START)
    d.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    wait_until(lambda: titles(server) == ["one"], what="the first")
    with open(d.token_file, "w") as stream:
        stream.write("nonsense\n")
    for i in range(2):  # also when the failure was there before
        d.run("INSERT INTO pins(id, title) VALUES (?, 'two')", f"2-{i}")
        id_ = d.one("SELECT id FROM sync_queue ORDER BY lsn DESC")
        begun = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="401|token"):
            d.run("SELECT godwit_wait(?, 60000)", id_)
        assert time.monotonic() - begun < 20 * SLOW
    d.refresh_token()
    assert json.loads(d.one("SELECT godwit_wait(?, 60000)", id_))["outcome"] == "applied"
    d.run("SELECT godwit_stop()")


def test_a_lease_that_has_run_out_counts_for_nothing(world, server):
    """Its holder lives but stands still; what it will do late is harmless."""
    d = world.device("a", server)
    d.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    d.run("INSERT INTO godwit_lease(one, pid, started, until) VALUES (1, ?, 0, (julianday('now') - 2440587.5) * 86400000"
          " - 1000)", os.getpid())
    d.sync()
    assert titles(server) == ["one"]


def test_options_are_checked(world, server):
    d = world.device("a", server)
    for text, part in (('{"interval":5}', "the options are"), ('{"waitSeconds":"many"}', "waitSeconds"),
                       ('[]', "object"), ('{"localMs":1e99}', "localMs"), ('{"intervalMs":-1}', "intervalMs"),
                       ('{"waitSeconds":26}', "waitSeconds"), ('{"waitSeconds":-2}', "waitSeconds")):
        with pytest.raises(sqlite3.OperationalError, match=part):
            d.run("SELECT godwit_start(?)", text)
    for call in ("godwit_events_done('abc')", "godwit_events_done(-1)", "godwit_events_done(1.5)", "godwit_sync('soon')",
                 "godwit_wait('x', 'long')", "godwit_events_keep('yes')", "godwit_sync(x'00')"):
        with pytest.raises(sqlite3.OperationalError, match="whole number"):
            d.run(f"SELECT {call}")
    d.run("SELECT godwit_events_done(NULL), godwit_sync('20000')")
    memory = sqlite3.connect(":memory:")
    memory.enable_load_extension(True)
    memory.load_extension(os.path.join(BUILD, "godwit"))
    memory.execute("SELECT godwit_init('{\"url\":\"http://127.0.0.1:1\"}')")
    with pytest.raises(sqlite3.OperationalError, match="without a file"):
        memory.execute("SELECT godwit_start()")
    memory.close()
