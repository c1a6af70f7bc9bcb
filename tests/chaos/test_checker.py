"""The causal checker must accept what is right and notice every planted violation. Three devices; the
histories are written by hand."""
import os
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from checker import Checker  # noqa: E402

#          device, n, seen, cell
EVENTS = [(0, 1, (0, 0, 0), 0),
          (1, 1, (1, 0, 0), 0),   # has seen 0-1 and overwrites its cell
          (0, 2, (1, 0, 0), 1),
          (2, 1, (0, 0, 0), 0)]   # concurrent with all


def read(lasts, cells=(None, None), **wrong):
    """A line of a history; `wrong` replaces what would fit."""
    fields = {"counts": lasts, "lasts": lasts, "parts": [2 * n for n in lasts], "heads": lasts, "tally": sum(lasts)}
    fields.update(wrong)
    lists = [",".join(map(str, fields[k])) for k in ("counts", "lasts", "parts", "heads")]
    values = ",".join("-".join(map(str, c)) if c else "" for c in cells)
    return " ".join(["r", *lists, values, str(fields["tally"])])


def check(device, lines, events=EVENTS):
    checker = Checker(3)
    for event in events:
        checker.add_event(*event)
    checker.feed(device, lines)
    return {rule for rule, _ in checker.violations}


GOOD = [
    (0, ["s 0", read((0, 0, 0)), "w 1 0", read((1, 0, 0), [(0, 1), None]), "w 2 1", read((2, 0, 0), [(0, 1), (0, 2)]),
         "s 2", read((2, 1, 0), [(1, 1), (0, 2)])]),
    (1, ["s 0", read((1, 0, 0), [(0, 1), None]), "w 1 0", read((1, 1, 0), [(1, 1), None])]),
    # concurrent values of one cell: either may win
    (2, ["w 1 0", read((0, 0, 1), [(2, 1), None]), read((1, 1, 1), [(2, 1), None])]),
    (2, ["w 1 0", read((0, 0, 1), [(2, 1), None]), read((1, 1, 1), [(1, 1), None])]),
    # committed, killed before it could be noted
    (0, ["s 0", "s 1", read((1, 0, 0), [(0, 1), None])]),
]

BAD = {
    "own write not seen": (0, ["w 1 0", read((0, 0, 0))], "read your writes"),
    "own write gone after a kill": (0, ["w 1 0", "s 0"], "read your writes"),
    "what was seen is gone": (2, [read((1, 0, 0), [(0, 1), None]), read((0, 0, 0))], "monotonic reads"),
    "an event is left out": (1, [read((2, 0, 0), [None, (0, 2)], counts=(1, 0, 0), parts=(2, 0, 0), tally=1)],
                             "monotonic writes"),
    "an effect without its cause": (2, [read((0, 1, 0), [(1, 1), None])], "writes follow reads"),
    "a value that was overwritten comes back": (2, [read((1, 1, 0), [(0, 1), None])], "writes follow reads"),
    "a value that was written is not there": (2, [read((1, 0, 0))], "writes follow reads"),
    "half of the parts": (2, [read((1, 0, 0), [(0, 1), None], parts=(1, 0, 0))], "atomic groups"),
    "a head without its event": (2, [read((1, 0, 0), [(0, 1), None], heads=(2, 0, 0))], "atomic groups"),
    "counted twice": (2, [read((1, 0, 0), [(0, 1), None], tally=2)], "atomic groups"),
    "a cell without its event": (2, [read((1, 0, 0), [(1, 1), None])], "atomic groups"),
    "a cell with another cell's value": (2, [read((2, 0, 0), [(0, 1), (0, 1)])], "atomic groups"),
    "an acknowledged event is not on the server": (0, ["w 3 1"], "lost"),
    "an event that only a device has": (2, [read((0, 2, 0), [(1, 2), None])], "lost"),
}


@pytest.mark.parametrize("case", range(len(GOOD)))
def test_accepts_causal_histories(case):
    assert check(*GOOD[case]) == set()


@pytest.mark.parametrize("name", sorted(BAD))
def test_notices(name):
    device, lines, rule = BAD[name]
    assert rule in check(device, lines)


@pytest.mark.parametrize("event, rule", [
    ((0, 4, (3, 0, 0), 0), "monotonic writes"),     # 0-3 is missing
    ((0, 3, (1, 0, 0), 0), "read your writes"),     # had not seen its own 0-2
    ((1, 2, (0, 1, 0), 0), "monotonic reads")])     # had seen 0-1 before
def test_notices_events_that_can_not_be(event, rule):
    assert rule in check(0, [], EVENTS + [event])
