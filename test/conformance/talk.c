// talk WHAT: one side of a conversation over a special file in the working directory. Prints what came of it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address;

static int at(const char *name, int type) {
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
  return socket(AF_UNIX, type, 0);
}

static int say(const char *what, long result) {
  if (result < 0) printf("%s %s\n", what, strerrorname_np(errno));
  else printf("%s %ld\n", what, result);
  return result < 0;
}

static int told(int fd) {
  char text[64] = "";
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  poll(&wait, 1, 20000);
  long got = read(fd, text, sizeof text - 1);
  if (got < 0) return say("read", got);
  return printf("told %s\n", text), 0;
}

static int connectTo(const char *name, int type) {
  int fd = at(name, type);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return say("connect", -1);
  if (type == SOCK_DGRAM) return say("send", send(fd, "gram", 4, 0));
  if (type == SOCK_SEQPACKET) send(fd, "hi", 2, 0);
  return told(fd);
}

static int serve(const char *name, int type) {
  int fd = at(name, type);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return say("bind", -1);
  if (type == SOCK_DGRAM) return told(fd);
  if (listen(fd, 5) < 0) return say("listen", -1);
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  if (poll(&wait, 1, 20000) < 1) return puts("nobody came"), 1;
  int peer = accept(fd, NULL, NULL);
  if (peer < 0) return say("accept", peer);
  if (type == SOCK_SEQPACKET) send(peer, "packet from the host", 20, 0);
  return told(peer);
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  if (!strcmp(what, "connect-stream")) return connectTo("stream.sock", SOCK_STREAM);
  if (!strcmp(what, "connect-packets")) return connectTo("packets.sock", SOCK_SEQPACKET);
  if (!strcmp(what, "connect-grams")) return connectTo("grams.sock", SOCK_DGRAM);
  if (!strcmp(what, "serve-packets")) return serve("packets.sock", SOCK_SEQPACKET);
  if (!strcmp(what, "serve-grams")) return serve("grams.sock", SOCK_DGRAM);
  if (!strcmp(what, "bind-stream")) {
    // A socket of the sandbox's own is out of the host's reach: then nobody is waited for.
    if (argc < 3) {
      int own = at("bound.sock", SOCK_STREAM);
      if (bind(own, (struct sockaddr *)&address, sizeof address) < 0) return say("bind", -1);
      return say("listen", listen(own, 5));
    }
    return serve("bound.sock", SOCK_STREAM);
  }
  int fd = -1;
  if (!strcmp(what, "greet")) {
    int fd = at("bound.sock", SOCK_STREAM), failed;
    // Bound, it may not listen yet.
    while ((failed = connect(fd, (struct sockaddr *)&address, sizeof address)) < 0 && errno == ECONNREFUSED) usleep(10000);
    return say("greet", failed < 0 ? failed : write(fd, "hello, sandbox", 14));
  }
  if (!strcmp(what, "feed-fifo")) fd = open("fifo", O_WRONLY);
  if (!strcmp(what, "drain-fifo")) fd = open("fifo2", O_RDONLY);
  if (!strcmp(what, "open-fifo")) fd = open("fifo", O_RDONLY | O_NONBLOCK);
  if (!strcmp(what, "write-fifo")) fd = open("fifo2", O_WRONLY | O_NONBLOCK);
  if (fd < 0) return say("open", fd);
  if (strstr(what, "write")) return say("write", write(fd, "piped", 5));
  if (strstr(what, "feed")) return write(fd, "piped", 5), pause(); // until it is ended: no end of file races a reader
  return told(fd);
}
