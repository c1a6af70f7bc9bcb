"""What the documents print is true: every shell block of README.md and docs/protocol.md is run, and the
JSON behind a block must have the shape of the answer that came."""
import json
import os
import re
import subprocess

import pytest

from harness import BUILD, CLI_BUILD, ROOT, SERVER_BUILD, SLOW, free_port

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SERVER_URL = "http://127.0.0.1:8787"


def blocks(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as stream:
        return [(m.group(1), m.group(2)) for m in BLOCK.finditer(stream.read())]


def run(script, folder, url):
    path = os.pathsep.join([CLI_BUILD, SERVER_BUILD, os.environ["PATH"]])
    done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True,
                          timeout=60 * SLOW, env=dict(os.environ, PATH=path, URL=url, TMPDIR=str(folder)))
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def differences(printed, real, at="answer"):
    """Members that are printed and not there, there and not printed, or of another kind."""
    if isinstance(printed, dict) and isinstance(real, dict):
        for name in printed.keys() ^ real.keys():
            yield f"{at}.{name}: {'only printed' if name in printed else 'not printed'}"
        for name in printed.keys() & real.keys():
            yield from differences(printed[name], real[name], f"{at}.{name}")
    elif isinstance(printed, list) and isinstance(real, list):
        if len(printed) != len(real):
            yield f"{at}: {len(printed)} items printed, {len(real)} there"
        for i, (a, b) in enumerate(zip(printed, real)):
            yield from differences(a, b, f"{at}[{i}]")
    elif type(printed) is not type(real):
        yield f"{at}: {printed!r} printed, {real!r} there"
    elif at.rsplit(".", 1)[-1] in ("status", "outcome", "code", "commitSeq", "type", "title", "kind", "entityId"):
        if printed != real:
            yield f"{at}: {printed!r} printed, {real!r} there"


def protocol_run(folder):
    """(printed JSON, real output) of each example that has an answer printed."""
    script, expected = "trap 'kill %1' EXIT\n", []
    for kind, text in blocks("docs/protocol.md"):
        if kind == "sh":
            count = len(re.findall(r"^exec >", script, re.M))
            script += f"exec > out.{count}\n{text}"
            last = count
        elif kind == "json":
            expected.append((last, text))
    run(script, folder, f"http://127.0.0.1:{free_port()}")
    for number, printed in expected:
        with open(os.path.join(folder, f"out.{number}"), encoding="utf-8") as stream:
            yield printed, stream.read()


def test_the_examples_of_the_protocol(tmp_path):
    found, count = [], 0
    for printed, real in protocol_run(tmp_path):
        count += 1
        found += list(differences(json.loads(printed), json.loads(real)))
    assert count >= 10
    assert not found, "\n".join(found)


def test_a_difference_is_found():
    assert list(differences({"a": 1}, {"a": 1, "b": 2})) and list(differences({"a": 1}, {}))
    assert list(differences({"a": [1]}, {"a": []})) and list(differences({"a": 1}, {"a": "1"}))
    assert list(differences({"status": 1}, {"status": 2})) and not list(differences({"n": 1}, {"n": 2}))


def test_the_example_of_the_readme(tmp_path):
    text = next(text for kind, text in blocks("README.md") if kind == "sh")
    port = free_port()
    assert "serve --dev" in text and text.count("8787") >= 2
    text = text.replace("serve --dev", f"serve --dev --listen 127.0.0.1:{port}").replace("8787", str(port))
    text = text.replace("export PATH=$PWD/build:$PATH && ", "")
    done = run("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + text, tmp_path, SERVER_URL)
    wanted = re.search(r"# (p-1\|.*)$", text, re.M).group(1)
    assert wanted in done.stdout.splitlines(), done.stdout
    feed = json.loads(done.stdout.splitlines()[-1])
    assert feed["commits"] and not feed["more"]


def test_the_example_of_the_sql_page(world, tmp_path):
    server = world.server(schema=None, dev=True)
    (tmp_path / "token").write_text(server.token(scope="team"))
    os.symlink(os.path.join(BUILD, "godwit.so"), tmp_path / "godwit.so")
    text = next(text for kind, text in blocks("docs/sql.md") if kind == "sh")
    lines = run(text, tmp_path, server.url).stdout.splitlines()
    assert "create|pins|p-1|pending" in lines and "p-1|synced|1" in lines and lines[-1] == "0|0", lines
    assert server.query("SELECT count(DISTINCT commit_seq), count(*) FROM godwit_change") == [(1, 2)]


def test_every_function_and_view_is_documented():
    names, views = set(), set()
    for folder, found, pattern in (("extension", names, r'^\s*\{"(godwit_\w+)"'), ("client", views, r"CREATE VIEW (\w+)")):
        for name in sorted(os.listdir(os.path.join(ROOT, "src", folder))):
            with open(os.path.join(ROOT, "src", folder, name), encoding="utf-8") as stream:
                found |= set(re.findall(pattern, stream.read(), re.M))
    with open(os.path.join(ROOT, "docs/sql.md"), encoding="utf-8") as stream:
        text = stream.read()
    assert len(names) > 10 and len(views) > 4
    for name in sorted(names):
        assert f"`{name}(" in text, name
    for name in sorted(views):
        assert f"| `{name}` |" in text, name


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "STYLE.md", "CONTRIBUTING.md", "SECURITY.md",
                                  "CHANGELOG.md", "docs/protocol.md", "docs/configuration.md", "docs/limits.md",
                                  "docs/sql.md", "docs/recovery.md"])
def test_links_lead_somewhere(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as stream:
        text = stream.read()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert os.path.exists(os.path.join(ROOT, os.path.dirname(name), target)), f"{name}: {target}"


def test_the_printed_limits_are_those_of_the_code():
    with open(os.path.join(ROOT, "src/core/limits.h"), encoding="utf-8") as stream:
        limits = dict(re.findall(r"^#define (\w+) +(\d+)\b", stream.read(), re.M))
    with open(os.path.join(ROOT, "docs/limits.md"), encoding="utf-8") as stream:
        text = stream.read()
    for name in ("PUSH_OPS_MAX", "GROUP_SPLIT_OPS", "COLUMNS_MAX", "KEY_COLUMNS_MAX", "ENTITY_ID_BYTES_MAX",
                 "TABLES_MAX", "SCOPES_MAX", "NAME_BYTES_MAX", "JSON_DEPTH_MAX", "PAGE_COMMITS_MAX", "WAIT_S_MAX",
                 "CLOCK_ENTRIES_MAX", "DEPENDS_MAX"):
        assert re.search(rf"\b{int(limits[name]):,}\b", text), name


def test_every_setting_is_documented():
    with open(os.path.join(ROOT, "src/server/config.h"), encoding="utf-8") as stream:
        keys = re.findall(r"^    X\((\w+)\)", stream.read(), re.M)
    with open(os.path.join(ROOT, "src/server/registry.c"), encoding="utf-8") as stream:
        source = stream.read()
        keys += re.findall(r'\{"(\w+)", set_\w+\}', source) + re.findall(r'slice_is\(key, "(\w+)"\)', source)
    with open(os.path.join(ROOT, "docs/configuration.md"), encoding="utf-8") as stream:
        text = stream.read()
    assert len(keys) > 15
    for key in keys:
        assert f"`{key}`" in text or f"`GODWIT_{key.upper()}`" in text, key


def test_every_problem_is_documented():
    found = set()
    for name in sorted(os.listdir(os.path.join(ROOT, "src/server"))):
        if name.endswith(".c"):
            with open(os.path.join(ROOT, "src/server", name), encoding="utf-8") as stream:
                found |= set(re.findall(r'\b[45]\d\d,\s*"([a-z]+(?:-[a-z]+)*)"', stream.read()))
    with open(os.path.join(ROOT, "docs/protocol.md"), encoding="utf-8") as stream:
        text = stream.read()
    assert len(found) > 10
    for name in sorted(found):
        assert f"`{name}`" in text, name


def test_recovery_runs(tmp_path):
    script = "trap 'kill %1 2>/dev/null || :' EXIT\n" + "".join(t for k, t in blocks("docs/recovery.md") if k == "sh")
    os.symlink(os.path.join(BUILD, "godwit.so"), tmp_path / "godwit.so")
    done = run(script.replace(".load godwit", ".load ./godwit"), tmp_path, f"http://127.0.0.1:{free_port()}")
    assert "check-failed" in done.stdout and "superseded" in done.stdout
    with open(tmp_path / "everything.ndjson", encoding="utf-8") as stream:
        assert stream.read() == "", "nothing is left to be done"
