/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blocks of addresses. Host bits that are set ("192.0.2.1/24") are refused
 * rather than masked: whoever wrote that meant either the host or the net, and
 * guessing wrong would hurt mail that nobody named.
 */
#include "milter/model/cidr.h"
#include "milter/model/ascii.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define CM_CIDR_TEXT_MAX 63

unsigned
cm_cidr_common_bits(const uint8_t *a, const uint8_t *b, unsigned limit)
{
    unsigned bits = 0;
    while (bits < limit) {
        unsigned differ = a[bits / 8] ^ b[bits / 8];
        if (differ & (0x80u >> bits % 8))
            break;
        bits++;
    }
    return bits;
}

bool
cm_cidr_contains(const struct cm_cidr *cidr, int family, const uint8_t *addr)
{
    return cidr->family == family &&
           cm_cidr_common_bits(cidr->addr, addr, cidr->bits) == cidr->bits;
}

/* The digits after the slash; false unless a plain number 0..max. */
static bool
parse_bits(const char *digits, unsigned max, unsigned *bits_r)
{
    unsigned bits = 0;
    if (*digits == '\0' || strlen(digits) > 3)
        return false;
    for (; *digits; digits++) {
        if (!cm_ascii_is_digit(*digits))
            return false;
        bits = bits * 10 + (unsigned)(*digits - '0');
    }
    *bits_r = bits;
    return bits <= max;
}

static bool
parse_address(struct cm_cidr *cidr, const char *text)
{
    if (inet_pton(AF_INET, text, cidr->addr) == 1)
        cidr->family = AF_INET;
    else if (inet_pton(AF_INET6, text, cidr->addr) == 1)
        cidr->family = AF_INET6;
    return cidr->family != 0;
}

/* ::ffff:192.0.2.0/120 is 192.0.2.0/24, because that is how such a client's
 * address is held. */
static void
unmap(struct cm_cidr *cidr)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (cidr->family != AF_INET6 || cidr->bits < 96 ||
        memcmp(cidr->addr, mapped, sizeof mapped) != 0)
        return;
    memmove(cidr->addr, cidr->addr + 12, 4);
    memset(cidr->addr + 4, 0, 12);
    cidr->family = AF_INET;
    cidr->bits -= 96;
}

/* Are all bits beyond the prefix zero? */
static bool
is_network(const struct cm_cidr *cidr)
{
    uint8_t network[16] = {0};
    memcpy(network, cidr->addr, cidr->bits / 8);
    if (cidr->bits % 8)
        network[cidr->bits / 8] =
            (uint8_t)(cidr->addr[cidr->bits / 8] & ~(0xff >> cidr->bits % 8));
    return memcmp(network, cidr->addr, sizeof network) == 0;
}

enum cm_status
cm_cidr_parse(struct cm_cidr *cidr_r, const char *text, struct cm_err *err)
{
    struct cm_cidr cidr = {0};
    char address[CM_CIDR_TEXT_MAX + 1];
    size_t len = strcspn(text, "/");
    if (len > CM_CIDR_TEXT_MAX)
        return cm_err_set(err, CM_EINVAL, "must be an IP address or block");
    memcpy(address, text, len);
    address[len] = '\0';
    if (!parse_address(&cidr, address))
        return cm_err_set(err, CM_EINVAL, "must be an IP address or block");

    unsigned width = cidr.family == AF_INET ? 32 : 128;
    cidr.bits = width;
    if (text[len] == '/' && !parse_bits(text + len + 1, width, &cidr.bits))
        return cm_err_set(err, CM_EINVAL,
                          "must have a prefix length of 0 to %u", width);

    if (!is_network(&cidr))
        return cm_err_set(err, CM_EINVAL,
                          "must not set bits beyond its prefix length");
    unmap(&cidr);
    *cidr_r = cidr;
    return CM_OK;
}
