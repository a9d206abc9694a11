/* Messages between the supervisor and a worker, over a pair of SOCK_SEQPACKET sockets. The end of
 * either process is the end of the channel. */
#ifndef FWFS_FS_CHANNEL_H
#define FWFS_FS_CHANNEL_H

#include "base/error.h"

enum channel_message {
    /* From the worker. */
    CHANNEL_READY = 1, /* everything is prepared; no request has been taken yet */
    CHANNEL_ANSWERING, /* the kernel and the worker have agreed */
    CHANNEL_PONG,
    CHANNEL_DRAINED, /* no request is left with it: it will end */
    CHANNEL_FAILED,  /* with a text: it will end */
    CHANNEL_ENDED,   /* the mount is gone: it will end */
    /* From the supervisor. */
    CHANNEL_SERVE, /* take requests, first of all those that another worker left */
    CHANNEL_DRAIN, /* answer what was taken, take no more, end */
    CHANNEL_PING,
    CHANNEL_SYNC, /* make durable what was committed */
};

struct channel_packet {
    enum channel_message message;
    char text[ERROR_TEXT_SIZE]; /* "" but for CHANNEL_FAILED */
};

/* Makes the two ends, both close-on-exec. */
int channel_pair(int ret[2], struct error *err);

/* Sends without waiting. Negative if the other end is gone or has not read for long. */
int channel_send(int fd, enum channel_message message);
int channel_send_text(int fd, enum channel_message message, const char *text);

/* 1: a message was there, 0: none, negative: the other end is gone. */
int channel_receive(int fd, struct channel_packet *ret);

#endif
