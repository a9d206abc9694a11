/* A bar on the terminal while something takes long; nothing where stderr is no terminal. It is
 * drawn by a thread of its own, so that it lives whatever the work waits for. */
#ifndef FWFS_CLI_PROGRESS_H
#define FWFS_CLI_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool is_ended;
    const char *what; /* a word or two */
    uint64_t done, total;
    int64_t since; /* nanoseconds, of a clock that only goes forward */
};

void progress_begin(struct progress *progress);
/* How far it is; `what` must live on, total 0 means that nobody knows. Cheap. */
void progress_set(struct progress *progress, const char *what, uint64_t done, uint64_t total);
/* Takes the bar away for a line of output, until it is drawn again. */
void progress_hide(struct progress *progress);
void progress_end(struct progress *progress);
#define cleanup_progress cleanup(progress_end)

#endif
