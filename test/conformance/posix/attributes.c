// Times, extended attributes, statfs. man utimensat(2), inode(7), xattr(7).
#include "posix.h"

static struct stat at(const char *path) {
  struct stat st = {0};
  lstat(path, &st);
  return st;
}

static bool later(struct timespec a, struct timespec b) {
  return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

// Which times of a path an act moves: 1 atime, 2 mtime, 4 ctime.
#define MOVES(name, path, act)                                                                               \
  do {                                                                                                       \
    struct stat before = at(path);                                                                           \
    tick();                                                                                                  \
    act;                                                                                                     \
    struct stat now = at(path);                                                                              \
    IS(name, later(now.st_atim, before.st_atim) + 2 * later(now.st_mtim, before.st_mtim) +                    \
                 4 * later(now.st_ctim, before.st_ctim));                                                    \
  } while (0)

static void checkMoved(void) {
  put("t", "times", 0644), mkdir("d", 0755), mkdir("e", 0755), put("d/x", "", 0644), symlink("t", "s");
  int fd = open("t", O_RDWR);
  MOVES("times: write", "t", pwrite(fd, "x", 1, 0));
  MOVES("times: ftruncate", "t", ftruncate(fd, 3));
  MOVES("times: truncate", "t", truncate("t", 3));
  MOVES("times: open O_TRUNC", "t", close(open("t", O_WRONLY | O_TRUNC)));
  MOVES("times: chmod", "t", chmod("t", 0600));
  MOVES("times: chown", "t", chown("t", 0, 0));
  MOVES("times: link", "t", link("t", "t2"));
  MOVES("times: unlink of a link", "t", unlink("t2"));
  MOVES("times: rename", "t", rename("t", "t2"));
  rename("t2", "t");
  MOVES("times: setxattr", "t", setxattr("t", "user.a", "1", 1, 0));
  MOVES("times: fallocate", "t", fallocate(fd, 0, 0, 10000));
  MOVES("times of a directory: create", "d", put("d/y", "", 0644));
  MOVES("times of a directory: unlink", "d", unlink("d/y"));
  MOVES("times of a directory: mkdir", "d", mkdir("d/z", 0755));
  MOVES("times of a directory: rmdir", "d", rmdir("d/z"));
  MOVES("times of a directory: symlink", "d", symlink("x", "d/s"));
  MOVES("times of a directory: link", "d", link("t", "d/l"));
  MOVES("times of a directory: rename in it", "d", rename("d/x", "d/w"));
  MOVES("times of a directory: rename out of it", "d", rename("d/w", "e/w"));
  MOVES("times of a directory: rename into it", "d", rename("e/w", "d/w"));
  MOVES("times of a directory: write in it", "d", put("d/w", "more", 0644));
  MOVES("times of a symlink: chmod of its target", "s", chmod("s", 0644));
  close(fd);
}

static void setTimes(const char *name, const char *path, struct timespec a, struct timespec m, int flags) {
  IS(name, utimensat(AT_FDCWD, path, (struct timespec[]){a, m}, flags));
  struct stat st = at(path);
  if (a.tv_nsec < UTIME_OMIT) {
    IS("  atime", st.st_atim.tv_sec);
    IS("  its ns", st.st_atim.tv_nsec);
  }
  if (m.tv_nsec < UTIME_OMIT) {
    IS("  mtime", st.st_mtim.tv_sec);
    IS("  its ns", st.st_mtim.tv_nsec);
  }
}

static void checkUtimes(void) {
  struct timespec omit = {0, UTIME_OMIT}, now = {0, UTIME_NOW}, one = {1, 123456789}, bad = {1, 1000000000};
  setTimes("utimes to the ns", "t", one, (struct timespec){1000000000, 999999999}, 0);
  setTimes("utimes of atime alone", "t", (struct timespec){5, 5}, omit, 0);
  IS("  mtime stays", at("t").st_mtim.tv_nsec);
  setTimes("utimes of mtime alone", "t", omit, (struct timespec){7, 7}, 0);
  IS("  atime stays", at("t").st_atim.tv_nsec);
  setTimes("utimes of neither", "t", omit, omit, 0);
  setTimes("utimes before 1970", "t", (struct timespec){-5, 5}, (struct timespec){-1000, 0}, 0);
  setTimes("utimes of 2100", "t", (struct timespec){4102444800, 1}, (struct timespec){4102444800, 2}, 0);
  setTimes("utimes of 2400", "t", (struct timespec){13569465600, 1}, (struct timespec){13569465600, 2}, 0);
  setTimes("utimes ns of 10^9", "t", bad, omit, 0);
  setTimes("utimes ns of 10^9, mtime", "t", omit, bad, 0);
  setTimes("utimes now and one", "t", now, one, 0);
  IS("  atime is now", llabs(at("t").st_atim.tv_sec - time(NULL)) < 100);
  setTimes("utimes NULL", "t", now, now, 0);
  IS("  mtime is now", llabs(at("t").st_mtim.tv_sec - time(NULL)) < 100);
  setTimes("utimes of a symlink", "s", one, one, AT_SYMLINK_NOFOLLOW);
  setTimes("utimes of a directory", "d", one, one, 0);
  IS("utimes of nothing", utimensat(AT_FDCWD, "nothing", NULL, 0));
  IS("utimes bad flags", utimensat(AT_FDCWD, "t", NULL, 0x8000));
  int fd = open("t", O_RDONLY);
  IS("futimens by O_RDONLY", futimens(fd, (struct timespec[]){one, one}));
  IS("  mtime", at("t").st_mtim.tv_nsec);
  close(fd);
}

static void checkXattrs(void) {
  static char value[65537], name[300] = "user.";
  memset(value, 'v', sizeof value);
  put("x", "", 0644), mkdir("xd", 0755), symlink("x", "xs"), mkfifo("xp", 0644);
  IS("setxattr", setxattr("x", "user.a", "value", 5, 0));
  IS("getxattr", getxattr("x", "user.a", value, 100));
  IS("getxattr of 0 bytes", getxattr("x", "user.a", value, 0));
  IS("getxattr of too few bytes", getxattr("x", "user.a", value, 2));
  IS("getxattr of none", getxattr("x", "user.b", value, 100));
  IS("setxattr XATTR_CREATE", setxattr("x", "user.a", "2", 1, XATTR_CREATE));
  IS("setxattr XATTR_REPLACE", setxattr("x", "user.a", "22", 2, XATTR_REPLACE));
  IS("  length", getxattr("x", "user.a", value, 100));
  IS("setxattr XATTR_REPLACE of none", setxattr("x", "user.b", "2", 1, XATTR_REPLACE));
  IS("setxattr bad flags", setxattr("x", "user.b", "2", 1, 8));
  IS("setxattr of 0 bytes", setxattr("x", "user.empty", "", 0, 0));
  IS("  length", getxattr("x", "user.empty", value, 100));
  IS("setxattr of 65537 bytes", setxattr("x", "user.b", value, 65537, 0));
  IS("setxattr user.", setxattr("x", "user.", "1", 1, 0));
  IS("setxattr without a name", setxattr("x", "", "1", 1, 0));
  IS("setxattr without a namespace", setxattr("x", "plain", "1", 1, 0));
  IS("setxattr of an unknown namespace", setxattr("x", "other.a", "1", 1, 0));
  memset(name + 5, 'n', 250);
  IS("setxattr, name of 255 bytes", setxattr("x", name, "1", 1, 0));
  name[255] = 'n';
  IS("setxattr, name of 256 bytes", setxattr("x", name, "1", 1, 0));
  IS("getxattr, name of 256 bytes", getxattr("x", name, value, 10));
  IS("listxattr of 0 bytes", listxattr("x", value, 0) > 0);
  IS("listxattr of too few bytes", listxattr("x", value, 3));
  IS("listxattr", listxattr("x", value, 60000));
  IS("removexattr", removexattr("x", "user.a"));
  IS("removexattr again", removexattr("x", "user.a"));
  IS("setxattr of a directory", setxattr("xd", "user.a", "1", 1, 0));
  IS("setxattr of a symlink itself", lsetxattr("xs", "user.a", "1", 1, 0));
  IS("lgetxattr of a symlink itself", lgetxattr("xs", "user.a", value, 10));
  IS("llistxattr of a symlink itself", llistxattr("xs", value, 10));
  IS("setxattr through a symlink", setxattr("xs", "user.a", "1", 1, 0));
  IS("setxattr of a FIFO", setxattr("xp", "user.a", "1", 1, 0));
  IS("setxattr of nothing", setxattr("nothing", "user.a", "1", 1, 0));
  IS("fsetxattr by O_RDONLY", fsetxattr(open("x", O_RDONLY), "user.c", "1", 1, 0));
  IS("fsetxattr by O_PATH", fsetxattr(open("x", O_PATH), "user.c", "1", 1, 0));
  IS("trusted: set", setxattr("x", "trusted.a", "1", 1, 0));
  IS("trusted: get", getxattr("x", "trusted.a", value, 10));
  IS("security: set", setxattr("x", "security.a", "1", 1, 0));
  IS("security: get", getxattr("x", "security.b", value, 10));
  IS("system.posix_acl_access: get", getxattr("x", "system.posix_acl_access", value, 10));
  IS("system.other: set", setxattr("x", "system.other", "1", 1, 0));
}

void checkAttributes(void) {
  checkMoved();
  checkUtimes();
  checkXattrs();
  struct statvfs fs = {0};
  IS("statvfs", statvfs(".", &fs));
  IS("  f_namemax", fs.f_namemax);
  IS("  has blocks", fs.f_blocks > 0 && fs.f_bfree <= fs.f_blocks && fs.f_bavail <= fs.f_bfree);
  IS("  ST_RDONLY", fs.f_flag & ST_RDONLY);
}
