/*
 * burrow-stub: what runsc starts instead of its gofer; pid 1 of the gofer's namespaces.
 *
 * Owns: the FDs that runsc passes by argv, and copies of those that its server makes for a connection.
 * It starts the server, hands it the FDs (docs/protocol/adopt.md) and outlives it, so that a successor
 * can adopt the same FDs: the sandbox takes the end of an io-fd for the death of its file system.
 * Assumes: argv as in gofer-launch section 1.1, BURROW_NODE and BURROW_GOFER in the environment.
 * It reads argv and its server's messages, never a byte that a sandbox sent.
 */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* docs/protocol/adopt.md. Little-endian on the wire, as is the only machine this is built for. */
#define MAGIC 0x31575242u /* "BRW1" */
#define FDS_A_MESSAGE 200 /* the kernel's own bound is 253 (SCM_MAX_FD) */
#define FLAG_MORE 1u
enum { ADOPT = 1, KEEP = 2, DROP = 3, START = 4, READY = 5, DONE = 6 };
enum {
    IO = 1, SPEC = 2, MOUNTS = 3, SYNC_CHROOT = 4, SYNC_NVPROXY = 5, RPC = 6, DEV_IO = 7, LOG = 8,
    DEBUG_LOG = 9, SYNC_SENTRY_EXIT = 10, PROC = 11, MEMORY = 16, FD_SOCKET = 17, UPPER = 18,
    /* Held and never sent. */
    SYNC_USERNS = 100, PIN_RING = 101,
};
struct header { uint32_t magic; uint16_t type, fdCount; uint32_t flags, bodyLength; };
struct record { uint32_t role, index, sub, reserved; };
union control { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_A_MESSAGE)]; };
#define READY_MS 1000 /* a standby that says nothing for so long is passed over */
#define BAD_OPTION 9 /* node's exit code: process.md, "Exit codes", Invalid Argument */

/* Bounds what a server gone wrong can make us hold; a connection has some tens of channels. */
#define HELD_MAX 16384
static struct held { struct record key; int fd; } held[HELD_MAX];
static int heldCount;

static int controlFd = -1; /* our end of the pair with the server; -1 when it closed its own */
static pid_t server; /* our child; 0: a standby, which isn't */
static int serverStatus = -1; /* as from waitpid, once it ended */
static bool isInOwnUserns;
static int signalFd = -1;
static sigset_t callersMask;
static char **stubArgv;
static bool isJson; /* --log-format=json: containerd reads the log for the last error */
static time_t startedAt;

/* Our standard error is /dev/null by default, so tell runsc's logs too, and its standard error while it
 * still waits for us: it would say "EOF" alone. Later that pid may be another's. */
static void complain(const char *what, const char *why) {
    const char *caller = time(NULL) - startedAt < 10 ? getenv("BURROW_STDERR") : NULL;
    int fd = caller ? open(caller, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) : -1;
    dprintf(2, "burrow-stub: %s: %s\n", what, why);
    if (fd >= 0)
        dprintf(fd, "burrow-stub: %s: %s\n", what, why);
    close(fd);
    for (int i = 0; i < heldCount; i++)
        if (held[i].key.role == LOG || held[i].key.role == DEBUG_LOG)
            dprintf(held[i].fd, isJson ? "{\"level\":\"error\",\"msg\":\"burrow-stub: %s: %s\"}\n"
                                       : "burrow-stub: %s: %s\n", what, why);
}
#define die(what) (complain(what, strerror(errno)), exit(127))

/* ---- what we hold ---------------------------------------------------------------------------- */

/* Takes fd; what was held under the same key is closed. */
static void hold(struct record key, int fd) {
    for (int i = 0; i < heldCount; i++)
        if (memcmp(&held[i].key, &key, sizeof key) == 0) {
            close(held[i].fd);
            held[i].fd = fd;
            return;
        }
    if (heldCount == HELD_MAX) {
        close(fd);
        complain("an FD of the server's is closed", "too many are kept");
    } else
        held[heldCount++] = (struct held){key, fd};
}

static void letGo(bool (*isGone)(const struct record *key, uint32_t index), uint32_t index) {
    int kept = 0;
    for (int i = 0; i < heldCount; i++)
        if (isGone(&held[i].key, index))
            close(held[i].fd);
        else
            held[kept++] = held[i];
    heldCount = kept;
}

static bool isOfConnection(const struct record *key, uint32_t index) {
    return key->index == index && (key->role == IO || (key->role >= MEMORY && key->role <= UPPER));
}

/* Needed by the first server alone. Others wait for the end of these: a copy here would hold it off. */
static bool isForStart(const struct record *key, uint32_t index) {
    (void)index;
    return (key->role >= MOUNTS && key->role <= RPC) || key->role == SYNC_SENTRY_EXIT;
}

/* ---- argv ------------------------------------------------------------------------------------ */

static const struct { const char *name; uint32_t role; } fdFlags[] = {
    {"io-fds", IO}, {"spec-fd", SPEC}, {"mounts-fd", MOUNTS}, {"sync-chroot-fd", SYNC_CHROOT},
    {"sync-nvproxy-fd", SYNC_NVPROXY}, {"rpc-fd", RPC}, {"dev-io-fd", DEV_IO}, {"log-fd", LOG},
    {"debug-log-fd", DEBUG_LOG}, {"sync-sentry-exit-fd", SYNC_SENTRY_EXIT},
    {"sync-userns-fd", SYNC_USERNS}, {"pin-ring-fd", PIN_RING},
};
static long setUid, setGid, fdLimit = -1;
static const struct { const char *name; long *to; } numbers[] = {
    {"uid", &setUid}, {"gid", &setGid}, {"fdlimit", &fdLimit},
};

/* The number after "--name=" (one dash or two) of arg, or -1. */
static long numberOf(const char *arg, const char *name) {
    const char *at = arg + (arg[1] == '-' ? 2 : 1);
    size_t length = strlen(name);
    char *end;
    if (arg[0] != '-' || strncmp(at, name, length) != 0 || at[length] != '=')
        return -1;
    errno = 0;
    long value = strtol(at + length + 1, &end, 10);
    return errno || *end || end == at + length + 1 || value < 0 || value > INT32_MAX ? -1 : value;
}

/* Lenient: what isn't known is some revision's own business (gofer-launch 1.1). */
static void readArgv(char **argv) {
    uint32_t ioCount = 0;
    for (int i = 1; argv[i]; i++) {
        long value;
        if (strcmp(argv[i], "--bundle") == 0 && argv[i + 1]) {
            i++; /* the one flag whose value is a word of its own */
            continue;
        }
        isJson = isJson || strcmp(argv[i], "--log-format=json") == 0;
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
            if ((value = numberOf(argv[i], numbers[n].name)) >= 0)
                *numbers[n].to = value;
        for (size_t f = 0; f < sizeof fdFlags / sizeof *fdFlags; f++) {
            value = numberOf(argv[i], fdFlags[f].name);
            if (value < 3 || fcntl((int)value, F_SETFD, FD_CLOEXEC) != 0)
                continue;
            uint32_t role = fdFlags[f].role;
            hold((struct record){role, role == IO ? ioCount++ : 0, 0, 0}, (int)value);
        }
    }
    if (ioCount == 0)
        die("no open --io-fds: this is started by runsc, see burrow-runsc --burrow-help");
}

static int byFd(const void *a, const void *b) {
    return ((const struct held *)a)->fd - ((const struct held *)b)->fd;
}

/* 2022 hands its caller's FDs down (gofer-launch 1.4): a listener or a lock held here would not end. */
static void closeOthers(void) {
    unsigned from = 3;
    qsort(held, (size_t)heldCount, sizeof *held, byFd);
    for (int i = 0; i < heldCount; from = (unsigned)held[i++].fd + 1)
        if ((unsigned)held[i].fd > from)
            syscall(SYS_close_range, from, (unsigned)held[i].fd - 1, 0U);
    syscall(SYS_close_range, from, ~0U, 0U);
}

/* Rootless: runsc writes the id maps of our user namespace, then closes its end. */
static void waitForUserns(void) {
    for (int i = 0; i < heldCount; i++) {
        char byte;
        if (held[i].key.role != SYNC_USERNS)
            continue;
        while (TEMP_FAILURE_RETRY(read(held[i].fd, &byte, 1)) > 0)
            ;
        /* By hand: there are no threads whose ids glibc would have to change too. */
        if (syscall(SYS_setgid, setGid) != 0 || syscall(SYS_setuid, setUid) != 0)
            die("can't become the namespace's root");
        isInOwnUserns = true;
        close(held[i].fd);
        held[i] = held[--heldCount];
        return;
    }
}

/* ---- server ---------------------------------------------------------------------------------- */

/* One message of FDs, without a body. False if nobody takes it. */
static bool sendFds(int to, uint16_t type, uint32_t flags, struct record *records, int *fds, int count) {
    union control control = {0};
    size_t fdBytes = sizeof(int) * (size_t)count;
    struct header header = {MAGIC, type, (uint16_t)count, flags, 0};
    struct iovec parts[2] = {{&header, sizeof header}, {records, sizeof *records * (size_t)count}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(fdBytes)};
    control.align = (struct cmsghdr){CMSG_LEN(fdBytes), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.align), fds, fdBytes);
    return TEMP_FAILURE_RETRY(sendmsg(to, &message, MSG_NOSIGNAL)) >= 0;
}

/* Sends everything that is held and meant for a server. False if the server is gone. */
static bool sendAdopt(void) {
    int total = 0, at = 0;
    for (int i = 0; i < heldCount; i++)
        total += held[i].key.role <= UPPER;
    do {
        struct record records[FDS_A_MESSAGE];
        int fds[FDS_A_MESSAGE], count = 0;
        for (; at < heldCount && count < FDS_A_MESSAGE; at++)
            if (held[at].key.role <= UPPER) {
                records[count] = held[at].key;
                fds[count++] = held[at].fd;
            }
        total -= count;
        if (!sendFds(controlFd, ADOPT, total ? FLAG_MORE : 0, records, fds, count))
            return false;
    } while (total);
    return true;
}

/* The caller's NODE_* settings are not for the server: NODE_OPTIONS would run code in it, and reading
 * NODE_EXTRA_CA_CERTS alone takes longer than its whole start. Nor are AWS_*: it has no network, and no
 * keys should be in the memory of who talks to a sandbox. */
static void forgetForeignSettings(void) {
    for (char **entry = environ; *entry;) {
        bool isForeign = strncmp(*entry, "NODE_", 5) == 0 || strncmp(*entry, "AWS_", 4) == 0;
        char *end = isForeign ? strchr(*entry, '=') : NULL;
        char *name = end ? strndup(*entry, (size_t)(end - *entry)) : NULL;
        if (name && unsetenv(name) == 0)
            entry = environ; /* unsetenv has moved the rest. */
        else
            entry++;
        free(name);
    }
}

/* Flags for node, in a file beside the program: those that the build's own takes (docs/design/0003-server-start.md). */
static const char *flagsOf(const char *program) {
    static char words[512], path[4096];
    snprintf(path, sizeof path, "%s.flags", program);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t length = read(fd, words, sizeof words - 1);
    close(fd);
    return length > 0 ? words : "";
}

/* In the child: never returns. */
static void becomeServer(int talk) {
    const char *node = getenv("BURROW_NODE"), *program = getenv("BURROW_GOFER"), *flags = getenv("BURROW_NODE_FLAGS");
    int argc = 0, n = 0;
    for (; stubArgv[argc]; argc++);
    char words[4096], *rest = words;
    snprintf(words, sizeof words, "%s %s", flagsOf(program), flags ? flags : "");
    char **argv = calloc((size_t)argc + sizeof words / 2 + 4, sizeof *argv);
    argv[n++] = (char *)(node ? node : "node");
    argv[n++] = "--no-warnings";
    for (char *word; (word = strsep(&rest, " \n"));)
        if (*word)
            argv[n++] = word;
    argv[n++] = (char *)program;
    for (int i = 1; i < argc; i++)
        argv[n++] = stubArgv[i];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (talk == 3 ? fcntl(3, F_SETFD, 0) != 0 : dup2(talk, 3) != 3)
        _exit(127);
    sigprocmask(SIG_SETMASK, &callersMask, NULL);
    setenv("BURROW_ADOPT_FD", "3", 1);
    forgetForeignSettings();
    execv(argv[0], argv);
    complain("the server can't be run (BURROW_NODE)", strerror(errno));
    _exit(127);
}

/* Our own child, with its end of a new pair. */
static void forkServer(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        die("socket pair for the server");
    if ((server = fork()) < 0)
        die("no process for the server");
    if (server == 0)
        becomeServer(pair[1]);
    close(pair[1]);
    controlFd = pair[0];
}

/*
 * The FD of a standby that takes us, or -1: a server that the daemon started ahead (adopt.md, section 7). It is no
 * child of ours: what that would inherit it reads in our directory of /proc. Who says no, or nothing, is passed
 * over. The path may be longer than an address: it goes through the folder's FD.
 */
static int askStandby(int folder, const char *name, int proc) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct record record = {PROC, 0, 0, 0};
    struct header answer = {0};
    struct ucred peer;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.64s", folder, name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd wait = {fd, POLLIN, 0};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof peer}) == 0 &&
        peer.uid == geteuid() && sendFds(fd, START, 0, &record, &proc, 1) &&
        TEMP_FAILURE_RETRY(poll(&wait, 1, READY_MS)) == 1 &&
        recv(fd, &answer, sizeof answer, 0) == sizeof answer && answer.magic == MAGIC && answer.type == READY &&
        fcntl(fd, F_SETFL, 0) == 0)
        return fd;
    close(fd);
    return -1;
}

static int findStandby(void) {
    const char *path = getenv("BURROW_STANDBYS"), *flags = getenv("BURROW_NODE_FLAGS");
    DIR *folder = path && *path && !(flags && *flags) ? opendir(path) : NULL;
    int proc = folder ? open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1, found = -1;
    for (struct dirent *entry; proc >= 0 && found < 0 && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            found = askStandby(dirfd(folder), entry->d_name, proc);
    close(proc);
    if (folder)
        closedir(folder);
    return found;
}

/* Has a server, a standby or our own child, adopt all we hold. A successor is started the same way. */
static void startServer(void) {
    /* A standby sees ids as the host does, not as our user namespace. */
    if (isInOwnUserns || (controlFd = findStandby()) < 0)
        forkServer();
    if (!sendAdopt())
        complain("the server adopts nothing", strerror(errno)); /* SIGCHLD or the end of its socket follows */
    letGo(isForStart, 0);
}

static void handleMessage(void) {
    struct { struct header header; struct record records[FDS_A_MESSAGE]; } in = {0};
    union control control;
    struct iovec part = {&in, sizeof in};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control};
    ssize_t n = recvmsg(controlFd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* its end is closed: the server ends, or wants nothing more of us */
        close(controlFd);
        controlFd = -1;
        if (!server && serverStatus < 0)
            serverStatus = SIGKILL; /* a standby that is gone without a word */
        return;
    }
    int fds[FDS_A_MESSAGE], count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(c), sizeof(int) * (size_t)count);
        }
    size_t length = (size_t)n, records = sizeof *in.records * (size_t)count;
    bool isKeep = in.header.type == KEEP, isDrop = in.header.type == DROP && count == 0;
    bool isDone = in.header.type == DONE && count == 0 && in.header.bodyLength == 4;
    bool isSound = length >= sizeof in.header && in.header.magic == MAGIC && (isKeep || isDrop || isDone) &&
                   in.header.fdCount == count && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
                   length == sizeof in.header + records + in.header.bodyLength;
    if (isSound && isDrop && in.header.bodyLength == 4)
        letGo(isOfConnection, in.records[0].role); /* the body is where a record would be */
    if (isSound && isDone && !server)
        serverStatus = (in.records[0].role & 0xff) << 8; /* as waitpid would say it */
    for (int i = 0; i < count; i++) {
        struct record *key = &in.records[i];
        if (isSound && isKeep && key->role >= MEMORY && key->role <= UPPER && key->reserved == 0)
            hold(*key, fds[i]);
        else
            close(fds[i]);
    }
    if (!isSound)
        complain("a message of the server is refused", "malformed");
}

/* ---- signals --------------------------------------------------------------------------------- */

static void handleSignals(void) {
    struct signalfd_siginfo info;
    while (read(signalFd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD && serverStatus < 0) {
            if (server)
                kill(server, (int)info.ssi_signo);
            else
                serverStatus = (int)info.ssi_signo; /* our exit is its end */
        }
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) /* pid 1 gets every orphan */
        if (pid == server)
            serverStatus = status;
}

int main(int argc __attribute__((unused)), char **argv) {
    sigset_t mine;
    stubArgv = argv;
    startedAt = time(NULL);
    const char *log = getenv("BURROW_LOG");
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    int logFd = log && *log ? open(log, flags, 0600) : -1;
    readArgv(argv);
    for (int i = 0; i < heldCount && logFd < 0; i++)
        if (held[i].key.role == DEBUG_LOG)
            logFd = held[i].fd;
    if (logFd >= 0)
        dup2(logFd, 2);
    closeOthers();
    waitForUserns();
    umask(0);
    if (fdLimit > 0)
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)fdLimit, (rlim_t)fdLimit});
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        die("no_new_privs");
    if (!getenv("BURROW_NODE") || !getenv("BURROW_GOFER")) {
        errno = EINVAL;
        die("BURROW_NODE or BURROW_GOFER isn't in the environment: start runsc by burrow-runsc");
    }
    signal(SIGCHLD, SIG_DFL); /* an inherited "ignore" would reap the server unseen */
    sigemptyset(&mine);
    for (const int *number = (const int[]){SIGCHLD, SIGTERM, SIGINT, 0}; *number; number++)
        sigaddset(&mine, *number);
    sigprocmask(SIG_BLOCK, &mine, &callersMask);
    if ((signalFd = signalfd(-1, &mine, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        die("signalfd");
    startServer();
    while (serverStatus < 0) {
        struct pollfd wait[2] = {{signalFd, POLLIN, 0}, {controlFd, POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            die("poll");
        if (wait[1].revents)
            handleMessage();
        if (wait[0].revents)
            handleSignals();
    }
    if (WIFSIGNALED(serverStatus) && WTERMSIG(serverStatus) == SIGKILL)
        complain("the server was killed", "the sandbox may have run out of memory, which it shares");
    else if (WIFEXITED(serverStatus) && WEXITSTATUS(serverStatus) == BAD_OPTION)
        complain("this node doesn't take the server's flags", "build Burrow with the node that BURROW_NODE names");
    else if (serverStatus != 0)
        complain("the server failed", "set BURROW_LOG=FILE to have what it says");
    return WIFSIGNALED(serverStatus) ? 128 + WTERMSIG(serverStatus) : WEXITSTATUS(serverStatus);
}
