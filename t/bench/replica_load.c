/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a million inboxes cost: time to fill a table, memory for each beyond its
 * key, time of a lookup, time to write and read the snapshot. Usage:
 * replica_load [inboxes] [distinct documents]; exit 1 above 160 bytes each when
 * there is one document.
 */
#include "milter/clock.h"
#include "milter/store/replica.h"
#include "milter/store/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BYTES_ALLOWED 160

static long
rss_bytes(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2)
        abort();
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static long
fill(struct cm_replica *replica, long n, long distinct)
{
    char key[64], text[256];
    long key_bytes = 0;
    for (long i = 0; i < n; i++) {
        int len = snprintf(key, sizeof key, "inbox:user%07ld@example.com", i);
        key_bytes += len - 6;
        len = snprintf(text, sizeof text,
                       "{\"rev\":1,\"seq\":%ld,\"doc\":{\"enabled\":true,"
                       "\"latency\":{\"enabled\":true,\"minDelayMs\":%ld,"
                       "\"maxDelayMs\":10000,\"jitter\":true,"
                       "\"probability\":1}}}",
                       i + 1, i % distinct);
        if (cm_replica_load(replica, key, text, (size_t)len) != CM_OK)
            abort();
    }
    return key_bytes;
}

static double
lookup_ns(struct cm_replica *replica, long n)
{
    char key[64];
    struct cm_view *view = cm_replica_view(replica);
    int64_t start = cm_clock_mono_us();
    for (long i = 0; i < 1000000; i++) {
        int len =
            snprintf(key, sizeof key, "user%07ld@example.com", i * 7919 % n);
        struct cm_inbox *inbox = cm_view_inbox(view, key, (size_t)len);
        if (!inbox)
            abort();
        cm_inbox_release(&inbox);
    }
    int64_t took = cm_clock_mono_us() - start;
    cm_view_release(&view);
    return (double)took / 1000;
}

static int
save_and_load(struct cm_replica *replica)
{
    char dir[] = "/tmp/chaosmilter-bench.XXXXXX";
    struct cm_replica *other = NULL;
    if (!mkdtemp(dir))
        return 1;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t start = cm_clock_mono_ms();
    enum cm_status st = cm_snapshot_write(fd, "s", replica, NULL);
    int64_t written = cm_clock_mono_ms();
    if (st == CM_OK)
        st = cm_replica_new(&other, 0);
    if (st == CM_OK)
        st = cm_snapshot_read(fd, "s", other, NULL);
    printf("snapshot: written in %" PRId64 " ms, read in %" PRId64 " ms\n",
           written - start, cm_clock_mono_ms() - written);
    cm_replica_free(&other);
    unlinkat(fd, "s", 0);
    close(fd);
    rmdir(dir);
    return st != CM_OK;
}

int
main(int argc, char **argv)
{
    long n = argc > 1 ? atol(argv[1]) : 1000000;
    long distinct = argc > 2 ? atol(argv[2]) : 1;
    struct cm_replica *replica = NULL;
    if (n < 1 || distinct < 1 || cm_replica_new(&replica, 0) != CM_OK ||
        cm_replica_begin(replica) != CM_OK)
        return 2;
    long before = rss_bytes();
    int64_t start = cm_clock_mono_ms();
    long key_bytes = fill(replica, n, distinct);
    if (cm_replica_swap(replica, "epoch", n) != CM_OK)
        return 2;
    int64_t took = cm_clock_mono_ms() - start;
    long each = (rss_bytes() - before - key_bytes) / n;
    printf("%ld inboxes, %ld documents: filled in %" PRId64
           " ms, %ld bytes each besides the key of %ld\n",
           n, distinct, took, each, key_bytes / n);
    printf("lookup: %.0f ns, printing the address included\n",
           lookup_ns(replica, n));
    int failed = save_and_load(replica);
    cm_replica_free(&replica);
    return failed || (distinct == 1 && each > BYTES_ALLOWED);
}
