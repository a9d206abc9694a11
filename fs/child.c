#include "fs/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/worker.h"

static int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int child_reserve_channel(struct error *err)
{
    cleanup_fd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0)
        return error_set(err, -errno, "/dev/null: %m");
    if (null == INHERITED_CHANNEL)
        steal_fd(&null);
    else if (dup3(null, INHERITED_CHANNEL, O_CLOEXEC) < 0)
        return error_set(err, -errno, "dup: %m");
    return 0;
}

static void exec_worker(const char *program, int channel)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(channel, INHERITED_CHANNEL) >= 0)
        execl(program, WORKER_NAME, NULL);
    struct error err = {0};
    error_set(&err, -errno, "%s: %m", program);
    channel_send_text(channel, CHANNEL_FAILED, err.text);
    _exit(127);
}

int child_start(struct child *child, const char *program, struct error *err)
{
    int ends[2];
    int made = channel_pair(ends, err);
    if (made < 0)
        return made;
    cleanup_fd int ours = ends[0];
    cleanup_fd int theirs = ends[1];
    pid_t pid = fork();
    if (pid < 0)
        return error_set(err, -errno, "fork: %m");
    if (pid == 0)
        exec_worker(program, theirs);
    int pidfd = open_pidfd(pid);
    if (pidfd < 0) {
        int r = -errno;
        kill(pid, SIGKILL);
        return error_set(err, r, "pidfd_open: %s", strerror(-r));
    }
    *child = (struct child){.pid = pid, .pidfd = pidfd, .channel = steal_fd(&ours)};
    return 0;
}

void child_send(struct child *child, enum channel_message message)
{
    /* A child that has not read for so long that there is no room for a message is past helping. */
    if (child->channel >= 0 && channel_send(child->channel, message) == -EAGAIN)
        child_kill(child);
}

static void close_channel(struct child *child)
{
    if (child->channel >= 0)
        close(child->channel);
    child->channel = -1;
}

int child_receive(struct child *child, struct channel_packet *ret)
{
    int r = child->channel < 0 ? 0 : channel_receive(child->channel, ret);
    if (r < 0)
        close_channel(child);
    if (r > 0)
        child->silence_ms = 0;
    if (r > 0 && ret->message == CHANNEL_READY)
        child->ready = true;
    return r;
}

void child_ping(struct child *child, int64_t elapsed_ms)
{
    child->silence_ms += elapsed_ms;
    /* While it prepares, it does not listen. */
    if (child->ready)
        child_send(child, CHANNEL_PING);
}

void child_kill(struct child *child)
{
    child->killed = true;
    kill(child->pid, SIGKILL);
}

static void describe_end(int status, char how[CHILD_HOW_SIZE])
{
    if (WIFSIGNALED(status))
        snprintf(how, CHILD_HOW_SIZE, "was ended by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(how, CHILD_HOW_SIZE, "ended with status %d", WEXITSTATUS(status));
}

int child_reap(struct child *child, char how[CHILD_HOW_SIZE])
{
    int status = 0;
    waitpid(child->pid, &status, 0);
    describe_end(status, how);
    child_forget(child);
    return status;
}

void child_forget(struct child *child)
{
    close_channel(child);
    if (child->pidfd >= 0)
        close(child->pidfd);
    *child = (struct child)CHILD_NONE;
}

void child_reap_others(pid_t current, pid_t next)
{
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid &&
           info.si_pid != current && info.si_pid != next) {
        waitpid(info.si_pid, NULL, 0);
        info.si_pid = 0;
    }
}

void child_hand_over(struct child *child)
{
    /* Without a channel the new program finds one that is no socket, and takes it for closed. */
    if (child->channel >= 0)
        dup2(child->channel, INHERITED_CHANNEL);
    else
        fcntl(INHERITED_CHANNEL, F_SETFD, 0);
    child_forget(child);
}

void child_take_over(struct child *child, pid_t pid)
{
    *child = (struct child){
        .pid = pid,
        .pidfd = open_pidfd(pid),
        .channel = fcntl(INHERITED_CHANNEL, F_DUPFD_CLOEXEC, 10),
        .ready = true,
    };
    if (child->pidfd < 0)
        child_forget(child);
    child_reserve_channel(NULL);
}
