"""Namespaces that end with the command, and what is put into them: processes that are started again after they
were killed, disks that can be filled up.

Everything is below namespaces that `enter` makes: mounts, processes, network. The kernel takes them apart
when the first process in them ends, which ends with the command, however that ends: nothing is left behind but
an empty folder, which `enter` removes where it can."""
import ctypes
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build")
GODWIT = os.path.join(BUILD, "godwit")
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>: the child ends with this process
INSIDE = "GODWIT_CHAOS_FOLDER"


class Failure(AssertionError):
    pass


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


# ---- Namespaces ----

# names of network namespaces are files below /run
OWN_RUN = "mount -t tmpfs tmpfs /run && mkdir /run/netns"
UNSHARE = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]


def why_not(postgres=False):
    """A reason why this can't run here whatever is built, or None."""
    if postgres and not glob.glob("/usr/lib/postgresql/*/bin/initdb"):
        return "PostgreSQL is not installed (tools/setup)"
    for tool in ("unshare", "ip", "nft", "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (tools/setup)"
    probe = "ip netns add chaos-probe && nft add table inet chaos && echo 1 >/proc/sys/net/ipv4/ip_forward"
    done = subprocess.run([*UNSHARE, "sh", "-c", f"{OWN_RUN} && {probe}"], capture_output=True, text=True)
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else None


def enter():
    """Runs this program again inside of new namespaces; returns its exit code, and inside None. There the
    folder named by INSIDE takes everything, and is gone with the namespaces."""
    if INSIDE in os.environ:
        run("sh", "-c", OWN_RUN)
        run("mount", "-t", "tmpfs", "tmpfs", os.environ[INSIDE])
        return None
    with tempfile.TemporaryDirectory(prefix="godwit-chaos-") as folder:
        child = subprocess.Popen([*UNSHARE, sys.executable, *sys.argv], env=dict(os.environ, **{INSIDE: folder}),
                                 preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: child.kill())
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                child.kill()  # and, with it, everything below


# ---- Parts ----

class Process:
    """A process in one of the network namespaces, started again after it was killed."""

    def __init__(self, name, namespace, command, log, env=None):
        self.name, self.namespace, self.command, self.log_path = name, namespace, command, log
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.kills = 0

    def spawn(self):
        with open(self.log_path, "ab") as log:
            # signals wait until the program is ready for them
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", *self.command], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.env,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}))

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def send(self, number):
        if self.alive():
            self.process.send_signal(number)

    def kill(self):
        if self.alive():
            self.process.kill()
            self.kills += 1
        self.process.wait()

    def ensure(self):
        """Running, whatever was before."""
        if not self.alive():
            self.spawn()
        self.send(signal.SIGCONT)

    def end(self):
        if self.alive():
            self.send(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as stream:
            return stream.read()


class Disk:
    def __init__(self, path, size="48m"):
        self.path = path
        self.filler = os.path.join(path, "filler")
        os.makedirs(path)
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)

    def fill(self):
        with open(self.filler, "wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"\0" * 65536)
            except OSError:
                pass
            try:
                while True:
                    stream.write(b"\0" * 512)
            except OSError:
                pass

    def clear(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)
