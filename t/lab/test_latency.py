# SPDX-License-Identifier: BSD-2-Clause
"""Latency: as long as asked, for whom it was asked, and for nobody else."""
import concurrent.futures
import json
import math
import re
import socket
import statistics
import struct
import unittest

from labkit import Gone, LabTestCase, Smtp, make_message, now, wait_until
from mtas import MTA

# A loaded machine wakes a client late; an early reply has no excuse.
LATE_S = 0.5
# The filter looks at the clock after it has sent, when the client may have read
# the reply already.
LOOK_MS = 50


class Delays(LabTestCase):
    """What the classes below need; no tests of its own."""

    sources = rules = 0

    def configure(self, **latency):
        inbox = self.inbox("slow")
        self.lab.set_chaos(inbox, latency={"enabled": True, **latency})
        self.lab.settle()
        return inbox

    def fixed(self, delay_ms, **more):
        return self.configure(minDelayMs=delay_ms, maxDelayMs=delay_ms,
                              jitter=False, **more)

    def rule(self, **fault):
        """A latency rule for the client at an address that no other test has,
        and which every stage knows; that address. In force when settled."""
        Delays.sources += 1
        source = f"127.0.9.{Delays.sources}"
        self.rule_for(source, **fault)
        return source

    def rule_for(self, source, **fault):
        Delays.rules += 1
        document = {"client": source}
        if "stage" in fault:
            document["stage"] = fault.pop("stage")
        document["fault"] = {"kind": "latency", **fault}
        self.lab.redis_cli("FCALL", "cm_set", "0", "rule",
                           f"r{Delays.rules}", json.dumps(document))

    def walk(self, source, recipient):
        """One mail, step by step; the reply at each stage by its name."""
        client = Smtp(self.lab.smtp_port, source=source, timeout=200)
        self.clients.append(client)
        replies = {"connect": client.banner, "helo": client.ehlo(),
                   "mail": client.mail(), "rcpt": client.rcpt(recipient),
                   "data": client.command("DATA")}
        message = make_message()
        replies["message"] = client.message(message)
        self.assertEqual([reply.code for reply in replies.values()],
                         [220, 250, 250, 250, 354, 250])
        self.assert_delivered(recipient, message)
        return replies

    def events_of(self, source):
        entries = self.lab.redis("XRANGE", "{cm}:ev", "-", "+") or []
        events = [dict(zip(fields[::2], fields[1::2])) for _, fields in entries]
        return [event for event in events if event["client"] == source]

    def wait_events(self, source, count):
        return wait_until(f"{count} event(s) of {source}", lambda:
                          len(self.events_of(source)) >= count and
                          self.events_of(source))

    def assert_delay(self, reply, least_s, most_s=None):
        self.assertGreaterEqual(reply.seconds, least_s)
        self.assertLessEqual(reply.seconds, (most_s or least_s) + LATE_S)

    def assert_not_done(self, event):
        """Recorded as what it was: too long for the mail server."""
        self.assertEqual(event["outcome"], "unavailable")
        self.assertIn("milter.sendmail_", event["detail"])

    def tearDown(self):
        """Nothing above may have been done by putting a thread to sleep."""
        super().tearDown()
        self.assertEqual(self.lab.status()["hosts"][0]["hold"], "ok")

    def held(self):
        return self.lab.status()["hosts"][0]["held"]


def reset(client):
    """Ends a client's connection by RST."""
    plain = getattr(client, "socket", client)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                     struct.pack("ii", 1, 0))
    plain.close()


class Latency(Delays):
    seconds = 40

    def test_without_jitter_it_is_exactly_the_maximum(self):
        inbox = self.configure(minDelayMs=1, maxDelayMs=400, jitter=False)
        for _ in range(3):
            sent = self.assert_passes(inbox)
            self.assert_delay(sent.end, 0.4)

    def test_with_jitter_it_stays_within_bounds_and_varies(self):
        inbox = self.configure(minDelayMs=50, maxDelayMs=350)
        replies = [self.send(inbox).end for _ in range(8)]
        for reply in replies:
            self.assert_delay(reply, 0.05, 0.35)
        self.assertGreater(len({round(r.seconds, 2) for r in replies}), 2)

    def test_delay_of_zero_is_none(self):
        self.assertLess(self.send(self.fixed(0)).end.seconds, LATE_S)

    def test_probability_zero_never_delays(self):
        inbox = self.fixed(3000, probability=0)
        for _ in range(5):
            self.assertLess(self.send(inbox).end.seconds, 3)

    def test_event_tells_what_was_asked_and_what_was_measured(self):
        inbox = self.fixed(250)
        sent = self.send(inbox)
        event = self.lab.wait_incident(inbox, "latency")
        self.assertEqual(event["outcome"], "applied")
        self.assertEqual(int(event["asked"]), 250)
        measured = int(event["measured"])
        self.assertGreaterEqual(measured, 250)
        self.assertLessEqual(measured, sent.end.seconds * 1000 + LOOK_MS)

    def test_stage_rcpt_delays_that_reply_alone(self):
        inbox = self.fixed(300, stage="rcpt")
        sent = self.send(self.inbox("fast"), inbox, self.inbox("fast"))
        self.assert_delay(sent.rcpts[1], 0.3)
        for reply in (sent.rcpts[0], sent.rcpts[2], sent.end):
            self.assertLess(reply.seconds, 0.3)

    def test_several_delays_in_one_message_are_the_longest_not_the_sum(self):
        sent = self.send(self.fixed(300), self.fixed(500))
        self.assert_delay(sent.end, 0.5)

    def test_two_delayed_messages_on_one_connection(self):
        inbox = self.fixed(200)
        client = self.smtp()
        for _ in range(2):
            self.assert_delay(self.send(inbox, client=client).end, 0.2)

    def test_others_are_not_slowed_while_many_replies_are_held(self):
        def typical():
            times = []
            for _ in range(15):
                start = now()
                self.assert_ok(self.send(self.inbox("bystander")))
                times.append(now() - start)
            return statistics.median(times)

        alone = typical()
        inbox = self.fixed(4000)
        slow = [self.smtp() for _ in range(40)]
        for client in slow:
            client.mail()
            client.rcpt(inbox)
            client.command("DATA")
        start = now()
        for client in slow:
            client.send_message(make_message())
        beside = typical()
        self.assertLess(now() - start, 4, "the machine is too slow to tell")
        for client in slow:
            reply = client.read_reply()
            self.assertEqual(reply.code, 250)
            self.assertGreaterEqual(reply.seconds, 4)
        print(f"latency: bystander's mail {alone * 1000:.1f} ms alone, "
              f"{beside * 1000:.1f} ms beside 40 held replies", flush=True)
        self.assertLess(beside, max(5 * alone, 0.1))

    def assert_ok(self, sent):
        self.assertEqual(sent.end.code, 250)

    def send_to_hold(self, inbox):
        """A client whose final reply is being held."""
        client = self.smtp()
        client.mail()
        client.rcpt(inbox)
        client.command("DATA")
        client.send_message(make_message())
        wait_until("the reply to be held", lambda: self.held() == 1)
        return client

    def test_client_that_hangs_up_during_a_hold_hurts_nobody(self):
        """An MTA that waits for its milter does not look at its client, and the
        client may have closed its sending side alone: the hold runs out, and
        the event says what was seen."""
        inbox = self.fixed(4000)
        self.send_to_hold(inbox).close()
        sent = self.assert_passes(self.inbox("next"))
        self.assertLess(sent.end.seconds, LATE_S)
        event = self.lab.wait_incident(inbox, "latency")
        self.assertGreaterEqual(int(event["measured"]), 4000)
        self.assertRegex(event["detail"],
                         r"^by \d+ ms the client had closed its side$")
        wait_until("the hold to end", lambda: self.held() == 0)

    def test_client_that_has_only_stopped_sending_waits_the_whole_time(self):
        inbox = self.fixed(2000)
        client = self.send_to_hold(inbox)
        client.socket.shutdown(socket.SHUT_WR)
        reply = client.read_reply()
        self.assertEqual(reply.code, 250)
        self.assert_delay(reply, 2)
        self.assertIn("had closed its side",
                      self.lab.wait_incident(inbox, "latency")["detail"])

    def test_client_that_resets_its_connection_ends_the_hold(self):
        for stage in ("rcpt", "message"):
            with self.subTest(stage):
                inbox = self.fixed(25000, stage=stage)
                if stage == "message":
                    client = self.send_to_hold(inbox)
                else:
                    client = self.smtp()
                    client.mail()
                    client.send_line(f"RCPT TO:<{inbox}>")
                    wait_until("the reply to be held", lambda: self.held() == 1)
                reset(client)
                wait_until("the hold to end", lambda: self.held() == 0)
                event = self.lab.wait_incident(inbox, "latency")
                self.assertEqual((event["outcome"], event["asked"]),
                                 ("applied", "25000"))
                self.assertLess(int(event["measured"]), 15000)
                self.assertEqual(event["detail"], "cut short: the client's "
                                                  "connection was reset")
        # What the client never heard is delivered all the same.
        self.lab.wait_mail(inbox)
        self.assert_passes(self.inbox("next"))

    def test_mta_process_that_dies_during_a_hold_frees_it_at_once(self):
        """At RCPT, where smtpd alone has the milter's connection: at the end of
        a message Postfix's cleanup has it too, and waits on."""
        inbox = self.fixed(25000, stage="rcpt")
        client = self.smtp()
        client.mail()
        client.send_line(f"RCPT TO:<{inbox}>")
        wait_until("the reply to be held", lambda: self.held() == 1)
        self.lab.kill_sessions()
        with self.assertRaises(Gone):
            client.read_reply()
        wait_until("the hold to end", lambda: self.held() == 0, timeout=5)
        event = self.lab.wait_incident(inbox, "latency")
        self.assertLess(int(event["measured"]), 25000)
        self.assert_passes(self.inbox("next"))


class LatencyAtStages(Delays):
    seconds = 30

    def test_each_stage_delays_its_own_reply(self):
        sources = {stage: self.rule(ms=400, stage=stage) for stage in
                   ("connect", "helo", "mail", "rcpt", "data", "message")}
        self.lab.settle()
        for stage, source in sources.items():
            with self.subTest(stage):
                replies = self.walk(source, self.inbox(stage))
                self.assert_delay(replies.pop(stage), 0.4)
                for name, reply in replies.items():
                    self.assertLess(reply.seconds, 0.4, name)
                event, = self.wait_events(source, 1)
                self.assertEqual((event["outcome"], event["stage"],
                                  event["asked"], event["detail"]),
                                 ("applied", stage, "400", ""))
                self.assertRegex(self.lab.log("chaosmilter"), re.escape(
                    f'client={source} ') + ".* asked_ms=400 measured_ms=" +
                    event["measured"] + "\n")

    def delays_of(self, count, **fault):
        """As many recipients, each delayed by the rule; what was asked for, in
        ms, each held to what came."""
        source = self.rule(**fault)
        self.lab.settle()
        client = self.smtp(source=source)
        client.mail()
        inboxes = [self.inbox("drawn") for _ in range(count)]
        replies = [client.rcpt(inbox) for inbox in inboxes]
        events = {event["inbox"]: event
                  for event in self.wait_events(source, count)}
        for inbox, reply in zip(inboxes, replies):
            asked, measured = (int(events[inbox][name])
                               for name in ("asked", "measured"))
            self.assertGreaterEqual(measured, asked)
            self.assertLessEqual(measured, reply.seconds * 1000 + LOOK_MS)
            self.assert_delay(reply, asked / 1000)
        return [int(events[inbox]["asked"]) for inbox in inboxes]

    def test_uniform_delays_lie_on_both_sides_of_the_middle(self):
        asked = self.delays_of(20, min=50, max=250)
        self.assertGreaterEqual(min(asked), 50)
        self.assertLessEqual(max(asked), 250)
        self.assertLess(min(asked), 150)
        self.assertGreater(max(asked), 150)

    def test_lognormal_delays_have_their_median(self):
        """That of 20 is off by a factor of 2 once in a million runs: it is
        spread by 0.5 * 1.25 / sqrt(20) = 0.14 in the logarithm."""
        asked = self.delays_of(20, median=80, sigma=0.5)
        self.assertGreater(len(set(asked)), 10)
        self.assertGreater(statistics.median(asked), 40)
        self.assertLess(statistics.median(asked), 160)

    def test_commands_sent_ahead_wait_their_turn_behind_held_replies(self):
        """Five holds in each of two mails of one session. (Postfix sends what
        it owes such a client in one go, when it has read all there is.)"""
        inboxes = [self.inbox("burst") for _ in range(3)]
        source = self.rule(ms=300)
        self.rule_for(source, ms=300, stage="data")
        self.rule_for(source, ms=300, stage="message")
        self.lab.settle()
        client = self.smtp(source=source)
        message = make_message()
        for mail in (1, 2):
            client.send_line("\r\n".join(
                ["MAIL FROM:<sender@example.org>"] +
                [f"RCPT TO:<{inbox}>" for inbox in inboxes] + ["DATA"]))
            replies = [client.read_reply() for _ in range(5)]
            self.assertEqual([reply.code for reply in replies],
                             [250] * 4 + [354])
            self.assert_delay(replies[-1], 4 * 0.3)
            reply = client.message(message)
            self.assertEqual(reply.code, 250)
            self.assert_delay(reply, 0.3)
            for event in self.wait_events(source, 5 * mail):
                self.assertIn(int(event["measured"]), range(300, 800))
        self.assertEqual(len(self.events_of(source)), 10)
        self.assert_delivered(inboxes[0], message, 2)

    def test_limits_of_rfc_5321_are_held_as_long_as_they_say(self):
        """Until the client has enough; LongLatency waits one of them out. All
        are longer than Sendmail waits."""
        limits = {"connect": 300, "mail": 300, "rcpt": 300, "data": 120,
                  "message": 600}
        want = {}
        for stage, seconds in limits.items():
            for side, margin in (("justUnder", -1), ("justOver", 1)):
                want[self.rule(limit=side, of=stage)] = (
                    stage, str((seconds + margin) * 1000))
        self.lab.settle()
        clients = [self.stuck_at(stage, source)
                   for source, (stage, _) in want.items()]
        if math.isinf(MTA.patience_s("message")):
            wait_until("all to be held", lambda: self.held() == len(want))
        else:
            for source in want:
                self.wait_events(source, 1)
        for client in clients:
            reset(client)
        wait_until("the holds to end", lambda: self.held() == 0)
        for source, (stage, asked) in want.items():
            event, = self.wait_events(source, 1)
            self.assertEqual((event["stage"], event["asked"]), (stage, asked))
            if int(asked) < MTA.patience_s(stage) * 1000:
                self.assertLess(int(event["measured"]), 15000)
            else:
                self.assert_not_done(event)

    def stuck_at(self, stage, source):
        """A client that waits for its reply at a stage; a mere socket, for it
        may be the banner."""
        client = socket.create_connection(
            ("127.0.0.1", self.lab.smtp_port), 20, source_address=(source, 0))
        self.addCleanup(client.close)
        said = {"helo": b"EHLO client.example\r\n",
                "mail": b"MAIL FROM:<sender@example.org>\r\n",
                "rcpt": b"RCPT TO:<a@example.com>\r\n", "data": b"DATA\r\n",
                "message": make_message() + b".\r\n"}
        if stage == "connect":
            return client
        client.recv(1000)
        for name, words in said.items():
            client.sendall(words)
            if name == stage:
                break
            client.recv(1000)
        return client


class LongLatency(Delays):
    seconds = 130

    def test_longer_than_the_mta_waits_by_default(self):
        """Postfix's command timeout is 30 s, and so is that of the lab's
        Sendmail, which alone means it. The longest delay that can be given in
        milliseconds is 60 s; just over what a client waits for the reply to
        DATA, 121 s. All at once."""
        faults = {("connect", 35): {"ms": 35000}, ("helo", 35): {"ms": 35000},
                  ("mail", 35): {"ms": 35000}, ("rcpt", 35): {"ms": 35000},
                  ("rcpt", 25): {"ms": 25000},
                  ("data", 121): {"limit": "justOver", "of": "data"},
                  ("message", 60): {"ms": 60000}}
        walks = {}
        sources = {what: self.rule(stage=what[0], **fault)
                   for what, fault in faults.items()}
        self.lab.settle()
        with concurrent.futures.ThreadPoolExecutor(len(faults)) as pool:
            for what, source in sources.items():
                walks[what] = pool.submit(self.walk, source, self.inbox(what[0]))
        for (stage, seconds), walk in walks.items():
            with self.subTest(stage=stage, seconds=seconds):
                event, = self.wait_events(sources[stage, seconds], 1)
                self.assertEqual(int(event["asked"]), seconds * 1000)
                if seconds < MTA.patience_s(stage):
                    self.assert_delay(walk.result()[stage], seconds)
                    self.assertEqual(event["detail"], "")
                else:
                    self.assert_not_done(event)
                    self.assertLess(walk.result()[stage].seconds, 10)


if __name__ == "__main__":
    unittest.main()
