"""SIGKILL at random moments, hundreds of times: the application, the syncing process and the server.
Afterwards every operation has been applied exactly once, on every replica."""
import os
import random
import signal
import subprocess
import time

from harness import BUILD, SCHEMA, SLOW, settle

SOAK = bool(os.environ.get("GODWIT_SOAK"))
KILLS = 2000 if SOAK else 200
WRITER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "writer.py")
SHARED = SCHEMA + "CREATE TABLE shared (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER);"


class Run:
    def __init__(self, world, seed):
        self.random = random.Random(seed)
        self.server = world.server(schema=SHARED)
        self.devices = [world.device(n, self.server, schema=SHARED) for n in "abc"]
        for device in self.devices:
            device.track("shared", ids="app")
        self.devices[0].run("INSERT INTO shared(id) VALUES (1)")
        settle(*self.devices, rounds=2)
        self.writers = {}
        self.kills = {"application": 0, "sync": 0, "server": 0}

    def side(self, device):
        return device.path + ".acknowledged"

    def write(self, device):
        device.disconnect()
        self.writers[device.name] = subprocess.Popen(
            ["/usr/bin/python3", WRITER, os.path.join(BUILD, "godwit"), device.path, device.name, self.side(device),
             "0.03"], stderr=subprocess.PIPE)

    def kill(self, what, process):
        alive = process.poll() is None
        if alive:
            process.send_signal(signal.SIGKILL)
            self.kills[what] += 1
        process.wait()
        if process.stderr:
            text = process.stderr.read().decode(errors="replace")
            process.stderr.close()
            assert "Sanitizer" not in text and "assert" not in text, text
        return alive

    def step(self):
        device = self.random.choice(self.devices)
        sync = device.spawn_sync()
        time.sleep(self.random.uniform(0, 0.06) * SLOW)
        if self.random.random() < 0.45:
            self.kill("server", self.server.process)
            self.server.spawn()
        if self.random.random() < 0.6:
            self.kill("sync", sync)
        if self.random.random() < 0.15:
            self.kill("application", self.writers[device.name])
            self.write(device)
        # whoever is left has a while to get something done
        try:
            sync.wait(self.random.choice([0.02, 0.1, 0.4]) * SLOW)
        except subprocess.TimeoutExpired:
            self.kill("sync", sync)
        if sync.stderr and not sync.stderr.closed:
            sync.stderr.close()

    def total(self):
        return sum(self.kills.values())


def transactions(rows, device):
    return sorted(int(r[0].split("-")[1]) for r in rows if r[0].startswith(device + "-"))


def test_killed_hundreds_of_times(world):
    seed = random.randrange(2**32)
    print("seed", seed)
    run = Run(world, seed)
    server, devices = run.server, run.devices
    for device in devices:
        run.write(device)
    started = time.monotonic()
    while run.total() < KILLS:
        run.step()
        assert time.monotonic() - started < (75 if not SOAK else 1500) * SLOW, run.kills
    for device in devices:
        run.kill("application", run.writers[device.name])
    run.kill("server", server.process)
    print(run.kills)
    assert all(run.kills.values())

    server.start()
    settle(*devices, rounds=3)

    made = 0
    for device in devices:
        rows = device.rows("pins")
        numbers = transactions(rows, device.name)
        assert numbers == list(range(1, len(numbers) + 1)), "a hole in what was written"
        with open(run.side(device)) as stream:
            acknowledged = [int(line) for line in stream]
        assert set(acknowledged) <= set(numbers), "an acknowledged transaction is gone"
        forms = device.run("SELECT count(*) FROM forms WHERE id LIKE ?", device.name + "-f%")[0][0]
        assert forms == len(numbers), "half a transaction"
        made += len(numbers)
    assert made > 20

    # every replica holds the same, and it is what the server holds
    for table in ("pins", "forms", "shared"):
        expected = server.rows(table)
        for device in devices:
            assert device.rows(table) == expected, f"{device.name}.{table}"
    assert len(server.rows("pins")) == made
    last = {d.name: len(transactions(server.rows("pins"), d.name)) for d in devices}
    assert server.query("SELECT a, b, c FROM shared") == [tuple(last[n] or None for n in "abc")]

    # exactly once: in the ledger, in the commit log and in the feed
    assert server.query("SELECT count(*), count(DISTINCT lineage || ':' || lsn), count(DISTINCT op_key) FROM godwit_op"
                        ) == [(3 * made + 1,) * 3]
    assert server.query("SELECT outcome, count(*) FROM godwit_op GROUP BY 1") == [("applied", 3 * made + 1)]
    assert server.query("SELECT count(*), max(commit_seq) FROM godwit_commit") == [(made + 1, made + 1)]
    assert server.query("SELECT count(*), count(DISTINCT pk) FROM godwit_change WHERE tbl = 'pins'") == [(made, made)]
    for device in devices:
        assert device.pending() == 0
        assert device.run("SELECT count(*) FROM godwit_dead_letters") == [(0,)]
