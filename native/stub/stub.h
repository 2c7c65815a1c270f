/*
 * What burrow-stub.c, held.c and server.c share: the adopt protocol's numbers (docs/protocol/adopt.md), what is
 * held, and starting servers.
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
#define FLAG_PREPARE 2u /* another server still has these */
enum { ADOPT = 1, KEEP = 2, DROP = 3, START = 4, READY = 5, DONE = 6, SERVING = 7, LEAVE = 8 };
enum {
    IO = 1, SPEC = 2, MOUNTS = 3, SYNC_CHROOT = 4, SYNC_NVPROXY = 5, RPC = 6, DEV_IO = 7, LOG = 8,
    DEBUG_LOG = 9, SYNC_SENTRY_EXIT = 10, PROC = 11, MEMORY = 16, FD_SOCKET = 17, UPPER = 18,
    FD_PEER = 19, JOURNAL = 20, READS = 21, LAST_KEPT = READS,
    /* Held and never sent. */
    SYNC_USERNS = 100, PIN_RING = 101,
};
struct header { uint32_t magic; uint16_t type, fdCount; uint32_t flags, bodyLength; };
struct record { uint32_t role, index, sub, reserved; };
union control { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_A_MESSAGE)]; };
#define READY_MS 1000 /* a standby that says nothing for so long is passed over */
#define READY_AGAIN_MS 200 /* the same when a sandbox waits for a successor: a child takes less than that */
#define BAD_OPTION 9 /* node's exit code: process.md, "Exit codes", Invalid Argument */

extern sigset_t callersMask;
extern char **stubArgv;

/* Says what went wrong wherever somebody may read it. */
void complain(const char *what, const char *why);

/* Takes fd; what was held under the same key is closed. */
void hold(struct record key, int fd);
/* One of a role, still held, or -1. */
int heldFd(uint32_t role);
/* Closes those of which isGone says so. */
typedef bool isGone(const struct record *key, uint32_t index);
void letGo(isGone *isGone, uint32_t index);
isGone isOfConnection;
/* Needed at the start alone. Others wait for the end of these: a copy here would hold it off. */
isGone isForStart;
/* 2022 hands its caller's FDs down (gofer-launch 1.4): a listener or a lock held here would not end. */
void closeOthers(void);
/* Sends everything that is held and meant for a server. False if the server is gone. */
bool sendAdopt(int to, uint32_t flags);

/* One message, of FDs or none, without a body. False if nobody takes it. */
bool sendFds(int to, uint16_t type, uint32_t flags, struct record *records, int *fds, int count);
/* Our own child, with its end of a new pair; ours in fd. -1 when there can be none. */
pid_t forkServer(int *fd);
/* The FD of a standby, or of our tenant's shared server, that takes us, or -1; each may take readyMs to answer. */
int findStandby(bool mayShare, int readyMs);
