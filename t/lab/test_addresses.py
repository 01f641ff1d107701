# SPDX-License-Identifier: BSD-2-Clause
"""Which recipients an inbox's chaos is for, however they are spelt."""
import unittest

from labkit import LabTestCase
from mtas import postfix_only

NO_SMTPUTF8 = "Sendmail as Debian builds it has no SMTPUTF8"

REFUSE = {"randomError": {"enabled": True, "errorRate": 1,
                          "errorTypes": ["permanent"]}}


class Addresses(LabTestCase):

    def configure(self, inbox, **config):
        self.lab.set_chaos(inbox, **(config or REFUSE))
        self.lab.settle()

    def rcpt(self, address, parameters=""):
        client = self.smtp()
        self.assertEqual(client.mail(parameters=parameters).code, 250)
        return client.command(f"RCPT TO:{address}").code

    def assert_hurt(self, address, parameters=""):
        self.assertGreaterEqual(self.rcpt(address, parameters), 550, address)

    def assert_free(self, address, parameters=""):
        self.assertEqual(self.rcpt(address, parameters), 250, address)

    def test_case_of_either_part_does_not_matter(self):
        self.configure("Case.Box@Example.COM")
        for spelling in ("case.box@example.com", "CASE.BOX@EXAMPLE.COM",
                         "cAsE.bOx@eXaMpLe.cOm"):
            self.assert_hurt(f"<{spelling}>")
        self.assert_free("<casebox@example.com>")

    def test_sub_address_meets_the_chaos_of_its_inbox(self):
        self.configure("tagged@example.com")
        self.assert_hurt("<tagged+news@example.com>")
        self.assert_hurt("<tagged+a+b@example.com>")
        self.assert_free("<tagge+d@example.com>")
        self.assert_free("<tagged@sub.example.com>")

    def test_config_of_the_exact_sub_address_goes_first(self):
        self.configure("exact@example.com")
        self.configure("exact+free@example.com", enabled=False)
        self.assert_hurt("<exact@example.com>")
        self.assert_hurt("<exact+other@example.com>")
        self.assert_free("<exact+free@example.com>")

    def test_config_of_a_sub_address_is_not_its_inboxes(self):
        self.configure("base+only@example.com")
        self.assert_hurt("<base+only@example.com>")
        self.assert_free("<base@example.com>")
        self.assert_free("<base+more@example.com>")

    def test_needless_quotes_do_not_matter(self):
        self.configure("quoted@example.com")
        self.assert_hurt('<"quoted"@example.com>')
        self.assert_hurt('<"q\\uoted"@example.com>')

    def test_source_route_does_not_matter(self):
        self.configure("routed@example.com")
        self.assert_hurt("<@relay.example:routed@example.com>")

    def test_blackhole_finds_every_spelling_in_one_message(self):
        self.configure("hole@example.com", blackhole={"enabled": True})
        spellings = ("hole@example.com", "HOLE@Example.com", '"hole"@example.com',
                     "hole+tag@example.com", "@relay.example:hole@example.com")
        for spelling in spellings:
            with self.subTest(spelling):
                other = self.inbox("beside")
                sent = self.send(spelling, other)
                self.assertEqual(sent.end.code, 250)
                self.assert_delivered(other, sent.message)
                self.assert_not_delivered("hole@example.com")
                self.assert_not_delivered("hole+tag@example.com")

    def test_unicode_domain_is_configured_by_either_form(self):
        self.configure("idn2@b\u00fccher.example")
        self.assert_hurt("<idn2@xn--bcher-kva.example>")

    @postfix_only(NO_SMTPUTF8)
    def test_unicode_domain_and_its_ascii_form_are_one(self):
        self.configure("idn@b\u00fccher.example")
        self.assert_hurt("<idn@b\u00fccher.example>", " SMTPUTF8")
        self.assert_hurt("<idn@B\u00dcCHER.example>", " SMTPUTF8")
        self.assert_free("<idn@bucher.example>")

    @postfix_only(NO_SMTPUTF8)
    def test_unicode_local_part(self):
        self.configure("j\u00f6rg@example.com")
        self.assert_hurt("<j\u00f6rg@example.com>", " SMTPUTF8")
        self.assert_hurt("<J\u00d6RG@example.com>", " SMTPUTF8")
        self.assert_free("<jorg@example.com>")

    def test_protected_addresses_are_never_hurt(self):
        for inbox in ("postmaster@example.com", "abuse@example.com"):
            answer = self.lab.http("POST", self.lab.chaos_path(inbox),
                                   {"enabled": True, **REFUSE})
            self.assertIn(answer.status, (200, 400, 403, 422), answer)
        self.lab.settle()
        for address in ("postmaster@example.com", "PostMaster@Example.com",
                        "postmaster+x@example.com", "abuse@example.com"):
            self.assert_free(f"<{address}>")
        self.assert_free("<postmaster>")

    def test_protected_address_set_through_redis_is_not_hurt_either(self):
        self.lab.redis("FCALL", "cm_set", 0, "inbox", "postmaster@redis.example",
                       '{"enabled":true,"randomError":{"enabled":true,"errorRate":1}}')
        self.lab.settle()
        self.assert_free("<postmaster@redis.example>")

    def test_unusual_addresses_meet_no_chaos_and_do_no_harm(self):
        self.configure("usual@example.com")
        for address in ("<usual>", "<usual@[127.0.0.1]>", '<"us ual"@example.com>',
                        "<usual@example.com.>", "<" + "x" * 64 + "@example.com>"):
            code = self.rcpt(address)
            self.assertIn(code, (250, 550, 551, 552, 553, 554, 501, 555), address)
        self.assert_hurt("<usual@example.com>")
        self.assert_free("<other@example.com>")


if __name__ == "__main__":
    unittest.main()
