# SPDX-License-Identifier: BSD-2-Clause
"""Many inboxes by our own API: pages, bulk changes, ranges, and what mail then
meets. H22, H23 and H24 of the list of cases."""
import unittest
import urllib.parse

from labkit import LabTestCase, now, wait_until

REFUSE = {"enabled": True, "randomError": {
    "enabled": True, "errorRate": 1, "errorTypes": ["permanent"]}}


class InboxCase(LabTestCase):
    once = True

    def call(self, method, path="", body=None, status=200, **headers):
        answer = self.lab.http(method, "/api/v1/inboxes" + path, body, headers={
            name.replace("_", "-"): value for name, value in headers.items()})
        self.assertEqual(answer.status, status, answer)
        return answer

    def addresses(self, prefix, limit=100):
        found, after = [], ""
        while True:
            page = self.call("GET", "?" + urllib.parse.urlencode({
                "prefix": prefix, "limit": limit, "after": after})).json
            found += [item["address"] for item in page["inboxes"]]
            if page["next"] is None:
                self.assertEqual(len(found), page["total"])
                return found
            after = page["next"]

    def pointers(self, answer):
        return [error["pointer"] for error in answer.json["errors"]]

    def code(self, inbox):
        client = self.smtp()
        client.mail()
        code = client.rcpt(inbox).code
        client.close()
        return code


class Inboxes(InboxCase):
    seconds = 30

    def test_one_is_the_document_of_the_other_face(self):
        inbox = self.inbox("one")
        self.call("GET", "/" + inbox, status=404)
        put = self.call("PUT", "/" + inbox.upper(), REFUSE)
        first = put.headers["ETag"]
        other = self.lab.http("GET", self.lab.chaos_path(inbox))
        self.assertEqual(other.json, put.json)
        self.assertEqual(self.call("GET", "/" + inbox).json, put.json)
        wait_until("the chaos", lambda: self.code(inbox) >= 550, timeout=2)
        self.call("PUT", "/" + inbox, REFUSE, 412, If_Match='"0"')
        self.call("PUT", "/" + inbox, REFUSE, 412, If_None_Match="*")
        second = self.call("PUT", "/" + inbox, REFUSE, If_Match=first)
        self.call("DELETE", "/" + inbox, status=412, If_Match=first)
        self.call("DELETE", "/" + inbox, status=204,
                  If_Match=second.headers["ETag"])
        self.call("DELETE", "/" + inbox, status=404)
        wait_until("quiet", lambda: self.code(inbox) == 250, timeout=2)

    def test_what_it_compiled_to_is_shown(self):
        inbox = self.inbox("compiled")
        self.call("PUT", "/" + inbox, {
            "enabled": True, "greylist": {"enabled": True},
            "latency": {"enabled": True, "minDelayMs": 1, "maxDelayMs": 9,
                        "probability": 0.5}})
        shown = self.call("GET", f"/{inbox}?compiled=true").json
        self.assertIs(shown["enabled"], True)
        latency, = (rule for rule in shown["rules"]
                    if rule["fault"]["kind"] == "latency")
        self.assertEqual(latency["fault"], {"kind": "latency", "min": 1,
                                            "max": 9})
        self.assertEqual(latency["probability"], 0.5)
        self.assertEqual([rule["fault"]["kind"] for rule in shown["rules"]],
                         ["greylist", "latency"])

    def test_every_fault_is_told_at_once_by_its_member(self):
        answer = self.call("PUT", "/a@example.com", {
            "enabled": "yes", "latency": {"enabled": True, "minDelayMs": -1},
            "colour": 1}, 422)
        self.assertEqual(set(self.pointers(answer)),
                         {"#/enabled", "#/latency/minDelayMs", "#/colour"})
        for path in ("/nobody", "/a@b@c..d", "/@example.com", "/a%00@b"):
            self.call("PUT", path, REFUSE, 400)

    def test_pages_by_prefix_in_byte_order(self):
        names = [f"page-{i:03}@example.com" for i in range(25)]
        self.call("POST", "/set", {"addresses": names, "chaos": REFUSE})
        self.assertEqual(self.addresses("page-", 7), names)
        self.assertEqual(self.addresses("page-01", 7), names[10:20])
        self.assertEqual(self.addresses("page-9"), [])
        page = self.call("GET", "?prefix=page-&limit=2").json
        self.assertEqual(page["total"], 25)
        self.assertGreaterEqual(page["inboxes"][0]["revision"], 1)
        self.assertEqual(page["inboxes"][0]["chaos"]["randomError"]["errorRate"], 1)
        self.lab.redis_cli("FCALL", "cm_set", "0", "inbox", "page-000@example.com",
                           '{"enabled":1}')
        broken = self.call("GET", "?prefix=page-000").json["inboxes"][0]
        self.assertIsNone(broken["chaos"])
        self.assertIn("boolean", broken["error"])
        for query in ("limit=0", "limit=1001", "limit=x", "offset=3"):  # H24
            self.call("GET", "?" + query, status=400)
        for prefix in ("*", "page-*", "[a-z", "?", "\\"):
            self.assertEqual(self.addresses(prefix), [])

    def test_bulk_set_changes_all_or_none(self):  # H23
        names = [self.inbox("bulk") for _ in range(1000)]
        self.assertEqual(self.call("POST", "/set", {
            "addresses": names, "chaos": REFUSE}).json, {"set": 1000})
        wait_until("the last", lambda: self.code(names[-1]) >= 550, timeout=3)
        self.assertEqual(self.call("POST", "/clear", {
            "addresses": names}).json, {"cleared": 1000})
        wait_until("quiet", lambda: self.code(names[-1]) == 250, timeout=3)
        fresh = self.inbox("none")
        for body in ({"addresses": names + [fresh], "chaos": REFUSE},
                     {"addresses": [fresh, "not an address"], "chaos": REFUSE},
                     {"addresses": [fresh, fresh.upper()], "chaos": REFUSE},
                     {"addresses": [fresh, 7], "chaos": REFUSE},
                     {"addresses": [], "chaos": REFUSE},
                     {"addresses": [fresh], "chaos": {"enabled": 1}},
                     {"addresses": [fresh]}, {"chaos": REFUSE}, {}, [],
                     {"addresses": [fresh], "inboxes": [], "chaos": REFUSE}):
            self.call("POST", "/set", body, 422)
        self.call("GET", "/" + fresh, status=404)

    def test_bulk_set_each_its_own(self):
        one, two = self.inbox("each"), self.inbox("each")
        quiet = {"enabled": False}
        self.call("POST", "/set", {"inboxes": [
            {"address": one, "chaos": REFUSE},
            {"address": two, "chaos": quiet}]})
        self.assertEqual(self.call("GET", "/" + two).json, quiet)
        answer = self.call("POST", "/set", {"inboxes": [
            {"address": one, "chaos": {"enabled": True, "x": 1}},
            {"address": "nobody", "chaos": quiet},
            {"chaos": quiet}, 7, {"address": two}]}, 422)
        pointers = self.pointers(answer)
        for pointer in ("#/inboxes/0/chaos/x", "#/inboxes/1/address",
                        "#/inboxes/2/address"):
            self.assertIn(pointer, pointers)
        self.assertTrue(any(p.startswith("#/inboxes/3") for p in pointers))
        self.assertTrue(any(p.startswith("#/inboxes/4") for p in pointers))

    def test_populate_can_be_repeated(self):
        body = {"pattern": "pop-{0001..2500}@example.com", "chaos": REFUSE}
        for _ in range(2):
            self.assertEqual(self.call("POST", "/populate", body).json,
                             {"set": 2500})
            self.assertEqual(self.addresses("pop-", 1000),
                             [f"pop-{i:04}@example.com" for i in range(1, 2501)])
        wait_until("the last", lambda: self.code("pop-2500@example.com") >= 550,
                   timeout=3)
        for pattern in ("a@example.com", "{1..2}", "a{1..2}@@", "{2..1}@x.org",
                        "a{1..10001}@example.com", "a{1..2}{1..2}@x.org", 7):
            self.assertIn("#/pattern", self.pointers(self.call(
                "POST", "/populate", {"pattern": pattern, "chaos": REFUSE}, 422)))
        self.assertIn("#/chaos/enabled", self.pointers(self.call(
            "POST", "/populate", {"pattern": "a{1..2}@x.org", "chaos": {}}, 422)))

    def test_many_are_removed_only_when_confirmed(self):  # H23
        self.call("POST", "/populate", {"pattern": "gone-{1..30}@example.com",
                                        "chaos": REFUSE})
        keep = self.inbox("keep")
        self.call("PUT", "/" + keep, REFUSE)
        for query in ("", "?prefix=gone-", "?prefix=gone-&confirm=all",
                      "?confirm=yes", "?confirm=", "?prefix=gone-&confirm=gone",
                      "?prefix=gone-&force=1&confirm=gone-"):
            self.call("DELETE", query, status=400)
        self.assertEqual(len(self.addresses("gone-")), 30)
        removed = self.call("DELETE", "?prefix=gone-&confirm=gone-").json
        self.assertEqual(removed, {"removed": 30})
        self.call("GET", "/" + keep)
        wait_until("quiet", lambda: self.code("gone-7@example.com") == 250,
                   timeout=2)
        self.assertGreaterEqual(self.code(keep), 550)
        self.call("DELETE", "?confirm=all")
        self.assertEqual(self.addresses(""), [])
        wait_until("quiet", lambda: self.code(keep) == 250, timeout=2)


class ManyInboxes(InboxCase):
    alone = True
    seconds = 60

    def test_a_hundred_thousand(self):
        start = now()
        for i in range(10):
            self.call("POST", "/populate", {
                "pattern": f"m{i}-{{0000..9999}}@example.com", "chaos": REFUSE})
        print(f"100,000 inboxes set: {now() - start:.1f} s")
        start = now()
        page = self.call("GET", "?prefix=m7-&after=m7-5000@example.com&limit=1000").json
        print(f"a page of 1,000: {now() - start:.2f} s")
        self.assertEqual(page["inboxes"][0]["address"], "m7-5001@example.com")
        self.assertEqual(page["total"], 10000)
        self.lab.settle()
        self.assertGreaterEqual(self.code("m9-9999@example.com"), 550)
        start = now()
        self.assertEqual(self.call("DELETE", "?confirm=all").json,
                         {"removed": 100000})
        print(f"all removed: {now() - start:.2f} s")
        wait_until("quiet", lambda: self.code("m9-9999@example.com") == 250,
                   timeout=3)


if __name__ == "__main__":
    unittest.main()
