/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fixed number of short lists behind one lock: a mail server has at most some
 * thousand sessions open, and each step takes some hundred nanoseconds. The
 * lists are sorted by nothing but age, newest first, so the first that fits is
 * the newest.
 *
 * Keeping this in struct cm_session was rejected: what another thread may look
 * at is then all here, and is a copy.
 */
#include "milter/filter/attendance.h"
#include "milter/clock.h"
#include "milter/filter/ticket.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LISTS 1024 /* a power of two; processes are numbered in a row */

struct seat {
    struct seat *next;
    struct cm_guest guest;
    bool met;
    struct cm_ticket *ticket; /* owned, or NULL */
};

struct cm_attendance {
    pthread_mutex_t lock;
    struct seat *lists[LISTS];
};

enum cm_status
cm_attendance_new(struct cm_attendance **attendance_r, struct cm_err *err)
{
    struct cm_attendance *attendance = calloc(1, sizeof *attendance);
    if (!attendance)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    pthread_mutex_init(&attendance->lock, NULL);
    *attendance_r = attendance;
    return CM_OK;
}

void
cm_attendance_free(struct cm_attendance **attendance)
{
    if (!*attendance)
        return;
    for (size_t i = 0; i < LISTS; i++) {
        for (struct seat *seat = (*attendance)->lists[i], *next; seat;
             seat = next) {
            next = seat->next;
            cm_ticket_free(&seat->ticket);
            free(seat);
        }
    }
    pthread_mutex_destroy(&(*attendance)->lock);
    free(*attendance);
    *attendance = NULL;
}

static struct seat **
list_of(struct cm_attendance *attendance, pid_t process)
{
    return &attendance->lists[(unsigned)process % LISTS];
}

/* The link to the newest seat of the process, or to one session's alone; NULL
 * inside when there is none. The lock is held. */
static struct seat **
find(struct cm_attendance *attendance, pid_t process, const uint64_t *session)
{
    struct seat **at = list_of(attendance, process);
    while (*at && ((*at)->guest.process != process ||
                   (session && (*at)->guest.session != *session)))
        at = &(*at)->next;
    return at;
}

enum cm_status
cm_attendance_enter(struct cm_attendance *attendance,
                    const struct cm_guest *guest)
{
    if (guest->process <= 0)
        return CM_EINVAL;
    struct seat *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return CM_ENOMEM;
    fresh->guest = *guest;
    pthread_mutex_lock(&attendance->lock);
    struct seat *taken = *find(attendance, guest->process, &guest->session);
    if (taken) {
        taken->guest = *guest;
    } else {
        struct seat **list = list_of(attendance, guest->process);
        fresh->next = *list;
        *list = fresh;
        fresh = NULL;
    }
    pthread_mutex_unlock(&attendance->lock);
    free(fresh);
    return CM_OK;
}

struct cm_ticket *
cm_attendance_leave(struct cm_attendance *attendance, pid_t process,
                    uint64_t session)
{
    struct cm_ticket *ticket = NULL;
    pthread_mutex_lock(&attendance->lock);
    struct seat **at = find(attendance, process, &session);
    struct seat *seat = *at;
    if (seat) {
        *at = seat->next;
        ticket = seat->ticket;
    }
    pthread_mutex_unlock(&attendance->lock);
    free(seat);
    return ticket;
}

bool
cm_attendance_meet(struct cm_attendance *attendance, pid_t process,
                   struct cm_guest *guest_r, struct cm_ticket **ticket_r)
{
    pthread_mutex_lock(&attendance->lock);
    struct seat *seat = *find(attendance, process, NULL);
    if (seat) {
        seat->met = true;
        *guest_r = seat->guest;
        *ticket_r = seat->ticket;
        seat->ticket = NULL;
    }
    pthread_mutex_unlock(&attendance->lock);
    return seat != NULL;
}

bool
cm_attendance_look(struct cm_attendance *attendance, pid_t process,
                   struct cm_guest *guest_r)
{
    if (!attendance)
        return false;
    pthread_mutex_lock(&attendance->lock);
    const struct seat *seat = *find(attendance, process, NULL);
    if (seat)
        *guest_r = seat->guest;
    pthread_mutex_unlock(&attendance->lock);
    return seat != NULL;
}

bool
cm_attendance_is_met(struct cm_attendance *attendance, pid_t process,
                     uint64_t session)
{
    pthread_mutex_lock(&attendance->lock);
    const struct seat *seat = *find(attendance, process, &session);
    bool met = seat && seat->met;
    pthread_mutex_unlock(&attendance->lock);
    return met;
}

bool
cm_attendance_issue(struct cm_attendance *attendance, pid_t process,
                    uint64_t session, struct cm_ticket *ticket)
{
    pthread_mutex_lock(&attendance->lock);
    struct seat *seat = *find(attendance, process, &session);
    bool taken = seat && !seat->ticket;
    if (taken)
        seat->ticket = ticket;
    pthread_mutex_unlock(&attendance->lock);
    return taken;
}

static bool
is_good(const struct cm_ticket *ticket, const char *word)
{
    return ticket && strcmp(ticket->word, word) == 0 &&
           cm_clock_mono_ms() - ticket->issued_ms <= CM_TICKET_LIFE_MS;
}

struct cm_ticket *
cm_attendance_redeem(struct cm_attendance *attendance, pid_t process,
                     uint64_t session, const char *word)
{
    struct cm_ticket *ticket = NULL;
    pthread_mutex_lock(&attendance->lock);
    struct seat *seat = *find(attendance, process, &session);
    if (seat && is_good(seat->ticket, word)) {
        ticket = seat->ticket;
        seat->ticket = NULL;
    }
    pthread_mutex_unlock(&attendance->lock);
    return ticket;
}
