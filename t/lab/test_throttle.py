# SPDX-License-Identifier: BSD-2-Clause
"""Throttle: so many at once, then so many a second, and nobody else waits."""
import signal
import time
import unittest

from labkit import Gone, LabTestCase, make_message, now

EMPTY = "450 4.2.1 Too many messages, try again later"


class Throttle(LabTestCase):
    seconds = 30

    def throttle(self, rate, burst, per="inbox", stage="rcpt", reply=None,
                 **members):
        return self.rule({"kind": "throttle", "rate": rate, "burst": burst,
                          "per": per, **(reply or {})}, stage=stage, **members)

    def rcpt(self, inbox, sender="sender@example.org", source=None):
        """The reply to RCPT in a session of its own."""
        client = self.smtp(source=source)
        self.assertEqual(client.mail(sender).code, 250)
        reply = client.rcpt(inbox)
        client.close()
        return reply

    def codes(self, n, *args, **options):
        return [self.rcpt(*args, **options).code for _ in range(n)]

    def test_burst_passes_and_the_next_is_refused_until_a_token_came(self):
        inbox, other = self.inbox("thr"), self.inbox("other")
        self.throttle(0.5, 2, inbox=inbox)
        self.assert_passes(inbox)
        self.assert_passes(inbox)
        emptied = now()
        refused = self.rcpt(inbox)
        self.assertEqual((refused.code, refused.text[:10]), (450, EMPTY[:10]))
        event = self.lab.wait_incident(inbox, "throttle")
        self.assertEqual(event["outcome"], "applied")
        self.assertEqual(event["reply"], EMPTY)
        self.assertEqual(event["detail"], "bucket of inbox " + inbox)
        self.assert_passes(other)
        while self.rcpt(inbox).code != 250:
            self.assertLess(now() - emptied, 10)
            time.sleep(0.05)
        # One token in two seconds, two of them at the start, whoever knocks.
        self.assertGreater(now() - emptied, 1.0)
        self.assertLess(now() - emptied, 4.0)
        self.assertEqual(self.rcpt(inbox).code, 450)

    def test_no_more_pass_than_burst_and_rate_allow(self):
        inbox = self.inbox("rate")
        self.throttle(5, 3, inbox=inbox)
        passed, began = 0, now()
        while now() - began < 3:
            passed += self.rcpt(inbox).code == 250
        took = now() - began
        self.assertLessEqual(passed, 3 + 5 * took + 1)
        self.assertGreaterEqual(passed, 3 + 5 * 3 - 4)

    def test_each_inbox_has_a_bucket_of_its_own(self):
        boxes = [self.inbox("own") for _ in range(3)]
        self.throttle(0.01, 1, inbox="own-*@example.com")
        for box in boxes:
            self.assertEqual(self.codes(2, box), [250, 450])

    def test_a_domain_shares_one(self):
        self.throttle(0.01, 2, per="domain", domain="dom.example")
        self.assertEqual([self.rcpt(box + "@dom.example").code
                          for box in ("a", "b", "c", "a")], [250, 250, 450, 450])
        self.assertEqual(self.lab.wait_incident("c@dom.example", "throttle")
                         ["detail"], "bucket of domain dom.example")
        self.assertEqual(self.rcpt("c@other.example").code, 250)

    def test_a_sender_shares_one_also_the_null_sender(self):
        self.throttle(0.01, 1, per="sender", domain="snd.example")
        for sender in ("one@example.org", "two@example.org", ""):
            self.assertEqual([self.rcpt(box, sender=sender).code for box in
                              ("a@snd.example", "b@snd.example")], [250, 450])

    def test_a_client_shares_one_and_at_mail_it_is_refused_there(self):
        inbox = self.inbox("cli")
        self.throttle(0.01, 1, per="client", stage="mail",
                      sender="throttled@example.org")
        for source in ("127.0.0.2", "127.0.0.3"):
            codes = []
            for _ in range(2):
                client = self.smtp(source=source)
                codes.append(client.mail("throttled@example.org").code)
            self.assertEqual(codes, [250, 450])
        self.assertEqual(self.rcpt(inbox, source="127.0.0.2").code, 250)

    def test_reply_of_one_s_own_and_421_ends_the_session(self):
        inbox = self.inbox("bye")
        self.throttle(0.01, 1, inbox=inbox, reply={
            "code": 421, "enhanced": "4.3.2", "text": "Come back later"})
        self.assertEqual(self.rcpt(inbox).code, 250)
        client = self.smtp()
        client.mail()
        self.assertEqual(client.rcpt(inbox).text, "421 4.3.2 Come back later")
        self.assertRaises(Gone, client.read_line)

    def test_at_the_message_it_refuses_all_and_names_the_others(self):
        inbox, other = self.inbox("msg"), self.inbox("other")
        self.throttle(0.01, 1, stage="message", inbox=inbox)
        sent = self.send(inbox, other)
        self.assertEqual(sent.end.code, 250)
        self.assert_delivered(other, sent.message)
        sent = self.send(inbox, other)
        self.assertEqual([reply.code for reply in sent.rcpts], [250, 250])
        self.assertEqual(sent.end.code, 450)
        event = self.lab.wait_incident(inbox, "throttle")
        self.assertEqual((event["stage"], event["others"]), ("message", "1"))
        self.lab.wait_idle()
        self.assertEqual(len(self.lab.mail(other)), 1)
        self.assertEqual(self.lab.incidents(other), [])

    def test_shadow_records_what_would_be_refused_and_refuses_nothing(self):
        inbox = self.inbox("shadow")
        self.throttle(0.01, 2, inbox=inbox, mode="shadow")
        for _ in range(3):
            self.assert_passes(inbox)
        event = self.lab.wait_incident(inbox, "throttle")
        self.assertEqual(event["outcome"], "shadow")
        self.assertEqual(len(self.lab.incidents(inbox)), 1)


class ThrottleWithoutRedis(LabTestCase):

    once = True

    def test_mail_passes_when_redis_does_not_answer(self):
        inbox = self.inbox("hung")
        self.rule({"kind": "throttle", "rate": 0.01, "burst": 1}, inbox=inbox)
        client = self.smtp()
        self.assertEqual(self.send(inbox, client=client).end.code, 250)
        self.lab.kill("redis-server", signal.SIGSTOP)
        try:
            client.mail()
            reply = client.rcpt(inbox)
            self.assertEqual(reply.code, 250)
            self.assertLess(reply.seconds, 1)
            self.assertEqual(client.data(make_message()).code, 250)
        finally:
            self.lab.kill("redis-server", signal.SIGCONT)
        self.assertIn("no answer from Redis", self.lab.log("chaosmilter"))
        self.assertEqual(self.lab.incidents(inbox), [])


if __name__ == "__main__":
    unittest.main()
