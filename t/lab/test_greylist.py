# SPDX-License-Identifier: BSD-2-Clause
"""Greylisting: attempts, windows, and by what a sender is known again."""
import time
import unittest

from labkit import LabTestCase
from mtas import MTA

REFUSAL = "451 4.7.1 Greylisting in operation, try again later"
PASS = "passes"


class Greylist(LabTestCase):
    seconds = 20

    def configure(self, **greylist):
        inbox = self.inbox("grey")
        self.lab.set_chaos(inbox, greylist={"enabled": True, **greylist})
        self.lab.settle()
        return inbox

    def attempt(self, inbox, sender="sender@example.org", source=None):
        client = self.smtp(source=source)
        client.mail(sender)
        text = client.rcpt(inbox).text
        client.close()
        return PASS if text == MTA.accepted(inbox) else text

    def test_second_attempt_passes_by_default_and_arrives(self):
        inbox = self.configure()
        self.assertEqual(self.send(inbox).rcpts[0].text, REFUSAL)
        self.assert_passes(inbox)

    def test_attempt_n_is_refused_below_max_attempts(self):
        for most in (1, 2, 3, 5):
            with self.subTest(maxAttempts=most):
                inbox = self.configure(maxAttempts=most)
                texts = [self.attempt(inbox) for _ in range(most)]
                self.assertEqual(texts, [REFUSAL] * (most - 1) + [PASS])

    def test_after_acceptance_it_begins_anew(self):
        inbox = self.configure(maxAttempts=2)
        texts = [self.attempt(inbox) for _ in range(4)]
        self.assertEqual(texts, [REFUSAL, PASS, REFUSAL, PASS])

    def test_attempt_after_the_window_is_the_first_of_a_new_one(self):
        inbox = self.configure(retryWindowMs=700)
        self.assertEqual(self.attempt(inbox), REFUSAL)
        time.sleep(0.9)
        self.assertEqual(self.attempt(inbox), REFUSAL)
        self.assertEqual(self.attempt(inbox), PASS)

    def test_window_of_zero_never_passes(self):
        inbox = self.configure(retryWindowMs=0)
        for _ in range(4):
            self.assertEqual(self.attempt(inbox), REFUSAL)
            time.sleep(0.005)

    def check_track_by(self, track, same, different):
        """same: attempts that count as one sender; different: as another."""
        inbox = self.configure(maxAttempts=2, trackBy=track)
        first = dict(sender="one@example.org", source="127.0.0.1")
        for change in different:
            self.assertEqual(self.attempt(inbox, **first), REFUSAL)
            self.assertEqual(self.attempt(inbox, **{**first, **change}), REFUSAL,
                             f"{change} must count as another")
            self.assertEqual(self.attempt(inbox, **first), PASS)
            self.assertEqual(self.attempt(inbox, **{**first, **change}), PASS)
        for change in same:
            self.assertEqual(self.attempt(inbox, **first), REFUSAL)
            self.assertEqual(self.attempt(inbox, **{**first, **change}), PASS,
                             f"{change} must count as the same")

    def test_track_by_ip_knows_the_address_alone(self):
        self.check_track_by("ip", same=[{"sender": "two@example.org"}],
                            different=[{"source": "127.0.0.2"}])

    def test_track_by_sender_knows_the_sender_alone(self):
        self.check_track_by("sender", same=[{"source": "127.0.0.3"}],
                            different=[{"sender": "two@example.org"}])

    def test_track_by_both_knows_both(self):
        self.check_track_by("ip_sender", same=[{"sender": "ONE@Example.ORG"}],
                            different=[{"sender": "two@example.org"},
                                       {"source": "127.0.0.4"}])

    def test_null_sender_is_a_sender_like_any_other(self):
        inbox = self.configure(trackBy="sender")
        self.assertEqual(self.attempt(inbox, sender=""), REFUSAL)
        self.assertEqual(self.attempt(inbox, sender="a@example.org"), REFUSAL)
        self.assertEqual(self.attempt(inbox, sender=""), PASS)

    def test_two_inboxes_count_apart(self):
        one, two = self.configure(), self.configure()
        self.assertEqual(self.attempt(one), REFUSAL)
        self.assertEqual(self.attempt(two), REFUSAL)
        self.assertEqual(self.attempt(one), PASS)
        self.assertEqual(self.attempt(two), PASS)

    def test_changed_deleted_or_recreated_config_keeps_the_count(self):
        inbox = self.configure(maxAttempts=3)
        self.assertEqual(self.attempt(inbox), REFUSAL)
        self.lab.http("DELETE", self.lab.chaos_path(inbox))
        self.lab.set_chaos(inbox, greylist={"enabled": True, "maxAttempts": 2})
        self.lab.settle()
        self.assertEqual(self.attempt(inbox), PASS)

    def test_event_tells_the_attempt(self):
        inbox = self.configure(maxAttempts=2)
        self.attempt(inbox)
        self.attempt(inbox)
        event = self.lab.wait_incident(inbox, "greylist")
        self.assertEqual((event["outcome"], event["reply"]), ("applied", REFUSAL))
        self.assertIn("1/2", event["detail"])
        self.assertEqual(len(self.lab.incidents(inbox)), 1)


if __name__ == "__main__":
    unittest.main()
