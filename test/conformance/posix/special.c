// mknod, FIFOs, Unix sockets. man mknod(2), fifo(7), unix(7).
#include "posix.h"

static int typeOf(const char *path) {
  struct stat st;
  return lstat(path, &st) < 0 ? -1 : (int)(st.st_mode >> 12);
}

static struct sockaddr_un address(const char *path) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
  return to;
}

static int bindTo(int fd, const char *path) {
  struct sockaddr_un to = address(path);
  return bind(fd, (struct sockaddr *)&to, sizeof to);
}

static int connectTo(int fd, const char *path) {
  struct sockaddr_un to = address(path);
  return connect(fd, (struct sockaddr *)&to, sizeof to);
}

static void checkSockets(void) {
  int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  char text[8] = "";
  IS("bind", bindTo(server, "sock"));
  IS("  its type", typeOf("sock"));
  IS("bind again", bindTo(client, "sock"));
  IS("connect before listen", connectTo(client, "sock"));
  IS("listen", listen(server, 5));
  IS("connect", connectTo(client, "sock"));
  int accepted = accept(server, NULL, NULL);
  IS("accept", accepted >= 0);
  IS("  write", write(client, "hello", 5));
  IS("  read", read(accepted, text, 5));
  OPENS("open of a socket", open("sock", O_RDWR));
  IS("truncate of a socket", truncate("sock", 0));
  IS("rename of a socket", rename("sock", "sock2"));
  IS("  its type", typeOf("sock2"));
  IS("unlink of a socket", unlink("sock2"));
  IS("  is gone", typeOf("sock2"));
  IS("connect to nothing", connectTo(socket(AF_UNIX, SOCK_STREAM, 0), "nothing"));
  put("plain", "", 0644);
  IS("connect to a file", connectTo(socket(AF_UNIX, SOCK_STREAM, 0), "plain"));
  int gram = socket(AF_UNIX, SOCK_DGRAM, 0);
  IS("bind of datagrams", bindTo(gram, "grams"));
  IS("connect of a stream to it", connectTo(socket(AF_UNIX, SOCK_STREAM, 0), "grams"));
  close(server), close(client), close(accepted), close(gram);
}

void checkSpecial(void) {
  IS("mknod of a file", mknod("reg", S_IFREG | 0640, 0));
  IS("  its type", typeOf("reg"));
  IS("  its mode", modeOf("reg"));
  IS("mknod without a type", mknod("none", 0600, 0));
  IS("  its type", typeOf("none"));
  IS("mknod over a file", mknod("reg", S_IFREG | 0640, 0));
  IS("mknod of a directory", mknod("dir", S_IFDIR | 0755, 0));
  IS("mknod of a symlink", mknod("link", S_IFLNK | 0777, 0));
  IS("mknod beneath nothing", mknod("nothing/x", S_IFREG | 0644, 0));
  IS("mknod of a FIFO", mknod("fifo", S_IFIFO | 0644, 0));
  IS("  its type", typeOf("fifo"));
  OPENS("  open O_WRONLY|O_NONBLOCK", open("fifo", O_WRONLY | O_NONBLOCK));
  int reader = open("fifo", O_RDONLY | O_NONBLOCK), writer = open("fifo", O_WRONLY | O_NONBLOCK);
  IS("  open O_RDONLY|O_NONBLOCK", reader >= 0);
  IS("  then O_WRONLY|O_NONBLOCK", writer >= 0);
  char text[8] = "";
  IS("  write", write(writer, "piped", 5));
  IS("  read", read(reader, text, 5));
  IS("  lseek", lseek(reader, 0, SEEK_SET));
  IS("  truncate", truncate("fifo", 0));
  IS("  chmod", chmod("fifo", 0600));
  IS("  its mode", modeOf("fifo"));
  IS("  rename", rename("fifo", "fifo2"));
  IS("  link", link("fifo2", "fifo3"));
  IS("  unlink", unlink("fifo2"));
  close(reader), close(writer);
  IS("mknod of a socket", mknod("sock0", S_IFSOCK | 0644, 0));
  IS("  its type", typeOf("sock0"));
  IS("mknod of a character device", mknod("null", S_IFCHR | 0666, makedev(1, 3)));
  IS("mknod of a block device", mknod("block", S_IFBLK | 0666, makedev(7, 0)));
  IS("mknod of a whiteout", mknod("white", S_IFCHR | 0666, makedev(0, 0)));
  checkSockets();
}
