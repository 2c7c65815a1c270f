/*
 * burrow-stub: what runsc starts instead of its gofer; pid 1 of the gofer's namespaces.
 *
 * Owns: the FDs that runsc passes by argv, and copies of those that its server makes for a connection.
 * It starts the server, hands it the FDs (docs/protocol/adopt.md) and outlives it, so that a successor
 * can adopt the same FDs: the sandbox takes the end of an io-fd for the death of its file system.
 * Assumes: argv as in gofer-launch section 1.1, BURROW_NODE and BURROW_GOFER in the environment.
 * It reads argv and its server's messages, never a byte that a sandbox sent.
 */
#include "stub.h"

static int controlFd = -1; /* our end of the pair with the server; -1 when it closed its own */
static pid_t server; /* our child; 0: a standby, which isn't */
static int serverStatus = -1; /* as from waitpid, once it ended; UNSTARTED while the next one is yet to be started */
#define UNSTARTED (-2)
static long servingSince = -1; /* by now(): it adopted all; -1 before that */
static unsigned servedCount; /* servers that did: from the first on one that dies is replaced */
static bool isEnding; /* told to by a signal */
/* On SIGHUP: what is to serve next, our child; it waits for its turn until the server has left. */
static const struct heir { pid_t pid; int fd; long killAt; bool isReady; } noHeir = {0, -1, -1, false};
static struct heir heir = noHeir;

/* Servers that died, by now(): RESTARTS_MS is the time in which so many may. */
#define RESTARTS_MS 60000
#define RESTARTS_MAX 1024
#define SHORT_LIFE_MS 100 /* one that died sooner counts towards the wait before the next */
#define WAIT_MAX_MS 1000
#define LEAVE_MS 5000
static long deaths[RESTARTS_MAX], restartAt = -1;
static int deathCount, shortLives, restartsAllowed = 10;
static bool isInOwnUserns;
static int signalFd = -1;
sigset_t callersMask;
char **stubArgv;
static bool isJson; /* --log-format=json: containerd reads the log for the last error */
static time_t startedAt;

/* Our standard error is /dev/null by default, so tell runsc's logs too, and its standard error while it
 * still waits for us: it would say "EOF" alone. Later that pid may be another's. */
void complain(const char *what, const char *why) {
    const char *caller = time(NULL) - startedAt < 10 ? getenv("BURROW_STDERR") : NULL;
    int fd = caller ? open(caller, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) : -1;
    dprintf(2, "burrow-stub: %s: %s\n", what, why);
    if (fd >= 0)
        dprintf(fd, "burrow-stub: %s: %s\n", what, why);
    close(fd);
    for (uint32_t role = LOG; role <= DEBUG_LOG; role++)
        dprintf(heldFd(role), isJson ? "{\"level\":\"error\",\"msg\":\"burrow-stub: %s: %s\"}\n"
                                     : "burrow-stub: %s: %s\n", what, why);
}
static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Our name, for ps and burrow gofer: how many servers have served; '+': an heir gets ready, '!': one failed. */
static void tell(const char *mark) {
    char name[17];
    snprintf(name, sizeof name, "burrow-stub %u%.1s", servedCount % 100, mark);
    prctl(PR_SET_NAME, name, 0, 0, 0);
}

#define die(what) (complain(what, strerror(errno)), exit(127))

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

/* Rootless: runsc writes the id maps of our user namespace, then closes its end. */
static void waitForUserns(void) {
    char byte;
    int fd = heldFd(SYNC_USERNS);
    if (fd < 0)
        return;
    while (TEMP_FAILURE_RETRY(read(fd, &byte, 1)) > 0)
        ;
    /* By hand: there are no threads whose ids glibc would have to change too. */
    if (syscall(SYS_setgid, setGid) != 0 || syscall(SYS_setuid, setUid) != 0)
        die("can't become the namespace's root");
    isInOwnUserns = true;
}

/* ---- server ---------------------------------------------------------------------------------- */

/* Has a server, a standby or our own child, adopt all we hold. A successor is started the same way. */
static void startServer(void) {
    server = 0;
    serverStatus = servingSince = restartAt = -1;
    int readyMs = servedCount > 0 ? READY_AGAIN_MS : READY_MS;
    /* A standby sees ids as the host does, not as our user namespace. Who shared a server that died gets one of
     * its own: if it was the sandbox that ended it, it ends no other's twice. */
    if ((isInOwnUserns || (controlFd = findStandby(servedCount == 0, readyMs)) < 0) &&
        (server = forkServer(&controlFd)) < 0) {
        if (servedCount == 0)
            die("no process for the server");
        serverStatus = 127 << 8; /* as one that died at once: it is tried again */
        return;
    }
    if (!sendAdopt(controlFd, 0))
        complain("the server adopts nothing", strerror(errno)); /* SIGCHLD or the end of its socket follows */
    letGo(isForStart, 0);
}

static void handleMessage(int from);

/* ---- successors ------------------------------------------------------------------------------ */

/* SIGHUP: starts the program that is installed now. The server goes on until that says it is ready. */
static void startHeir(void) {
    if (heir.pid || servingSince < 0)
        return;
    bool isAsked = (heir.pid = forkServer(&heir.fd)) > 0 && sendAdopt(heir.fd, FLAG_PREPARE);
    if (!isAsked)
        complain("no successor is started", strerror(errno));
    tell(isAsked ? "+" : "!");
    heir.pid = heir.pid < 0 ? 0 : heir.pid;
}

static void installHeir(void) {
    close(controlFd);
    controlFd = heir.fd;
    server = heir.pid;
    serverStatus = servingSince = restartAt = -1;
    heir = noHeir;
    if (!sendAdopt(controlFd, 0))
        complain("the server adopts nothing", strerror(errno));
}

/* The heir is ready: the server leaves at the next quiet moment, and we hear of its end. */
static void relieve(void) {
    heir.isReady = true;
    if (serverStatus == UNSTARTED) { /* it died meanwhile */
        installHeir();
        return;
    }
    heir.killAt = now() + LEAVE_MS;
    if (controlFd < 0 || !sendFds(controlFd, LEAVE, 0, NULL, NULL, 0))
        heir.killAt = now();
}

/* A server that doesn't leave is killed; one that isn't our child can't be, and stays. */
static void insist(void) {
    if (server > 0)
        kill(server, SIGKILL);
    else {
        complain("the server doesn't leave", "it goes on");
        kill(heir.pid, SIGKILL);
    }
    heir.killAt = -1;
}

/* Counts a death: the time to wait before the next server, or -1 when there have been too many. */
static long restartDelay(void) {
    long at = now(), lived = servingSince < 0 ? 0 : at - servingSince;
    int kept = 0;
    for (int i = 0; i < deathCount; i++)
        if (at - deaths[i] < RESTARTS_MS)
            deaths[kept++] = deaths[i];
    if ((deathCount = kept) >= restartsAllowed)
        return -1;
    deaths[deathCount++] = at;
    shortLives = lived < SHORT_LIFE_MS ? shortLives + 1 : 0;
    long wait = shortLives <= 2 ? 0 : 10L << (shortLives < 9 ? shortLives - 2 : 7);
    return wait < WAIT_MAX_MS ? wait : WAIT_MAX_MS;
}

/* The server has ended: true when it is to be replaced. */
static bool isReplaced(void) {
    bool isOver = WIFEXITED(serverStatus) && WEXITSTATUS(serverStatus) == 0;
    struct pollfd last = {controlFd, POLLIN, 0};
    while (controlFd >= 0 && poll(&last, 1, 0) == 1) /* what it had us keep before it died */
        handleMessage(controlFd);
    if (heir.isReady && !isEnding) {
        installHeir();
        return true;
    }
    /* Who makes forbidden calls is somebody else by now: not again. */
    bool isForbidden = WIFSIGNALED(serverStatus) && WTERMSIG(serverStatus) == SIGSYS;
    if (isOver || servedCount == 0 || isEnding || isForbidden)
        return false;
    long wait = restartsAllowed > 0 ? restartDelay() : -1;
    bool isSignal = WIFSIGNALED(serverStatus);
    char why[96];
    snprintf(why, sizeof why, isSignal ? "signal %d" : "exit code %d",
             isSignal ? WTERMSIG(serverStatus) : WEXITSTATUS(serverStatus));
    if (wait < 0) {
        if (restartsAllowed > 0)
            complain("the sandbox ends: its servers died too often, more than BURROW_RESTARTS times in a minute", why);
        return false;
    }
    complain("the server died and is replaced", why);
    close(controlFd);
    controlFd = -1;
    server = -1;
    serverStatus = UNSTARTED;
    restartAt = now() + wait;
    return true;
}

/* A message of the server's, or of its heir's, which may say that it is ready and nothing else. */
static void handleMessage(int from) {
    struct { struct header header; struct record records[FDS_A_MESSAGE]; } in = {0};
    union control control;
    struct iovec part = {&in, sizeof in};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control};
    ssize_t n = recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* its end is closed: the server ends, or wants nothing more of us */
        close(from);
        if (from == heir.fd) {
            heir.fd = -1;
            return;
        }
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
    bool isHeir = from == heir.fd, isReady = isHeir && in.header.type == READY && count == 0;
    bool isKeep = !isHeir && in.header.type == KEEP, isDrop = !isHeir && in.header.type == DROP && count == 0;
    bool isDone = !isHeir && in.header.type == DONE && count == 0 && in.header.bodyLength == 4;
    bool isServing = !isHeir && in.header.type == SERVING && count == 0;
    bool isSound = length >= sizeof in.header && in.header.magic == MAGIC &&
                   (isKeep || isDrop || isDone || isServing || isReady) &&
                   in.header.fdCount == count && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
                   length == sizeof in.header + records + in.header.bodyLength;
    if (isSound && isDrop && in.header.bodyLength == 4)
        letGo(isOfConnection, in.records[0].role); /* the body is where a record would be */
    if (isSound && isDone && !server)
        serverStatus = (in.records[0].role & 0xff) << 8; /* as waitpid would say it */
    if (isSound && isServing) {
        servedCount++;
        servingSince = now();
        tell(heir.pid ? "+" : "");
    }
    if (isSound && isReady)
        relieve();
    for (int i = 0; i < count; i++) {
        struct record *key = &in.records[i];
        if (isSound && isKeep && key->role >= MEMORY && key->role <= LAST_KEPT && key->reserved == 0)
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
        if (info.ssi_signo == SIGHUP)
            startHeir();
        else if (info.ssi_signo != SIGCHLD && serverStatus < 0) {
            isEnding = true;
            if (server && serverStatus != UNSTARTED)
                kill(server, (int)info.ssi_signo);
            else
                serverStatus = (int)info.ssi_signo; /* our exit is a standby's end */
        }
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) /* pid 1 gets every orphan */
        if (pid == server)
            serverStatus = status;
        else if (pid == heir.pid) {
            complain("the successor failed", "the server that is there goes on");
            close(heir.fd);
            heir = noHeir;
            tell("!");
        }
}

/* Waits for something to happen, and has it done. */
static void waitOnce(void) {
    long next = restartAt >= 0 ? restartAt : heir.killAt, at = now();
    struct pollfd wait[3] = {{signalFd, POLLIN, 0}, {controlFd, POLLIN, 0}, {heir.fd, POLLIN, 0}};
    if (poll(wait, 3, next < 0 ? -1 : next > at ? (int)(next - at) : 0) < 0 && errno != EINTR)
        die("poll");
    if (wait[1].revents)
        handleMessage(controlFd);
    if (wait[2].revents)
        handleMessage(heir.fd);
    if (wait[0].revents)
        handleSignals();
    if (serverStatus == UNSTARTED && restartAt >= 0 && now() >= restartAt)
        startServer();
    if (heir.killAt >= 0 && now() >= heir.killAt && serverStatus == -1)
        insist();
}

int main(int argc __attribute__((unused)), char **argv) {
    sigset_t mine;
    stubArgv = argv;
    startedAt = time(NULL);
    tell("");
    const char *log = getenv("BURROW_LOG");
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    int logFd = log && *log ? open(log, flags, 0600) : -1;
    readArgv(argv);
    if (logFd < 0)
        logFd = heldFd(DEBUG_LOG);
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
    const char *allowed = getenv("BURROW_RESTARTS");
    if (allowed && *allowed)
        restartsAllowed = atoi(allowed) < RESTARTS_MAX ? atoi(allowed) : RESTARTS_MAX;
    signal(SIGCHLD, SIG_DFL); /* an inherited "ignore" would reap the server unseen */
    sigemptyset(&mine);
    for (const int *number = (const int[]){SIGCHLD, SIGTERM, SIGINT, SIGHUP, 0}; *number; number++)
        sigaddset(&mine, *number);
    sigprocmask(SIG_BLOCK, &mine, &callersMask);
    if ((signalFd = signalfd(-1, &mine, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        die("signalfd");
    startServer();
    while (serverStatus < 0 || isReplaced())
        waitOnce();
    if (WIFSIGNALED(serverStatus) && WTERMSIG(serverStatus) == SIGSYS)
        complain("the server was killed by seccomp", "its call is in the kernel's log; BURROW_HARDEN=log lets it pass");
    else if (WIFSIGNALED(serverStatus) && WTERMSIG(serverStatus) == SIGKILL)
        complain("the server was killed", "the sandbox may have run out of memory, which it shares");
    else if (WIFEXITED(serverStatus) && WEXITSTATUS(serverStatus) == BAD_OPTION)
        complain("this node doesn't take the server's flags", "build Burrow with the node that BURROW_NODE names");
    else if (serverStatus != 0 && !isEnding) /* an end that was asked for is no failure */
        complain("the server failed", "set BURROW_LOG=FILE to have what it says");
    return WIFSIGNALED(serverStatus) ? 128 + WTERMSIG(serverStatus) : WEXITSTATUS(serverStatus);
}
