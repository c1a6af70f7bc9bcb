"""Copies of a database, restored backups and changing accounts, with real processes and plain file copies."""
import os
import shutil

from harness import Device, assert_converged, cli, settle

SUFFIXES = ("", "-wal", "-shm")


def save(device, path):
    """The database file as a backup program would find it when the application is closed."""
    device.disconnect()
    device.one("PRAGMA wal_checkpoint(TRUNCATE)")
    device.disconnect()
    shutil.copyfile(device.path, path)


def load(path, device):
    """Over the file that is there: the same inode, so that nothing local tells."""
    device.disconnect()
    for suffix in SUFFIXES[1:]:
        if os.path.exists(device.path + suffix):
            os.remove(device.path + suffix)
    shutil.copyfile(path, device.path)


def copy_of(world, device, name):
    """A second device from the first one's file, in another place."""
    path = os.path.join(str(world.path), f"{name}.db")
    save(device, path)
    return world.add(Device(path, name, device.server))


def insert(device, *names):
    for name in names:
        device.run("INSERT INTO pins(id, title) VALUES (?, ?)", name, f"{name} by {device.name}")


def save_server(server, path):
    assert server.stop() == 0
    shutil.copyfile(server.store, path)
    server.start()


def load_server(server, path):
    assert server.stop() == 0
    shutil.copyfile(path, server.store)
    server.start()


def metric(device, name):
    return device.one(f"SELECT {name} FROM godwit_metrics")


def assert_once(server):
    assert server.query("SELECT hex(o.op_key) FROM godwit_op o JOIN godwit_commit c ON c.scope = o.scope AND"
                        " c.commit_seq = o.commit_seq WHERE c.outcome <> 'duplicate' GROUP BY o.op_key"
                        " HAVING count(*) > 1") == []


def writers(server):
    return server.query("SELECT count(DISTINCT device_id) FROM godwit_commit")[0][0]


def test_a_copied_file_is_a_device_of_its_own(world):
    server = world.server()
    a = world.device("a", server)
    insert(a, "p1")
    a.sync()
    insert(a, "p2")  # waits in both
    b = copy_of(world, a, "b")
    insert(a, "p3")
    insert(b, "p4")
    settle(a, b)
    assert_converged(server, [a, b])
    assert [r[0] for r in a.rows("pins")] == ["p1", "p2", "p3", "p4"]
    assert writers(server) == 2
    assert metric(b, "rekeys") == 1 and metric(a, "rekeys") == 0
    assert metric(b, "reconciles") == 0, "it did not take another id before it sent something"
    assert_once(server)


def test_a_copy_that_nothing_local_tells(world):
    """An old backup over the same file: only the server can notice."""
    server = world.server()
    a = world.device("a", server)
    saved = os.path.join(str(world.path), "saved")
    insert(a, "p1")
    a.sync()
    insert(a, "p2")
    save(a, saved)
    insert(a, "p3")
    a.sync()
    load(saved, a)
    insert(a, "p4")
    settle(a)
    assert_converged(server, [a])
    assert [r[0] for r in a.rows("pins")] == ["p1", "p2", "p3", "p4"]
    assert metric(a, "reconciles") >= 1
    assert_once(server)


def test_a_server_from_a_backup_gets_everything_back(world):
    server = world.server()
    a, b, c = (world.device(name, server) for name in "abc")
    saved = os.path.join(str(world.path), "store")
    for device in (a, b, c):
        insert(device, device.name + "1")
    settle(a, b, c)
    save_server(server, saved)
    insert(a, "a2", "a3")
    a.run("UPDATE pins SET title = 'changed' WHERE id = 'a1'")
    a.run("DELETE FROM pins WHERE id = 'b1'")
    settle(a, b)
    load_server(server, saved)
    c.run("UPDATE pins SET note = 'after' WHERE id = 'a1'")
    settle(c, a, b)
    settle(a, b, c)
    assert_converged(server, [a, b, c])
    assert server.query("SELECT title, note FROM pins WHERE id = 'a1'") == [("changed", "after")]
    assert server.query("SELECT group_concat(id, ' ') FROM (SELECT id FROM pins ORDER BY id)") == [("a1 a2 a3 c1",)]
    assert writers(server) == 3, "nobody else used an identity: each goes on under its own"
    assert_once(server)


def test_what_was_sent_under_an_earlier_identity_comes_back(world):
    server = world.server()
    a = world.device("a", server)
    saved = os.path.join(str(world.path), "store")
    insert(a, "p1")
    a.sync()
    save_server(server, saved)
    insert(a, "p2")
    a.sync()  # under the first identity
    copy = copy_of(world, a, "b")
    insert(copy, "p3")
    copy.sync()  # under the second one
    load_server(server, saved)
    a.disconnect()
    os.remove(a.path)  # the original is gone: the copy alone knows
    settle(copy)
    assert_converged(server, [copy])
    assert [r[0] for r in copy.rows("pins")] == ["p1", "p2", "p3"]
    assert_once(server)


def test_a_base_in_lost_history_proves_nothing(world):
    server = world.server()
    a, b = (world.device(name, server) for name in "ab")
    saved = os.path.join(str(world.path), "store")
    insert(a, "p1")
    settle(a, b)
    save_server(server, saved)
    a.run("UPDATE pins SET title = 'lost'")
    a.sync()
    a.run("UPDATE pins SET title = 'on the lost one'")
    load_server(server, saved)
    b.run("UPDATE pins SET title = 'never seen by a'")
    b.sync()
    settle(a, b)
    assert_converged(server, [a, b])
    assert server.query("SELECT count(*) FROM godwit_conflict WHERE ours LIKE '%on the lost one%' AND theirs LIKE"
                        " '%never seen%'") == [(1,)], "it was overwritten in silence"
    assert a.one("SELECT title FROM pins") == "never seen by a"


def test_an_edit_waits_for_its_row_to_come_back(world):
    """The restored server lacks the row, the one who made it is late: kept, and made again when it is there."""
    server = world.server()
    a, b = (world.device(name, server) for name in "ab")
    saved = os.path.join(str(world.path), "store")
    insert(a, "p0")
    settle(a, b)
    save_server(server, saved)
    insert(a, "p1", "p2")
    settle(a, b)
    b.run("UPDATE pins SET title = 'edited' WHERE id = 'p1'")
    b.run("UPDATE pins SET title = 'edited' WHERE id = 'p2'")
    load_server(server, saved)
    for _ in range(3):
        b.sync()
    assert b.run("SELECT code FROM godwit_dead_letters") == [("lost-base",)] * 2
    settle(a)
    a.run("DELETE FROM pins WHERE id = 'p2'")
    settle(a, b)
    settle(a, b)
    assert server.query("SELECT id, title FROM pins ORDER BY id") == [("p0", "p0 by a"), ("p1", "edited")]
    assert b.run("SELECT entity_id FROM godwit_dead_letters") == [("p2",)], "there is nothing yet it could apply to"
    assert a.rows("pins") == b.rows("pins") == server.rows("pins")
    assert_once(server)


def test_a_queue_waits_for_its_user(world):
    server = world.server()
    a = world.device("a", server)
    insert(a, "p1")
    a.sync()
    insert(a, "p2")
    a.disconnect()
    a.sub = "ben"
    a.refresh_token()
    a.sync()  # notices
    insert(a, "p3")
    a.sync()
    assert [r[0] for r in server.rows("pins")] == ["p1", "p3"]
    assert a.one("SELECT count(*) FROM sync_queue WHERE state = 'parked'") == 1
    a.sub = "ana"
    a.refresh_token()
    settle(a)
    assert_converged(server, [a])
    assert server.query("SELECT n.name, count(*) FROM godwit_commit c JOIN godwit_name n ON n.no = c.user_id"
                        " GROUP BY 1 ORDER BY 1") == [("ana", 2), ("ben", 1)]


def test_a_device_is_revoked_while_the_server_runs(world):
    server = world.server()
    a, b = (world.device(name, server) for name in "ab")
    insert(a, "p1")
    insert(b, "p2")
    settle(a, b)
    where = ("--data", server.data)
    listed = cli("devices", *where, "--json").json
    assert [(d["user"], d["scope"], d["state"], d["sentSeq"]) for d in listed] == [("ana", "field", "active", 1)] * 2
    of_a = server.query("SELECT n.name FROM godwit_commit c JOIN godwit_name n ON n.no = c.device_id WHERE"
                        " commit_seq = 1")[0][0]
    revoked = cli("devices", "revoke", of_a[:12], *where, "--json")
    assert revoked.code == 0 and [(d["deviceId"], d["state"]) for d in revoked.json] == [(of_a, "revoked")]
    insert(a, "p3")
    insert(b, "p4")
    refused = cli("sync", a.path)
    assert refused.code == 1 and "may no longer be used" in refused.err, refused
    settle(b)
    assert [r[0] for r in server.rows("pins")] == ["p1", "p2", "p4"]
    assert [r[0] for r in a.rows("pins")] == ["p1", "p2", "p3"]
    assert a.one("SELECT state FROM sync_queue WHERE entity_id = 'p3'") == "pending"
    assert cli("devices", "retire", of_a, *where).code == 1, "it would be let in"
    assert cli("devices", "allow", of_a, *where).code == 0
    settle(a, b)
    assert_converged(server, [a, b])
    assert [r[0] for r in server.rows("pins")] == ["p1", "p2", "p3", "p4"]
    assert_once(server)
    unknown = cli("devices", "revoke", of_a, "nobody", *where)
    assert unknown.code == 1 and "nobody" in unknown.err
    assert "revoked" not in cli("devices", *where).out, "the first id was marked although the second is unknown"
    missing = cli("devices", "--data", server.folder)
    assert missing.code == 1 and "--data" in missing.err
