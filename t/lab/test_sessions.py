# SPDX-License-Identifier: BSD-2-Clause
"""SMTP sessions of every shape: reset, reused, pipelined, aborted, large, many
at once."""
import concurrent.futures
import unittest

from labkit import LabTestCase, Smtp, make_message

REFUSE = {"randomError": {"enabled": True, "errorRate": 1,
                          "errorTypes": ["permanent"]}}
BLACKHOLE = {"blackhole": {"enabled": True}}


class Sessions(LabTestCase):
    seconds = 20

    def configure(self, hint="cfg", **config):
        inbox = self.inbox(hint)
        self.lab.set_chaos(inbox, **config)
        self.lab.settle()
        return inbox

    def test_rset_forgets_what_was_decided(self):
        hole, plain = self.configure(**BLACKHOLE), self.inbox("plain")
        client = self.smtp()
        client.mail()
        self.assertEqual(client.rcpt(hole).code, 250)
        self.assertEqual(client.command("RSET").code, 250)
        sent = self.send(plain, client=client)
        self.assert_delivered(plain, sent.message)
        self.lab.wait_idle()
        self.assertEqual(self.lab.incidents(hole), [])

    def test_second_transaction_owes_nothing_to_the_first(self):
        hole, error, plain = (self.configure(**BLACKHOLE),
                              self.configure(**REFUSE), self.inbox("plain"))
        client = self.smtp()
        self.assertEqual(self.send(hole, client=client).end.code, 250)
        self.assertGreaterEqual(self.send(error, client=client).rcpts[0].code, 550)
        for count in (1, 2):
            sent = self.send(plain, client=client)
            self.assert_delivered(plain, sent.message, count)
        self.assert_not_delivered(hole)

    def test_ehlo_again_in_mid_transaction_starts_over(self):
        hole, plain = self.configure(**BLACKHOLE), self.inbox("plain")
        client = self.smtp()
        client.mail()
        client.rcpt(hole)
        self.assertEqual(client.ehlo().code, 250)
        sent = self.send(plain, client=client)
        self.assert_delivered(plain, sent.message)

    def test_config_set_in_mid_session_meets_its_next_mail(self):
        inbox = self.inbox("late")
        client = self.smtp()
        self.assertEqual(self.send(inbox, client=client).end.code, 250)
        self.lab.set_chaos(inbox, **REFUSE)
        self.lab.settle()
        self.assertGreaterEqual(self.send(inbox, client=client).rcpts[0].code, 550)

    def test_pipelined_commands_get_their_own_replies_in_order(self):
        error, hole, plain = (self.configure(**REFUSE),
                              self.configure(**BLACKHOLE), self.inbox("plain"))
        client = self.smtp()
        message = make_message()
        for line in ("MAIL FROM:<sender@example.org>", f"RCPT TO:<{plain}>",
                     f"RCPT TO:<{error}>", f"RCPT TO:<{hole}>", "DATA"):
            client.send_line(line)
        codes = [client.read_reply().code for _ in range(5)]
        self.assertEqual(codes[:2] + codes[3:], [250, 250, 250, 354])
        self.assertGreaterEqual(codes[2], 550)
        self.assertEqual(client.message(message).code, 250)
        self.assert_delivered(plain, message)
        self.assert_not_delivered(hole)

    def test_pipelining_beyond_a_delayed_reply_keeps_the_order(self):
        slow = self.configure(latency={"enabled": True, "minDelayMs": 300,
                                       "maxDelayMs": 300, "jitter": False,
                                       "stage": "rcpt"})
        plain = self.inbox("plain")
        client = self.smtp()
        for line in ("MAIL FROM:<sender@example.org>", f"RCPT TO:<{slow}>",
                     f"RCPT TO:<{plain}>", "DATA"):
            client.send_line(line)
        replies = [client.read_reply() for _ in range(4)]
        self.assertEqual([reply.code for reply in replies], [250, 250, 250, 354])
        self.assertGreaterEqual(replies[1].seconds, 0.29)
        self.assertEqual(client.message(make_message()).code, 250)

    def test_client_that_vanishes_at_any_point_hurts_nobody(self):
        hole = self.configure(**BLACKHOLE)
        steps = ("MAIL FROM:<sender@example.org>", f"RCPT TO:<{hole}>", "DATA",
                 "Subject: half a mess")
        for count in range(len(steps) + 1):
            client = self.smtp()
            for step in steps[:count]:
                client.send_line(step)
            client.close()
        self.assert_passes(self.inbox("after"))
        self.assert_not_delivered(hole)

    def test_thousand_recipients_in_one_transaction(self):
        inboxes = [self.inbox("many") for _ in range(1000)]
        refused, holes = inboxes[10:1000:100], inboxes[50:1000:100]
        for box in refused:
            self.lab.set_chaos(box, **REFUSE)
        for box in holes:
            self.lab.set_chaos(box, **BLACKHOLE)
        self.lab.settle()
        sent = self.send(*inboxes)
        for box, reply in zip(inboxes, sent.rcpts):
            if box in refused:
                self.assertGreaterEqual(reply.code, 550, box)
            else:
                self.assertEqual(reply.code, 250, box)
        self.assertEqual(sent.end.code, 250)
        self.lab.wait_idle(timeout=60)
        for box in inboxes:
            wanted = 0 if box in refused or box in holes else 1
            self.assertEqual(len(self.lab.mail(box)), wanted, box)

    def test_eight_senders_at_once_each_meet_their_own(self):
        error, hole = self.configure(**REFUSE), self.configure(**BLACKHOLE)
        rounds = 25

        def sender(number):
            plain = f"parallel-{number}-{error}"
            client = Smtp(self.lab.smtp_port)
            client.ehlo()
            for _ in range(rounds):
                codes = [client.mail().code, client.rcpt(plain).code,
                         client.rcpt(error).code, client.rcpt(hole).code]
                end = client.data(make_message()).code
                if codes[:2] + codes[3:] + [end] != [250] * 4 or codes[2] < 550:
                    raise AssertionError(client.dialogue())
            client.close()
            return plain

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            plains = list(pool.map(sender, range(8)))
        for plain in plains:
            self.assertEqual(len(self.lab.wait_mail(plain, rounds)), rounds)
        self.assert_not_delivered(hole)
        self.assert_not_delivered(error)

    def test_authenticated_submission_meets_chaos_too(self):
        error = self.configure(**REFUSE)
        client = self.smtp(port=self.lab.submission_port)
        self.assertEqual(
            client.command("AUTH PLAIN AHRlc3RlcgBzZWNyZXQ=").code, 235)
        sent = self.send(error, self.inbox("plain"), client=client)
        self.assertGreaterEqual(sent.rcpts[0].code, 550)
        self.assertEqual(sent.end.code, 250)


if __name__ == "__main__":
    unittest.main()
