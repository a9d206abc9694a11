#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "firmware/image.h"
#include "scratch.h"
#include "testing.h"

#define KIB ((size_t)1024)

/* Temporary files belong below the test's directory, where what is left behind is seen. */
static int enter(void **state)
{
    return scratch_enter(state) || mkdir("temporary", 0700) < 0 ||
           setenv("TMPDIR", "temporary", 1) < 0;
}

static int leave(void **state)
{
    unsetenv("TMPDIR");
    return scratch_leave(state);
}

static void assert_holds(const char *name, enum image_format format, const void *bytes, size_t size)
{
    cleanup(image_unload) struct image image = {0};
    struct error err = {0};
    assert_ok(image_load(name, format, &image, &err), err);
    assert_int_equal(image.size, size);
    assert_memory_equal(image.bytes, bytes, size);
}

static void assert_refused(const char *name, enum image_format format, int code, const char *error)
{
    struct image image = {0};
    struct error err = {0};
    assert_error(image_load(name, format, &image, &err), code, err, error);
    assert_null(image.bytes);
}

/* ---- Raw ---- */

static void reads_raw_bytes(void **state)
{
    cleanup_free char *bytes = scratch_write_pattern("code.fd", 132 * KIB);
    assert_holds("code.fd", IMAGE_FORMAT_RAW, bytes, 132 * KIB);
    assert_int_equal(symlink("code.fd", "link.fd"), 0);
    assert_holds("link.fd", IMAGE_FORMAT_RAW, bytes, 132 * KIB);
}

static void keeps_bytes_of_a_file_that_is_cut(void **state)
{
    cleanup_free char *bytes = scratch_write_pattern("code.fd", 64 * KIB);
    cleanup(image_unload) struct image image = {0};
    struct error err = {0};
    assert_ok(image_load("code.fd", IMAGE_FORMAT_RAW, &image, &err), err);
    assert_int_equal(truncate("code.fd", 0), 0);
    assert_memory_equal(image.bytes, bytes, 64 * KIB);
}

static void refuses_sizes_that_flash_cannot_have(void **state)
{
    free(scratch_write_pattern("odd.fd", 5000));
    assert_refused("odd.fd", IMAGE_FORMAT_RAW, -EINVAL,
                   "odd.fd: is an image of 5000 bytes, which is no multiple of 4096");
    scratch_write_text("empty.fd", "");
    assert_refused("empty.fd", IMAGE_FORMAT_RAW, -EINVAL, "empty.fd: is empty");

    cleanup_fd int fd = open("large.fd", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, IMAGE_SIZE_MAX), 0);
    struct image image = {0};
    struct error err = {0};
    assert_ok(image_load("large.fd", IMAGE_FORMAT_RAW, &image, &err), err);
    image_unload(&image);
    assert_int_equal(ftruncate(fd, IMAGE_SIZE_MAX + IMAGE_SECTOR_SIZE), 0);
    assert_refused("large.fd", IMAGE_FORMAT_RAW, -EINVAL,
                   "large.fd: is an image of 67112960 bytes");
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
    assert_refused("large.fd", IMAGE_FORMAT_RAW, -EINVAL, "large.fd: has 1099511627776 bytes");
}

static void refuses_what_is_no_file(void **state)
{
    assert_refused("none.fd", IMAGE_FORMAT_RAW, -ENOENT, "none.fd: No such file or directory");
    assert_refused(".", IMAGE_FORMAT_RAW, -EINVAL, ".: is no regular file");
    assert_int_equal(mkfifo("pipe.fd", 0600), 0);
    assert_refused("pipe.fd", IMAGE_FORMAT_RAW, -EINVAL, "pipe.fd: is no regular file");
    enum image_format format;
    struct error err = {0};
    assert_error(image_probe_format("pipe.fd", &format, &err), -EINVAL, err,
                 "pipe.fd: is no regular file");
    assert_error(image_probe_format("none.fd", &format, &err), -ENOENT, err, "none.fd: No such");
}

/* ---- qcow2 ---- */

/* The fields of a header that tests set; the rest is 0. */
struct header {
    uint32_t version;
    uint64_t backing_file_offset, size, incompatible_features;
    uint32_t crypt_method;
};

static void write_header(const char *name, const struct header *header, size_t length)
{
    char bytes[64 * 1024] = "QFI\xfb";
    uint32_t version = htobe32(header->version), crypt_method = htobe32(header->crypt_method);
    uint64_t backing = htobe64(header->backing_file_offset), size = htobe64(header->size);
    uint64_t incompatible = htobe64(header->incompatible_features);
    memcpy(bytes + 4, &version, 4);
    memcpy(bytes + 8, &backing, 8);
    memcpy(bytes + 24, &size, 8);
    memcpy(bytes + 32, &crypt_method, 4);
    memcpy(bytes + 72, &incompatible, 8);
    scratch_write(name, bytes, length);
}

/* A PATH on which qemu-img leaves a trace: nothing that is refused by its header may reach it. */
static int enter_with_stub(void **state)
{
    if (enter(state) != 0 || mkdir("bin", 0700) < 0)
        return -1;
    scratch_write_text("bin/qemu-img", "#!/bin/sh\n"
                                       "echo \"$@\" >> called\n"
                                       "printf 'qemu-img: no\\033[1m luck\\nsecond\\n' >&2\n"
                                       "exit 1\n");
    return chmod("bin/qemu-img", 0700) < 0 || setenv("PATH", "bin", 1) < 0;
}

static int leave_stub(void **state)
{
    setenv("PATH", *state, 1);
    return leave(state);
}

static void refuses_qcow2_by_its_header(void **state)
{
    const size_t whole = 64 * KIB;
    static const struct {
        struct header header;
        size_t length;
        const char *error;
    } cases[] = {
        {{3, .backing_file_offset = 0x200, .size = 4096}, 0, "v.qcow2: has a backing file"},
        {{2, .backing_file_offset = 1, .size = 4096}, 0, "v.qcow2: has a backing file"},
        {{3, .size = 4096, .incompatible_features = 4}, 0, "v.qcow2: has an external data file"},
        {{3, .size = 4096, .incompatible_features = ~(uint64_t)0}, 0, "v.qcow2: has an external"},
        {{3, .size = 4096, .crypt_method = 2}, 0, "v.qcow2: is encrypted"},
        {{1, .size = 4096}, 0, "v.qcow2: is of qcow2 version 1"},
        {{4, .size = 4096}, 0, "v.qcow2: is of qcow2 version 4"},
        {{3, .size = 4096}, 103, "v.qcow2: is a qcow2 image that is cut off"},
        {{2, .size = 4096}, 71, "v.qcow2: is a qcow2 image that is cut off"},
        {{3, .size = 4096}, 5, "v.qcow2: is a qcow2 image that is cut off"},
        {{3, .size = 0}, 0, "v.qcow2: is an image of 0 bytes"},
        {{3, .size = 5120}, 0, "v.qcow2: is an image of 5120 bytes"},
        {{3, .size = IMAGE_SIZE_MAX + 4096}, 0, "v.qcow2: is an image of 67112960 bytes"},
        {{3, .size = ~(uint64_t)0}, 0, "v.qcow2: is an image of 18446744073709551615 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_header("v.qcow2", &cases[i].header, cases[i].length ? cases[i].length : whole);
        assert_refused("v.qcow2", IMAGE_FORMAT_QCOW2, -EINVAL, cases[i].error);
    }
    assert_int_equal(access("called", F_OK), -1);
}

static void tells_what_qemu_img_says(void **state)
{
    write_header("v.qcow2", &(struct header){3, .size = 4096}, 64 * KIB);
    assert_refused("v.qcow2", IMAGE_FORMAT_QCOW2, -EINVAL,
                   "v.qcow2: cannot be converted: qemu-img: no?[1m luck");
    assert_int_equal(access("called", F_OK), 0);
    assert_int_equal(scratch_count("temporary"), 0);
}

static void needs_qemu_img(void **state)
{
    write_header("v.qcow2", &(struct header){3, .size = 4096}, 64 * KIB);
    assert_int_equal(unlink("bin/qemu-img"), 0);
    assert_refused("v.qcow2", IMAGE_FORMAT_QCOW2, -ENOTSUP,
                   "v.qcow2: is qcow2, which needs qemu-img to convert it; install qemu-utils");
    assert_int_equal(scratch_count("temporary"), 0);
}

static void needs_room_for_temporary_files(void **state)
{
    write_header("v.qcow2", &(struct header){3, .size = 4096}, 64 * KIB);
    assert_int_equal(setenv("TMPDIR", "/nonexistent", 1), 0);
    assert_refused("v.qcow2", IMAGE_FORMAT_QCOW2, -EIO,
                   "v.qcow2: cannot be converted: no temporary file in /nonexistent");
}

static void refuses_a_format_that_is_not_so(void **state)
{
    write_header("v.qcow2", &(struct header){3, .size = 4096}, 64 * KIB);
    assert_refused("v.qcow2", IMAGE_FORMAT_RAW, -EINVAL,
                   "v.qcow2: is a qcow2 image although its format is said to be raw");
    free(scratch_write_pattern("v.fd", 8 * KIB));
    assert_refused("v.fd", IMAGE_FORMAT_QCOW2, -EINVAL,
                   "v.fd: is no qcow2 image although its format is said to be qcow2");
}

static void tells_formats_apart(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        enum image_format format;
    } cases[] = {
        {"QFI\xfb", 4, IMAGE_FORMAT_QCOW2},
        {"QFI\xfb", 3, IMAGE_FORMAT_RAW},
        {"", 0, IMAGE_FORMAT_RAW},
        {"QFI\xfc-and-more", 13, IMAGE_FORMAT_RAW},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum image_format format;
        struct error err = {0};
        scratch_write("x", cases[i].bytes, cases[i].size);
        assert_ok(image_probe_format("x", &format, &err), err);
        assert_int_equal(format, cases[i].format);
    }
}

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static bool has_qemu_img(void)
{
    return system("qemu-img --version > /dev/null 2>&1") == 0;
}

static void converts_qcow2(void **state)
{
    if (!has_qemu_img())
        skip();
    cleanup_free char *bytes = scratch_write_pattern("v.fd", 528 * KIB);
    /* Half of it is a hole in the qcow2, and must come out as zeros. */
    memset(bytes + 264 * KIB, 0, 264 * KIB);
    scratch_write("v.fd", bytes, 528 * KIB);
    static const char *const options[] = {"-o compat=0.10", "-o compat=1.1", "-c",
                                          "-o compat=1.1,cluster_size=512"};
    size_t open_files = scratch_count("/proc/self/fd");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char command[200];
        snprintf(command, sizeof command,
                 "qemu-img convert -f raw -O qcow2 %s v.fd './a:%zu,b.qcow2'", options[i], i);
        run(command);
        snprintf(command, sizeof command, "a:%zu,b.qcow2", i);
        assert_holds(command, IMAGE_FORMAT_QCOW2, bytes, 528 * KIB);
    }
    assert_int_equal(scratch_count("temporary"), 0);
    assert_int_equal(scratch_count("/proc/self/fd"), open_files);
}

static void reads_no_other_file_through_qcow2(void **state)
{
    if (!has_qemu_img())
        skip();
    free(scratch_write_pattern("secret.fd", 128 * KIB));
    run("qemu-img create -q -f qcow2 -b secret.fd -F raw backed.qcow2");
    assert_refused("backed.qcow2", IMAGE_FORMAT_QCOW2, -EINVAL,
                   "backed.qcow2: has a backing file, which is not followed");
    run("qemu-img convert -f raw -O qcow2 -o data_file=data.raw secret.fd external.qcow2");
    assert_refused("external.qcow2", IMAGE_FORMAT_QCOW2, -EINVAL,
                   "external.qcow2: has an external data file, which is not followed");
}

static void survives_broken_qcow2(void **state)
{
    if (!has_qemu_img())
        skip();
    free(scratch_write_pattern("v.fd", 64 * KIB));
    run("qemu-img convert -f raw -O qcow2 v.fd v.qcow2");
    uint64_t offset = htobe64(0x123456789000);
    cleanup_fd int fd = open("v.qcow2", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &offset, sizeof offset, 40), sizeof offset); /* L1 table */
    assert_refused("v.qcow2", IMAGE_FORMAT_QCOW2, -EINVAL, "v.qcow2: cannot be converted: ");
    assert_int_equal(scratch_count("temporary"), 0);
}

int main(void)
{
    char *path = getenv("PATH");
    path = path ? strdup(path) : NULL;
#define with_files(test) cmocka_unit_test_setup_teardown(test, enter, leave)
#define with_stub(test)                                                                            \
    cmocka_unit_test_prestate_setup_teardown(test, enter_with_stub, leave_stub, path)
    const struct CMUnitTest tests[] = {
        with_files(reads_raw_bytes),
        with_files(keeps_bytes_of_a_file_that_is_cut),
        with_files(refuses_sizes_that_flash_cannot_have),
        with_files(refuses_what_is_no_file),
        with_stub(refuses_qcow2_by_its_header),
        with_stub(tells_what_qemu_img_says),
        with_stub(needs_qemu_img),
        with_stub(needs_room_for_temporary_files),
        with_files(refuses_a_format_that_is_not_so),
        with_files(tells_formats_apart),
        with_files(converts_qcow2),
        with_files(reads_no_other_file_through_qcow2),
        with_files(survives_broken_qcow2),
    };
    int failed = cmocka_run_group_tests_name("image", tests, NULL, NULL);
    free(path);
    return failed;
}
