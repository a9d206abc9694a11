#include "fs/renewal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/thread.h"

struct node {
    struct node *next;
    fuse_req_t req;
    uint64_t inode;
};

struct renewal {
    struct ops_context *context;
    struct fuse_session *session;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct node *head, **tail;
    bool ending;
};

static int renew(struct renewal *renewal, uint64_t number, struct error *err)
{
    struct inode inode;
    struct store_guest guest;
    struct store *store = renewal->context->view.store;
    if (!inode_parse(number, &inode) || inode.kind != INODE_FLASH)
        return -ENOENT;
    int r = store_guest_by_flash(store, inode.id, &guest, err);
    /* A flash that no name stands for, or no longer by this number, needs no new one. */
    if (r == -ENOENT)
        return 0;
    if (r < 0 || inode_of_flash(guest.flash.id, guest.flash.version) != number)
        return r;
    r = store_flash_renew(store, inode.id, err);
    if (r < 0)
        return r;
    const char *name =
        view_file_name(guest.firmware.mode == FLASH_MODE_COMBINED ? VIEW_CODE : VIEW_VARS);
    fuse_lowlevel_notify_inval_entry(renewal->session, inode_of_guest(guest.id), name,
                                     strlen(name));
    return 0;
}

static void handle(struct renewal *renewal, struct node *node)
{
    struct error err = {0};
    int r = renew(renewal, node->inode, &err);
    if (r == 0)
        r = store_sync(renewal->context->view.store, &err);
    if (r < 0)
        ops_fail(node->req, r, &err);
    else
        fuse_reply_err(node->req, 0);
    free(node);
}

/* NULL when it is time to end and nothing is left. */
static struct node *take(struct renewal *renewal)
{
    pthread_mutex_lock(&renewal->lock);
    while (!renewal->head && !renewal->ending)
        pthread_cond_wait(&renewal->changed, &renewal->lock);
    struct node *node = renewal->head;
    if (node)
        renewal->head = node->next;
    if (!renewal->head)
        renewal->tail = &renewal->head;
    pthread_mutex_unlock(&renewal->lock);
    return node;
}

static void *run(void *data)
{
    struct renewal *renewal = data;
    struct node *node;
    while ((node = take(renewal)))
        handle(renewal, node);
    return NULL;
}

void renewal_flush(struct renewal *renewal, fuse_req_t req, uint64_t inode)
{
    struct node *node = malloc(sizeof *node);
    if (!node) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    *node = (struct node){.req = req, .inode = inode};
    pthread_mutex_lock(&renewal->lock);
    *renewal->tail = node;
    renewal->tail = &node->next;
    pthread_cond_signal(&renewal->changed);
    pthread_mutex_unlock(&renewal->lock);
}

int renewal_new(struct ops_context *context, struct fuse_session *session, struct renewal **ret,
                struct error *err)
{
    struct renewal *renewal = calloc(1, sizeof *renewal);
    if (!renewal)
        return error_set(err, -ENOMEM, "out of memory");
    renewal->context = context;
    renewal->session = session;
    renewal->tail = &renewal->head;
    pthread_mutex_init(&renewal->lock, NULL);
    pthread_cond_init(&renewal->changed, NULL);
    int r = thread_start(&renewal->thread, run, renewal, err);
    if (r < 0) {
        free(renewal);
        return r;
    }
    *ret = renewal;
    return 0;
}

void renewal_free(struct renewal *renewal)
{
    if (!renewal)
        return;
    pthread_mutex_lock(&renewal->lock);
    renewal->ending = true;
    pthread_cond_signal(&renewal->changed);
    pthread_mutex_unlock(&renewal->lock);
    pthread_join(renewal->thread, NULL);
    pthread_cond_destroy(&renewal->changed);
    pthread_mutex_destroy(&renewal->lock);
    free(renewal);
}
