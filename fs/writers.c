/* The slots are found by a hash table of this process, which can be made again from the slots. One
 * lock guards it; it is a leaf. */
#include "fs/writers.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* At most half full. */
#define TABLE_BITS 18
#define TABLE_SIZE (1U << TABLE_BITS)
_Static_assert(TABLE_SIZE >= 2 * STATE_WRITERS_MAX, "the table stays sparse");

struct writers {
    pthread_mutex_t lock;
    struct state *state;
    uint32_t free_from; /* no slot below this is free */
    /* Slot + 1; 0: empty. Deleting moves later entries up, so there are no tombstones. */
    uint32_t table[TABLE_SIZE];
};

static uint32_t home_of(uint64_t inode)
{
    return (uint32_t)((inode * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - TABLE_BITS));
}

/* The place of the inode in the table, or the empty place where it belongs. */
static uint32_t find(const struct writers *writers, uint64_t inode)
{
    uint32_t at = home_of(inode);
    while (writers->table[at] && writers->state->writers[writers->table[at] - 1].inode != inode)
        at = (at + 1) % TABLE_SIZE;
    return at;
}

static struct state_writer *slot_at(struct writers *writers, uint32_t at)
{
    return writers->table[at] ? &writers->state->writers[writers->table[at] - 1] : NULL;
}

static void forget(struct writers *writers, uint32_t at)
{
    uint32_t hole = at;
    for (uint32_t next = (at + 1) % TABLE_SIZE; writers->table[next];
         next = (next + 1) % TABLE_SIZE) {
        uint32_t home = home_of(writers->state->writers[writers->table[next] - 1].inode);
        if ((next - home) % TABLE_SIZE >= (next - hole) % TABLE_SIZE) {
            writers->table[hole] = writers->table[next];
            hole = next;
        }
    }
    writers->table[hole] = 0;
}

struct writers *writers_new(struct state *state)
{
    struct writers *writers = calloc(1, sizeof *writers);
    if (!writers)
        return NULL;
    pthread_mutex_init(&writers->lock, NULL);
    writers->state = state;
    for (uint32_t i = 0; i < state->writer_slots; i++)
        if (state->writers[i].inode)
            writers->table[find(writers, state->writers[i].inode)] = i + 1;
    return writers;
}

void writers_free(struct writers *writers)
{
    if (!writers)
        return;
    pthread_mutex_destroy(&writers->lock);
    free(writers);
}

static void add(struct writers *writers, uint32_t at, uint64_t inode)
{
    struct state *state = writers->state;
    while (writers->free_from < STATE_WRITERS_MAX && state->writers[writers->free_from].inode)
        writers->free_from++;
    uint32_t slot = writers->free_from;
    if (slot == STATE_WRITERS_MAX)
        return;
    state->writers[slot].overgrown = 0;
    state->writers[slot].inode = inode;
    if (slot >= state->writer_slots)
        state->writer_slots = slot + 1;
    writers->table[at] = slot + 1;
}

static void take_away(struct writers *writers, uint32_t at)
{
    uint32_t slot = writers->table[at] - 1;
    forget(writers, at);
    writers->state->writers[slot].inode = 0;
    if (slot < writers->free_from)
        writers->free_from = slot;
}

void writers_set(struct writers *writers, uint64_t inode, bool open)
{
    pthread_mutex_lock(&writers->lock);
    uint32_t at = find(writers, inode);
    if (open && !writers->table[at])
        add(writers, at, inode);
    else if (!open && writers->table[at])
        take_away(writers, at);
    pthread_mutex_unlock(&writers->lock);
}

void writers_wrote(struct writers *writers, uint64_t inode)
{
    pthread_mutex_lock(&writers->lock);
    struct state_writer *slot = slot_at(writers, find(writers, inode));
    if (slot)
        slot->writes++;
    pthread_mutex_unlock(&writers->lock);
}

void writers_overgrew(struct writers *writers, uint64_t inode)
{
    pthread_mutex_lock(&writers->lock);
    struct state_writer *slot = slot_at(writers, find(writers, inode));
    if (slot)
        slot->overgrown = 1;
    pthread_mutex_unlock(&writers->lock);
}

bool writers_is_overgrown(struct writers *writers, uint64_t inode)
{
    pthread_mutex_lock(&writers->lock);
    struct state_writer *slot = slot_at(writers, find(writers, inode));
    bool overgrown = slot && slot->overgrown;
    pthread_mutex_unlock(&writers->lock);
    return overgrown;
}
