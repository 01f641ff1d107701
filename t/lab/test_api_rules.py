# SPDX-License-Identifier: BSD-2-Clause
"""Rules of our own API: their documents, their order, and what a mail then
meets. H22 and H24 of the list of cases."""
import json
import time
import unittest

from labkit import LabTestCase, now, wait_until

REFUSE = {"kind": "error", "code": 550, "text": "no"}


def refuse(code, **match):
    return dict(match, fault={"kind": "error", "code": code, "text": f"is {code}"})


class RuleCase(LabTestCase):
    once = True

    def setUp(self):
        super().setUp()
        for item in self.pages():
            self.call("DELETE", "/" + item["id"], status=204)

    def call(self, method, path="", body=None, status=200, **headers):
        answer = self.lab.http(method, "/api/v1/rules" + path, body, headers={
            name.replace("_", "-"): value for name, value in headers.items()})
        self.assertEqual(answer.status, status, answer)
        return answer

    def pages(self, limit=100):
        items, after = [], ""
        while True:
            page = self.call("GET", f"?limit={limit}{after}").json
            items += page["rules"]
            if page["next"] is None:
                self.assertEqual(len(items), page["total"])
                return items
            after = "&after=" + page["next"]

    def order(self):
        return [item["id"] for item in self.pages()]

    def code(self, inbox, **options):
        client = self.smtp(**options)
        client.mail()
        code = client.rcpt(inbox).code
        client.close()
        return code


class Documents(RuleCase):
    seconds = 20

    def test_create_read_replace_delete(self):
        rule = {"description": "first", "inbox": "a@example.com",
                "fault": REFUSE}
        made = self.call("POST", "", rule, 201)
        name = made.json["id"]
        self.assertRegex(name, r"^r[0-9a-f]{10}$")
        self.assertEqual(made.headers["Location"], "/api/v1/rules/" + name)
        self.assertEqual(made.headers["ETag"], '"1"')
        self.assertEqual(made.json, dict(rule, id=name))
        got = self.call("GET", "/" + name)
        self.assertEqual((got.text, got.headers["ETag"]), (made.text, '"1"'))
        changed = dict(got.json, description="second")
        put = self.call("PUT", "/" + name, changed)
        self.assertEqual((put.json, put.headers["ETag"]), (changed, '"2"'))
        self.call("DELETE", "/" + name, status=204)
        for method in ("GET", "DELETE"):
            gone = self.call(method, "/" + name, status=404)
            self.assertEqual(gone.headers["Content-Type"],
                             "application/problem+json")

    def test_id_may_be_given_and_must_be_free(self):
        self.call("POST", "", {"id": "mine", "fault": REFUSE}, 201)
        taken = self.call("POST", "", {"id": "mine", "fault": REFUSE}, 409)
        self.assertIn("mine", taken.json["detail"])
        self.call("POST", "?before=mine", {"id": "mine", "fault": REFUSE}, 409)
        self.call("PUT", "/other", {"fault": REFUSE}, 201)
        self.assertEqual(self.call("GET", "/other").json["id"], "other")
        self.call("PUT", "/other", {"id": "mine", "fault": REFUSE}, 422)

    def test_revisions_guard_against_lost_updates(self):  # H22
        self.call("PUT", "/r1", {"fault": REFUSE}, 201, If_None_Match="*")
        self.call("PUT", "/r1", {"fault": REFUSE}, 412, If_None_Match="*")
        self.call("PUT", "/r1", {"fault": REFUSE}, 200, If_Match='"1"')
        stale = self.call("PUT", "/r1", {"fault": REFUSE}, 412, If_Match='"1"')
        self.assertEqual(stale.headers["ETag"], '"2"')
        self.call("PUT", "/r9", {"fault": REFUSE}, 412, If_Match="*")
        self.call("DELETE", "/r1", status=412, If_Match='"1"')
        self.call("POST", "/r1/disable", status=412, If_Match='"1"')
        self.call("POST", "/r1/disable", If_Match='"2"')
        self.call("PUT", "/r2", {"fault": REFUSE}, 201)
        self.call("POST", "/r2/move", {"before": "r1"}, 412, If_Match='"7"')
        self.call("POST", "/r2/move", {"before": "r1"}, If_Match='"1"')
        self.call("DELETE", "/r1", status=204, If_Match='"3"')

    def test_every_fault_is_told_at_once_by_its_member(self):
        answer = self.call("POST", "", {
            "id": "not good", "colour": "red", "probability": 2,
            "client": "nowhere", "expiresAt": "soon",
            "fault": {"kind": "error", "code": 250, "text": "a\r\nb"}}, 422)
        self.assertEqual(answer.headers["Content-Type"],
                         "application/problem+json")
        problem = answer.json
        self.assertEqual((problem["status"], problem["title"]),
                         (422, "Unprocessable Content"))
        pointers = {error["pointer"] for error in problem["errors"]}
        for pointer in ("#/id", "#/colour", "#/probability", "#/client",
                        "#/expiresAt", "#/fault/code", "#/fault/text"):
            self.assertIn(pointer, pointers)
        self.assertEqual(self.order(), [])

    def test_stage_condition_and_fault_must_go_together(self):
        for rule, pointer in (
                ({"stage": "connect", "fault": {"kind": "blackhole"}},
                 "#/stage"),
                ({"stage": "rcpt", "header": {"X-A": "b"}, "fault": REFUSE},
                 "#/header"),
                ({"stage": "auth", "client": "192.0.2.1", "fault": REFUSE},
                 "#/client"),
                ({"stage": "mail", "inbox": "a@b", "fault": REFUSE},
                 "#/inbox"),
                ({"fault": {"kind": "sequence", "steps": ["ok", "200 x"]}},
                 "#/fault/steps/1"),
                ({}, "#/fault")):
            errors = self.call("POST", "", rule, 422).json["errors"]
            self.assertTrue(any(error["pointer"].startswith(pointer)
                                for error in errors), (rule, errors))

    def test_malformed_requests(self):
        self.call("POST", "", "{", 400)
        self.call("POST", "", "[]", 422)
        self.call("POST", "", '{"fault":{"kind":"error"},"fault":{}}', 400)
        self.call("POST", "?before=a&after=b", {"fault": REFUSE}, 400)
        self.call("POST", "?first=1", {"fault": REFUSE}, 400)
        self.call("POST", "?before=nobody", {"fault": REFUSE}, 409)
        for query in ("limit=0", "limit=1001", "limit=-1", "limit=1e3",
                      "limit=", "after=x", "after=1", "after=1.", "order=up",
                      "after=" + "9" * 200):  # H24
            self.call("GET", "?" + query, status=400)
        self.call("PATCH", "/r1", {"fault": REFUSE}, 405)
        self.call("PUT", "/-r", {"fault": REFUSE}, 400)
        self.call("PUT", "/" + "r" * 65, {"fault": REFUSE}, 422)
        self.assertEqual(self.order(), [])

    def test_broken_document_is_shown_and_can_be_replaced(self):
        self.lab.redis_cli("FCALL", "cm_set", "0", "rule", "bad", '{"a":1}')
        self.lab.redis("SET", "{cm}:cfg:rule:worse", "garbage")
        self.lab.redis("ZADD", "{cm}:idx", "0", "rule:worse")
        self.call("PUT", "/good", {"fault": REFUSE}, 201)
        items = {item["id"]: item for item in self.pages()}
        self.assertIn("should not exist", items["bad"]["error"])
        self.assertIsNone(items["worse"]["rule"])
        self.assertNotIn("error", items["good"])
        self.call("GET", "/bad", status=500)
        self.call("POST", "/worse/enable", status=503)
        self.call("PUT", "/bad", {"fault": REFUSE})
        self.call("GET", "/bad")
        self.lab.redis("DEL", "{cm}:cfg:rule:worse")
        self.lab.redis("ZREM", "{cm}:idx", "rule:worse")


class Order(RuleCase):
    seconds = 20

    def add(self, *names):
        for name in names:
            self.call("PUT", "/" + name, {"fault": REFUSE}, 201)

    def test_insert_before_after_and_at_the_end(self):
        self.add("b", "d")
        self.call("POST", "?before=b", {"id": "a", "fault": REFUSE}, 201)
        self.call("POST", "?after=b", {"id": "c", "fault": REFUSE}, 201)
        self.call("POST", "?after=d", {"id": "e", "fault": REFUSE}, 201)
        self.call("POST", "", {"id": "f", "fault": REFUSE}, 201)
        self.assertEqual(self.order(), list("abcdef"))
        # Places beyond the numbers of changes: redis-cli's are still at the end.
        self.lab.redis_cli("FCALL", "cm_set", "0", "rule", "g",
                           json.dumps({"fault": REFUSE}))
        self.assertEqual(self.order(), list("abcdefg"))

    def test_move(self):
        self.add(*"abcd")
        before = self.call("GET", "/d").headers["ETag"]
        moved = self.call("POST", "/d/move", {"before": "b"})
        self.assertEqual(moved.headers["ETag"], before)
        self.assertEqual(moved.json["id"], "d")
        self.assertEqual(self.order(), list("adbc"))
        self.call("POST", "/a/move", {"after": "c"})
        self.assertEqual(self.order(), list("dbca"))
        self.call("POST", "/a/move", {"after": "c"})
        self.assertEqual(self.order(), list("dbca"))
        for body, status in (({}, 422), ({"before": "a"}, 422),
                             ({"before": "b", "after": "c"}, 422),
                             ({"before": "nobody"}, 409), ({"to": 1}, 422)):
            self.call("POST", "/a/move", body, status)
        self.call("POST", "/nobody/move", {"before": "a"}, 404)
        self.assertEqual(self.order(), list("dbca"))

    def test_insert_at_one_spot_a_hundred_times(self):
        self.add("first", "last")
        for i in range(100):
            self.call("POST", "?after=first",
                      {"id": f"r{i:03}", "fault": REFUSE}, 201)
        self.assertEqual(self.order(), ["first"] + [
            f"r{i:03}" for i in reversed(range(100))] + ["last"])
        revisions = {item["revision"] for item in self.pages()}
        self.assertEqual(revisions, {1})  # those that made room are the same

    def test_pages_follow_each_other_when_rules_go(self):
        self.add(*(f"r{i:02}" for i in range(30)))
        first = self.call("GET", "?limit=10").json
        self.assertEqual(first["total"], 30)
        self.call("DELETE", "/r09", status=204)
        self.call("DELETE", "/r10", status=204)
        second = self.call("GET", "?limit=10&after=" + first["next"]).json
        self.assertEqual([item["id"] for item in second["rules"]],
                         [f"r{i}" for i in range(11, 21)])


class Faces(RuleCase):
    """What each face compiled to, in the order of evaluation."""
    seconds = 20

    def face(self, method, path, body=None):
        answer = self.lab.http(method, path, body)
        self.assertEqual(answer.status, 200, answer)

    def setUp(self):
        super().setUp()
        self.addCleanup(self.face, "PUT", "/api/v1/chaos", {})
        self.addCleanup(self.face, "POST", "/chaos/effects", {"latency": 0})
        self.addCleanup(self.face, "POST", "/chaos/faults", [])
        self.face("PUT", "/api/v1/chaos", {
            "Authentication": {"ErrorCode": 454, "Probability": 25}})
        self.face("POST", "/chaos/effects", {"latency": 30})
        self.face("POST", "/chaos/faults", [
            {"inbox": "*@a.example", "error": {"statusCode": 553,
                                               "code": "5.1.3"}},
            {"inbox": "b@example.com", "probability": 0.5}])
        self.call("PUT", "/own", {"mode": "shadow", "domain": "Example.COM",
                                  "fault": {"kind": "error"}}, 201)

    def listed(self, query=""):
        return self.call("GET", "?face=all" + query).json

    def test_all_are_shown_in_the_order_of_evaluation(self):
        listed = self.listed()
        self.assertEqual(listed["order"],
                         ["inbox", "rule", "fault", "trigger", "effect"])
        rules = listed["rules"]
        self.assertEqual((listed["total"], listed["next"]), (len(rules), None))
        self.assertEqual([item["face"] for item in rules],
                         ["rule", "fault", "fault", "trigger", "trigger",
                          "trigger", "effect"])
        own, first, second, *triggers, effect = (
            item["compiled"] for item in rules)
        # Those of probability 0 become no rule.
        trigger, = (rule for rule in triggers if rule)
        self.assertEqual((own["stage"], own["mode"], own["domain"]),
                         ("rcpt", "shadow", "example.com"))
        self.assertEqual(own["fault"]["code"], 451)
        self.assertEqual((first["inbox"], first["fault"]["code"],
                          first["fault"]["enhanced"]),
                         ("*@a.example", 553, "5.1.3"))
        self.assertEqual((second["inbox"], second["probability"]),
                         ("b@example.com", 0.5))
        self.assertEqual((trigger["stage"], trigger["probability"],
                          trigger["fault"]["code"]), ("auth", 0.25, 454))
        self.assertEqual(effect["fault"], {"kind": "latency", "ms": 30})
        self.assertEqual(rules[1]["rule"]["error"]["statusCode"], 553)
        self.assertNotIn("error", {key for item in rules for key in item})

    def test_what_is_shown_is_a_document_that_can_be_posted(self):
        for item in self.listed()["rules"]:
            if item["compiled"] is None:
                continue
            compiled = dict(item["compiled"], id="copy")
            self.call("PUT", "/copy", compiled, 201)
            again, = (entry["compiled"] for entry in self.listed()["rules"]
                      if entry["id"] == "copy")
            self.assertEqual(again, compiled)
            self.call("DELETE", "/copy", status=204)

    def test_pages_and_hits_go_across_the_faces(self):
        items, after = [], ""
        while after is not None:
            page = self.listed("&limit=2" + (after and "&after=" + after))
            self.assertLessEqual(len(page["rules"]), 2)
            items += page["rules"]
            after = page["next"]
        self.assertEqual(items, self.listed()["rules"])
        self.lab.settle()
        self.assertEqual(self.code("x@a.example"), 553)
        wait_until("the hit of a fault", lambda: [
            item["hits"] for item in self.listed()["rules"]][1] == 1, timeout=3)
        self.assertEqual([item["id"] for item in self.pages()], ["own"])
        self.call("GET", "?face=mailpit", status=400)


class Effect(RuleCase):
    seconds = 30

    def test_first_that_matches_decides_and_a_move_changes_who_that_is(self):
        inbox = self.inbox("order")
        self.call("PUT", "/one", refuse(551, inbox=inbox), 201)
        self.call("PUT", "/two", refuse(552, inbox=inbox), 201)
        wait_until("the first", lambda: self.code(inbox) == 551, timeout=2)
        self.call("POST", "/two/move", {"before": "one"})
        wait_until("the moved one", lambda: self.code(inbox) == 552, timeout=2)
        self.call("POST", "/two/disable")
        wait_until("the other", lambda: self.code(inbox) == 551, timeout=2)
        self.assertIs(self.call("GET", "/two").json["enabled"], False)
        self.call("POST", "/two/enable")
        wait_until("it again", lambda: self.code(inbox) == 552, timeout=2)
        self.call("DELETE", "/two", status=204)
        self.call("DELETE", "/one", status=204)
        wait_until("nothing", lambda: self.code(inbox) == 250, timeout=2)

    def test_hits_are_counted_and_shadow_apart(self):
        inbox = self.inbox("hits")
        self.call("PUT", "/live", refuse(550, inbox=inbox), 201)
        self.call("POST", "?before=live",
                  dict(refuse(551, inbox=inbox), id="shadow", mode="shadow"),
                  201)
        self.lab.settle()
        for _ in range(3):
            self.assertEqual(self.code(inbox), 550)

        def counted():
            items = {item["id"]: item for item in self.pages()}
            return (items["live"]["hits"], items["live"]["shadowed"],
                    items["shadow"]["hits"], items["shadow"]["shadowed"])

        wait_until("the hits", lambda: counted() == (3, 0, 0, 3), timeout=3)
        self.call("DELETE", "/live", status=204)
        self.call("PUT", "/live", refuse(550, inbox=inbox), 201)
        self.assertEqual(counted(), (0, 0, 0, 3))

    def test_max_hits_begins_again_with_a_new_rule_of_the_name(self):
        inbox = self.inbox("max")
        rule = refuse(550, inbox=inbox, maxHits=1)
        for _ in range(2):
            self.call("PUT", "/once", rule, 201)
            self.lab.settle()
            self.assertEqual(self.code(inbox), 550)
            self.assertEqual(self.code(inbox), 250)
            self.call("DELETE", "/once", status=204)


class TenThousand(RuleCase):
    alone = True
    seconds = 60

    def setUp(self):
        LabTestCase.setUp(self)

    def test_ten_thousand_rules_work_and_a_halt_is_obeyed_among_them(self):
        inbox = self.inbox("many")
        words = []
        for i in range(10000):
            words += ["set", "rule", f"r{i:05}", "*", "*", json.dumps(
                refuse(550, inbox=f"user{i}@example.net"))]
        for at in range(0, len(words), 6 * 2000):
            self.lab.redis_cli("FCALL", "cm_batch", "0", "test",
                               *words[at:at + 6 * 2000])
        self.call("PUT", "/last", refuse(552, inbox=inbox), 201)
        self.lab.settle()
        self.assertEqual(self.code(inbox), 552)
        start = now()
        items = self.pages(1000)
        print(f"10,001 rules in pages of 1,000: {now() - start:.2f} s")
        self.assertEqual([item["id"] for item in items],
                         [f"r{i:05}" for i in range(10000)] + ["last"])
        start = now()
        self.call("POST", "?before=r00000",
                  dict(refuse(553, inbox=inbox), id="zero"), 201)
        print(f"one inserted before the first: {now() - start:.2f} s")
        wait_until("the new first", lambda: self.code(inbox) == 553, timeout=5)
        # A filter that compiles all of them anew obeys no later.
        times = []
        for i in range(10):
            client = self.smtp()
            client.mail()
            self.call("PUT", "/last", refuse(552, inbox=inbox))
            halted = self.lab.http("POST", "/api/v1/halt")
            self.assertEqual(halted.status, 200)
            start = now()
            while client.rcpt(inbox).code != 250:
                self.assertLess(now() - start, 5)
            times.append((now() - start) * 1000)
            client.close()
            self.lab.http("POST", "/api/v1/resume")
            time.sleep(0.3)
        times.sort()
        print(f"halt among 10,000 rules being compiled: median "
              f"{times[5]:.1f} ms, worst {times[-1]:.1f} ms")
        self.assertLess(times[-2], 100)


if __name__ == "__main__":
    unittest.main()
