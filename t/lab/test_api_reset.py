# SPDX-License-Identifier: BSD-2-Clause
"""Everything back to quiet in one call: what goes, what stays, and that it is
written down."""
import unittest

from labkit import LabTestCase, wait_until

REFUSE = {"enabled": True, "randomError": {
    "enabled": True, "errorRate": 1, "errorTypes": ["permanent"]}}
RULE = {"fault": {"kind": "error", "code": 550}}


class Reset(LabTestCase):
    once = True
    seconds = 15

    def call(self, method, path, body=None, status=200):
        answer = self.lab.http(method, "/api/v1/" + path, body)
        self.assertEqual(answer.status, status, answer)
        return answer

    def code(self, inbox):
        client = self.smtp()
        client.mail()
        code = client.rcpt(inbox).code
        client.close()
        return code

    def test_all_rules_go_only_when_confirmed(self):
        for name in "abc":
            self.call("PUT", "rules/" + name, dict(RULE, inbox="a@x.example"), 201)
        for query in ("", "?confirm=yes", "?confirm=all&x=1"):
            self.call("DELETE", "rules" + query, status=400)
        self.assertEqual(self.call("DELETE", "rules?confirm=all").json,
                         {"removed": 3})
        self.assertEqual(self.call("GET", "rules").json["total"], 0)

    def test_reset_quiets_all_and_counts_it(self):
        self.call("POST", "reset")
        box, ruled, grey = (self.inbox(hint) for hint in ("box", "rule", "grey"))
        self.lab.set_chaos(box, **REFUSE)
        self.lab.set_chaos(grey, greylist={"enabled": True})
        self.call("PUT", "rules/r1", dict(RULE, inbox=ruled), 201)
        self.lab.settle()
        self.assertGreaterEqual(self.code(box), 550)
        self.assertEqual(self.code(ruled), 550)
        self.assertEqual(self.code(grey), 451)
        self.call("POST", "halt", {"reason": "kept"})
        totals = self.lab.redis("HGETALL", "{cm}:st:totals")
        self.assertEqual(self.call("POST", "reset").json["removed"], {
            "inboxes": 2, "rules": 1, "faults": 0, "triggers": 0, "effects": 0})
        self.assertIs(self.call("GET", "halt").json["halted"], True)
        self.assertTrue(totals)
        self.call("POST", "resume")
        self.lab.settle()
        for inbox in (box, ruled, grey):
            self.assert_passes(inbox)
        log = self.lab.redis("XREVRANGE", "{cm}:audit", "+", "-", "COUNT", "20")
        said = [dict(zip(fields[::2], fields[1::2])) for _, fields in log]
        self.assertTrue(any(
            entry["op"] == "wipe" and entry["key"] == "inbox:*" and
            entry["count"] == "2" and entry["actor"].startswith("key:")
            for entry in said), said)

    def test_state_goes_when_asked(self):
        grey = self.inbox("grey")
        config = {"greylist": {"enabled": True, "maxAttempts": 2}}
        self.lab.set_chaos(grey, **config)
        self.lab.settle()
        self.assertEqual(self.code(grey), 451)
        self.call("POST", "reset")
        self.lab.set_chaos(grey, **config)
        self.lab.settle()
        self.assertEqual(self.code(grey), 250)  # the second attempt
        self.assertEqual(self.code(grey), 451)
        removed = self.call("POST", "reset", {"state": True}).json["removed"]
        self.assertGreaterEqual(removed["state"], 1)
        self.assertEqual(self.lab.redis("KEYS", "{cm}:st:grey*"), [])
        self.assertEqual(self.lab.redis("EXISTS", "{cm}:st:hosts",
                                        "{cm}:st:totals"), 2)
        self.lab.set_chaos(grey, **config)
        self.lab.settle()
        self.assertEqual(self.code(grey), 451)  # a first one again

    def test_wrong_bodies_change_nothing(self):
        inbox = self.inbox("stays")
        self.lab.set_chaos(inbox, **REFUSE)
        for body in ({"state": 1}, {"all": True}, []):
            self.call("POST", "reset", body, 422)
        self.assertEqual(self.lab.http("GET", "/api/v1/reset").status, 405)
        self.assertEqual(
            self.lab.http("POST", "/api/v1/reset", key=False).status, 401)
        self.assertIs(self.call("GET", "inboxes/" + inbox).json["enabled"], True)


if __name__ == "__main__":
    unittest.main()
