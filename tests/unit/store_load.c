#include "store_load.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "store/internal.h"
#include "store_fixture.h"
#include "testing.h"

#define GUESTS 3
#define VARS "aF0B"
#define VARS_SIZE ((uint64_t)4 * STORE_BLOCK_SIZE)
#define START INT64_C(1700000000)
#define SECONDS_EACH 100

/* ---- The clock ---- */

static atomic_int_fast64_t clock_now = START;

/* In place of the C library's. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (clock != CLOCK_REALTIME)
        return (int)syscall(SYS_clock_gettime, clock, ret);
    *ret = (struct timespec){.tv_sec = clock_now};
    return 0;
}

/* ---- What a request needs ---- */

struct request {
    struct store *store;
    uint64_t seed;
    unsigned number;
    int64_t now;
    bool varies;   /* seed 0: all requests are about one guest, and one attribute */
    char name[16]; /* a guest's */
    struct store_guest guest;
    struct store_attr attr;
    struct error *err;
};

static uint64_t draw(struct request *request, uint64_t end)
{
    return fixture_random(&request->seed, end);
}

static int find_guest(struct request *request)
{
    return store_guest_by_name(request->store, request->name, &request->guest, request->err);
}

static int find_staging(struct request *request, struct store_flash *ret)
{
    int r = find_guest(request);
    return r < 0 ? r
                 : store_staging_find(request->store, request->guest.id, "new", ret, request->err);
}

static struct store_change write_of(struct request *request, int64_t flash, uint8_t *bytes,
                                    size_t size)
{
    uint64_t offset = draw(request, VARS_SIZE - 1);
    size_t length = 1 + draw(request, size < VARS_SIZE - offset ? size : VARS_SIZE - offset);
    memset(bytes, draw(request, 3) ? (int)request->number : 0xFF, length);
    return (struct store_change){.kind = STORE_CHANGE_WRITE,
                                 .flash = flash,
                                 .offset = offset,
                                 .bytes = bytes,
                                 .length = length,
                                 .now = request->now};
}

/* ---- The kinds ---- */

static int write_flash(struct request *request)
{
    uint8_t bytes[2 * STORE_BLOCK_SIZE];
    int r = find_guest(request);
    if (r < 0)
        return r;
    struct store_change change = write_of(request, request->guest.flash.id, bytes, sizeof bytes);
    return store_apply(request->store, &change, 1, request->err);
}

static int set_attr(struct request *request)
{
    int r = find_guest(request);
    return r < 0 ? r
                 : store_flash_set_attr(request->store, request->guest.flash.id,
                                        STORE_ATTR_UID | STORE_ATTR_MTIME, &request->attr,
                                        request->err);
}

static int apply_many(struct request *request)
{
    uint8_t bytes[3][STORE_BLOCK_SIZE];
    struct store_change changes[4] = {0};
    int r = find_guest(request);
    if (r < 0)
        return r;
    int64_t flash = request->guest.flash.id;
    for (int i = 0; i < 3; i++)
        changes[i] = write_of(request, flash, bytes[i], sizeof bytes[i]);
    changes[3] = (struct store_change){.kind = STORE_CHANGE_ATTR,
                                       .flash = flash,
                                       .mask = STORE_ATTR_GID | STORE_ATTR_CTIME,
                                       .attr = request->attr};
    return store_apply(request->store, changes, 4, request->err);
}

static int set_xattr(struct request *request)
{
    char name[16], value[600];
    int r = find_guest(request);
    snprintf(name, sizeof name, "user.%d", (int)draw(request, request->varies ? 2 : 1));
    memset(value, 'a' + (int)(request->number % 26), sizeof value);
    return r < 0 ? r
                 : store_flash_set_xattr(request->store, request->guest.flash.id, name, value,
                                         draw(request, sizeof value), 0, request->err);
}

static int remove_xattr(struct request *request)
{
    char name[16];
    int r = find_guest(request);
    snprintf(name, sizeof name, "user.%d", (int)draw(request, request->varies ? 2 : 1));
    return r < 0 ? r
                 : store_flash_remove_xattr(request->store, request->guest.flash.id, name,
                                            request->err);
}

static int change_lease(struct request *request, enum store_change_kind kind)
{
    int r = find_guest(request);
    struct store_change change = {
        .kind = kind,
        .flash = request->guest.flash.id,
        .lease = {.handle = 1,
                  .version = request->guest.flash.version,
                  .opener = {.pid = 1, .command = "qemu"},
                  .mountpoint = "/fw"},
    };
    return r < 0 ? r : store_apply(request->store, &change, 1, request->err);
}

static int take_lease(struct request *request)
{
    return change_lease(request, STORE_CHANGE_LEASE_TAKE);
}

static int drop_lease(struct request *request)
{
    return change_lease(request, STORE_CHANGE_LEASE_DROP);
}

static int create_staging(struct request *request)
{
    int r = find_guest(request);
    return r < 0 ? r
                 : store_staging_create(request->store, request->guest.id, "new", &request->attr,
                                        request->err);
}

static int write_staging(struct request *request)
{
    uint8_t bytes[VARS_SIZE];
    struct store_flash staged;
    int r = find_staging(request, &staged);
    memset(bytes, (int)request->number, sizeof bytes);
    return r < 0 ? r
                 : store_flash_write(request->store, staged.id, 0, bytes, sizeof bytes,
                                     request->now, request->err);
}

static int adopt_staging(struct request *request)
{
    int r = find_guest(request);
    return r < 0
               ? r
               : store_staging_adopt(request->store, request->guest.id, "new", true, request->err);
}

static int remove_staging(struct request *request)
{
    int r = find_guest(request);
    return r < 0 ? r : store_staging_remove(request->store, request->guest.id, "new", request->err);
}

static int unlink_vars(struct request *request)
{
    int r = find_guest(request);
    return r < 0 ? r : store_vars_unlink(request->store, request->guest.id, request->err);
}

static int create_vars(struct request *request)
{
    int r = find_guest(request);
    return r < 0
               ? r
               : store_vars_create(request->store, request->guest.id, &request->attr, request->err);
}

static int erase_vars(struct request *request)
{
    int r = find_guest(request);
    return r < 0 ? r
                 : store_flash_truncate(request->store, request->guest.flash.id, 0, request->now,
                                        request->err);
}

static int reset_guest(struct request *request)
{
    const char *name = request->name;
    return store_guest_reset(request->store, &name, 1, request->err);
}

static int add_guests(struct request *request)
{
    char more[16];
    const char *names[] = {request->name, more};
    snprintf(more, sizeof more, "more%u", request->number);
    return store_guest_add(request->store, "split", names, draw(request, 3) ? 1 : 2, &request->attr,
                           request->err);
}

static int remove_guest(struct request *request)
{
    const char *name = request->name;
    return store_guest_remove(request->store, &name, 1, request->err);
}

static int undelete_guest(struct request *request)
{
    return store_guest_undelete(request->store, request->name, request->err);
}

static int purge_guest(struct request *request)
{
    const char *name = request->name;
    return store_guest_purge(request->store, &name, 1, request->err);
}

static int rename_guest(struct request *request)
{
    char name[16];
    snprintf(name, sizeof name, "web%d", (int)draw(request, 2) + GUESTS);
    return store_guest_rename(request->store, request->name, name, request->err);
}

static int add_snapshot(struct request *request)
{
    return store_snapshot_add(request->store, request->name, "snapshot", request->err);
}

static int restore_snapshot(struct request *request)
{
    return store_point_restore(request->store, request->name, "snapshot", request->err);
}

static int remove_snapshot(struct request *request)
{
    return store_point_remove(request->store, request->name, "snapshot", request->err);
}

static int add_firmware(struct request *request)
{
    cleanup_free uint8_t *image = fixture_image(draw(request, 2) ? "aAbC" : "AD0c");
    const struct store_firmware_spec spec = {.name = "combined",
                                             .mode = FLASH_MODE_COMBINED,
                                             .executable = {image, 4 * STORE_BLOCK_SIZE},
                                             .descriptor = "{}"};
    return store_firmware_add(request->store, &spec, request->err);
}

static int remove_firmware(struct request *request)
{
    return store_firmware_remove(request->store, "combined", request->err);
}

static int remove_orphan(struct request *request)
{
    int64_t flash;
    int r = store_orphan_list(request->store, &flash, 1, request->err);
    return r <= 0 ? r : store_orphan_remove(request->store, flash, request->err);
}

static int forget_mount(struct request *request)
{
    return store_forget_mount(request->store, request->err);
}

static int maintain(struct request *request)
{
    return store_maintain(request->store, request->err);
}

static int checkpoint(struct request *request)
{
    /* Not only when there is enough of it. */
    request->store->log_pages = UINT32_MAX;
    return store_checkpoint(request->store, request->err);
}

static int sync_log(struct request *request)
{
    return store_sync(request->store, request->err);
}

/* In an order in which most of them find what they need. */
static int (*const kinds[])(struct request *request) = {
    add_firmware,    add_guests,     write_flash,      set_attr,      take_lease,
    apply_many,      sync_log,       drop_lease,       set_xattr,     remove_xattr,
    add_snapshot,    write_flash,    restore_snapshot, maintain,      remove_snapshot,
    checkpoint,      create_staging, write_staging,    adopt_staging, create_staging,
    write_staging,   remove_staging, unlink_vars,      remove_orphan, create_vars,
    erase_vars,      reset_guest,    write_flash,      remove_guest,  undelete_guest,
    remove_firmware, unlink_vars,    forget_mount,     purge_guest,   maintain,
    add_guests,      rename_guest,
};

const unsigned load_kinds = sizeof kinds / sizeof kinds[0];

int load_request(struct store *store, unsigned kind, uint64_t seed, unsigned number,
                 struct error *err)
{
    clock_now = START + SECONDS_EACH * number;
    struct request request = {.store = store,
                              .seed = seed * UINT64_C(0x9E3779B97F4A7C15) + number,
                              .number = number,
                              .now = clock_now * NSEC_PER_SEC + 1,
                              .varies = seed != 0,
                              .attr = {.uid = number, .gid = number, .mode = 0600},
                              .err = err};
    request.attr.mtime = request.attr.atime = request.attr.ctime = request.now;
    fixture_random(&request.seed, 1);
    snprintf(request.name, sizeof request.name, "web%d",
             (int)draw(&request, request.varies ? GUESTS : 1));
    return kinds[kind](&request);
}

void load_begin(struct store *store)
{
    cleanup_free uint8_t *code = fixture_image("A"), *vars = fixture_image(VARS);
    const struct store_firmware_spec spec = {.name = "split",
                                             .mode = FLASH_MODE_SPLIT,
                                             .executable = {code, STORE_BLOCK_SIZE},
                                             .nvram_template = {vars, VARS_SIZE},
                                             .descriptor = "{}"};
    struct error err = {0};
    clock_now = START;
    assert_ok(store_firmware_add(store, &spec, &err), err);
    for (int i = 1; i < GUESTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "web%d", i);
        fixture_guest(store, "split", name);
    }
}
