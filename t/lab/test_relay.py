# SPDX-License-Identifier: BSD-2-Clause
"""Faults at AUTH on Sendmail, through the relay between it and saslauthd."""
import base64
import concurrent.futures
import socket
import struct
import unittest

from hookkit import SubmitCase, login, plain, starttls
from labkit import now, wait_until
from mtas import sendmail_only

OK = "235 2.0.0 OK Authenticated"
NO = "535 5.7.0 authentication failed"
ERROR = {"kind": "error", "code": 535}


def encoded(text):
    return base64.b64encode(text.encode()).decode()


@sendmail_only("Postfix has the command hook for AUTH")
class RelayCase(SubmitCase):

    def auth(self, command=None, client=None):
        """One AUTH in a session of its own: nobody may succeed twice in one."""
        return (client or self.submit()).command(command or plain())

    def auth_login(self, client, user, password):
        """The dialogue of AUTH LOGIN."""
        self.assertEqual(client.command("AUTH LOGIN").code, 334)
        self.assertEqual(client.command(encoded(user)).code, 334)
        return client.command(encoded(password))

    def judged(self):
        """How often saslauthd has said what it thinks of a password."""
        return self.lab.log("saslauthd").count(" : auth ")


class Untouched(RelayCase):
    """Without a rule that matches the password decides, as ever."""

    seconds = 15

    def check_passwords(self):
        before = self.judged()
        for user in ("tester", "tester@lab.example"):
            self.assertEqual(self.auth(plain(user)).text, OK)
            client = self.submit()
            # Once with the right password, after many that were wrong.
            for command in (plain(user, "wrong"), plain("nobody", "secret")):
                self.assertEqual(client.command(command).text, NO)
            self.assertEqual(self.auth_login(client, user, "wrong").text, NO)
            client.command(login(user))
            self.assertEqual(client.command(encoded("wrong")).text, NO)
            self.assertEqual(self.auth_login(client, user, "secret").text, OK)
        self.assertEqual(self.judged(), before + 12)

    def test_no_rule(self):
        before = self.counter("relay_questions")
        self.check_passwords()
        self.assertEqual(self.lab.incidents(""), [])
        wait_until("all to be counted", lambda:
                   self.counter("relay_questions") == before + 12)

    def test_rules_that_mean_others(self):
        self.rules({"stage": "auth", "user": "somebody", "fault": ERROR},
                   {"stage": "auth", "user": "*@other.example", "fault": ERROR},
                   {"stage": "auth", "fault": ERROR, "enabled": False},
                   {"stage": "auth", "fault": ERROR,
                    "expiresAt": "2020-01-01T00:00:00Z"},
                   {"stage": "mail", "fault": ERROR})
        self.check_passwords()

    def test_what_sendmail_does_not_tell_never_matches(self):
        rule = self.rule(ERROR, stage="auth", mechanism="PLAIN")
        self.check_passwords()
        self.assertEqual(self.events(rule), [])

    def test_passwords_of_any_bytes_and_length(self):
        """Too long for saslauthd, for the library, and not even text."""
        client = self.submit()
        for user, password in (("tester", "x" * 256), ("x" * 256, "x"),
                               ("x" * 257, "x"), ("x" * 3000, "x" * 4000),
                               ("\xe9\n\t", "\x01\xff")):
            self.assertEqual(client.command(plain(user, password)).text, NO)
        self.assertEqual(client.command(plain()).text, OK)
        self.assert_passes(self.inbox(), client=client)


class Refused(RelayCase):
    """535 on heads: for whom, how often, and what is recorded."""

    seconds = 40

    def test_535_is_recorded_as_sendmail_words_it(self):
        rule = self.rule(dict(ERROR, enhanced="5.7.8", text="by a rule"),
                         stage="auth")
        client, before = self.submit(), self.judged()
        for command in (plain(), plain(password="wrong"), login()):
            reply = client.command(command)
            if reply.code == 334:
                reply = client.command(encoded("secret"))
            self.assertEqual(reply.text, NO)
        self.assertEqual(self.judged(), before, "saslauthd was asked")
        for event in self.wait_events(rule, 3):
            self.assertEqual(
                (event["kind"], event["outcome"], event["stage"],
                 event["reply"], event["client"]),
                ("error", "applied", "auth", NO, "127.0.0.1"))
            self.assertRegex(event["detail"], r"^sendmail\[\d+\]$")
        self.drop_rule(rule)
        self.assert_goes_on(client)
        self.assertEqual(self.judged(), before + 1)

    def test_the_client_is_that_of_the_session(self):
        rule = self.rule(ERROR, stage="auth")
        for source in ("127.0.0.1", "127.0.0.2"):
            self.auth(client=self.submit(source=source))
        self.assertEqual([event["client"] for event in self.wait_events(rule, 2)],
                         ["127.0.0.1", "127.0.0.2"])

    def test_inside_tls(self):
        rule = self.rule(ERROR, stage="auth")
        client = self.submit()
        self.assertEqual(client.command("STARTTLS").code, 220)
        self.assertEqual(starttls(client).code, 250)
        self.assertEqual(client.command(plain()).text, NO)
        self.drop_rule(rule)
        self.assert_goes_on(client)

    def test_by_user(self):
        for pattern, meant in (
                ("tester", {"tester", "tester@lab.example"}),
                ("tester@lab.example", {"tester@lab.example"}),
                ("test*", {"tester", "tester@lab.example"}),
                ("*@lab.example", {"tester@lab.example"})):
            rule = self.rule(ERROR, stage="auth", user=pattern)
            for user in ("tester", "tester@lab.example"):
                with self.subTest(pattern=pattern, user=user):
                    wanted = NO if user in meant else OK
                    self.assertEqual(self.auth(plain(user)).text, wanted)
                    self.assertEqual(self.auth_login(
                        self.submit(), user, "secret").text, wanted)
            self.assertEqual(len(self.wait_events(rule, 2 * len(meant))),
                             2 * len(meant))
            self.drop_rule(rule)

    def attempts(self, count):
        """How many of that many right passwords are refused."""
        refused = 0
        for _ in range(count):
            with self.submit() as client:
                reply = client.command(plain())
            self.assertIn(reply.text, (OK, NO))
            refused += reply.text == NO
        return refused

    def test_by_probability(self):
        for probability, low, high in ((0, 0, 0), (1, 50, 50)):
            rule = self.rule(ERROR, stage="auth", probability=probability)
            self.assertIn(self.attempts(50), range(low, high + 1))
            self.drop_rule(rule)
        # 400 tosses of a fair coin: five standard deviations are 50.
        rule = self.rule(ERROR, stage="auth", probability=0.5)
        refused = self.attempts(400)
        self.assertIn(refused, range(150, 251))
        self.assertEqual(len(self.wait_events(rule, refused)), refused)

    def test_by_a_seeded_coin(self):
        rule = self.rule(ERROR, stage="auth", probability=0.5, seed=7)
        refused = self.attempts(100)
        self.assertIn(refused, range(25, 76))
        self.assertEqual(len(self.wait_events(rule, refused)), refused)
        self.assertEqual(self.counter("relay_late"), 0)

    def test_max_hits(self):
        rule = self.rule(ERROR, stage="auth", maxHits=3)
        self.assertEqual(self.attempts(6), 3)
        self.assertEqual(len(self.wait_events(rule, 3)), 3)

    def test_shadow_is_recorded_and_hurts_nobody(self):
        rule = self.rule(ERROR, stage="auth", mode="shadow")
        self.assert_goes_on(self.submit())
        self.assertEqual(self.auth(plain(password="wrong")).text, NO)
        self.assertEqual([event["outcome"] for event in self.wait_events(rule, 2)],
                         ["shadow", "shadow"])

    def test_what_sendmail_cannot_say_is_not_replaced_by_what_it_can(self):
        for fault in ({"code": 451}, {"code": 421}, {"code": 454},
                      {"code": 534}, {"code": 550},
                      {"types": ["permanent"]}, {"types": ["temporary"]}):
            with self.subTest(fault):
                # A fault that cannot be had uses up no hit, and no coin is lost
                # on it.
                rule = self.rule(dict(fault, kind="error"), stage="auth",
                                 maxHits=1)
                self.assertEqual(self.auth().text, OK)
                self.assertEqual(self.auth(plain(password="wrong")).text, NO)
                for event in self.wait_events(rule, 2):
                    self.assertEqual(
                        (event["outcome"], event["reply"], event["detail"]),
                        ("unavailable", "",
                         "Sendmail answers AUTH with 535 5.7.0 alone"))
                self.drop_rule(rule)

    def test_8_clients_at_once(self):
        rule = self.rule(ERROR, stage="auth", probability=0.3)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            refused = sum(pool.map(self.attempts, [25] * 8))
        self.assertIn(refused, range(25, 96))
        events = self.wait_events(rule, refused)
        self.assertEqual(len(events), refused)
        self.assertEqual({event["outcome"] for event in events}, {"applied"})


class Late(RelayCase):
    """The answer comes later, and is saslauthd's."""

    seconds = 45

    def held(self):
        return self.lab.status()["hosts"][0]["held"]

    def check_late(self, rule, seconds, reply):
        self.assertGreaterEqual(reply.seconds, seconds)
        self.assertLess(reply.seconds, seconds + 1)
        event = self.wait_events(rule)[-1]
        self.assertEqual((event["outcome"], event["stage"], event["asked"]),
                         ("applied", "auth", str(int(seconds * 1000))))
        self.assertIn(int(event["measured"]),
                      range(int(seconds * 1000), int(seconds * 1000) + 900))

    def test_2_s(self):
        rule = self.rule({"kind": "latency", "ms": 2000}, stage="auth",
                         user="tester")
        client, other = self.submit(), self.submit()
        client.send_line(plain())
        start, before = now(), self.judged()
        for _ in range(20):
            self.assertEqual(self.auth(plain("other", "x")).text, NO)
        self.assertEqual(other.command("NOOP").code, 250)
        self.assertLess(now() - start, 1.9)
        self.assertEqual(self.judged(), before + 20)
        reply = client.read_reply()
        self.assertEqual(reply.text, OK)
        self.check_late(rule, 2, reply)
        self.assert_passes(self.inbox(), client=client)
        reply = self.auth(plain(password="wrong"))
        self.assertEqual(reply.text, NO)
        self.check_late(rule, 2, reply)

    def test_longer_than_sendmail_waits_for_a_filter(self):
        """Its T=R of 30 s is for the milter's replies, and not for this."""
        rule = self.rule({"kind": "latency", "ms": 33000}, stage="auth")
        client = self.submit()
        client.send_line(plain())
        wait_until("it to be held", lambda: self.held() == 1)
        reply = client.read_reply()
        self.assertEqual(reply.text, OK)
        self.check_late(rule, 33, reply)
        self.drop_rule(rule)
        self.assert_passes(self.inbox(), client=client)

    def test_a_client_that_resets_its_connection_ends_the_delay(self):
        rule = self.rule({"kind": "latency", "ms": 30000}, stage="auth")
        client = self.submit()
        client.send_line(plain())
        wait_until("it to be held", lambda: self.held() == 1)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack("ii", 1, 0))
        client.close()
        event, = self.wait_events(rule)
        self.assertIn("connection was reset", event["detail"])
        self.assertLess(int(event["measured"]), 10000)
        wait_until("nothing to be held", lambda: self.held() == 0)


class Halted(RelayCase):
    """The halt beats what rules say, and lets go what is held."""

    def call(self, path):
        self.assertEqual(self.lab.http("POST", path).status, 200)

    def test_halt_and_resume(self):
        late = self.rule({"kind": "latency", "ms": 60000}, stage="auth",
                         user="tester@lab.example")
        self.rule(ERROR, stage="auth", user="tester")
        self.assertEqual(self.auth().text, NO)
        client = self.submit()
        client.send_line(plain("tester@lab.example"))
        wait_until("it to be held", lambda:
                   self.lab.status()["hosts"][0]["held"] == 1)
        self.call("/api/v1/halt")
        reply = client.read_reply()
        self.assertEqual(reply.text, OK)
        self.assertLess(reply.seconds, 30)
        event, = self.wait_events(late)
        self.assertIn("cut short: chaos was halted", event["detail"])
        self.assertEqual(self.auth().text, OK)
        self.call("/api/v1/resume")
        wait_until("the rule to act again", lambda: self.auth().text == NO)


class Unarmed(RelayCase):
    """A rule is there, and nothing that anybody asked for happens."""

    armed = False

    def test_nothing_happens(self):
        self.rule(ERROR, stage="auth")
        self.rule({"kind": "latency", "ms": 5000}, stage="auth")
        reply = self.auth()
        self.assertEqual(reply.text, OK)
        self.assertLess(reply.seconds, 3)
        self.assertEqual(self.auth(plain(password="wrong")).text, NO)
        self.assertEqual(self.lab.incidents(""), [])


if __name__ == "__main__":
    unittest.main()
