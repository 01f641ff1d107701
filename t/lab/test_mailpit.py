# SPDX-License-Identifier: BSD-2-Clause
"""Mailpit's API: the three triggers, line by line over HTTP, how chaos is armed
by Mailpit's names, and what the triggers do to mail."""
import base64
import json
import os
import subprocess
import threading
import unittest

from hookkit import HookCase, login, plain
from labkit import Gone, LabTestCase, make_message, wait_until
from mtas import MTA, postfix_only
from test_http import Admin, Case

CHAOS = "/api/v1/chaos"
DEFAULTS = ('{"Sender":{"ErrorCode":451,"Probability":0},"Recipient":{"ErrorCode":451,"Probability":0},'
            '"Authentication":{"ErrorCode":535,"Probability":0}}')
CODE = "error code must be between 400 and 599"
PROBABILITY = "probability must be between 0 and 100"


class Mailpit(Case):

    def setUp(self):
        self.assertEqual(self.put({}).text, DEFAULTS)

    def put(self, body, **headers):
        return self.admin.call("PUT", CHAOS, body, **headers)

    def refused(self, answer, text=None, status=400):
        self.assertEqual(answer.status, status, answer.text)
        self.assertEqual(answer.headers["Content-Type"].split(";")[0], "text/plain")
        if text is not None:
            self.assertEqual(answer.text, text)

    def test_defaults(self):
        answer = self.new_admin(self.new_redis()).get(CHAOS)
        self.assertEqual((answer.status, answer.text), (200, DEFAULTS))
        self.assertTrue(answer.headers["Content-Type"].startswith("application/json"))

    def test_put_answers_what_is_in_force(self):
        body = {"Sender": {"ErrorCode": 450, "Probability": 5}, "Recipient": {"ErrorCode": 550, "Probability": 100},
                "Authentication": {"ErrorCode": 454, "Probability": 1}}
        self.assertEqual(self.put(body).json, body)
        self.assertEqual(self.admin.get(CHAOS).json, body)

    def test_put_replaces_everything(self):
        self.put({"Sender": {"ErrorCode": 450, "Probability": 5}, "Recipient": {"ErrorCode": 550, "Probability": 9}})
        answer = self.put({"Recipient": {"Probability": 7}})
        self.assertEqual(answer.json, {"Sender": {"ErrorCode": 451, "Probability": 0},
                                       "Recipient": {"ErrorCode": 451, "Probability": 7},
                                       "Authentication": {"ErrorCode": 535, "Probability": 0}})
        self.assertEqual(self.put({}).text, DEFAULTS)

    def test_code_zero_or_absent_is_the_default(self):
        answer = self.put({"Sender": {"ErrorCode": 0, "Probability": 1}, "Authentication": {"Probability": 2}})
        self.assertEqual(answer.json["Sender"], {"ErrorCode": 451, "Probability": 1})
        self.assertEqual(answer.json["Authentication"], {"ErrorCode": 535, "Probability": 2})

    def test_names_are_matched_without_case(self):
        answer = self.put('{"SENDER":{"errorcode":452,"PROBABILITY":3},"recipient":{"errorCode":500}}')
        self.assertEqual(answer.json["Sender"], {"ErrorCode": 452, "Probability": 3})
        self.assertEqual(answer.json["Recipient"], {"ErrorCode": 500, "Probability": 0})

    def test_limits_in_mailpits_words(self):
        for trigger in ("Sender", "Recipient", "Authentication"):
            for code in (1, 399, 600, -1, 99999999999):
                self.refused(self.put({trigger: {"ErrorCode": code}}), CODE)
            for probability in (-1, 101, 1000000):
                self.refused(self.put({trigger: {"ErrorCode": 400, "Probability": probability}}), PROBABILITY)
            for code, probability in ((400, 0), (599, 100)):
                answer = self.put({trigger: {"ErrorCode": code, "Probability": probability}})
                self.assertEqual(answer.json[trigger], {"ErrorCode": code, "Probability": probability})

    def test_put_is_atomic(self):
        before = self.put({"Sender": {"ErrorCode": 450, "Probability": 5}})
        answer = self.put({"Sender": {"ErrorCode": 499, "Probability": 50}, "Recipient": {"ErrorCode": 399}})
        self.refused(answer, CODE)
        after = self.admin.get(CHAOS)
        self.assertEqual((after.text, after.headers["ETag"]), (before.text, before.headers["ETag"]))

    def test_unknown_members_are_errors(self):
        self.refused(self.put({"Recipients": {"ErrorCode": 451, "Probability": 5}}),
                     "Recipients is not a member of this document")
        self.refused(self.put({"Sender": {"Code": 451}}), "Code is not a member of this document")

    def test_malformed_input(self):
        """H5 H6 H7 H8"""
        for body in (b"", b"{", b"[]", b"null", b"5", b'"x"', b'{"Sender":5}', b'{"Sender":{"Probability":0.5}}',
                     b'{"Sender":{"Probability":"5"}}', b'{"Sender":{"ErrorCode":451.0}}', b"{}x", b"[" * 100000,
                     b'{"Sender":{},"Sender":{}}', b'{"Sender":{},"sender":{}}', b'{"Sender":{"Probability":NaN}}',
                     b'{"Sender":{"Probability":1,"probability":2}}', b'\xef\xbb\xbf{}', b"{}\0",
                     b'{"\xff":1}', b'{"Sender":{"Probability":9223372036854775808}}'):
            with self.subTest(body=body[:40]):
                answer = self.put(body)
                self.refused(answer)
                self.assertGreater(len(answer.text), 10)
                self.assertNotIn("\n", answer.text)
        self.assertEqual(self.admin.get(CHAOS).text, DEFAULTS)

    def test_verbs(self):
        """H11"""
        for verb in ("POST", "PATCH", "DELETE"):
            answer = self.admin.call(verb, CHAOS, {})
            self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD, PUT"))

    def test_keys_in_every_way(self):
        basic = base64.b64encode(f"anybody:{self.admin.key}".encode()).decode()
        for headers in ({"Authorization": "Basic " + basic}, {"Authorization": "Bearer " + self.admin.key},
                        {"X_API_Key": self.admin.key}):
            self.assertEqual(self.admin.get(CHAOS, key=None, **headers).status, 200)
        self.assertEqual(self.admin.get(CHAOS, key=None).status, 401)
        self.assertEqual(self.admin.call("PUT", CHAOS, {}, key="wrong").status, 401)

    def test_if_match(self):
        """H22"""
        old = self.admin.get(CHAOS).headers["ETag"]
        new = self.put({"Sender": {"Probability": 1}}, If_Match=old)
        self.assertEqual(new.status, 200)
        self.assertNotEqual(new.headers["ETag"], old)
        answer = self.put({"Sender": {"Probability": 2}}, If_Match=old)
        self.assertEqual((answer.status, answer.headers["ETag"]), (412, new.headers["ETag"]))
        self.assertEqual(self.admin.get(CHAOS).json["Sender"]["Probability"], 1)

    def test_puts_from_many_sides_are_never_mixed(self):
        def put(n):
            for _ in range(20):
                self.put({name: {"ErrorCode": 400 + n, "Probability": n} for name in ("Sender", "Recipient")})
        threads = [threading.Thread(target=put, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            triggers = self.admin.get(CHAOS).json
            self.assertEqual(triggers["Sender"], triggers["Recipient"])
        for thread in threads:
            thread.join()

    def test_redis_cli_sees_and_sets_them(self):
        self.put({"Recipient": {"ErrorCode": 550, "Probability": 9}})
        names = self.redis.ask("FCALL", "cm_list", 0, "trigger")
        self.assertEqual(names, ["authentication", "recipient", "sender"])
        self.assertEqual(self.redis.document("trigger", "recipient"), '{"ErrorCode":550,"Probability":9}')
        self.redis.ask("FCALL", "cm_set", 0, "trigger", "Sender", '{"Probability":4}')
        self.assertEqual(self.admin.get(CHAOS).json["Sender"], {"ErrorCode": 451, "Probability": 4})
        self.redis.ask("FCALL", "cm_set", 0, "trigger", "sender", '{"Probability":400}')
        self.assertEqual(self.admin.get(CHAOS).json["Sender"], {"ErrorCode": 451, "Probability": 0})


class Unarmed(Case):
    settings = {"armed": False}

    def test_get_and_put_say_so(self):
        for answer in (self.admin.get(CHAOS), self.admin.call("PUT", CHAOS, {"Sender": {"Probability": 100}}),
                       self.admin.call("PUT", CHAOS, "nonsense")):
            self.assertEqual((answer.status, answer.text), (400, "Chaos is not enabled"))
            self.assertEqual(answer.headers["Content-Type"], "text/plain")
        self.assertEqual(self.redis.ask("EXISTS", "{cm}:seq"), 0)

    def test_the_key_comes_first(self):
        self.assertEqual(self.admin.get(CHAOS, key=None).status, 401)


# ------------------------------------------------------------------- starting

class Starting(Case):
    """The daemons' command lines and variables."""

    def setUp(self):
        self.redis = self.new_redis()
        self.admin = self.new_admin(self.redis, wait=False, armed=False)

    def begin(self, *options, **variables):
        """A chaosadmin that listens and is ready."""
        with open(self.admin.log, "ab") as log:
            self.admin.process = subprocess.Popen(
                [self.binary("chaosadmin"), "-c", self.admin.conf, *options], stderr=log,
                env={**os.environ, **variables})
        wait_until("readiness", lambda: self.admin.listens() and
                   self.admin.get("/readyz", key=None).status == 200)
        self.addCleanup(self.admin.stop)

    @staticmethod
    def binary(name):
        return os.path.join(os.path.dirname(os.path.abspath(os.environ["CHAOSADMIN"])), name)

    def check(self, name, *options, **variables):
        """`-n` of a daemon: exit status and what it says on stderr."""
        done = subprocess.run([self.binary(name), "-n", "-c", self.admin.conf, *options], text=True,
                              capture_output=True, env={**os.environ, **variables}, check=False, timeout=20)
        return done.returncode, done.stderr

    def is_armed(self):
        return self.admin.get("/api/server-info").json["chaosEnabled"]

    def test_unarmed_by_default(self):
        self.begin()
        self.assertFalse(self.is_armed())

    def test_enable_chaos_arms(self):
        self.begin("--enable-chaos")
        self.assertTrue(self.is_armed())
        self.assertEqual(self.admin.get(CHAOS).text, DEFAULTS)

    def test_variable_arms(self):
        self.begin(MP_ENABLE_CHAOS="true")
        self.assertTrue(self.is_armed())

    def test_empty_variables_are_none(self):
        self.begin(MP_ENABLE_CHAOS="", MP_CHAOS_TRIGGERS="")
        self.assertFalse(self.is_armed())

    def test_no_is_believed(self):
        self.begin(MP_CHAOS_TRIGGERS="Sender:451:50", CHAOSMILTER_ARMED="false")
        self.assertFalse(self.is_armed())
        self.assertEqual(self.redis.ask("EXISTS", "{cm}:seq"), 0)

    def test_triggers_arm_and_set(self):
        self.begin("--chaos-triggers", " Sender:450:50 , AUTH:454:7,recipients:550:1,Recipient:552:2")
        self.assertTrue(self.is_armed())
        self.assertEqual(self.admin.get(CHAOS).json, {
            "Sender": {"ErrorCode": 450, "Probability": 50}, "Recipient": {"ErrorCode": 552, "Probability": 2},
            "Authentication": {"ErrorCode": 454, "Probability": 7}})

    def test_triggers_by_variable_and_the_command_line_before_it(self):
        self.begin(MP_CHAOS_TRIGGERS="Recipient:499:9")
        self.assertEqual(self.admin.get(CHAOS).json["Recipient"], {"ErrorCode": 499, "Probability": 9})
        self.admin.stop()
        self.begin("--chaos-triggers=Sender:498:8", MP_CHAOS_TRIGGERS="Recipient:499:9")
        triggers = self.admin.get(CHAOS).json
        self.assertEqual(triggers["Sender"], {"ErrorCode": 498, "Probability": 8})
        self.assertEqual(triggers["Recipient"], {"ErrorCode": 451, "Probability": 0})

    def test_triggers_of_the_api_outlive_a_restart_without_a_list(self):
        self.begin("--enable-chaos")
        self.admin.call("PUT", CHAOS, {"Sender": {"Probability": 3}})
        self.admin.stop()
        self.begin("--enable-chaos")
        self.assertEqual(self.admin.get(CHAOS).json["Sender"]["Probability"], 3)

    def test_triggers_wait_for_redis_and_give_way_to_a_put(self):
        self.redis.freeze()
        with open(self.admin.log, "ab") as log:
            self.admin.process = subprocess.Popen(
                [self.binary("chaosadmin"), "-c", self.admin.conf, "--chaos-triggers", "Sender:450:50"], stderr=log)
        self.addCleanup(self.admin.stop)
        wait_until("chaosadmin to listen", self.admin.listens)
        self.assertEqual(self.admin.get(CHAOS).status, 503)
        self.redis.thaw()
        wait_until("the triggers", lambda: self.admin.get(CHAOS).status == 200 and
                   self.admin.get(CHAOS).json["Sender"] == {"ErrorCode": 450, "Probability": 50})
        self.admin.call("PUT", CHAOS, {"Sender": {"Probability": 1}})
        self.assertEqual(self.admin.get(CHAOS).json["Sender"]["Probability"], 1)

    def test_bad_lists_end_either_daemon_with_78_and_one_line(self):
        for bad in ("Sender:451:101", "Sender:399:1", "Sender:600:1", "Sender:451", "Sender:451:-1", "Sender:451:5.5",
                    "Data:451:5", "Sender:451:5,", ",", "Sender", "Sender:451:5;Recipient:451:5"):
            with self.subTest(bad=bad):
                for name in ("chaosadmin", "chaosmilter"):
                    code, said = self.check(name, MP_CHAOS_TRIGGERS=bad)
                    self.assertEqual((code, said.count("\n")), (78, 1), said)
                    self.assertIn("MP_CHAOS_TRIGGERS: ", said)
                code, said = self.check("chaosadmin", "--chaos-triggers", bad)
                self.assertEqual((code, said.count("\n")), (78, 1), said)
                self.assertIn("--chaos-triggers: ", said)
        self.assertIn(PROBABILITY, self.check("chaosadmin", "--chaos-triggers", "Sender:451:101")[1])
        self.assertIn(CODE, self.check("chaosadmin", "--chaos-triggers", "Sender:399:1")[1])
        self.assertEqual(self.check("chaosadmin", "--chaos-triggers", "")[0], 78)
        self.assertEqual(self.check("chaosmilter", MP_ENABLE_CHAOS="1")[0], 78)
        self.assertEqual(self.check("chaosmilter", "--enable-chaos")[0], 0)

    def test_no_beginning_of_a_name_arms(self):
        for name in ("chaosadmin", "chaosmilter"):
            for option in ("--enable", "--e", "--enable-chao"):
                self.assertEqual(self.check(name, option)[0], 64)
        self.assertEqual(self.check("chaosmilter", "--chaos-triggers", "Sender:451:5")[0], 64)


# ------------------------------------------------------------------- the mail

class Mail(LabTestCase):
    seconds = 30

    def tearDown(self):
        self.put()
        super().tearDown()

    def put(self, **triggers):
        answer = self.lab.http("PUT", CHAOS, {name: dict(zip(("ErrorCode", "Probability"), setting))
                                              for name, setting in triggers.items()})
        self.assertEqual(answer.status, 200, answer.text)
        self.lab.settle()

    def test_sender_at_mail_without_an_enhanced_code(self):
        for code in (451, 550, 599, 400):
            self.put(Sender=(code, 100))
            client = self.smtp()
            self.assertEqual(client.mail().text, MTA.refused(f"{code} Chaos sender error", "sender@example.org"))
            # Usable afterwards.
            self.assertEqual(client.command("NOOP").code, 250)
            self.assertEqual(client.mail("other@example.org").text,
                             MTA.refused(f"{code} Chaos sender error", "other@example.org"))
        self.put()
        self.assert_passes(self.inbox(), client=client)

    def test_sender_after_the_servers_own_checks(self):
        self.put(Sender=(451, 100))
        client = self.smtp()
        self.assertNotIn("Chaos", client.command("MAIL FROM:<a@b.example").text)
        self.assertNotIn("Chaos", client.command("RCPT TO:<a@example.com>").text)
        self.assertEqual(client.mail().text, MTA.shown("451 Chaos sender error"))

    def test_recipient_once_for_each_by_its_own_draw(self):
        a, b = self.inbox("a"), self.inbox("b")
        self.put(Recipient=(452, 100))
        client = self.smtp()
        self.assertEqual(client.mail().code, 250)
        for inbox in (a, b):
            self.assertEqual(client.rcpt(inbox).text, MTA.shown("452 Chaos recipient error"))
        self.put(Recipient=(452, 50))
        client = self.smtp()
        client.mail()
        codes = [client.rcpt(f"n{i}@example.com").code for i in range(200)]
        self.assertEqual(set(codes), {250, 452})
        self.assertTrue(60 <= codes.count(452) <= 140, codes.count(452))   # 5 sigma

    def test_protected_recipients_are_spared(self):
        self.put(Recipient=(550, 100))
        client = self.smtp()
        client.mail()
        self.assertEqual(client.rcpt("postmaster@example.com").code, 250)

    def test_two_halves_are_three_quarters(self):
        self.put(Sender=(451, 50), Recipient=(451, 50))
        failed = 0
        client = self.smtp()
        for _ in range(200):
            if client.mail().code != 250 or client.rcpt("x@example.com").code != 250:
                failed += 1
            client.command("RSET")
        self.assertTrue(120 <= failed <= 180, failed)      # 150, 5 sigma

    def test_421_closes_the_session(self):
        self.put(Sender=(421, 100))
        client = self.smtp()
        self.assertEqual(client.mail().text, MTA.shown("421 Chaos sender error"))
        with self.assertRaises(Gone):
            client.read_line()

    def test_probability_zero_never_fires(self):
        self.put(Sender=(451, 0), Recipient=(451, 0))
        client = self.smtp()
        for _ in range(50):
            self.assertEqual(client.mail().code, 250)
            self.assertEqual(client.rcpt("x@example.com").code, 250)
            client.command("RSET")

    def test_an_event_names_the_trigger(self):
        inbox = self.inbox("event")
        self.put(Recipient=(450 + 1, 100))
        client = self.smtp()
        client.mail()
        client.rcpt(inbox)
        event = self.lab.wait_incident(inbox, "error")
        self.assertEqual((event["rule"], event["reply"]), ("trigger:recipient", "451 Chaos recipient error"))


@postfix_only("the command hook is Postfix's")
class Authentication(HookCase):
    """At AUTH, before the credentials are judged."""

    seconds = 30

    def put(self, code=0, probability=0):
        answer = self.lab.http("PUT", CHAOS, {"Authentication": {"ErrorCode": code, "Probability": probability}})
        self.assertEqual(answer.status, 200, answer.text)
        self.lab.settle()

    def tearDown(self):
        self.put()
        super().tearDown()

    def test_right_and_wrong_credentials_meet_the_same(self):
        for code in (535, 454, 451):
            self.put(code, 100)
            client = self.submit()
            for command in (plain(), plain("tester", "wrong"), login(), "AUTH CRAM-MD5"):
                self.assertEqual(client.command(command).text, f"{code} Chaos authentication error")
        self.put()
        self.assert_goes_on(client)

    def test_probability(self):
        self.put(535, 50)
        codes = []
        for _ in range(40):
            client = self.submit()
            codes.append(client.command(plain()).code)
            client.close()
        self.assertEqual(set(codes), {235, 535})

    def test_ignored_where_auth_is_not_offered(self):
        self.put(535, 100)
        client = self.smtp()
        self.assertNotIn("Chaos", client.command(plain()).text)
        self.assert_passes(self.inbox(), client=client)


if __name__ == "__main__":
    unittest.main()
