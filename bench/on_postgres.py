"""The part `postgres` of bench/run: the server over a PostgreSQL that it starts itself, which writes durably
(fsync and synchronous_commit as they come). CPU is that of the daemon and of all of PostgreSQL's processes
together; the load generator's counts for neither, but it shares the cores, so the wall counts it."""
import http.client
import os
import resource
import socket
import statistics
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCH = os.path.join(ROOT, "build-bench", "bench", "bench-postgres")
GODWIT = os.path.join(ROOT, "build-bench", "godwit")
TABLE = ("CREATE TABLE pins(id text PRIMARY KEY, title text, note text, lat double precision, lng double precision, "
         "status text, updated_at text);")
IDLE = 10000
PULLING = 1000


class Cluster:
    def __init__(self):
        command = [os.path.join(ROOT, "tools", "with-postgres"), "--durable", "sh", "-c", 'echo "$GODWIT_POSTGRES"; cat']
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.count = 0
        if not self.url:
            raise SystemExit("PostgreSQL could not be started")

    def sql(self, text, url=None):
        done = subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", url or self.url], input=text,
                              capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"psql: {done.stderr}")
        return done.stdout.strip()

    def fresh(self):
        """A new database as somebody who deploys makes it."""
        self.count += 1
        self.sql(f"CREATE DATABASE b{self.count}")
        url = self.url.replace("@/postgres?", f"@/b{self.count}?")
        for words in (["install"], ["track", "pins", "--scope", "s"]):
            if words[0] == "track":
                self.sql(TABLE, url)
            self.sql(subprocess.run([GODWIT, "pg", *words], capture_output=True, text=True, check=True).stdout, url)
        return url

    def bare(self, url, *words):
        """(rows per second, CPU seconds per row)"""
        done = subprocess.run([BENCH, url, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"bench-postgres: {done.stderr}")
        ops, wall, cpu = map(float, done.stdout.split())
        return ops / wall, cpu / ops

    def cpu(self):
        return float(subprocess.run([BENCH, self.url, "cpu"], capture_output=True, text=True, check=True).stdout)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


def batches(numbers, cluster, folder, daemon_of, pushes):
    url = cluster.fresh()
    daemon = daemon_of(folder, db=url)
    try:
        before = cluster.cpu()
        rate, cpu, sent = daemon.load(8, pushes, 1000, 1, 0)
        numbers.add("postgres rate", "8 devices", rate)
        numbers.add("postgres daemon cpu", "8 devices", cpu / sent)
        numbers.add("postgres cpu", "8 devices", (cluster.cpu() - before + cpu) / sent)
    finally:
        daemon.stop()
    for name, words in (("same tables", ["same", 1000]), ("smallest", ["smallest", pushes * 8000, 1000])):
        rate, cpu = cluster.bare(url, *words)
        numbers.add("postgres rate", name, rate)
        numbers.add("postgres cpu", name, cpu)
    cluster.sql(f"DROP DATABASE b{cluster.count}")


def singles(numbers, daemon, pushes, first):
    for name, devices, each in (("a transaction each", 1, pushes * 8), ("256 devices", 256, pushes)):
        rate, _, _ = daemon.load(devices, each, 1, 1, first)
        numbers.add("postgres single", name, rate)
        first += devices
    return first


def paced(numbers, daemon, seconds, first):
    """Half of what it can do, from as many devices."""
    rate = numbers.median("postgres single", "256 devices") / 2
    daemon.load(256, max(4, int(seconds * rate / 256)), 1, 1, first, rate)
    numbers.add("postgres paced", "rate", rate)
    numbers.add("postgres paced", "median", daemon.median_s)
    numbers.add("postgres paced", "p99", daemon.p99_s)
    return first + 256


def idle(numbers, daemon, count):
    """Streams that were told the head and have nothing to do."""
    streams = []
    before = daemon.resident_mib()
    try:
        for n in range(count):
            s = socket.create_connection(("127.0.0.1", daemon.port))
            streams.append(s)
            s.sendall(f"GET /v1/sync/events?scope=s&device={n + 1:032x} HTTP/1.1\r\nHost: bench\r\n"
                      f"Authorization: Bearer {daemon.token}\r\n\r\n".encode())
            if n % 64 == 63 or n == count - 1:
                for opened in streams[n - n % 64:]:
                    text = b""
                    while b"event: head" not in text:
                        part = opened.recv(4096)
                        text += part
                        if not part or (b"\r\n" in text and b" 200 " not in text.split(b"\r\n")[0]):
                            raise SystemExit(f"events: {text[:300]}")
        numbers.add("postgres idle", "before", before)
        numbers.add("postgres idle", "with streams", daemon.resident_mib())
    finally:
        for s in streams:
            s.close()


def pulling(daemon, devices, cursor):
    """Each device pulls one page once; 32 of them at a time. Returns commits that came."""
    came, failures, lock = [0], [], threading.Lock()

    def some(own):
        link = http.client.HTTPConnection("127.0.0.1", daemon.port)
        for n in own:
            link.request("GET", f"/v1/sync/changes?scope=s&device={n + 1:032x}&cursor={cursor}",
                         headers={"Authorization": f"Bearer {daemon.token}"})
            answer = link.getresponse()
            text = answer.read()
            with lock:
                came[0] += text.count(b'"changes":[')
                if answer.status != 200:
                    failures.append(text[:300])
        link.close()

    threads = [threading.Thread(target=some, args=(range(devices)[k::32],)) for k in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise SystemExit(f"pull: {failures[0]}")
    return came[0]


def feed_reads(cluster, url):
    return int(cluster.sql("SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM"
                           " pg_stat_user_tables WHERE schemaname = 'godwit' AND relname IN ('change', 'commit')", url))


def hot(numbers, cluster, folder, daemon_of, devices):
    """One device has pushed a page; all the others come for it."""
    url = cluster.fresh()
    daemon = daemon_of(folder, db=url)
    try:
        daemon.load(1, 1, 400, 1, 100000)
    finally:
        daemon.stop(keep=True)
    register(cluster, url, devices)
    before = feed_reads(cluster, url)
    daemon = daemon_of(folder, db=url)
    try:
        begin = time.monotonic()
        came = pulling(daemon, devices, "")
        numbers.add("postgres hot", "pulls", devices / (time.monotonic() - begin))
    finally:
        daemon.stop()
    numbers.add("postgres hot", "commits", came)
    time.sleep(0.5)  # backends tell what they have read when they end
    numbers.add("postgres hot", "rows read", feed_reads(cluster, url) - before)
    cluster.sql(f"DROP DATABASE b{cluster.count}")


def register(cluster, url, count):
    cluster.sql("INSERT INTO godwit.device(scope, device_id, user_id, lineage, registered_at) SELECT 's', id, 'u', id,"
                f" now() FROM (SELECT lpad(to_hex(n), 32, '0') AS id FROM generate_series(1, {count}) n) x"
                " ON CONFLICT DO NOTHING", url)


def places():
    """How many streams this machine lets one process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(IDLE, hard - 200)


def measure(report, numbers, folder, quick, daemon_of):
    repetitions, pushes, each, seconds = (1, 1, 8, 1) if quick else (5, 5, 20, 5)
    streams = 200 if quick else places()
    devices = 100 if quick else PULLING
    cluster = Cluster()
    try:
        for _ in range(repetitions):
            batches(numbers, cluster, folder, daemon_of, pushes)
        url = cluster.fresh()
        daemon = daemon_of(folder, db=url)
        try:
            first = 20000
            for _ in range(repetitions):
                first = singles(numbers, daemon, each, first)
            for _ in range(repetitions):
                first = paced(numbers, daemon, seconds / repetitions, first)
        finally:
            daemon.stop(keep=True)
        register(cluster, url, streams)
        daemon = daemon_of(folder, db=url)
        try:
            idle(numbers, daemon, streams)
        finally:
            daemon.stop()
        hot(numbers, cluster, folder, daemon_of, devices)
        version = cluster.sql("SHOW server_version").split()[0]
    finally:
        cluster.close()
    write(report, numbers, version, streams, devices)


def write(report, numbers, version, streams, devices):
    report.heading("Server on PostgreSQL")
    report.text(f"PostgreSQL {version} on this machine, durable, started for it; daemon, PostgreSQL and load generator "
                "share the cores. CPU: of the daemon and all of PostgreSQL's processes, or of the loop and them.")
    report.lines.append("")
    report.table("1,000 creates per push or transaction", "operations/s", "CPU per operation, us")
    for name, text in (("8 devices", "over HTTP, 8 devices"), ("same tables", "bare loop, the very rows of the server"),
                       ("smallest", "smallest useful loop: upsert, log, watermark")):
        report.row(text, f"{numbers.median('postgres rate', name):,.0f}", f"{numbers.median('postgres cpu', name) * 1e6:.1f}")
    report.row("... of the first, the daemon", "", f"{numbers.median('postgres daemon cpu', '8 devices') * 1e6:.1f}")
    report.lines.append("")
    report.table("ratio", "measured", "limit", "")
    for loop, limit in (("same tables", 0.6), ("smallest", 0.35)):
        # each repetition has its own loop beside it
        value = statistics.median(a / b for a, b in zip(numbers.samples[("postgres rate", "8 devices")],
                                                        numbers.samples[("postgres rate", loop)]))
        report.row(f"batches of 1,000 over HTTP, 8 devices, against the bare loop ({loop}), end to end (wall)",
                   f"{value:.2f}", f">= {limit}", report.verdict(value, limit, True))
        value = statistics.median(b / a for a, b in zip(numbers.samples[("postgres cpu", "8 devices")],
                                                        numbers.samples[("postgres cpu", loop)]))
        report.row(f"the same by CPU ({loop})", f"{value:.2f}", "", "")
    many, one = (numbers.median("postgres single", name) for name in ("256 devices", "a transaction each"))
    report.row(f"single pushes, 256 devices ({many:,.0f}/s) against a transaction each ({one:,.0f}/s)", f"{many / one:.1f}",
               ">= 5", report.verdict(many / one, 5, True))
    p99, middle, rate = (numbers.median("postgres paced", name) * 1e3 for name in ("p99", "median", "rate"))
    report.row(f"push p99 at half of that ({rate / 1e3:,.0f}/s; median {middle:.1f} ms), ms", f"{p99:.1f}", "< 100",
               report.verdict(p99, 100))
    value = numbers.median("postgres idle", "with streams")
    report.row(f"daemon with {streams:,} idle event streams, resident MiB ({numbers.median('postgres idle', 'before'):.0f}"
               " without)", f"{value:.0f}", "< 200", report.verdict(value, 200))
    came, read = (numbers.median("postgres hot", name) for name in ("commits", "rows read"))
    report.row(f"{devices:,} devices pull the same page ({came:,.0f} commits sent, "
               f"{numbers.median('postgres hot', 'pulls'):,.0f} pulls/s): rows read from the feed's tables, per commit sent",
               f"{read / came:.3f}", "<= 0.1", report.verdict(read / came, 0.1))
