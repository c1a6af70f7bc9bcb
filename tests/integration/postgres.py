"""A PostgreSQL of the tests' own: one cluster per module, a database per test, ended with the module."""
import os
import subprocess

import pytest

import harness


class Cluster:
    def __init__(self):
        command = [os.path.join(harness.ROOT, "tools", "with-postgres"), "sh", "-c", 'echo "$GODWIT_POSTGRES"; cat']
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.count = 0
        if not self.url:
            code = self.process.wait()
            assert code == 77, f"with-postgres ended with {code}"
            pytest.skip("PostgreSQL is not installed")

    def database(self, tables="", track=()):
        """A new database with schema godwit, these tables, and those of them tracked."""
        self.count += 1
        self.sql(f"CREATE DATABASE t{self.count}")
        url = self.url.replace("@/postgres?", f"@/t{self.count}?")
        self.sql(harness.cli("pg", "install").out, url)
        self.sql(tables, url)
        if track:
            self.sql(harness.cli("pg", "track", *track).out, url)
        return url

    def sql(self, text, url=None):
        """Runs statements as a superuser; the rows of the last one as lists of texts."""
        done = subprocess.run(["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", url or self.url], input=text,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)
