/*
 * Starting a server: our own child with what runsc gave us but its FDs, or a standby; and sending messages to it.
 */
#include "stub.h"

/* One message, of FDs or none, without a body. False if nobody takes it. */
bool sendFds(int to, uint16_t type, uint32_t flags, struct record *records, int *fds, int count) {
    union control control = {0};
    size_t fdBytes = sizeof(int) * (size_t)count;
    struct header header = {MAGIC, type, (uint16_t)count, flags, 0};
    struct iovec parts[2] = {{&header, sizeof header}, {records, sizeof *records * (size_t)count}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fdBytes);
        control.align = (struct cmsghdr){CMSG_LEN(fdBytes), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.align), fds, fdBytes);
    }
    return TEMP_FAILURE_RETRY(sendmsg(to, &message, MSG_NOSIGNAL)) >= 0;
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

/* Our own child, with its end of a new pair; ours in fd. -1 when there can be none. */
pid_t forkServer(int *fd) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0)
        becomeServer(pair[1]);
    close(pair[1]);
    if (child < 0)
        close(pair[0]);
    else
        *fd = pair[0];
    return child;
}

/*
 * The FD of a standby that takes us, or -1: a server that the daemon started ahead (adopt.md, section 7). It is no
 * child of ours: what that would inherit it reads in our directory of /proc. Who says no, or nothing, is passed
 * over. The path may be longer than an address: it goes through the folder's FD.
 */
static int askStandby(int folder, const char *name, int proc, int readyMs) {
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
        TEMP_FAILURE_RETRY(poll(&wait, 1, readyMs)) == 1 &&
        recv(fd, &answer, sizeof answer, 0) == sizeof answer && answer.magic == MAGIC && answer.type == READY &&
        fcntl(fd, F_SETFL, 0) == 0)
        return fd;
    close(fd);
    return -1;
}

static int askFolder(const char *path, int proc, int readyMs) {
    DIR *folder = opendir(path);
    int found = -1;
    for (struct dirent *entry; folder && found < 0 && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            found = askStandby(dirfd(folder), entry->d_name, proc, readyMs);
    if (folder)
        closedir(folder);
    return found;
}

int findStandby(bool mayShare, int readyMs) {
    const char *path = getenv("BURROW_STANDBYS"), *flags = getenv("BURROW_NODE_FLAGS");
    char shared[4096];
    if (!path || !*path || (flags && *flags))
        return -1;
    int proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC), found = -1;
    snprintf(shared, sizeof shared, "%s/shared", path);
    if (mayShare && getenv("BURROW_SHARED"))
        found = askFolder(shared, proc, readyMs);
    if (found < 0)
        found = askFolder(path, proc, readyMs);
    close(proc);
    return found;
}
