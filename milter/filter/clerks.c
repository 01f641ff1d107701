/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/clerks.h"
#include "milter/store/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#define CLERKS_MAX 16

struct queue {
    struct cm_errand *first, **end;
};

struct cm_clerks {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct queue given, done;
    bool stopping;
    int done_fd;
    unsigned n;
    pthread_t threads[CLERKS_MAX];
};

static void
push(struct queue *queue, struct cm_errand *errand)
{
    errand->next = NULL;
    *queue->end = errand;
    queue->end = &errand->next;
}

static struct cm_errand *
shift(struct queue *queue)
{
    struct cm_errand *errand = queue->first;
    if (errand && !(queue->first = errand->next))
        queue->end = &queue->first;
    return errand;
}

static void *
clerk_main(void *arg)
{
    struct cm_clerks *clerks = arg;
    pthread_mutex_lock(&clerks->lock);
    for (;;) {
        while (!clerks->given.first && !clerks->stopping)
            pthread_cond_wait(&clerks->more, &clerks->lock);
        struct cm_errand *errand = shift(&clerks->given);
        if (!errand)
            break;
        bool run = !clerks->stopping && !atomic_load(&errand->called_off);
        pthread_mutex_unlock(&clerks->lock);
        if (run)
            errand->run(errand);
        errand->was_run = run;
        pthread_mutex_lock(&clerks->lock);
        push(&clerks->done, errand);
        eventfd_write(clerks->done_fd, 1);
    }
    pthread_mutex_unlock(&clerks->lock);
    return NULL;
}

enum cm_status
cm_clerks_start(struct cm_clerks **clerks_r, unsigned n, int done_fd,
                struct cm_err *err)
{
    enum cm_status status = CM_OK;
    struct cm_clerks *clerks = calloc(1, sizeof *clerks);
    if (!clerks)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    pthread_mutex_init(&clerks->lock, NULL);
    pthread_cond_init(&clerks->more, NULL);
    clerks->given.end = &clerks->given.first;
    clerks->done.end = &clerks->done.first;
    clerks->done_fd = done_fd;
    for (unsigned i = 0; i < n && i < CLERKS_MAX && status == CM_OK; i++) {
        status = cm_thread_start(&clerks->threads[i], clerk_main, clerks, err);
        clerks->n += status == CM_OK;
    }
    if (status != CM_OK) {
        cm_clerks_stop(clerks);
        cm_clerks_free(&clerks);
        return status;
    }
    *clerks_r = clerks;
    return CM_OK;
}

void
cm_clerks_give(struct cm_clerks *clerks, struct cm_errand *errand)
{
    pthread_mutex_lock(&clerks->lock);
    push(&clerks->given, errand);
    pthread_cond_signal(&clerks->more);
    pthread_mutex_unlock(&clerks->lock);
}

struct cm_errand *
cm_clerks_take(struct cm_clerks *clerks)
{
    pthread_mutex_lock(&clerks->lock);
    struct cm_errand *errand = shift(&clerks->done);
    pthread_mutex_unlock(&clerks->lock);
    return errand;
}

void
cm_clerks_stop(struct cm_clerks *clerks)
{
    pthread_mutex_lock(&clerks->lock);
    clerks->stopping = true;
    pthread_cond_broadcast(&clerks->more);
    pthread_mutex_unlock(&clerks->lock);
    for (; clerks->n > 0; clerks->n--)
        pthread_join(clerks->threads[clerks->n - 1], NULL);
}

void
cm_clerks_free(struct cm_clerks **clerks)
{
    if (!*clerks)
        return;
    pthread_cond_destroy(&(*clerks)->more);
    pthread_mutex_destroy(&(*clerks)->lock);
    free(*clerks);
    *clerks = NULL;
}
