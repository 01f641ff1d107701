# SPDX-License-Identifier: BSD-2-Clause
"""Sequence: the n-th attempt of a key meets the n-th step."""
import unittest

from labkit import Gone, LabTestCase, make_message, wait_until

FIRST, SECOND = "451 4.7.1 Not yet", "421 4.7.0 Go away"


class Sequence(LabTestCase):
    seconds = 25

    def sequence(self, steps, stage="rcpt", inbox=None, **options):
        inbox = inbox or self.inbox("seq")
        members = {name: options.pop(name) for name in
                   ("key", "after", "ttlMs") if name in options}
        self.rule({"kind": "sequence", "steps": steps, **members},
                  stage=stage, inbox=inbox, **options)
        return inbox

    def rcpt(self, inbox, sender="sender@example.org", source=None):
        client = self.smtp(source=source)
        self.assertEqual(client.mail(sender).code, 250)
        return client.rcpt(inbox)

    def codes(self, n, *args, **options):
        return [self.rcpt(*args, **options).code for _ in range(n)]

    def test_each_attempt_meets_the_next_step_and_then_it_passes(self):
        inbox = self.sequence([FIRST, SECOND, "ok"])
        self.assertEqual(self.rcpt(inbox).text, FIRST)
        self.assertEqual(self.rcpt(inbox).text, SECOND)
        self.assertRaises(Gone, self.clients[-1].read_line)
        for _ in range(3):
            self.assert_passes(inbox)
        events = wait_until("two events", lambda: len(
            self.lab.incidents(inbox)) >= 2 and self.lab.incidents(inbox))
        self.assertEqual([(event["kind"], event["detail"], event["reply"])
                          for event in events],
                         [("error", "step 1 of 3", FIRST),
                          ("error", "step 2 of 3", SECOND)])

    def test_after_repeat_begins_again(self):
        inbox = self.sequence(["451", "ok", "450"], after="repeat")
        self.assertEqual(self.codes(7, inbox),
                         [451, 250, 450, 451, 250, 450, 451])

    def test_ok_between_lets_that_attempt_pass(self):
        inbox = self.sequence(["ok", "550 5.7.1 Changed my mind"])
        self.assert_passes(inbox)
        self.assertEqual(self.rcpt(inbox).code, 550)
        self.assertEqual(self.rcpt(inbox).code, 250)

    def test_client_sender_and_recipient_count_apart(self):
        inbox = self.sequence(["451", "ok"])
        self.assertEqual(self.codes(2, inbox), [451, 250])
        self.assertEqual(self.codes(2, inbox, sender="x@example.org"),
                         [451, 250])
        self.assertEqual(self.codes(2, inbox, source="127.0.0.2"), [451, 250])

    def test_key_that_names_the_recipient_alone_counts_all_its_mail(self):
        inbox = self.sequence(["451", "452", "ok"], key=["recipient"])
        self.assertEqual(self.rcpt(inbox).code, 451)
        self.assertEqual(self.rcpt(inbox, sender="x@example.org").code, 452)
        self.assertEqual(self.rcpt(inbox, source="127.0.0.2").code, 250)

    def test_key_without_the_recipient_counts_over_inboxes(self):
        self.sequence(["451", "452", "ok"], inbox="many-*@example.com",
                      key=["sender"])
        boxes = [self.inbox("many") for _ in range(3)]
        self.assertEqual([self.rcpt(box, sender="key@example.org").code
                          for box in boxes], [451, 452, 250])

    def test_ttl_forgets(self):
        inbox = self.sequence(["451", "ok"], ttlMs=300)
        self.assertEqual(self.codes(2, inbox), [451, 250])
        wait_until("the end of the ttl", lambda: not self.lab.redis(
            "KEYS", "*" + inbox + "*"))
        self.assertEqual(self.codes(2, inbox), [451, 250])

    def test_other_recipients_of_the_message_are_left_alone(self):
        inbox, other = self.sequence([FIRST, "ok"]), self.inbox("other")
        sent = self.send(other, inbox)
        self.assertEqual([reply.code for reply in sent.rcpts], [250, 451])
        self.assertEqual(sent.end.code, 250)
        self.assert_delivered(other, sent.message)
        self.assert_not_delivered(inbox)

    def test_ok_goes_on_to_the_next_rule(self):
        inbox = self.sequence(["451", "ok"])
        self.rule({"kind": "error", "code": 550}, inbox=inbox)
        self.assertEqual(self.codes(3, inbox), [451, 550, 550])

    def test_at_the_message_errors_drops_delays_and_blackholes(self):
        inbox = self.sequence(
            ["452 4.3.1 Full", {"kind": "drop", "how": "rst"},
             {"kind": "latency", "ms": 300}, {"kind": "blackhole"}, "ok"],
            stage="message")
        self.assertEqual(self.send(inbox).end.text, "452 4.3.1 Full")
        client = self.smtp()
        client.mail()
        client.rcpt(inbox)
        client.command("DATA")
        with self.assertRaises(Gone) as caught:
            client.message(make_message())
        self.assertEqual(str(caught.exception), "RST")
        self.assert_not_delivered(inbox)
        late = self.send(inbox)
        self.assertEqual(late.end.code, 250)
        self.assertGreaterEqual(late.end.seconds, 0.3)
        self.assert_delivered(inbox, late.message)
        self.assertEqual(self.send(inbox).end.code, 250)
        self.lab.wait_idle()
        self.assertEqual(len(self.lab.mail(inbox)), 1)
        passed = self.send(inbox)
        self.assert_delivered(inbox, passed.message, 2)
        events = [(event["kind"], event["detail"].split(",")[0])
                  for event in self.lab.incidents(inbox)]
        self.assertEqual([kind for kind, _ in events],
                         ["error", "drop", "latency", "blackhole"])

    def test_maxHits_bounds_what_hurts_and_not_what_is_counted(self):
        inbox = self.sequence(["451", "452", "450", "ok"], maxHits=2)
        self.assertEqual(self.codes(5, inbox), [451, 452, 250, 250, 250])


if __name__ == "__main__":
    unittest.main()
