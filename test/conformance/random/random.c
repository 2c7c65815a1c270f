// random DIR SEED COUNT: a random sequence of system calls in a new directory beneath DIR, the same for a seed, over few names so
// that they meet: a line each with what it gave; then the tree that is left. Two file systems must print the same.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HELD 6

static uint64_t state;
static uint32_t below(uint32_t bound) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)((state >> 33) % bound);
}

static char bytes[70000];
static int held[HELD];

// A path of 1 to 3 names out of three.
static const char *path(void) {
  static char texts[2][16];
  static int turn;
  char *text = texts[turn ^= 1], *at = text;
  for (uint32_t left = 1 + below(3); left > 0; left--) {
    *at++ = "abc"[below(3)];
    *at++ = left > 1 ? '/' : 0;
  }
  return text;
}

static off_t size(void) { return (off_t[]){0, 1, 100, 4095, 4096, 4097, 10000, 69999}[below(8)]; }
static mode_t mode(void) { return (mode_t[]){0600, 0644, 0755, 0777, 0, 0444}[below(6)]; }

static unsigned long long hashOf(const char *text, ssize_t length) {
  unsigned long long hash = 14695981039346656037ull;
  for (ssize_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)text[i]) * 1099511628211ull;
  return hash >> 4;
}

// What the result of a call is: a number, or the name of its errno.
static void show(const char *what, const char *path, long long result) {
  if (result < 0) printf("%s %s: %s\n", what, path, strerrorname_np(errno));
  else printf("%s %s: %lld\n", what, path, result);
}

static void list(const char *path) {
  struct dirent **names;
  int count = scandir(path, &names, NULL, alphasort);
  if (count < 0) return show("list", path, -1);
  printf("list %s:", path);
  for (int i = 0; i < count; i++) {
    printf(" %s %d", names[i]->d_name, names[i]->d_name[0] == '.' ? 0 : names[i]->d_type);
    free(names[i]);
  }
  free(names);
  puts("");
}

static void stats(const char *path) {
  struct stat st;
  if (lstat(path, &st) < 0) return show("stat", path, -1);
  // A moment of the run is no result: only times that were set are told, which are of 2001.
  long long at = st.st_atim.tv_sec < 1100000000 ? st.st_atim.tv_sec * 1000000000 + st.st_atim.tv_nsec : 0;
  long long mt = st.st_mtim.tv_sec < 1100000000 ? st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec : 0;
  if (S_ISDIR(st.st_mode)) st.st_size = 0;
  else at = st.st_mode & 0100000 ? 0 : at; // who reads moves a file's, at most once a day
  printf("stat %s: %o %d %d:%d %lld %lld %lld\n", path, st.st_mode, (int)st.st_nlink, st.st_uid, st.st_gid,
         (long long)st.st_size, at, mt);
}

static void content(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return show("read", path, -1);
  ssize_t length = read(fd, bytes, sizeof bytes);
  if (length < 0) show("read", path, -1);
  else printf("read %s: %zd %llx\n", path, length, hashOf(bytes, length));
  close(fd);
}

static void opens(const char *path) {
  int flags[] = {O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND,
                 O_RDWR | O_CREAT | O_APPEND, O_RDWR | O_NOFOLLOW, O_RDONLY | O_DIRECTORY};
  int which = (int)below(7), slot = (int)below(HELD);
  int fd = open(path, flags[which], mode());
  printf("%d ", which);
  show("open", path, fd < 0 ? -1 : 0);
  if (fd < 0) return;
  if (held[slot] >= 0) close(held[slot]);
  held[slot] = fd;
}

// What is done by an FD that is held, whatever became of its name.
static void uses(int fd) {
  if (fd < 0) return;
  off_t at = size();
  size_t length = (size_t)below(5000);
  memset(bytes, 'A' + (int)below(26), length);
  struct stat st;
  struct timespec times[2] = {{1000000000 + below(1000), below(1000000000)}, {1000000000 + below(1000), below(1000000000)}};
  switch (below(9)) {
    case 0: return show("pwrite", "", pwrite(fd, bytes, length, at));
    case 1: return show("write", "", write(fd, bytes, length));
    case 2: return show("ftruncate", "", ftruncate(fd, at));
    case 3: return show("fallocate", "", fallocate(fd, 0, at, 1 + (off_t)length));
    case 4: return show("fchmod", "", fchmod(fd, mode()));
    case 5: return show("fsync", "", fsync(fd));
    case 6: return show("futimens", "", futimens(fd, times));
    case 7: return show("fstat", "", fstat(fd, &st) < 0 ? -1 : S_ISDIR(st.st_mode) ? 0 : (long long)st.st_size);
    default: {
      ssize_t got = pread(fd, bytes, sizeof bytes, at);
      return show("pread", "", got < 0 ? -1 : (long long)hashOf(bytes, got));
    }
  }
}

static void maps(const char *path) {
  int fd = open(path, O_RDWR);
  struct stat st;
  if (fd < 0) return show("map", path, -1);
  if (fstat(fd, &st) == 0 && st.st_size > 0) {
    char *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) {
      map[below((uint32_t)st.st_size)] = 'm';
      printf("map %s: %llx\n", path, hashOf(map, st.st_size));
      munmap(map, (size_t)st.st_size);
    } else show("map", path, -1);
  }
  close(fd);
}

static void attributes(const char *path) {
  const char *name = below(2) ? "user.one" : "user.two";
  size_t length = below(200);
  memset(bytes, 'x', length);
  ssize_t got;
  switch (below(4)) {
    case 0: return show("setxattr", path, setxattr(path, name, bytes, length, (int)below(3)));
    case 1: return show("getxattr", path, getxattr(path, name, bytes, sizeof bytes));
    case 2: return show("removexattr", path, removexattr(path, name));
    default: got = listxattr(path, bytes, sizeof bytes);
      return show("listxattr", path, got);
  }
}

// Which of two reasons against it is told first differs: a directory that is no file, or not empty.
static void renames(const char *from, const char *to) {
  int failed = rename(from, to);
  if (failed < 0 && errno == EISDIR) errno = ENOTEMPTY;
  printf("%s ", to);
  show("rename", from, failed);
}

// tmpfs alone leaves the times of an empty file that is cut to nothing by its name (shmem_setattr); ext4 sets them, as ftruncate does.
static void truncates(const char *path, off_t to) {
  struct stat st;
  if (to > 0 || stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 0) show("truncate", path, truncate(path, to));
}

static void step(void) {
  const char *one = path(), *other;
  struct timespec times[2] = {{1000000000 + below(1000), below(1000000000)}, {1000000000, UTIME_OMIT}};
  static char target[64];
  ssize_t got;
  switch (below(22)) {
    case 0: case 1: case 2: return opens(one);
    case 3: case 4: case 5: return uses(held[below(HELD)]);
    case 6: case 7: return show("mkdir", one, mkdir(one, mode() | 0700));
    case 8: case 9: return renames(one, path());
    case 10: other = path(), printf("%s ", other);
      return show("link", one, link(one, other));
    case 11: other = path(), printf("%s ", other);
      return show("symlink", one, symlink(other, one));
    case 12: case 13: return show("unlink", one, unlink(one));
    case 14: return show("rmdir", one, rmdir(one));
    case 15: return truncates(one, size());
    case 16: return show("chmod", one, chmod(one, mode() | 0100));
    case 17: return show("chown", one, lchown(one, below(3), below(3)));
    case 18: return show("utimes", one, utimensat(AT_FDCWD, one, times, below(2) ? AT_SYMLINK_NOFOLLOW : 0));
    case 19: got = readlink(one, target, sizeof target);
      return show("readlink", one, got);
    case 20: return below(2) ? maps(one) : attributes(one);
    default: return below(3) == 0 ? list(one) : below(2) ? stats(one) : content(one);
  }
}

// Tells of all that is left, in the order of names, and removes it. Works in each directory: paths may be too long.
static void leave(const char *name) {
  struct dirent **names;
  struct stat st = {0};
  stats(name);
  if (lstat(name, &st) < 0 || !S_ISDIR(st.st_mode)) {
    if (S_ISREG(st.st_mode)) content(name);
    if (unlink(name) < 0) show("unlink", name, -1);
    return;
  }
  int fd = open(name, O_RDONLY | O_DIRECTORY);
  int count = fd < 0 || fchdir(fd) < 0 ? -1 : scandir(".", &names, NULL, alphasort);
  if (count < 0) show("leave", name, -1);
  for (int i = 0; i < count; i++) {
    if (names[i]->d_name[0] != '.') leave(names[i]->d_name);
    free(names[i]);
  }
  if (count >= 0) free(names);
  close(fd);
  if (chdir("..") < 0 || rmdir(name) < 0) show("rmdir", name, -1);
}

int main(int argc, char **argv) {
  if (argc != 4 || chdir(argv[1]) < 0 || mkdir("random", 0755) < 0 || chdir("random") < 0)
    return fprintf(stderr, "usage: random DIR SEED COUNT\n"), 2;
  umask(0);
  state = strtoull(argv[2], NULL, 10);
  for (int i = 0; i < HELD; i++) held[i] = -1;
  for (long left = atol(argv[3]); left > 0; left--) step();
  for (int i = 0; i < HELD; i++) close(held[i]);
  if (chdir("..") < 0) return 1;
  leave("random");
  return 0;
}
