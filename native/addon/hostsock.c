// Unix sockets of host directories. A sandbox names a name in a directory, or an inode, which is an FD here. Both are
// reached relative to a working directory, since an address holds 107 bytes and takes no FD. Nothing else of a gofer
// uses its working directory, and one thread alone makes these calls. man unix(7).
#include "addon.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// connectAt(procFd, fd, type): a socket of a type connected to the socket behind an O_PATH FD. It never blocks: a full
// backlog is -EAGAIN. -EPROTOTYPE when that one is of another type.
static napi_value connect_at(napi_env env, napi_callback_info info) {
  ARGS;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%d", arg_int(env, argv[1]));
  int fd = socket(AF_UNIX, arg_int(env, argv[2]) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return outcome(env, -1);
  if (fchdir(arg_int(env, argv[0])) == 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    return integer(env, fd);
  }
  return integer(env, closing(fd, errno));
}

// bindAt(procFd, dirFd, name, type, mode, uid, gid, out): binds a new socket to a new name: the O_PATH FD of its inode,
// with the socket's FD in out[19]. Nothing is left when it fails.
static napi_value bind_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  double *out = arg_fields(env, argv[7], STAT_FIELDS + 1);
  int bad = out == NULL ? -EINVAL : arg_component(env, argv[2], name);
  if (bad == 0 && strlen(name) >= sizeof address.sun_path) bad = -ENAMETOOLONG;
  if (bad < 0) return integer(env, bad);
  memcpy(address.sun_path, name, strlen(name));
  int proc_fd = arg_int(env, argv[0]), dir = arg_int(env, argv[1]);
  int fd = socket(AF_UNIX, arg_int(env, argv[3]) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return outcome(env, -1);
  bad = fchdir(dir) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
  if (fchdir(proc_fd) < 0 && bad == 0) bad = -errno; // holds no directory of the tree
  if (bad < 0) return integer(env, closing(fd, bad == -EADDRINUSE ? EEXIST : -bad));
  int node = finish_new(proc_fd, dir, name, S_IFSOCK, arg_uint(env, argv[4]) & 07777, arg_uint(env, argv[5]),
                        arg_uint(env, argv[6]), out);
  if (node < 0) return integer(env, closing(fd, -node));
  out[STAT_FIELDS] = fd;
  return integer(env, node);
}

static napi_value listen_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, listen(arg_int(env, argv[0]), arg_int(env, argv[1])));
}

void register_hostsock(napi_env env, napi_value exports) {
  export_function(env, exports, "connectAt", connect_at);
  export_function(env, exports, "bindAt", bind_at);
  export_function(env, exports, "listenFd", listen_fd);
}
