// System calls on the files of a host directory or a private tmpfs, by FD: what host and upper trees are made of.
// A name is one component, checked here as well (none of "", ".", "..", "/"), because the calls that change names
// take no RESOLVE_* flags: a "/" in one would walk through symlinks. An O_PATH FD is reopened through `procFd`, a
// kept FD of /proc/self/fd, so that no path is resolved twice.
#include "addon.h"
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTR_NAME_CAPACITY 256
#define PATH_CAPACITY 4096
#define STATFS_FIELDS 7
#define RESOLVE (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
#define NO_ID 0xffffffffu

// One path component. 0, -ENAMETOOLONG past 255 bytes, -EINVAL for what must never reach a path walk.
int arg_component(napi_env env, napi_value value, char out[NAME_CAPACITY]) {
  size_t length = 0;
  if (napi_get_value_string_latin1(env, value, out, NAME_CAPACITY, &length) != napi_ok) return -EINVAL;
  if (length > NAME_CAPACITY - 2) return -ENAMETOOLONG;
  if (length == 0 || memchr(out, 0, length) != NULL || memchr(out, '/', length) != NULL) return -EINVAL;
  return strcmp(out, ".") == 0 || strcmp(out, "..") == 0 ? -EINVAL : 0;
}

// The doubles of a Float64Array with room for `fields`, or NULL.
double *arg_fields(napi_env env, napi_value value, size_t fields) {
  struct bytes out = arg_bytes(env, value);
  return out.length < fields * sizeof(double) ? NULL : (double *)(void *)out.data;
}

int closing(int fd, int error) {
  if (fd >= 0) close(fd);
  return -error;
}

// Fills out[0..18] (lib/sys/hostfs.ts names them). An inode number comes in two parts, 53 and 11 bits, since a
// double holds no more: rounding would make two files one. man statx(2).
static int stat_into(int fd, double *out) {
  struct statx st;
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_SYNC_AS_STAT, STATX_BASIC_STATS, &st) < 0) return -errno;
  double fields[STAT_FIELDS] = {
      (double)(st.stx_ino & ((1ull << 53) - 1)), (double)(st.stx_ino >> 53),
      st.stx_dev_major,        st.stx_dev_minor,         st.stx_mode,
      st.stx_nlink,            st.stx_uid,               st.stx_gid,
      st.stx_rdev_major,       st.stx_rdev_minor,        (double)st.stx_size,
      (double)st.stx_blocks,   st.stx_blksize,           (double)st.stx_atime.tv_sec,
      st.stx_atime.tv_nsec,    (double)st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec,
      (double)st.stx_ctime.tv_sec, st.stx_ctime.tv_nsec};
  memcpy(out, fields, sizeof fields);
  return 0;
}

// Opens a component below dir, following nothing. man openat2(2).
static int open_beneath(int dir, const char *name, uint64_t flags, uint64_t mode) {
  struct open_how how = {.flags = flags | O_NOFOLLOW | O_CLOEXEC, .mode = mode, .resolve = RESOLVE};
  int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
  return fd < 0 ? -errno : fd;
}

static int reopen(int proc_fd, int fd, int flags) {
  char link[16];
  snprintf(link, sizeof link, "%d", fd);
  int opened = openat(proc_fd, link, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  return opened < 0 ? -errno : opened;
}

static int chmod_by(int proc_fd, int fd, mode_t mode) {
  char link[16];
  snprintf(link, sizeof link, "%d", fd);
  return fchmodat(proc_fd, link, mode, 0) < 0 ? -errno : 0;
}

static int chown_by(int fd, uint32_t uid, uint32_t gid) {
  return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

// Gives a new inode of `dir` the owner and the mode asked for, and leaves its attributes in `out`. The group of a
// set-group-id directory is that of all in it, whoever asks, and a directory has the bit as well. man inode(7). The
// owner first: a change of owner clears set-id bits. man chown(2).
static int settle(int proc_fd, int dir, int fd, uint32_t mode, uint32_t uid, uint32_t gid, double *out) {
  struct stat parent;
  int bad = fstat(dir, &parent) < 0 ? -errno : stat_into(fd, out);
  if (bad < 0) return bad;
  if (parent.st_mode & S_ISGID) {
    gid = parent.st_gid;
    if (S_ISDIR((mode_t)out[4])) mode |= S_ISGID;
  }
  bool owner = (uid != NO_ID && uid != (uint32_t)out[6]) || (gid != NO_ID && gid != (uint32_t)out[7]);
  if (owner && (bad = chown_by(fd, uid, gid)) < 0) return bad;
  bool wrong_mode = ((uint32_t)out[4] & 07777) != (mode & 07777);
  if (!owner && !wrong_mode) return 0;
  if (!S_ISLNK((mode_t)out[4]) && (bad = chmod_by(proc_fd, fd, mode & 07777)) < 0) return bad;
  return stat_into(fd, out);
}

// statNode(fd, out).
static napi_value stat_node(napi_env env, napi_callback_info info) {
  ARGS;
  double *out = arg_fields(env, argv[1], STAT_FIELDS);
  return integer(env, out == NULL ? -EINVAL : stat_into(arg_int(env, argv[0]), out));
}

// lookupAt(dirFd, name, out): an O_PATH FD of the component itself, never of what a symlink names.
static napi_value lookup_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY];
  double *out = arg_fields(env, argv[2], STAT_FIELDS);
  int bad = out == NULL ? -EINVAL : arg_component(env, argv[1], name);
  if (bad < 0) return integer(env, bad);
  int fd = open_beneath(arg_int(env, argv[0]), name, O_PATH, 0);
  if (fd >= 0 && (bad = stat_into(fd, out)) < 0) fd = closing(fd, -bad);
  return integer(env, fd);
}

// reopenFd(procFd, fd, flags): opens the inode of an O_PATH FD, unlinked or not.
static napi_value reopen_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return integer(env, reopen(arg_int(env, argv[0]), arg_int(env, argv[1]), arg_int(env, argv[2])));
}

// createAt(procFd, dirFd, name, flags, mode, uid, gid, out): a new regular file: its O_PATH FD, with an FD opened by
// `flags` in out[19]. Nothing is left when it fails.
static napi_value create_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY];
  double *out = arg_fields(env, argv[7], STAT_FIELDS + 1);
  int bad = out == NULL ? -EINVAL : arg_component(env, argv[2], name);
  if (bad < 0) return integer(env, bad);
  int proc_fd = arg_int(env, argv[0]), dir = arg_int(env, argv[1]);
  uint32_t mode = arg_uint(env, argv[4]) & 07777;
  uint64_t flags = (uint64_t)(arg_int(env, argv[3]) & O_ACCMODE) | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY;
  int file = open_beneath(dir, name, flags, mode);
  if (file < 0) return integer(env, file);
  int fd = reopen(proc_fd, file, O_PATH);
  bad = fd < 0 ? fd : settle(proc_fd, dir, fd, mode, arg_uint(env, argv[5]), arg_uint(env, argv[6]), out);
  if (bad == 0) {
    out[STAT_FIELDS] = file;
    return integer(env, fd);
  }
  close(file);
  unlinkat(dir, name, 0);
  return integer(env, closing(fd, -bad));
}

// The O_PATH FD of the directory, symlink or socket just made; removes it again when that fails.
int finish_new(int proc_fd, int dir, const char *name, mode_t type, uint32_t mode, uint32_t uid, uint32_t gid,
               double *out) {
  int fd = open_beneath(dir, name, O_PATH, 0);
  int bad = fd < 0 ? fd : stat_into(fd, out);
  // Somebody else replaced it between the two calls: not ours to change.
  if (bad >= 0 && ((mode_t)out[4] & S_IFMT) != type) return closing(fd, ESTALE);
  if (bad >= 0) bad = settle(proc_fd, dir, fd, mode, uid, gid, out);
  if (bad >= 0) return fd;
  unlinkat(dir, name, type == S_IFDIR ? AT_REMOVEDIR : 0);
  return closing(fd, -bad);
}

// makeAt(procFd, dirFd, name, mode, uid, gid, out): an O_PATH FD of the new directory, FIFO, socket or whiteout, by the
// type in mode.
static napi_value make_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY];
  double *out = arg_fields(env, argv[6], STAT_FIELDS);
  int bad = out == NULL ? -EINVAL : arg_component(env, argv[2], name);
  if (bad < 0) return integer(env, bad);
  int dir = arg_int(env, argv[1]);
  uint32_t mode = arg_uint(env, argv[3]) & 07777, type = arg_uint(env, argv[3]) & S_IFMT;
  // A node without permissions, as the filter of calls has it: finish_new gives it its own.
  if ((type == S_IFDIR ? mkdirat(dir, name, mode) : mknodat(dir, name, type, 0)) < 0) return outcome(env, -1);
  return integer(env, finish_new(arg_int(env, argv[0]), dir, name, type, mode, arg_uint(env, argv[4]),
                                 arg_uint(env, argv[5]), out));
}

// symlinkAt(target, dirFd, name, uid, gid, out): an O_PATH FD of the new symlink.
static napi_value symlink_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY], target[PATH_CAPACITY];
  double *out = arg_fields(env, argv[5], STAT_FIELDS);
  int bad = out == NULL ? -EINVAL : arg_component(env, argv[2], name);
  if (bad == 0) bad = arg_name(env, argv[0], target, sizeof target);
  if (bad < 0) return integer(env, bad);
  int dir = arg_int(env, argv[1]);
  if (symlinkat(target, dir, name) < 0) return outcome(env, -1);
  return integer(env, finish_new(-1, dir, name, S_IFLNK, 0777, arg_uint(env, argv[3]), arg_uint(env, argv[4]), out));
}

// linkAt(procFd, fd, dirFd, name). Through procFd: AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH. man linkat(2).
static napi_value link_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY], link[16];
  int bad = arg_component(env, argv[3], name);
  if (bad < 0) return integer(env, bad);
  snprintf(link, sizeof link, "%d", arg_int(env, argv[1]));
  return outcome(env, linkat(arg_int(env, argv[0]), link, arg_int(env, argv[2]), name, AT_SYMLINK_FOLLOW));
}

// whiteoutAt(dirFd, name). Linux: WHITEOUT_DEV, fs.h.
static napi_value whiteout_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY];
  int bad = arg_component(env, argv[1], name);
  if (bad < 0) return integer(env, bad);
  return outcome(env, mknodat(arg_int(env, argv[0]), name, S_IFCHR, makedev(0, 0)));
}

// unlinkAt(dirFd, name, isDirectory).
static napi_value unlink_at(napi_env env, napi_callback_info info) {
  ARGS;
  char name[NAME_CAPACITY];
  bool directory = false;
  napi_get_value_bool(env, argv[2], &directory);
  int bad = arg_component(env, argv[1], name);
  if (bad < 0) return integer(env, bad);
  return outcome(env, unlinkat(arg_int(env, argv[0]), name, directory ? AT_REMOVEDIR : 0));
}

// renameAt(oldDirFd, oldName, newDirFd, newName, flags). man renameat2(2).
static napi_value rename_at(napi_env env, napi_callback_info info) {
  ARGS;
  char old_name[NAME_CAPACITY], new_name[NAME_CAPACITY];
  int bad = arg_component(env, argv[1], old_name);
  if (bad == 0) bad = arg_component(env, argv[3], new_name);
  if (bad < 0) return integer(env, bad);
  return outcome(env, syscall(SYS_renameat2, arg_int(env, argv[0]), old_name, arg_int(env, argv[2]), new_name,
                              arg_uint(env, argv[4])));
}

// readlinkFd(fd, out): the target's bytes, -ERANGE when they don't fit (the call itself would cut them off).
static napi_value readlink_fd(napi_env env, napi_callback_info info) {
  ARGS;
  char target[PATH_CAPACITY];
  struct bytes out = arg_bytes(env, argv[1]);
  ssize_t length = readlinkat(arg_int(env, argv[0]), "", target, sizeof target);
  if (length < 0) return outcome(env, -1);
  if ((size_t)length > out.length) return integer(env, -ERANGE);
  if (length > 0) memcpy(out.data, target, (size_t)length);
  return integer(env, (int32_t)length);
}

// chmodFd(procFd, fd, mode): never for a symlink.
static napi_value chmod_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return integer(env, chmod_by(arg_int(env, argv[0]), arg_int(env, argv[1]), arg_uint(env, argv[2]) & 07777));
}

// chownFd(fd, uid, gid): 0xffffffff leaves one as it is.
static napi_value chown_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return integer(env, chown_by(arg_int(env, argv[0]), arg_uint(env, argv[1]), arg_uint(env, argv[2])));
}

// utimensFd(fd, atimeSec, atimeNs, mtimeSec, mtimeNs): nanoseconds may be UTIME_NOW or UTIME_OMIT.
static napi_value utimens_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct timespec times[2] = {{arg_i64(env, argv[1]), (long)arg_i64(env, argv[2])},
                              {arg_i64(env, argv[3]), (long)arg_i64(env, argv[4])}};
  return outcome(env, utimensat(arg_int(env, argv[0]), "", times, AT_EMPTY_PATH));
}

static napi_value truncate_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, ftruncate(arg_int(env, argv[0]), arg_i64(env, argv[1])));
}

static napi_value sync_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, fsync(arg_int(env, argv[0])));
}

// allocateFd(fd, mode, offset, length): any mode of fallocate(2). Blocks while the kernel fills pages.
static napi_value allocate_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, fallocate(arg_int(env, argv[0]), arg_int(env, argv[1]), arg_i64(env, argv[2]),
                                arg_i64(env, argv[3])));
}

// readDents(fd, out): the position (i64) at out[0], then struct linux_dirent64 records: their bytes, 0 at the end.
static napi_value read_dents(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  if (out.length < 512) return integer(env, -EINVAL);
  int fd = arg_int(env, argv[0]);
  int64_t position = lseek(fd, 0, SEEK_CUR);
  if (position < 0) return outcome(env, -1);
  memcpy(out.data, &position, sizeof position);
  return outcome(env, syscall(SYS_getdents64, fd, out.data + 8, out.length - 8));
}

// seekDents(fd, bytes, offset): goes to the position that stands at bytes[offset] (a d_off: all 64 bits count).
static napi_value seek_dents(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes in = arg_bytes(env, argv[1]);
  uint32_t offset = arg_uint(env, argv[2]);
  if (in.length < 8 || offset > in.length - 8) return integer(env, -EINVAL);
  int64_t position;
  memcpy(&position, in.data + offset, sizeof position);
  return integer(env, lseek(arg_int(env, argv[0]), position, SEEK_SET) < 0 ? -errno : 0);
}

// statfsFd(fd, out): block size, blocks, free, available, files, files free, name length.
static napi_value statfs_fd(napi_env env, napi_callback_info info) {
  ARGS;
  struct statfs st;
  double *out = arg_fields(env, argv[1], STATFS_FIELDS);
  if (out == NULL) return integer(env, -EINVAL);
  if (fstatfs(arg_int(env, argv[0]), &st) < 0) return outcome(env, -1);
  double fields[STATFS_FIELDS] = {(double)st.f_bsize,  (double)st.f_blocks, (double)st.f_bfree,  (double)st.f_bavail,
                                  (double)st.f_files, (double)st.f_ffree,  (double)st.f_namelen};
  memcpy(out, fields, sizeof fields);
  return integer(env, 0);
}

// The four xattr calls take an FD that is open for real: O_PATH ones are refused (EBADF). man xattr(7).
static napi_value get_xattr(napi_env env, napi_callback_info info) {
  ARGS;
  char name[XATTR_NAME_CAPACITY];
  struct bytes out = arg_bytes(env, argv[2]);
  int bad = arg_name(env, argv[1], name, sizeof name);
  return bad < 0 ? integer(env, bad)
                 : outcome(env, fgetxattr(arg_int(env, argv[0]), name, out.data, out.length));
}

static napi_value set_xattr(napi_env env, napi_callback_info info) {
  ARGS;
  char name[XATTR_NAME_CAPACITY];
  struct bytes in = arg_bytes(env, argv[2]);
  int bad = arg_name(env, argv[1], name, sizeof name);
  return bad < 0 ? integer(env, bad)
                 : outcome(env, fsetxattr(arg_int(env, argv[0]), name, in.data, in.length, arg_int(env, argv[3])));
}

static napi_value list_xattr(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  return outcome(env, flistxattr(arg_int(env, argv[0]), (char *)out.data, out.length));
}

static napi_value remove_xattr(napi_env env, napi_callback_info info) {
  ARGS;
  char name[XATTR_NAME_CAPACITY];
  int bad = arg_name(env, argv[1], name, sizeof name);
  return bad < 0 ? integer(env, bad) : outcome(env, fremovexattr(arg_int(env, argv[0]), name));
}

#define HANDLE_CAPACITY 48  // What is kept of a file_handle: 8 bytes and up to 40 of f_handle.
union file_handle_bytes {
  struct file_handle handle;
  uint8_t bytes[HANDLE_CAPACITY];
};

// handleOf(fd, out: Uint8Array(48)): what finds the inode behind an FD again while it lives, whatever becomes of its
// names: 0, -EOPNOTSUPP where the file system has no such thing. man name_to_handle_at(2).
static napi_value handle_of(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes out = arg_bytes(env, argv[1]);
  union file_handle_bytes h = {.handle.handle_bytes = HANDLE_CAPACITY - sizeof(struct file_handle)};
  int mount;
  if (out.length < HANDLE_CAPACITY) return integer(env, -EINVAL);
  if (name_to_handle_at(arg_int(env, argv[0]), "", &h.handle, &mount, AT_EMPTY_PATH) < 0) return outcome(env, -1);
  memcpy(out.data, h.bytes, HANDLE_CAPACITY);
  return integer(env, 0);
}

// openHandle(mountFd, handle): an O_PATH FD of the inode, on the mount of that FD; -ESTALE when it is gone, -EPERM
// without CAP_DAC_READ_SEARCH. man open_by_handle_at(2).
static napi_value open_handle(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes in = arg_bytes(env, argv[1]);
  union file_handle_bytes h;
  if (in.length < HANDLE_CAPACITY) return integer(env, -EINVAL);
  memcpy(h.bytes, in.data, HANDLE_CAPACITY);
  if (h.handle.handle_bytes > HANDLE_CAPACITY - sizeof(struct file_handle)) return integer(env, -EINVAL);
  return outcome(env, open_by_handle_at(arg_int(env, argv[0]), &h.handle, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

void register_hostfs(napi_env env, napi_value exports) {
  static const struct {
    const char *name;
    napi_callback callback;
  } functions[] = {
      {"statNode", stat_node},     {"lookupAt", lookup_at},     {"reopenFd", reopen_fd},
      {"createAt", create_at},     {"makeAt", make_at},         {"symlinkAt", symlink_at},
      {"linkAt", link_at},         {"whiteoutAt", whiteout_at}, {"unlinkAt", unlink_at},     {"renameAt", rename_at},
      {"readlinkFd", readlink_fd}, {"chmodFd", chmod_fd},       {"chownFd", chown_fd},
      {"utimensFd", utimens_fd},   {"truncateFd", truncate_fd}, {"syncFd", sync_fd},
      {"allocateFd", allocate_fd}, {"readDents", read_dents},   {"seekDents", seek_dents},
      {"statfsFd", statfs_fd},     {"getXattr", get_xattr},     {"setXattr", set_xattr},
      {"listXattr", list_xattr},   {"removeXattr", remove_xattr},
      {"handleOf", handle_of},     {"openHandle", open_handle},
  };
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    export_function(env, exports, functions[i].name, functions[i].callback);
  }
}
