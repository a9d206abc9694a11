#include "fs/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Of /proc/TID/status (proc(5)), which takes no lock that a page fault in this mount could hold. */
#define HEAD_SIZE 512

static const char *value_of(const char *text, const char *name)
{
    const char *found = strstr(text, name);
    return found ? found + strlen(name) : NULL;
}

static void copy_command(const char *from, char ret[STORE_COMMAND_MAX + 1])
{
    size_t length = 0;
    for (; from[length] && from[length] != '\n' && length < STORE_COMMAND_MAX; length++)
        ret[length] = from[length] >= 0x20 && from[length] < 0x7f ? from[length] : '?';
    ret[length] = '\0';
}

void process_describe(pid_t thread, struct store_opener *ret)
{
    *ret = (struct store_opener){.pid = thread, .command = "?"};
    if (thread == 0)
        return;
    char path[64], text[HEAD_SIZE];
    snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return;
    text[n] = '\0';
    const char *name = value_of(text, "Name:\t");
    const char *process = value_of(text, "\nTgid:\t");
    if (name)
        copy_command(name, ret->command);
    if (process)
        ret->pid = strtol(process, NULL, 10);
}
