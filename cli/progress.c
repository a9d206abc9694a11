#include "cli/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_NS 100000000
#define WIDTH 30
#define CLEAR_LINE "\r\033[K"

static int64_t clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void draw(const struct progress *progress)
{
    if (progress->total == 0) {
        fprintf(stderr, CLEAR_LINE "%s: %.1f s", progress->what,
                (double)(clock_now() - progress->since) / 1e9);
        return;
    }
    double part = (double)progress->done / (double)progress->total;
    part = part > 1 ? 1 : part;
    int filled = (int)(part * WIDTH);
    fprintf(stderr, CLEAR_LINE "%s: [%.*s%*s] %.0f %%", progress->what, filled,
            "##############################", WIDTH - filled, "", part * 100);
}

static void *keep_drawing(void *data)
{
    struct progress *progress = data;
    pthread_mutex_lock(&progress->lock);
    while (!progress->is_ended) {
        if (progress->what)
            draw(progress);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += INTERVAL_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&progress->ended, &progress->lock, &until);
    }
    pthread_mutex_unlock(&progress->lock);
    return NULL;
}

void progress_begin(struct progress *progress)
{
    *progress = (struct progress){.shown = isatty(STDERR_FILENO)};
    if (!progress->shown)
        return;
    pthread_mutex_init(&progress->lock, NULL);
    pthread_cond_init(&progress->ended, NULL);
    progress->shown = pthread_create(&progress->thread, NULL, keep_drawing, progress) == 0;
}

void progress_set(struct progress *progress, const char *what, uint64_t done, uint64_t total)
{
    if (!progress->shown)
        return;
    pthread_mutex_lock(&progress->lock);
    if (progress->what != what)
        progress->since = clock_now();
    progress->what = what;
    progress->done = done;
    progress->total = total;
    pthread_mutex_unlock(&progress->lock);
}

void progress_hide(struct progress *progress)
{
    if (!progress->shown)
        return;
    pthread_mutex_lock(&progress->lock);
    fputs(CLEAR_LINE, stderr);
    pthread_mutex_unlock(&progress->lock);
}

void progress_end(struct progress *progress)
{
    if (!progress->shown)
        return;
    pthread_mutex_lock(&progress->lock);
    progress->is_ended = true;
    pthread_cond_signal(&progress->ended);
    pthread_mutex_unlock(&progress->lock);
    pthread_join(progress->thread, NULL);
    fputs(CLEAR_LINE, stderr);
    progress->shown = false;
}
