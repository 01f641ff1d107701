# SPDX-License-Identifier: BSD-2-Clause
"""Latency: as long as asked, for whom it was asked, and for nobody else."""
import concurrent.futures
import statistics
import unittest

from labkit import Gone, LabTestCase, make_message, now, wait_until

# A loaded machine wakes a client late; an early reply has no excuse.
LATE_S = 0.5


class Delays(LabTestCase):
    """What both classes below need; no tests of its own."""

    def configure(self, **latency):
        inbox = self.inbox("slow")
        self.lab.set_chaos(inbox, latency={"enabled": True, **latency})
        self.lab.settle()
        return inbox

    def fixed(self, delay_ms, **more):
        return self.configure(minDelayMs=delay_ms, maxDelayMs=delay_ms,
                              jitter=False, **more)

    def assert_delay(self, reply, least_s, most_s=None):
        self.assertGreaterEqual(reply.seconds, least_s)
        self.assertLessEqual(reply.seconds, (most_s or least_s) + LATE_S)

    def tearDown(self):
        """Nothing above may have been done by putting a thread to sleep."""
        super().tearDown()
        self.assertEqual(self.lab.status()["hosts"][0]["hold"], "ok")

    def held(self):
        return self.lab.status()["hosts"][0]["held"]


class Latency(Delays):
    seconds = 35

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
        self.assertLessEqual(measured, sent.end.seconds * 1000 + 1)

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

    def hold_one(self, inbox):
        client = self.smtp()
        client.mail()
        client.rcpt(inbox)
        client.command("DATA")
        client.send_message(make_message())
        wait_until("the reply to be held", lambda: self.held() == 1)
        return client

    def test_client_that_hangs_up_during_a_hold_hurts_nobody(self):
        """Postfix does not look at its client meanwhile: the hold runs out."""
        inbox = self.fixed(4000)
        self.hold_one(inbox).close()
        sent = self.assert_passes(self.inbox("next"))
        self.assertLess(sent.end.seconds, LATE_S)
        event = self.lab.wait_incident(inbox, "latency")
        self.assertGreaterEqual(int(event["measured"]), 4000)
        wait_until("the hold to end", lambda: self.held() == 0)

    def test_mta_process_that_dies_during_a_hold_frees_it_at_once(self):
        """At RCPT, where smtpd alone has the milter's connection: at the end of
        a message Postfix's cleanup has it too, and waits on."""
        inbox = self.fixed(30000, stage="rcpt")
        client = self.smtp()
        client.mail()
        client.send_line(f"RCPT TO:<{inbox}>")
        wait_until("the reply to be held", lambda: self.held() == 1)
        self.lab.kill_smtpd()
        with self.assertRaises(Gone):
            client.read_reply()
        wait_until("the hold to end", lambda: self.held() == 0, timeout=5)
        event = self.lab.wait_incident(inbox, "latency")
        self.assertLess(int(event["measured"]), 30000)
        self.assert_passes(self.inbox("next"))


class LongLatency(Delays):
    seconds = 70

    def test_longer_than_the_mta_waits_by_default(self):
        """35 s at RCPT (Postfix's command timeout is 30 s) and the longest
        delay there is, 60 s, at the end of the message; both at once."""
        at_rcpt = self.fixed(35000, stage="rcpt")
        at_end = self.fixed(60000)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first = pool.submit(self.send, at_rcpt)
            second = pool.submit(self.send, at_end)
            self.assertEqual(first.result().rcpts[0].code, 250)
            self.assert_delay(first.result().rcpts[0], 35)
            self.assertEqual(second.result().end.code, 250)
            self.assert_delay(second.result().end, 60)
        self.assert_delivered(at_rcpt, first.result().message)
        self.assert_delivered(at_end, second.result().message)


if __name__ == "__main__":
    unittest.main()
