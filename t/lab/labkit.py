# SPDX-License-Identifier: BSD-2-Clause
"""
What the lab tests share: a lab of their own, a raw SMTP client that keeps every
line with its time, HTTP, Redis and Maildir readers, and a TestCase that shows
the SMTP dialogues when it fails.

Raw sockets instead of smtplib and redis-py: a test about replies must see the
bytes as they came, when they came, and the standard library alone must do.
"""
import collections
import email.utils
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

from mtas import MTA

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAB = os.path.join(TOP, "contrib", "lab")
PREFIX = "{cm}"

now = time.monotonic


def wait_until(what, predicate, timeout=10.0, pause=0.02):
    """Poll until predicate() is true and return its value; name what was
    waited for when it never comes."""
    deadline = now() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if now() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(pause)


# ------------------------------------------------------------------- the lab

class PortPicker:
    """Free loopback ports between 20000 and 30000, spread by process id so that
    test programs that run side by side do not meet."""

    def __init__(self):
        self.next = 20000 + os.getpid() * 61 % 9900
        self.lock = threading.Lock()

    def take(self):
        with self.lock:
            while True:
                port, self.next = self.next, self.next + 1
                if self.next >= 30000:
                    self.next = 20000
                with socket.socket() as probe:
                    try:
                        probe.bind(("127.0.0.1", port))
                        return port
                    except OSError:
                        continue


PORTS = PortPicker()


class Lab:
    """One lab in a temporary folder, driven through contrib/lab."""

    def __init__(self, armed=True, folder=None, **variables):
        self.base = tempfile.mkdtemp(prefix="cm-lab-")
        os.chmod(self.base, 0o755)
        self.dir = folder or os.path.join(self.base, "lab")
        self.smtp_port, self.submission_port, self.http_port = (
            PORTS.take() for _ in range(3))
        self.environ = dict(
            os.environ, LAB_DIR=self.dir, LAB_MTA=MTA.name,
            LAB_ARMED="true" if armed else "false",
            LAB_SMTP_PORT=str(self.smtp_port),
            LAB_SUBMISSION_PORT=str(self.submission_port),
            LAB_HTTP_PORT=str(self.http_port), **variables)
        self.env = {}

    def run(self, *command, **variables):
        """contrib/lab COMMAND.. as (exit status, output)."""
        done = subprocess.run(
            [LAB, *command], env=dict(self.environ, **variables), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=180)
        return done.returncode, done.stdout

    def up(self, **variables):
        status, output = self.run("up", **variables)
        if status != 0:
            raise AssertionError(f"contrib/lab up: exit {status}\n{output}")
        self.read_env()
        return output

    def read_env(self):
        with open(os.path.join(self.dir, "env"), encoding="ascii") as lines:
            self.env = dict(line.rstrip("\n").split("=", 1) for line in lines)

    def down(self):
        """Takes it down, and tells what a sanitizer or a crash left in the logs.
        Leaks are found at the end, so the daemons end before their logs go."""
        for name in ("chaosmilter", "chaosadmin"):
            if self.is_up(name):
                self.kill_and_wait(name, signal.SIGTERM)
        complaints = self.complaints()
        status, output = self.run("down")
        shutil.rmtree(self.base, ignore_errors=True)
        if status != 0:
            raise AssertionError(f"contrib/lab down: exit {status}\n{output}")
        if complaints:
            raise AssertionError("in a daemon's log:\n" + complaints)

    def complaints(self):
        found = []
        for name in ("chaosmilter", "chaosadmin"):
            text = self.log(name)
            at = re.search(r"==\d+==ERROR|runtime error:|AddressSanitizer|"
                           r"LeakSanitizer|ThreadSanitizer|Assertion", text)
            if at:
                found.append(f"{name}: {text[at.start():at.start() + 4000]}")
        return "\n".join(found)

    def log(self, name):
        try:
            with open(os.path.join(self.dir, "log", name + ".log"),
                      encoding="utf-8", errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def pid(self, name):
        with open(os.path.join(self.dir, "run", name + ".pid"),
                  encoding="ascii") as line:
            return int(line.read().split()[0])

    def is_up(self, name):
        try:
            return is_running(self.pid(name))
        except FileNotFoundError:
            return False

    def milter_binary(self):
        """What chaosmilter was started from."""
        return os.readlink(f"/proc/{self.pid('chaosmilter')}/exe")

    def kill(self, name, signum=signal.SIGKILL):
        os.kill(self.pid(name), signum)

    def kill_and_wait(self, name, signum=signal.SIGKILL, timeout=10):
        """Seconds until the process was gone."""
        pid = self.pid(name)
        start = now()
        os.kill(pid, signum)
        wait_until(f"the end of {name}", lambda: not is_running(pid),
                   timeout, 0.005)
        return now() - start

    def kill_sessions(self):
        """SIGKILL to every process of the mail server that serves a client."""
        for pid in processes_of(self.dir):
            if MTA.is_session(self.dir, pid):
                os.kill(pid, signal.SIGKILL)

    # --- the API

    def http(self, method, path, body=None, key=True, headers=None, timeout=15):
        """One request as an Answer. body: text, bytes or what becomes JSON."""
        sent = dict(headers or {})
        if key:
            sent.setdefault("X-API-Key", self.env["API_KEY"])
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            if not isinstance(body, (str, bytes)):
                body = json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port,
                                                timeout=timeout)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode("utf-8"),
                          response.headers)
        finally:
            connection.close()

    def chaos_path(self, inbox):
        return f"/api/inboxes/{urllib.parse.quote(inbox, safe='@')}/chaos"

    def set_chaos(self, inbox, **config):
        """Set an inbox's chaos; enabled unless told otherwise."""
        config.setdefault("enabled", True)
        answer = self.http("POST", self.chaos_path(inbox), config)
        if answer.status != 200:
            raise AssertionError(f"POST {self.chaos_path(inbox)}: {answer}")
        return answer.json

    def status(self):
        answer = self.http("GET", "/api/v1/status")
        if answer.status != 200:
            raise AssertionError(f"GET /api/v1/status: {answer}")
        return answer.json

    def settle(self):
        """Wait until the filter has applied every commit made so far."""
        want = int(self.redis("GET", PREFIX + ":seq") or 0)

        def applied():
            hosts = self.redis("HGETALL", PREFIX + ":st:hosts") or []
            beats = [json.loads(text) for text in hosts[1::2]]
            pid = self.pid("chaosmilter")
            return any(beat["pid"] == pid and beat["seq"] >= want
                       for beat in beats)

        wait_until(f"the filter to apply commit {want}", applied)

    # --- Redis

    def redis(self, *words):
        with Redis(self.env["REDIS_SOCKET"]) as link:
            return link.call(*words)

    def redis_cli(self, *words):
        """As a person would: the redis-cli program."""
        done = subprocess.run(
            ["redis-cli", "-s", self.env["REDIS_SOCKET"], *words], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=30)
        return done.stdout.strip()

    def incidents(self, inbox):
        """The events recorded for an inbox, oldest first."""
        entries = self.redis("XRANGE", PREFIX + ":ev", "-", "+") or []
        events = [dict(zip(fields[::2], fields[1::2])) for _, fields in entries]
        return [event for event in events if event.get("inbox") == inbox]

    def wait_incident(self, inbox, kind, accept=lambda event: True, timeout=10):
        """The first event of a kind for an inbox that is acceptable."""
        def find():
            return [event for event in self.incidents(inbox)
                    if event["kind"] == kind and accept(event)]
        return wait_until(f"a {kind} event for {inbox}", find, timeout)[0]

    # --- mail

    def mail(self, recipient):
        """Contents of a recipient's delivered messages, as bytes."""
        folder = os.path.join(self.env["MAIL_DIR"], recipient.lower(), "new")
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        messages = []
        for name in names:
            with open(os.path.join(folder, name), "rb") as message:
                messages.append(message.read())
        return messages

    def wait_mail(self, recipient, count=1, timeout=15.0):
        return wait_until(
            f"{count} message(s) for {recipient}",
            lambda: len(self.mail(recipient)) >= count and self.mail(recipient),
            timeout)

    def wait_idle(self, timeout=15.0):
        """Wait until the mail server's queue is empty: what is not delivered now
        never will be."""
        wait_until("an empty queue", lambda: not MTA.has_mail(self.dir), timeout)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_of(folder):
    """Pids whose program, command line or environment names the folder. (Some
    daemons write their title over the latter two.)"""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid() or not is_running(int(pid)):
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                told = cmdline.read()
            with open(f"/proc/{pid}/environ", "rb") as environ:
                told += b"\0" + environ.read()
            told += b"\0" + os.readlink(f"/proc/{pid}/exe").encode() + b"\0"
        except OSError:
            continue
        if re.search(re.escape(folder.encode()) + rb"(?:/|\0|$)", told):
            found.append(int(pid))
    return found


# ---------------------------------------------------------------------- HTTP

class Answer:
    def __init__(self, status, text, headers):
        self.status, self.text, self.headers = status, text, headers

    @property
    def json(self):
        return json.loads(self.text)

    def __str__(self):
        return f"{self.status} {self.text}"


# --------------------------------------------------------------------- Redis

class Redis:
    """RESP2 over a unix socket: as much of it as the tests need."""

    def __init__(self, path, timeout=5.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def call(self, *words):
        packet = b"*%d\r\n" % len(words)
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            packet += b"$%d\r\n%s\r\n" % (len(word), word)
        self.socket.sendall(packet)
        return self.read()

    def read(self):
        line = self.file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:].decode()
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RuntimeError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else \
                self.file.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
        if kind == b"*":
            return None if rest == "-1" else \
                [self.read() for _ in range(int(rest))]
        raise RuntimeError(f"not RESP: {line!r}")


# ---------------------------------------------------------------------- SMTP

Reply = collections.namedtuple("Reply", "code lines seconds")
Reply.text = property(lambda self: "\n".join(self.lines))
Reply.__str__ = lambda self: f"{self.text} (after {self.seconds * 1000:.1f} ms)"


class Gone(Exception):
    """The server closed the connection without a reply."""


class Smtp:
    """An SMTP client that says what it is told to, and remembers when."""

    def __init__(self, port, source=None, host="127.0.0.1", timeout=90.0):
        self.began = now()
        self.transcript = []
        self.buffer = b""
        self.socket = socket.create_connection(
            (host, port), timeout,
            source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.banner = self.read_reply()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def note(self, mark, text):
        self.transcript.append(f"{now() - self.began:9.3f} {mark} {text}")

    def send_line(self, line):
        """Send without waiting for the reply (pipelining)."""
        raw = line if isinstance(line, bytes) else line.encode("utf-8")
        self.note(">", raw.decode("utf-8", "replace"))
        self.sent_at = now()
        self.socket.sendall(raw + b"\r\n")

    def read_line(self):
        while b"\n" not in self.buffer:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                self.note("*", "connection reset (RST)")
                raise Gone("RST") from None
            if not chunk:
                self.note("*", "connection closed (FIN)")
                raise Gone("FIN")
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        self.note("<", text)
        return text

    def read_reply(self):
        lines = []
        while True:
            line = self.read_line()
            lines.append(line)
            if line[3:4] != "-":
                break
        sent = getattr(self, "sent_at", self.began)
        return Reply(int(lines[-1][:3]), lines, now() - sent)

    def command(self, line):
        self.send_line(line)
        return self.read_reply()

    def ehlo(self, name="client.example"):
        return self.command("EHLO " + name)

    def mail(self, sender="sender@example.org", parameters=""):
        return self.command(f"MAIL FROM:<{sender}>{parameters}")

    def rcpt(self, recipient):
        return self.command(f"RCPT TO:<{recipient}>")

    def data(self, message):
        """DATA, the message and the final dot; the last reply."""
        reply = self.command("DATA")
        return self.message(message) if reply.code == 354 else reply

    def message(self, message):
        self.send_message(message)
        return self.read_reply()

    def send_message(self, message):
        stuffed = re.sub(rb"(?m)^\.", b"..", message)
        self.note(">", f"({len(message)} bytes) .")
        self.sent_at = now()  # not after: a reply would seem to come early
        self.socket.sendall(stuffed + b".\r\n")

    def dialogue(self):
        return "\n".join(self.transcript)


Sent = collections.namedtuple("Sent", "rcpts end message")


def make_message(subject="test", body=b"Hello.\r\n"):
    """A message with its own Message-ID, CRLF line ends, and all the headers
    that a mail server would otherwise add."""
    head = (f"From: <sender@example.org>\r\nSubject: {subject}\r\n"
            f"Date: {email.utils.formatdate()}\r\n"
            f"Message-ID: {email.utils.make_msgid(domain='client.example')}\r\n"
            f"\r\n")
    return head.encode() + body


def content_of(delivered):
    """A delivered message without what the MTA and the Maildir server put on
    top, with CRLF line ends again: what the sender must find unchanged."""
    at = delivered.index(b"\nFrom: <sender@example.org>\n") + 1
    return delivered[at:].replace(b"\n", b"\r\n")


# ----------------------------------------------------------------- test case

class LabTestCase(unittest.TestCase):
    """A test with a lab of its class's own. Each test asks for inboxes that no
    other has, so the order does not matter."""

    armed = True
    counter = 0

    @classmethod
    def make_lab(cls):
        lab = Lab(armed=cls.armed)
        try:
            lab.up()
        except BaseException:
            lab.run("down")
            shutil.rmtree(lab.base, ignore_errors=True)
            raise
        return lab

    @classmethod
    def setUpClass(cls):
        cls.lab = cls.make_lab()

    @classmethod
    def tearDownClass(cls):
        cls.lab.down()

    def setUp(self):
        self.clients = []

    def tearDown(self):
        for client in self.clients:
            client.close()

    def _formatMessage(self, msg, standardMsg):
        text = super()._formatMessage(msg, standardMsg)
        for client in self.clients[-4:]:
            text += "\n--- SMTP dialogue\n" + client.dialogue()
        return text

    def inbox(self, hint="box"):
        LabTestCase.counter += 1
        return f"{hint}-{os.getpid()}-{LabTestCase.counter}@example.com"

    def rule(self, fault, **members):
        """A rule of the list, in force until the test ends; its id. The fault
        is a document, or the kind of one without members."""
        return self.rules(dict(members, fault={"kind": fault}
                               if isinstance(fault, str) else fault))[0]

    def rules(self, *documents):
        """The same for many, in force all at once."""
        names = []
        for document in documents:
            LabTestCase.counter += 1
            name = f"rule-{os.getpid()}-{LabTestCase.counter}"
            answer = self.lab.redis_cli("FCALL", "cm_set", "0", "rule", name,
                                        json.dumps(document))
            if not answer.startswith("rev"):
                raise AssertionError(f"cm_set rule {document}: {answer}")
            self.addCleanup(self.lab.redis_cli, "FCALL", "cm_del", "0", "rule",
                            name)
            names.append(name)
        self.lab.settle()
        broken = json.dumps(self.lab.status()["hosts"][0]["broken"])
        for name, document in zip(names, documents):
            if name in broken:
                raise AssertionError(f"the filter refuses {document}: {broken}")
        return names

    def smtp(self, **options):
        """A greeted SMTP session; closed when the test ends."""
        client = Smtp(options.pop("port", self.lab.smtp_port), **options)
        self.clients.append(client)
        self.assertEqual(client.banner.code, 220)
        self.assertEqual(client.ehlo().code, 250)
        return client

    def send(self, *recipients, sender="sender@example.org", client=None,
             message=None, source=None):
        """One message in one transaction, to whoever is accepted."""
        client = client or self.smtp(source=source)
        message = message or make_message()
        self.assertEqual(client.mail(sender).code, 250)
        replies = [client.rcpt(recipient) for recipient in recipients]
        end = None
        if any(reply.code == 250 for reply in replies):
            end = client.data(message)
        else:
            client.command("RSET")
        return Sent(replies, end, message)

    def assert_delivered(self, recipient, message, count=1):
        """The message, byte for byte, and nothing else."""
        delivered = self.lab.wait_mail(recipient, count)
        self.assertEqual(len(delivered), count, recipient)
        self.assertEqual(content_of(delivered[-1]), message, recipient)

    def assert_passes(self, recipient, **options):
        """A mail to the recipient alone is accepted, and arrives."""
        before = len(self.lab.mail(recipient))
        sent = self.send(recipient, **options)
        self.assertEqual(sent.rcpts[0].code, 250)
        self.assertEqual(sent.end.code, 250)
        self.assert_delivered(recipient, sent.message, before + 1)
        return sent

    def assert_not_delivered(self, recipient):
        self.lab.wait_idle()
        self.assertEqual(self.lab.mail(recipient), [], recipient)
