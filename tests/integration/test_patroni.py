"""Failover by Patroni with etcd, under applications that write all the time: PostgreSQL killed, its machine gone,
frozen and come back, switched over. With a synchronous standby nothing acknowledged is lost; without one what is lost
is noticed by the salts of commits and sent again by the devices that have it. Minutes: only with GODWIT_SOAK."""
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import harness
import nodes as several
import patroni

sys.path.append(os.path.join(harness.ROOT, "tests", "chaos"))

from backend import SCHEMA, TABLES  # noqa: E402
from checker import Checker  # noqa: E402

pytestmark = pytest.mark.skipif(not os.environ.get("GODWIT_SOAK"), reason="GODWIT_SOAK is not set: it takes a quarter of an hour")
ROUNDS = int(os.environ.get("GODWIT_PATRONI_ROUNDS", "3"))
APPS = 6
CONFIG = "[server]\nkeep_log_commits = 100000\n\n[table tally]\npolicy.n = counter\n"
OPERATIONS = 6  # of one event


class App:
    """tests/chaos/app.c: writes, reads and syncs in its own process, and keeps a history of what it was told."""

    def __init__(self, folder, number, url, token):
        self.number = number
        self.path = os.path.join(folder, f"app{number}.db")
        self.history = os.path.join(folder, f"history{number}")
        self.switch = os.path.join(folder, "write")
        self.log = os.path.join(folder, f"app{number}.log")
        db = sqlite3.connect(self.path, isolation_level=None)
        db.executescript(SCHEMA + "CREATE INDEX events_n ON events (device, n);"
                         "CREATE INDEX parts_device ON parts (device);")
        if number == 0:
            db.execute("INSERT INTO tally VALUES ('t', 0)")
            db.executemany("INSERT INTO cells VALUES (?, '')", [(f"c{i}",) for i in range(8)])
        db.close()
        for words in (["init", self.path, "--url", url, "--token-file", token, "--scope", "team"],
                      *(["track", self.path, table] for table in TABLES), ["sync", self.path, "--quiet"]):
            assert harness.cli(*words).code == 0, words

    def spawn(self):
        build = os.environ["GODWIT_BUILD"]
        with open(self.log, "ab") as log:
            # signals wait until the program is ready for them
            self.process = subprocess.Popen(
                [os.path.join(build, "tests", "chaos", "chaos-app"), self.path, os.path.join(build, "godwit"), self.history,
                 self.switch, str(self.number), str(APPS), str(self.number + 7), "250", "start"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}))

    def query(self, sql):
        db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def rows(self):
        return {table: self.query(f"SELECT * FROM {table} ORDER BY id") for table in TABLES}

    def lines(self):
        with open(self.history) as stream:
            return stream.read().splitlines()

    def close(self):
        self.process.terminate()
        assert self.process.wait(20) == 0


class Probe:
    """Writes rows without a device, one after the other, and notes which were acknowledged and when."""

    def __init__(self, servers):
        self.servers, self.acked, self.times, self.strange = servers, [], [time.monotonic()], []
        self.stopping = False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        number = 0
        while not self.stopping:
            number += 1
            body = [{"id": f"probe-{number}", "operation": "create", "entityType": "probes", "entityId": f"p{number}",
                     "payload": {"n": number}, "idempotencyKey": f"probe-{number}"}]
            acked = False
            for turn in range(1000):
                try:
                    server = self.servers[turn % len(self.servers)]
                    answer = server.push(body, timeout=3, token=server.token(scope="probe"))
                    acked = answer.status == 200 and answer.json["results"][0]["outcome"] == "applied"
                    if not acked and answer.status not in (502, 503):
                        self.strange.append(answer)
                except (OSError, ValueError):
                    pass
                if acked or self.stopping:
                    break
                time.sleep(0.05)
            if acked:
                self.acked.append(f"p{number}")
                self.times.append(time.monotonic())
            time.sleep(0.05)

    def longest_pause(self, since):
        times = [t for t in self.times if t >= since]
        before = [t for t in self.times if t < since][-1:]
        return max((b - a for a, b in zip(before + times, times)), default=0.0)

    def stop(self):
        self.stopping = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture(params=[True, False], ids=["synchronous", "asynchronous"])
def group(request):
    g = patroni.Group(3, request.param)
    try:
        yield g
    finally:
        g.close()


class Field:
    """Everything together: the group, two servers over it behind a balancer, applications, a probe."""

    def __init__(self, group, world):
        self.group = group
        leader = group.leader()
        leader.sql("CREATE DATABASE app", "postgres")
        leader.sql(harness.cli("pg", "install").out)
        leader.sql(SCHEMA.replace("INTEGER", "bigint") + "CREATE TABLE probes (id text PRIMARY KEY, n bigint);")
        leader.sql(harness.cli("pg", "track", *TABLES, "--scope", "team").out)
        leader.sql(harness.cli("pg", "track", "probes", "--scope", "probe").out)
        self.servers = several.start(world, group.url("app"), 2, config=CONFIG)
        self.balancer = several.Balancer(self.servers)
        folder = str(world.path)
        token = os.path.join(folder, "token")
        with open(token, "w") as stream:
            stream.write(self.servers[0].token(scope="team", ttl=86400))
        self.switch = os.path.join(folder, "write")
        self.apps = [App(folder, number, self.balancer.url, token) for number in range(APPS)]
        self.before = [int(n) for n in leader.sql("SELECT (SELECT count(*) FROM godwit.op), (SELECT count(*) FROM"
                                                  " godwit.commit WHERE scope = 'team')")[0]]
        for app in self.apps:
            app.spawn()
        open(self.switch, "w").close()
        self.probe = Probe(self.servers)
        self.pauses, self.lost_commits = [], 0

    def salts(self):
        return set(map(tuple, self.group.leader().sql("SELECT commit_seq, salt FROM godwit.commit WHERE scope = 'team'")))

    def fault(self, act, lagging=False):
        """One of them, until all is well again. `lagging`: the standbys lack what was committed last."""
        group, leader = self.group, self.group.leader()
        beyond = group.timeline()
        receivers = [pid for node in group.nodes if node is not leader for pid in node.receiver()] if lagging else []
        patroni.send(receivers, signal.SIGSTOP)
        time.sleep(2 if lagging else 0)
        had, began = self.salts(), time.monotonic()
        act(leader)
        patroni.send(receivers, signal.SIGTERM)  # what is on its way to them is not read any more
        patroni.send(receivers, signal.SIGCONT)
        harness.wait_until(lambda: group.timeline() > beyond, 90, every=0.2, what="another one leads")
        acked = len(self.probe.acked)
        harness.wait_until(lambda: len(self.probe.acked) > acked + 5, 60, what="writes are acknowledged again")
        if leader.process.poll() is not None:
            leader.spawn()
        leader.thaw()
        group.wait_whole(beyond)
        self.pauses.append(self.probe.longest_pause(began))
        self.lost_commits += len(had - self.salts())

    def settle(self):
        os.unlink(self.switch)
        self.probe.stop()
        time.sleep(1)  # a transaction that was under way
        for app in self.apps:
            app.process.send_signal(signal.SIGUSR1)
        empty = "SELECT queue_length - failed_operations FROM godwit_metrics"
        harness.wait_until(lambda: all(app.query(empty) == [(0,)] for app in self.apps), 120, every=0.2,
                           what="all queues are empty")
        harness.wait_until(lambda: all(app.rows() == self.rows() for app in self.apps), 60, every=0.5,
                           what="all replicas equal the server")

    def rows(self):
        leader = self.group.leader()
        kinds = {"events": (str, int, int, str, int), "parts": (str, str, int), "heads": (str, int),
                 "cells": (str, str), "tally": (str, int)}
        return {table: [tuple(kind(v) for kind, v in zip(kinds[table], row))
                        for row in leader.sql(f"SELECT * FROM {table} ORDER BY id")] for table in TABLES}

    def close(self):
        for app in self.apps:
            app.close()
        self.balancer.close()


def check_events(field, synchronous):
    """Each event that an application was told is committed is there, once; with a synchronous standby all that
    was read in between was causally consistent, too: without one, what is lost may be unseen again for a while."""
    rows = field.rows()
    checker = Checker(APPS)
    for _, device, n, seen, cell in sorted(rows["events"], key=lambda e: (e[1], e[2])):
        checker.add_event(device, n, map(int, seen.split(",")), cell)
    for app in field.apps:
        checker.feed(app.number, [line for line in app.lines() if synchronous or line[0] in "sw"])
    violations = [v for v in checker.violations if synchronous or v[0] != "monotonic reads"]
    assert not violations, violations[:5]
    made = len(checker.events)
    assert made > 100 and rows["tally"] == [("t", made)]
    leader = field.group.leader()
    operations, commits = field.before
    ledger = leader.sql("SELECT count(*), count(DISTINCT lineage || ':' || lsn), count(DISTINCT op_key), count(*) FILTER"
                        " (WHERE outcome NOT IN ('applied', 'merged', 'noop')) FROM godwit.op WHERE scope = 'team'")[0]
    wanted = operations + made * OPERATIONS
    assert list(map(int, ledger)) == [wanted, wanted, wanted, 0]
    found = leader.sql("SELECT count(*), max(commit_seq) FROM godwit.commit WHERE scope = 'team'")[0]
    assert list(map(int, found)) == [commits + made] * 2
    return made


def check_probes(field, synchronous):
    assert not field.probe.strange, field.probe.strange[0]
    leader = field.group.leader()
    there = [row[0] for row in leader.sql("SELECT id FROM probes")]
    commits = leader.sql("SELECT count(*), max(commit_seq) FROM godwit.commit WHERE scope = 'probe'")[0]
    assert list(map(int, commits)) == [len(there)] * 2
    lost = set(field.probe.acked) - set(there)
    assert not lost or not synchronous, f"acknowledged and lost: {sorted(lost)[:10]}"
    return len(lost)


def test_failovers_under_load(group, world):
    field = Field(group, world)
    try:
        time.sleep(3)
        for turn in range(ROUNDS):
            lagging = not group.synchronous
            field.fault(patroni.Node.kill_postgres, lagging)
            field.fault(patroni.Node.kill_all, lagging)
            field.fault(patroni.Node.freeze, lagging and turn % 2 == 0)
            field.fault(lambda leader: group.switchover(leader, next(n for n in group.nodes if group.members()[
                n.name]["role"] == ("sync_standby" if group.synchronous else "replica"))))
        field.settle()
        made = check_events(field, group.synchronous)
        lost = check_probes(field, group.synchronous)
        if not group.synchronous:
            assert field.lost_commits > 0, "nothing was lost: this shows nothing"
        for server in field.servers:
            assert "fault in Godwit" not in server.log()
        print(f"{len(field.pauses)} failovers; without service {', '.join(f'{p:.1f}' for p in field.pauses)} s; {made} events,"
              f" {made * OPERATIONS} operations; {field.lost_commits} commits were lost by PostgreSQL and sent again;"
              f" {len(field.probe.acked)} writes without a device, {lost} of them lost")
    finally:
        field.probe.stop()
        field.close()
