"""Runs of chaos: faults drawn from a seed while every application writes, an end to all of them, and what must
hold then. tools/chaos is the command."""
import heapq
import os
import random
import signal
import time
from collections import Counter

from backend import NETWORK, TABLES, One
from checker import Checker
from parts import Failure
from world import OPERATIONS, World

EMPTY_WITHIN = 5.0      # after a notice, at the 99th percentile
EMPTY_AT_MOST = 40.0    # in any single run
EQUAL_WITHIN = 30.0     # all replicas, after the queues are empty
REQUEST_S = 35.0        # a request that hung when the faults ended
BACKOFF_CAP_S = 300.0

APART = {"node apart": ("to", "from"), "node deaf": ("from",), "node mute": ("to",)}  # as PostgreSQL is to it
YEARS = (-30, -4, 0, 2, 11, 60)


class Fault:
    """One fault from begin to end. `devices`: whom it meets; `servers`: processes of the backend."""

    def __init__(self, world, kind, at, length, devices, years, servers):
        self.world, self.kind, self.at, self.length = world, kind, at, length
        self.devices, self.years, self.servers = devices, years, servers

    def __str__(self):
        whom = ",".join([str(d.number) for d in self.devices] + [s.name for s in self.servers])
        return f"{self.at:5.2f} s  {self.kind:<17} {whom}  for {self.length:.2f} s"

    def processes(self):
        if self.servers:
            return self.servers
        return [d.app if "app" in self.kind else d.syncing for d in self.devices]

    def disks(self):
        return self.world.backend.disks if self.servers else [d.disk for d in self.devices]

    def cuts(self):
        """Ways of the network that it closes, each with what is closed."""
        if self.kind in APART:
            pairs = {"to": "{} . vd", "from": "vd . {}"}
            return [("apart", [pairs[way].format(self.world.backend.interface(node)) for node in self.servers])
                    for way in APART[self.kind]]
        ways = ("from", "to") if self.kind == "both" else (self.kind,)
        return [(way, [d.interface for d in self.devices]) for way in ways if self.kind in NETWORK]

    def begin(self):
        verb = self.kind.split(" ")[0]
        for way, what in self.cuts():
            self.world.cut(way, what)
        if verb in ("kill", "crash", "stop"):
            for process in self.processes():
                if verb == "stop":
                    process.send(signal.SIGSTOP)
                else:
                    getattr(process, verb)()
        elif verb == "full":
            for disk in self.disks():
                disk.fill()
        elif verb == "clock":
            for device in self.devices:
                device.set_clock(self.years)

    def end(self):
        for way, what in self.cuts():
            self.world.mend(way, what)
        if self.kind.startswith("full"):
            for disk in self.disks():
                disk.clear()
        elif not self.cuts() and self.kind != "clock":
            for process in self.processes():
                process.ensure()


def draw(world, generator, seconds):
    """Faults of one run."""
    kinds, weights = zip(*world.backend.faults)
    wanted = [generator.choice(world.backend.always)] + generator.choices(kinds, weights, k=generator.randint(2, 7))
    faults = []
    for kind in wanted:
        at = generator.uniform(0, 0.6) * seconds
        length = min(generator.uniform(0.2, 1.2) * seconds, seconds - at)
        some = world.devices
        if generator.random() < 0.75:
            some = generator.sample(some, generator.randint(1, max(1, world.count // 2)))
        if kind == "clock":
            some = [d for d in some if d.skewed]
        servers = world.backend.met(kind, generator)
        if servers:
            some = []
        elif not some:
            continue
        faults.append(Fault(world, kind, at, length, some, generator.choice(YEARS), servers))
    return faults


def play(faults, seconds, say):
    """Begins and ends each at its time. A process that two faults stop goes on with the first to end."""
    queue = []
    for i, fault in enumerate(faults):
        heapq.heappush(queue, (fault.at, i, fault.begin))
        heapq.heappush(queue, (min(fault.at + fault.length, seconds), len(faults) + i, fault.end))
        say(str(fault))
    started = time.monotonic()
    while queue:
        at, _, act = heapq.heappop(queue)
        time.sleep(max(0.0, started + at - time.monotonic()))
        act()
    time.sleep(max(0.0, started + seconds - time.monotonic()))


class Series:
    """Runs on one world, one after the other."""

    def __init__(self, folder, seed, number, devices, say, backend=One):
        self.random = random.Random(f"{seed}/{number}")
        self.say = say
        self.world = World(os.path.join(folder, f"s{number}"), devices, seed * 1000 + number, self.random,
                           backend)
        self.checker = Checker(devices)
        self.faults = Counter()
        self.world.start()

    def close(self):
        self.world.close()

    # ---- runs ----

    def partition_run(self, seconds=None):
        """Returns what was measured; Failure when something does not hold."""
        world = self.world
        seconds = seconds or self.random.uniform(1.5, 4.0)
        faults = draw(world, self.random, seconds)
        notice = self.random.random() < 0.9
        self.faults.update(f.kind for f in faults)
        world.write(True)
        play(faults, seconds, self.say)
        return dict(self.after(notice), seconds=round(seconds, 2), faults=len(faults))

    def kill_run(self, kills):
        """Kills of devices' processes, one right after the other, and now and then of the backend's."""
        world, done = self.world, 0
        world.write(True)
        while done < kills:
            time.sleep(self.random.uniform(0, 0.08))
            world.backend.ensure()
            if self.random.random() < 0.12:
                process = world.backend.to_kill(self.random)
                process.kill()
                process.ensure()
                self.faults["kill " + process.name] += 1
            process = self.random.choice(self.random.choice(world.devices).processes)
            done += process.alive()
            process.kill()
            process.spawn()
        self.faults["kill of a device's process"] += done
        return dict(self.after(True), kills=done)

    # ---- the end of a run ----

    def after(self, notice):
        world = self.world
        world.heal()
        world.write(False)
        allowed = EMPTY_AT_MOST
        if not notice:
            allowed = REQUEST_S + min(BACKOFF_CAP_S, max(self.waits()))
        emptied = self.wait_empty(notice, allowed)
        began = time.monotonic()
        expected = self.wait_equal()
        result = {"notice": notice, "empty": round(emptied, 3), "equal": round(time.monotonic() - began, 3)}
        self.check(expected)
        world.write(True)
        return dict(result, events=len(self.checker.events), reads=self.checker.reads)

    def waits(self):
        """How long each device will wait before it tries again, as it has noted; by its own clock."""
        found = [0.0]
        for device in self.world.devices:
            for attempt, last in device.query(
                    "SELECT CAST((SELECT v FROM godwit_meta WHERE k = 'next_attempt_ms') AS INTEGER),"
                    " CAST((SELECT v FROM godwit_meta WHERE k = 'last_attempt_ms') AS INTEGER)"):
                if attempt and last:
                    found.append((attempt - last) / 1000)
        return found

    def wait_empty(self, notice, allowed):
        """Seconds until no device has anything to send."""
        began = time.monotonic()
        marks = [os.path.getsize(d.history) for d in self.world.devices]
        if notice:
            for device in self.world.devices:
                device.syncing.send(signal.SIGUSR1)
        left = list(self.world.devices)
        while left:
            # whoever has noted a read since has no transaction under way any more
            left = [d for d in left if not d.has_read(marks[d.number]) or d.pending()]
            took = time.monotonic() - began
            if left and took > allowed:
                raise Failure(f"after {took:.1f} s: " + "; ".join(
                    f"device {d.number} has {d.pending()} pending: "
                    f"{d.query('SELECT * FROM godwit_metrics')} "
                    f"{d.query('SELECT k, v FROM godwit_meta WHERE k IN (' + META + ')')}" for d in left))
            if left:
                time.sleep(0.02)
        return took

    def wait_equal(self):
        """Until every replica is as the server; returns what the server has."""
        end = time.monotonic() + EQUAL_WITHIN
        expected = {t: self.world.store(f"SELECT * FROM {t} ORDER BY id") for t in TABLES}
        left = list(self.world.devices)
        while left:
            left = [d for d in left if d.rows() != expected]
            if left and time.monotonic() > end:
                raise Failure("not equal to the server: " + "; ".join(
                    f"device {d.number}: {differences(expected, d.rows())}" for d in left))
            if left:
                time.sleep(0.05)
        return expected

    def check(self, expected):
        checker, world = self.checker, self.world
        for _, device, n, seen, cell in sorted(expected["events"], key=lambda e: (e[1], e[2])):
            if (device, n) not in checker.events:
                checker.add_event(device, n, map(int, seen.split(",")), cell)
        for device in world.devices:
            checker.feed(device.number, device.history_lines())
        if checker.violations:
            raise Failure("\n".join(f"{rule}: {text}" for rule, text in checker.violations[:10]))
        made = len(checker.events)
        tally = expected["tally"][0][1]
        if tally != made:
            raise Failure(f"{made} events were counted {tally} times")
        self.check_ledger(made)
        for device in world.devices:
            for what in ("godwit_dead_letters", "godwit_conflicts WHERE state = 'open'"):
                found = device.query(f"SELECT * FROM {what} LIMIT 3")
                if found:
                    raise Failure(f"device {device.number} has {what}: {found}")
        for process in [*world.backend.servers, *(p for d in world.devices for p in d.processes)]:
            if "Sanitizer" in process.log() or "fault in Godwit" in process.log():
                raise Failure(f"{process.name}: {process.log()[-3000:]}")

    def check_ledger(self, made):
        """Exactly once, in the server's own books: each operation has one line, one key, one outcome, and each
        event's operations are one commit."""
        operations, commits = self.world.made_before
        rows = self.world.store("SELECT count(*), count(DISTINCT lineage || ':' || lsn), count(DISTINCT op_key),"
                                " sum(CASE WHEN outcome IN ('applied', 'merged', 'noop') THEN 0 ELSE 1 END)"
                                f" FROM {self.world.backend.ledger}")[0]
        wanted = operations + made * OPERATIONS
        if rows != (wanted, wanted, wanted, 0):
            raise Failure(f"the ledger has {rows} (operations, lines, keys, refused) for {made} events, not {wanted}")
        found = self.world.store(f"SELECT count(*), max(commit_seq) FROM {self.world.backend.commits}")[0]
        if tuple(found) != (commits + made,) * 2:
            raise Failure(f"there are {found} commits (number, last) for {made} events, not {commits + made}")


META = "'next_attempt_ms', 'last_attempt_ms', 'failures', 'last_error'"


def differences(expected, rows):
    found = []
    for table in TABLES:
        ours, theirs = set(rows[table]), set(expected[table])
        if ours != theirs:
            found.append(f"{table}: only here {sorted(ours - theirs)[:3]}, only there {sorted(theirs - ours)[:3]}")
    return found
