# SPDX-License-Identifier: BSD-2-Clause
"""Random errors: which replies, how often, and what a 421 does."""
import json
import unittest

from labkit import Gone, LabTestCase, make_message
from mtas import MTA

TEMPORARY = {"421 4.7.0 Service temporarily unavailable",
             "450 4.2.1 Mailbox busy, try again later",
             "451 4.3.0 Temporary processing error",
             "452 4.3.1 Insufficient storage"}
PERMANENT = {"550 5.1.1 Mailbox not found",
             "551 5.1.6 User not local",
             "552 5.3.4 Message size exceeds limit",
             "553 5.1.3 Mailbox name invalid",
             "554 5.0.0 Transaction failed"}
DRAWS = 200


class RandomError(LabTestCase):

    def configure(self, **error):
        inbox = self.inbox("err")
        self.lab.set_chaos(inbox, randomError={"enabled": True, **error})
        self.lab.settle()
        return inbox

    def seen(self, texts, inbox):
        """What a client reads at RCPT of these replies."""
        return {MTA.refused(text, inbox) for text in texts}

    def draw(self, inbox, times):
        """The replies to so many RCPTs; a new session after each 421."""
        texts = []
        client = None
        for _ in range(times):
            if client is None:
                client = self.smtp()
                client.mail()
            reply = client.rcpt(inbox)
            self.assertEqual(len(reply.lines), 1)
            texts.append(reply.text)
            if reply.code == 421:
                with self.assertRaises(Gone):
                    client.read_line()
                client = None
        return texts

    def test_temporary_draws_every_reply_of_its_list_and_no_other(self):
        inbox = self.configure(errorRate=1, errorTypes=["temporary"])
        self.assertEqual(set(self.draw(inbox, DRAWS)),
                         self.seen(TEMPORARY, inbox))

    def test_permanent_draws_every_reply_of_its_list_and_no_other(self):
        inbox = self.configure(errorRate=1, errorTypes=["permanent"])
        self.assertEqual(set(self.draw(inbox, DRAWS)),
                         self.seen(PERMANENT, inbox))

    def test_both_types_draw_from_both_lists(self):
        inbox = self.configure(errorRate=1, errorTypes=["temporary", "permanent"])
        self.assertEqual(set(self.draw(inbox, DRAWS)),
                         self.seen(TEMPORARY | PERMANENT, inbox))

    def test_types_not_given_are_temporary(self):
        inbox = self.configure(errorRate=1)
        self.assertLessEqual(set(self.draw(inbox, 20)),
                             self.seen(TEMPORARY, inbox))

    def test_each_reply_comes_about_equally_often(self):
        inbox = self.configure(errorRate=1, errorTypes=["permanent"])
        texts = self.draw(inbox, 500)
        for text in self.seen(PERMANENT, inbox):    # mean 100, standard deviation 8.9
            self.assertTrue(45 <= texts.count(text) <= 155,
                            f"{text}: {texts.count(text)} of 500")

    def test_rate_zero_never_acts(self):
        inbox = self.configure(errorRate=0)
        self.assertEqual(set(self.draw(inbox, DRAWS)), {MTA.accepted(inbox)})

    def test_rate_half_acts_about_half_of_the_time(self):
        inbox = self.configure(errorRate=0.5, errorTypes=["permanent"])
        hurt = sum(text[0] == "5" for text in self.draw(inbox, 400))
        self.assertTrue(130 <= hurt <= 270, f"{hurt} of 400")   # 7 sigma

    def test_drawn_421_at_rcpt_closes_this_session_only(self):
        inbox = self.configure(errorRate=1, errorTypes=["temporary"])
        bystander = self.smtp()
        bystander.mail()
        for _ in range(200):
            client = self.smtp()
            client.mail()
            if client.rcpt(inbox).code == 421:
                break
            client.close()
        else:
            self.fail("no 421 in 200 draws")
        with self.assertRaises(Gone):
            client.read_line()
        self.assertEqual(bystander.rcpt(self.inbox("other")).code, 250)

    def test_no_421_is_drawn_once_another_recipient_was_accepted(self):
        inbox, earlier = self.configure(errorRate=1), self.inbox("earlier")
        for _ in range(10):
            client = self.smtp()
            client.mail()
            self.assertEqual(client.rcpt(earlier).code, 250)
            for _ in range(10):
                self.assertIn(client.rcpt(inbox).code, (450, 451, 452))
            message = make_message()
            self.assertEqual(client.data(message).code, 250)
        self.assertEqual(len(self.lab.wait_mail(earlier, 10)), 10)

    def test_421_that_a_rule_names_says_whom_it_takes_along(self):
        inbox = self.inbox("err")
        self.lab.redis_cli("FCALL", "cm_set", "0", "rule", "r421", json.dumps(
            {"inbox": inbox, "fault": {"kind": "error", "code": 421}}))
        self.addCleanup(self.lab.redis_cli, "FCALL", "cm_del", "0", "rule",
                        "r421")
        self.lab.settle()
        client = self.smtp()
        client.mail()
        self.assertEqual(client.rcpt(self.inbox("earlier")).code, 250)
        self.assertEqual(client.rcpt(inbox).code, 421)
        with self.assertRaises(Gone):
            client.read_line()
        self.assertEqual(self.lab.wait_incident(inbox, "error")["others"], "1")

    def test_event_holds_the_reply_that_the_client_saw(self):
        inbox = self.configure(errorRate=1, errorTypes=["permanent"])
        text = self.draw(inbox, 1)[0]
        event = self.lab.wait_incident(inbox, "error")
        self.assertEqual((event["outcome"], event["stage"]), ("applied", "rcpt"))
        self.assertEqual(MTA.refused(event["reply"], inbox), text)
        self.assertEqual(event["sender"], "sender@example.org")
        self.assertEqual(event["client"], "127.0.0.1")

    def test_stage_message_answers_after_the_final_dot(self):
        inbox, other = self.configure(errorRate=1, errorTypes=["permanent"],
                                      stage="message"), self.inbox("other")
        sent = self.send(inbox, other)
        self.assertEqual([reply.code for reply in sent.rcpts], [250, 250])
        self.assertIn(sent.end.text, PERMANENT)
        self.assert_not_delivered(inbox)
        event = self.lab.wait_incident(inbox, "error")
        self.assertEqual((event["stage"], event["others"]), ("message", "1"))


if __name__ == "__main__":
    unittest.main()
