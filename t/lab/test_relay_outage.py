# SPDX-License-Identifier: BSD-2-Clause
"""The saslauthd relay when a part of it dies, hangs or is not set up, and what
becomes of passwords. Each test of Outage has a lab of its own."""
import os
import signal
import socket
import subprocess
import unittest

from hookkit import plain
from labkit import LAB, now, wait_until
from leakkit import LeakCase
from test_relay import ERROR, NO, OK, RelayCase, encoded


class Outage(RelayCase):
    apart = True
    seconds = 15

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def setUp(self):
        super().setUp()
        self.lab = self.make_lab()
        self.addCleanup(self.lab.down)

    def drop_rule(self, *names, settle=True):
        """The lab goes down with them."""

    def relay_path(self):
        return self.lab.dir + "/sendmail/milter/saslauthd.sock"

    def stop(self, name):
        """SIGSTOP; all of a daemon goes on when the test ends."""
        pid = self.lab.pid(name)
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(self.resume, pid)
        return pid

    @staticmethod
    def resume(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    # --- the filter

    def test_filter_ended_by_a_signal_leaves_the_way_to_saslauthd_open(self):
        rule = self.rule(ERROR, stage="auth")
        self.assertEqual(self.auth().text, NO)
        client = self.submit()
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.assertEqual(os.readlink(self.relay_path()),
                         self.lab.dir + "/sendmail/auth/mux")
        self.assertEqual(self.auth(plain(password="wrong")).text, NO)
        self.assertEqual(self.auth().text, OK)
        self.assert_goes_on(client)
        self.lab.up()
        self.assertFalse(os.path.islink(self.relay_path()))
        self.lab.settle()
        self.assertEqual(self.auth().text, NO)
        self.assertEqual(len(self.wait_events(rule, 2)), 2)

    def test_restarts_refuse_nobody(self):
        """Logins all the time, while the filter ends and starts five times."""
        self.rule(ERROR, stage="auth", user="other")
        for _ in range(5):
            filter_pid = self.lab.pid("chaosmilter")
            os.kill(filter_pid, signal.SIGTERM)
            up = subprocess.Popen(
                [LAB, "up"], env=self.lab.environ,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            while up.poll() is None:
                with self.submit() as client:
                    self.assertEqual(client.command(plain()).text, OK)
            self.assertEqual(up.returncode, 0)

    def test_filter_killed_and_started_again(self):
        """What README promises: 535 to everybody until it is back."""
        client = self.submit()
        self.assertEqual(self.auth().text, OK)
        self.lab.kill_and_wait("chaosmilter")
        self.assertEqual(client.command(plain()).text, NO)
        self.assertEqual(client.command("NOOP").code, 250)
        self.assert_passes(self.inbox())    # the other port does not notice
        self.lab.up()
        self.assert_goes_on(client)

    def test_sigterm_lets_a_login_that_is_held_pass(self):
        rule = self.rule({"kind": "latency", "ms": 60000}, stage="auth")
        client = self.submit()
        client.send_line(plain())
        wait_until("it to be held",
                   lambda: self.lab.status()["hosts"][0]["held"] == 1)
        self.assertLess(self.lab.kill_and_wait("chaosmilter", signal.SIGTERM), 1)
        reply = client.read_reply()
        self.assertEqual(reply.text, OK)
        self.assertLess(reply.seconds, 10)
        event, = self.wait_events(rule)
        self.assertIn("cut short", event["detail"])
        self.assertLess(int(event["measured"]), 10000)

    # --- saslauthd

    def test_saslauthd_away_is_what_it_is_without_the_relay(self):
        self.lab.kill_and_wait("saslauthd")
        client = self.submit()
        with_relay = client.command(plain())
        wait_until("it to be counted",
                   lambda: self.counter("relay_unreached") == 1)
        self.assertIn("saslauthd at " + self.lab.dir, self.lab.log("chaosmilter"))
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        without = client.command(plain())
        self.assertEqual((with_relay.text, without.text), (NO, NO))
        self.lab.up()
        self.assert_goes_on(client)

    def test_saslauthd_hung_is_waited_for(self):
        pid = self.stop("saslauthd")
        clients = [self.submit() for _ in range(8)]
        for client in clients:
            client.send_line(plain())
        other = self.submit()
        self.assertEqual(other.command("NOOP").code, 250)
        wait_until("all to be with the relay", lambda:
                   self.counter("relay_questions") >= len(clients))
        self.resume(pid)
        for client in clients:
            self.assertEqual(client.read_reply().text, OK)

    # --- Redis

    def test_redis_hung_lets_auth_pass_in_time(self):
        self.rule(ERROR, stage="auth", probability=0.999, seed=1, user="tester")
        self.assertEqual(self.auth().text, NO)
        clients = [self.submit() for _ in range(3)]
        pid = self.stop("redis-server")
        for client in clients:
            reply = client.command(plain())
            self.assertEqual(reply.text, OK)
            self.assertGreater(reply.seconds, 0.09)
            self.assertLess(reply.seconds, 0.25)
        # Who is not meant waits for nobody.
        reply = self.auth(plain("other", "x"))
        self.assertEqual(reply.text, NO)
        self.assertLess(reply.seconds, 0.09)
        self.resume(pid)
        wait_until("the rule to act again", lambda: self.auth().text == NO)
        wait_until("it to be counted", lambda: self.counter("relay_late") >= 3)

    def test_redis_killed_keeps_rules_without_state_in_force(self):
        self.rule(ERROR, stage="auth", user="other")
        self.rule(ERROR, stage="auth", seed=3, probability=0.999)
        self.lab.kill_and_wait("redis-server")
        reply = self.auth()
        self.assertEqual(reply.text, OK)
        self.assertLess(reply.seconds, 0.25)
        before = self.judged()
        self.assertEqual(self.auth(plain("other", "x")).text, NO)
        self.assertEqual(self.judged(), before)

    # --- not set up, or set up for others

    def test_status_tells_what_cannot_be_had_without_the_relay(self):
        self.edit_settings(r"relay: \{[^}]*\};\n", "")
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.start_filter()
        told = wait_until("a heartbeat", self.fresh_status)["unavailable"]
        self.assertIn("no saslauthd relay", told["auth"])
        self.assertEqual(self.auth().text, OK)  # by the link that is left

    def test_status_tells_that_nobody_asks(self):
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.start_filter()
        told = wait_until("a heartbeat", self.fresh_status)["unavailable"]
        self.assertIn("no mail server has asked the saslauthd relay",
                      told["auth"])
        self.assertIn("no command hook", told["starttls"])
        self.assertEqual(self.auth().text, OK)
        wait_until("the relay to be asked", lambda:
                   "auth" not in self.fresh_status()["unavailable"])

    def dial(self):
        """As Sendmail does."""
        peer = socket.socket(socket.AF_UNIX)
        self.addCleanup(peer.close)
        peer.settimeout(30)
        peer.connect(self.relay_path())
        return peer

    def test_who_asks_nothing_is_left_after_a_while_and_hinders_nobody(self):
        silent = [self.dial() for _ in range(300)]
        silent[0].sendall(b"\0\6test")
        start = now()
        self.assertEqual(self.auth().text, OK)
        self.assertLess(now() - start, 5)
        for peer in silent:
            self.assertEqual(peer.recv(1), b"")
        self.assertGreater(now() - start, 8)
        self.assertEqual(self.auth().text, OK)

    def test_only_those_may_ask_who_may_connect_to_the_filter(self):
        status = os.stat(self.relay_path())
        milter = os.stat(self.lab.dir + "/sendmail/milter/milter.sock")
        self.assertEqual((status.st_uid, status.st_gid, status.st_mode),
                         (milter.st_uid, milter.st_gid, milter.st_mode))
        self.assertEqual(status.st_mode & 0o007, 0)


class Secrets(LeakCase, RelayCase):
    """A password that passes through the relay is kept nowhere."""

    seconds = 15
    password = "Kf7-wPq2.zX9vR4t"

    def add_user(self, name):
        done = subprocess.run(
            ["saslpasswd2", "-p", "-c", "-f", self.lab.dir + "/sendmail/users.db",
             "-u", "lab.example", name], input=self.password, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_no_password_in_log_events_redis_or_memory(self):
        self.rules(
            {"stage": "auth", "fault": ERROR, "user": "refused"},
            {"stage": "auth", "fault": ERROR, "user": "shadow",
             "mode": "shadow"},
            {"stage": "auth", "fault": ERROR, "user": "seeded",
             "probability": 0.5, "seed": 1},
            {"stage": "auth", "fault": {"kind": "error", "code": 451},
             "user": "unavailable"},
            {"stage": "auth", "fault": {"kind": "latency", "ms": 200},
             "user": "late"})
        self.add_user("right")
        client = self.submit()
        for user in ("refused", "shadow", "seeded", "seeded", "unavailable",
                     "late", "wrong", "x" * 300):
            client.command(plain(user, self.password))
        self.assertEqual(self.auth_login(
            self.submit(), "late", self.password).text, NO)
        self.assertEqual(self.auth(plain("right", self.password)).text, OK)
        self.assertEqual(client.command(
            f"AUTH PLAIN {encoded(self.password)}").code, 535)
        # Half a question, and one that is not for us.
        for data in (b"\0\1x\0\x20" + self.password.encode(),
                     b"\x40\x00" + self.password.encode() * 1024):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(self.lab.dir + "/sendmail/milter/saslauthd.sock")
                peer.sendall(data)
        wait_until("five events", lambda: len(self.all_events()) >= 5)
        self.assert_kept_nowhere()


if __name__ == "__main__":
    unittest.main()
