/*
 * Finds a standby: a server that the daemon started ahead and that waits for one stub (docs/protocol/adopt.md, section 7).
 *
 * It is no child of ours, so it is told what a child would have inherited: words, settings, root directory, cgroups.
 * It takes nothing for granted of us, nor we of it: whoever says no, or nothing, is passed over, and a child serves.
 */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "adopt.h"

#define STRINGS_BYTES 32768 /* words, settings and cgroups; more than that is for a child */
#define CGROUPS_MAX 32
#define READY_MS 1000 /* a standby that says nothing for so long is passed over */

extern char **environ;

/* A START as it is sent. Identities are what a standby compares with its own: numbers of files, and of namespaces. */
static struct start {
    uint64_t program[2], node[2], userNamespace, cgroupNamespace;
    uint32_t wordCount, settingCount, cgroupCount, reserved;
    char strings[STRINGS_BYTES];
} start;
static uint32_t length; /* of the strings */

static struct record records[1 + CGROUPS_MAX];
static int fds[1 + CGROUPS_MAX], fdCount;

static bool addString(const char *string, uint32_t *count) {
    size_t size = strlen(string) + 1;
    if (size > STRINGS_BYTES - length)
        return false;
    memcpy(start.strings + length, string, size);
    length += (uint32_t)size;
    *count += 1;
    return true;
}

static void addFd(uint32_t role, uint32_t index, int fd) {
    records[fdCount] = (struct record){role, index, 0, 0};
    fds[fdCount++] = fd;
}

static bool identify(const char *path, uint64_t *device, uint64_t *inode) {
    struct stat st;
    if (!path || stat(path, &st) != 0)
        return false;
    if (device)
        *device = st.st_dev;
    *inode = st.st_ino;
    return true;
}

/* Where a hierarchy is mounted: by its controllers' or its own name, or (cgroup v2) at the top or beside the others. */
static int openCgroup(const char *controllers, const char *path) {
    const char *name = strncmp(controllers, "name=", 5) == 0 ? controllers + 5 : controllers;
    const char *folders[] = {*name ? name : ".", "unified", NULL};
    char file[4096];
    for (const char **folder = folders; *folder; folder++) {
        snprintf(file, sizeof file, "/sys/fs/cgroup/%s%s/cgroup.procs", *folder, path);
        int fd = open(file, O_WRONLY | O_CLOEXEC);
        if (fd >= 0 || *name)
            return fd;
    }
    return -1;
}

/* Lines of /proc/self/cgroup, "NUMBER:CONTROLLERS:PATH" (cgroups(7)), and a way into each that can be opened. */
static bool addCgroups(void) {
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[4096];
    bool isSound = file != NULL;
    while (isSound && fgets(line, sizeof line, file)) {
        char *end = strchr(line, '\n'), *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        isSound = end && path && fdCount <= CGROUPS_MAX;
        if (!isSound)
            break;
        *end = 0;
        isSound = addString(line, &start.cgroupCount);
        *path++ = 0;
        int fd = openCgroup(controllers + 1, path);
        if (fd >= 0)
            addFd(CGROUP, (uint32_t)atoi(line), fd);
    }
    if (file)
        fclose(file);
    return isSound;
}

static bool describe(char **argv) {
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool isWhole = root >= 0 && identify(getenv("BURROW_GOFER"), &start.program[0], &start.program[1]) &&
                   identify(getenv("BURROW_NODE"), &start.node[0], &start.node[1]) &&
                   identify("/proc/self/ns/user", NULL, &start.userNamespace) &&
                   identify("/proc/self/ns/cgroup", NULL, &start.cgroupNamespace);
    if (root >= 0)
        addFd(ROOT, 0, root);
    for (char **word = argv + 1; isWhole && *word; word++)
        isWhole = addString(*word, &start.wordCount);
    for (char **entry = environ; isWhole && *entry; entry++)
        if (strncmp(*entry, "BURROW_", 7) == 0)
            isWhole = addString(*entry, &start.settingCount);
    return isWhole && addCgroups();
}

/* Whoever listens there must be who we are: it gets all that the sandbox may reach. */
static bool isOurs(int fd) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

static bool isReady(int fd) {
    struct pollfd wait = {fd, POLLIN, 0};
    struct header answer;
    return TEMP_FAILURE_RETRY(poll(&wait, 1, READY_MS)) == 1 && recv(fd, &answer, sizeof answer, MSG_DONTWAIT) == sizeof answer &&
           answer.magic == MAGIC && answer.type == READY;
}

/* The FD of a standby that took our START, or -1. The path may be longer than an address: it goes through the folder's FD. */
static int ask(int folder, const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.64s", folder, name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct header header = {MAGIC, START, (uint16_t)fdCount, 0, (uint32_t)offsetof(struct start, strings) + length};
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && isOurs(fd) &&
        sendMessage(fd, header, records, fds, (struct iovec){&start, header.bodyLength}) && isReady(fd) &&
        fcntl(fd, F_SETFL, 0) == 0)
        return fd;
    close(fd);
    return -1;
}

int findStandby(char **argv) {
    const char *path = getenv("BURROW_STANDBYS"), *flags = getenv("BURROW_NODE_FLAGS");
    DIR *folder = path && *path && !(flags && *flags) ? opendir(path) : NULL;
    int found = -1;
    if (folder && describe(argv))
        for (struct dirent *entry; found < 0 && (entry = readdir(folder));)
            if (entry->d_name[0] != '.')
                found = ask(dirfd(folder), entry->d_name);
    for (int i = 0; i < fdCount; i++)
        close(fds[i]);
    if (folder)
        closedir(folder);
    return found;
}
