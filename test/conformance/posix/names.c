// open, mkdir, rmdir, unlink, link, symlink, readlink, getdents. man pages of section 2; POSIX.1-2017.
#include "posix.h"

static int opened(const char *path, int flags, mode_t mode) {
  int fd = open(path, flags, mode);
  if (fd >= 0) close(fd);
  return fd < 0 ? -1 : 0;
}

static void checkOpen(const char *longest, const char *tooLong) {
  put("f", "content", 0644);
  mkdir("d", 0755);
  symlink("f", "to-f"), symlink("d", "to-d"), symlink("nowhere", "dangling"), symlink("loop", "loop");
  IS("open O_CREAT|O_EXCL of a file", opened("f", O_CREAT | O_EXCL | O_RDWR, 0600));
  IS("open O_CREAT|O_EXCL of a symlink", opened("dangling", O_CREAT | O_EXCL | O_RDWR, 0600));
  IS("open O_CREAT of a directory", opened("d", O_CREAT | O_RDWR, 0600));
  IS("open O_CREAT|O_DIRECTORY", opened("d2", O_CREAT | O_DIRECTORY | O_RDONLY, 0600));
  IS("open O_WRONLY of a directory", opened("d", O_WRONLY, 0));
  IS("open O_RDONLY of a directory", opened("d", O_RDONLY, 0));
  IS("open O_TRUNC of a directory", opened("d", O_RDONLY | O_TRUNC, 0));
  IS("open O_DIRECTORY of a file", opened("f", O_DIRECTORY, 0));
  IS("open O_DIRECTORY of a symlink to a directory", opened("to-d", O_DIRECTORY, 0));
  IS("open O_NOFOLLOW of a symlink", opened("to-f", O_NOFOLLOW, 0));
  IS("open O_PATH|O_NOFOLLOW of a symlink", opened("to-f", O_PATH | O_NOFOLLOW, 0));
  IS("open of a loop", opened("loop", O_RDONLY, 0));
  IS("open of nothing", opened("nothing", O_RDONLY, 0));
  IS("open of an empty path", opened("", O_RDONLY, 0));
  IS("open beneath a file", opened("f/x", O_CREAT | O_RDWR, 0600));
  IS("open beneath nothing", opened("nothing/x", O_CREAT | O_RDWR, 0600));
  IS("open of a file with a slash", opened("f/", O_RDONLY, 0));
  IS("open O_CREAT with a slash", opened("new/", O_CREAT | O_RDWR, 0600));
  IS("open O_CREAT of 255 bytes", opened(longest, O_CREAT | O_RDWR, 0600));
  IS("open O_CREAT of 256 bytes", opened(tooLong, O_CREAT | O_RDWR, 0600));
  IS("open O_RDONLY of 256 bytes", opened(tooLong, O_RDONLY, 0));
  IS("stat of 255 bytes", modeOf(longest));
  IS("open O_CREAT of a dangling symlink", opened("dangling", O_CREAT | O_RDWR, 0640));
  IS("  makes its target", modeOf("nowhere"));
  IS("open O_CREAT mode 06777", opened("all", O_CREAT | O_RDWR, 06777));
  IS("  less the umask", modeOf("all"));
  IS("open O_CREAT mode 0", opened("none", O_CREAT | O_RDWR, 0));
  IS("  is 0", modeOf("none"));
  IS("open O_TRUNC", opened("f", O_WRONLY | O_TRUNC, 0));
  IS("  is empty", sizeOf("f"));
  put("f", "again", 04755);
  IS("open O_TRUNC|O_RDONLY", opened("f", O_RDONLY | O_TRUNC, 0));
  IS("  is empty", sizeOf("f"));
  IS("open access mode 3", opened("f", 3, 0));
  IS("open O_TMPFILE", opened("d", O_TMPFILE | O_RDWR, 0600));
  IS("open non-UTF-8", opened("\xff\xfe\x01", O_CREAT | O_RDWR, 0600));
  IS("  is there", modeOf("\xff\xfe\x01"));
}

static void checkMkdir(const char *longest, const char *tooLong) {
  IS("mkdir", mkdir("m", 0777));
  IS("  less the umask", modeOf("m"));
  IS("  its links", linksOf("m"));
  IS("mkdir again", mkdir("m", 0777));
  IS("mkdir over a file", mkdir("f", 0777));
  IS("mkdir over a dangling symlink", (unlink("dangling"), symlink("void", "dangling"), mkdir("dangling", 0777)));
  IS("mkdir beneath nothing", mkdir("nothing/x", 0777));
  IS("mkdir beneath a file", mkdir("f/x", 0777));
  IS("mkdir of .", mkdir(".", 0777));
  IS("mkdir of m/..", mkdir("m/..", 0777));
  IS("mkdir of an empty path", mkdir("", 0777));
  IS("mkdir of 256 bytes", mkdir(tooLong, 0777));
  IS("mkdir with a slash", mkdir("m/in/", 0777));
  IS("  links of its parent", linksOf("m"));
  IS("mkdir of 255 bytes", chdir("m") < 0 ? -1 : mkdir(longest, 0700));
  chdir("..");
  IS("mkdir mode 01777", (umask(0), mkdir("sticky", 01777)));
  IS("  mode", modeOf("sticky"));
  IS("mkdir mode 07777", mkdir("every", 07777));
  IS("  mode", modeOf("every"));
  umask(022);
  IS("rmdir of a directory with names", rmdir("m"));
  IS("rmdir of a file", rmdir("f"));
  IS("rmdir of a symlink", rmdir("to-d"));
  IS("rmdir of nothing", rmdir("nothing"));
  IS("rmdir of m/.", rmdir("m/."));
  IS("rmdir of m/..", rmdir("m/.."));
  IS("rmdir beneath a file", rmdir("f/x"));
  IS("rmdir with a slash", rmdir("m/in/"));
  IS("  links of its parent", linksOf("m"));
  int fd = open("sticky", O_RDONLY | O_DIRECTORY);
  IS("rmdir of an open directory", rmdir("sticky"));
  struct stat st = {.st_nlink = 99};
  IS("  fstat of it", fstat(fd, &st));
  IS("  its links", st.st_nlink);
  OPENS("  openat O_CREAT in it", openat(fd, "x", O_CREAT | O_RDWR, 0600));
  IS("  mkdirat in it", mkdirat(fd, "x", 0700));
  IS("  symlinkat in it", symlinkat("y", fd, "x"));
  IS("  linkat in it", linkat(AT_FDCWD, "f", fd, "x", 0));
  IS("  renameat into it", renameat(AT_FDCWD, "f", fd, "x"));
  IS("  fchmod of it", fchmod(fd, 0700));
  close(fd);
}

static void checkUnlink(const char *tooLong) {
  put("u", "unlinked", 0644);
  int fd = open("u", O_RDWR);
  IS("unlink of an open file", unlink("u"));
  IS("  again", unlink("u"));
  struct stat st = {.st_nlink = 99};
  char text[16] = "";
  IS("  fstat", fstat(fd, &st));
  IS("  its links", st.st_nlink);
  IS("  its size", st.st_size);
  IS("  pread", pread(fd, text, 8, 0));
  IS("  the same bytes", memcmp(text, "unlinked", 8));
  IS("  pwrite", pwrite(fd, "more", 4, 8));
  IS("  ftruncate", ftruncate(fd, 10));
  IS("  fchmod", fchmod(fd, 0600));
  IS("  fchown", fchown(fd, 3, 4));
  IS("  futimens", futimens(fd, NULL));
  IS("  fallocate", fallocate(fd, 0, 0, 100));
  fstat(fd, &st);
  IS("  its size after that", st.st_size);
  IS("  its mode", st.st_mode & 07777);
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  IS("  linkat of it", linkat(AT_FDCWD, link, AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
  int again = open(link, O_RDWR);
  IS("  open of it by /proc/self/fd", again < 0 ? -1 : 0);
  if (again >= 0) close(again);
  close(fd);
  IS("unlink of a directory", unlink("d"));
  IS("unlink of a directory, AT_REMOVEDIR of a file", unlinkat(AT_FDCWD, "f", AT_REMOVEDIR));
  IS("unlinkat bad flags", unlinkat(AT_FDCWD, "f", 0x8000));
  IS("unlink with a slash", unlink("f/"));
  IS("unlink beneath a file", unlink("f/x"));
  IS("unlink of a symlink", unlink("to-f"));
  IS("  the file stays", modeOf("f"));
  IS("unlink of .", unlink("."));
  IS("unlink of 256 bytes", unlink(tooLong));
}

static void checkLink(const char *tooLong) {
  put("l", "linked", 0644);
  IS("link", link("l", "l2"));
  IS("  links", linksOf("l"));
  IS("  of the other", linksOf("l2"));
  struct stat a, b;
  IS("  one inode", stat("l", &a) == 0 && stat("l2", &b) == 0 && a.st_ino == b.st_ino);
  put("l2", "by the other", 0644);
  IS("  one content", sizeOf("l"));
  chmod("l", 0600);
  IS("  one mode", modeOf("l2"));
  unlink("l");
  IS("  links after unlink", linksOf("l2"));
  IS("link over a file", link("l2", "f"));
  IS("link over a directory", link("l2", "d"));
  IS("link of a directory", link("d", "d3"));
  IS("link of nothing", link("nothing", "x"));
  IS("link to beneath a file", link("l2", "f/x"));
  IS("link of 256 bytes", link("l2", tooLong));
  IS("link with a slash", link("l2", "x/"));
  symlink("l2", "s");
  IS("link of a symlink", link("s", "s2"));
  IS("  is one", readlink("s2", (char[8]){0}, 8));
  IS("linkat AT_SYMLINK_FOLLOW", linkat(AT_FDCWD, "s", AT_FDCWD, "l3", AT_SYMLINK_FOLLOW));
  IS("  links", linksOf("l2"));
  int fd = open("l2", O_RDONLY);
  IS("linkat AT_EMPTY_PATH", linkat(fd, "", AT_FDCWD, "l4", AT_EMPTY_PATH));
  close(fd);
  IS("linkat bad flags", linkat(AT_FDCWD, "l2", AT_FDCWD, "l5", 0x1));
}

static void checkSymlink(const char *tooLong) {
  static char text[4097];
  memset(text, 'x', sizeof text);
  text[4096] = 0;
  IS("symlink to 4096 bytes", symlink(text, "long"));
  text[4095] = 0;
  IS("symlink to 4095 bytes", symlink(text, "long"));
  IS("  its size", sizeOf("long"));
  IS("  readlink", readlink("long", text, sizeof text));
  IS("  readlink of 10", readlink("long", text, 10));
  IS("  readlink of 0", syscall(SYS_readlink, "long", text, 0));
  IS("symlink to nothing", symlink("", "empty"));
  IS("symlink over a file", symlink("x", "f"));
  IS("symlink over a symlink", symlink("x", "long"));
  IS("symlink beneath nothing", symlink("x", "nothing/x"));
  IS("symlink of 256 bytes", symlink("x", tooLong));
  IS("  its mode", modeOf("long"));
  IS("readlink of a file", readlink("f", text, 10));
  IS("readlink of a directory", readlink("d", text, 10));
  IS("readlink of nothing", readlink("nothing", text, 10));
  symlink("/", "root"), symlink("..", "up"), symlink("d/", "slashed");
  IS("stat through a symlink to /", access("root/proc", F_OK));
  IS("stat through a symlink to ..", access("up/checks-names/d", F_OK));
  IS("open O_CREAT through a symlink with a slash", opened("slashed/x", O_CREAT | O_RDWR, 0600));
  IS("unlink through it", unlink("slashed/x"));
}

static long long entries(DIR *dir) {
  long long count = 0;
  while (readdir(dir) != NULL) count++;
  return count;
}

static void checkDirectory(void) {
  mkdir("many", 0755);
  char name[64];
  for (int i = 0; i < 700; i++) {
    snprintf(name, sizeof name, "many/file-%d", i);
    close(open(name, O_CREAT | O_WRONLY, 0644));
  }
  DIR *dir = opendir("many");
  IS("readdir", entries(dir));
  rewinddir(dir);
  IS("  rewound", entries(dir));
  close(open("many/late", O_CREAT | O_WRONLY, 0644));
  rewinddir(dir);
  IS("  with a new name", entries(dir));
  rewinddir(dir);
  long middle = 0;
  for (int i = 0; i < 300; i++) readdir(dir), middle = telldir(dir);
  long long rest = entries(dir);
  seekdir(dir, middle);
  IS("  seekdir goes back", entries(dir) == rest);
  rewinddir(dir);
  struct dirent *entry;
  int removed = 0, types = 0;
  while ((entry = readdir(dir)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    removed += unlinkat(dirfd(dir), entry->d_name, 0) == 0;
    types += entry->d_type == DT_REG;
  }
  IS("  removing what is read", removed);
  IS("  with types", types);
  closedir(dir);
  IS("  rmdir", rmdir("many"));
  IS("getdents of a file", syscall(SYS_getdents64, open("f", O_RDONLY), name, sizeof name));
}

void checkNames(void) {
  char longest[256], tooLong[257];
  memset(longest, 'n', 255), memset(tooLong, 'n', 256);
  longest[255] = tooLong[256] = 0;
  checkOpen(longest, tooLong);
  checkMkdir(longest, tooLong);
  checkUnlink(tooLong);
  checkLink(tooLong);
  checkSymlink(tooLong);
  checkDirectory();
}
