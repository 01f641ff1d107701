# SPDX-License-Identifier: BSD-2-Clause
"""When chaos is over, switched off, or was never armed."""
import datetime
import json
import unittest

from labkit import LabTestCase, wait_until

REFUSE = {"randomError": {"enabled": True, "errorRate": 1,
                          "errorTypes": ["permanent"]}}


def in_seconds(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + \
        datetime.timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Bounds(LabTestCase):

    def code(self, inbox):
        client = self.smtp()
        client.mail()
        return client.rcpt(inbox).code

    def configure(self, **config):
        inbox = self.inbox("bound")
        self.lab.set_chaos(inbox, **{**REFUSE, **config})
        self.lab.settle()
        return inbox

    def test_disabled_config_lets_mail_pass(self):
        self.assert_passes(self.configure(enabled=False))

    def test_config_that_expired_before_it_was_set_lets_mail_pass(self):
        self.assert_passes(self.configure(expiresAt="2020-01-01T00:00:00Z"))

    def test_config_acts_until_it_expires_and_not_after(self):
        inbox = self.configure(expiresAt=in_seconds(3))
        self.assertGreaterEqual(self.code(inbox), 550)
        wait_until("the expiry", lambda: self.code(inbox) == 250, timeout=6)
        config = self.lab.http("GET", self.lab.chaos_path(inbox)).json
        self.assertTrue(config["enabled"], "nothing is rewritten at expiry")

    def test_config_replaces_and_never_merges(self):
        inbox = self.configure()
        self.lab.set_chaos(inbox, greylist={"enabled": False})
        self.lab.settle()
        self.assert_passes(inbox)

    def test_refused_config_changes_nothing(self):
        inbox = self.configure()
        for body in ('{"enabled":true', '{"enabled":"yes"}', "[]", "null", "",
                     '{"enabled":false,"surprise":1}',
                     '{"enabled":false,"enabled":true}',
                     '{"enabled":false,"latency":{"enabled":true,"maxDelayMs":60001}}'):
            answer = self.lab.http("POST", self.lab.chaos_path(inbox), body)
            self.assertEqual(answer.status, 400, f"{body}: {answer}")
        self.lab.settle()
        self.assertGreaterEqual(self.code(inbox), 550)

    def test_wrong_or_missing_key_changes_nothing(self):
        inbox = self.inbox("key")
        path = self.lab.chaos_path(inbox)
        body = {"enabled": True, **REFUSE}
        answer = self.lab.http("POST", path, body, key=False)
        self.assertEqual(answer.status, 401, answer)
        answer = self.lab.http("POST", path, body, headers={"X-API-Key": "cm_no"})
        self.assertEqual(answer.status, 401, answer)
        self.assertEqual(self.code(inbox), 250)


class Unarmed(LabTestCase):
    """LAB_ARMED=false: nothing that is done at run time can hurt a mail."""

    armed = False

    def test_api_refuses_with_403_and_mail_passes(self):
        inbox = self.inbox("unarmed")
        answer = self.lab.http("POST", self.lab.chaos_path(inbox),
                               {"enabled": True, **REFUSE})
        self.assertEqual(answer.status, 403, answer)
        self.assertEqual(answer.json["statusCode"], 403)
        self.assertTrue(answer.json["message"].startswith(
            "Chaos engineering features are disabled."), answer)
        self.assert_passes(inbox)

    def test_rule_written_through_redis_hurts_no_mail(self):
        inbox = self.inbox("unarmed")
        for config in (REFUSE, {"blackhole": {"enabled": True}},
                       {"greylist": {"enabled": True}}):
            self.lab.redis_cli("FCALL", "cm_set", "0", "inbox", inbox,
                               json.dumps({"enabled": True, **config}))
            self.lab.settle()
            self.assert_passes(inbox)
        self.assertEqual(self.lab.incidents(inbox), [])

    def test_server_info_and_status_say_so(self):
        info = self.lab.http("GET", "/api/server-info").json
        self.assertIs(info["chaosEnabled"], False)
        self.assertIs(self.lab.status()["hosts"][0]["armed"], False)


if __name__ == "__main__":
    unittest.main()
