# SPDX-License-Identifier: BSD-2-Clause
"""Conditions of a rule on the content of a message, its size, and which attempt
it is: where they hold, where they do not, and where they cannot be told."""
import signal
import unittest

from labkit import LabTestCase, make_message, wait_until
from mtas import MTA, postfix_only

LONG = "Sendmail itself refuses headers of more than 32768 bytes"
ERROR = {"kind": "error", "code": 550, "enhanced": "5.7.1", "text": "No"}


def with_header(*lines, body=b"Hello.\r\n"):
    """A message with more header lines, each as on the wire."""
    return b"".join(line + b"\r\n" for line in lines) + make_message(body=body)


class Header(LabTestCase):
    seconds = 15

    def rule_on(self, stage="message", **members):
        inbox = self.inbox("hdr")
        self.rule(ERROR, stage=stage, inbox=inbox, **members)
        return inbox

    def end(self, inbox, message, **options):
        return self.send(inbox, message=message, **options).end.code

    def test_header_that_matches_and_one_that_does_not(self):
        inbox = self.rule_on(header={"X-Campaign": "spring*"})
        for line, code in ((b"X-Campaign: spring sale", 550),
                           (b"x-campaign: SPRING", 550),
                           (b"X-Campaign:\tspring", 550),
                           (b"X-Campaign:spring", 550),
                           (b"X-Campaign: winter\r\nX-Campaign: spring", 550),
                           (b"X-Campaign: winter", 250),
                           (b"X-Campaign: in spring", 250),
                           (b"X-Campaign:", 250),
                           (b"X-Campaigns: spring", 250),
                           (b"Y: spring", 250)):
            with self.subTest(line):
                self.assertEqual(self.end(inbox, with_header(line)), code)

    def test_folded_header_is_one_line(self):
        inbox = self.rule_on(header={"X-Long": "one two three"})
        self.assertEqual(self.end(inbox, with_header(
            b"X-Long: one\r\n two\r\n three")), 550)

    def test_all_headers_of_a_rule_must_hold(self):
        inbox = self.rule_on(header={"X-A": "1", "X-B": "2"})
        self.assertEqual(self.end(inbox, with_header(b"X-A: 1")), 250)
        self.assertEqual(self.end(inbox, with_header(b"X-B: 2", b"X-A: 1")), 550)

    def test_header_of_another_inbox_s_rule_hurts_nobody_else(self):
        self.rule_on(header={"X-Campaign": "*"})
        self.assert_passes(self.inbox("other"))
        self.assertEqual(self.end(self.inbox("other"),
                                  with_header(b"X-Campaign: spring")), 250)

    def test_blackhole_by_header_takes_one_recipient(self):
        inbox, other = self.inbox("hdr"), self.inbox("other")
        self.rule("blackhole", inbox=inbox, header={"Subject": "secret*"})
        message = make_message("secret plans")
        self.assertEqual(self.send(inbox, other, message=message).end.code, 250)
        self.assert_delivered(other, message)
        self.assert_not_delivered(inbox)
        self.assert_passes(inbox)

    def test_odd_headers_pass_and_are_not_mistaken(self):
        inbox = self.rule_on(header={"X-Odd": "yes"})
        odd = [b"X-Odd: " + b"y" * 1500, b"X-Odd: y\xffs", b"X-Odd: %s%n"]
        if not MTA.refuses_control_bytes:
            odd += [b"X-Odd: y\x00es", b"X-Odd: y\res"]
        for line in odd:
            with self.subTest(line[:20]):
                self.assertEqual(self.end(inbox, with_header(line)), 250)
        self.assertEqual(self.end(inbox, with_header(b"X-Odd: yes")), 550)

    def test_too_many_headers_are_not_known_and_mail_passes(self):
        inbox = self.rule_on(header={"X-Many": "*"})
        client = self.smtp()
        many = [b"X-Many: %d" % n for n in range(1001)]
        self.assertEqual(self.end(inbox, with_header(*many[:999]),
                                  client=client), 550)
        self.assertEqual(self.end(inbox, with_header(*many), client=client), 250)
        self.assertEqual(self.end(inbox, with_header(b"X-Many: 1"),
                                  client=client), 550)

    @postfix_only(LONG)
    def test_huge_header_ends_no_session(self):
        inbox = self.rule_on(header={"X-Huge": "*"})
        client = self.smtp()
        huge = b"\r\n ".join([b"y" * 900] * 100)
        for lines, code in (((b"X-Huge: " + huge,), 250),
                            ((b"X-Huge: 1", b"Another: " + huge), 550),
                            ((b"X-Huge: 1",), 550)):
            self.assertEqual(self.end(inbox, with_header(*lines),
                                      client=client), code)

    def test_session_older_than_the_rule_cannot_know(self):
        self.lab.settle()  # the rules of other tests are gone
        client = self.smtp()
        inbox = self.rule_on(header={"X-Campaign": "*"})
        message = with_header(b"X-Campaign: spring")
        self.assertEqual(self.end(inbox, message, client=client), 250)
        self.assertEqual(self.lab.incidents(inbox), [])
        self.assertEqual(self.end(inbox, message), 550)

    def test_shadow_records_and_does_not_hurt(self):
        inbox = self.rule_on(header={"X-Campaign": "*"}, mode="shadow")
        self.assertEqual(self.end(inbox, with_header(b"X-Campaign: 1")), 250)
        event = self.lab.wait_incident(inbox, "error")
        self.assertEqual(event["outcome"], "shadow")


class Size(LabTestCase):
    seconds = 15

    def rule_on(self, stage, **size):
        inbox = self.inbox("size")
        self.rule(ERROR, stage=stage, inbox=inbox, size=size)
        return inbox

    def message_of(self, size):
        empty = make_message(body=b"")
        return empty + b"x" * (size - len(empty) - 2) + b"\r\n"

    def test_received_size_to_the_byte(self):
        inbox = self.rule_on("message", gte=1000, lte=2000)
        for size, code in ((999, 250), (1000, 550), (2000, 550), (2001, 250)):
            message = self.message_of(size)
            self.assertEqual(len(message), size)
            self.assertEqual(self.send(inbox, message=message).end.code, code,
                             size)

    def test_received_size_of_folded_headers_and_doubled_dots(self):
        message = with_header(b"X-Fold: a\r\n\tb\r\n c", body=b".\r\n..dots\r\n")
        size = len(message)
        inbox = self.rule_on("message", gte=size, lte=size)
        self.assertEqual(self.send(inbox, message=message).end.code, 550)

    def test_received_size_and_not_the_declared_one_at_the_message(self):
        inbox = self.rule_on("message", gte=5000)
        client = self.smtp()
        client.mail(parameters=" SIZE=9000")
        client.rcpt(inbox)
        self.assertEqual(client.data(self.message_of(4000)).code, 250)

    def test_large_messages_are_counted_and_pass(self):
        inbox = self.rule_on("message", gte=9000000)
        message = self.message_of(1000) + (b"x" * 70 + b"\r\n") * 100000
        self.assertEqual(self.send(inbox, message=message).end.code, 250)
        message += (b"x" * 70 + b"\r\n") * 30000
        self.assertEqual(self.send(inbox, message=message).end.code, 550)

    def test_declared_size_at_rcpt_and_data(self):
        for stage in ("rcpt", "data"):
            inbox = self.rule_on(stage, gte=5000)
            for parameters, code in ((" SIZE=5000", 550), (" SIZE=4999", 250),
                                     ("", 250)):
                with self.subTest(stage=stage, parameters=parameters):
                    client = self.smtp()
                    self.assertEqual(client.mail(parameters=parameters).code,
                                     250)
                    reply = client.rcpt(inbox)
                    if stage == "data":
                        self.assertEqual(reply.code, 250)
                        reply = client.command("DATA")
                        code = 354 if code == 250 else code
                    self.assertEqual(reply.code, code)

    def test_declared_size_at_mail(self):
        self.rule(ERROR, stage="mail", sender="big@example.org",
                  size={"gte": 5000})
        for sender, parameters, code in (
                ("big@example.org", " SIZE=5000", 550),
                ("big@example.org", " SIZE=100", 250),
                ("big@example.org", "", 250),
                ("other@example.org", " SIZE=5000", 250)):
            self.assertEqual(self.smtp().mail(sender, parameters).code, code)

    @postfix_only(LONG)
    def test_size_of_a_header_that_is_told_in_part_is_not_known(self):
        inbox = self.rule_on("message", lte=80000)
        huge = b"X-Huge: " + b"\r\n ".join([b"y" * 900] * 100)
        self.assertEqual(self.send(inbox, message=with_header(huge)).end.code,
                         250)

    def test_session_older_than_the_rule_cannot_know(self):
        self.lab.settle()  # the rules of other tests are gone
        client = self.smtp()
        inbox = self.rule_on("message", gte=1)
        self.assert_passes(inbox, client=client)
        self.assertEqual(self.send(inbox).end.code, 550)


class Attempt(LabTestCase):
    seconds = 20

    def rule_on(self, stage="rcpt", fault=None, **members):
        inbox = self.inbox("try")
        self.rule(fault or ERROR, stage=stage, inbox=inbox, **members)
        return inbox

    def rcpt(self, inbox, sender="sender@example.org", source=None):
        client = self.smtp(source=source)
        self.assertEqual(client.mail(sender).code, 250)
        return client.rcpt(inbox).code

    def test_first_attempts_are_refused_and_then_it_begins_anew(self):
        inbox = self.rule_on(attempt={"lte": 2})
        for _ in range(2):
            self.assertEqual([self.rcpt(inbox) for _ in range(2)], [550, 550])
            self.assert_delivered_next(inbox)

    def assert_delivered_next(self, inbox):
        before = len(self.lab.mail(inbox))
        sent = self.send(inbox)
        self.assertEqual(sent.end.code, 250)
        self.lab.wait_mail(inbox, before + 1)

    def test_attempt_that_is_not_finished_counts(self):
        inbox = self.rule_on(attempt={"gte": 3})
        self.assertEqual([self.rcpt(inbox) for _ in range(4)],
                         [250, 250, 550, 550])

    def test_client_sender_and_recipient_count_apart(self):
        inbox = self.rule_on(attempt={"lte": 1})
        self.assertEqual(self.rcpt(inbox), 550)
        self.assertEqual(self.rcpt(inbox, sender="x@example.org"), 550)
        self.assertEqual(self.rcpt(inbox, source="127.0.0.2"), 550)
        self.assertEqual(self.rcpt(inbox), 250)

    def test_recipient_given_twice_is_one_attempt(self):
        inbox = self.rule_on(attempt={"lte": 1})
        client = self.smtp()
        client.mail()
        self.assertEqual([client.rcpt(inbox).code for _ in range(3)], [550] * 3)
        client.command("RSET")
        client.mail()
        self.assertEqual(client.rcpt(inbox).code, 250)

    def test_attempt_at_data_and_at_the_message(self):
        for stage in ("data", "message"):
            with self.subTest(stage):
                inbox = self.rule_on(stage, attempt={"lte": 1})
                sent = self.send(inbox)
                self.assertEqual((sent.rcpts[0].code, sent.end.code), (250, 550))
                self.assert_passes(inbox)
                self.assertEqual(self.send(inbox).end.code, 550)

    def test_attempt_of_a_blackholed_mail_was_accepted(self):
        inbox = self.rule_on("message", {"kind": "blackhole"},
                             attempt={"lte": 1})
        for _ in range(2):
            self.assertEqual(self.send(inbox).end.code, 250)
        self.assert_not_delivered(inbox)

    def test_acknowledgement_that_was_lost_ends_no_count(self):
        inbox = self.rule_on("message", {"kind": "drop", "outcome": "ackLost"},
                             attempt={"lte": 1})
        client = self.smtp()
        client.mail()
        client.rcpt(inbox)
        client.command("DATA")
        client.send_message(make_message())
        self.lab.wait_incident(inbox, "drop")
        self.lab.wait_mail(inbox)
        self.assertEqual(self.send(inbox).end.code, 250)
        self.lab.wait_mail(inbox, 2)

    def test_shadow_counts_and_does_not_hurt(self):
        inbox = self.rule_on(attempt={"lte": 1}, mode="shadow")
        self.assert_passes(inbox)
        self.assertEqual(self.lab.wait_incident(inbox, "error")["outcome"],
                         "shadow")

    def test_nothing_is_counted_where_no_rule_asks(self):
        inbox, other = self.rule_on(attempt={"lte": 1}), self.inbox("other")
        before = self.lab.redis("KEYS", "*" + other + "*")
        self.assert_passes(other)
        self.assertEqual(self.lab.redis("KEYS", "*" + other + "*"), before)
        self.assertEqual(self.rcpt(inbox), 550)
        wait_until("the count", lambda: [key for key in self.lab.redis(
            "KEYS", "*" + inbox + "*") if ":st:" in key])


class AttemptWithoutRedis(LabTestCase):

    once = True

    def test_attempt_is_not_known_and_mail_passes(self):
        inbox = self.inbox("hung")
        self.rule(ERROR, inbox=inbox, attempt={"gte": 1})
        client = self.smtp()
        client.mail()
        self.lab.kill("redis-server", signal.SIGSTOP)
        try:
            reply = client.rcpt(inbox)
            self.assertEqual(reply.code, 250)
            self.assertLess(reply.seconds, 1)
            self.assertEqual(client.data(make_message()).code, 250)
        finally:
            self.lab.kill("redis-server", signal.SIGCONT)
        self.lab.wait_mail(inbox)
        self.assertIn("which attempt it is is not known",
                      self.lab.log("chaosmilter"))


if __name__ == "__main__":
    unittest.main()
