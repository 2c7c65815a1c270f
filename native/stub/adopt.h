/*
 * Messages between a stub and its server: docs/protocol/adopt.md. Little-endian on the wire, as is the only machine that
 * this is built for. Shared by the stub's two files.
 */
#ifndef BURROW_ADOPT_H
#define BURROW_ADOPT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MAGIC 0x31575242u /* "BRW1" */
#define FDS_A_MESSAGE 200 /* the kernel's own bound is 253 (SCM_MAX_FD) */
#define FLAG_MORE 1u
enum { ADOPT = 1, KEEP = 2, DROP = 3, START = 4, READY = 5, DONE = 6 };
enum {
    IO = 1, SPEC = 2, MOUNTS = 3, SYNC_CHROOT = 4, SYNC_NVPROXY = 5, RPC = 6, DEV_IO = 7, LOG = 8,
    DEBUG_LOG = 9, SYNC_SENTRY_EXIT = 10, ROOT = 11, CGROUP = 12, MEMORY = 16, FD_SOCKET = 17, UPPER = 18,
    /* Held and never sent. */
    SYNC_USERNS = 100, PIN_RING = 101,
};
struct header { uint32_t magic; uint16_t type, fdCount; uint32_t flags, bodyLength; };
struct record { uint32_t role, index, sub, reserved; };
union control { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_A_MESSAGE)]; };

/* Sends one message with `count` FDs. False if nobody takes it: errno. */
bool sendMessage(int to, struct header header, struct record *records, int *fds, struct iovec body);

/* The FD of a standby that serves in place of a child, or -1 if none is there or may. */
int findStandby(char **argv);

#endif
