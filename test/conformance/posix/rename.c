// rename, renameat2. man rename(2).
#include "posix.h"

static int rename2(const char *from, const char *to, unsigned flags) {
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static void checkPlain(void) {
  put("a", "a's", 0644), put("b", "of b", 0600);
  mkdir("d", 0755), mkdir("e", 0755), mkdir("full", 0755), put("full/x", "", 0644);
  symlink("a", "to-a"), symlink("nowhere", "dangling");
  int fd = open("a", O_RDWR), old = open("b", O_RDWR);
  IS("rename over a file", rename("a", "b"));
  IS("  is there", sizeOf("b"));
  IS("  is gone", sizeOf("a"));
  IS("  its FD", pwrite(fd, "A", 1, 0));
  IS("  seen by name", sum("b"));
  struct stat st = {.st_nlink = 99};
  IS("  the one replaced", fstat(old, &st));
  IS("  has no links", st.st_nlink);
  IS("  and its bytes", pread(old, (char[8]){0}, 8, 0));
  close(fd), close(old);
  IS("rename to itself", rename("b", "b"));
  link("b", "b2");
  IS("rename to a link of it", rename("b", "b2"));
  IS("  both stay", linksOf("b"));
  IS("rename of nothing", rename("nothing", "x"));
  IS("rename to beneath nothing", rename("b", "nothing/x"));
  IS("rename to beneath a file", rename("b", "b2/x"));
  IS("rename of an empty path", rename("", "x"));
  IS("rename to an empty path", rename("b", ""));
  IS("rename of a file over a directory", rename("b", "d"));
  IS("rename of a directory over a file", rename("d", "b"));
  IS("rename of a directory over an empty one", rename("full", "e"));
  IS("  its names", sizeOf("e/x"));
  IS("rename of a directory over a full one", rename("d", "e"));
  IS("rename of a directory into itself", rename("e", "e/in"));
  IS("rename of a directory deep into itself", (mkdir("e/y", 0755), rename("e", "e/y/z")));
  IS("rename of a directory to its ancestor", rename("e/y", "e"));
  IS("rename of .", rename(".", "x"));
  IS("rename to ..", rename("d", ".."));
  IS("rename of a directory with a slash", rename("d/", "d2/"));
  IS("rename of a file with a slash", rename("b/", "x"));
  IS("rename of a file to a slash", rename("b", "x/"));
  IS("rename of a symlink", rename("to-a", "moved"));
  IS("  is one", readlink("moved", (char[8]){0}, 8));
  IS("rename over a dangling symlink", rename("b", "dangling"));
  IS("  is the file", sizeOf("dangling"));
  IS("  made no target", sizeOf("nowhere"));
  IS("rename of a directory over a symlink", (symlink("d2", "to-d"), rename("e", "to-d")));
  char tooLong[257];
  memset(tooLong, 'n', 256), tooLong[256] = 0;
  IS("rename to 256 bytes", rename("dangling", tooLong));
  IS("rename of 256 bytes", rename(tooLong, "x"));
}

static void checkMoved(void) {
  mkdir("p", 0755), mkdir("p/q", 0755), mkdir("r", 0755), put("p/q/f", "deep", 0644);
  int dir = open("p/q", O_RDONLY | O_DIRECTORY), file = open("p/q/f", O_RDWR);
  IS("rename of a directory into another", rename("p/q", "r/s"));
  IS("  links of the old parent", linksOf("p"));
  IS("  links of the new one", linksOf("r"));
  OPENS("  openat by its FD", openat(dir, "f", O_RDONLY));
  OPENS("  creating by its FD", openat(dir, "g", O_CREAT | O_RDWR, 0644));
  IS("  is at its new place", sizeOf("r/s/g"));
  IS("  pwrite by a file's FD", pwrite(file, "DEEP", 4, 0));
  IS("  is at its new place", sum("r/s/f"));
  IS("  .. of it", fchdir(dir) < 0 ? -1 : access("../s/f", F_OK));
  IS("  ..", chdir("../.."));
  IS("rename of a file out of it", rename("r/s/f", "out"));
  IS("  rename of its parent", rename("r", "p/r"));
  IS("  ftruncate by its FD", ftruncate(file, 2));
  IS("  its size", sizeOf("out"));
  close(dir), close(file);
}

void checkRename(void) {
  checkPlain();
  checkMoved();
  put("x", "x's", 0644), put("y", "of y", 0644), mkdir("xd", 0755), put("xd/in", "in", 0644);
  IS("renameat2 NOREPLACE over a file", rename2("x", "y", RENAME_NOREPLACE));
  IS("renameat2 NOREPLACE to itself", rename2("x", "x", RENAME_NOREPLACE));
  IS("renameat2 NOREPLACE", rename2("x", "z", RENAME_NOREPLACE));
  IS("  is there", sizeOf("z"));
  IS("renameat2 NOREPLACE of nothing", rename2("x", "z2", RENAME_NOREPLACE));
  if (sizeOf("z") < 0) rename("x", "z"); // What follows is of its own, whatever NOREPLACE does.
  IS("renameat2 EXCHANGE", rename2("z", "y", RENAME_EXCHANGE));
  IS("  one", sizeOf("z"));
  IS("  other", sizeOf("y"));
  IS("renameat2 EXCHANGE of a file and a directory", rename2("z", "xd", RENAME_EXCHANGE));
  IS("  in it", sizeOf("z/in"));
  IS("renameat2 EXCHANGE with nothing", rename2("z", "nothing", RENAME_EXCHANGE));
  IS("renameat2 EXCHANGE of a directory with one in it", (mkdir("zd", 0755), mkdir("zd/deep", 0755), rename2("zd", "zd/deep", RENAME_EXCHANGE)));
  IS("renameat2 NOREPLACE|EXCHANGE", rename2("z", "y", RENAME_NOREPLACE | RENAME_EXCHANGE));
  IS("renameat2 WHITEOUT|EXCHANGE", rename2("z", "y", RENAME_WHITEOUT | RENAME_EXCHANGE));
  IS("renameat2 WHITEOUT", rename2("y", "w", RENAME_WHITEOUT) < 0 ? -1 : 0);
  IS("renameat2 unknown flag", rename2("y", "w", 0x40));
}
