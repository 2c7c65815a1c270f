// Host FDs: read, write, open, sockets, FD passing. Names of kernel calls, nothing added, except openBlob,
// which is the hot path of OpenAt and so is one crossing instead of four.
#include "addon.h"
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define PATH_CAPACITY 4096
#define MESSAGE_FDS_MAX 200
#define SHA256_BYTES 32

static napi_value close_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, close(arg_int(env, argv[0])));
}

static napi_value dup_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, fcntl(arg_int(env, argv[0]), F_DUPFD_CLOEXEC, 3));
}

static napi_value set_nonblock(napi_env env, napi_callback_info info) {
  ARGS;
  int fd = arg_int(env, argv[0]);
  int flags = fcntl(fd, F_GETFL);
  return outcome(env, flags < 0 ? flags : fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

static napi_value read_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  return outcome(env, read(arg_int(env, argv[0]), out.data, out.length));
}

static napi_value write_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes in = arg_bytes(env, argv[1]);
  return outcome(env, write(arg_int(env, argv[0]), in.data, in.length));
}

static napi_value pread_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  return outcome(env, pread(arg_int(env, argv[0]), out.data, out.length, arg_i64(env, argv[2])));
}

static napi_value pwrite_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes in = arg_bytes(env, argv[1]);
  return outcome(env, pwrite(arg_int(env, argv[0]), in.data, in.length, arg_i64(env, argv[2])));
}

// statFd(fd, out: Float64Array): out[0..4] = size, mode, mtime seconds, mtime nanoseconds, link count.
static napi_value stat_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  if (out.length < 5 * sizeof(double)) return integer(env, -EINVAL);
  struct stat st;
  if (fstat(arg_int(env, argv[0]), &st) < 0) return outcome(env, -1);
  double *field = (double *)out.data;
  field[0] = (double)st.st_size;
  field[1] = (double)st.st_mode;
  field[2] = (double)st.st_mtim.tv_sec;
  field[3] = (double)st.st_mtim.tv_nsec;
  field[4] = (double)st.st_nlink;
  return integer(env, 0);
}

// openAt(dirFd or -1 for the working directory, latin1 path, flags, mode).
static napi_value open_at(napi_env env, napi_callback_info info) {
  ARGS;
  char path[PATH_CAPACITY];
  int bad = arg_name(env, argv[1], path, sizeof path);
  if (bad < 0) return integer(env, bad);
  int dir = arg_int(env, argv[0]);
  return outcome(env, openat(dir < 0 ? AT_FDCWD : dir, path, arg_int(env, argv[2]) | O_CLOEXEC,
                             arg_int(env, argv[3])));
}

static uint32_t big_endian(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

// openBlob(dirFd, bytes, offset, size): opens "ab/<64 hex>" of the sha256 at bytes[offset] below dirFd,
// read-only. -ESTALE unless it is a regular file of that size (any when size < 0) whose mtime is the seal
// of its digest (docs/format/cache.md): a truncated, overwritten or swapped file is never donated.
static napi_value open_blob(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes in = arg_bytes(env, argv[1]);
  uint32_t offset = arg_uint(env, argv[2]);
  int64_t size = arg_i64(env, argv[3]);
  if (in.length < SHA256_BYTES || offset > in.length - SHA256_BYTES) return integer(env, -EINVAL);
  const uint8_t *digest = in.data + offset;
  static const char hex[] = "0123456789abcdef";
  char path[3 + 2 * SHA256_BYTES + 1];
  for (int i = 0; i < SHA256_BYTES; i++) {
    path[3 + 2 * i] = hex[digest[i] >> 4];
    path[4 + 2 * i] = hex[digest[i] & 15];
  }
  path[0] = path[3];
  path[1] = path[4];
  path[2] = '/';
  path[3 + 2 * SHA256_BYTES] = 0;
  int fd = openat(arg_int(env, argv[0]), path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return outcome(env, -1);
  struct stat st;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (size < 0 || st.st_size == size) &&
      (st.st_mode & 0222) == 0 && st.st_mtim.tv_sec == (big_endian(digest) & 0x7fffffff) &&
      st.st_mtim.tv_nsec == big_endian(digest + 4) % 1000000000) {
    return integer(env, fd);
  }
  close(fd);
  return integer(env, -ESTALE);
}

// futimens(fd, sec, nsec): the mtime alone; sec < 0: the atime alone, to 0, which the next read or mapping ends.
static napi_value set_times(napi_env env, napi_callback_info info) {
  ARGS;
  struct timespec times[2] = {{0, UTIME_OMIT}, {arg_i64(env, argv[1]), (long)arg_i64(env, argv[2])}};
  if (times[1].tv_sec < 0) times[0].tv_nsec = 0, times[1].tv_nsec = UTIME_OMIT;
  return outcome(env, futimens(arg_int(env, argv[0]), times));
}

// leaseFd(fd): a write lease until fd is closed; -EAGAIN while anybody else has the file open or mapped. fcntl(2).
static napi_value lease_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, fcntl(arg_int(env, argv[0]), F_SETLEASE, F_WRLCK));
}

static napi_value unlease_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, fcntl(arg_int(env, argv[0]), F_SETLEASE, F_UNLCK));
}

// socketPair(type, out: Int32Array(2)); of type 0 a pipe, as large as anybody may have it: /proc/sys/fs/pipe-max-size.
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  if (out.length < 2 * sizeof(int)) return integer(env, -EINVAL);
  int type = arg_int(env, argv[0]), *ends = (int *)out.data;
  if (type != 0) return outcome(env, socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends));
  if (pipe2(ends, O_CLOEXEC) < 0) return outcome(env, -1);
  return fcntl(ends[0], F_SETPIPE_SZ, 1 << 20), integer(env, 0);
}

// The address of a unix socket's path; one that is too long for an address is reached through its folder's FD,
// which the caller closes when *folder >= 0. 0 or -errno.
static int unix_address(napi_env env, napi_value value, struct sockaddr_un *address, int *folder) {
  char path[PATH_MAX];
  int bad = arg_name(env, value, path, sizeof path);
  *folder = -1;
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (bad < 0) return bad;
  char *name = strrchr(path, '/');
  if (strlen(path) < sizeof address->sun_path) {
    memcpy(address->sun_path, path, strlen(path));
    return 0;
  }
  if (!name || strlen(name) > 64) return -ENAMETOOLONG;
  *name = 0;
  *folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (*folder < 0) return -errno;
  snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", *folder, name + 1);
  return 0;
}

// A socket that never blocks: bound to a path that nothing has yet, listening with a backlog, or, -1, connected to it.
static napi_value unix_socket(napi_env env, napi_value path, int type, int backlog) {
  struct sockaddr_un address;
  const struct sockaddr *name = (struct sockaddr *)&address;
  int folder, bad = unix_address(env, path, &address, &folder);
  if (bad < 0) return integer(env, bad);
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), result = fd;
  int failed = fd < 0 ? -1 : backlog >= 0 ? bind(fd, name, sizeof address) : connect(fd, name, sizeof address);
  if (failed == 0 && backlog >= 0) failed = listen(fd, backlog);
  if (failed < 0) {
    result = -errno;
    if (fd >= 0) close(fd);
  }
  if (folder >= 0) close(folder);
  return integer(env, result);
}

// connectUnix(path, isPackets): a connected stream socket, or one of packets. Never blocks: a full backlog is -EAGAIN.
static napi_value connect_unix(napi_env env, napi_callback_info info) {
  ARGS;
  bool packets = false;
  napi_get_value_bool(env, argv[1], &packets);
  return unix_socket(env, argv[0], packets ? SOCK_SEQPACKET : SOCK_STREAM, -1);
}

// listenPackets(path, backlog): a listening socket of packets (SOCK_SEQPACKET).
static napi_value listen_packets(napi_env env, napi_callback_info info) {
  ARGS;
  return unix_socket(env, argv[0], SOCK_SEQPACKET, arg_int(env, argv[1]));
}

// listenAt(address): a listening stream socket at a struct sockaddr's bytes, which never blocks. What it accepts sends
// small TCP segments at once, as it does. man ip(7), unix(7), vsock(7).
static napi_value listen_at(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes address = arg_bytes(env, argv[0]);
  if (address.length < sizeof(sa_family_t)) return integer(env, -EINVAL);
  int family = ((struct sockaddr *)address.data)->sa_family, on = 1;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), result = fd;
  if (fd >= 0 && (family == AF_INET || family == AF_INET6)) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (fd < 0 || bind(fd, (struct sockaddr *)address.data, address.length) < 0 || listen(fd, 64) < 0)
    result = closing(fd, errno);
  return integer(env, result);
}

// socketAddress(fd, ofPeer, out): the struct sockaddr of a socket, or of who connected it: its bytes.
static napi_value socket_address(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[2]);
  bool of_peer = false;
  napi_get_value_bool(env, argv[1], &of_peer);
  socklen_t length = (socklen_t)out.length;
  int fd = arg_int(env, argv[0]);
  int failed = (of_peer ? getpeername : getsockname)(fd, (struct sockaddr *)out.data, &length);
  return failed < 0 ? outcome(env, -1) : number(env, length < out.length ? length : out.length);
}

// acceptPeer(fd): the next peer of a listening socket, or -EAGAIN.
static napi_value accept_peer(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, accept4(arg_int(env, argv[0]), NULL, NULL, SOCK_CLOEXEC));
}

// socketOption(fd, option, process): a number; of SO_PEERCRED who connected, user id or pid. man socket(7), unix(7).
static napi_value socket_option(napi_env env, napi_callback_info info) {
  ARGS;
  union { struct ucred peer; int number; } value;
  socklen_t length = sizeof value;
  int option = arg_int(env, argv[1]), peer = arg_int(env, argv[2]);
  if (getsockopt(arg_int(env, argv[0]), SOL_SOCKET, option, &value, &length) < 0) return outcome(env, -1);
  if (option == SO_PEERCRED) return number(env, peer > 0 ? (uint32_t)value.peer.pid : value.peer.uid);
  return number(env, (uint32_t)value.number);
}

// sendMessage(fd, bytes, fds: Int32Array, fdCount): one sendmsg that never blocks: bytes sent. The FDs go
// with the first byte (LISAFS: sock.go writeTo); after a short write send the rest with fdCount 0.
static napi_value send_message(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes in = arg_bytes(env, argv[1]), fds = arg_bytes(env, argv[2]);
  uint32_t count = arg_uint(env, argv[3]);
  if (count > MESSAGE_FDS_MAX || count * sizeof(int) > fds.length) return integer(env, -EINVAL);
  struct iovec iov = {in.data, in.length};
  union {
    char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds.data, count * sizeof(int));
  }
  return outcome(env, sendmsg(arg_int(env, argv[0]), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

// receiveMessage(fd, out, fds: Int32Array, flags): bytes; fds[0] = count of FDs received, fds[1..] the FDs.
static napi_value receive_message(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]), fds = arg_bytes(env, argv[2]);
  int *slots = (int *)fds.data;
  size_t capacity = fds.length / sizeof(int);
  if (capacity == 0) return integer(env, -EINVAL);
  struct iovec iov = {out.data, out.length};
  union {
    char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
  slots[0] = 0;
  ssize_t got = recvmsg(arg_int(env, argv[0]), &message, arg_int(env, argv[3]) | MSG_CMSG_CLOEXEC);
  if (got < 0) return outcome(env, -1);
  for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h != NULL; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof fd);
      if ((size_t)slots[0] + 1 < capacity) slots[++slots[0]] = fd;
      else close(fd);
    }
  }
  return number(env, (double)got);
}

// memfd(name, size): sealed against shrinking before it grows, so that no peer can make us SIGBUS by
// truncating memory that we have mapped (LISAFS: PacketWindowAllocator seals the same).
static napi_value memfd(napi_env env, napi_callback_info info) {
  ARGS;
  char name[64];
  int bad = arg_name(env, argv[0], name, sizeof name);
  if (bad < 0) return integer(env, bad);
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return outcome(env, -1);
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0 || ftruncate(fd, arg_i64(env, argv[1])) < 0) {
    int error = errno;
    close(fd);
    return integer(env, -error);
  }
  return integer(env, fd);
}

// takeFd(pid, fd): a copy of another process's FD. man pidfd_getfd(2).
static napi_value take_fd(napi_env env, napi_callback_info info) {
  ARGS;
  int process = (int)syscall(SYS_pidfd_open, arg_int(env, argv[0]), 0);
  if (process < 0) return outcome(env, -1);
  long fd = syscall(SYS_pidfd_getfd, process, arg_int(env, argv[1]), 0);
  napi_value result = outcome(env, fd);
  close(process);
  return result;
}

// queuedBytes(fd, isOutput): of a unix stream socket: what came and wasn't read; isOutput: what was sent and wasn't
// read by the peer, in the kernel's own count of memory: 0 or more. man unix(7), SIOCINQ, SIOCOUTQ.
static napi_value queued_bytes(napi_env env, napi_callback_info info) {
  ARGS;
  bool output = false;
  int bytes = 0;
  napi_get_value_bool(env, argv[1], &output);
  return ioctl(arg_int(env, argv[0]), output ? SIOCOUTQ : SIOCINQ, &bytes) < 0 ? outcome(env, -1) : integer(env, bytes);
}

// watchReads(fd): an FD that remembers whether the peer of a unix stream socket has read something that was sent:
// edge-triggered, it has an event each time that the kernel frees what the peer took. man epoll(7).
static napi_value watch_reads(napi_env env, napi_callback_info info) {
  ARGS;
  int watch = epoll_create1(EPOLL_CLOEXEC);
  if (watch < 0) return outcome(env, -1);
  struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
  if (epoll_ctl(watch, EPOLL_CTL_ADD, arg_int(env, argv[0]), &event) < 0) {
    int error = errno;
    close(watch);
    return integer(env, -error);
  }
  return integer(env, watch);
}

// wasRead(watch): 1 when the peer has read something since the last call, else 0.
static napi_value was_read(napi_env env, napi_callback_info info) {
  ARGS;
  struct epoll_event event;
  return outcome(env, epoll_wait(arg_int(env, argv[0]), &event, 1, 0));
}

void register_fd(napi_env env, napi_value exports) {
  export_function(env, exports, "closeFd", close_fd);
  export_function(env, exports, "dupFd", dup_fd);
  export_function(env, exports, "setNonblock", set_nonblock);
  export_function(env, exports, "readFd", read_fd);
  export_function(env, exports, "writeFd", write_fd);
  export_function(env, exports, "preadFd", pread_fd);
  export_function(env, exports, "pwriteFd", pwrite_fd);
  export_function(env, exports, "statFd", stat_fd);
  export_function(env, exports, "openAt", open_at);
  export_function(env, exports, "openBlob", open_blob);
  export_function(env, exports, "futimens", set_times);
  export_function(env, exports, "leaseFd", lease_fd);
  export_function(env, exports, "unleaseFd", unlease_fd);
  export_function(env, exports, "socketPair", socket_pair);
  export_function(env, exports, "connectUnix", connect_unix);
  export_function(env, exports, "listenAt", listen_at);
  export_function(env, exports, "socketAddress", socket_address);
  export_function(env, exports, "listenPackets", listen_packets);
  export_function(env, exports, "acceptPeer", accept_peer);
  export_function(env, exports, "socketOption", socket_option);
  export_function(env, exports, "sendMessage", send_message);
  export_function(env, exports, "receiveMessage", receive_message);
  export_function(env, exports, "memfd", memfd);
  export_function(env, exports, "takeFd", take_fd);
  export_function(env, exports, "queuedBytes", queued_bytes);
  export_function(env, exports, "watchReads", watch_reads);
  export_function(env, exports, "wasRead", was_read);
}
