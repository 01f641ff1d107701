# SPDX-License-Identifier: BSD-2-Clause
"""The command hook when a part of it dies, hangs or is not set up, and what
becomes of passwords. Each test of Outage has a lab of its own."""
import base64
import os
import signal
import threading
import unittest

from hookkit import HookCase, login, plain
from labkit import Gone, now, wait_until
from leakkit import LeakCase

ERROR = {"kind": "error", "code": 454, "enhanced": "4.7.0", "text": "by a rule"}


class Outage(HookCase):
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

    # --- the filter

    def assert_hook_is_down(self, client):
        """What README promises: 421 to the next command, whatever it is."""
        self.assertRegex(client.command("NOOP").text,
                         "^421 4.3.0 .*Server local data error$")
        with self.assertRaises(Gone):
            client.command("NOOP")

    def test_filter_killed_and_started_again(self):
        rule = self.rule(ERROR, stage="auth")
        client = self.submit()
        smtpd = self.smtpd_of(client)
        self.lab.kill_and_wait("chaosmilter")
        self.assert_hook_is_down(client)
        # The port without the hook does not notice.
        self.assert_passes(self.inbox())
        # A new session on the other is greeted, and then meets the same.
        self.assert_hook_is_down(self.make_client())
        self.lab.up()
        client = self.submit()
        self.assertEqual(self.smtpd_of(client), smtpd, "the same process")
        self.assertEqual(client.command(plain()).text, "454 4.7.0 by a rule")
        self.lab.redis_cli("FCALL", "cm_del", "0", "rule", rule)
        self.lab.settle()
        self.assert_goes_on(client)

    def test_filter_started_again_while_a_session_is_idle(self):
        """That session has lost its milter, so no refusal can reach it: its
        commands pass, and the record says so."""
        rule = self.rule(ERROR, stage="auth")
        client = self.submit()
        self.lab.kill_and_wait("chaosmilter")
        self.lab.up()
        self.lab.settle()
        self.assert_goes_on(client)
        event, = self.wait_events(rule)
        self.assertEqual(event["outcome"], "unavailable")
        self.assertEqual(event["reply"], "")
        self.assertIn("no milter session", event["detail"])

    def test_sigterm_lets_a_command_that_is_held_pass(self):
        rule = self.rule({"kind": "latency", "ms": 60000}, stage="auth")
        client = self.submit()
        client.send_line(plain())
        wait_until("it to be held",
                   lambda: self.lab.status()["hosts"][0]["held"] == 1)
        self.assertLess(self.lab.kill_and_wait("chaosmilter", signal.SIGTERM), 1)
        reply = client.read_reply()
        self.assertEqual(reply.code, 235)
        self.assertLess(reply.seconds, 10)
        event, = self.wait_events(rule)
        self.assertIn("cut short", event["detail"])
        self.assertLess(int(event["measured"]), 10000)
        self.assertFalse(os.path.exists(
            self.lab.dir + "/postfix/spool/chaosmilter/hook.sock"))

    # --- Redis

    def hang_redis(self):
        pid = self.lab.pid("redis-server")
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(self.resume, pid)

    @staticmethod
    def resume(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_redis_hung_lets_auth_pass_in_time_and_slows_nothing_else(self):
        self.rule(ERROR, stage="auth", probability=0.999, seed=1)
        client, other = self.submit(), self.submit()
        self.assertEqual(client.command(plain()).code, 454)
        before = self.seconds_of_noops(other)
        self.hang_redis()
        reply = client.command(plain())
        self.assertEqual(reply.code, 235)
        self.assertLess(reply.seconds, 0.25)
        self.assertGreater(reply.seconds, 0.09)
        auth = threading.Thread(target=self.keep_authenticating)
        auth.start()
        during = self.seconds_of_noops(other)
        auth.join()
        # One wait of 100 ms among them would show.
        self.assertLess(during, before + 1)
        self.resume(self.lab.pid("redis-server"))
        wait_until("the rule to act again",
                   lambda: self.submit().command(plain()).code == 454)
        wait_until("it to be counted", lambda: self.counter("hook_late") >= 1)

    def seconds_of_noops(self, client):
        start = now()
        for _ in range(500):
            self.assertEqual(client.command("NOOP").code, 250)
        return now() - start

    def keep_authenticating(self):
        for _ in range(10):
            reply = self.submit().command(plain())
            self.assertEqual(reply.code, 235)
            self.assertLess(reply.seconds, 0.5)

    def test_redis_killed_keeps_rules_without_state_in_force(self):
        self.rule(ERROR, stage="auth", mechanism="LOGIN")
        self.rule(ERROR, stage="auth", maxHits=5)
        self.lab.kill_and_wait("redis-server")
        client = self.submit()
        self.assertEqual(client.command(login()).code, 454)
        reply = client.command(plain())
        self.assertEqual(reply.code, 235)
        self.assertLess(reply.seconds, 0.5)

    # --- not set up

    def test_status_tells_what_cannot_be_had_without_the_hook(self):
        self.edit_settings(r"hook: \{[^}]*\};\n", "")
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.start_filter()
        hosts = wait_until("a heartbeat", self.fresh_status)
        told = hosts["unavailable"]
        for what in ("starttls", "auth", "noop", "rset", "vrfy", "quit", "hide"):
            self.assertIn("no command hook", told[what], what)
        self.assertNotIn("helo", told)

    def test_status_tells_that_nobody_asks(self):
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.start_filter()
        told = wait_until("a heartbeat", self.fresh_status)["unavailable"]
        self.assertIn("no mail server has asked", told["auth"])
        self.assertIn("smtpd_discard_ehlo_keyword_address_maps", told["hide"])
        self.submit()
        wait_until("the hook to be asked", lambda: not {
            "auth", "hide"} & set(self.fresh_status()["unavailable"]))

    def test_the_hook_needs_a_unix_milter_socket(self):
        self.edit_settings(r"(milter: \{\n *socket =) \"[^\"]*\"",
                           r'\1 "inet:8890@127.0.0.1"')
        status, output = self.check_settings()
        self.assertEqual(status, 78)
        self.assertRegex(output, r"conf:\d+: hook.socket: needs milter.socket")


class Secrets(LeakCase, HookCase):
    """A password that passes through the hook is kept nowhere."""

    seconds = 15
    password = "Kf7-wPq2.zX9vR4t"

    def test_no_password_in_log_events_redis_or_memory(self):
        self.rules(
            {"stage": "auth", "fault": ERROR, "mechanism": "LOGIN"},
            {"stage": "auth", "fault": ERROR, "user": "shadow",
             "mode": "shadow"},
            {"stage": "auth", "fault": ERROR, "user": "seeded",
             "probability": 0.5, "seed": 1},
            {"stage": "auth", "fault": ERROR, "user": "hit", "maxHits": 100},
            {"stage": "auth", "fault": {"kind": "latency", "ms": 200},
             "user": "late"})
        client = self.submit()
        for user in ("nobody", "late", "shadow", "seeded", "hit", "x" * 300):
            client.command(plain(user, self.password))
        response = base64.b64encode(self.password.encode()).decode()
        for command in (f"AUTH LOGIN {response}", f"AUTH PLAIN ={response}",
                        f"AUTH {response}", f"AUTH PLAIN {response} x",
                        f"NOOP {self.password}", f"VRFY {self.password}",
                        f"AUTH CRAM-MD5 {response}",
                        f"XCHAOS-{self.password}"):
            client.command(command)
        self.assert_passes(self.inbox(), client=self.authenticated())
        self.assertGreaterEqual(len(self.all_events()), 4)
        self.assert_kept_nowhere()

    def authenticated(self):
        client = self.submit()
        self.assert_auth_works(client)
        return client


if __name__ == "__main__":
    unittest.main()
