"""The causal checker: did every device, at every moment, see what causal consistency lets it see?

Input are the events as the server has them (who wrote what, having seen what) and the histories that the
applications kept (app.c). A device is one session: its database outlives its processes.

    checker = Checker(devices=10)
    checker.add_event(device, n, seen, cell)    # all events of the server; seen: last number per device
    checker.feed(device, lines)                 # histories in any number of pieces
    checker.violations                          # [(rule, text)], empty when all is well

Rules  read your writes     a read shows what this device was told is committed
       monotonic reads      what a device has seen it goes on seeing
       monotonic writes     events of one device appear in their order, none is left out
       writes follow reads  who sees an event sees all that its author had seen; a value is not seen
                            again once an event is visible that has overwritten it knowingly
       atomic groups        an event, its parts, its head, its cell and its count are seen together
       lost                 an event was committed on a device and is not on the server"""
import bisect
from collections import namedtuple

PARTS = 2
Event = namedtuple("Event", "seen cell")
Read = namedtuple("Read", "counts lasts parts heads cells tally")


def parse_read(words):
    numbers = [tuple(map(int, w.split(","))) for w in words[:4]]
    cells = [tuple(map(int, v.split("-"))) if v else None for v in words[4].split(",")]
    return Read(*numbers, cells, int(words[5]))


class Checker:
    def __init__(self, devices):
        self.devices = devices
        self.events = {}
        self.writers = {}       # (cell, device) -> ([numbers], [seen]), both growing
        self.overwritten = {}   # (cell, value) -> per device the first event that overwrote it knowingly
        self.acked = [0] * devices
        self.last_read = [(0,) * devices] * devices
        self.reads = 0
        self.violations = []

    def fail(self, rule, device, text):
        self.violations.append((rule, f"device {device}: {text}"))

    def known(self, device):
        """How many events of the device are there."""
        return sum(1 for d, _ in self.events if d == device)

    def add_event(self, device, n, seen, cell):
        seen = tuple(seen)
        before = self.events.get((device, n - 1))
        if n > 1 and before is None:
            self.fail("monotonic writes", device, f"event {n} is on the server, {n - 1} is not")
        if before and any(a > b for a, b in zip(before.seen, seen)):
            self.fail("monotonic reads", device, f"event {n} had seen less than {n - 1}")
        if seen[device] != n - 1:
            self.fail("read your writes", device, f"event {n} had seen {seen[device]} of its own")
        self.events[device, n] = Event(seen, cell)
        numbers, seens = self.writers.setdefault((cell, device), ([], []))
        numbers.append(n)
        seens.append(seen)
        self.overwritten.clear()

    def first_overwriters(self, cell, value):
        """Per device the number of its first event on the cell whose author had seen `value`."""
        key = (cell, value)
        if key not in self.overwritten:
            found = []
            for device in range(self.devices):
                numbers, seens = self.writers.get((cell, device), ((), ()))
                at = bisect.bisect_left(seens, value[1], key=lambda seen: seen[value[0]]) if value else 0
                found.append(numbers[at] if at < len(numbers) else None)
            self.overwritten[key] = found
        return self.overwritten[key]

    def feed(self, device, lines):
        for line in lines:
            words = line.rstrip("\n").split(" ")
            if words[0] == "r":
                self.read(device, parse_read(words[1:]))
            elif words[0] == "w":
                self.write(device, int(words[1]), int(words[2]))
            elif int(words[1]) < self.acked[device]:
                self.fail("read your writes", device, f"event {self.acked[device]} was committed; after a start"
                          f" the last one is {words[1]}")

    def write(self, device, n, cell):
        self.acked[device] = n
        event = self.events.get((device, n))
        if event is None or event.cell != cell:
            self.fail("lost", device, f"event {n} was committed and is not on the server")

    def read(self, device, r):
        self.reads += 1
        if r.counts != r.lasts:
            self.fail("monotonic writes", device, f"saw {r.counts} events numbered up to {r.lasts}")
        if (r.parts != tuple(PARTS * n for n in r.counts) or r.heads != r.lasts or r.tally != sum(r.counts)):
            self.fail("atomic groups", device, f"saw events {r.counts}, parts {r.parts}, heads {r.heads},"
                      f" tally {r.tally}")
        if any(a > b for a, b in zip(self.last_read[device], r.lasts)):
            self.fail("monotonic reads", device, f"saw {self.last_read[device]}, then {r.lasts}")
        self.last_read[device] = r.lasts
        if r.lasts[device] < self.acked[device]:
            self.fail("read your writes", device, f"event {self.acked[device]} was committed, the last one seen"
                      f" is {r.lasts[device]}")
        for author, n in enumerate(r.lasts):
            event = self.events.get((author, n))
            if n and event is None:
                self.fail("lost", device, f"saw event {author}-{n}, which is not on the server")
            elif n and any(a > b for a, b in zip(event.seen, r.lasts)):
                self.fail("writes follow reads", device, f"saw event {author}-{n}, whose author had seen"
                          f" {event.seen}, but only {r.lasts}")
        for cell, value in enumerate(r.cells):
            self.read_cell(device, r, cell, value)

    def read_cell(self, device, r, cell, value):
        if value:
            event = self.events.get(value)
            if value[1] > r.lasts[value[0]]:
                self.fail("atomic groups", device, f"cell {cell} is of event {value}, which is not seen")
            if event and event.cell != cell:
                self.fail("atomic groups", device, f"cell {cell} has what event {value} wrote elsewhere")
        for author, n in enumerate(self.first_overwriters(cell, value)):
            if n is not None and n <= r.lasts[author]:
                self.fail("writes follow reads", device, f"cell {cell} is of event {value}, which {author}-{n} had"
                          f" seen and overwritten; saw {r.lasts}")
                return
