#include "fs/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/leases.h"
#include "fs/loop.h"
#include "fs/process.h"
#include "fs/syncer.h"
#include "fs/waiting.h"
#include "fs/writers.h"

static __thread struct batch *current;

int batch_bind(void)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (batch)
        batch->bytes = malloc(BATCH_BYTES_MAX);
    if (!batch || !batch->bytes) {
        free(batch);
        return -ENOMEM;
    }
    current = batch;
    return 0;
}

void batch_unbind(void)
{
    assert(current->count == 0);
    free(current->bytes);
    free(current);
    current = NULL;
}

bool batch_is_empty(void)
{
    return current->count == 0;
}

bool batch_is_full(void)
{
    return current->count == BATCH_REQUESTS_MAX || current->used > BATCH_BYTES_MAX / 2;
}

static struct batch_entry *add(fuse_req_t req, uint64_t inode, enum batch_answer answer)
{
    struct batch_entry *entry = &current->entries[current->count++];
    *entry = (struct batch_entry){.req = req, .inode = inode, .answer = answer};
    return entry;
}

void batch_write(fuse_req_t req, uint64_t inode, int64_t flash, uint64_t offset, const void *bytes,
                 size_t length)
{
    /* The kernel sends at most max_write at once, which is half a batch (see ops_init()). */
    assert(current->used + length <= BATCH_BYTES_MAX);
    uint8_t *copy = memcpy(current->bytes + current->used, bytes, length);
    current->used += length;
    add(req, inode, BATCH_ANSWER_WRITE)->change =
        (struct store_change){.kind = STORE_CHANGE_WRITE,
                              .flash = flash,
                              .offset = offset,
                              .bytes = copy,
                              .length = length,
                              .now = 0}; /* the kernel keeps the times, and sends them */
}

void batch_attr(fuse_req_t req, uint64_t inode, const struct store_change *change)
{
    add(req, inode, BATCH_ANSWER_ATTR)->change = *change;
}

void batch_sync(fuse_req_t req, uint64_t inode)
{
    add(req, inode, BATCH_ANSWER_SYNC);
}

/* The handle is the kernel's number of the request that opened it: so an open that is sent again
 * takes the same lease, and its release is never missed or counted twice. */
void batch_open(fuse_req_t req, const struct inode *inode, uint64_t number,
                enum batch_answer answer)
{
    struct store_change change = {
        .kind = STORE_CHANGE_LEASE_TAKE,
        .flash = inode->id,
        .lease = {.handle = (int64_t)loop_unique(),
                  .version = (uint16_t)inode->version,
                  .mountpoint = ops_view(req)->mountpoint},
    };
    process_describe(fuse_req_ctx(req)->pid, &change.lease.opener);
    add(req, number, answer)->change = change;
}

void batch_release(fuse_req_t req, const struct inode *inode, uint64_t number, uint64_t handle)
{
    add(req, number, BATCH_ANSWER_RELEASE)->change = (struct store_change){
        .kind = STORE_CHANGE_LEASE_DROP,
        .flash = inode->id,
        .lease = {.handle = (int64_t)handle, .version = (uint16_t)inode->version}};
}

/* ---- Committing ---- */

/* A disk that has no room, or fails, may have changed its mind in a while. */
static bool is_worth_waiting(int r)
{
    return r == -ENOSPC || r == -EIO || r == -EDQUOT;
}

static void reply_attr(const struct batch_entry *entry)
{
    struct stat st;
    view_stat_flash(entry->inode, &entry->change.after, &st);
    fuse_reply_attr(entry->req, &st, OPS_TIMEOUT_S);
}

static void drop_lease(struct ops_context *context, const struct batch_entry *entry)
{
    struct store_change drop = entry->change;
    drop.kind = STORE_CHANGE_LEASE_DROP;
    if (store_apply(context->view.store, &drop, 1, NULL) == 0)
        writers_set(context->writers, entry->inode, drop.held);
}

static int reply_created(struct ops_context *context, const struct batch_entry *entry,
                         const struct fuse_file_info *fi)
{
    struct error err = {0};
    struct stat st;
    int r = view_stat(&context->view, entry->inode, &st, &err);
    if (r < 0) {
        drop_lease(context, entry);
        ops_fail(entry->req, r, &err);
        return 0;
    }
    struct fuse_entry_param param = ops_entry(&st);
    return fuse_reply_create(entry->req, &param, fi);
}

static void reply_opened(struct ops_context *context, const struct batch_entry *entry)
{
    struct fuse_file_info fi = {.fh = (uint64_t)entry->change.lease.handle};
    writers_set(context->writers, entry->inode, entry->change.held);
    int r = entry->answer == BATCH_ANSWER_CREATE ? reply_created(context, entry, &fi)
                                                 : fuse_reply_open(entry->req, &fi);
    /* The opener was interrupted, and the kernel will send no RELEASE. */
    if (r == -ENOENT)
        drop_lease(context, entry);
}

static void reply_released(struct ops_context *context, const struct batch_entry *entry)
{
    writers_set(context->writers, entry->inode, entry->change.held);
    leases_dropped(context->leases);
    fuse_reply_err(entry->req, 0);
}

static void answer(struct ops_context *context, const struct batch_entry *entry, int r,
                   const struct error *err)
{
    if (r == -EFBIG)
        writers_overgrew(context->writers, entry->inode);
    if (r < 0) {
        ops_fail(entry->req, r, err);
        return;
    }
    switch (entry->answer) {
    case BATCH_ANSWER_WRITE:
        fuse_reply_write(entry->req, entry->change.length);
        return;
    case BATCH_ANSWER_ATTR:
        reply_attr(entry);
        return;
    case BATCH_ANSWER_SYNC:
        fuse_reply_err(entry->req, 0);
        return;
    case BATCH_ANSWER_OPEN:
    case BATCH_ANSWER_CREATE:
        reply_opened(context, entry);
        return;
    case BATCH_ANSWER_RELEASE:
        reply_released(context, entry);
        return;
    }
}

/* Applies the entries that change something; each then has its result. */
static void apply(struct ops_context *context, struct batch_entry *entries, size_t count,
                  struct error *err)
{
    struct store_change changes[BATCH_REQUESTS_MAX];
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (entries[i].answer != BATCH_ANSWER_SYNC)
            changes[used++] = entries[i].change;
    if (used == 0)
        return;
    store_apply(context->view.store, changes, used, err);
    used = 0;
    for (size_t i = 0; i < count; i++)
        if (entries[i].answer != BATCH_ANSWER_SYNC)
            entries[i].change = changes[used++];
}

static bool is_among(const struct batch_entry *entries, size_t count, uint64_t inode)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].inode == inode)
            return true;
    return false;
}

size_t batch_commit_entries(struct ops_context *context, struct batch_entry *entries, size_t count)
{
    struct error err = {0};
    apply(context, entries, count, &err);

    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        int r = entries[i].change.result;
        bool sync = entries[i].answer == BATCH_ANSWER_SYNC;
        /* What is to be durable with a write that waits, waits with it. */
        if (sync ? is_among(entries, left, entries[i].inode) : is_worth_waiting(r))
            entries[left++] = entries[i];
        else if (sync)
            syncer_add(context->syncer, &entries[i]);
        else if (r == -ETXTBSY)
            leases_wait(context->leases, &entries[i]);
        else
            answer(context, &entries[i], r, &err);
    }
    return left;
}

void batch_finish_syncs(struct ops_context *context, struct batch_entry *entries, size_t count)
{
    struct error err = {0};
    int r = store_sync(context->view.store, &err);
    for (size_t i = 0; i < count; i++)
        answer(context, &entries[i], r, &err);
}

void batch_fail_entries(struct batch_entry *entries, size_t count, int r)
{
    struct error err = {0};
    error_set(&err, r, "a write is lost: the store's disk had no room for it, or failed");
    for (size_t i = 0; i < count; i++)
        ops_fail(entries[i].req, r, &err);
}

/* While some wait, all who come later wait behind them, but for those who only read and close what
 * nobody waits for. Returns how many are left, in order. */
static size_t pass_over(struct ops_context *context, struct batch_entry *entries, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        bool waits = entries[i].answer != BATCH_ANSWER_SYNC ||
                     is_among(entries, left, entries[i].inode) ||
                     waiting_has(context->waiting, entries[i].inode);
        if (waits)
            entries[left++] = entries[i];
        else
            syncer_add(context->syncer, &entries[i]);
    }
    return left;
}

void batch_commit(struct ops_context *context)
{
    struct batch *batch = current;
    if (batch->count == 0)
        return;
    size_t left = waiting_any(context->waiting)
                      ? pass_over(context, batch->entries, batch->count)
                      : batch_commit_entries(context, batch->entries, batch->count);
    if (left > 0)
        waiting_add(context->waiting, batch->entries, left);
    batch->count = 0;
    batch->used = 0;
}
