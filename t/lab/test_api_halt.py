# SPDX-License-Identifier: BSD-2-Clause
"""The halt, from the API to the mail: how soon nothing is hurt any more, what
becomes of what was decided before, and what survives which restart."""
import os
import signal
import subprocess
import unittest

from labkit import LabTestCase, make_message, now, wait_until

REFUSE = {"randomError": {"enabled": True, "errorRate": 1,
                          "errorTypes": ["permanent"]}}


class HaltCase(LabTestCase):
    def setUp(self):
        super().setUp()
        self.resume()

    def halt(self, **body):
        answer = self.lab.http("POST", "/api/v1/halt", body or None)
        self.assertEqual(answer.status, 200, answer)
        self.assertIs(answer.json["halted"], True)
        return answer.json

    def resume(self):
        answer = self.lab.http("POST", "/api/v1/resume")
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.json, {"halted": False})

    def code(self, client, inbox):
        client.mail()
        code = client.rcpt(inbox).code
        client.command("RSET")
        return code

    def refusing(self, hint):
        """An inbox that is refused, seen by one session that stays open."""
        inbox = self.inbox(hint)
        self.lab.set_chaos(inbox, **REFUSE)
        client = self.smtp()
        wait_until("the inbox to be refused",
                   lambda: self.code(client, inbox) >= 550)
        return client, inbox


class Halt(HaltCase):
    alone = True
    seconds = 20

    def test_fifty_times_the_next_mail_is_unhurt_within_100_ms(self):
        # Postfix slows a session down, and ends it, after refusals; so each
        # time is measured in a session of its own, which was refused once.
        inbox = self.inbox("fifty")
        self.lab.set_chaos(inbox, **REFUSE)
        self.lab.settle()
        times = []
        for _ in range(50):
            client = self.smtp()
            self.assertGreaterEqual(self.code(client, inbox), 550)
            client.mail()
            self.halt()
            start = now()
            while client.rcpt(inbox).code != 250:
                self.assertLess(now() - start, 5)
            times.append((now() - start) * 1000)
            client.close()
            self.resume()
            other = self.smtp()
            wait_until("the inbox to be refused again",
                       lambda: self.code(other, inbox) >= 550, timeout=2)
            other.close()
        times.sort()
        print(f"halt to first unhurt mail, 50 times: median {times[25]:.1f} ms, "
              f"worst {times[-1]:.1f} ms")
        # A machine that does other things may hold one of them up.
        self.assertLess(times[-3], 100)
        self.assertLess(times[-1], 1000)

    def test_held_reply_is_released_and_recorded_as_it_was(self):
        slow = self.inbox("slow")
        self.lab.set_chaos(slow, latency={"enabled": True, "minDelayMs": 60000,
                                          "maxDelayMs": 60000})
        self.lab.settle()
        client = self.smtp()
        client.mail()
        self.assertEqual(client.rcpt(slow).code, 250)
        client.command("DATA")
        message = make_message()
        client.send_message(message)
        wait_until("the reply to be held",
                   lambda: self.lab.status()["hosts"][0]["held"] == 1)
        self.halt()
        start = now()
        self.assertEqual(client.read_reply().code, 250)
        self.assertLess(now() - start, 0.5)
        self.assert_delivered(slow, message)
        event = self.lab.wait_incident(slow, "latency")
        self.assertEqual(event["outcome"], "applied")
        self.assertIn("halted", event["detail"])
        self.assertLess(int(event["measured"]), 60000)
        self.assertEqual(int(event["asked"]), 60000)
        self.assert_passes(slow)  # and nothing is held from now on


class HaltSemantics(HaltCase):
    seconds = 30

    def test_what_was_decided_before_does_not_act(self):
        for hint, config in (
                ("error", {"randomError": {"enabled": True, "errorRate": 1,
                                           "stage": "message"}}),
                ("drop", {"connectionDrop": {"enabled": True}}),
                ("hole", {"blackhole": {"enabled": True}}),
                ("late", {"latency": {"enabled": True, "minDelayMs": 30000,
                                      "maxDelayMs": 30000}})):
            with self.subTest(hint):
                self.resume()
                inbox = self.inbox(hint)
                self.lab.set_chaos(inbox, **config)
                self.lab.settle()
                client = self.smtp()
                client.mail()
                self.assertEqual(client.rcpt(inbox).code, 250)
                client.command("DATA")
                self.halt()
                wait_until("the filter to obey", self.obeyed)
                message = make_message()
                reply = client.message(message)
                self.assertEqual(reply.code, 250)
                self.assertLess(reply.seconds, 5)
                self.assert_delivered(inbox, message)
                event = wait_until("the event",
                                   lambda: self.lab.incidents(inbox))[0]
                self.assertEqual(event["outcome"], "unavailable")
                self.assertEqual(event["detail"], "halted")

    def obeyed(self):
        return all(host["halted"] for host in self.lab.status()["hosts"]
                   if host["alive"])

    def test_answer_tells_who_when_and_why_of_the_first(self):
        first = self.halt(reason="load test \u00e4")
        self.assertRegex(first["by"], r"^key:[0-9a-f]{8}$")
        self.assertEqual(first["reason"], "load test \u00e4")
        self.assertEqual(self.halt(reason="another"), first)
        self.assertEqual(self.lab.http("GET", "/api/v1/halt").json, first)
        self.assertEqual(self.lab.status()["halt"], first)
        self.resume()
        self.assertEqual(self.lab.http("GET", "/api/v1/halt").json,
                         {"halted": False})

    def test_wrong_bodies_are_refused_and_halt_nothing(self):
        for body, pointer in (({"reason": 7}, "#/reason"),
                              ({"reason": "x" * 257}, "#/reason"),
                              ({"why": "x"}, "#/why"), ([], "#")):
            answer = self.lab.http("POST", "/api/v1/halt", body)
            self.assertEqual(answer.status, 422, answer)
            self.assertEqual(answer.headers["Content-Type"],
                             "application/problem+json")
            self.assertEqual(answer.json["errors"][0]["pointer"], pointer)
        for body in ({"reason": "a\r\nb"}, {"reason": "\u00e4" * 200}):
            self.assertEqual(self.lab.http("POST", "/api/v1/halt", body).status,
                             422)
        self.assertEqual(
            self.lab.http("POST", "/api/v1/resume", {"a": 1}).status, 422)
        self.assertEqual(self.lab.http("GET", "/api/v1/halt").json,
                         {"halted": False})
        for path in ("/api/v1/halt", "/api/v1/resume"):
            self.assertEqual(
                self.lab.http("POST", path, key=False).status, 401)
        self.assertEqual(self.lab.http("DELETE", "/api/v1/halt").status, 405)

    def test_rule_set_while_halted_waits_for_resume(self):
        inbox = self.inbox("waits")
        self.halt()
        self.lab.set_chaos(inbox, **REFUSE)
        self.lab.settle()
        self.assert_passes(inbox)
        self.resume()
        client = self.smtp()
        wait_until("the rule", lambda: self.code(client, inbox) >= 550,
                   timeout=2)

    def test_redis_cli_alone_can_halt_and_resume(self):
        client, inbox = self.refusing("cli")
        self.lab.redis_cli("FCALL", "cm_halt", "0", "by hand", "ann")
        wait_until("the halt", lambda: self.code(client, inbox) == 250,
                   timeout=1)
        halt = self.lab.http("GET", "/api/v1/halt").json
        self.assertEqual((halt["by"], halt["reason"]), ("ann", "by hand"))
        self.lab.redis_cli("FCALL", "cm_resume", "0")
        client = self.smtp()
        wait_until("its end", lambda: self.code(client, inbox) >= 550,
                   timeout=1)

    def test_something_else_under_its_name_halts_with_an_alarm(self):
        client, inbox = self.refusing("junk")
        self.lab.redis("DEL", "{cm}:halt")
        self.lab.redis("SET", "{cm}:halt", "junk")
        wait_until("the filter to let all pass",
                   lambda: self.code(client, inbox) == 250, timeout=5)
        wait_until("the alarm", lambda: any(
            "cannot be read" in alarm["text"]
            for alarm in self.lab.status()["alarms"]))
        self.resume()
        client = self.smtp()
        wait_until("the rules again",
                   lambda: self.code(client, inbox) >= 550, timeout=5)


class HaltUnarmed(HaltCase):
    once = True
    armed = False
    seconds = 10

    def test_halt_needs_no_armed_daemon(self):
        self.halt(reason="to be sure")
        self.resume()


class HaltRestarts(HaltCase):
    once = True
    apart = True
    seconds = 40

    def test_filter_restarted_while_halted(self):
        _, inbox = self.refusing("filter")
        self.halt()
        for signum in (signal.SIGTERM, signal.SIGKILL):
            self.lab.kill_and_wait("chaosmilter", signum)
            self.lab.up()
            self.assertEqual(self.code(self.smtp(), inbox), 250)
        self.assert_passes(inbox)
        self.resume()
        client = self.smtp()
        wait_until("the rules", lambda: self.code(client, inbox) >= 550)

    def test_halted_while_the_filter_was_down(self):
        _, inbox = self.refusing("down")
        self.lab.kill_and_wait("chaosmilter", signal.SIGTERM)
        self.halt()
        self.lab.up()
        for _ in range(3):
            self.assertEqual(self.code(self.smtp(), inbox), 250)
        self.assert_passes(inbox)

    def test_redis_restarted_while_halted(self):
        client, inbox = self.refusing("redis")
        self.halt()
        wait_until("the halt", lambda: self.code(client, inbox) == 250,
                   timeout=1)
        self.lab.kill_and_wait("redis-server")
        self.assertEqual(self.code(self.smtp(), inbox), 250)
        self.lab.up()
        wait_until("Redis", lambda: self.lab.http(
            "GET", "/readyz", key=False).status == 200)
        self.assertIs(self.lab.http("GET", "/api/v1/halt").json["halted"], True)
        self.assert_passes(inbox)

    def test_redis_emptied_while_halted_stays_halted_until_resume(self):
        client, inbox = self.refusing("empty")
        self.halt()
        wait_until("the halt", lambda: self.code(client, inbox) == 250,
                   timeout=1)
        self.lab.redis("FLUSHALL")
        self.lab.set_chaos(inbox, **REFUSE)
        self.lab.settle()
        self.assert_passes(inbox)
        wait_until("an alarm that says so", lambda: any(
            "resume" in alarm["text"] for alarm in self.lab.status()["alarms"]))
        self.resume()
        client = self.smtp()
        wait_until("the rules", lambda: self.code(client, inbox) >= 550)

    def test_filter_restarted_while_halted_and_redis_away(self):
        _, inbox = self.refusing("both")
        self.halt()
        wait_until("the filter to obey", lambda: self.lab.status()[
            "hosts"][0]["halted"])
        binary = self.lab.milter_binary()
        self.lab.kill_and_wait("chaosmilter", signal.SIGKILL)
        self.lab.kill_and_wait("redis-server")
        with open(os.path.join(self.lab.dir, "log", "chaosmilter.log"),
                  "ab") as log:
            process = subprocess.Popen(
                [binary, "-c",
                 os.path.join(self.lab.dir, "chaosmilter.conf")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        try:
            # Its rules are those of the snapshot, so only the halt spares.
            wait_until("the filter", lambda: "started" in
                       self.lab.log("chaosmilter").rpartition("ended")[2])
            for _ in range(5):
                self.assertEqual(self.code(self.smtp(), inbox), 250)
            self.assert_passes(inbox)
            answer = self.lab.http("POST", "/api/v1/resume")
            self.assertEqual(answer.status, 503)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    unittest.main()
