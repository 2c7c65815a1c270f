// What every file of the addon shares: argument and result helpers for Node-API.
// Rule: a function returns a number, >= 0 for a result or -errno, and never throws into JavaScript,
// except for a wrong argument type, which is a bug of ours and aborts the call with EINVAL.
#ifndef BURROW_ADDON_H
#define BURROW_ADDON_H

#define NAPI_VERSION 8
#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define MAX_ARGS 9

// Reads up to MAX_ARGS arguments into `argv`; missing ones are undefined.
#define ARGS                                                              \
  size_t argc = MAX_ARGS;                                                 \
  napi_value argv[MAX_ARGS];                                              \
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL)

static inline napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

static inline napi_value integer(napi_env env, int32_t value) {
  napi_value result;
  napi_create_int32(env, value, &result);
  return result;
}

// The result of a system call: its value, or -errno when it is negative.
static inline napi_value outcome(napi_env env, long value) {
  return value < 0 ? integer(env, -errno) : number(env, (double)value);
}

static inline int32_t arg_int(napi_env env, napi_value value) {
  int32_t result = -1;
  napi_get_value_int32(env, value, &result);
  return result;
}

static inline uint32_t arg_uint(napi_env env, napi_value value) {
  uint32_t result = 0;
  napi_get_value_uint32(env, value, &result);
  return result;
}

// A safe integer: offsets, sizes, seconds.
static inline int64_t arg_i64(napi_env env, napi_value value) {
  int64_t result = 0;
  napi_get_value_int64(env, value, &result);
  return result;
}

// The bytes of a typed array (or Buffer); {NULL, 0} when it is none.
struct bytes {
  uint8_t *data;
  size_t length;
};

int spawn_words(struct bytes text, struct bytes fds);

// What a worker does, and what the loop is told of it: workers.c. The first member of whatever belongs to it.
struct work {
  void (*run)(struct work *);             // In a worker: nothing of JavaScript's.
  void (*done)(napi_env, struct work *);  // On the loop, in a scope; frees it.
  struct work *next;
};

// Has a worker do it, those that begin first first. 0 or -errno: then nothing is done or told.
int begin_work(napi_env env, struct work *work);

static inline struct bytes arg_bytes(napi_env env, napi_value value) {
  struct bytes out = {NULL, 0};
  napi_typedarray_type type;
  size_t count = 0;
  void *data = NULL;
  if (napi_get_typedarray_info(env, value, &type, &count, &data, NULL, NULL) != napi_ok) return out;
  static const uint8_t width[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  out.data = data;
  out.length = (size_t)type < sizeof width ? count * width[type] : 0;
  return out;
}

// A latin1 string, NUL-terminated, into out. 0, or -ENAMETOOLONG, or -EINVAL for a NUL or no string.
static inline int arg_name(napi_env env, napi_value value, char *out, size_t capacity) {
  size_t length = 0;
  if (napi_get_value_string_latin1(env, value, NULL, 0, &length) != napi_ok) return -EINVAL;
  if (length >= capacity) return -ENAMETOOLONG;
  napi_get_value_string_latin1(env, value, out, capacity, &length);
  return strlen(out) == length ? 0 : -EINVAL;
}

static inline void export_function(napi_env env, napi_value exports, const char *name,
                                   napi_callback callback) {
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function);
  napi_set_named_property(env, exports, name, function);
}

// What hostfs.c, hostsock.c and mount.c share: described in hostfs.c.
#define NAME_CAPACITY 257
#define STAT_FIELDS 19
int arg_component(napi_env env, napi_value value, char out[NAME_CAPACITY]);
double *arg_fields(napi_env env, napi_value value, size_t fields);
int closing(int fd, int error);
int finish_new(int proc_fd, int dir, const char *name, mode_t type, uint32_t mode, uint32_t uid, uint32_t gid,
               double *out);
// Memory and where its SHA-256 goes, 32 bytes.
struct piece {
  const uint8_t *data;
  size_t length;
  uint8_t *digest;
};

// Whether hash_in_lanes is faster than one after the other: the longest first is fastest. Any thread.
bool has_lanes(void);
void hash_in_lanes(const struct piece *pieces, size_t count);

// One a file.
void register_fd(napi_env env, napi_value exports);
void register_map(napi_env env, napi_value exports);
void register_channel(napi_env env, napi_value exports);
void register_hostfs(napi_env env, napi_value exports);
void register_hostsock(napi_env env, napi_value exports);
void register_mount(napi_env env, napi_value exports);
void register_process(napi_env env, napi_value exports);
void register_harden(napi_env env, napi_value exports);
void register_codec(napi_env env, napi_value exports);
void register_sha256(napi_env env, napi_value exports);
void register_pool(napi_env env, napi_value exports);
void register_calls(napi_env env, napi_value exports);

#endif
