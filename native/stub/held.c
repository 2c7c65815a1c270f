/*
 * What the stub holds: FDs by what they are for, those of argv and copies that a server made of its own.
 */
#include "stub.h"

/* Bounds what a server gone wrong can make us hold; a connection has some tens of channels. */
#define HELD_MAX 16384
static struct held { struct record key; int fd; } held[HELD_MAX];
static int heldCount;

void hold(struct record key, int fd) {
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

int heldFd(uint32_t role) {
    for (int i = 0; i < heldCount; i++)
        if (held[i].key.role == role)
            return held[i].fd;
    return -1;
}

void letGo(isGone *isGone, uint32_t index) {
    int kept = 0;
    for (int i = 0; i < heldCount; i++)
        if (isGone(&held[i].key, index))
            close(held[i].fd);
        else
            held[kept++] = held[i];
    heldCount = kept;
}

bool isOfConnection(const struct record *key, uint32_t index) {
    return key->index == index && (key->role == IO || (key->role >= MEMORY && key->role <= LAST_KEPT));
}

bool isForStart(const struct record *key, uint32_t index) {
    (void)index;
    return (key->role >= MOUNTS && key->role <= RPC) || key->role == SYNC_SENTRY_EXIT || key->role == SYNC_USERNS;
}

static int byFd(const void *a, const void *b) {
    return ((const struct held *)a)->fd - ((const struct held *)b)->fd;
}

void closeOthers(void) {
    unsigned from = 3;
    qsort(held, (size_t)heldCount, sizeof *held, byFd);
    for (int i = 0; i < heldCount; from = (unsigned)held[i++].fd + 1)
        if ((unsigned)held[i].fd > from)
            syscall(SYS_close_range, from, (unsigned)held[i].fd - 1, 0U);
    syscall(SYS_close_range, from, ~0U, 0U);
}

bool sendAdopt(int to, uint32_t flags) {
    int total = 0, at = 0;
    for (int i = 0; i < heldCount; i++)
        total += held[i].key.role <= LAST_KEPT;
    do {
        struct record records[FDS_A_MESSAGE];
        int fds[FDS_A_MESSAGE], count = 0;
        for (; at < heldCount && count < FDS_A_MESSAGE; at++)
            if (held[at].key.role <= LAST_KEPT) {
                records[count] = held[at].key;
                fds[count++] = held[at].fd;
            }
        total -= count;
        if (!sendFds(to, ADOPT, flags | (total ? FLAG_MORE : 0), records, fds, count))
            return false;
    } while (total);
    return true;
}
