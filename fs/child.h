/* A worker, as its supervisor sees it: a child process and the channel to it. */
#ifndef FWFS_FS_CHILD_H
#define FWFS_FS_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/channel.h"

struct child {
    pid_t pid;   /* 0: none */
    int pidfd;   /* readable when it has ended; -1: none */
    int channel; /* -1: none */
    bool ready, killed;
    int64_t silence_ms; /* since it was last heard */
    int64_t dying_ms;   /* since it was killed */
};

/* clang-format off */
#define CHILD_NONE {.pidfd = -1, .channel = -1}
/* clang-format on */

/* Keeps INHERITED_CHANNEL taken in this process, so that no other descriptor lands there. */
int child_reserve_channel(struct error *err);

/* Starts `program` as a worker, with the descriptors of enum inherited_fd. */
int child_start(struct child *child, const char *program, struct error *err);

void child_send(struct child *child, enum channel_message message);

/* As channel_receive(); keeps account of what is said. A closed channel is closed here too. */
int child_receive(struct child *child, struct channel_packet *ret);

/* Asks for a sign of life; `elapsed_ms` have passed since the last time. */
void child_ping(struct child *child, int64_t elapsed_ms);

void child_kill(struct child *child);

#define CHILD_HOW_SIZE 80

/* Takes leave of a child that has ended: says how, in words, and returns its wait status. */
int child_reap(struct child *child, char how[CHILD_HOW_SIZE]);

/* Takes leave of a child that will end by itself. */
void child_forget(struct child *child);

/* Reaps those that were forgotten, also by an earlier program in this process. */
void child_reap_others(pid_t current, pid_t next);

/* Across an exec: leaves the child's channel where the new program looks for it, and finds it
 * there. */
void child_hand_over(struct child *child);
void child_take_over(struct child *child, pid_t pid);

#endif
