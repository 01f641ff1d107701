/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table is three maps (inboxes, what becomes rules, what is broken) and the
 * list compiled of the second. A view is a counted reference to a table, so
 * taking one cannot fail. A table whose last view goes is only put on a list by
 * the reader, for freeing a million entries takes a while; the writer frees it.
 * That also leaves the shared documents to one thread, without a lock.
 *
 * RCU was rejected: striped locks held for a few pointer operations cost less
 * than 50 ns here, and any C programmer can check them.
 */
#include "milter/store/replica.h"
#include "milter/buf.h"
#include "milter/model/address.h"
#include "milter/store/docs.h"
#include "milter/store/envelope.h"
#include "milter/store/map.h"
#include "milter/store/quote.h"
#include "milter/store/rulebook.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cm_view {
    struct cm_replica *replica;
    struct cm_view *next; /* on the list of the retired */
    unsigned long refs;   /* lock */
    struct cm_map *inboxes, *rules, *broken;
    struct cm_ruleset *ruleset; /* lock */
    bool rules_changed;         /* writer */
    char epoch[64];             /* lock */
    int64_t seq;                /* lock */
};

struct cm_replica {
    unsigned address_flags;
    struct cm_docs *docs;    /* writer */
    struct cm_view *next;    /* writer: the table being filled, or NULL */
    pthread_mutex_t lock;    /* held for a few pointer operations */
    struct cm_view *current; /* lock */
    struct cm_view *retired; /* lock */
};

/* --- tables --- */

static void
drop_doc(void *arg, void *value)
{
    cm_docs_drop(arg, value);
}

static void
free_plain(void *arg, void *value)
{
    (void)arg;
    free(value);
}

static void
table_free(struct cm_view **table)
{
    if (!*table)
        return;
    cm_map_free(&(*table)->inboxes);
    cm_map_free(&(*table)->rules);
    cm_map_free(&(*table)->broken);
    cm_ruleset_release(&(*table)->ruleset);
    free(*table);
    *table = NULL;
}

static enum cm_status
table_new(struct cm_view **table_r, struct cm_replica *replica)
{
    struct cm_view *table = calloc(1, sizeof *table);
    if (!table)
        return CM_ENOMEM;
    table->replica = replica;
    table->refs = 1;
    enum cm_status st =
        cm_map_new(&table->inboxes, 'i', drop_doc, replica->docs);
    if (st == CM_OK)
        st = cm_map_new(&table->rules, 'r', free_plain, NULL);
    if (st == CM_OK)
        st = cm_map_new(&table->broken, 'b', free_plain, NULL);
    if (st != CM_OK)
        table_free(&table);
    *table_r = table;
    return st;
}

/* One reference less; the last puts it aside for the writer. */
static void
table_release(struct cm_view *table)
{
    struct cm_replica *replica = table->replica;
    pthread_mutex_lock(&replica->lock);
    if (--table->refs == 0) {
        table->next = replica->retired;
        replica->retired = table;
    }
    pthread_mutex_unlock(&replica->lock);
}

void
cm_replica_tidy(struct cm_replica *replica)
{
    pthread_mutex_lock(&replica->lock);
    struct cm_view *table = replica->retired;
    replica->retired = NULL;
    pthread_mutex_unlock(&replica->lock);
    while (table) {
        struct cm_view *next = table->next;
        table_free(&table);
        table = next;
    }
}

/* --- the replica --- */

enum cm_status
cm_replica_new(struct cm_replica **replica_r, unsigned address_flags)
{
    struct cm_replica *replica = calloc(1, sizeof *replica);
    if (!replica)
        return CM_ENOMEM;
    replica->address_flags = address_flags;
    pthread_mutex_init(&replica->lock, NULL);
    enum cm_status st = cm_docs_new(&replica->docs);
    if (st == CM_OK)
        st = table_new(&replica->current, replica);
    if (st != CM_OK)
        cm_replica_free(&replica);
    *replica_r = replica;
    return st;
}

void
cm_replica_free(struct cm_replica **replica_p)
{
    struct cm_replica *replica = *replica_p;
    if (!replica)
        return;
    cm_replica_abandon(replica);
    cm_replica_tidy(replica);
    assert(!replica->current || replica->current->refs == 1);
    table_free(&replica->current);
    cm_docs_free(&replica->docs);
    pthread_mutex_destroy(&replica->lock);
    free(replica);
    *replica_p = NULL;
}

/* --- readers --- */

struct cm_view *
cm_replica_view(struct cm_replica *replica)
{
    pthread_mutex_lock(&replica->lock);
    struct cm_view *view = replica->current;
    view->refs++;
    pthread_mutex_unlock(&replica->lock);
    return view;
}

void
cm_view_release(struct cm_view **view)
{
    if (*view)
        table_release(*view);
    *view = NULL;
}

static void *
take_inbox(void *value)
{
    return cm_inbox_ref(cm_shared_doc_inbox(value));
}

struct cm_inbox *
cm_view_inbox(struct cm_view *view, const char *address, size_t len)
{
    return cm_map_get(view->inboxes, address, len, take_inbox);
}

struct cm_ruleset *
cm_view_rules(struct cm_view *view)
{
    pthread_mutex_lock(&view->replica->lock);
    struct cm_ruleset *set =
        view->ruleset ? cm_ruleset_ref(view->ruleset) : NULL;
    pthread_mutex_unlock(&view->replica->lock);
    return set;
}

bool
cm_view_has_inboxes(struct cm_view *view)
{
    return cm_map_count(view->inboxes) > 0;
}

void
cm_replica_state(struct cm_replica *replica, struct cm_replica_state *state_r)
{
    struct cm_view *view = cm_replica_view(replica);
    pthread_mutex_lock(&replica->lock);
    memcpy(state_r->epoch, view->epoch, sizeof state_r->epoch);
    state_r->seq = view->seq;
    pthread_mutex_unlock(&replica->lock);
    state_r->digest = cm_map_digest(view->inboxes) +
                      cm_map_digest(view->rules) + cm_map_digest(view->broken);
    state_r->inboxes = cm_map_count(view->inboxes);
    state_r->rules = cm_map_count(view->rules);
    state_r->broken = cm_map_count(view->broken);
    cm_view_release(&view);
}

struct listing {
    struct cm_buf *buf;
    size_t n, max;
};

static bool
list_broken(void *arg, const struct cm_map_entry *entry)
{
    struct listing *list = arg;
    const char *why = entry->value;
    if (list->n == list->max)
        return false;
    cm_buf_puts(list->buf, list->n++ > 0 ? ",{\"key\":" : "{\"key\":");
    cm_quote_json(list->buf, entry->key, entry->key_len);
    cm_buf_puts(list->buf, ",\"why\":");
    cm_quote_json(list->buf, why, strlen(why));
    cm_buf_puts(list->buf, "}");
    return true;
}

void
cm_replica_broken_json(struct cm_replica *replica, struct cm_buf *buf,
                       size_t max)
{
    struct listing list = {.buf = buf, .max = max};
    struct cm_view *view = cm_replica_view(replica);
    cm_buf_puts(buf, "[");
    cm_map_each(view->broken, list_broken, &list);
    cm_buf_puts(buf, "]");
    cm_view_release(&view);
}

/* --- one document --- */

/* "inbox:a@b" in its parts; map is NULL for kinds that are not ours. */
struct id {
    struct cm_map *map;
    const char *key, *name;
    size_t len, name_len;
};

static struct id
identify(const struct cm_view *table, const char *key)
{
    struct id id = {.key = key, .len = strlen(key)};
    if (strncmp(key, "inbox:", 6) == 0) {
        id.map = table->inboxes;
        id.name = key + 6;
    } else if (cm_rulebook_name(key, NULL)) {
        id.map = table->rules;
        id.name = key; /* kinds may share a name */
    }
    id.name_len = id.map ? id.len - (size_t)(id.name - key) : 0;
    return id;
}

static void
forget(struct cm_view *table, const struct id *id)
{
    cm_map_remove(table->broken, id->key, id->len);
    if (cm_map_remove(id->map, id->name, id->name_len) &&
        id->map == table->rules)
        table->rules_changed = true;
}

static enum cm_status
keep_broken(struct cm_view *table, const struct id *id, int64_t rev,
            int64_t seq, const char *why)
{
    char *text = strdup(why);
    if (!text)
        return CM_ENOMEM;
    enum cm_status st =
        cm_map_put(table->broken, id->key, id->len, rev, seq, text);
    if (st != CM_OK) {
        free(text);
        return st;
    }
    if (cm_map_remove(id->map, id->name, id->name_len) &&
        id->map == table->rules)
        table->rules_changed = true;
    return CM_OK;
}

/* The filter asks with canonical addresses alone, so a document under any other
 * spelling would never be found; better to say so. */
static enum cm_status
check_address(const struct id *id, unsigned flags, struct cm_err *err)
{
    struct cm_address address;
    struct cm_err why;
    enum cm_status st =
        cm_address_parse(&address, id->name, id->name_len, flags, &why);
    if (st == CM_EINVAL)
        return cm_err_set(err, st, "the name is no address: %.200s", why.msg);
    if (st != CM_OK)
        return st;
    if (address.len == 0 || address.domain_off == address.len)
        return cm_err_set(err, CM_EINVAL, "the name is no full address");
    if (address.len != id->name_len ||
        memcmp(address.text, id->name, address.len) != 0)
        return cm_err_set(err, CM_EINVAL,
                          "the name must be written inbox:%.200s",
                          address.text);
    return CM_OK;
}

static enum cm_status
keep_inbox(struct cm_view *table, const struct id *id,
           const struct cm_envelope *envelope, struct cm_err *err)
{
    struct cm_replica *replica = table->replica;
    struct cm_shared_doc *doc = NULL;
    enum cm_status st = check_address(id, replica->address_flags, err);
    if (st == CM_OK)
        st = cm_docs_use(replica->docs, &doc, envelope->doc, envelope->doc_len,
                         err);
    if (st != CM_OK)
        return st;
    st = cm_map_put(id->map, id->name, id->name_len, envelope->rev,
                    envelope->seq, doc);
    if (st != CM_OK)
        cm_docs_drop(replica->docs, doc);
    return st;
}

static enum cm_status
keep_rule(struct cm_view *table, const struct id *id,
          const struct cm_envelope *envelope, struct cm_err *err)
{
    struct cm_rule_doc *doc = NULL;
    int64_t ord = envelope->ord >= 0 ? envelope->ord : envelope->seq;
    enum cm_status st =
        cm_rule_doc_new(&doc, id->name, ord, envelope->doc, envelope->doc_len,
                        table->replica->address_flags, err);
    if (st != CM_OK)
        return st;
    st = cm_map_put(id->map, id->name, id->name_len, envelope->rev,
                    envelope->seq, doc);
    if (st != CM_OK)
        free(doc);
    else
        table->rules_changed = true;
    return st;
}

static enum cm_status
keep(struct cm_view *table, const char *key, const char *text, size_t len)
{
    struct cm_envelope envelope = {.rev = 0, .seq = 0};
    struct cm_err err;
    struct id id = identify(table, key);
    if (!id.map)
        return CM_OK;
    if (!text) {
        forget(table, &id);
        return CM_OK;
    }
    enum cm_status st;
    if (len > CM_INBOX_DOC_MAX + CM_ENVELOPE_OVERHEAD)
        st = cm_err_set(&err, CM_EINVAL, "larger than %d bytes",
                        CM_INBOX_DOC_MAX);
    else
        st = cm_envelope_parse(&envelope, text, len, &err);
    if (st == CM_OK)
        st = id.map == table->rules ? keep_rule(table, &id, &envelope, &err)
                                    : keep_inbox(table, &id, &envelope, &err);
    if (st == CM_OK) {
        cm_map_remove(table->broken, key, id.len);
        return CM_OK;
    }
    if (st != CM_EINVAL)
        return CM_ENOMEM;
    return keep_broken(table, &id, envelope.rev, envelope.seq, err.msg);
}

static enum cm_status
keep_unread(struct cm_view *table, const char *key, const char *why)
{
    struct id id = identify(table, key);
    return id.map ? keep_broken(table, &id, 0, 0, why) : CM_OK;
}

static void
wipe(struct cm_view *table, const char *begin)
{
    struct id id = identify(table, begin);
    if (!id.map)
        return;
    cm_map_wipe(table->broken, begin, id.len);
    if (cm_map_wipe(id.map, id.name, id.name_len) > 0 && id.map == table->rules)
        table->rules_changed = true;
}

/* --- the writer --- */

/* CM_OK or CM_ENOMEM, and then the old list stays in force. */
static enum cm_status
refresh_rules(struct cm_view *table)
{
    struct cm_replica *replica = table->replica;
    struct cm_ruleset *set = NULL;
    if (!table->rules_changed)
        return CM_OK;
    enum cm_status st =
        cm_rulebook_compile(&set, table->rules, replica->address_flags);
    if (st != CM_OK)
        return st;
    table->rules_changed = false;
    pthread_mutex_lock(&replica->lock);
    struct cm_ruleset *old = table->ruleset;
    table->ruleset = set;
    pthread_mutex_unlock(&replica->lock);
    cm_ruleset_release(&old);
    return CM_OK;
}

enum cm_status
cm_replica_apply(struct cm_replica *replica, const char *key, const char *text,
                 size_t len)
{
    return keep(replica->current, key, text, len);
}

enum cm_status
cm_replica_apply_broken(struct cm_replica *replica, const char *key,
                        const char *why)
{
    return keep_unread(replica->current, key, why);
}

void
cm_replica_wipe(struct cm_replica *replica, const char *begin)
{
    wipe(replica->current, begin);
}

void
cm_replica_advance(struct cm_replica *replica, int64_t seq)
{
    cm_replica_tidy(replica);
    if (refresh_rules(replica->current) != CM_OK)
        return;
    pthread_mutex_lock(&replica->lock);
    replica->current->seq = seq;
    pthread_mutex_unlock(&replica->lock);
}

enum cm_status
cm_replica_begin(struct cm_replica *replica)
{
    cm_replica_abandon(replica);
    cm_replica_tidy(replica);
    return table_new(&replica->next, replica);
}

enum cm_status
cm_replica_load(struct cm_replica *replica, const char *key, const char *text,
                size_t len)
{
    return keep(replica->next, key, text, len);
}

enum cm_status
cm_replica_load_broken(struct cm_replica *replica, const char *key,
                       const char *why)
{
    return keep_unread(replica->next, key, why);
}

void
cm_replica_load_wipe(struct cm_replica *replica, const char *begin)
{
    wipe(replica->next, begin);
}

enum cm_status
cm_replica_swap(struct cm_replica *replica, const char *epoch, int64_t seq)
{
    struct cm_view *table = replica->next;
    enum cm_status st = refresh_rules(table);
    if (st != CM_OK)
        return st;
    snprintf(table->epoch, sizeof table->epoch, "%s", epoch);
    table->seq = seq;
    replica->next = NULL;
    pthread_mutex_lock(&replica->lock);
    struct cm_view *old = replica->current;
    replica->current = table;
    pthread_mutex_unlock(&replica->lock);
    table_release(old);
    cm_replica_tidy(replica);
    return CM_OK;
}

void
cm_replica_abandon(struct cm_replica *replica)
{
    table_free(&replica->next);
}

/* --- everything, once --- */

struct tour {
    cm_replica_fn *fn;
    void *arg;
    const char *kind; /* what a map's keys lack */
    bool is_rule;
    struct cm_buf key, text;
    enum cm_status status;
};

static bool
visit(void *arg, const struct cm_map_entry *entry)
{
    struct tour *tour = arg;
    struct cm_envelope envelope = {
        .rev = entry->rev, .seq = entry->seq, .ord = -1};
    if (tour->is_rule) {
        const struct cm_rule_doc *doc = entry->value;
        envelope.ord = doc->ord;
        envelope.doc = doc->text;
        envelope.doc_len = doc->len;
    } else {
        const struct cm_inbox *inbox = cm_shared_doc_inbox(entry->value);
        envelope.doc = inbox->doc;
        envelope.doc_len = inbox->doc_len;
    }
    cm_buf_reset(&tour->key);
    cm_buf_reset(&tour->text);
    cm_buf_puts(&tour->key, tour->kind);
    cm_buf_add(&tour->key, entry->key, entry->key_len);
    cm_envelope_print(&tour->text, &envelope);
    if (cm_buf_status(&tour->key) != CM_OK ||
        cm_buf_status(&tour->text) != CM_OK) {
        tour->status = CM_ENOMEM;
        return false;
    }
    return tour->fn(tour->arg, tour->key.data, tour->text.data, tour->text.len);
}

enum cm_status
cm_replica_each(struct cm_replica *replica, cm_replica_fn *fn, void *arg)
{
    struct tour tour = {.fn = fn, .arg = arg, .status = CM_OK};
    cm_buf_init(&tour.key, CM_MAP_KEY_MAX + sizeof "inbox:");
    cm_buf_init(&tour.text, CM_INBOX_DOC_MAX + CM_ENVELOPE_OVERHEAD);
    struct cm_view *view = cm_replica_view(replica);
    tour.kind = "inbox:";
    if (cm_map_each(view->inboxes, visit, &tour)) {
        tour.kind = "";
        tour.is_rule = true;
        cm_map_each(view->rules, visit, &tour);
    }
    cm_view_release(&view);
    cm_buf_fini(&tour.key);
    cm_buf_fini(&tour.text);
    return tour.status;
}
