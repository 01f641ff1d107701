# SPDX-License-Identifier: BSD-2-Clause
"""Events over HTTP: pages of what happened, and the streams of what happens.
Most entries are put into Redis by hand, so that every field is known; that mails
make the right ones is asked at the end. Names like H18 in a test's first line
are the cases it covers."""
import json
import re
import select
import socket
import time
import unittest

import test_http
from labkit import LabTestCase
from mtas import MTA

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
        # Not DEL: a new stream might begin with an id of the same millisecond.
        self.redis.ask("XTRIM", test_http.PREFIX + ":ev", "MAXLEN", "0")

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
        self.assertEqual([one["pointer"] for one in answer.json["errors"]],
                         ["#/frm", "#/kind", "#/limit"])

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


class Stream:
    """A client of an event stream: raw, so that it can be slow or rude."""

    def __init__(self, admin, path="/api/v1/events", key="own", source=None, last=None, receive=None, **headers):
        self.socket = admin.connect(source) if not receive else self.small(admin, receive)
        headers.setdefault("Accept", "text/event-stream")
        headers["Host"] = f"127.0.0.1:{admin.port}"
        if key:
            headers["X-API-Key"] = admin.key if key == "own" else key
        if last is not None:
            headers["Last-Event-ID"] = last
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        self.socket.settimeout(5)
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while (line := self.file.readline().strip()):
            name, _, value = line.decode().partition(": ")
            self.headers[name] = value
        self.text = b""

    @staticmethod
    def small(admin, receive):
        """With so small a receive buffer that little is under way."""
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        s.connect(("127.0.0.1", admin.port))
        return s

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def chunk(self):
        """The next piece of the body; b"" at its end."""
        size = int(self.file.readline() or b"0", 16)
        data = self.file.read(size)
        self.file.readline()
        return data

    def frame(self, timeout=5):
        """The next frame as a dict of its fields, comments under ""; None at the end."""
        self.socket.settimeout(timeout)
        while b"\n\n" not in self.text:
            data = self.chunk()
            if not data:
                return None
            self.text += data
        frame, self.text = self.text.split(b"\n\n", 1)
        return dict(line.split(": ", 1) for line in frame.decode().replace("\n: ", "\n : ").split("\n"))

    def event(self, timeout=5):
        """The next frame that carries data."""
        while True:
            frame = self.frame(timeout)
            if frame is None or "data" in frame:
                return frame

    def data(self):
        return json.loads(self.event()["data"])

    def silent(self, seconds=0.3):
        return not self.text and not select.select([self.socket], [], [], seconds)[0]

    def ended(self):
        """Did the server end it?"""
        try:
            while self.frame():
                pass
            return True
        except (ConnectionResetError, ValueError):
            return True


class Streams(Case):
    def open(self, *args, **more):
        stream = Stream(self.admin, *args, **more)
        self.addCleanup(stream.close)
        return stream

    def greeted(self, *args, **more):
        stream = self.open(*args, **more)
        self.assertEqual(stream.status, 200)
        self.assertEqual(stream.frame(), {"retry": "2000"})
        return stream

    def test_each_event_comes_at_once_as_one_line_with_its_id(self):
        stream = self.greeted()
        self.assertEqual(stream.headers["Content-Type"], "text/event-stream")
        self.assertEqual(stream.headers["Cache-Control"], "no-store")
        self.assertTrue(stream.silent())
        for n in range(20):
            begin = time.monotonic()
            entry = self.add(n=n)
            frame = stream.event()
            self.assertLess(time.monotonic() - begin, 1)
            self.assertEqual(list(frame), ["id", "data"])
            self.assertEqual(frame["id"], entry)
            self.assertEqual(json.loads(frame["data"]), self.events("?limit=1")["events"][0])

    def test_events_of_the_past_do_not_come_unasked(self):
        before = self.greeted()
        self.assertEqual(self.add(), before.event()["id"])  # so it is past
        stream = self.greeted()
        new = self.add()
        self.assertEqual(stream.event()["id"], new)

    def test_filters_select(self):
        stream = self.greeted("/api/v1/events?kind=drop,error&inbox=a@example.com&outcome=applied")
        self.add(inbox="b@example.com")
        self.add(kind="latency")
        self.add(outcome="shed")
        first, second = self.add(inbox="a+t@example.com"), self.add(kind="drop")
        self.assertEqual([stream.event()["id"], stream.event()["id"]], [first, second])

    def test_what_cannot_match_is_refused_before_the_stream_begins(self):
        for query in ("kind=moon", "limit=5", "after=x", "x=1"):
            stream = self.open("/api/v1/events?" + query)
            self.assertEqual(stream.status, 400, query)

    def test_lines_cannot_be_forged(self):
        """H19"""
        stream = self.greeted()
        evil = "x\r\n\nid: 666\nevent: reset\ndata: {}\n\n"
        self.add(inbox=evil, detail=evil, rule=evil, kind=evil, qid=evil, reply=evil, host=evil)
        last = self.add()
        frame = stream.event()
        self.assertEqual(list(frame), ["id", "data"])
        self.assertEqual(json.loads(frame["data"])["detail"], evil)
        self.assertEqual(stream.event()["id"], last)

    def test_last_event_id_resumes_without_a_gap(self):
        """H18"""
        stream = self.greeted()
        ids = [self.add(n=n) for n in range(10)]
        seen = [stream.event()["id"] for _ in range(4)]
        stream.close()
        again = self.greeted(last=seen[-1])
        new = self.add()
        self.assertEqual(seen + [again.event()["id"] for _ in range(7)], ids + [new])
        by_query = self.greeted("/api/v1/events?after=" + ids[-1])
        self.assertEqual(by_query.event()["id"], new)

    def test_an_id_that_says_nothing_is_a_reset(self):
        """H18"""
        self.greeted()
        entry = self.add()
        test_http.wait_until("the event to be known", lambda: self.resumes(entry))
        for last in ("garbage", "1-1", "99999999999999-0", "-1", "0", entry + "x", "'; DROP TABLE--"):
            stream = self.greeted(last=last)
            frame = stream.event()
            self.assertEqual(frame.get("event"), "reset", last)
            self.assertIn("reason", json.loads(frame["data"]))
            new = self.add()
            self.assertEqual(stream.event()["id"], new)

    def resumes(self, entry):
        with Stream(self.admin, last=entry) as stream:
            stream.frame()
            return stream.silent(0.05)

    def test_a_restarted_daemon_still_resumes(self):
        admin = self.new_admin()
        with Stream(admin) as stream:
            stream.frame()
            ids = [self.add(n=n) for n in range(5)]
            self.assertEqual(stream.event()["id"], ids[0])
        admin.stop()
        admin.start()
        with Stream(admin, last=ids[0]) as stream:
            self.assertEqual([stream.event()["id"] for _ in range(4)], ids[1:])

    def test_trimmed_and_emptied_streams_are_a_reset(self):
        stream = self.greeted()
        self.add(entry="5000000000000-0")
        self.assertEqual(stream.event()["id"], "5000000000000-0")
        self.redis.ask("DEL", test_http.PREFIX + ":ev")
        new = self.add()
        self.redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.assertEqual(stream.event()["event"], "reset")
        self.assertEqual(stream.event()["id"], new)

    def test_redis_away_ends_no_stream(self):
        redis = self.new_redis()
        admin = self.new_admin(redis)
        with Stream(admin) as stream:
            stream.frame()
            before = add(redis)
            self.assertEqual(stream.event()["id"], before)
            redis.kill()
            self.assertTrue(stream.silent(1))
            redis.start()
            new = add(redis, entry="5000000000000-0")
            frame = stream.event(timeout=15)
            if frame.get("event") == "reset":       # the new Redis may be seen before its first entry
                frame = stream.event(timeout=15)
            self.assertEqual(frame["id"], new)

    def test_needs_a_key(self):
        stream = self.open(key=None)
        self.assertEqual(stream.status, 401)

    def test_host_is_checked(self):
        """H14"""
        reply, _ = self.admin.raw(f"GET /api/v1/events HTTP/1.1\r\nHost: evil.example\r\nX-API-Key: "
                                  f"{self.admin.key}\r\nAccept: text/event-stream\r\n\r\n".encode())
        self.assertTrue(reply.startswith(b"HTTP/1.1 421 "), reply[:80])

    def test_head_answers_like_get_and_takes_no_place(self):
        for _ in range(70):
            answer = self.admin.call("HEAD", "/api/v1/events", Accept="text/event-stream")
            self.assertEqual((answer.status, answer.text), (200, ""))
            self.assertEqual(answer.headers["Content-Type"], "text/event-stream")

    def test_http_1_0_gets_bytes_until_the_end(self):
        with self.admin.connect() as s:
            s.sendall(f"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {self.admin.key}\r\n"
                      "Accept: text/event-stream\r\n\r\n".encode())
            s.settimeout(5)
            got = b""
            while b"retry: 2000\n\n" not in got:
                got += s.recv(4096)
            self.assertNotIn(b"chunked", got)
            entry = self.add()
            while b"\n\n" not in got.partition(b"id: ")[2]:
                got += s.recv(4096)
            self.assertIn(f"id: {entry}\ndata: {{".encode(), got)


GHOST_SECONDS = 1.7     # the daemon looks for those who left once a second


class Crowds(Case):
    """H18: many streams, slow ones and rude ones."""

    def setUp(self):
        super().setUp()
        self.opened = []

    def tearDown(self):
        for stream in self.opened:
            stream.close()
        time.sleep(GHOST_SECONDS)

    def open(self, n, **more):
        """From so many addresses that the limit for one of them plays no part."""
        for i in range(n):
            self.opened.append(Stream(self.admin, source=f"127.0.0.{2 + i // 20}", **more))
        return self.opened[-n:]

    def probe(self):
        with Stream(self.admin, source="127.0.0.99") as stream:
            return stream.status

    def test_the_65th_is_told_to_come_later(self):
        streams = self.open(64)
        self.assertEqual({stream.status for stream in streams}, {200})
        (late,) = self.open(1)
        self.assertEqual(late.status, 503)
        self.assertEqual(late.headers["Retry-After"], "5")
        self.assertEqual(self.admin.get("/api/v1/events").status, 200, "others are served")
        entry = self.add()
        for stream in streams:
            stream.frame()
            self.assertEqual(stream.event()["id"], entry)
        streams[7].close()
        test_http.wait_until("its place to be free", lambda: self.probe() == 200, 3)

    def test_a_storm_of_reconnects_leaves_no_ghosts(self):
        statuses = set()
        for i in range(600):
            try:
                with Stream(self.admin, source=f"127.0.0.{2 + i % 40}") as stream:
                    statuses.add(stream.status)
            except (IndexError, OSError):
                statuses.add("closed")
        self.assertIn(503, statuses)
        time.sleep(GHOST_SECONDS)
        self.assertEqual([stream.status for stream in self.open(64)], [200] * 64)

    def test_who_reads_slowly_is_told_what_was_dropped_and_slows_nobody(self):
        (slow,) = self.open(1, receive=4096)
        (quick,) = self.open(1)
        quick.frame()
        n, big = 6000, "x" * 100
        for batch in range(n // 500):
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(self.redis.path)
                words = ["XADD", test_http.PREFIX + ":ev", "*"] + [
                    word for pair in {**FIELDS, "detail": big}.items() for word in pair]
                one = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
                link.sendall(one.encode() * 500)
                replies = b""
                while replies.count(b"\r\n") < 1000:
                    replies += link.recv(65536)
            for _ in range(500):
                self.assertIsNotNone(json.loads(quick.event()["data"])["n"])
        last, got, dropped = self.add(detail="last"), 0, 0
        while True:
            frame = slow.event()
            if frame.get("event") == "dropped":
                dropped += json.loads(frame["data"])["dropped"]
            else:
                got += 1
                if frame["id"] == last:
                    break
        self.assertGreater(dropped, 0)
        self.assertEqual(got + dropped, n + 1)

    def test_a_sign_of_life_every_15_s(self):
        (stream,) = self.open(1)
        stream.frame()
        begin = time.monotonic()
        self.assertEqual(stream.frame(timeout=20), {"": "still here"})
        self.assertAlmostEqual(time.monotonic() - begin, 15.5, delta=1.6)

    def test_the_daemon_ends_promptly_with_streams_open(self):
        admin = self.new_admin()
        streams = [Stream(admin) for _ in range(20)]
        for stream in streams:
            stream.frame()
        seconds, code = admin.stop()
        self.assertEqual(code, 0)
        self.assertLess(seconds, 0.6)
        for stream in streams:
            self.assertTrue(stream.ended())
            stream.close()
        self.assertNotIn("a request still waits", admin.logged())


class Stalled(Case):
    """H2: who stops reading is let go after a minute."""
    seconds = 75

    def test_a_client_that_never_reads_is_let_go(self):
        stalled = Stream(self.admin, receive=4096)
        with Stream(self.admin) as other:
            for _ in range(1000):
                self.add(detail="x" * 100)
            for _ in range(1000):
                other.event()
            time.sleep(50)
            self.assertIsNone(self.ended_within(other, 0.5))
            time.sleep(15)
            self.assertIsNone(self.ended_within(other, 0.5))
        # What was under way can still be read; then comes the end, and not at a frame's.
        self.assertLess(self.ended_within(stalled, 5), 300000)
        stalled.close()

    @staticmethod
    def ended_within(stream, seconds):
        """How much could be read until the peer's end; None when there was none."""
        got = 0
        stream.socket.settimeout(seconds)
        try:
            while True:
                piece = stream.socket.recv(65536)
                if not piece:
                    return got
                got += len(piece)
        except socket.timeout:
            return None
        except ConnectionResetError:
            return got


class Tickets(Case):
    def ticket(self):
        answer = self.admin.post("/api/v1/events/ticket", {})
        self.assertEqual(answer.status, 201, answer.text)
        self.assertEqual(list(answer.json), ["ticket", "expiresAt"])
        return answer.json["ticket"]

    def status(self, path, **more):
        with Stream(self.admin, path, key=None, **more) as stream:
            return stream.status

    def test_a_ticket_opens_one_stream_once(self):
        ticket = self.ticket()
        self.assertRegex(ticket, r"^cmt_[0-9a-f]{64}$")
        with Stream(self.admin, "/api/v1/events?kind=error&ticket=" + ticket, key=None) as stream:
            self.assertEqual(stream.status, 200)
            entry = self.add()
            stream.frame()
            self.assertEqual(stream.event()["id"], entry)
            self.assertEqual(self.status("/api/v1/events?ticket=" + ticket), 401)
        self.assertEqual(self.status("/api/sse-console/stream?ticket=" + self.ticket()), 200)

    def test_of_many_at_once_one_gets_in(self):
        ticket = self.ticket()
        streams = [Stream(self.admin, "/api/v1/events?ticket=" + ticket, key=None) for _ in range(8)]
        self.assertEqual(sorted(stream.status for stream in streams), [200] + [401] * 7)
        for stream in streams:
            stream.close()

    def test_any_daemon_of_the_fleet_takes_it(self):
        other = self.new_admin()
        with Stream(other, "/api/v1/events?ticket=" + self.ticket(), key=None) as stream:
            self.assertEqual(stream.status, 200)

    def test_wrong_ones_are_refused(self):
        good = self.ticket()
        for ticket in ("", "x", "cmt_" + "0" * 64, good[:-1], good + "0", good.upper(), "cmt_" + "*" * 64, "%00"):
            self.assertIn(self.status("/api/v1/events?ticket=" + ticket), (400, 401), ticket)
        self.assertEqual(self.status("/api/v1/events?ticket=" + good), 200)

    def test_it_is_good_for_a_stream_alone(self):
        ticket = self.ticket()
        for method, path in (("GET", "/api/v1/status"), ("GET", "/api/v1/events"), ("POST", "/api/v1/events/ticket")):
            answer = self.admin.call(method, f"{path}?ticket={ticket}", key=None)
            self.assertEqual(answer.status, 401, path)
        self.assertEqual(self.status("/api/v1/events?ticket=" + ticket), 200)

    def test_it_expires_and_is_kept_as_a_digest(self):
        ticket = self.ticket()
        keys = [key for key in self.redis.ask("KEYS", "*") if ":once:" in key]
        self.assertTrue(all(ticket[4:] not in key for key in keys))
        lives = [self.redis.ask("PTTL", key) for key in keys]
        self.assertTrue(all(0 < life <= 30000 for life in lives), lives)
        for key in keys:
            self.redis.ask("DEL", key)
        self.assertEqual(self.status("/api/v1/events?ticket=" + ticket), 401)

    def test_it_needs_the_key_and_is_not_logged(self):
        self.assertEqual(self.admin.post("/api/v1/events/ticket", {}, key=None).status, 401)
        self.assertEqual(self.admin.post("/api/v1/events/ticket", {"a": 1}).status, 400)
        self.assertEqual(self.admin.call("POST", "/api/v1/events/ticket").status, 201)
        ticket = self.ticket()
        self.assertEqual(self.status("/api/v1/events?ticket=" + ticket), 200)
        self.admin.post("/api/v1/events/ticket?ticket=" + ticket, {})
        self.assertNotIn("cmt_", self.admin.logged())
        self.assertIn("path=/api/v1/events/ticket status=", self.admin.logged())


class Console(Case):
    """VaultSandbox's console, word by word."""

    def test_texts(self):
        with Stream(self.admin, "/api/sse-console/stream") as stream:
            self.assertEqual(stream.headers["Content-Type"], "text/event-stream")
            frame = stream.frame()
            self.assertEqual(list(frame), ["id", "data"])
            self.assertEqual(frame["id"], "1")
            first = json.loads(frame["data"])
            self.assertEqual(list(first), ["type", "text", "timestamp"])
            self.assertEqual((first["type"], first["text"]), ("info", "SSE Console connected"))
            cases = (
                ({"reply": "452 4.3.1 Insufficient storage"}, "random_error: 452 4.3.1 Insufficient storage"),
                ({"kind": "greylist", "detail": "attempt 1/2, retry in 300s"},
                 "greylist: Greylisting: attempt 1/2, retry in 300s"),
                ({"kind": "drop", "variant": "fin lost"}, "connection_drop: Connection drop, graceful (FIN)"),
                ({"kind": "drop", "variant": "rst lost"}, "connection_drop: Connection drop, abrupt (RST)"),
                ({"kind": "blackhole"}, "blackhole: Email blackholed (webhooks=suppressed)"),
                ({"kind": "blackhole", "variant": "webhooks"}, "blackhole: Email blackholed (webhooks=enabled)"),
                ({"kind": "latency", "measured": "413"}, "latency: 413ms delay injected"))
            for number, (fields, text) in enumerate(cases, 2):
                self.add(**fields)
                frame = stream.frame()
                self.assertEqual(frame["id"], str(number))
                self.assertEqual(frame["data"], json.dumps({
                    "type": "warning", "text": f"[CHAOS] {text} (inbox=a@example.com)",
                    "timestamp": "2023-11-14T22:13:20.000Z"}, separators=(",", ":")))

    def test_server_info_says_that_there_is_one(self):
        self.assertIs(self.admin.get("/api/server-info").json["sseConsole"], True)

    def test_needs_a_key(self):
        with Stream(self.admin, "/api/sse-console/stream", key=None) as stream:
            self.assertEqual(stream.status, 401)


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
        self.assertEqual(MTA.refused(event["reply"], inbox), sent.rcpts[0].text)
        self.assert_members(
            event, sender="<>", recipient=inbox, stage="rcpt", client="127.0.0.1",
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
        self.assertEqual(event["queueId"], re.search(MTA.accepted_end, sent.end.text).group(1))

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
