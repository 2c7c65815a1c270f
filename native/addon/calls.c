// System calls on files, one after the other in a worker, so that a disk that hangs holds up none of
// JavaScript: one crossing for a chain such as open, write, fsync, rename, close. lib/sys/calls.ts makes the chains.
#include "addon.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

// A row: op, three arguments, when it is made, whether its failure counts, and 1 + the row without whose success it
// isn't made, or 0. Numbers of ops are lib/sys/calls.ts's.
enum { OPEN, CLOSE, STAT, LSTAT, PWRITE, PREAD, FSYNC, FCHMOD };
enum { FUTIMENS = FCHMOD + 1, SETXATTR, GETXATTR, RENAME, UNLINK, LEASE, TRUNCATE, SYNC_RANGE, MKDIR };
enum { IF_WELL, ALWAYS, IF_FAILED };
#define ROW 7
#define BUFFERS_MAX 4096
#define FACTS 8

struct chain {
  struct work work;
  napi_ref held, callback;  // all arrays; the function that is told
  double *rows, *results, *facts;  // one behind the other
  size_t count, facts_count;
  struct bytes names;  // NUL-terminated, all of them
  uint32_t buffer_count;
  struct bytes buffers[];
};

static long put_stat(const struct chain *chain, const struct stat *st, double at) {
  if (at < 0 || at + FACTS > chain->facts_count) return errno = EINVAL, -1;
  double *field = chain->facts + (size_t)at;
  field[0] = (double)st->st_size;
  field[1] = (double)st->st_mode;
  field[2] = (double)st->st_mtim.tv_sec;
  field[3] = (double)st->st_mtim.tv_nsec;
  field[4] = (double)st->st_nlink;
  field[5] = (double)st->st_blocks;
  field[6] = (double)st->st_atim.tv_sec * 1e3 + (double)st->st_atim.tv_nsec / 1e6;
  field[7] = (double)st->st_ctim.tv_sec * 1e3 + (double)st->st_ctim.tv_nsec / 1e6;
  return 0;
}

// Moves all of the bytes, or what there is to read.
static long move(int fd, struct bytes at, off_t offset, int is_write) {
  size_t done = 0;
  while (done < at.length) {
    ssize_t got = is_write ? pwrite(fd, at.data + done, at.length - done, offset + (off_t)done)
                           : pread(fd, at.data + done, at.length - done, offset + (off_t)done);
    if (got < 0) return -1;
    if (got == 0 && is_write) return errno = EIO, -1;
    if (got == 0) break;
    done += (size_t)got;
  }
  return (long)done;
}

static const char *name_at(const struct chain *chain, double offset) {
  return offset >= 0 && offset < chain->names.length ? (const char *)chain->names.data + (size_t)offset : NULL;
}

static struct bytes buffer_of(const struct chain *chain, double index) {
  struct bytes none = {NULL, 0};
  return index >= 0 && index < chain->buffer_count ? chain->buffers[(uint32_t)index] : none;
}

// An FD is its number, or -1 - k: what row k gave.
static int fd_of(const struct chain *chain, double value, size_t row) {
  if (value >= 0) return (int)value;
  size_t k = (size_t)(-1 - value);
  return k < row && chain->results[k] >= 0 ? (int)chain->results[k] : -1;
}

static long call(const struct chain *chain, size_t row) {
  const double *a = chain->rows + row * ROW + 1;
  int op = (int)a[-1];
  int is_named = op == OPEN || op == LSTAT || op == RENAME || op == UNLINK || op == MKDIR;
  int fd = is_named ? -1 : fd_of(chain, a[0], row);
  const char *name = is_named ? name_at(chain, a[0]) : NULL, *other = name_at(chain, a[1]);
  struct bytes bytes = buffer_of(chain, op == PWRITE || op == PREAD ? a[1] : a[2]);
  if (is_named && name == NULL) return errno = EINVAL, -1;
  if ((op == RENAME || op == SETXATTR || op == GETXATTR) && other == NULL) return errno = EINVAL, -1;
  struct stat st;
  struct timespec times[2] = {{0, UTIME_OMIT}, {(time_t)a[1], (long)a[2]}};
  switch (op) {
    case OPEN: return open(name, (int)a[1] | O_CLOEXEC, (mode_t)a[2]);
    case CLOSE: return fd < 0 ? 0 : close(fd);
    case STAT: return fstat(fd, &st) < 0 ? -1 : put_stat(chain, &st, a[1]);
    case LSTAT: return lstat(name, &st) < 0 ? -1 : put_stat(chain, &st, a[1]);
    case PWRITE: return move(fd, bytes, (off_t)a[2], 1);
    case PREAD: return move(fd, bytes, (off_t)a[2], 0);
    case FSYNC: return fsync(fd);
    case FCHMOD: return fchmod(fd, (mode_t)a[1]);
    case FUTIMENS:
      if (a[1] < 0) times[0] = (struct timespec){0, 0}, times[1].tv_nsec = UTIME_OMIT;
      return futimens(fd, times);
    case SETXATTR: return fsetxattr(fd, other, bytes.data, bytes.length, 0);
    case GETXATTR: return fgetxattr(fd, other, bytes.data, bytes.length);
    case RENAME: return rename(name, other);
    case UNLINK: return unlink(name);
    case MKDIR: return mkdir(name, (mode_t)a[1]);
    case LEASE: return fcntl(fd, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN ? -1 : 0;
    case TRUNCATE: return ftruncate(fd, (off_t)a[1]);
    case SYNC_RANGE: return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT);
    default: return errno = EINVAL, -1;
  }
}

static void run(struct work *work) {
  struct chain *chain = (struct chain *)work;
  int failed = 0;
  for (size_t row = 0; row < chain->count; row++) {
    const double *at = chain->rows + row * ROW;
    int when = (int)at[4], is_off = (when == IF_WELL && failed) || (when == IF_FAILED && !failed);
    size_t needed = (size_t)at[6];
    if (is_off || (needed > 0 && (needed > row || chain->results[needed - 1] < 0))) {
      chain->results[row] = -ECANCELED;
      continue;
    }
    long result = call(chain, row);
    chain->results[row] = result < 0 ? -errno : (double)result;
    if (result < 0 && at[5] != 0) failed = 1;
  }
}

static void finish(napi_env env, struct work *work) {
  struct chain *chain = (struct chain *)work;
  napi_value callback, receiver;
  napi_get_reference_value(env, chain->callback, &callback);
  napi_get_undefined(env, &receiver);
  napi_delete_reference(env, chain->held);
  napi_delete_reference(env, chain->callback);
  free(chain);
  napi_call_function(env, receiver, callback, 0, NULL, NULL);
}

// makeCalls(rows, table: rows, results and facts, names, buffers, done): 0 or -errno. All of it is ours until done().
static napi_value make_calls(napi_env env, napi_callback_info info) {
  ARGS;
  size_t count = arg_uint(env, argv[0]);
  struct bytes table = arg_bytes(env, argv[1]), names = arg_bytes(env, argv[2]);
  uint32_t buffers = 0;
  size_t doubles = table.length / sizeof(double);
  if (napi_get_array_length(env, argv[3], &buffers) != napi_ok || buffers > BUFFERS_MAX) return integer(env, -EINVAL);
  int is_ended = names.length > 0 && names.data[names.length - 1] == 0;
  if (doubles < count * (ROW + 1) || !is_ended) return integer(env, -EINVAL);
  struct chain *chain = calloc(1, sizeof *chain + buffers * sizeof chain->buffers[0]);
  if (chain == NULL) return integer(env, -ENOMEM);
  chain->rows = (double *)table.data;
  chain->results = chain->rows + count * ROW;
  chain->facts = chain->results + count;
  chain->count = count;
  chain->facts_count = doubles - count * (ROW + 1);
  chain->names = names;
  chain->buffer_count = buffers;
  for (uint32_t i = 0; i < buffers; i++) {
    napi_value one;
    napi_get_element(env, argv[3], i, &one);
    chain->buffers[i] = arg_bytes(env, one);
  }
  napi_value held;
  napi_create_array_with_length(env, 3, &held);
  for (uint32_t i = 0; i < 3; i++) napi_set_element(env, held, i, argv[1 + i]);
  napi_create_reference(env, held, 1, &chain->held);
  napi_create_reference(env, argv[4], 1, &chain->callback);
  chain->work = (struct work){run, finish, NULL};
  int error = begin_work(env, &chain->work);
  if (error == 0) return integer(env, 0);
  napi_delete_reference(env, chain->held);
  napi_delete_reference(env, chain->callback);
  free(chain);
  return integer(env, error);
}

void register_calls(napi_env env, napi_value exports) { export_function(env, exports, "makeCalls", make_calls); }
