/* Writes to a file in a mount and, the same, to a shadow beside it, for tests to compare.
 *
 * hammer FILE SHADOW SEED
 *
 * Both files have the same size. Commands come on stdin, a line each: "go" writes until the next
 * line comes, and then answers "WRITES ERRORS WORST_STALL_US". In the first half of the file pages
 * are written again and again, whole, in pieces and with an fsync now and then; in the second half
 * each page is written once between "go" and its answer, and then left, so that nothing mends it if
 * it gets lost. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

struct hammer {
    int fd;
    uint8_t *shadow;
    size_t pages;
    uint64_t random;
    uint64_t writes, errors;
    int64_t worst_us;
};

static uint64_t next_random(struct hammer *hammer)
{
    hammer->random ^= hammer->random << 13;
    hammer->random ^= hammer->random >> 7;
    hammer->random ^= hammer->random << 17;
    return hammer->random;
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void take_time(struct hammer *hammer, int64_t began)
{
    int64_t took = now_us() - began;
    if (took > hammer->worst_us)
        hammer->worst_us = took;
}

static void write_piece(struct hammer *hammer, size_t offset, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t value = next_random(hammer);
        memcpy(hammer->shadow + offset + i, &value, 8);
    }
    int64_t began = now_us();
    ssize_t n = pwrite(hammer->fd, hammer->shadow + offset, length, (off_t)offset);
    take_time(hammer, began);
    hammer->writes++;
    if (n != (ssize_t)length) {
        hammer->errors++;
        fprintf(stderr, "hammer: write at %zu: %s\n", offset, strerror(errno));
    }
}

static void sync_file(struct hammer *hammer)
{
    int64_t began = now_us();
    if (fsync(hammer->fd) < 0) {
        hammer->errors++;
        fprintf(stderr, "hammer: fsync: %s\n", strerror(errno));
    }
    take_time(hammer, began);
}

static int told_to_stop(void)
{
    struct pollfd in = {.fd = 0, .events = POLLIN};
    return poll(&in, 1, 0) != 0;
}

static void go(struct hammer *hammer)
{
    size_t half = hammer->pages / 2, once = half;
    hammer->writes = hammer->errors = 0;
    hammer->worst_us = 0;
    while (!told_to_stop()) {
        size_t page = next_random(hammer) % half;
        if (next_random(hammer) % 4)
            write_piece(hammer, page * PAGE + 512 * (next_random(hammer) % 8), 512);
        else
            write_piece(hammer, page * PAGE, PAGE);
        if (next_random(hammer) % 16 == 0 && once < hammer->pages)
            write_piece(hammer, once++ * PAGE, PAGE);
        if (next_random(hammer) % 64 == 0)
            sync_file(hammer);
    }
    printf("%llu %llu %lld\n", (unsigned long long)hammer->writes,
           (unsigned long long)hammer->errors, (long long)hammer->worst_us);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc != 4) {
        fprintf(stderr, "usage: hammer FILE SHADOW SEED\n");
        return 2;
    }
    struct hammer hammer = {.fd = open(argv[1], O_RDWR)};
    int shadow_fd = open(argv[2], O_RDWR);
    if (hammer.fd < 0 || shadow_fd < 0 || fstat(shadow_fd, &st) < 0) {
        perror("hammer");
        return 1;
    }
    hammer.pages = (size_t)st.st_size / PAGE;
    hammer.random = strtoull(argv[3], NULL, 10) * UINT64_C(0x9E3779B97F4A7C15) + 1;
    hammer.shadow =
        mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, shadow_fd, 0);
    if (hammer.shadow == MAP_FAILED) {
        perror("hammer");
        return 1;
    }
    char line[16];
    while (fgets(line, sizeof line, stdin))
        if (strcmp(line, "go\n") == 0)
            go(&hammer);
    return close(hammer.fd) < 0;
}
