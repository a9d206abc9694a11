#include "fs/thread.h"

#include <string.h>

/* Nothing recurses; the largest things on a stack are a batch and some blocks. */
#define STACK_SIZE (256 * 1024)

int thread_start(pthread_t *ret, void *(*run)(void *data), void *data, struct error *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    int r = pthread_create(ret, &attr, run, data);
    pthread_attr_destroy(&attr);
    return r == 0 ? 0 : error_set(err, -r, "no thread could be started: %s", strerror(r));
}
