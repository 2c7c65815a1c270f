// chmod, chown, permissions, sticky and set-group-id directories, set-id bits. man chmod(2), chown(2), inode(7).
#include "posix.h"

static void userModes(void) {
  IS("user: chmod of root's file", chmod("roots", 0777));
  IS("user: chown of root's file", chown("roots", 1000, 1000));
  IS("user: chown of the own file to root", chown("own", 0, -1));
  IS("user: chgrp of the own file to a group of others", chown("own", -1, 7));
  IS("user: chgrp to the own group", chown("own", -1, 1000));
  IS("user: chown -1 -1", chown("own", -1, -1));
  chmod("own", 06755);
  IS("user: chmod 06755", modeOf("own"));
  chown("own", 1000, 1000);
  IS("user: chown clears set-id bits", modeOf("own"));
  chmod("own", 06755);
  int fd = open("own", O_RDWR);
  IS("user: write", write(fd, "x", 1));
  IS("user: write clears set-id bits", modeOf("own"));
  fchmod(fd, 06755);
  IS("user: ftruncate", ftruncate(fd, 3));
  IS("user: ftruncate clears set-id bits", modeOf("own"));
  close(fd);
  chmod("own", 06744);
  IS("user: truncate", truncate("own", 2));
  IS("user: truncate clears set-id bits", modeOf("own"));
  IS("user: chmod 02777 of a file of another group", chmod("foreign", 02777));
  IS("  clears the set-group-id bit", modeOf("foreign"));
  OPENS("user: open of a file of mode 0, its own", open("mode0", O_RDONLY));
  OPENS("user: open O_TRUNC of root's file", open("roots", O_RDONLY | O_TRUNC));
  OPENS("user: open O_WRONLY of root's file", open("roots", O_WRONLY));
  OPENS("user: open O_RDONLY of root's file", open("roots", O_RDONLY));
  OPENS("user: create in root's directory", open("closed/x", O_CREAT | O_RDWR, 0644));
  IS("user: stat in a directory without x", sizeOf("blind/x"));
  IS("user: readdir of one without x", opendir("blind") != NULL);
  IS("user: readdir of one without r", (long long)(intptr_t)opendir("unread") != 0 ? 1 : -1);
  IS("user: stat in one without r", sizeOf("unread/x"));
  IS("user: mkdir in root's directory", mkdir("closed/y", 0755));
  IS("user: unlink in root's directory", unlink("closed/f"));
  IS("user: link of root's file", link("closed/f", "linked"));
  IS("user: utimes of root's file", utimensat(AT_FDCWD, "roots", NULL, 0));
  struct timespec times[2] = {{1, 1}, {2, 2}};
  IS("user: utimes of root's file to a time", utimensat(AT_FDCWD, "roots", times, 0));
  IS("user: utimes of a file that all may write", utimensat(AT_FDCWD, "open", NULL, 0));
  IS("user: the same to a time", utimensat(AT_FDCWD, "open", times, 0));
  IS("user: utimes of the own read-only file", (chmod("own", 0444), utimensat(AT_FDCWD, "own", times, 0)));
  OPENS("user: write of the own read-only file", open("own", O_WRONLY));
  OPENS("user: create and write at mode 0444", open("fresh", O_CREAT | O_RDWR, 0444));
  IS("  its owner", ownerOf("fresh"));
  IS("user: truncate of root's file", truncate("roots", 0));
  IS("user: access W_OK", access("roots", W_OK));
  IS("user: access X_OK", access("roots", X_OK));
  IS("user: rename of root's file in a directory of its own", rename("roots", "roots2"));
  IS("  back", rename("roots2", "roots"));
  IS("user: setxattr of root's file", setxattr("roots", "user.x", "1", 1, 0));
}

static void userSticky(void) {
  IS("sticky: unlink of another's file", unlink("sticky/roots"));
  IS("sticky: rename of another's file", rename("sticky/roots", "sticky/x"));
  IS("sticky: rename over another's file", (put("sticky/own", "o", 0644), rename("sticky/own", "sticky/roots")));
  IS("sticky: rmdir of another's directory", rmdir("sticky/dir"));
  IS("sticky: exchange with another's file",
     syscall(SYS_renameat2, AT_FDCWD, "sticky/own", AT_FDCWD, "sticky/roots", RENAME_EXCHANGE));
  IS("sticky: rename of the own file", rename("sticky/own", "sticky/mine"));
  IS("sticky: unlink of the own file", unlink("sticky/mine"));
  IS("sticky: link beside it", link("sticky/open", "sticky/link"));
}

static void userGroup(void) {
  OPENS("set-group-id directory: create", open("grouped/f", O_CREAT | O_RDWR, 0666));
  IS("  its owner", ownerOf("grouped/f"));
  IS("  its mode", modeOf("grouped/f"));
  OPENS("set-group-id directory: create 02775", open("grouped/g", O_CREAT | O_RDWR, 02775));
  IS("  its mode", modeOf("grouped/g"));
  IS("set-group-id directory: mkdir", mkdir("grouped/d", 0777));
  IS("  its owner", ownerOf("grouped/d"));
  IS("  its mode", modeOf("grouped/d"));
  IS("set-group-id directory: symlink", symlink("x", "grouped/s"));
  IS("  its owner", ownerOf("grouped/s"));
  IS("set-group-id directory: mknod", mknod("grouped/n", S_IFREG | 0644, 0));
  IS("  its owner", ownerOf("grouped/n"));
  IS("set-group-id directory: mkfifo", mkfifo("grouped/p", 0644));
  IS("  its owner", ownerOf("grouped/p"));
}

static void rootModes(void) {
  put("r", "r", 0644);
  IS("chmod 07777", chmod("r", 07777));
  IS("  mode", modeOf("r"));
  IS("chmod with type bits", chmod("r", S_IFDIR | 0640));
  IS("  mode", modeOf("r"));
  symlink("r", "to-r"), symlink("nowhere", "dangling");
  IS("chmod through a symlink", chmod("to-r", 0600));
  IS("  of its target", modeOf("r"));
  IS("chmod of a dangling symlink", chmod("dangling", 0600));
  IS("chmod of nothing", chmod("nothing", 0600));
  IS("chmod beneath a file", chmod("r/x", 0600));
  IS("chmod of an O_PATH FD", fchmod(open("r", O_PATH), 0600));
  IS("chown", chown("r", 3, 4));
  IS("  owner", ownerOf("r"));
  IS("chown -1", chown("r", -1, 5));
  IS("  owner", ownerOf("r"));
  IS("chown through a symlink", chown("to-r", 6, 7));
  IS("  of its target", ownerOf("r"));
  IS("lchown", lchown("to-r", 8, 9));
  IS("  of the symlink", ownerOf("to-r"));
  IS("  not of its target", ownerOf("r"));
  IS("fchownat AT_EMPTY_PATH", fchownat(open("r", O_PATH), "", 1, 2, AT_EMPTY_PATH));
  IS("  owner", ownerOf("r"));
  IS("chown of nothing", chown("nothing", 0, 0));
  IS("fchownat bad flags", fchownat(AT_FDCWD, "r", 0, 0, 0x8000));
  chmod("r", 06755);
  chown("r", 0, 0);
  IS("root: chown clears set-id bits", modeOf("r"));
  chmod("r", 06755);
  chown("r", -1, -1);
  IS("root: chown -1 -1 and set-id bits", modeOf("r"));
  chmod("r", 02644);
  chown("r", 0, 0);
  IS("root: chown and the set-group-id bit without x", modeOf("r"));
  chmod("r", 06755);
  int fd = open("r", O_RDWR);
  write(fd, "x", 1);
  IS("root: write and set-id bits", modeOf("r"));
  ftruncate(fd, 0);
  IS("root: ftruncate and set-id bits", modeOf("r"));
  close(fd);
  mkdir("rd", 0755), chmod("rd", 07755), chown("rd", 3, 3);
  IS("root: chown of a directory with all bits", modeOf("rd"));
  IS("root: access X_OK without any x", (chmod("r", 0644), access("r", X_OK)));
  IS("root: access W_OK of mode 0", (chmod("r", 0), access("r", W_OK)));
  OPENS("root: open of mode 0", open("r", O_RDWR));
  mkdir("rg", 0755), chown("rg", 0, 77), chmod("rg", 02775);
  IS("root: mkdir in a set-group-id directory", mkdir("rg/d", 0700));
  IS("  its owner", ownerOf("rg/d"));
  IS("  its mode", modeOf("rg/d"));
  OPENS("root: create 02770 in it", open("rg/f", O_CREAT | O_RDWR, 02770));
  IS("  its owner", ownerOf("rg/f"));
  IS("  its mode", modeOf("rg/f"));
}

void checkOwners(void) {
  rootModes();
  chmod(".", 0777);
  put("roots", "root's", 0644), put("own", "own", 0644), put("foreign", "", 0644), put("mode0", "", 0), put("open", "", 0666);
  chown("own", 1000, 1000), chown("foreign", 1000, 7), chown("mode0", 1000, 1000);
  mkdir("closed", 0755), put("closed/f", "", 0644), mkdir("blind", 0744), put("blind/x", "", 0644);
  mkdir("unread", 0711), put("unread/x", "", 0644);
  asUser(userModes);
  mkdir("sticky", 0777), chmod("sticky", 01777), put("sticky/roots", "", 0644), put("sticky/open", "", 0666);
  mkdir("sticky/dir", 0777);
  asUser(userSticky);
  mkdir("grouped", 0777), chown("grouped", 0, 77), chmod("grouped", 02777);
  asUser(userGroup);
}
