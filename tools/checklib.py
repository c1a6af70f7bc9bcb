"""What the checks share: finding sources, blanking comments and strings, the self-test loop."""
import os
import re
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TOKENS = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank(text, keep_strings=False):
    """Comments (and string contents) become spaces, so that offsets and lines stay as they are."""

    def repl(match):
        token = match.group(0)
        if keep_strings and token[0] in "\"'":
            return token
        if token[0] in "\"'":
            return token[0] + " " * (len(token) - 2) + token[0]
        return re.sub(r"[^\n]", " ", token)

    return TOKENS.sub(repl, text)


def sources(root, folders=("include", "src"), suffixes=(".c", ".h")):
    for folder in folders:
        for base, dirs, files in os.walk(os.path.join(root, folder)):
            dirs.sort()
            for name in sorted(files):
                if name.endswith(suffixes):
                    path = os.path.join(base, name)
                    yield path, os.path.relpath(path, root)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def plant(files):
    """A temporary tree holding {relative path: text}; returns the TemporaryDirectory."""
    tree = tempfile.TemporaryDirectory(prefix="godwit-check-")
    for name, text in files.items():
        path = os.path.join(tree.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    return tree


def main(check, self_test):
    """check(root, arguments) -> list of findings. self_test() -> list of complaints."""
    if "--self-test" in sys.argv[1:]:
        problems = self_test()
        for problem in problems:
            print(f"self-test: {problem}")
        sys.exit(1 if problems else 0)
    findings = check(ROOT, sys.argv[1:])
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)


def expect(check, good, planted):
    """The check must accept the tree `good` and refuse each {name: files} of `planted`."""
    problems = []
    with plant(good) as root:
        for finding in check(root, []):
            problems.append(f"refuses a good tree: {finding}")
    for name, files in planted.items():
        with plant(dict(good, **files)) as root:
            if not check(root, []):
                problems.append(f"does not notice: {name}")
    return problems
