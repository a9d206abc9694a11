#include "fs/log.h"

#include <stdarg.h>
#include <stdio.h>

static bool background;

void log_to_syslog(void)
{
    openlog("fwfs", LOG_PID, LOG_DAEMON);
    background = true;
}

void log_line(int priority, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (background)
        syslog(priority, "%s", text);
    else
        fprintf(stderr, "fwfs: %s\n", text);
}
