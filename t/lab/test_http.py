#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""
chaosadmin over real sockets, with a redis-server of its own: the VaultSandbox
face line by line, our own status and health, and whatever HTTP can be made to
carry that it should not. Names like H4 in a test's first line are the cases it
covers.

    CHAOSADMIN=./chaosadmin python3 t/lab/test_http.py [unittest's arguments]

Everything lives in one temporary directory and on loopback; only processes
started here are ended, each by its own number.
"""
import base64
import hashlib
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

ADMIN = os.environ.get("CHAOSADMIN")
PREFIX = "{cm}"

FULL_DEFAULT = (
    '{"enabled":true,"latency":{"enabled":true,"minDelayMs":500,"maxDelayMs":10000,"jitter":true,'
    '"probability":1},"connectionDrop":{"enabled":true,"probability":1,"graceful":true},'
    '"randomError":{"enabled":true,"errorRate":0.1,"errorTypes":["temporary"]},'
    '"greylist":{"enabled":true,"retryWindowMs":300000,"maxAttempts":2,"trackBy":"ip_sender"},'
    '"blackhole":{"enabled":true,"triggerWebhooks":false}}'
)
EVERYTHING_ON = {
    "enabled": True, "latency": {"enabled": True}, "connectionDrop": {"enabled": True},
    "randomError": {"enabled": True}, "greylist": {"enabled": True}, "blackhole": {"enabled": True},
}
DISABLED = "Chaos engineering features are disabled. Set VSB_CHAOS_ENABLED=true to enable."


# ------------------------------------------------------------------ processes

def wait_until(what, predicate, timeout=10.0):
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.02)


def free_port():
    """A loopback port below 32768, so that no client socket takes it first."""
    for port in range(21000 + os.getpid() * 13 % 9000, 32768):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


class Redis:
    def __init__(self, base, *options):
        self.dir = tempfile.mkdtemp(prefix="redis-", dir=base)
        os.chmod(self.dir, 0o755)
        self.path = os.path.join(self.dir, "redis.sock")
        self.options = options
        self.process = None
        self.start()

    def start(self, *options):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.path, "--unixsocketperm", "777", "--save", "",
             "--appendonly", "no", "--dir", self.dir, *self.options, *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("redis", self.answers)

    def answers(self):
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    def kill(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *words):
        """One command; the reply as str, int, list or None, an error raised."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.path)
            out = b"*%d\r\n" % len(words)
            for word in words:
                word = word if isinstance(word, bytes) else str(word).encode()
                out += b"$%d\r\n%s\r\n" % (len(word), word)
            s.sendall(out)
            return self.read(s.makefile("rb"))

    def read(self, f):
        line = f.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise AssertionError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else f.read(int(rest) + 2)[:-2].decode()
        return [self.read(f) for _ in range(int(rest))]

    def document(self, kind, name):
        """The stored document as text, without its envelope; None if absent."""
        text = self.ask("GET", f"{PREFIX}:cfg:{kind}:{name}")
        if text is None:
            return None
        return re.fullmatch(r'\{"rev":\d+,"seq":\d+,"doc":(.*)\}', text, re.S).group(1)


def new_key():
    out = subprocess.run([ADMIN, "--new-key"], check=True, capture_output=True, text=True).stdout
    return re.search(r"cm_[0-9a-f]{64}\b", out).group(), re.search(r"sha256:[0-9a-f]{64}\b", out).group()


def quote(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[ " + ", ".join(quote(v) for v in value) + " ]"
    return str(value) if isinstance(value, int) else '"' + value.replace('"', '\\"') + '"'


class Admin:
    """One chaosadmin; settings are given as group_name=value."""

    def __init__(self, base, redis, wait=True, **settings):
        self.dir = tempfile.mkdtemp(prefix="admin-", dir=base)
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        self.key, line = new_key()
        self.conf = os.path.join(self.dir, "chaosmilter.conf")
        self.log = os.path.join(self.dir, "log")
        self.settings = {
            "armed": True, "redis_address": "unix:" + redis.path, "admin_listen": f"127.0.0.1:{self.port}",
            "admin_user": "root" if os.geteuid() == 0 else "", "admin_api_keys": [line], **settings}
        self.write()
        self.process = None
        if wait:
            self.start()
            wait_until("chaosadmin to be ready", lambda: self.get("/readyz", key=None).status == 200)

    def write(self):
        groups = {"": []}
        for name, value in self.settings.items():
            group, _, member = name.partition("_")
            if group not in ("milter", "address", "redis", "admin"):
                group, member = "", name
            groups.setdefault(group, []).append(f"{member} = {quote(value)};")
        with open(self.conf, "w") as f:
            for group, lines in groups.items():
                body = "\n".join(lines)
                f.write(body + "\n" if not group else f"{group}: {{\n{body}\n}};\n")

    def start(self, **popen):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([ADMIN, "-c", self.conf], stderr=log, **popen)
        wait_until("chaosadmin to listen", lambda: self.process.poll() is not None or self.listens())
        if self.process.poll() is not None:
            raise AssertionError("chaosadmin ended: " + self.logged())

    def listens(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, signo=signal.SIGTERM):
        """Ends it; how long that took, and its exit code."""
        begin = time.monotonic()
        self.process.send_signal(signo)
        code = self.process.wait(10)
        return time.monotonic() - begin, code

    def end(self):
        """Whatever state it is in."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def logged(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def call(self, method, path, body=None, key="own", **headers):
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        send = {name.replace("_", "-"): value for name, value in headers.items()}
        if key == "own":
            send["X-API-Key"] = self.key
        elif key is not None:
            send["X-API-Key"] = key
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            send.setdefault("Content-Type", "application/json")
        try:
            conn.request(method, path, body, send)
            return Answer(conn.getresponse())
        finally:
            conn.close()

    def get(self, path, **more):
        return self.call("GET", path, **more)

    def post(self, path, body, **more):
        return self.call("POST", path, body, **more)

    def delete(self, path, **more):
        return self.call("DELETE", path, **more)

    def raw(self, data, timeout=2.0, source=None):
        """Bytes in, bytes out, until the peer closes or is silent for timeout."""
        with self.connect(source) as s:
            s.settimeout(timeout)
            out = b""
            try:
                s.sendall(data)
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        return out, True
                    out += piece
            except socket.timeout:
                return out, False
            except (ConnectionResetError, BrokenPipeError):
                return out, True

    def connect(self, source=None):
        return socket.create_connection(("127.0.0.1", self.port), 5, source and (source, 0))


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def json(self):
        return json.loads(self.text)


def chaos_path(address):
    return "/api/inboxes/" + urllib.parse.quote(address, safe="@") + "/chaos"


class Case(unittest.TestCase):
    """A Redis and a chaosadmin for the whole class."""

    once = True
    settings = {}
    redis_options = ()

    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="cm-http-")
        os.chmod(cls.base, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.base)
        cls.redis = Redis(cls.base, *cls.redis_options)
        cls.addClassCleanup(lambda: cls.redis.kill())
        cls.admin = Admin(cls.base, cls.redis, **cls.settings)
        cls.addClassCleanup(cls.end_admin)

    @classmethod
    def end_admin(cls):
        if cls.admin.process.poll() is None:
            cls.admin.stop()
        if "Sanitizer" in cls.admin.logged() or "runtime error" in cls.admin.logged():
            raise AssertionError(cls.admin.logged())

    def new_redis(self):
        redis = Redis(self.base)
        self.addCleanup(redis.kill)
        return redis

    def new_admin(self, redis=None, wait=True, **settings):
        admin = Admin(self.base, redis or self.redis, wait=False, **settings)
        self.addCleanup(admin.end)
        if wait:
            admin.start()
            wait_until("chaosadmin to be ready", lambda: admin.get("/readyz", key=None).status == 200)
        return admin

    def fails(self, answer, status, message=None, error=None):
        """The error is VaultSandbox's, members in its order."""
        self.assertEqual(answer.status, status, answer.text)
        self.assertEqual(list(answer.json), ["message", "error", "statusCode"])
        self.assertEqual(answer.json["statusCode"], status)
        if message is not None:
            self.assertEqual(answer.json["message"], message)
        if error is not None:
            self.assertEqual(answer.json["error"], error)


# --------------------------------------------------------- the VaultSandbox face

class TestChaos(Case):
    settings = {"admin_domains": ["*"]}

    def test_never_set_is_disabled(self):
        answer = self.admin.get(chaos_path("never@example.com"))
        self.assertEqual((answer.status, answer.text), (200, '{"enabled":false}'))

    def test_defaults_are_filled_and_stored_byte_for_byte(self):
        answer = self.admin.post(chaos_path("full@example.com"), EVERYTHING_ON)
        self.assertEqual((answer.status, answer.text), (200, FULL_DEFAULT))
        self.assertEqual(self.redis.document("inbox", "full@example.com"), FULL_DEFAULT)
        self.assertEqual(self.admin.get(chaos_path("full@example.com")).text, FULL_DEFAULT)

    def test_post_replaces_and_never_merges(self):
        path = chaos_path("replace@example.com")
        self.admin.post(path, EVERYTHING_ON)
        self.assertEqual(self.admin.post(path, {"enabled": False}).text, '{"enabled":false}')
        self.assertEqual(self.admin.get(path).text, '{"enabled":false}')

    def test_zeros_are_values(self):
        body = {"enabled": True, "latency": {"enabled": True, "minDelayMs": 0, "maxDelayMs": 0, "jitter": False,
                                             "probability": 0},
                "greylist": {"enabled": False, "retryWindowMs": 0, "maxAttempts": 1, "trackBy": "ip"}}
        answer = self.admin.post(chaos_path("zero@example.com"), body)
        self.assertEqual(answer.json, body)

    def test_min_above_max_is_accepted(self):
        body = {"enabled": True, "latency": {"enabled": True, "minDelayMs": 900, "maxDelayMs": 100}}
        self.assertEqual(self.admin.post(chaos_path("minmax@example.com"), body).status, 200)

    def test_null_is_absent(self):
        body = {"enabled": True, "expiresAt": None, "latency": None, "blackhole": {"enabled": True,
                                                                               "triggerWebhooks": None}}
        answer = self.admin.post(chaos_path("null@example.com"), body)
        self.assertEqual(answer.text, '{"enabled":true,"blackhole":{"enabled":true,"triggerWebhooks":false}}')

    def test_integers_print_as_integers(self):
        answer = self.admin.post(chaos_path("int@example.com"),
                                 '{"enabled":true,"latency":{"enabled":true,"minDelayMs":1.0,"probability":1.0}}')
        self.assertEqual(answer.status, 200, answer.text)
        self.assertIn('"minDelayMs":1,', answer.text)
        self.assertIn('"probability":1}', answer.text)

    def test_past_expiry_is_echoed_verbatim(self):
        body = {"enabled": True, "expiresAt": "2001-02-03T04:05:06+02:00"}
        self.assertEqual(self.admin.post(chaos_path("past@example.com"), body).json, body)

    def test_delete_is_idempotent_and_empty(self):
        path = chaos_path("gone@example.com")
        self.admin.post(path, {"enabled": True})
        for _ in range(2):
            answer = self.admin.delete(path)
            self.assertEqual((answer.status, answer.text), (204, ""))
            self.assertNotIn("Content-Type", answer.headers)
        self.assertEqual(self.admin.get(path).text, '{"enabled":false}')

    def test_faults_are_all_named_at_once(self):
        body = {"enabled": "yes", "latency": {"enabled": True, "minDelayMs": -1, "maxDelayMs": 60001, "foo": 1},
                "greylist": {"enabled": True, "trackBy": "moon"}, "foo": 1}
        answer = self.admin.post(chaos_path("faults@example.com"), body)
        self.fails(answer, 400, error="Bad Request")
        for text in ("enabled must be a boolean value", "property foo should not exist",
                     "latency.property foo should not exist", "latency.minDelayMs must not be less than 0",
                     "latency.maxDelayMs must not be greater than 60000",
                     "greylist.trackBy must be one of the following values: ip, sender, ip_sender"):
            self.assertIn(text, answer.json["message"])
        self.assertIsNone(self.redis.document("inbox", "faults@example.com"))

    def test_unparsable_expiry_names_the_member(self):
        answer = self.admin.post(chaos_path("exp@example.com"), {"enabled": True, "expiresAt": "soon"})
        self.fails(answer, 400)
        self.assertIn("expiresAt", answer.json["message"][0])

    def test_bad_json_is_400_and_changes_nothing(self):
        """H5 H6 H7 H8"""
        path = chaos_path("json@example.com")
        bodies = [b"", b"{", b"[]", b'"x"', b"5", b'{"enabled":true,}', b'{"enabled":true}x', b'{"enabled":NaN}',
                  b'{"enabled":true,"enabled":true}', b'{"enabled":true,"\\u0065nabled":false}', b"[" * 100000,
                  b'{"enabled":true,"description":"\\u0000"}', b'\xef\xbb\xbf{"enabled":true}',
                  b'{"enabled":true,"description":"\xff"}', b'{"enabled":true,"description":"\\ud800"}',
                  b'{"enabled":true,"description":"\xc0\xaf"}', b'{"enabled":true}\0', b'{"enabled":1e309}',
                  b'{"enabled":true,"latency":{"enabled":true,"minDelayMs":9223372036854775808}}',
                  b'{"enabled":true,"latency":{"enabled":true,"minDelayMs":"5"}}',
                  b'{"enabled":true,"latency":{"enabled":true,"probability":1.0000001}}']
        for body in bodies:
            with self.subTest(body=body[:60]):
                self.fails(self.admin.post(path, body), 400)
        self.assertIsNone(self.redis.document("inbox", "json@example.com"))

    def test_description_is_data(self):
        """H1: it goes into no reply, so a line's end in it is harmless."""
        body = {"enabled": True, "description": "x\r\n250 ok \u2028 <img> %s"}
        answer = self.admin.post(chaos_path("crlf@example.com"), body)
        self.assertEqual(answer.json, body)
        self.assertNotIn("\n", answer.text)

    def test_case_of_the_address_does_not_matter(self):
        self.admin.post(chaos_path("MiXed@Example.COM"), {"enabled": True})
        self.assertEqual(self.admin.get(chaos_path("mixed@example.com")).json["enabled"], True)
        self.assertIsNotNone(self.redis.document("inbox", "mixed@example.com"))

    def test_bare_and_encoded_at_sign_are_one(self):
        self.admin.post("/api/inboxes/at%40example.com/chaos", {"enabled": True})
        self.assertEqual(self.admin.get("/api/inboxes/at@example.com/chaos").json["enabled"], True)

    def test_tag_is_not_stripped(self):
        self.admin.post(chaos_path("user+tag@example.com"), {"enabled": True})
        self.assertIsNotNone(self.redis.document("inbox", "user+tag@example.com"))
        self.assertEqual(self.admin.get("/api/inboxes/user@example.com/chaos").text, '{"enabled":false}')

    def test_odd_addresses_survive_the_url(self):
        """H10"""
        for address, key in (("a/b@x.org", "a/b@x.org"), ("a+b@x.org", "a+b@x.org"), ("100%@x.org", "100%@x.org"),
                             ("%2f@x.org", "%2f@x.org"), ('"a b"@x.org', '"a b"@x.org'), ("\u00fc@x.org", "\u00fc@x.org"),
                             ("a@\u00fc.example", "a@xn--tda.example"), ("a?b#c@x.org", "a?b#c@x.org")):
            with self.subTest(address=address):
                path = "/api/inboxes/" + urllib.parse.quote(address, safe="") + "/chaos"
                self.assertEqual(self.admin.post(path, {"enabled": True}).status, 200)
                self.assertIsNotNone(self.redis.document("inbox", key))

    def test_invalid_addresses_are_400(self):
        """H10"""
        for segment in ("%00", "a%00b@x.org", "%zz@x.org", "%", "a@x.org%", "%ff@x.org", "nodomain", "a%0d%0ab@x.org",
                        "a" * 400 + "@x.org", "..", ".", "%2e%2e", "@x.org", "a@", "a@b@c", "a@b(.evil)"):
            with self.subTest(segment=segment[:30]):
                answer = self.admin.post(f"/api/inboxes/{segment}/chaos", {"enabled": True})
                self.fails(answer, 400)
                self.assertNotIn("\r", answer.json["message"])

    def test_traversal_is_nothing(self):
        """H9"""
        for path in ("/ui/..%2f..%2fetc/passwd", "/../etc/passwd", "//etc/passwd", "/api//inboxes", "/api/inboxes/",
                     "/%2e%2e/livez", "/\\livez", "/%252e", "/api/inboxes//chaos", "/livez/"):
            with self.subTest(path=path):
                self.fails(self.admin.get(path), 404)

    def test_etags_prevent_lost_updates(self):
        """H22"""
        path = chaos_path("etag@example.com")
        none = self.admin.get(path).headers["ETag"]
        self.assertEqual(self.admin.post(path, {"enabled": True}, If_Match=none).status, 200)
        self.fails(self.admin.post(path, {"enabled": False}, If_Match=none), 412)
        self.fails(self.admin.post(path, {"enabled": False}, If_None_Match="*"), 412)
        first = self.admin.get(path).headers["ETag"]
        second = self.admin.post(path, {"enabled": False}, If_Match=f'"99", {first}').headers["ETag"]
        self.assertNotEqual(first, second)
        self.assertEqual(self.admin.get(path).headers["ETag"], second)
        self.fails(self.admin.delete(path, If_Match=first), 412)
        self.fails(self.admin.delete(path, If_Match="W/" + second), 412)
        self.assertEqual(self.admin.delete(path, If_Match="*").status, 204)
        self.fails(self.admin.post(path, {"enabled": True}, If_Match="*"), 412)
        self.assertEqual(self.admin.post(path, {"enabled": True}, If_None_Match="*").status, 200)

    def test_head_is_get_without_a_body(self):
        """H11"""
        answer = self.admin.call("HEAD", chaos_path("never@example.com"))
        self.assertEqual((answer.status, answer.text), (200, ""))
        self.assertEqual(answer.headers["Content-Length"], "17")

    def test_document_broken_by_hand_is_told(self):
        self.redis.ask("SET", f"{PREFIX}:cfg:inbox:hand@example.com", '{"rev":1,"seq":1,"doc":{"enabled":"maybe"}}')
        answer = self.admin.get(chaos_path("hand@example.com"))
        self.fails(answer, 500)
        self.assertIn("enabled must be a boolean value", answer.json["message"])
        self.assertEqual(self.admin.post(chaos_path("hand@example.com"), {"enabled": True}).status, 200)

    def test_document_written_by_redis_cli_is_normalized(self):
        self.redis.ask("FCALL", "cm_set", 0, "inbox", "cli@example.com", '{"enabled":true,"blackhole":{"enabled":true}}')
        self.assertEqual(self.admin.get(chaos_path("cli@example.com")).text,
                         '{"enabled":true,"blackhole":{"enabled":true,"triggerWebhooks":false}}')

    def test_error_texts_of_the_validator(self):
        cases = [
            ({"enabled": 1}, "enabled must be a boolean value"),
            ({}, "enabled must be a boolean value"),
            ({"enabled": True, "expiresAt": 5}, "expiresAt must be a string"),
            ({"enabled": True, "latency": 5}, "nested property latency must be either object or array"),
            ({"enabled": True, "latency": {}}, "latency.enabled must be a boolean value"),
            ({"enabled": True, "latency": {"enabled": True, "minDelayMs": "x"}},
             "latency.minDelayMs must be a number conforming to the specified constraints"),
            ({"enabled": True, "connectionDrop": {"enabled": True, "probability": 1.5}},
             "connectionDrop.probability must not be greater than 1"),
            ({"enabled": True, "randomError": {"enabled": True, "errorTypes": "temporary"}},
             "randomError.errorTypes must be an array"),
            ({"enabled": True, "randomError": {"enabled": True, "errorTypes": ["odd"]}},
             "randomError.each value in errorTypes must be one of the following values: temporary, permanent"),
            ({"enabled": True, "greylist": {"enabled": True, "maxAttempts": 0}},
             "greylist.maxAttempts must not be less than 1"),
        ]
        for body, text in cases:
            with self.subTest(body=body):
                answer = self.admin.post(chaos_path("texts@example.com"), body)
                self.fails(answer, 400)
                self.assertIn(text, answer.json["message"])
        message = "property X should not exist".replace("X", "foo")
        answer = self.admin.post("/api/inboxes", {"foo": 1, "chaos": {"enabled": "x", "foo": 1}})
        self.fails(answer, 400)
        for text in (message, "chaos.enabled must be a boolean value", "chaos.property foo should not exist"):
            self.assertIn(text, answer.json["message"])


class TestInboxes(Case):
    settings = {"admin_domains": ["example.com", "example.org"]}

    def test_all_members_are_optional(self):
        for body in (None, {}, {"ttl": None, "emailAddress": None}):
            answer = self.admin.post("/api/inboxes", body)
            self.assertEqual(answer.status, 201, answer.text)
            self.assertEqual(list(answer.json), ["emailAddress", "expiresAt", "inboxHash", "encrypted", "emailAuth",
                                                 "spamAnalysis"])
            self.assertRegex(answer.json["emailAddress"], r"^[0-9a-f]{16}@example\.com$")
            self.assertRegex(answer.json["expiresAt"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertIs(answer.json["encrypted"], False)

    def test_what_was_asked_for_is_answered(self):
        begin = time.time()
        answer = self.admin.post("/api/inboxes", {
            "clientKemPk": "abc", "ttl": 60, "emailAddress": "Wanted@Example.org", "encryption": "plain",
            "emailAuth": True, "spamAnalysis": False, "chaos": {"enabled": True, "blackhole": {"enabled": True}}})
        self.assertEqual(answer.status, 201, answer.text)
        made = answer.json
        self.assertEqual(made["emailAddress"], "wanted@example.org")
        digest = hashlib.sha256(b"wanted@example.org").digest()
        self.assertEqual(made["inboxHash"], base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
        self.assertIs(made["emailAuth"], True)
        self.assertEqual(made["chaos"], {"enabled": True, "blackhole": {"enabled": True, "triggerWebhooks": False}})
        expires = time.mktime(time.strptime(made["expiresAt"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        self.assertAlmostEqual(expires - begin, 60, delta=5)
        self.assertEqual(self.admin.get(chaos_path("wanted@example.org")).json, made["chaos"])

    def test_taken_address_becomes_a_random_one(self):
        first = self.admin.post("/api/inboxes", {"emailAddress": "taken@example.org"})
        second = self.admin.post("/api/inboxes", {"emailAddress": "taken@example.org"})
        self.assertEqual((first.status, first.json["emailAddress"]), (201, "taken@example.org"))
        self.assertEqual(second.status, 201)
        self.assertRegex(second.json["emailAddress"], r"^[0-9a-f]{16}@example\.org$")

    def test_bare_domain(self):
        answer = self.admin.post("/api/inboxes", {"emailAddress": "Example.ORG"})
        self.assertRegex(answer.json["emailAddress"], r"^[0-9a-f]{16}@example\.org$")

    def test_foreign_domain(self):
        for address in ("a@evil.example", "evil.example"):
            self.fails(self.admin.post("/api/inboxes", {"emailAddress": address}), 400, "Domain is not allowed")
        self.fails(self.admin.post(chaos_path("a@evil.example"), {"enabled": True}), 400, "Domain is not allowed")

    def test_faults_are_all_named(self):
        answer = self.admin.post("/api/inboxes", {"ttl": 59, "emailAddress": 5, "encryption": "rot13",
                                                  "emailAuth": "yes", "spamAnalysis": 1, "clientKemPk": [], "x": 1})
        self.fails(answer, 400)
        self.assertEqual(answer.json["message"], [
            "property x should not exist", "clientKemPk must be a string", "ttl must not be less than 60",
            "emailAddress must be a string", "encryption must be one of the following values: encrypted, plain",
            "emailAuth must be a boolean value", "spamAnalysis must be a boolean value"])
        for body, text in (({"ttl": 604801}, "ttl must not be greater than 604800"),
                           ({"ttl": 60.5}, "ttl must be an integer number"),
                           ({"ttl": "60"}, "ttl must be an integer number"),
                           ({"emailAddress": "a" * 250 + "@example.org"},
                            "emailAddress must be shorter than or equal to 254 characters")):
            answer = self.admin.post("/api/inboxes", body)
            self.fails(answer, 400)
            self.assertIn(text, answer.json["message"])
        self.fails(self.admin.post("/api/inboxes", {"emailAddress": "a@b@c"}), 400)
        self.fails(self.admin.post("/api/inboxes", b"[]"), 400)

    def test_delete_takes_box_and_chaos(self):
        self.admin.post("/api/inboxes", {"emailAddress": "del@example.org", "chaos": {"enabled": True}})
        for _ in range(2):
            self.assertEqual(self.admin.delete("/api/inboxes/del%40example.org").status, 204)
        self.assertIsNone(self.redis.document("box", "del@example.org"))
        self.assertIsNone(self.redis.document("inbox", "del@example.org"))
        self.assertEqual(self.admin.delete("/api/inboxes/unknown@example.org").status, 204)
        self.fails(self.admin.delete("/api/inboxes/nonsense"), 400)

    def test_list_is_paged_in_order(self):
        names = [f"page{i:02d}@example.org" for i in range(9)]
        for i, name in enumerate(names):
            if i % 3 != 0:
                self.assertEqual(self.admin.post("/api/inboxes", {"emailAddress": name}).status, 201)
            if i % 3 != 1:
                self.assertEqual(self.admin.post(chaos_path(name), {"enabled": True}).status, 200)
        seen, after, pages = [], "", 0
        while True:
            page = self.admin.get("/api/inboxes?limit=2&prefix=page&after=" + urllib.parse.quote(after)).json
            self.assertLessEqual(len(page["inboxes"]), 2)
            seen += page["inboxes"]
            pages += 1
            after = page["next"]
            if after is None:
                break
        self.assertEqual([entry["emailAddress"] for entry in seen], names)
        self.assertEqual([entry["chaos"] for entry in seen], [i % 3 != 1 for i in range(9)])
        self.assertEqual(["expiresAt" in entry for entry in seen], [i % 3 != 0 for i in range(9)])
        self.assertEqual(pages, 5)
        one = self.admin.get("/api/inboxes?prefix=page03").json
        self.assertEqual((len(one["inboxes"]), one["next"]), (1, None))

    def test_list_refuses_bad_queries(self):
        for query in ("limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1e9", "limit=5&limit=6",
                      "after=%zz", "after=%00", "prefix=" + "a" * 400):
            with self.subTest(query=query[:20]):
                self.fails(self.admin.get("/api/inboxes?" + query), 400)
        self.assertEqual(self.admin.get("/api/inboxes?prefix=*%3F%5B").json, {"inboxes": [], "next": None})

    def test_expired_inbox_is_gone_and_its_address_free(self):
        self.admin.post("/api/inboxes", {"emailAddress": "old@example.org", "chaos": {"enabled": True}})
        doc = json.loads(self.redis.document("box", "old@example.org"))
        doc["expiresAt"] = "2020-01-01T00:00:00.000Z"
        self.redis.ask("FCALL", "cm_set", 0, "box", "old@example.org", json.dumps(doc))
        answer = self.admin.post("/api/inboxes", {"emailAddress": "old@example.org"})
        self.assertEqual(answer.json["emailAddress"], "old@example.org")
        self.assertIsNone(self.redis.document("inbox", "old@example.org"))

    def test_server_info(self):
        info = self.admin.get("/api/server-info").json
        self.assertEqual(list(info), [
            "serverSigPk", "algs", "context", "maxTtl", "defaultTtl", "sseConsole", "allowClearAllInboxes",
            "allowedDomains", "encryptionPolicy", "webhookEnabled", "webhookRequireAuthDefault",
            "spamAnalysisEnabled", "chaosEnabled"])
        self.assertEqual(info["algs"], {"kem": "", "sig": "", "aead": "", "kdf": ""})
        self.assertEqual((info["context"], info["maxTtl"], info["defaultTtl"], info["encryptionPolicy"]),
                         ("vaultsandbox:email:v1", 604800, 3600, "never"))
        self.assertEqual(info["allowedDomains"], ["example.com", "example.org"])
        self.assertIs(info["chaosEnabled"], True)

    def test_check_key(self):
        answer = self.admin.get("/api/check-key")
        self.assertEqual((answer.status, answer.text), (200, '{"ok":true}'))

    def test_metrics_are_fleet_totals(self):
        before = self.admin.get("/api/metrics").json
        self.redis.ask("HINCRBY", f"{PREFIX}:st:totals", "chaos.events_total", 3)
        self.redis.ask("HINCRBY", f"{PREFIX}:st:totals", "email.received_total", 2)
        made = self.admin.post("/api/inboxes", {}).json["emailAddress"]
        after = self.admin.get("/api/metrics").json
        self.assertEqual(after["chaos"]["events_total"], before["chaos"]["events_total"] + 3)
        self.assertEqual(after["email"]["received_total"], before["email"]["received_total"] + 2)
        self.assertEqual(after["inbox"]["created_total"], before["inbox"]["created_total"] + 1)
        self.assertEqual(after["inbox"]["active_total"], before["inbox"]["active_total"] + 1)
        self.admin.delete("/api/inboxes/" + made)
        last = self.admin.get("/api/metrics").json
        self.assertEqual(last["inbox"]["deleted_total"], before["inbox"]["deleted_total"] + 1)
        self.assertEqual(set(after["chaos"]), {
            "events_total", "latency_injected_ms", "errors_returned_total", "connections_dropped_total",
            "greylist_rejections_total", "blackhole_total"})
        self.assertIn("total", after["connections"])
        self.assertIn("recipients_total", after["email"])
        self.assertGreaterEqual(after["server"]["uptime_seconds"], 0)


class TestDisarmed(Case):
    settings = {"armed": False, "admin_domains": ["*"]}

    def test_chaos_calls_are_403_after_the_key_and_before_the_body(self):
        path = chaos_path("a@example.com")
        self.fails(self.admin.get(path), 403, DISABLED, "Forbidden")
        self.fails(self.admin.post(path, b"{"), 403, DISABLED)
        self.fails(self.admin.delete(path), 403, DISABLED)
        self.fails(self.admin.post("/api/inboxes/nonsense/chaos", b"{"), 403, DISABLED)
        self.fails(self.admin.post(path, b"{", key=None), 401, "Missing X-API-Key header", "Unauthorized")

    def test_chaos_member_is_validated_then_ignored(self):
        self.fails(self.admin.post("/api/inboxes", {"chaos": {"enabled": 1}}), 400)
        answer = self.admin.post("/api/inboxes", {"emailAddress": "a@example.net", "chaos": {"enabled": True}})
        self.assertEqual(answer.status, 201)
        self.assertNotIn("chaos", answer.json)
        self.assertIsNone(self.redis.document("inbox", "a@example.net"))

    def test_server_info_tells(self):
        self.assertIs(self.admin.get("/api/server-info").json["chaosEnabled"], False)
        self.assertIs(self.admin.get("/api/v1/status").json["armed"], False)


class TestExplicit(Case):
    settings = {"admin_inboxes": "explicit"}

    def test_unknown_inbox_is_404_after_the_body(self):
        path = chaos_path("Nobody@d.example")
        text = "Inbox not found: nobody@d.example"
        self.fails(self.admin.get(path), 404, text, "Not Found")
        self.fails(self.admin.post(path, {"enabled": True}), 404, text)
        self.fails(self.admin.delete(path), 404, text)
        self.fails(self.admin.post(path, {"enabled": 5}), 400)

    def test_created_inbox_can_be_configured(self):
        self.admin.post("/api/inboxes", {"emailAddress": "somebody@d.example"})
        self.assertEqual(self.admin.post(chaos_path("somebody@d.example"), {"enabled": True}).status, 200)
        self.admin.delete("/api/inboxes/somebody@d.example")
        self.fails(self.admin.get(chaos_path("somebody@d.example")), 404)


# ------------------------------------------------------------------------ keys

class TestKeys(Case):
    @classmethod
    def setUpClass(cls):
        cls.second, line = new_key()
        handle, cls.key_file = tempfile.mkstemp(prefix="cm-keys-")
        with os.fdopen(handle, "w") as f:
            f.write(f"# a comment\n\n  {line}   # of tests\n")
        cls.addClassCleanup(os.unlink, cls.key_file)
        cls.settings = {"admin_api_key_file": cls.key_file}
        super().setUpClass()

    def check(self, **more):
        return self.admin.get("/api/check-key", **more).status

    def test_missing_and_wrong(self):
        self.fails(self.admin.get("/api/check-key", key=None), 401, "Missing X-API-Key header", "Unauthorized")
        self.fails(self.admin.get("/api/check-key", key=""), 401, "Missing X-API-Key header")
        self.fails(self.admin.get("/api/check-key", key="wrong"), 401, "Invalid API key", "Unauthorized")
        self.fails(self.admin.get("/api/check-key", key=self.admin.key[:-1]), 401, "Invalid API key")

    def test_every_path_but_health_needs_one(self):
        for method, path in (("GET", "/api/inboxes"), ("POST", "/api/inboxes"), ("DELETE", "/api/inboxes/a@b"),
                             ("GET", "/api/server-info"), ("GET", "/api/metrics"), ("GET", chaos_path("a@b")),
                             ("POST", chaos_path("a@b")), ("DELETE", chaos_path("a@b")), ("GET", "/api/v1/status")):
            self.assertEqual(self.admin.call(method, path, key=None).status, 401, path)

    def test_ways_to_send_it(self):
        key = self.admin.key
        basic = base64.b64encode(f"any:{key}".encode()).decode()
        self.assertEqual(self.check(), 200)
        self.assertEqual(self.check(key=self.second), 200)
        self.assertEqual(self.check(key=None, Authorization="Bearer " + key), 200)
        self.assertEqual(self.check(key=None, Authorization="bearer " + key), 200)
        self.assertEqual(self.check(key=None, Authorization="Basic " + basic), 200)
        self.assertEqual(self.check(key=None, Authorization="Digest " + key), 401)
        self.assertEqual(self.check(key="wrong", Authorization="Bearer " + key), 401)
        for basic in ("!!!!", "", "YQ==", base64.b64encode(b"any:").decode(), "A" * 4000):
            self.assertEqual(self.check(key=None, Authorization="Basic " + basic), 401)

    def test_not_in_the_query_nor_a_cookie(self):
        """H15"""
        key = self.admin.key
        for name in ("api_key", "key", "X-API-Key"):
            self.assertEqual(self.admin.get(f"/api/check-key?{name}={key}", key=None).status, 401)
        self.assertEqual(self.check(key=None, Cookie="X-API-Key=" + key), 401)

    def test_own_api_answers_problem_json(self):
        answer = self.admin.get("/api/v1/status", key="wrong")
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        self.assertEqual(answer.json, {"type": "about:blank", "title": "Unauthorized", "status": 401,
                                       "detail": "Invalid API key"})

    def test_keys_are_in_no_log(self):
        path = f"/api/inboxes/log@example.com/chaos?key={self.admin.key}"
        self.assertEqual(self.admin.post(path, {"enabled": True}).status, 200)
        self.admin.post(chaos_path("log@example.com"), {"enabled": True}, key="cm_guess")
        log = self.admin.logged()
        self.assertNotIn(self.admin.key, log)
        self.assertNotIn("cm_guess", log)
        digest = hashlib.sha256(self.admin.key.encode()).hexdigest()
        self.assertNotIn(digest, log)
        line = [line for line in log.splitlines() if "log@example.com" in line and "status=200" in line][0]
        self.assertIn(f"method=POST path=/api/inboxes/log@example.com/chaos status=200 key={digest[:8]} "
                      "remote=127.0.0.1 ms=", line)


class TestGuessing(Case):
    def test_failures_are_limited_per_address(self):
        """H15"""
        def guess(source, key):
            out, _ = self.admin.raw(f"GET /api/check-key HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
                                    "Connection: close\r\n\r\n".encode(), source=source)
            return int(out.split(b" ")[1]), out
        codes = [guess("127.0.0.2", f"guess{i}")[0] for i in range(30)]
        self.assertEqual(codes[:20], [401] * 20)
        self.assertIn(429, codes[20:])
        code, out = guess("127.0.0.2", "again")
        self.assertEqual(code, 429)
        self.assertRegex(out.decode(), r"Retry-After: [1-9]\d?\r\n")
        self.assertEqual(guess("127.0.0.2", self.admin.key)[0], 200)
        self.assertEqual(guess("127.0.0.3", "fresh")[0], 401)


# ------------------------------------------------------------------------ HTTP

HOST = b"Host: localhost\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"


class TestWire(Case):
    settings = {"admin_hosts": ["staging.example"]}

    def head(self, method=b"POST", path=b"/api/inboxes/wire@example.com/chaos", more=b""):
        key = b"X-API-Key: " + self.admin.key.encode() + b"\r\n"
        return method + b" " + path + b" HTTP/1.1\r\n" + key + more + b"\r\n"

    def refused(self, data, status, closed=True):
        out, eof = self.admin.raw(data)
        self.assertEqual(out.split(b"\r\n")[0].split(b" ")[1:2], [str(status).encode()], (data[:200], out))
        if closed:
            self.assertTrue(eof, "the connection must be closed")
            # libmicrohttpd 0.9.75 sends the head of its own 400 twice.
            lines = {line for line in out.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")}
            self.assertEqual(len(lines), 1, "a second request was answered")
        self.assertIsNone(self.redis.document("inbox", "wire@example.com"))

    def test_ambiguous_lengths(self):
        """H4"""
        body = b'{"enabled":true}'
        chunks = b"10\r\n" + body + b"\r\n0\r\n\r\n"
        for more, payload in (
                (b"Content-Length: 16\r\nTransfer-Encoding: chunked\r\n", chunks),
                (b"Transfer-Encoding: chunked\r\nContent-Length: 16\r\n", chunks),
                (b"Content-Length: 16\r\nContent-Length: 16\r\n", body),
                (b"Content-Length: 16\r\nContent-Length: 5\r\n", body),
                (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks),
                (b"Transfer-Encoding: xchunked\r\n", chunks), (b"Transfer-Encoding: chunked, gzip\r\n", chunks),
                (b"Transfer-Encoding: identity\r\n", body), (b"Content-Length: -16\r\n", body),
                (b"Content-Length: +16\r\n", body), (b"Content-Length: 16,16\r\n", body),
                (b"Content-Length: 0x10\r\n", body), (b"Content-Length: \r\n", body),
                (b"Content-Length: 1 6\r\n", body), (b"Content-Length : 16\r\n", body),
                (b"Content-Lengt: 16\r\n h\r\n", body)):
            with self.subTest(more=more):
                smuggled = self.head(b"DELETE", b"/api/inboxes/smuggled@x", HOST)
                self.refused(self.head(more=JSON + more) + payload + smuggled, 400)
        self.assertNotIn("smuggled", self.admin.logged())

    def test_doubled_headers(self):
        """H4 H14"""
        for name, value in ((b"Host", b"localhost"), (b"Content-Type", b"application/json"),
                            (b"Authorization", b"Bearer x"), (b"Origin", b"http://localhost"),
                            (b"X-API-Key", b"x")):
            with self.subTest(name=name):
                double = (name + b": " + value + b"\r\n") * 2
                more = double if name == b"Host" else HOST + double
                self.refused(self.head(b"GET", b"/api/check-key", more), 400)

    def test_malformed_heads(self):
        """H4"""
        good = self.head(b"GET", b"/livez", HOST)
        for name, data, status in (
                ("http/0.9", b"GET /livez\r\n\r\n", 400),
                ("bare LF everywhere", good.replace(b"\r\n", b"\n"), 400),
                ("bare LF once", good.replace(b"localhost\r\n", b"localhost\n"), 400),
                ("bare LF last", good[:-2] + b"\n", 400),
                ("NUL in a value", good.replace(b"localhost", b"local\0host"), 400),
                ("NUL in a name", good.replace(b"Host", b"Ho\0st"), 400),
                ("NUL in the target", good.replace(b"/livez", b"/livez\0x"), 400),
                ("folded line", good[:-2] + b"X: a\r\n b\r\n\r\n", 400),
                ("CR in a value", good[:-2] + b"X: a\rb\r\n\r\n", 400),
                ("blank in a name", good[:-2] + b"X y: a\r\n\r\n", 400),
                ("no colon", good[:-2] + b"nonsense\r\n\r\n", 400),
                ("two blanks", good.replace(b"GET ", b"GET  "), 400),
                ("blank in the target", good.replace(b"/livez", b"/li vez"), 400),
                ("raw UTF-8 in the target", good.replace(b"/livez", "/\u00fc".encode()), 400),
                ("absolute form", good.replace(b"/livez", b"http://localhost/livez"), 400),
                ("asterisk", good.replace(b"GET /livez", b"OPTIONS *"), 400),
                ("bad escape", good.replace(b"/livez", b"/%zz"), 400),
                ("NUL escape", good.replace(b"/livez", b"/a%00"), 400),
                ("fragment", good.replace(b"/livez", b"/livez#x"), 400),
                ("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
                ("no host", self.head(b"GET", b"/livez"), 400),
                ("http/1.0 without host", b"GET /livez HTTP/1.0\r\n\r\n", 400),
                ("65 headers", self.head(b"GET", b"/livez", HOST + b"X: y\r\n" * 63), 431),
                ("40 KiB header", self.head(b"GET", b"/livez", HOST + b"X: " + b"y" * 40960 + b"\r\n"), 431),
                ("1 MiB key", self.head(b"GET", b"/livez", HOST + b"X-API-Key: " + b"y" * 2**20 + b"\r\n"), 431)):
            with self.subTest(name):
                self.refused(data, status)

    def test_well_formed_heads_pass(self):
        good = self.head(b"GET", b"/livez", HOST)
        for name, data in (
                ("plain", good), ("64 headers", self.head(b"GET", b"/livez", HOST + b"X: y\r\n" * 62)),
                ("odd blanks in values", good[:-2] + b"X:y\r\nY: \t z \r\nZ:\r\n\r\n"),
                ("query", good.replace(b"/livez", b"/livez?a=b&c=%20")),
                ("cookies", good[:-2] + b"Cookie: a=b; c=\"d\"\r\n\r\n"),
                ("empty lines before", b"\r\n\r\n" + good),
                ("encoded path", good.replace(b"/livez", b"/%6civez")),
                ("8-bit value", good[:-2] + b"X: \xc3\xbc\r\n\r\n"),
                ("http/1.0", good.replace(b"HTTP/1.1", b"HTTP/1.0"))):
            with self.subTest(name):
                out, _ = self.admin.raw(data, timeout=0.5)
                self.assertTrue(out.startswith(b"HTTP/1.1 200 "), out)

    def test_byte_by_byte(self):
        data = self.head(b"GET", b"/livez", HOST + b"X: " + b"y" * 100 + b"\r\n")
        with self.admin.connect() as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(data)):
                s.sendall(data[i:i + 1])
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 200 "))

    def test_pipelined_requests_each_get_their_answer(self):
        body = b'{"enabled":false}'
        post = self.head(path=b"/api/inboxes/pipe@example.com/chaos",
                         more=JSON + b"Content-Length: %d\r\n" % len(body)) + body
        out, _ = self.admin.raw(post + self.head(b"GET", b"/livez", HOST) + post, timeout=0.5)
        self.assertEqual(out.count(b"HTTP/1.1 200 "), 3)

    def test_large_bodies(self):
        """H3"""
        for length in (2**20 + 1, 2**30, 2**63, 10**40):
            with self.subTest(length=length):
                self.refused(self.head(more=JSON + b"Content-Length: %d\r\n" % length), 413)
        big = b"%x\r\n%s\r\n" % (2**19, b" " * 2**19)
        self.refused(self.head(more=JSON + b"Transfer-Encoding: chunked\r\n") + big * 3 + b"0\r\n\r\n", 413)
        self.refused(self.head(more=JSON + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n"), 413)

    def test_endless_chunks_are_cut_off(self):
        """H3"""
        piece = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
        sent = 0
        with self.admin.connect() as s:
            s.settimeout(5)
            s.sendall(self.head(more=JSON + b"Transfer-Encoding: chunked\r\n"))
            with self.assertRaises(OSError):
                while sent < 2**27:
                    s.sendall(piece)
                    sent += len(piece)
        self.assertLess(sent, 2**25)

    def test_bodies_that_fit(self):
        path = b"/api/inboxes/fit@example.com/chaos"
        body = b'{"enabled":false}'
        chunked = b"5\r\n" + body[:5] + b"\r\nc\r\n" + body[5:] + b"\r\n0\r\n\r\n"
        out, _ = self.admin.raw(self.head(path=path, more=JSON + b"Transfer-Encoding: chunked\r\n") + chunked, 0.5)
        self.assertTrue(out.startswith(b"HTTP/1.1 200 "), out)
        padded = body + b" " * (2**20 - len(body))
        out, _ = self.admin.raw(self.head(path=path, more=JSON + b"Content-Length: %d\r\n" % 2**20) + padded, 1)
        self.assertTrue(out.startswith(b"HTTP/1.1 200 "), out)
        with self.admin.connect() as s:
            s.settimeout(5)
            s.sendall(self.head(path=path, more=JSON + b"Expect: 100-continue\r\nContent-Length: 17\r\n"))
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100 "))
            s.sendall(body)
            self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 200 "))

    def test_expectations(self):
        self.refused(self.head(more=JSON + b"Expect: 200-ok\r\nContent-Length: 2\r\n") + b"{}", 417)
        data = self.head(more=JSON + b"Expect: 100-continue\r\nContent-Length: 2\r\n")
        self.refused(data.replace(self.admin.key.encode(), b"wrong"), 401)

    def test_body_on_get(self):
        """H3"""
        self.refused(self.head(b"GET", b"/livez", JSON + b"Content-Length: 2\r\n") + b"{}", 400)
        self.refused(self.head(b"HEAD", b"/livez", JSON + b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 400)

    def test_content_types(self):
        """H12"""
        path = b"/api/inboxes/type@example.com/chaos"
        for value, status in ((b"application/json", 200), (b"Application/JSON; charset=UTF-8", 200),
                              (b"text/plain", 415), (b"application/x-www-form-urlencoded", 415),
                              (b"multipart/form-data; boundary=x", 415), (b"application/jsonx", 415),
                              (b"application/json; charset=utf-16", 415), (b"", 415)):
            with self.subTest(value=value):
                head = self.head(path=path, more=HOST + b"Content-Type: " + value + b"\r\nContent-Length: 17\r\n")
                out, _ = self.admin.raw(head + b'{"enabled":false}', 0.5)
                self.assertTrue(out.startswith(b"HTTP/1.1 %d " % status), out)
        self.refused(self.head(more=HOST + b"Content-Length: 16\r\n") + b'{"enabled":true}', 415)

    def test_foreign_pages(self):
        """H13"""
        path = chaos_path("csrf@example.com")
        own = f"http://127.0.0.1:{self.admin.port}"
        for headers, status in (({"Origin": own}, 200), ({"Origin": "http://evil.example"}, 403),
                                ({"Origin": "null"}, 403), ({"Origin": own + "0"}, 403),
                                ({"Origin": "http://127.0.0.1"}, 403), ({"Sec_Fetch_Site": "same-origin"}, 200),
                                ({"Sec_Fetch_Site": "none"}, 200), ({"Sec_Fetch_Site": "cross-site"}, 403),
                                ({"Sec_Fetch_Site": "same-site"}, 403)):
            with self.subTest(headers=headers):
                answer = self.admin.post(path, {"enabled": False}, **headers)
                self.assertEqual(answer.status, status)
                self.assertFalse([name for name in answer.headers if name.lower().startswith("access-control")])
                self.assertNotIn("Set-Cookie", answer.headers)

    def test_hosts(self):
        """H14"""
        port = self.admin.port
        for host, status in (("localhost", 200), (f"localhost:{port}", 200), ("LOCALHOST", 200), ("127.0.0.1", 200),
                             ("[::1]", 200), (f"[::1]:{port}", 200), ("staging.example", 200),
                             ("Staging.Example:443", 200), ("evil.example", 421), ("localhost.evil.example", 421),
                             ("127.0.0.1.evil.example", 421), ("user@localhost", 421), ("localhost:x", 400),
                             ("localhost:", 200), ("[::1", 400), ("", 400), ("localhost:99999999", 400),
                             ("127.0.0.2", 421), ("0.0.0.0", 421)):
            for path in ("/livez", "/api/metrics"):
                with self.subTest(host=host, path=path):
                    out, _ = self.admin.raw(self.head(b"GET", path.encode(), f"Host: {host}\r\n".encode()), 0.5)
                    self.assertTrue(out.startswith(b"HTTP/1.1 %d " % status), out)

    def test_methods(self):
        """H11"""
        for method in ("OPTIONS", "TRACE", "PUT", "PATCH", "FOO", "get", "CONNECT"):
            answer = self.admin.call(method, "/api/inboxes", X_HTTP_Method_Override="GET")
            self.fails(answer, 405)
            self.assertEqual(answer.headers["Allow"], "GET, HEAD, POST")
        answer = self.admin.call("PUT", "/livez")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD"))
        self.fails(self.admin.post("/api/nothing", {}), 404)

    def test_security_headers(self):
        for path in ("/livez", "/api/check-key", "/nothing"):
            headers = self.admin.get(path).headers
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
            self.assertEqual(headers["Cache-Control"], "no-store")

    def test_hostile_path_is_escaped_in_errors_and_log(self):
        """H21"""
        answer = self.admin.delete("/api/inboxes/%22%3Cimg%20src=x%3E%0d%0aX:y@x")
        self.fails(answer, 400)
        self.assertNotIn("X", answer.headers)
        self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
        self.admin.raw(self.head(b"DELETE", b"/api/inboxes/\x1b[31m", HOST), 0.5)
        self.assertNotIn("\x1b", self.admin.logged())


class TestSlow(Case):
    """H2"""

    seconds = 40

    def test_slow_heads_bodies_and_readers_are_cut_off_and_others_served(self):
        key = self.admin.key.encode()
        idle = [self.admin.connect("127.0.0.2") for _ in range(30)]
        head = self.admin.connect("127.0.0.3")
        body = self.admin.connect("127.0.0.3")
        body.sendall(b"POST /api/inboxes/slow@x/chaos HTTP/1.1\r\n" + JSON + b"X-API-Key: " + key +
                     b"\r\nContent-Length: 1000\r\n\r\n")
        kept = self.admin.connect("127.0.0.3")
        kept.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        self.assertTrue(kept.recv(1000).startswith(b"HTTP/1.1 200"))
        head.sendall(b"GET /livez HTTP/1.1\r\n")
        begin, ends, slowest = time.monotonic(), {}, 0.0
        try:
            while time.monotonic() - begin < 36 and len(ends) < 3:
                for name, s, byte in (("head", head, b"X"), ("body", body, b" "), ("kept", kept, b"G")):
                    if name not in ends:
                        try:
                            s.sendall(byte)
                            s.setblocking(False)
                            if s.recv(1000) == b"":
                                ends[name] = time.monotonic() - begin
                        except BlockingIOError:
                            pass
                        except OSError:
                            ends[name] = time.monotonic() - begin
                        s.setblocking(True)
                asked = time.monotonic()
                self.assertEqual(self.admin.get("/livez", key=None).status, 200)
                slowest = max(slowest, time.monotonic() - asked)
                time.sleep(0.5)
            idle_closed = sum(s.recv(1) == b"" for s in idle)
        finally:
            for s in idle + [head, body, kept]:
                s.close()
        self.assertEqual(idle_closed, 30)
        self.assertAlmostEqual(ends["head"], 10, delta=2)
        self.assertAlmostEqual(ends["kept"], 10, delta=2)
        self.assertAlmostEqual(ends["body"], 30, delta=2)
        self.assertLess(slowest, 1)

    def test_too_many_connections_of_one_address(self):
        flood = []
        try:
            for _ in range(200):
                flood.append(self.admin.connect("127.0.0.4"))
            closed = 0
            for s in flood:
                s.settimeout(0.2)
                try:
                    closed += s.recv(1) == b""
                except socket.timeout:
                    pass
                except ConnectionResetError:
                    closed += 1
            self.assertGreaterEqual(closed, 200 - 32)
            self.assertEqual(self.admin.get("/livez", key=None).status, 200)
        finally:
            for s in flood:
                s.close()


# -------------------------------------------------------- status and health

class TestStatus(Case):
    def heartbeat(self, host, **members):
        now = int(time.time() * 1000)
        seq = int(self.redis.ask("GET", f"{PREFIX}:seq") or 0)
        beat = {"host": host, "pid": 1, "version": "0.1.0", "time_ms": now,
                "epoch": self.redis.ask("GET", f"{PREFIX}:epoch"), "seq": seq, "digest": "00", "alarms": [],
                "armed": True, **members}
        self.redis.ask("HSET", f"{PREFIX}:st:hosts", host, json.dumps(beat))

    def setUp(self):
        self.redis.ask("DEL", f"{PREFIX}:st:hosts")
        self.admin.post(chaos_path("status@example.com"), {"enabled": False})

    def status(self):
        answer = self.admin.get("/api/v1/status")
        self.assertEqual(answer.status, 200)
        return answer.json

    def texts(self, status):
        return [(alarm["host"], alarm["text"]) for alarm in status["alarms"]]

    def test_no_filter(self):
        status = self.status()
        self.assertEqual(list(status), ["version", "armed", "halt", "redis", "epoch", "seq", "hosts", "alarms", "unavailable", "mtas"])
        self.assertEqual((status["armed"], status["redis"], status["hosts"]), (True, {"up": True}, []))
        self.assertEqual(self.texts(status), [(None, "no live filter")])
        self.assertEqual(status["epoch"], self.redis.ask("GET", f"{PREFIX}:epoch"))
        self.assertEqual(status["seq"], int(self.redis.ask("GET", f"{PREFIX}:seq")))

    def test_hosts_alarms_and_unavailable(self):
        self.heartbeat("one", alarms=["inbox x is broken"], unavailable={"drop": "not built"}, counters={"a": 1})
        self.heartbeat("two", seq=0)
        self.heartbeat("dead", time_ms=int(time.time() * 1000) - 6000, alarms=["old news"])
        status = self.status()
        hosts = {host["host"]: host for host in status["hosts"]}
        self.assertEqual({name: host["alive"] for name, host in hosts.items()},
                         {"one": True, "two": True, "dead": False})
        self.assertEqual((hosts["one"]["lag"], hosts["two"]["lag"]), (0, status["seq"]))
        self.assertGreaterEqual(hosts["dead"]["age_ms"], 6000)
        self.assertEqual(hosts["one"]["counters"], {"a": 1})
        self.assertEqual(self.texts(status), [("one", "inbox x is broken")])
        self.assertEqual(status["unavailable"], [{"host": "one", "fault": "drop", "reason": "not built"}])

    def test_diverging_digests(self):
        self.heartbeat("one", digest="01")
        self.heartbeat("two", digest="02")
        (host, text), = self.texts(self.status())
        self.assertIn(host, ("one", "two"))
        self.assertIn("other rules", text)
        self.heartbeat("two", digest="02", seq=0)
        self.assertEqual(self.texts(self.status()), [])

    def test_filter_armed_otherwise(self):
        self.heartbeat("one", armed=False)
        self.assertEqual(self.texts(self.status()), [("one", "is not armed, the admin daemon is")])

    def test_junk_heartbeats(self):
        self.redis.ask("HSET", f"{PREFIX}:st:hosts", "junk", "{")
        self.redis.ask("HSET", f"{PREFIX}:st:hosts", "array", "[]")
        self.redis.ask("HSET", f"{PREFIX}:st:hosts", "odd", '{"time_ms":"x","alarms":5,"unavailable":[],"seq":null}')
        status = self.status()
        self.assertEqual(self.texts(status)[:2], [(None, "a heartbeat in Redis cannot be read")] * 2)
        self.assertEqual(status["hosts"][0]["alive"], False)

    def test_health(self):
        """H27"""
        self.assertEqual(self.admin.get("/livez", key=None).text, "ok\n")
        self.assertEqual(self.admin.get("/readyz", key=None).json, {"ready": True})


# ---------------------------------------------------------------- Redis in trouble

class TestRedisTrouble(Case):
    path = chaos_path("trouble@example.com")

    def tearDown(self):
        self.redis.thaw()
        if self.redis.process.poll() is not None:
            self.redis.start()
        wait_until("recovery", lambda: self.admin.get("/readyz", key=None).status == 200)

    def unavailable(self, answer):
        self.fails(answer, 503, error="Service Unavailable")
        self.assertRegex(answer.headers["Retry-After"], r"^[1-9]\d*$")

    def recovers(self, timeout=8):
        wait_until("writes to work again",
                   lambda: self.admin.post(self.path, {"enabled": False}).status == 200, timeout)

    def test_killed_and_restarted_empty(self):
        """R3 H27"""
        self.redis.kill()
        for _ in range(3):
            self.unavailable(self.admin.post(self.path, {"enabled": True}))
        for method, path in (("GET", self.path), ("DELETE", self.path), ("POST", "/api/inboxes"),
                             ("GET", "/api/inboxes"), ("DELETE", "/api/inboxes/a@b.c"), ("GET", "/api/metrics")):
            self.unavailable(self.admin.call(method, path))
        wait_until("readyz to tell", lambda: self.admin.get("/readyz", key=None).status == 503, 5)
        self.assertTrue(self.admin.get("/readyz", key=None).json["reasons"][0].startswith("redis: "))
        self.assertEqual(self.admin.get("/livez", key=None).status, 200)
        status = self.admin.get("/api/v1/status")
        self.assertEqual(status.status, 200)
        self.assertIs(status.json["redis"]["up"], False)
        self.assertTrue(status.json["redis"]["error"])
        self.assertEqual(status.json["hosts"], [])
        self.assertIn("Redis is not available", status.json["alarms"][0]["text"])
        for path in ("/api/check-key", "/api/server-info"):
            self.assertEqual(self.admin.get(path).status, 200)
        self.redis.start()
        self.recovers()
        wait_until("the library", lambda: self.has_lua_functions(), 8)

    def has_lua_functions(self):
        try:
            return self.redis.ask("FCALL", "cm_get", 0, "inbox", "trouble@example.com")
        except AssertionError:
            return None

    def test_hung(self):
        """R3"""
        self.recovers()
        self.redis.freeze()
        begin = time.monotonic()
        first = self.admin.post(self.path, {"enabled": True})
        self.assertLess(time.monotonic() - begin, 2.5)
        self.unavailable(first)
        self.assertIn("may or may not", first.json["message"])
        begin = time.monotonic()
        for _ in range(5):
            self.unavailable(self.admin.post(self.path, {"enabled": True}))
        self.assertLess(time.monotonic() - begin, 5)
        begin = time.monotonic()
        self.assertEqual(self.admin.get("/livez", key=None).status, 200)
        self.assertLess(time.monotonic() - begin, 2)
        self.redis.thaw()
        self.recovers()
        self.assertEqual(self.admin.get(self.path).json, {"enabled": False})

    def test_out_of_memory(self):
        """R5"""
        self.recovers()
        self.redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.redis.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            answer = self.admin.post(self.path, {"enabled": True})
            self.unavailable(answer)
            self.assertIn("OOM", answer.json["message"])
            self.assertEqual(self.admin.get(self.path).json, {"enabled": False})
        finally:
            self.redis.ask("CONFIG", "SET", "maxmemory", "0")
        self.recovers()

    def test_replica_is_read_only(self):
        """R7"""
        self.recovers()
        master = self.new_redis()
        port = free_port()
        try:
            master.ask("CONFIG", "SET", "port", port)
            self.redis.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
            self.redis.ask("REPLICAOF", "127.0.0.1", port)
            answer = self.admin.post(self.path, {"enabled": True})
            self.unavailable(answer)
            self.assertIn(self.admin.get(self.path).status, (200, 503))
        finally:
            self.redis.ask("REPLICAOF", "NO", "ONE")
            master.kill()
        self.recovers()

    def test_script_flush(self):
        self.recovers()
        self.redis.ask("SCRIPT", "FLUSH")
        self.assertEqual(self.admin.post(self.path, {"enabled": False}).status, 200)

    def test_wrong_type_under_our_key(self):
        self.redis.ask("DEL", f"{PREFIX}:cfg:inbox:type@example.com")
        self.redis.ask("LPUSH", f"{PREFIX}:cfg:inbox:type@example.com", "x")
        self.assertIn(self.admin.get(chaos_path("type@example.com")).status, (500, 503))
        self.assertEqual(self.admin.post(chaos_path("type@example.com"), {"enabled": False}).status, 200)


# --------------------------------------------------------------------- the process

class TestProcess(Case):
    def run_admin(self, *arguments, **more):
        return subprocess.run([ADMIN, *arguments], capture_output=True, text=True, timeout=20, **more)

    def other(self, **settings):
        return self.new_admin(wait=False, **settings)

    def test_usage(self):
        self.assertEqual(self.run_admin("-h").returncode, 0)
        self.assertEqual(self.run_admin("--help").returncode, 0)
        self.assertRegex(self.run_admin("-V").stdout, r"^chaosadmin \d")
        for arguments in (["-x"], ["file"], ["-c"]):
            self.assertEqual(self.run_admin(*arguments).returncode, 64)

    def test_new_key(self):
        key, line = new_key()
        self.assertEqual(line, "sha256:" + hashlib.sha256(key.encode()).hexdigest())
        self.assertNotEqual(new_key()[0], key)

    def test_check_only(self):
        admin = self.other()
        result = self.run_admin("-n", "-c", admin.conf)
        self.assertEqual((result.returncode, result.stdout), (0, f"{admin.conf}: ok\n"))
        self.assertEqual(self.run_admin("-n", "-c", admin.conf + ".missing").returncode, 78)

    def test_without_a_key_it_refuses(self):
        """H17"""
        for listen in ("127.0.0.1:8025", "0.0.0.0:8025"):
            admin = self.other(admin_api_keys=[], admin_listen=listen)
            for arguments in (["-c", admin.conf], ["-n", "-c", admin.conf]):
                result = self.run_admin(*arguments)
                self.assertEqual(result.returncode, 78)
                self.assertIn("chaosadmin --new-key", result.stderr)

    def test_bad_key_file(self):
        admin = self.other(admin_api_key_file="/nonexistent/keys")
        self.assertEqual(self.run_admin("-n", "-c", admin.conf).returncode, 78)
        path = os.path.join(admin.dir, "keys")
        with open(path, "w") as f:
            f.write("# fine\nsha256:abc\n")
        admin.settings["admin_api_key_file"] = path
        admin.write()
        result = self.run_admin("-n", "-c", admin.conf)
        self.assertEqual(result.returncode, 78)
        self.assertIn(path + ":2:", result.stderr)

    def test_second_instance_is_refused(self):
        """P11"""
        admin = self.other()
        admin.settings["admin_listen"] = f"127.0.0.1:{self.admin.port}"
        admin.write()
        result = self.run_admin("-c", admin.conf)
        self.assertEqual(result.returncode, 69)
        self.assertIn(str(self.admin.port), result.stderr)
        self.assertEqual(self.admin.get("/livez", key=None).status, 200)

    def test_ends_within_a_second_with_idle_clients(self):
        """P1"""
        for signo in (signal.SIGTERM, signal.SIGINT):
            admin = self.new_admin()
            clients = []
            for _ in range(5):
                s = admin.connect()
                s.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
                s.recv(1000)
                clients.append(s)
            seconds, code = admin.stop(signo)
            for s in clients:
                s.close()
            self.assertEqual(code, 0)
            self.assertLess(seconds, 1)
            admin.start()
            self.assertEqual(admin.get("/livez", key=None).status, 200)
            admin.stop()

    def test_ends_within_a_second_while_redis_hangs(self):
        """P1"""
        redis = self.new_redis()
        admin = self.new_admin(redis, redis_command_timeout_ms=20000)
        try:
            redis.freeze()
            with admin.connect() as s:
                s.sendall(b"GET /api/metrics HTTP/1.1\r\n" + HOST + b"X-API-Key: " + admin.key.encode() + b"\r\n\r\n")
                time.sleep(0.3)
                seconds, code = admin.stop()
            self.assertEqual(code, 0)
            self.assertLess(seconds, 1)
        finally:
            redis.kill()

    def test_starts_without_redis(self):
        """R1"""
        redis = self.new_redis()
        redis.kill()
        admin = self.new_admin(redis, wait=False)
        admin.start()
        try:
            self.assertEqual(admin.get("/livez", key=None).status, 200)
            self.assertEqual(admin.get("/readyz", key=None).status, 503)
            self.assertIs(admin.get("/api/v1/status").json["redis"]["up"], False)
            redis.start()
            wait_until("readiness", lambda: admin.get("/readyz", key=None).status == 200, 8)
        finally:
            admin.stop()
            redis.kill()

    def test_expired_inboxes_are_swept_with_their_chaos(self):
        def box(when):
            return json.dumps({"emailAddress": "x", "createdAt": when, "expiresAt": when, "emailAuth": False,
                               "spamAnalysis": False})
        for name, text in (("swept@x.org", box("2020-01-01T00:00:00Z")), ("kept@x.org", box("2999-01-01T00:00:00Z")),
                           ("junk@x.org", "{}")):
            self.redis.ask("FCALL", "cm_set", 0, "box", name, text)
            self.redis.ask("FCALL", "cm_set", 0, "inbox", name, '{"enabled":false}')
        admin = self.new_admin()
        try:
            for name in ("swept@x.org", "junk@x.org"):
                wait_until("the sweep", lambda: self.redis.document("box", name) is None)
                self.assertIsNone(self.redis.document("inbox", name))
            self.assertIsNotNone(self.redis.document("box", "kept@x.org"))
            self.assertIsNotNone(self.redis.document("inbox", "kept@x.org"))
        finally:
            admin.stop()

    def test_closed_standard_descriptors(self):
        """P16"""
        admin = self.other()
        script = f'exec "$0" -c "$1" 0<&- 1>&- 2>&-'
        admin.process = subprocess.Popen(["/bin/sh", "-c", script, ADMIN, admin.conf])
        try:
            wait_until("listening", admin.listens)
            self.assertEqual(admin.post(chaos_path("fd@example.com"), {"enabled": False}).text, '{"enabled":false}')
        finally:
            _, code = admin.stop()
        self.assertEqual(code, 0)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_without_a_user_is_refused(self):
        """P13"""
        admin = self.other(admin_user="")
        result = self.run_admin("-c", admin.conf)
        self.assertEqual(result.returncode, 78)
        self.assertIn("root", result.stderr)
        admin = self.other(admin_user="no-such-user")
        result = self.run_admin("-c", admin.conf)
        self.assertEqual(result.returncode, 78)
        self.assertIn("no-such-user", result.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_becomes_the_user(self):
        """P13"""
        admin = self.new_admin(admin_user="nobody")
        try:
            with open(f"/proc/{admin.process.pid}/status") as f:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
            nobody = pwd.getpwnam("nobody")
            self.assertEqual(status["Uid"].split(), [str(nobody.pw_uid)] * 4)
            self.assertEqual(status["Gid"].split(), [str(nobody.pw_gid)] * 4)
            self.assertEqual(status["NoNewPrivs"], "1")
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                self.assertEqual(int(status[name], 16), 0, name)
            self.assertEqual(os.stat(f"/proc/{admin.process.pid}/fd").st_uid, 0, "it must not be dumpable")
            self.assertEqual(admin.post(chaos_path("priv@example.com"), {"enabled": False}).status, 200)
        finally:
            admin.stop()

    def test_public_address_is_warned_about(self):
        admin = self.new_admin(wait=False)
        admin.settings["admin_listen"] = f"0.0.0.0:{admin.port}"
        admin.write()
        admin.start()
        try:
            self.assertEqual(admin.get("/livez", key=None).status, 200)
            wait_until("the warning", lambda: "keys travel in the clear" in admin.logged())
        finally:
            admin.stop()

    def test_redis_password_is_in_no_log(self):
        redis = self.new_redis()
        admin = self.new_admin(redis, wait=False, log_level="debug")
        admin.start(env={**os.environ, "CHAOSMILTER_REDIS_PASSWORD": "sesame-open"})
        try:
            wait_until("a refusal", lambda: "state=down" in admin.logged())
            self.assertNotIn("sesame", admin.logged())
            self.assertNotIn("sesame", admin.get("/api/v1/status").text)
            redis.ask("CONFIG", "SET", "requirepass", "sesame-open")
            wait_until("readiness", lambda: admin.get("/readyz", key=None).status == 200)
        finally:
            admin.stop()
            redis.kill()


if __name__ == "__main__":
    if not ADMIN:
        sys.exit("test_http.py: CHAOSADMIN must name the binary to test")
    ADMIN = os.path.abspath(ADMIN)
    unittest.main(verbosity=1)
