# SPDX-License-Identifier: BSD-2-Clause
"""What a rule changes of a message at its end, seen in what was delivered:
quarantine, duplicate, misdeliver, mutate."""
import collections
import unittest

from labkit import LabTestCase, content_of, make_message
from mtas import MTA, postfix_only

ONCE = "Sendmail delivers once to a recipient named twice"

BODY = b"Hello.\r\nA second line.\r\n.a dot\r\n\r\nThe end.\r\n"


def headers_of(message):
    return message[:message.index(b"\r\n\r\n") + 4]


def body_of(message):
    return message[len(headers_of(message)):]


class MessageFaults(LabTestCase):

    def applied(self, inbox, kind, others=0):
        """The one record for the inbox, as done; its detail."""
        event = self.lab.wait_incident(inbox, kind)
        self.assertEqual(event["outcome"], "applied", event)
        self.assertEqual(event["stage"], "message")
        self.assertEqual(event.get("others", "0"), str(others))
        self.assertEqual(len(self.lab.incidents(inbox)), 1)
        return event.get("detail", "")

    def unavailable(self, inbox, kind, why):
        event = self.lab.wait_incident(inbox, kind)
        self.assertEqual(event["outcome"], "unavailable", event)
        self.assertIn(why, event["detail"])

    def accepted(self, *recipients, **options):
        sent = self.send(*recipients, **options)
        self.assertEqual([reply.code for reply in sent.rcpts],
                         [250] * len(recipients))
        self.assertEqual(sent.end.code, 250)
        return sent

    def delivered(self, recipient, count=1):
        """What came for a recipient, as a client would have sent it."""
        mails = self.lab.wait_mail(recipient, count)
        self.lab.wait_idle()
        self.assertEqual(len(self.lab.mail(recipient)), count)
        return [content_of(mail) for mail in mails]


class Quarantine(MessageFaults):

    def held(self):
        """How many messages the MTA holds."""
        return MTA.held(self.lab.dir)

    def test_message_is_accepted_held_and_not_delivered(self):
        inbox, other = self.inbox("hold"), self.inbox("other")
        self.rule({"kind": "quarantine", "reason": "chaos: look at it"},
                  inbox=inbox)
        before = self.held()
        self.accepted(inbox, other)
        self.assertEqual(self.applied(inbox, "quarantine", others=1),
                         "chaos: look at it")
        self.lab.wait_idle()
        self.assertEqual(self.held(), before + 1)
        self.assert_not_delivered(inbox)
        self.assert_not_delivered(other)
        self.assert_passes(other)
        self.assertEqual(self.held(), before + 1)

    def test_message_that_a_protected_recipient_shares_is_not_held(self):
        inbox = self.inbox("hold")
        self.rule("quarantine", inbox=inbox)
        before = self.held()
        sent = self.accepted(inbox, "postmaster@example.com")
        self.assert_delivered(inbox, sent.message)
        self.unavailable(inbox, "quarantine",
                         "a protected recipient shares the message")
        self.assertEqual(self.held(), before)

    def test_shadow_holds_nothing(self):
        inbox = self.inbox("hold")
        self.rule("quarantine", inbox=inbox, mode="shadow")
        self.assert_passes(inbox)
        self.assertEqual(self.lab.wait_incident(inbox, "quarantine")["outcome"],
                         "shadow")


class Copies(MessageFaults):
    """Duplicate and misdeliver concern one recipient."""

    @postfix_only(ONCE)
    def test_duplicate_delivers_twice_to_that_recipient_alone(self):
        inbox, other = self.inbox("twice"), self.inbox("other")
        self.rule("duplicate", inbox=inbox)
        sent = self.accepted(other, inbox)
        self.assertEqual(self.delivered(inbox, 2), [sent.message] * 2)
        self.assert_delivered(other, sent.message)
        self.applied(inbox, "duplicate")
        self.assertEqual(self.lab.incidents(other), [])

    @postfix_only(ONCE)
    def test_duplicate_finds_the_recipient_as_it_was_typed(self):
        inbox = self.inbox("Typed")
        self.rule("duplicate", inbox=inbox)
        sent = self.accepted("@relay.example:" + inbox.upper())
        self.assertEqual(self.delivered(inbox, 2), [sent.message] * 2)

    def test_misdeliver_gives_the_mail_to_another(self):
        inbox, to, other = (self.inbox(hint) for hint in ("mis", "to", "other"))
        self.rule({"kind": "misdeliver", "to": to}, inbox=inbox)
        sent = self.accepted(inbox, other)
        self.assert_delivered(to, sent.message)
        self.assert_delivered(other, sent.message)
        self.assert_not_delivered(inbox)
        self.assertEqual(self.applied(inbox, "misdeliver"), "to " + to)

    def test_misdeliver_of_the_only_recipient(self):
        inbox, to = self.inbox("mis"), self.inbox("to")
        self.rule({"kind": "misdeliver", "to": to}, inbox=inbox)
        sent = self.accepted(inbox)
        self.assert_delivered(to, sent.message)
        self.assert_not_delivered(inbox)

    def test_misdeliver_to_each_other_swaps_and_loses_nothing(self):
        one, two = self.inbox("one"), self.inbox("two")
        self.rule({"kind": "misdeliver", "to": two}, inbox=one)
        self.rule({"kind": "misdeliver", "to": one}, inbox=two)
        sent = self.accepted(one, two)
        self.assertEqual(self.delivered(one), [sent.message])
        self.assertEqual(self.delivered(two), [sent.message])
        self.applied(one, "misdeliver")
        self.applied(two, "misdeliver")

    def test_misdeliver_never_to_a_protected_recipient(self):
        inbox, to = self.inbox("mis"), "abuse@protected.example"
        self.rule({"kind": "misdeliver", "to": to}, inbox=inbox)
        self.assert_passes(inbox)
        self.unavailable(inbox, "misdeliver",
                         "the recipient to deliver to is protected")
        self.assert_not_delivered(to)

    def test_each_recipient_meets_its_own_in_one_message(self):
        hole, twice, mis, plain, to = (self.inbox(hint) for hint in
                                       ("hole", "twice", "mis", "plain", "to"))
        self.rule("blackhole", inbox=hole)
        self.rule("duplicate", inbox=twice)
        self.rule({"kind": "misdeliver", "to": to}, inbox=mis)
        sent = self.accepted(hole, twice, "postmaster@example.com", mis, plain)
        count = 2 if MTA.delivers_twice else 1
        self.assertEqual(self.delivered(twice, count), [sent.message] * count)
        self.assertEqual(self.delivered(to), [sent.message])
        self.assertEqual(self.delivered(plain), [sent.message])
        self.assert_not_delivered(hole)
        self.assert_not_delivered(mis)


class Mutate(MessageFaults):
    seconds = 25

    def mutated(self, how, message=None, others=1):
        """What a recipient and a bystander of the same message get. A mutation
        changes it for both."""
        inbox, other = self.inbox("mut"), self.inbox("other")
        self.rule({"kind": "mutate", **how}, inbox=inbox)
        message = message or make_message(body=BODY)
        self.accepted(inbox, other, message=message)
        got, = self.delivered(inbox)
        self.assertEqual(self.delivered(other), [got])
        return message, got, self.applied(inbox, "mutate", others)

    def assert_untouched(self, how, why, body=BODY):
        inbox = self.inbox("mut")
        self.rule({"kind": "mutate", **how}, inbox=inbox)
        self.assert_passes(inbox, message=make_message(body=body))
        self.unavailable(inbox, "mutate", why)

    def test_truncateBody_leaves_so_many_bytes(self):
        for n, left in ((8, BODY[:8]), (0, b""),
                        # The MTA ends a line that was cut.
                        (11, BODY[:11] + b"\r\n"), (7, BODY[:8])):
            with self.subTest(n):
                sent, got, detail = self.mutated({"truncateBody": n})
                self.assertEqual(headers_of(got), headers_of(sent))
                self.assertEqual(body_of(got), left)
                self.assertEqual(detail, f"cut to {n} bytes")

    def test_truncateBody_of_a_long_body(self):
        body = b"".join(b"line %06d\r\n" % i for i in range(50000))
        sent, got, _ = self.mutated({"truncateBody": 300000 - 300000 % 13},
                                    make_message(body=body))
        self.assertEqual(body_of(got), body[:300000 - 300000 % 13])
        self.assertEqual(headers_of(got), headers_of(sent))

    def test_truncateBody_of_a_short_body_is_not_claimed(self):
        self.assert_untouched({"truncateBody": len(BODY)},
                              "the body is not longer than that")

    def test_dropHeader_takes_out_every_one_and_nothing_else(self):
        message = (b"DKIM-Signature: v=1; d=one.example;\r\n\tb=abc\r\n"
                   b"X-Keep: yes\r\n" + make_message(body=BODY).replace(
                       b"Subject:", b"dkim-signature: v=1; d=two.example\r\n"
                       b"Subject:", 1))
        # content_of finds the message by its From, so that comes first.
        at = message.index(b"From:")
        first = message[at:message.index(b"\r\n", at) + 2]
        message = first + message.replace(first, b"", 1)
        _, got, detail = self.mutated({"dropHeader": "DKIM-Signature"}, message)
        want = message.replace(b"DKIM-Signature: v=1; d=one.example;\r\n"
                               b"\tb=abc\r\n", b"", 1)
        want = want.replace(b"dkim-signature: v=1; d=two.example\r\n", b"", 1)
        self.assertNotIn(b"kim", want)
        self.assertEqual(got, want)
        self.assertEqual(detail, "dropped 2 of DKIM-Signature")

    def test_dropHeader_that_is_not_there_is_not_claimed(self):
        self.assert_untouched({"dropHeader": "X-None"},
                              "the message has no such header")

    def test_addHeader_adds_one_line(self):
        sent, got, _ = self.mutated({"addHeader": {"X-Chaos": "100% rotten"}})
        self.assertEqual(body_of(got), body_of(sent))
        self.assertEqual(sorted(headers_of(got).split(b"\r\n")),
                         sorted(headers_of(sent).split(b"\r\n")
                                + [b"X-Chaos: 100% rotten"]))

    def flipped(self, before, after):
        """How many bits differ; nothing that SMTP lives on may."""
        self.assertEqual(len(after), len(before))
        n = 0
        for one, two in zip(before, after):
            if one != two:
                self.assertNotIn(one, b"\r\n\0")
                self.assertNotIn(two, b"\r\n\0")
                self.assertEqual((one ^ two) & 0x80, 0)
                n += (one ^ two).bit_count()
        return n

    def test_flipBits_flips_so_many_and_no_line_end(self):
        for n in (1, 7, 30):
            with self.subTest(n):
                sent, got, detail = self.mutated({"flipBits": n})
                self.assertEqual(headers_of(got), headers_of(sent))
                self.assertEqual(self.flipped(body_of(sent), body_of(got)), n)
                self.assertEqual(detail, f"{n} bits flipped")

    def test_flipBits_of_a_long_body(self):
        body = b"".join(b"line %06d\r\n" % i for i in range(50000))
        sent, got, _ = self.mutated({"flipBits": 1000}, make_message(body=body))
        self.assertEqual(self.flipped(body, body_of(got)), 1000)
        self.assertEqual(headers_of(got), headers_of(sent))

    def test_flipBits_of_a_body_with_too_few_bytes_is_not_claimed(self):
        self.assert_untouched({"flipBits": 5},
                              "the body has fewer bytes that can be flipped",
                              body=b"Hi.\r\n")

    def test_flipBits_with_a_seed_flips_the_same_in_the_same_mails(self):
        inbox, message = self.inbox("seed"), make_message(body=BODY)
        self.rule({"kind": "mutate", "flipBits": 9}, seed=7, inbox=inbox)
        runs = []
        for run in range(2):
            bodies = []
            for n in range(2):
                before = self.lab.mail(inbox)
                self.accepted(inbox, message=message)
                after = self.lab.wait_mail(inbox, len(before) + 1)
                new, = collections.Counter(after) - collections.Counter(before)
                bodies.append(body_of(content_of(new)))
            runs.append(bodies)
            # As if nothing had been sent yet.
            self.lab.redis("DEL", *self.lab.redis("KEYS", "*:st:occ:*"))
        self.assertEqual(runs[0], runs[1])
        self.assertNotEqual(runs[0][0], runs[0][1])

    def test_flipBits_of_a_body_as_long_as_it_may_be(self):
        line = b"x" * 70 + b"\r\n"
        body = line * (10000000 // len(line))
        _, got, _ = self.mutated({"flipBits": 1}, make_message(body=body))
        self.assertEqual(self.flipped(body, body_of(got)), 1)

    def test_mutations_of_several_recipients_come_together(self):
        one, two, three = (self.inbox(hint) for hint in ("m1", "m2", "m3"))
        self.rule({"kind": "mutate", "truncateBody": 24}, inbox=one)
        self.rule({"kind": "mutate", "flipBits": 3}, inbox=two)
        self.rule({"kind": "mutate", "addHeader": {"X-Three": "yes"}},
                  inbox=three)
        sent = self.accepted(one, two, three,
                             message=make_message(body=BODY))
        got, = self.delivered(one)
        self.assertEqual(self.flipped(BODY[:24], body_of(got)), 3)
        self.assertIn(b"\r\nX-Three: yes\r\n", headers_of(got))
        for inbox in (one, two, three):
            self.applied(inbox, "mutate", others=2)
        self.assertEqual(len(headers_of(got)), len(headers_of(sent.message))
                         + len(b"X-Three: yes\r\n"))


class Late(MessageFaults):
    """A session that began before the rule was there."""

    def test_needs_what_the_session_was_never_told(self):
        self.lab.settle()  # the rules of other tests are gone
        client = self.smtp()
        for how, why in (({"truncateBody": 3}, "its bodies"),
                         ({"flipBits": 3}, "its bodies"),
                         ({"dropHeader": "Subject"}, "its headers")):
            inbox = self.inbox("late")
            self.rule({"kind": "mutate", **how}, inbox=inbox)
            self.assert_passes(inbox, client=client)
            self.unavailable(inbox, "mutate", "the session began before any "
                                              "rule wanted " + why)

    def test_needs_nothing_and_is_done(self):
        client = self.smtp()
        inbox = self.inbox("late")
        self.accepted(self.inbox("first"), client=client)
        self.rule({"kind": "mutate", "addHeader": {"X-Late": "1"}}, inbox=inbox)
        self.accepted(inbox, client=client)
        self.assertIn(b"\r\nX-Late: 1\r\n", self.delivered(inbox)[0])


if __name__ == "__main__":
    unittest.main()
