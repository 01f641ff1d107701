# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the command hook and of the saslauthd relay share: sessions
on the port that has them."""
import base64
import glob
import json
import os
import re
import ssl
import subprocess

from labkit import PREFIX, TOP, LabTestCase, Smtp, processes_of, wait_until
from mtas import postfix_only

USER, PASSWORD = "tester", "secret"


def plain(user=USER, password=PASSWORD):
    text = f"\0{user}\0{password}".encode()
    return "AUTH PLAIN " + base64.b64encode(text).decode()


def login(user=USER):
    return "AUTH LOGIN " + base64.b64encode(user.encode()).decode()


def starttls(client):
    """The TLS handshake after 220; greets again."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client.socket = context.wrap_socket(client.socket)
    return client.ehlo()


class SubmitCase(LabTestCase):
    """Sessions on the submission port, and rules for them."""

    def submit(self, **options):
        """A greeted session."""
        return self.smtp(port=self.lab.submission_port, **options)

    def make_client(self, **options):
        """One that is not greeted."""
        client = Smtp(self.lab.submission_port, **options)
        self.clients.append(client)
        return client

    def rules(self, *documents):
        """Several rules at once, which takes no longer than one."""
        names = [self.put_rule(**document) for document in documents]
        self.lab.settle()
        broken = self.lab.status()["hosts"][0]["broken"]
        for name in names:
            if name in json.dumps(broken):
                raise AssertionError(f"the filter refuses {name}: {broken}")
        return names

    def put_rule(self, fault, **members):
        LabTestCase.counter += 1
        name = f"rule-{os.getpid()}-{LabTestCase.counter}"
        document = dict(members, fault=fault)
        answer = self.lab.redis_cli("FCALL", "cm_set", "0", "rule", name,
                                    json.dumps(document))
        if not answer.startswith("rev"):
            raise AssertionError(f"cm_set rule {document}: {answer}")
        self.addCleanup(self.drop_rule, name, settle=False)
        return name

    def drop_rule(self, *names, settle=True):
        for name in names:
            self.lab.redis_cli("FCALL", "cm_del", "0", "rule", name)
        if settle:
            self.lab.settle()

    def run_command(self, *words):
        done = subprocess.run(words, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout)

    def popen(self, *options):
        """chaosmilter with the lab's settings, its output to be read."""
        build = os.environ.get("LAB_BUILD", os.path.join(TOP, "build"))
        return subprocess.Popen(
            [os.path.join(build, "chaosmilter"), "-c",
             self.lab.dir + "/chaosmilter.conf", *options], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd="/")

    def edit_settings(self, pattern, replacement):
        path = self.lab.dir + "/chaosmilter.conf"
        with open(path, encoding="ascii") as file:
            text, count = re.subn(pattern, replacement, file.read())
        self.assertEqual(count, 1)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def check_settings(self):
        done = self.popen("-n")
        output, _ = done.communicate(timeout=10)
        return done.returncode, output

    def start_filter(self):
        """Beside contrib/lab, which would write the settings anew."""
        self.filter = self.popen()
        self.addCleanup(self.filter.wait)
        self.addCleanup(self.filter.kill)

    def fresh_status(self):
        hosts = self.lab.status()["hosts"]
        return hosts and hosts[0]["pid"] == self.filter.pid and hosts[0]

    def all_events(self):
        entries = self.lab.redis("XRANGE", PREFIX + ":ev", "-", "+") or []
        return [dict(zip(fields[::2], fields[1::2])) for _, fields in entries]

    def events(self, rule):
        return [event for event in self.all_events() if event["rule"] == rule]

    def wait_events(self, rule, count=1):
        return wait_until(
            f"{count} event(s) of {rule}",
            lambda: len(self.events(rule)) >= count and self.events(rule))

    def counter(self, name):
        return self.lab.status()["hosts"][0]["counters"][name]

    def assert_auth_works(self, client):
        self.assertEqual(client.command(plain()).code, 235)

    def assert_goes_on(self, client):
        """The session is whole: it authenticates and delivers a mail."""
        self.assert_auth_works(client)
        self.assert_passes(self.inbox(), client=client)

    def assert_reply(self, reply, *lines):
        self.assertEqual(reply.lines, list(lines))


@postfix_only("Sendmail has nothing that asks about a command")
class HookCase(SubmitCase):

    def smtpd_of(self, client):
        """The process that has the other end of a client's connection."""
        ports = "%04X" % self.lab.submission_port, "%04X" % \
            client.socket.getsockname()[1]
        with open("/proc/net/tcp", encoding="ascii") as table:
            inode, = [row[9] for row in map(str.split, table)
                      if (row[1][-4:], row[2][-4:]) == ports]
        for pid in processes_of(self.lab.dir):
            for path in glob.glob(f"/proc/{pid}/fd/*"):
                try:
                    if os.readlink(path) == f"socket:[{inode}]":
                        return pid
                except FileNotFoundError:
                    pass
        raise AssertionError(f"nobody has {ports}")
