# SPDX-License-Identifier: BSD-2-Clause
"""Rules managed through Redis alone, by redis-cli, and what a broken document
does there."""
import json
import os
import re
import unittest

from labkit import TOP, LabTestCase, wait_until

REFUSE = json.dumps({"enabled": True, "randomError": {
    "enabled": True, "errorRate": 1, "errorTypes": ["permanent"]}})


class RedisRules(LabTestCase):

    once = True
    seconds = 40

    def code(self, inbox):
        client = self.smtp()
        client.mail()
        return client.rcpt(inbox).code

    def fcall(self, *words):
        return self.lab.redis_cli("FCALL", words[0], "0", *words[1:])

    def test_set_get_list_and_del_drive_the_filter(self):
        inbox = self.inbox("cli")
        self.assertEqual(self.code(inbox), 250)
        self.fcall("cm_set", "inbox", inbox, REFUSE)
        wait_until("the rule", lambda: self.code(inbox) >= 550, timeout=2)
        self.assertIn('"errorRate": 1', self.fcall("cm_get", "inbox", inbox))
        self.assertIn(inbox, self.fcall("cm_list", "inbox").split("\n"))
        self.fcall("cm_del", "inbox", inbox)
        wait_until("its end", lambda: self.code(inbox) == 250, timeout=2)
        self.assertEqual(self.fcall("cm_get", "inbox", inbox), "")
        self.assertNotIn(inbox, self.fcall("cm_list", "inbox").split("\n"))

    def test_both_ways_see_each_other(self):
        inbox = self.inbox("both")
        self.fcall("cm_set", "inbox", inbox, REFUSE)
        config = self.lab.http("GET", self.lab.chaos_path(inbox)).json
        self.assertEqual(config["randomError"]["errorRate"], 1)
        self.lab.set_chaos(inbox, blackhole={"enabled": True})
        self.assertIn("blackhole", self.fcall("cm_get", "inbox", inbox))

    def test_name_in_capitals_is_the_same_inbox(self):
        inbox = self.inbox("caps")
        self.fcall("cm_set", "inbox", inbox.upper(), REFUSE)
        self.lab.settle()
        self.assertGreaterEqual(self.code(inbox), 550)

    def test_wrong_calls_are_refused_and_change_nothing(self):
        before = self.lab.redis("GET", "{cm}:seq")
        for words in (("cm_set", "inbox", "nobody", REFUSE),
                      ("cm_set", "inbox", "a@example.com", "not json"),
                      ("cm_set", "inbox", "a@example.com", "[1]"),
                      ("cm_set", "outbox", "a@example.com", REFUSE),
                      ("cm_set", "inbox", "a@example.com", REFUSE, "7"),
                      ("cm_set", "inbox", "a@example.com")):
            self.assertRegex(self.fcall(*words), "CMINVALID|CMCONFLICT", words)
        self.assertEqual(self.lab.redis("GET", "{cm}:seq"), before)

    def check_broken(self, inbox, break_it):
        """The inbox has no chaos, an alarm tells, all others go on."""
        healthy = self.inbox("healthy")
        self.fcall("cm_set", "inbox", inbox, REFUSE)
        self.fcall("cm_set", "inbox", healthy, REFUSE)
        self.lab.settle()
        self.assertGreaterEqual(self.code(inbox), 550)
        break_it()
        wait_until("the alarm in status", lambda: inbox in
                   json.dumps(self.lab.status()["hosts"][0]["broken"]))
        self.assertEqual(self.code(inbox), 250)
        self.assertGreaterEqual(self.code(healthy), 550)
        self.fcall("cm_set", "inbox", inbox, REFUSE)
        wait_until("the mended rule", lambda: self.code(inbox) >= 550, timeout=2)
        wait_until("the end of the alarm", lambda: inbox not in
                   json.dumps(self.lab.status()["hosts"][0]["broken"]))

    def test_valid_json_that_is_no_config_raises_an_alarm_for_that_inbox_alone(self):
        documents = ('{"enabled":"perhaps"}',
                     '{"enabled":true,"latency":{"enabled":true,"maxDelayMs":1e9}}',
                     '{"enabled":true,"unknown":{}}',
                     '{"enabled":true,"randomError":{"enabled":true,'
                     '"errorRate":1,"errorRate":0}}')
        for document in documents:
            with self.subTest(document):
                inbox = self.inbox("broken")
                self.check_broken(inbox, lambda: self.fcall(
                    "cm_set", "inbox", inbox, document))

    def test_garbage_written_over_the_key_is_seen_at_the_next_resync(self):
        for garbage in ("garbage", "{", '{"rev":1}', "\x00\xff" * 10):
            with self.subTest(garbage):
                inbox = self.inbox("garbage")
                self.check_broken(inbox, lambda: self.overwrite(inbox, garbage))

    def overwrite(self, inbox, garbage):
        """Behind the back of the change log; then make the filter read anew."""
        self.lab.redis("SET", "{cm}:cfg:inbox:" + inbox, garbage)
        self.lab.redis("SET", "{cm}:epoch", "reset-" + inbox)


class Readme(LabTestCase):

    once = True

    def test_rules_of_the_readme_are_taken(self):
        with open(os.path.join(TOP, "README.md"), encoding="utf-8") as page:
            rules = re.findall(r"cm_set 0 rule (\S+) '(.*?)'", page.read(), re.S)
        self.assertGreaterEqual(len(rules), 3)
        for name, document in rules:
            answer = self.lab.redis_cli("FCALL", "cm_set", "0", "rule", name,
                                        document)
            self.assertTrue(answer.startswith("rev"), f"{name}: {answer}")
        self.lab.settle()
        self.assertEqual(self.lab.status()["hosts"][0]["broken"], [])
        inbox = "a@example.com"
        for text in ("451 4.7.1 Not yet", "421 4.7.0 Go away"):
            client = self.smtp()
            client.mail()
            self.assertEqual(client.rcpt(inbox).text, text)
        self.assert_passes(inbox)


if __name__ == "__main__":
    unittest.main()
