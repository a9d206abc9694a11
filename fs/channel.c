#include "fs/channel.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int channel_pair(int ret[2], struct error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) < 0)
        return error_set(err, -errno, "socketpair: %m");
    return 0;
}

int channel_send_text(int fd, enum channel_message message, const char *text)
{
    struct channel_packet packet = {.message = message};
    snprintf(packet.text, sizeof packet.text, "%s", text);
    size_t size = offsetof(struct channel_packet, text) + strlen(packet.text) + 1;
    return send(fd, &packet, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int channel_send(int fd, enum channel_message message)
{
    return channel_send_text(fd, message, "");
}

int channel_receive(int fd, struct channel_packet *ret)
{
    ssize_t n = recv(fd, ret, sizeof *ret, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (n <= (ssize_t)offsetof(struct channel_packet, text))
        return -ECONNRESET;
    ret->text[sizeof ret->text - 1] = '\0';
    return 1;
}
