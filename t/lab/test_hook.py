# SPDX-License-Identifier: BSD-2-Clause
"""Faults at AUTH and other commands that only the command hook sees."""
import concurrent.futures
import re
import socket
import struct
import unittest

from hookkit import HookCase, login, plain, starttls
from labkit import Gone, now, wait_until

NOT_KNOWN = "500 5.5.2 Error: command not recognized"


def error(code=451, text="by a rule", **members):
    members.setdefault("enhanced", f"{code // 100}.7.0")
    return dict(kind="error", code=code, text=text, **members)


class Replies(HookCase):
    """Any code from 400 to 599, any text, at AUTH; and the session goes on."""

    seconds = 30

    def test_auth_meets_any_code_and_text(self):
        for code, text in (
                (432, "A password transition is needed"),
                (435, "50% of all logins fail, %s %n %%"),
                (451, "\"quoted\" <brackets> (and) \\ more"),
                (454, "-"),
                (500, "5.5.2 not what it seems"),
                (534, "Authentication mechanism is too weak"),
                (535, "Authentication credentials invalid"),
                (550, "x" * 470),
                (599, "the last")):
            with self.subTest(code=code):
                rule = self.rule(error(code, text), stage="auth")
                client = self.submit()
                enhanced = f"{code // 100}.7.0"
                for command in (plain(), "AUTH LOGIN", "AUTH"):
                    self.assert_reply(client.command(command),
                                      f"{code} {enhanced} {text}")
                event = self.wait_events(rule, 3)[0]
                self.assertEqual(
                    (event["outcome"], event["stage"], event["client"]),
                    ("applied", "auth", "127.0.0.1"))
                self.assertEqual(event["reply"],
                                 f"{code} {enhanced} {text}"[:127])
                self.assertEqual(event["detail"],
                                 f"PLAIN, smtpd[{self.smtpd_of(client)}]")
                self.drop_rule(rule)
                self.assert_goes_on(client)

    def test_auth_meets_a_reply_of_many_lines(self):
        lines = [f"line {n} of 32, 100%" for n in range(1, 33)]
        self.rule(error(535, lines), stage="auth")
        client = self.submit()
        self.assert_reply(
            client.command(plain()),
            *[f"535-5.7.0 {line}" for line in lines[:-1]],
            f"535 5.7.0 {lines[-1]}")

    def test_421_closes_the_session(self):
        self.rule(error(421, "Closing"), stage="auth")
        client = self.submit()
        self.assert_reply(client.command(plain()), "421 4.7.0 Closing")
        with self.assertRaises(Gone):
            client.command("NOOP")

    def test_a_reply_without_enhanced_code_and_a_drawn_one(self):
        self.rule({"kind": "error", "types": ["permanent"]}, stage="auth")
        codes = {self.submit().command(plain()).code for _ in range(20)}
        self.assertGreater(len(codes), 1)
        self.assertLessEqual(codes, {550, 551, 552, 553, 554})


class Auth(HookCase):
    """Which AUTH a rule means."""

    seconds = 30

    def test_by_user(self):
        rule = self.rule(error(535), stage="auth", user="tester")
        client = self.submit()
        self.assertEqual(client.command(plain()).text, "535 5.7.0 by a rule")
        self.assertEqual(client.command(login()).text, "535 5.7.0 by a rule")
        # Another user's password is judged by Postfix, not by us.
        other = client.command(plain("other", "x"))
        self.assertEqual(other.code, 535)
        self.assertNotIn("by a rule", other.text)
        # Who does not say it in the AUTH command itself is not known.
        self.assertEqual(client.command("AUTH PLAIN").code, 334)
        self.assertEqual(client.command(plain().split()[2]).code, 235)
        self.assertEqual(len(self.wait_events(rule, 2)), 2)

    def test_by_a_pattern_of_users(self):
        self.rule(error(535), stage="auth", user="test*")
        client = self.submit()
        self.assertIn("by a rule", client.command(plain()).text)
        self.assertNotIn("by a rule", client.command(plain("attest", "x")).text)

    def test_by_mechanism(self):
        self.rule(error(534), stage="auth", mechanism="LOGIN")
        client = self.submit()
        for command in (login(), "AUTH LOGIN", "auth login"):
            self.assertEqual(client.command(command).code, 534, command)
        self.assert_goes_on(client)

    def attempts(self, count):
        """How many of that many AUTH commands meet 454."""
        client = self.submit()
        refused = 0
        for _ in range(count):
            reply = client.command("AUTH PLAIN")
            if reply.code == 454:
                refused += 1
            else:
                self.assertEqual(reply.code, 334)
                self.assertEqual(client.command("*").code, 501)
        return refused

    def test_by_probability(self):
        for probability, low, high in ((0, 0, 0), (1, 100, 100)):
            rule = self.rule(error(454), stage="auth", probability=probability)
            self.assertIn(self.attempts(100), range(low, high + 1))
            self.drop_rule(rule)
        # 400 tosses of a fair coin: five standard deviations are 50.
        self.rule(error(454), stage="auth", probability=0.5)
        self.assertIn(self.attempts(400), range(150, 251))

    def test_by_a_seeded_coin(self):
        """The n-th AUTH meets the same fate under the same seed and name, and
        the events agree with the wire."""
        rule = self.rule(error(454), stage="auth", probability=0.5, seed=7)
        refused = self.attempts(100)
        self.assertIn(refused, range(25, 76))
        events = self.wait_events(rule, refused)
        self.assertEqual(len(events), refused)
        self.assertEqual(self.counter("hook_late"), 0)

    def test_max_hits(self):
        rule = self.rule(error(454), stage="auth", maxHits=3)
        self.assertEqual(self.attempts(10), 3)
        self.assertEqual(len(self.wait_events(rule, 3)), 3)

    def test_shadow_is_recorded_and_hurts_nobody(self):
        rule = self.rule(error(535), stage="auth", mode="shadow")
        self.assert_goes_on(self.submit())
        self.assertEqual([event["outcome"] for event in self.wait_events(rule)],
                         ["shadow"])

    def test_expired_or_disabled_does_nothing(self):
        self.rules({"stage": "auth", "fault": error(535),
                    "expiresAt": "2020-01-01T00:00:00Z"},
                   {"stage": "auth", "fault": error(535), "enabled": False})
        self.assert_goes_on(self.submit())

    def test_first_rule_that_matches_decides(self):
        self.rule(error(454, "first"), stage="auth", mechanism="PLAIN")
        self.rule(error(535, "second"), stage="auth")
        client = self.submit()
        self.assertEqual(client.command(plain()).text, "454 4.7.0 first")
        self.assertEqual(client.command(login()).text, "535 5.7.0 second")

    def test_inside_tls(self):
        rule = self.rule(error(535, "in TLS too"), stage="auth")
        client = self.submit()
        self.assertEqual(client.command("STARTTLS").code, 220)
        self.assertEqual(starttls(client).code, 250)
        self.assertEqual(client.command(plain()).text, "535 5.7.0 in TLS too")
        self.drop_rule(rule)
        self.assert_goes_on(client)

    def test_the_port_without_the_hook_is_left_alone(self):
        rule = self.rule(error(535), stage="noop")
        client = self.smtp()
        self.assertEqual(client.command("NOOP").code, 250)
        self.assert_passes(self.inbox(), client=client)
        self.assertEqual(self.events(rule), [])

    def test_rules_that_ask_what_the_hook_cannot_see_are_refused(self):
        for condition in ({"client": "127.0.0.1"}, {"helo": "a"},
                          {"sender": "a@example.com"},
                          {"inbox": "a@example.com"}):
            with self.subTest(condition):
                name = next(iter(condition))
                with self.assertRaisesRegex(
                        AssertionError,
                        f"{name} is not known at stage auth, only at "):
                    self.rule(error(535), stage="auth", **condition)


class Commands(HookCase):
    """The other commands: refused, late, and then as ever."""

    seconds = 75

    # With the answer that each has on this port before authentication.
    COMMANDS = {"noop": ("NOOP", 250), "rset": ("RSET", 250),
                "vrfy": ("VRFY a@example.com", 554), "quit": ("QUIT", 221),
                "starttls": ("STARTTLS", 220), "helo": ("EHLO again", 250)}

    def at_each(self, fault_at, check):
        """A rule at every stage, a session for each that was greeted before;
        check(stage, client, rule) while they are in force, and afterwards each
        session that is still there goes on."""
        clients = {stage: self.submit() for stage in self.COMMANDS}
        names = dict(zip(self.COMMANDS, self.rules(*(
            {"stage": stage, "fault": fault_at(stage)}
            for stage in self.COMMANDS))))
        over = []
        for stage, client in clients.items():
            with self.subTest(stage=stage):
                if not check(stage, client, names[stage]):
                    over.append(stage)
        self.drop_rule(*names.values())
        for stage, client in clients.items():
            with self.subTest(stage=stage):
                if stage not in over:
                    self.assert_goes_on(client)

    def test_refused(self):
        for code in (450, 554):
            def check(stage, client, rule):
                self.assert_reply(client.command(self.COMMANDS[stage][0]),
                                  f"{code} {code // 100}.7.0 no {stage}")
                self.assertEqual(self.wait_events(rule)[0]["stage"], stage)
                return True
            self.at_each(lambda stage: error(code, f"no {stage}"), check)

    def test_late(self):
        def check(stage, client, rule):
            command, code = self.COMMANDS[stage]
            reply = client.command(command)
            self.assertEqual(reply.code, code)
            self.assertGreaterEqual(reply.seconds, 0.4)
            self.assertLess(reply.seconds, 1.5)
            event = self.wait_events(rule)[0]
            self.assertEqual((event["outcome"], event["asked"]),
                             ("applied", "400"))
            self.assertIn(int(event["measured"]), range(400, 1500))
            if stage == "starttls":
                starttls(client)
            return stage != "quit"
        self.at_each(lambda stage: {"kind": "latency", "ms": 400}, check)

    def test_late_by_chance(self):
        for fault in ({"min": 100, "max": 300}, {"median": 200, "sigma": 0.2}):
            with self.subTest(fault):
                rule = self.rule(dict(fault, kind="latency"), stage="noop")
                client = self.submit()
                times = [client.command("NOOP").seconds for _ in range(8)]
                self.assertGreater(min(times), 0.08)
                self.assertGreater(max(times) - min(times), 0.01)
                asked = [int(event["asked"])
                         for event in self.wait_events(rule, 8)]
                for seconds, ms in zip(times, asked):
                    self.assertAlmostEqual(seconds * 1000, ms, delta=200)
                self.drop_rule(rule)

    def test_late_auth_still_judges_the_password(self):
        self.rule({"kind": "latency", "ms": 300}, stage="auth")
        client = self.submit()
        good = client.command(plain())
        self.assertEqual(good.code, 235)
        self.assertGreaterEqual(good.seconds, 0.3)
        bad = self.submit().command(plain(password="wrong"))
        self.assertEqual(bad.code, 535)
        self.assertGreaterEqual(bad.seconds, 0.3)

    def test_helo_is_refused_at_the_command_and_judged_once(self):
        rule = self.rule(error(550, "no greetings"), stage="helo")
        for command in ("EHLO x.example", "HELO x.example"):
            client = self.plain_session()
            self.assert_reply(client.command(command),
                              "550 5.7.0 no greetings")
        self.assertEqual(len(self.wait_events(rule, 2)), 2)
        # Refused for good it is not: MAIL shows nothing of it.
        self.drop_rule(rule)
        self.assertEqual(client.ehlo().code, 250)
        self.assert_goes_on(client)
        self.assertEqual(len(self.events(rule)), 2)

    def plain_session(self, **options):
        """A session on the hook's port that is not greeted yet."""
        client = self.make_client(**options)
        self.assertEqual(client.banner.code, 220)
        return client

    def test_helo_that_the_hook_passed_is_not_judged_by_the_milter(self):
        rule = self.rule(error(550), stage="helo", mode="shadow")
        self.submit()
        self.assertEqual(len(self.wait_events(rule)), 1)
        self.smtp()     # without the hook it is the milter's own event
        self.assertEqual(len(self.wait_events(rule, 2)), 2)

    def test_helo_that_the_hook_judged_meets_the_effects_all_the_same(self):
        rule = self.rule({"kind": "latency", "ms": 300}, stage="helo")
        # The milter is told of a greeting when somebody wants it to be.
        self.lab.redis_cli("FCALL", "cm_set", "0", "effect", "latency",
                           '{"latency":400,"stage":"helo"}')
        self.addCleanup(self.lab.redis_cli, "FCALL", "cm_del", "0", "effect",
                        "latency")
        self.lab.settle()
        reply = self.plain_session().ehlo()
        self.assertEqual(reply.code, 250)
        self.assertGreaterEqual(reply.seconds, 0.7)
        self.assertEqual(len(self.wait_events(rule)), 1)
        event = self.wait_events("effect:latency")[-1]
        self.assertEqual((event["outcome"], event["stage"], event["asked"]),
                         ("applied", "helo", "400"))

    def test_helo_by_name_and_by_client(self):
        self.rule(error(550, "by name"), stage="helo", helo="*.bad.example")
        self.rule(error(550, "by client"), stage="helo", client="127.0.0.2")
        client = self.plain_session()
        self.assertEqual(client.command("EHLO a.bad.example").text,
                         "550 5.7.0 by name")
        self.assertEqual(client.command("EHLO a.good.example").code, 250)
        client = self.plain_session(source="127.0.0.2")
        self.assertEqual(client.command("EHLO a.good.example").text,
                         "550 5.7.0 by client")

    def test_starttls_refused_then_the_plain_session_goes_on(self):
        self.rule(error(454, "TLS not available"), stage="starttls")
        client = self.submit()
        self.assert_reply(client.command("STARTTLS"),
                          "454 4.7.0 TLS not available")
        self.assert_goes_on(client)

    def test_commands_of_the_milter_are_not_the_hooks(self):
        """MAIL and RCPT are judged once, by the milter's own events."""
        mail = self.rule(error(451), stage="mail", mode="shadow")
        rcpt = self.rule(error(451), stage="rcpt", mode="shadow")
        client = self.submit()
        self.assert_goes_on(client)
        shadows = wait_until("two events", lambda: [
            event["rule"] for event in self.all_events()
            if event["rule"] in (mail, rcpt)])
        self.assertEqual(sorted(shadows), sorted([mail, rcpt]))

    def test_pipelined_commands_are_answered_in_order(self):
        self.rule({"kind": "latency", "ms": 100}, stage="noop")
        self.rule(error(450, "no reset"), stage="rset")
        client = self.submit()
        client.send_line("NOOP\r\nRSET\r\nNOOP\r\nVRFY a@example.com\r\nNOOP")
        start = now()
        self.assertEqual([client.read_reply().code for _ in range(5)],
                         [250, 450, 250, 554, 250])
        self.assertGreaterEqual(now() - start, 0.3)

    def test_a_word_that_a_client_types_is_not_known(self):
        client = self.submit()
        for word in ("XCHAOS-", "XCHAOS-0123456789abcdef0123456789abcdef",
                     "XCHAOS", "xchaos-1 2 3"):
            self.assert_reply(client.command(word), NOT_KNOWN)

    def test_a_word_overheard_is_good_for_nobody(self):
        rule = self.rule(error(535), stage="auth")
        client = self.submit()
        self.assertEqual(client.command(plain()).code, 535)
        word = wait_until("Postfix to log the word", lambda: re.findall(
            r"XCHAOS-[0-9a-f]{32}", self.lab.log("postfix")))[-1]
        self.assert_reply(client.command(word), NOT_KNOWN)
        self.assert_reply(self.submit().command(word), NOT_KNOWN)
        self.assert_reply(self.smtp().command(word), NOT_KNOWN)
        self.assertEqual(len(self.wait_events(rule)), 1)

    def test_of_two_sessions_only_one_is_hurt(self):
        self.rule(error(535), stage="auth", user="other")
        self.rule({"kind": "latency", "ms": 1500}, stage="vrfy")
        slow, quick = self.submit(), self.submit()
        slow.send_line("VRFY a@example.com")
        start = now()
        for _ in range(50):
            self.assertEqual(quick.command("NOOP").code, 250)
        self.assertIn("by a rule", quick.command(plain("other", "x")).text)
        self.assert_goes_on(quick)
        self.assertLess(now() - start, 1.4)
        self.assertEqual(slow.read_reply().code, 554)
        self.assert_goes_on(slow)

    def test_xclient_begins_a_session_of_its_own(self):
        etc = self.lab.dir + "/postfix/etc"
        self.run_command("postconf", "-c", etc, "-e",
                         "smtpd_authorized_xclient_hosts=127.0.0.0/8")
        self.run_command("postfix", "-c", etc, "reload")
        rule = self.rule(error(450), stage="noop")
        client = wait_until("a session with XCLIENT", self.xclient_session,
                            timeout=30)
        self.assertEqual(client.command("NOOP").code, 450)
        self.assertEqual(client.command("XCLIENT ADDR=192.0.2.9").code, 220)
        self.assertEqual(client.ehlo().code, 250)
        self.assertEqual(client.command("NOOP").code, 450)
        self.assertEqual([event["client"] for event in self.wait_events(rule, 2)],
                         ["127.0.0.1", "192.0.2.9"])

    def xclient_session(self):
        """Who calls while Postfix reads its settings may be answered by a
        process that is about to end, or never."""
        try:
            client = self.make_client(timeout=10)
            return client if "XCLIENT" in client.ehlo().text else None
        except (TimeoutError, Gone):
            return None


class Keywords(HookCase):
    """EHLO keywords hidden from one client."""

    ALL = {"STARTTLS", "SIZE", "SMTPUTF8", "PIPELINING"}

    @staticmethod
    def keywords(client):
        return {line[4:].split()[0] for line in client.ehlo().lines[1:]}

    def test_vanish_for_that_client_only_and_come_back(self):
        rule = self.rule({"kind": "hide", "keywords": sorted(self.ALL)},
                         client="127.0.0.2")
        near, far = self.submit(), self.submit(source="127.0.0.2")
        self.assertLessEqual(self.ALL, self.keywords(near))
        self.assertEqual(self.keywords(far) & self.ALL, set())
        self.assertIn("AUTH", self.keywords(far))
        self.assertEqual(far.command("STARTTLS").code, 502)
        self.assert_goes_on(far)
        self.assertLessEqual(self.ALL, self.keywords(
            self.smtp(source="127.0.0.2")), "a port without the hook")
        event, = self.wait_events(rule)
        self.assertEqual(
            (event["kind"], event["outcome"], event["stage"], event["client"]),
            ("hide", "applied", "helo", "127.0.0.2"))
        self.drop_rule(rule)
        # Postfix asks once a session.
        self.assertEqual(self.keywords(far) & self.ALL, set())
        self.assertLessEqual(self.ALL,
                             self.keywords(self.submit(source="127.0.0.2")))

    def test_one_of_them_for_all_by_a_coin(self):
        self.rule({"kind": "hide", "keywords": ["SIZE"]}, probability=0.5)
        hidden = sum("SIZE" not in self.keywords(self.submit())
                     for _ in range(64))
        self.assertIn(hidden, range(12, 53))

    def test_refusing_the_greeting_is_another_matter(self):
        hide = self.rule({"kind": "hide", "keywords": ["SIZE"]})
        self.rule(error(550), stage="helo", helo="bad.example")
        client = self.submit()
        self.assertNotIn("SIZE", self.keywords(client))
        self.assertEqual(client.ehlo("bad.example").code, 550)
        self.assertEqual(len(self.wait_events(hide)), 1)

    def test_conditions_but_the_client_are_refused(self):
        with self.assertRaisesRegex(AssertionError, "client's address alone"):
            self.rule({"kind": "hide", "keywords": ["SIZE"]}, helo="a")


class Impatient(HookCase):
    """Clients that do not wait for a late answer."""

    def held(self):
        return self.lab.status()["hosts"][0]["held"]

    def late(self, ms):
        rule = self.rule({"kind": "latency", "ms": ms}, stage="noop")
        client = self.submit()
        client.send_line("NOOP")
        wait_until("it to be held", lambda: self.held() == 1)
        return rule, client

    def test_a_reset_ends_the_delay(self):
        rule, client = self.late(30000)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack("ii", 1, 0))
        client.close()
        event, = self.wait_events(rule)
        self.assertIn("connection was reset", event["detail"])
        self.assertLess(int(event["measured"]), 10000)
        wait_until("nothing to be held", lambda: self.held() == 0)

    def test_a_client_that_only_stops_sending_gets_its_answer(self):
        rule, client = self.late(4000)
        client.socket.shutdown(socket.SHUT_WR)
        reply = client.read_reply()
        self.assertEqual(reply.code, 250)
        self.assertGreaterEqual(reply.seconds, 4)
        self.assertIn("the client had closed its side",
                      self.wait_events(rule)[0]["detail"])


class Halted(HookCase):
    """The halt beats rules at the hook as everywhere."""

    def call(self, what):
        answer = self.lab.http("POST", "/api/v1/" + what)
        self.assertEqual(answer.status, 200, answer)

    def test_what_is_held_passes_and_nothing_more_is_hurt(self):
        late, _ = self.rules(
            {"stage": "noop", "fault": {"kind": "latency", "ms": 60000}},
            {"stage": "auth", "fault": error(535)})
        client, other = self.submit(), self.submit()
        client.send_line("NOOP")
        wait_until("it to be held",
                   lambda: self.lab.status()["hosts"][0]["held"] == 1)
        self.addCleanup(self.call, "resume")
        self.call("halt")
        reply = client.read_reply()
        self.assertEqual(reply.code, 250)
        self.assertLess(reply.seconds, 10)
        event, = self.wait_events(late)
        self.assertIn("cut short: chaos was halted", event["detail"])
        self.assertLess(int(event["measured"]), 10000)
        self.assert_goes_on(client)
        self.call("resume")
        wait_until("the rule to act again",
                   lambda: other.command("AUTH").code == 535)


class Long(HookCase):
    """The longest delay there is. Postfix gives a lookup 100 s."""

    seconds = 70

    def test_auth_60_s_late(self):
        rule = self.rule({"kind": "latency", "ms": 60000}, stage="auth")
        client = self.submit()
        client.send_line(plain())
        wait_until("it to be held",
                   lambda: self.lab.status()["hosts"][0]["held"] == 1)
        reply = client.read_reply()
        self.assertEqual(reply.code, 235)
        self.assertGreaterEqual(reply.seconds, 60)
        self.assertLess(reply.seconds, 62)
        self.assertIn(int(self.wait_events(rule)[0]["measured"]),
                      range(60000, 62000))
        self.drop_rule(rule)
        self.assert_passes(self.inbox(), client=client)


class Soak(HookCase):
    """Many at once: every refusal is recorded once, and none but those."""

    seconds = 30

    def client(self, _):
        client = self.submit()
        counts = {450: 0, 250: 0, 454: 0, 334: 0, 501: 0}
        for n in range(100):
            if n % 4 == 3:
                reply = client.command("AUTH PLAIN")
                if reply.code == 334:
                    counts[334] += 1
                    reply = client.command("*")
            else:
                reply = client.command("NOOP")
            counts[reply.code] += 1
        return counts

    def test_8_clients_with_100_commands_each(self):
        noop = self.rule(error(450), stage="noop", probability=0.3)
        auth = self.rule(error(454), stage="auth", probability=0.5, seed=3)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            each = list(pool.map(self.client, range(8)))
        total = {code: sum(one[code] for one in each) for code in each[0]}
        self.assertEqual(total[250] + total[450], 600)
        self.assertEqual(total[334] + total[454], 200)
        self.assertEqual(total[501], total[334])
        self.assertIn(total[450], range(120, 241))
        self.assertIn(total[454], range(60, 141))
        self.assertEqual(len(self.wait_events(noop, total[450])), total[450])
        self.assertEqual(len(self.wait_events(auth, total[454])), total[454])
        for rule in (noop, auth):
            self.assertEqual({event["outcome"] for event in self.events(rule)},
                             {"applied"})
        self.assertEqual(self.counter("hook_late"), 0)
        self.assertEqual(self.counter("hook_malformed"), 0)


class Unarmed(HookCase):
    """Rules are there, and nothing that anybody asked for happens."""

    armed = False

    def test_nothing_happens(self):
        self.rules({"fault": {"kind": "hide", "keywords": ["SIZE"]}},
                   *({"stage": stage, "fault": error(550)}
                     for stage in ("auth", "noop", "helo", "starttls")))
        client = self.submit()
        self.assertIn("SIZE", client.ehlo().text)
        self.assertEqual(client.command("NOOP").code, 250)
        self.assertEqual(client.command("STARTTLS").code, 220)
        starttls(client)
        self.assert_goes_on(client)
        self.assertEqual(self.lab.incidents(""), [])


if __name__ == "__main__":
    unittest.main()
