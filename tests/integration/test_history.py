"""What happened to a row and to an operation, and taking a policy's decision back, from the command line."""
import json

from harness import assert_converged, cli, settle


def test_every_version_of_a_row_says_who_and_why(world):
    server = world.server()
    a, b = (world.device(name, server) for name in ("a", "b"))
    a.run("INSERT INTO pins(id, title) VALUES ('p', 'old')")
    settle(a, b)
    a.run("UPDATE pins SET title = 'from a'")
    a.sync()
    first = a.one("SELECT id FROM sync_queue WHERE operation = 'update'")
    b.run("UPDATE pins SET title = 'from b', note = 'n'")
    settle(b, a)
    assert_converged(server, [a, b])
    versions = cli("history", a.path, "pins", "p", "--json").json
    assert [v["columns"] for v in versions] == [
        {"title": "from b", "note": "n"}, {"title": "from a"}, versions[2]["columns"]]
    assert versions[1]["operation"]["id"] == first and versions[1]["conflicts"] == []
    assert versions[0]["userId"] == "ana" and versions[0]["deviceId"] != versions[1]["deviceId"]
    met = versions[0]["conflicts"][0]
    assert (met["policy"], met["winner"], met["theirs"]) == ("lww", "ours", {"title": "from a"})
    assert met["writers"]["theirs"]["commitSeq"] == versions[1]["seq"]
    # the operation that was overruled: applied, not current, replaced by what
    fate = cli("history", a.path, "--operation", first, "--json").json
    assert fate["operation"]["outcome"] == "applied" and fate["entityId"] == "p"
    assert fate["values"] == [{"column": "title", "value": "from a", "current": False, "replacedBy": {
        "commitSeq": versions[0]["seq"], "at": versions[0]["at"], "userId": "ana",
        "deviceId": versions[0]["deviceId"], "value": "from b"}}]
    second = b.one("SELECT id FROM sync_queue WHERE operation = 'update'")
    fate = cli("history", b.path, "--operation", second, "--json").json
    assert all(v["current"] for v in fate["values"]) and fate["operation"]["outcome"] == "merged"
    assert [c["id"] for c in fate["conflicts"]] == [met["id"]]
    # taken back
    done = cli("conflicts", a.path, "revert", met["id"])
    assert done.code == 0, done
    settle(a, b)
    assert b.one("SELECT title FROM pins") == "from a"
    assert cli("conflicts", b.path, "list", "--state", "reverted", "--json").json[0]["id"] == met["id"]
    again = cli("conflicts", a.path, "revert", met["id"])
    assert again.code == 1 and "reverted already" in again.err
    assert a.one("SELECT state FROM godwit_conflicts") == "reverted"


def test_what_did_not_become_current_at_all(world):
    server = world.server(config="[table pins]\npolicy = server_wins\n")
    a, b = (world.device(name, server) for name in ("a", "b"))
    a.run("INSERT INTO pins(id, title) VALUES ('p', 'old')")
    settle(a, b)
    a.run("UPDATE pins SET title = 'from a'")
    b.run("UPDATE pins SET title = 'from b'")
    settle(a, b)
    lost = b.one("SELECT id FROM sync_queue WHERE operation = 'update'")
    fate = cli("history", b.path, "--operation", lost, "--json").json
    assert fate["values"] == [] and fate["operation"]["outcome"] == "merged"
    record = fate["conflicts"][0]
    assert (record["ours"], record["chosen"], record["policy"]) == (
        {"title": "from b"}, {"title": "from a"}, "server_wins")
    for arguments, code in ((("history", a.path), 2), (("history", a.path, "--operation", "nobody"), 1),
                            (("history", a.path, "pins", "p", "--operation", lost), 2)):
        assert cli(*arguments).code == code


def test_lists_of_the_server_come_whole(world):
    """More than one page of conflicts, and of versions of a row."""
    server = world.server(config="[table pins]\npolicy = manual\n")
    server.push([{"id": "c", "operation": "create", "entityType": "pins", "entityId": "p",
                  "idempotencyKey": "k", "payload": {"title": "t"}}])
    server.push([{"id": f"u{i}", "operation": "update", "entityType": "pins", "entityId": "p", "baseSeq": 0,
                  "idempotencyKey": f"k{i}", "payload": {"title": f"t{i}"}} for i in range(120)])
    server.push([{"id": f"v{i}", "operation": "update", "entityType": "pins", "entityId": "p",
                  "idempotencyKey": f"v{i}", "payload": {"note": f"n{i}"}} for i in range(120)])
    remote = ("conflicts", "--url", server.url, "--token", server.token(), "--scope", "field")
    listed = cli(*remote, "list", "--limit", "0", "--json").json
    assert len(listed) == 120 and len({entry["id"] for entry in listed}) == 120
    assert len(cli(*remote, "list", "--limit", "110", "--json").json) == 110
    oldest = listed[-1]["id"]
    assert json.loads(cli(*remote, "show", oldest, "--json").out)["id"] == oldest
    assert cli(*remote, "show", "c-9-9").code == 1
    device = world.device("a", server)
    assert len(cli("history", device.path, "pins", "p", "--json").json) == 121
