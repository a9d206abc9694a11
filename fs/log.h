/* The mount's log: a line an event, to stderr in the foreground and to syslog in the background. */
#ifndef FWFS_FS_LOG_H
#define FWFS_FS_LOG_H

#include <stdbool.h>
#include <syslog.h>

/* Before this is called lines go to stderr. */
void log_to_syslog(void);

/* `priority` is one of syslog's, LOG_ERR and the like. */
void log_line(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
