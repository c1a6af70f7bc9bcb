"""Several servers over one PostgreSQL: who waits at one of them is woken by what is pushed to another,
all agree on one history, and each may be restarted while devices sync."""
import asyncio
import json
import resource
import shutil
import tempfile
import threading
import time

import pytest

import harness
import nodes as several
import postgres
from rawhttp import create, events, read_event, read_head, request
from stream import Stream


@pytest.fixture
def db(cluster):
    d = cluster.fresh()
    d.run(several.PINS)
    d.track("pins", scope="field")
    yield d
    d.close()


def long_poll(node, token, cursor, results):
    def wait():
        answer = node.get(f"/v1/sync/changes?scope=field&cursor={cursor}&wait=20", token=token)
        results.append([change["entityId"] for commit in answer.json["commits"] for change in commit["changes"]])
    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def url(by, db):
    """Nobody can listen through a pooler in transaction mode: then polling has to do."""
    if by == "notify":
        yield db.url
        return
    if not shutil.which("pgbouncer"):
        pytest.skip("pgbouncer is not installed")
    folder = tempfile.mkdtemp(prefix="pg-", dir="/tmp")  # a socket's path must be short
    pooler = postgres.Pooler(folder, db)
    yield pooler.url
    pooler.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("by", ["notify", "poll"])
def test_waiting_devices_are_woken_by_another_server(by, url, world):
    here, there = several.start(world, url, 2)
    token = here.token()
    harness.wait_until(lambda: f"wakeups by={by}" in there.log(), 20, what="it knows how it is woken")
    assert several.metric(there, "godwit_listening") == (by == "notify")
    counter = f'godwit_moved_elsewhere_total{{by="{by}"}}'
    cursor = there.pull(token=token)[1]["cursor"]
    s, stream = events(there, token=token)
    with s:
        assert read_head(stream)[0] == 200 and read_event(stream)["head"] == 0
        results = []
        poll = long_poll(there, token, cursor, results)
        harness.wait_until(lambda: several.metric(there, "godwit_parked_requests") == 1, what="it is parked")
        begun = time.monotonic()
        assert here.push([create(1)]).status == 200
        poll.join()
        assert results == [["p1"]] and time.monotonic() - begun < 15, "it was not woken"
        assert read_event(stream) == {"scope": "field", "head": 1}
        # the poll may be faster than the word once, not always
        number = 1
        while several.metric(there, counter) == 0:
            number += 1
            assert number < 30, there.get("/metrics").body.decode()
            assert here.push([create(number)]).status == 200
            assert read_event(stream)["head"] == number
    assert several.metric(here, counter) == 0  # its own word wakes nobody twice


def test_one_scope_through_three_servers_at_once(db, world):
    three = several.start(world, db.url)
    with several.Load(three, writers=6) as load:
        load.wait_for(120)
        # one operation at three servers at the same moment
        racer = Stream(three[0], device="e" * 32)
        for number in range(1, 11):
            operation = racer.create(f"race-{number}", number, title="x")
            body = racer.body([operation])
            answers = []
            threads = [threading.Thread(target=lambda n=n: answers.append(
                n.post("/v1/sync/operations", body, token=three[0].token()))) for n in three]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert any(a.status == 200 for a in answers), answers
            assert all(a.status in (200, 503) for a in answers), answers
            statuses = [a.json["results"][0]["status"] for a in answers if a.status == 200]
            assert statuses.count("success") <= 1, answers
            racer.seq, racer.last_key = number, operation["idempotencyKey"]
            load.acked.append(f"race-{number}")
    assert not load.strange, load.strange[0]
    written = several.check_feed(three, load.acked)
    assert sorted(written) == sorted(load.acked)  # nor anything that nobody was told of
    assert db.run("SELECT count(*) FROM pins") == str(len(written))


def test_rolling_restart_without_a_failed_sync(db, world):
    three = several.start(world, db.url)
    balancer = world.add(several.Balancer(three))
    devices = [world.device(name, three[0], schema=several.DEVICE, tables=("pins",), url=balancer.url)
               for name in ("a", "b")]
    stopping = threading.Event()
    failures, syncs = [], []

    def use(device):
        count = 0
        while not stopping.is_set():
            count += 1
            device.run("INSERT INTO pins VALUES (?, ?, NULL, 1)", f"{device.name}{count}", f"t{count}")
            done = device.sync_cli()
            syncs.append(device.name)
            if done.code != 0:
                failures.append(done)

    threads = [threading.Thread(target=use, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    try:
        for node in three:
            before = len(syncs)
            harness.wait_until(lambda: len(syncs) >= before + 4, 40, what="devices sync")
            assert node.stop() == 0
            before = len(syncs)
            harness.wait_until(lambda: len(syncs) >= before + 4, 40, what="devices sync with two servers")
            node.start()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    for _ in range(2):
        for device in devices:
            device.sync()
    rows = [device.run("SELECT id, title FROM pins ORDER BY id") for device in devices]
    assert rows[0] == rows[1] and len(rows[0]) == len(syncs)
    assert db.run("SELECT count(*) FROM pins") == str(len(syncs))


# ---- a thousand devices ----

SCOPES, PER_SCOPE = 20, 50


async def answer_of(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head[9:12]), json.loads(await reader.readexactly(length))


class Phone:
    """A registered device on one connection: it writes two rows and waits for those of the others."""

    def __init__(self, number, node, token, scope):
        self.stream = Stream(None, device=f"{number:032x}", scope=scope, register=False)
        self.node, self.token, self.scope, self.number = node, token, scope, number
        self.seen = []

    async def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        headers = ["Content-Type: application/json"] if body is not None else []
        for _ in range(200):
            self.writer.write(request(path, self.token, method, data, headers))
            status, answer = await answer_of(self.reader)
            if status != 503:
                assert status == 200, (status, answer)
                return answer
            await asyncio.sleep(0.2)
        raise AssertionError("overloaded for ever")

    async def run(self, gate):
        async with gate:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.node.port, limit=1 << 22)
            await self.ask("POST", "/v1/devices", {"deviceId": self.stream.device, "lineage": self.stream.device,
                                                   "scopes": [self.scope]})
        for number in (1, 2):
            operation = self.stream.create(f"p{self.number}-{number}", number, title="t")
            answer = await self.ask("POST", "/v1/sync/operations", self.stream.body([operation]))
            assert answer["results"][0]["status"] == "success", answer
            self.stream.seq, self.stream.last_key = number, operation["idempotencyKey"]
        cursor = ""
        while len(self.seen) < 2 * PER_SCOPE:
            page = await self.ask("GET", f"/v1/sync/changes?scope={self.scope}&wait=20{cursor}")
            self.seen += [(c["seq"], x["entityId"]) for c in page["commits"] for x in c["changes"]]
            cursor = f"&cursor={page['cursor']}"
            await asyncio.sleep(0.3)  # as a device that takes what has come meanwhile
        self.writer.close()


def test_a_thousand_devices_at_three_servers(cluster, world):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    db = cluster.fresh()
    db.run(several.PINS)
    db.track("pins")
    three = several.start(world, db.url)
    tokens = [three[0].token(sub=f"user{n}", scope=f"s{n}") for n in range(SCOPES)]
    phones = [Phone(n, three[n % 3], tokens[n % SCOPES], f"s{n % SCOPES}") for n in range(SCOPES * PER_SCOPE)]

    async def everyone():
        gate = asyncio.Semaphore(64)
        await asyncio.wait_for(asyncio.gather(*(phone.run(gate) for phone in phones)), 240 * harness.SLOW)

    begun = time.monotonic()
    asyncio.run(everyone())
    print(f"1000 devices, 2000 operations, 100000 changes read: {time.monotonic() - begun:.1f} s")
    for n in range(SCOPES):
        feeds = [phone.seen for phone in phones[n::SCOPES]]
        assert all(feed == feeds[0] for feed in feeds)
        assert sorted({seq for seq, _ in feeds[0]}) == list(range(1, feeds[0][-1][0] + 1))
        assert len({entity for _, entity in feeds[0]}) == 2 * PER_SCOPE == len(feeds[0])
    db.close()
