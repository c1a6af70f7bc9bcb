"""What docs/operations.md tells operators to use is good: configurations, alerts, metrics."""
import os
import re
import shutil
import subprocess

import pytest

from certificates import Authority
from harness import ROOT, SCHEMA
from test_docs import blocks
from test_serve import serve

ALERTS = os.path.join(ROOT, "deploy", "alerts.yml")


def test_the_configurations(tmp_path):
    certificate, key = Authority(tmp_path / "ca").issue("server")
    schema = tmp_path / "schema.sql"
    schema.write_text(SCHEMA)
    examples = [text for kind, text in blocks("docs/operations.md") if kind == "ini"]
    assert len(examples) >= 4
    for text in examples:
        config = tmp_path / "godwit.ini"
        config.write_text(text.replace("/etc/godwit/tls/chain.pem", certificate)
                          .replace("/etc/godwit/tls/key.pem", key)
                          .replace("/etc/godwit/schema.sql", str(schema)).replace("harden = yes", "harden = no"))
        code, out, err = serve("--config", config, "--data", tmp_path / "data", "--check-config")
        assert code == 0 and "good" in out, (text, err)


def test_the_alerts(server):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (package prometheus)")
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done
    with open(ALERTS) as stream:
        rules = stream.read()
    with open(os.path.join(ROOT, "docs", "operations.md")) as stream:
        document = stream.read()
    for alert in re.findall(r"alert: (\w+)", rules):
        assert f"`{alert}`" in document, alert
    served = server.get("/metrics", token="").body.decode() + "godwit_tls_certificate_end_seconds"
    for metric in set(re.findall(r"godwit_\w+", rules)):
        assert metric in served, metric


def test_the_tests_of_the_threats():
    """Every test that docs/security.md names is there."""
    with open(os.path.join(ROOT, "docs", "security.md")) as stream:
        rows = [line for line in stream if line.startswith("| ") and "`" in line]
    assert len(rows) >= 15
    for row in rows:
        name = None
        for file, test in re.findall(r"`(?:(test_\w+\.py))?(?:::(test_\w+))?`", row.rsplit("|", 2)[1]):
            name = file or name
            with open(os.path.join(ROOT, "tests", "integration", name)) as stream:
                assert not test or f"def {test}(" in stream.read(), (name, test)
        for name in re.findall(r"`(test_\w+\.c)`", row):
            assert os.path.exists(os.path.join(ROOT, "tests", "unit", name)), name
        for name in re.findall(r"`(tests/fuzz/\w+\.c)`", row):
            assert os.path.exists(os.path.join(ROOT, name)), name
