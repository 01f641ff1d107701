# SPDX-License-Identifier: BSD-2-Clause
"""What happens to mail and rules when a part of it dies, hangs or is told to
end. Each test has a lab of its own, since it breaks it."""
import os
import shutil
import signal
import subprocess
import threading
import unittest

from labkit import LabTestCase, is_running, make_message, now, wait_until

REFUSE = {"randomError": {"enabled": True, "errorRate": 1,
                          "errorTypes": ["permanent"]}}
GREYLIST = {"greylist": {"enabled": True, "maxAttempts": 1000}}


class Outage(LabTestCase):
    apart = True
    seconds = 10

    def setUp(self):
        super().setUp()
        self.lab = self.make_lab()
        self.refused, self.grey, self.plain = (
            self.inbox("refused"), self.inbox("grey"), self.inbox("plain"))
        self.lab.set_chaos(self.refused, **REFUSE)
        self.lab.set_chaos(self.grey, **GREYLIST)
        self.lab.settle()

    def tearDown(self):
        super().tearDown()
        self.lab.down()

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def code(self, inbox):
        client = self.smtp()
        client.mail()
        start = now()
        code = client.rcpt(inbox).code
        self.assertLess(now() - start, 2, "the mail path waited")
        client.close()
        return code

    def assert_rules_in_force(self):
        self.assertGreaterEqual(self.code(self.refused), 550)
        self.assertEqual(self.code(self.grey), 451)
        self.assertEqual(self.code(self.plain), 250)

    def assert_last_rules_without_state(self):
        """Redis is away: stateless rules stay, greylisting fails open."""
        self.assertGreaterEqual(self.code(self.refused), 550)
        self.assertEqual(self.code(self.grey), 250)
        self.assert_passes(self.plain)

    def write(self):
        return self.lab.http("POST", self.lab.chaos_path(self.inbox("new")),
                             {"enabled": True, **REFUSE})

    def ready(self):
        return self.lab.http("GET", "/readyz", key=False).status

    def assert_writes_get_503(self):
        answer = self.write()
        self.assertEqual(answer.status, 503, answer)
        self.assertRegex(answer.headers["Retry-After"] or "", r"^[1-9]\d*$")
        self.assertEqual(self.lab.http("GET", "/livez", key=False).status, 200)
        wait_until("readyz to say no", lambda: self.ready() == 503)

    def assert_recovers(self):
        wait_until("writes to work again", lambda: self.write().status == 200,
                   timeout=15, pause=0.2)
        wait_until("readyz to say yes", lambda: self.ready() == 200)
        wait_until("greylisting to work again",
                   lambda: self.code(self.grey) == 451, timeout=15, pause=0.2)
        inbox = self.inbox("fresh")
        self.lab.set_chaos(inbox, **REFUSE)
        wait_until("a new rule to be in force",
                   lambda: self.code(inbox) >= 550, timeout=15)
        self.assert_rules_in_force()

    # --- Redis

    def test_redis_killed_keeps_the_rules_and_recovers(self):
        self.lab.kill_and_wait("redis-server")
        self.assert_last_rules_without_state()
        self.assert_writes_get_503()
        self.lab.up()
        self.assert_recovers()

    def test_redis_stopped_keeps_the_rules_and_recovers(self):
        self.lab.kill("redis-server", signal.SIGSTOP)
        self.addCleanup(self.resume, self.lab.pid("redis-server"))
        self.assert_last_rules_without_state()
        self.assert_writes_get_503()
        self.lab.kill("redis-server", signal.SIGCONT)
        self.assert_recovers()

    @staticmethod
    def resume(pid):
        if is_running(pid):
            os.kill(pid, signal.SIGCONT)

    def test_redis_restarted_empty_deletes_no_rule(self):
        self.lab.kill_and_wait("redis-server")
        shutil.rmtree(os.path.join(self.lab.dir, "redis", "appendonlydir"))
        self.lab.up()
        self.assertEqual(self.lab.redis("EXISTS", "{cm}:cfg:inbox:" + self.refused), 0)
        self.assertGreaterEqual(self.code(self.refused), 550)
        wait_until("an alarm in status",
                   lambda: self.lab.status()["hosts"][0]["alarms"])
        self.assertGreaterEqual(self.code(self.refused), 550)
        self.assert_passes(self.plain)

    def test_redis_restarted_empty_takes_new_rules(self):
        self.lab.kill_and_wait("redis-server")
        shutil.rmtree(os.path.join(self.lab.dir, "redis", "appendonlydir"))
        self.lab.up()
        wait_until("writes to work again", lambda: self.write().status == 200,
                   timeout=15, pause=0.2)
        inbox = self.inbox("fresh")
        self.lab.set_chaos(inbox, **REFUSE)
        wait_until("the new rule", lambda: self.code(inbox) >= 550, timeout=15)
        self.assert_passes(self.plain)

    def test_flushed_redis_deletes_no_rule(self):
        self.lab.redis("FLUSHALL")
        wait_until("an alarm in status", lambda: any(
            host["alarms"] for host in self.lab.status()["hosts"]))
        self.assertGreaterEqual(self.code(self.refused), 550)
        self.assert_passes(self.plain)

    # --- the filter

    def test_filter_killed_lets_mail_pass_and_loses_no_rule(self):
        self.lab.kill_and_wait("chaosmilter")
        for inbox in (self.refused, self.grey, self.plain):
            self.assert_passes(inbox)
        self.lab.up()
        self.assert_rules_in_force()

    def test_filter_killed_during_a_session_lets_its_mail_pass(self):
        client = self.smtp()
        client.mail()
        self.assertEqual(client.rcpt(self.plain).code, 250)
        self.lab.kill_and_wait("chaosmilter")
        message = make_message()
        self.assertEqual(client.data(message).code, 250)
        self.assert_delivered(self.plain, message)

    def test_filter_started_without_redis_has_the_rules_of_its_snapshot(self):
        binary = self.lab.milter_binary()
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.lab.kill_and_wait("redis-server")
        with open(os.path.join(self.lab.dir, "log", "chaosmilter.log"),
                  "ab") as log:
            process = subprocess.Popen(
                [binary, "-c",
                 os.path.join(self.lab.dir, "chaosmilter.conf")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        try:
            wait_until("the rules of the snapshot",
                       lambda: self.code(self.refused) >= 550)
            self.assert_last_rules_without_state()
        finally:
            process.kill()
            process.wait()

    def test_filter_hung_does_not_hold_mail_for_ever(self):
        self.lab.kill("chaosmilter", signal.SIGSTOP)
        pid = self.lab.pid("chaosmilter")
        threading.Timer(3, os.kill, (pid, signal.SIGCONT)).start()
        self.assertEqual(self.send(self.plain).end.code, 250)

    # --- a quick end

    def test_sigterm_ends_the_filter_within_a_second(self):
        client = self.smtp()
        client.mail()
        self.assertLess(self.lab.kill_and_wait("chaosmilter", signal.SIGTERM), 1)
        self.assertEqual(client.rcpt(self.plain).code, 250)
        self.assertIn("ended", self.lab.log("chaosmilter"))

    def test_sigterm_during_a_hold_gives_the_client_its_reply(self):
        slow = self.inbox("slow")
        self.lab.set_chaos(slow, latency={"enabled": True, "minDelayMs": 60000,
                                          "maxDelayMs": 60000, "jitter": False})
        self.lab.settle()
        client = self.smtp()
        client.mail()
        client.rcpt(slow)
        client.command("DATA")
        message = make_message()
        client.send_message(message)
        wait_until("the reply to be held",
                   lambda: self.lab.status()["hosts"][0]["held"] == 1)
        self.assertLess(self.lab.kill_and_wait("chaosmilter", signal.SIGTERM), 1)
        reply = client.read_reply()
        self.assertEqual(reply.code, 250)
        self.assertLess(reply.seconds, 10)
        self.assert_delivered(slow, message)
        event = self.lab.wait_incident(slow, "latency")
        self.assertLess(int(event["measured"]), 60000)

    def test_sigterm_while_redis_hangs_ends_either_daemon_within_a_second(self):
        self.lab.kill("redis-server", signal.SIGSTOP)
        self.addCleanup(self.resume, self.lab.pid("redis-server"))
        for name in ("chaosmilter", "chaosadmin"):
            self.assertLess(self.lab.kill_and_wait(name, signal.SIGTERM), 1, name)

    def test_sigterm_ends_the_api_within_a_second(self):
        self.assertLess(self.lab.kill_and_wait("chaosadmin", signal.SIGTERM), 1)
        self.assert_rules_in_force()
        self.lab.up()
        self.assertEqual(self.write().status, 200)

    def test_api_killed_loses_nothing(self):
        self.lab.kill_and_wait("chaosadmin")
        self.assert_rules_in_force()
        self.lab.up()
        config = self.lab.http("GET", self.lab.chaos_path(self.refused)).json
        self.assertEqual(config["randomError"]["errorRate"], 1)


if __name__ == "__main__":
    unittest.main()
