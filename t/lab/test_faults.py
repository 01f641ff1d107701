# SPDX-License-Identifier: BSD-2-Clause
"""Each kind of fault, set over HTTP: what the next mail meets, how soon, and
that every other inbox is left alone, also in the same message."""
import statistics
import unittest

from labkit import LabTestCase, make_message, now
from mtas import MTA

ERROR = {"randomError": {"enabled": True, "errorRate": 1,
                         "errorTypes": ["permanent"]}}
GREYLIST = {"greylist": {"enabled": True, "maxAttempts": 1000}}
BLACKHOLE = {"blackhole": {"enabled": True}}
LATENCY_MS = 200
LATENCY = {"latency": {"enabled": True, "minDelayMs": LATENCY_MS,
                       "maxDelayMs": LATENCY_MS, "jitter": False}}
DROP = {"connectionDrop": {"enabled": True}}
TRIES = 9


class Reaction(LabTestCase):
    """Within 100 ms of the answer to POST the next mail meets the fault."""

    alone = True

    def measure(self, name, config, attempt):
        """attempt(client, inbox) sends something in an open transaction: was it
        hurt, and when did it begin? Median and worst over fresh inboxes."""
        delays_ms = []
        for _ in range(TRIES):
            inbox = self.inbox("react")
            client = self.smtp()
            client.mail()
            hurt, _ = attempt(client, inbox)
            self.assertFalse(hurt, "hurt before it was asked")
            self.lab.set_chaos(inbox, **config)
            answered = now()
            hurt = False
            while not hurt:
                self.assertLess(now() - answered, 5, "the fault never came")
                hurt, began = attempt(client, inbox)
            delays_ms.append((began - answered) * 1000)
            client.close()
        self.judge(name + ": first hurt mail began", delays_ms)

    def judge(self, what, delays_ms):
        median = statistics.median(delays_ms)
        print(f"{what} {median:.1f} ms after the answer (median of {TRIES}; "
              f"worst {max(delays_ms):.1f} ms)", flush=True)
        self.assertLess(median, 100)
        self.assertLess(max(delays_ms), 1000)

    def rcpt_refused(self, client, inbox):
        reply = client.rcpt(inbox)
        return reply.code >= 400, client.sent_at

    def whole_message(self, client, inbox):
        """The last reply, and when it began; a new transaction is open then."""
        began = now()
        client.rcpt(inbox)
        reply = client.data(make_message())
        client.mail()
        return reply, began

    def message_slow(self, client, inbox):
        reply, began = self.whole_message(client, inbox)
        return reply.seconds * 1000 >= LATENCY_MS, began

    def message_lost(self, client, inbox):
        before = len(self.lab.mail(inbox))
        _, began = self.whole_message(client, inbox)
        self.lab.wait_idle()
        return len(self.lab.mail(inbox)) == before, began

    def test_random_error_within_100_ms(self):
        self.measure("randomError", ERROR, self.rcpt_refused)

    def test_greylist_within_100_ms(self):
        self.measure("greylist", GREYLIST, self.rcpt_refused)

    def test_latency_within_100_ms(self):
        self.measure("latency", LATENCY, self.message_slow)

    def test_blackhole_within_100_ms(self):
        self.measure("blackhole", BLACKHOLE, self.message_lost)

    def test_deletion_within_100_ms(self):
        delays_ms = []
        for _ in range(TRIES):
            inbox = self.inbox("gone")
            self.lab.set_chaos(inbox, **ERROR)
            self.lab.settle()
            client = self.smtp()
            client.mail()
            hurt, _ = self.rcpt_refused(client, inbox)
            self.assertTrue(hurt)
            answer = self.lab.http("DELETE", self.lab.chaos_path(inbox))
            answered = now()
            self.assertEqual((answer.status, answer.text), (204, ""))
            while hurt:
                self.assertLess(now() - answered, 5, "the fault never went")
                hurt, began = self.rcpt_refused(client, inbox)
            delays_ms.append((began - answered) * 1000)
        self.judge("deletion: first free mail began", delays_ms)


class Neighbours(LabTestCase):
    """Three recipients in one message, the middle one configured."""

    def three(self, **config):
        boxes = [self.inbox("before"), self.inbox("hurt"), self.inbox("after")]
        self.lab.set_chaos(boxes[1], **config)
        self.lab.settle()
        return boxes

    def assert_only_middle_refused(self, boxes, codes):
        sent = self.send(*boxes)
        self.assertEqual([sent.rcpts[0].code, sent.rcpts[2].code], [250, 250])
        self.assertIn(sent.rcpts[1].code, codes)
        self.assertEqual(sent.end.code, 250)
        self.assert_delivered(boxes[0], sent.message)
        self.assert_delivered(boxes[2], sent.message)
        self.assert_not_delivered(boxes[1])

    def test_error_refuses_one_and_the_others_get_their_mail(self):
        self.assert_only_middle_refused(self.three(**ERROR),
                                        (550, 551, 552, 553, 554))

    def test_greylist_refuses_one_and_the_others_get_their_mail(self):
        self.assert_only_middle_refused(self.three(**GREYLIST), (451,))

    def test_blackhole_takes_one_and_the_others_get_their_mail(self):
        boxes = self.three(**BLACKHOLE)
        sent = self.send(*boxes)
        self.assertEqual([reply.text for reply in sent.rcpts],
                         [MTA.accepted(box) for box in boxes])
        self.assertRegex(sent.end.text, MTA.accepted_end)
        self.assert_delivered(boxes[0], sent.message)
        self.assert_delivered(boxes[2], sent.message)
        self.assert_not_delivered(boxes[1])

    def test_blackhole_alone_looks_like_any_accepted_mail(self):
        inbox = self.inbox("hole")
        self.lab.set_chaos(inbox, **BLACKHOLE)
        self.lab.settle()
        sent = self.send(inbox)
        self.assertEqual(sent.rcpts[0].text, MTA.accepted(inbox))
        self.assertRegex(sent.end.text, MTA.accepted_end)
        self.assert_not_delivered(inbox)

    def test_blackhole_of_all_recipients_delivers_nothing(self):
        boxes = [self.inbox("hole") for _ in range(3)]
        for box in boxes:
            self.lab.set_chaos(box, **BLACKHOLE)
        self.lab.settle()
        self.assertEqual(self.send(*boxes).end.code, 250)
        for box in boxes:
            self.assert_not_delivered(box)

    def test_latency_delays_the_message_once_and_names_the_others(self):
        boxes = self.three(**LATENCY)
        sent = self.send(*boxes)
        for reply in sent.rcpts:
            self.assertEqual(reply.code, 250)
            self.assertLess(reply.seconds * 1000, LATENCY_MS)
        self.assertEqual(sent.end.code, 250)
        self.assertGreaterEqual(sent.end.seconds * 1000, LATENCY_MS)
        for box in boxes:
            self.assert_delivered(box, sent.message)
        event = self.lab.wait_incident(boxes[1], "latency")
        self.assertEqual(event["others"], "2")
        self.assertEqual(self.lab.incidents(boxes[0]), [])

    def test_each_recipient_meets_its_own_fault_in_one_message(self):
        error, grey, hole, slow, plain = boxes = [
            self.inbox(hint) for hint in ("e", "g", "b", "l", "p")]
        for box, config in zip(boxes, (ERROR, GREYLIST, BLACKHOLE, LATENCY)):
            self.lab.set_chaos(box, **config)
        self.lab.settle()
        sent = self.send(*boxes)
        codes = [reply.code for reply in sent.rcpts]
        self.assertGreaterEqual(codes[0], 550)
        self.assertEqual(codes[1:], [451, 250, 250, 250])
        self.assertEqual(sent.end.code, 250)
        self.assertGreaterEqual(sent.end.seconds * 1000, LATENCY_MS)
        for box in (slow, plain):
            self.assert_delivered(box, sent.message)
        for box in (error, grey, hole):
            self.assert_not_delivered(box)

    def test_other_inboxes_in_other_sessions_are_untouched(self):
        for name, config in (("error", ERROR), ("greylist", GREYLIST),
                             ("blackhole", BLACKHOLE), ("latency", LATENCY)):
            with self.subTest(name):
                self.three(**config)
                sent = self.assert_passes(self.inbox("bystander"))
                self.assertLess(sent.end.seconds * 1000, LATENCY_MS)


class Priority(LabTestCase):
    """Drop, greylist, random error, blackhole, latency: the first that acts."""

    def test_greylist_goes_before_random_error_and_falls_through_to_it(self):
        inbox = self.inbox("prio")
        self.lab.set_chaos(inbox, greylist={"enabled": True, "maxAttempts": 2},
                           **ERROR)
        self.lab.settle()
        self.assertEqual(self.send(inbox).rcpts[0].code, 451)
        self.assertGreaterEqual(self.send(inbox).rcpts[0].code, 550)

    def test_blackhole_goes_before_latency(self):
        inbox = self.inbox("prio")
        self.lab.set_chaos(inbox, **BLACKHOLE, **LATENCY)
        self.lab.settle()
        sent = self.send(inbox)
        self.assertLess(sent.end.seconds * 1000, LATENCY_MS)
        self.assert_not_delivered(inbox)

    def test_failed_probability_falls_through_to_the_next(self):
        inbox = self.inbox("prio")
        self.lab.set_chaos(inbox, **BLACKHOLE, randomError={
            "enabled": True, "errorRate": 0})
        self.lab.settle()
        self.assertEqual(self.send(inbox).end.code, 250)
        self.assert_not_delivered(inbox)

    def test_sub_object_that_is_not_enabled_does_nothing(self):
        inbox = self.inbox("prio")
        self.lab.set_chaos(inbox, blackhole={"enabled": False},
                           greylist={"enabled": False},
                           randomError={"enabled": False, "errorRate": 1},
                           latency={"enabled": False})
        self.lab.settle()
        self.assert_passes(inbox)


if __name__ == "__main__":
    unittest.main()
