# SPDX-License-Identifier: BSD-2-Clause
"""The audit by HTTP: every face's changes, who made them, before and after."""
import unittest

from labkit import LabTestCase

RULE = {"fault": {"kind": "error", "code": 550}}


class Audit(LabTestCase):
    once = True
    seconds = 15

    def audit(self, query="", status=200):
        answer = self.lab.http("GET", "/api/v1/audit" + query)
        self.assertEqual(answer.status, status, answer)
        return answer.json

    def put(self, name, rule=None):
        answer = self.lab.http("PUT", "/api/v1/rules/" + name, rule or RULE)
        self.assertIn(answer.status, (200, 201), answer)
        return answer.json

    def test_before_and_after_of_a_rule(self):
        one = self.put("told", RULE)
        two = self.put("told", dict(RULE, probability=0.5))
        self.put("beside")
        self.lab.http("POST", "/api/v1/rules/told/move", {"after": "beside"})
        self.lab.http("DELETE", "/api/v1/rules/told")
        entries = self.audit("?key=rule:told")["entries"]
        self.assertEqual([entry["op"] for entry in entries],
                         ["del", "move", "set", "set"])
        self.assertEqual(entries[3]["after"], one)
        self.assertNotIn("before", entries[3])
        self.assertEqual((entries[2]["before"], entries[2]["after"]), (one, two))
        self.assertEqual(entries[2]["revision"], 2)
        self.assertEqual(entries[0]["before"], two)
        self.assertGreater(entries[1]["place"], entries[1]["placeBefore"])
        for entry in entries:
            self.assertRegex(entry["actor"], r"^key:[0-9a-f]{8}$")
            self.assertRegex(entry["time"], r"^20\d\d-\d\d-\d\dT.*Z$")

    def test_inboxes_are_told_apart_whichever_face_set_them(self):
        inbox = self.inbox("told")
        self.lab.set_chaos(inbox, blackhole={"enabled": True})
        self.lab.redis_cli("FCALL", "cm_set", "0", "inbox", inbox,
                           '{"enabled":false}', "*", "ann")
        self.lab.redis_cli("FCALL", "cm_del", "0", "inbox", inbox)
        entries = self.audit("?key=inbox:" + inbox)["entries"]
        self.assertEqual([(entry["op"], entry["actor"][:4]) for entry in entries],
                         [("del", "redi"), ("set", "ann"), ("set", "key:")])
        self.assertEqual(entries[1]["after"], {"enabled": False})
        newest = self.audit("?of=inboxes&limit=1")["entries"][0]
        self.assertEqual(newest["key"], "inbox:" + inbox)
        for entry in self.audit()["entries"]:
            self.assertFalse(entry["key"].startswith("inbox:"), entry)

    def test_pages_go_back_in_time(self):
        for i in range(25):
            self.put(f"page{i:02}")
        seen, query = [], "?limit=10"
        while len(seen) < 25:
            page = self.audit(query)
            seen += [entry["key"] for entry in page["entries"]
                     if entry["key"].startswith("rule:page")]
            query = "?limit=10&from=" + page["next"] if page["next"] else ""
        self.assertEqual(seen[:25],
                         [f"rule:page{i:02}" for i in reversed(range(25))])
        for query in ("?from=x", "?from=1", "?limit=0", "?of=all", "?by=ann"):
            self.audit(query, 400)

    def test_halt_and_resume_are_there_and_a_refused_change_is_not(self):
        self.lab.http("POST", "/api/v1/halt", {"reason": "look"})
        self.lab.http("POST", "/api/v1/resume")
        self.lab.http("PUT", "/api/v1/rules/never", {"fault": {}})
        entries = self.audit("?limit=2")["entries"]
        self.assertEqual([entry["op"] for entry in entries], ["resume", "halt"])
        self.assertEqual(entries[1]["reason"], "look")
        self.assertEqual(self.audit("?key=rule:never")["entries"], [])


if __name__ == "__main__":
    unittest.main()
