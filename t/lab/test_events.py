# SPDX-License-Identifier: BSD-2-Clause
"""Events over HTTP: pages of what happened, and the streams of what happens.
Most entries are put into Redis by hand, so that every field is known; that mails
make the right ones is asked at the end. Names like H18 in a test's first line
are the cases it covers."""
import json
import re
import unittest

import test_http
from labkit import LabTestCase

FIELDS = {"time": "1700000000000", "host": "mx1", "n": "1", "kind": "error",
          "outcome": "applied", "stage": "rcpt", "variant": "",
          "inbox": "a@example.com", "sender": "s@example.org",
          "rule": "inbox:randomError", "client": "192.0.2.1", "qid": "",
          "reply": "451 4.3.0 Temporary processing error", "detail": "",
          "probability": "1000000000", "occurrence": "0", "committed": "no",
          "asked": "-1", "measured": "-1", "others": "0"}


def add(redis, entry="*", **fields):
    """One entry of the stream; its id."""
    words = [word for pair in {**FIELDS, **fields}.items() for word in pair]
    return redis.ask("XADD", test_http.PREFIX + ":ev", entry, *words)


class Case(test_http.Case):
    def setUp(self):
        self.redis.ask("DEL", test_http.PREFIX + ":ev")

    def add(self, entry="*", **fields):
        return add(self.redis, entry, **fields)

    def events(self, query=""):
        answer = self.admin.get("/api/v1/events" + query)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json


class Pages(Case):
    def test_newest_first_page_by_page_to_the_end(self):
        ids = [self.add(n=n) for n in range(1, 8)]
        self.assertEqual(self.events()["next"], None)
        seen, query = [], "?limit=3"
        while query:
            page = self.events(query)
            self.assertLessEqual(len(page["events"]), 3)
            seen += page["events"]
            query = page["next"] and "?limit=3&before=" + page["next"]
        self.assertEqual([event["id"] for event in seen], ids[::-1])
        self.assertEqual([event["n"] for event in seen], [7, 6, 5, 4, 3, 2, 1])

    def test_after_is_oldest_first_and_always_has_a_cursor(self):
        ids = [self.add() for _ in range(5)]
        page = self.events("?limit=2&after=" + ids[1])
        self.assertEqual([event["id"] for event in page["events"]], ids[2:4])
        page = self.events("?limit=2&after=" + page["next"])
        self.assertEqual([event["id"] for event in page["events"]], ids[4:])
        page = self.events("?limit=2&after=" + page["next"])
        self.assertEqual((page["events"], page["next"]), ([], ids[4]))
        new = self.add()
        page = self.events("?after=" + page["next"])
        self.assertEqual([event["id"] for event in page["events"]], [new])

    def test_an_empty_stream_is_an_empty_page(self):
        self.assertEqual(self.admin.get("/api/v1/events").text, '{"events":[],"next":null}')

    def test_filters_find_the_few_among_the_many(self):
        for n in range(1500):
            self.add(inbox=f"x{n % 7}@example.com")
        wanted = self.add(inbox="a+t@example.com", kind="greylist", rule="r7", stage="message", outcome="shadow")
        for n in range(1500):
            self.add()
        for query in ("kind=greylist", "rule=r7", "stage=message", "outcome=shadow", "kind=greylist,drop",
                      "inbox=a%2Bt@example.com", "inbox=a@example.com&stage=message"):
            page = self.events("?" + query)
            self.assertEqual([event["id"] for event in page["events"]], [wanted], query)
            self.assertIsNone(page["next"])
        self.assertEqual(len(self.events("?inbox=x3@example.com&limit=1000")["events"]), sum(n % 7 == 3 for n in range(1500)))

    def test_a_search_that_finds_nothing_ends_early_with_a_cursor(self):
        for _ in range(5200):
            self.add()
        page = self.events("?kind=drop")
        self.assertEqual(page["events"], [])
        self.assertIsNotNone(page["next"])
        page = self.events("?kind=drop&before=" + page["next"])
        self.assertEqual((page["events"], page["next"]), ([], None))

    def test_cursors_and_limits_are_validated(self):
        """H24"""
        bad = ["limit=-1", "limit=0", "limit=1001", "limit=1e9", "limit=", "limit=5x", "after=", "after=x",
               "after=1", "before=1-", "after=1-1&before=2-1", "after=(1-1", "after=$", "before=%2B", "before=-",
               "after=1-1%0D%0A", "after=99999999999999999999-0", "kind=moon", "stage=*", "outcome=",
               "inbox=a@@b", "inbox=", "frm=1-1", "kind=error&kind=drop"]
        for query in bad:
            answer = self.admin.get("/api/v1/events?" + query)
            self.assertEqual(answer.status, 400, query)
            self.assertEqual(answer.headers["Content-Type"], "application/problem+json", query)
            self.assertTrue(answer.json["detail"], query)
        answer = self.admin.get("/api/v1/events?limit=0&kind=moon&frm=1")
        self.assertEqual([text.split(":")[0].split()[0] for text in answer.json["errors"]],
                         ["frm", "kind", "limit"])

    def test_what_came_from_outside_stays_data(self):
        """H19"""
        evil = '"<img src=x onerror=alert(1)>\r\nid: 1\n\n\u2028"@x'
        self.add(inbox=evil, detail="\x00\x01\x7f\\\"", reply="x")
        self.add(inbox=evil, detail="\x01\x7f\\\"", reply=b"\xff\xc0\xaf")
        text = self.admin.get("/api/v1/events").text
        self.assertNotRegex(text, r"[\x00-\x1f]")
        events = json.loads(text)["events"]
        self.assertEqual(len(events), 1)
        self.assertEqual(events[0]["recipient"], evil)
        self.assertEqual(events[0]["detail"], "\x01\x7f\\\"")
        self.assertEqual(events[0]["reply"], "???")

    def test_entries_of_others_are_passed_over(self):
        self.redis.ask("XADD", test_http.PREFIX + ":ev", "*", "hello", "world")
        mine = self.add()
        self.redis.ask("XADD", test_http.PREFIX + ":ev", "*", "kind", "error")
        self.assertEqual([event["id"] for event in self.events()["events"]], [mine])

    def test_needs_the_key_and_redis(self):
        self.assertEqual(self.admin.get("/api/v1/events", key=None).status, 401)
        redis = self.new_redis()
        admin = self.new_admin(redis)
        redis.kill()
        answer = admin.get("/api/v1/events")
        self.assertEqual(answer.status, 503)
        self.assertIn("Retry-After", answer.headers)


class Mails(LabTestCase):
    """What a mail that met a fault leaves behind, as the API tells it."""

    def events(self, query):
        answer = self.lab.http("GET", "/api/v1/events?" + query)
        self.assertEqual(answer.status, 200, answer)
        return answer.json["events"]

    def only_event(self, inbox, kind):
        self.lab.wait_incident(inbox, kind)
        events = self.events(f"inbox={inbox}&kind={kind}")
        self.assertEqual(len(events), 1, events)
        return events[0]

    def assert_members(self, event, **members):
        for name, value in members.items():
            self.assertEqual(event[name], value, name)

    def test_error_says_what_the_client_was_told(self):
        inbox = self.inbox("error")
        self.lab.set_chaos(inbox, randomError={"enabled": True, "errorRate": 1, "errorTypes": ["permanent"]})
        self.lab.settle()
        sent = self.send(inbox, sender="")
        event = self.only_event(inbox, "error")
        self.assert_members(
            event, reply=sent.rcpts[0].text, sender="<>", recipient=inbox, stage="rcpt", client="127.0.0.1",
            rule="inbox:randomError", fault={"kind": "error"}, outcome="applied", committed=False, delay=None,
            coin={"probability": 1, "occurrence": None}, others=0)
        self.assertRegex(event["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertRegex(event["id"], r"^\d+-\d+$")

    def test_seeded_coin_names_the_occurrence(self):
        inbox = self.inbox("seeded")
        self.lab.set_chaos(inbox, seed=7, randomError={"enabled": True, "errorRate": 0.5,
                                                  "errorTypes": ["permanent"]})
        self.lab.settle()
        hurt = [n for n in range(1, 13) if self.send(inbox).rcpts[0].code != 250]
        self.assertTrue(hurt, "the coin never fell")
        self.lab.wait_incident(inbox, "error", lambda event: int(event["occurrence"]) == hurt[-1])
        events = self.events("inbox=" + inbox)
        self.assertEqual([event["coin"]["occurrence"] for event in events][::-1], hurt)
        self.assertEqual(events[0]["coin"]["probability"], 0.5)

    def test_latency_tells_asked_and_measured(self):
        inbox = self.inbox("slow")
        self.lab.set_chaos(inbox, latency={"enabled": True, "minDelayMs": 120, "maxDelayMs": 120, "jitter": False})
        self.lab.settle()
        sent = self.send(inbox)
        event = self.only_event(inbox, "latency")
        self.assertEqual(event["delay"]["askedMs"], 120)
        self.assertGreaterEqual(event["delay"]["measuredMs"], 120)
        self.assert_members(event, committed=True, stage="message", reply=None)
        self.assertEqual(event["queueId"], re.search(r"queued as (\w+)", sent.end.text).group(1))

    def test_blackhole_was_taken_over_and_lost_was_not(self):
        hole, lost = self.inbox("hole"), self.inbox("lost")
        self.lab.set_chaos(hole, blackhole={"enabled": True, "triggerWebhooks": True})
        self.lab.set_chaos(lost, connectionDrop={"enabled": True, "graceful": False})
        self.lab.settle()
        self.send(hole)
        event = self.only_event(hole, "blackhole")
        self.assert_members(event, committed=True, fault={"kind": "blackhole", "triggerWebhooks": True})
        client = self.smtp()
        client.mail()
        client.rcpt(lost)
        with self.assertRaises(Exception):
            client.data(b"Subject: x\r\n\r\nx\r\n")
        event = self.only_event(lost, "drop")
        self.assert_members(event, committed=False, outcome="applied",
                            fault={"kind": "drop", "how": "rst", "outcome": "lost"})


if __name__ == "__main__":
    unittest.main()
