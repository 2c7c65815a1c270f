// What the checks share. Each prints one line: its name and what the call gave, a value or the name of its errno. The
// program itself judges nothing: what it prints over two file systems is compared.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

void say(const char *name, long long result);
// A check: NAME, then the value of the call or its errno.
#define IS(name, call) (errno = 0, say(name, (long long)(call)))
// The same of a call that gives an FD: 0, since its number tells nothing.
#define OPENS(name, call) IS(name, (call) < 0 ? -1 : 0)

// A new file with these bytes, closed again.
void put(const char *path, const char *text, mode_t mode);
// The bytes of a file as a number that tells two of them apart; -1 and errno when it can't be read.
long long sum(const char *path);
long long sizeOf(const char *path);
// Mode of a path itself without its type; links of it; its owner as uid * 100000 + gid.
long long modeOf(const char *path);
long long linksOf(const char *path);
long long ownerOf(const char *path);
// Runs `body` in a process of uid 1000 and gid 1000 without capabilities, in the same directory.
void asUser(void (*body)(void));
// Goes on once the clock of file times, which ticks every few milliseconds, shows another time.
void tick(void);

void checkNames(void);
void checkRename(void);
void checkOwners(void);
void checkData(void);
void checkAttributes(void);
void checkSpecial(void);
