# SPDX-License-Identifier: BSD-2-Clause
"""Mailpit's API: the three triggers, line by line over HTTP, how chaos is armed
by Mailpit's names, and what the triggers do to mail."""
import base64
import threading
import unittest

from test_http import Case

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


if __name__ == "__main__":
    unittest.main()
