# SPDX-License-Identifier: BSD-2-Clause
"""
What the benchmark measures on: a private Redis, a private Postfix and the
milters, all below one folder of their own, all known by their process ids.

Every milter has an smtpd of its own on a port of its own, so that going from
one to the next costs no reload and no new process. default_action is tempfail
here, other than in real life: a milter that dies must not look fast.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PORTS = range(20000, 30000)
TICKS = os.sysconf("SC_CLK_TCK")
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
         "stderr": subprocess.STDOUT, "text": True}


class Failed(Exception):
    """The benchmark cannot go on, or what it measured was not right."""


def run(*args, **kwargs):
    """A command's output; Failed with it when the command fails."""
    done = subprocess.run([str(a) for a in args], **{**QUIET, **kwargs})
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, args))}: status {done.returncode}\n"
                     f"{done.stdout}")
    return done.stdout


def wait_until(what, predicate, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.02)


def free_ports(n):
    """n loopback ports below the ephemeral range that nobody listens on."""
    found = []
    for port in PORTS[os.getpid() * 61 % 9000:]:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise Failed("no free ports")


def answers(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except OSError:
            return False
    return True


class Rig:
    """The folder and what runs in it. Use as a context manager: leaving ends
    and removes everything, whatever happened."""

    def __init__(self, build, keep=False):
        self.build = build
        self.keep = keep
        self.dir = None
        self.processes = []
        self.has_postfix = False

    def __enter__(self):
        # Postfix and the filter run without privileges and must get in.
        self.dir = tempfile.mkdtemp(prefix="chaosmilter-bench.", dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        for name in ("log", "sock"):
            os.mkdir(self.path(name), 0o755)
        shutil.chown(self.path("sock"), "nobody")
        return self

    def __exit__(self, *_):
        if self.has_postfix:
            subprocess.run(["postfix", "-c", self.path("postfix/etc"), "stop"],
                           **QUIET)
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=8)  # libmilter alone takes up to 5 s
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if not self.keep:
            shutil.rmtree(self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def spawn(self, name, *args, umask=-1):
        with open(self.path("log", name), "w", encoding="utf-8") as log:
            environment = {key: value for key, value in os.environ.items()
                           if not key.startswith(("CHAOSMILTER_", "VSB_"))}
            process = subprocess.Popen([str(a) for a in args], umask=umask,
                                       stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, env=environment)
        self.processes.append(process)
        return process

    def wait_for_socket(self, name, process, path):
        def ready():
            if process.poll() is not None:
                with open(self.path("log", name), encoding="utf-8") as log:
                    raise Failed(f"{name} ended with {process.returncode}:\n"
                                 f"{log.read()}")
            return answers(path)
        wait_until(f"{name} on {path}", ready)

    # --- Redis

    def start_redis(self):
        path = self.path("sock", "redis")
        process = self.spawn("redis", "redis-server", "--port", "0",
                             "--unixsocket", path, "--unixsocketperm", "777",
                             "--dir", self.dir, "--save", "",
                             "--appendonly", "no")
        self.wait_for_socket("redis", process, path)

    def redis(self, *args, **kwargs):
        return run("redis-cli", "-s", self.path("sock", "redis"), *args, **kwargs)

    def load_library(self):
        with open(os.path.join(TOP, "milter/store/chaosmilter.lua"),
                  encoding="utf-8") as lua:
            self.redis("-x", "FUNCTION", "LOAD", "REPLACE", stdin=lua)

    def set_inboxes(self, database, addresses, document):
        """Configure them all, by one pipe through redis-cli."""
        name = self.path("inboxes")
        with open(name, "wb") as out:
            for address in addresses:
                words = ("FCALL", "cm_set", "0", "inbox", address, document)
                out.write(b"*%d\r\n" % len(words))
                for word in words:
                    out.write(b"$%d\r\n%s\r\n" % (len(word), word.encode()))
        with open(name, "rb") as commands:
            told = self.redis("-n", database, "--pipe", stdin=commands)
        os.unlink(name)
        if not re.search(rf"errors: 0, replies: {len(addresses)}\b", told):
            raise Failed(f"redis-cli --pipe: {told}")

    def redis_calls(self):
        """Commands served so far, those inside scripts and functions as well,
        without those of this question."""
        stats = self.redis("INFO", "commandstats")
        return sum(int(n) for name, n in
                   re.findall(r"cmdstat_([^:]*):calls=(\d+)", stats)
                   if name not in ("info", "config|resetstat"))

    # --- milters

    def start_null(self, events):
        path = self.path("sock", "null")
        process = self.spawn("null", self.build + "/t/bench/null_milter", "-p",
                             "unix:" + path, "-e", events, umask=0)
        self.wait_for_socket("null", process, path)
        return process.pid, path

    def start_chaosmilter(self, name, database):
        path = self.path("sock", name)
        settings = self.path(name + ".conf")
        with open(settings, "w", encoding="utf-8") as out:
            out.write(f'''armed = true;
milter: {{ socket = "unix:{path}"; socket_group = "postfix"; user = "nobody"; }};
redis: {{ address = "unix:{self.path("sock", "redis")}"; database = {database}; }};
''')
        process = self.spawn(name, self.build + "/chaosmilter", "-c", settings)
        self.wait_for_socket(name, process, path)
        return process.pid, path

    # --- Postfix

    def start_postfix(self, sockets):
        """One smtpd for each milter socket, None for one without; returns their
        ports."""
        ports = free_ports(len(sockets))
        for name in ("postfix", "postfix/etc", "postfix/spool", "postfix/data"):
            os.mkdir(self.path(name), 0o755)
        shutil.chown(self.path("postfix/data"), "postfix")
        with open(self.path("postfix/etc/main.cf"), "w", encoding="utf-8") as out:
            out.write(MAIN_CF.format(dir=self.dir))
        with open(self.path("postfix/etc/master.cf"), "w",
                  encoding="utf-8") as out:
            for port, path in zip(ports, sockets):
                out.write(f"127.0.0.1:{port} inet n - n - - smtpd\n")
                if path:
                    out.write(f"    -o {{ smtpd_milters = {{ unix:{path}, "
                              "connect_timeout=2s, default_action=tempfail } }\n")
            out.write(MASTER_CF)
        self.has_postfix = True
        run("postfix", "-c", self.path("postfix/etc"), "start", cwd="/")
        for port in ports:
            wait_until(f"smtpd on {port}", lambda: self.greets(port))
        return ports

    @staticmethod
    def greets(port):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                greeting = s.recv(100)
                s.sendall(b"QUIT\r\n")
                return greeting.startswith(b"220")
        except OSError:
            return False

    def wait_for_empty_queue(self):
        """So that the deliveries of one run do not slow the next."""
        def empty():
            for name in ("maildrop", "incoming", "active", "deferred"):
                for _, _, files in os.walk(self.path("postfix/spool", name)):
                    if files:
                        return False
            return True
        wait_until("an empty mail queue", empty, timeout=120)


def cpu_s(pid):
    """CPU seconds of a process so far, all threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# What would measure something else is off: DNS, rate limits, new processes
# after every hundred sessions, the pause of cleanup when the queue is busy.
MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {dir}/postfix/spool
data_directory = {dir}/postfix/data
maillog_file = {dir}/log/postfix
maillog_file_prefixes = {dir}/log
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
notify_classes =
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_event_limit_exceptions = static:all
in_flow_delay = 0
max_use = 1000000
max_idle = 3600s
default_transport = discard:
local_transport = discard:
relay_transport = discard:
"""

MASTER_CF = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""
