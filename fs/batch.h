/* Writes that came together are committed together.
 *
 * Each thread of the loop has a batch. The operations put into it what changes a flash or has to be
 * durable; when no further request waits, or the batch is full, the loop has it committed, in one
 * transaction, and everyone is answered; who waits for durability goes on to the syncer. So nothing
 * is answered before it is committed, a lone writer waits for nobody, and many share the cost. */
#ifndef FWFS_FS_BATCH_H
#define FWFS_FS_BATCH_H

#include <stdbool.h>

#include "fs/fuse.h"
#include "fs/ops.h"

#define BATCH_REQUESTS_MAX 64
#define BATCH_BYTES_MAX (1024 * 1024)

struct batch_entry {
    fuse_req_t req;
    enum batch_answer {
        BATCH_ANSWER_WRITE, /* the number of bytes written */
        BATCH_ANSWER_ATTR,  /* the inode's attributes */
        BATCH_ANSWER_SYNC,  /* after all before it is durable */
        BATCH_ANSWER_OPEN,  /* the file handle */
        BATCH_ANSWER_CREATE,
        BATCH_ANSWER_RELEASE,
    } answer;
    uint64_t inode;
    int64_t deadline_ms;        /* of what waits for a lease; 0: it has not waited yet */
    struct store_change change; /* its bytes are the batch's */
};

struct batch {
    struct batch_entry entries[BATCH_REQUESTS_MAX];
    size_t count;
    uint8_t *bytes; /* BATCH_BYTES_MAX of them */
    size_t used;
};

/* Binds a batch to the calling thread; unbinding frees it. */
int batch_bind(void);
void batch_unbind(void);

/* Takes the request over: it will be answered by batch_commit(). */
void batch_write(fuse_req_t req, uint64_t inode, int64_t flash, uint64_t offset, const void *bytes,
                 size_t length);
void batch_attr(fuse_req_t req, uint64_t inode, const struct store_change *change);
void batch_sync(fuse_req_t req, uint64_t inode);

/* Opens a flash for writing; answered as `answer` says, when the lease is had. */
void batch_open(fuse_req_t req, const struct inode *inode, uint64_t number,
                enum batch_answer answer);
void batch_release(fuse_req_t req, const struct inode *inode, uint64_t number, uint64_t handle);

/* Commits and answers what the calling thread has gathered. */
void batch_commit(struct ops_context *context);

bool batch_is_empty(void);

/* True when nothing more fits: the loop commits before it takes another request. */
bool batch_is_full(void);

/* Commits entries and answers them, but for those that the disk had no room for: these are left, in
 * order, and their number is returned. Used for batches and for what waits. */
size_t batch_commit_entries(struct ops_context *context, struct batch_entry *entries, size_t count);

/* Makes all that was committed durable and answers entries that wait for that. */
void batch_finish_syncs(struct ops_context *context, struct batch_entry *entries, size_t count);

/* Answers entries with a failure. */
void batch_fail_entries(struct batch_entry *entries, size_t count, int r);

#endif
