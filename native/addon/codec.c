// Codecs from libraries of the system, which are looked for when they are first needed: LZ4 of packs, zstd of archives.
#include "addon.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

// packLz4(in, out): the liblz4 of the system is twice as fast as what npm has. -ENOSYS where there is none.
static napi_value pack_lz4(napi_env env, napi_callback_info info) {
  ARGS;
  static int (*pack)(const void *, void *, int, int);
  void *library = pack ? NULL : dlopen("liblz4.so.1", RTLD_NOW);
  if (library) pack = (int (*)(const void *, void *, int, int))dlsym(library, "LZ4_compress_default");
  struct bytes in = arg_bytes(env, argv[0]), out = arg_bytes(env, argv[1]);
  return integer(env, pack ? pack(in.data, out.data, (int)in.length, (int)out.length) : -ENOSYS);
}

// zstd.h, ZSTD_inBuffer and ZSTD_outBuffer.
struct span {
  void *data;
  size_t size, at;
};
#define ZSTD_WINDOW_LOG_MAX 100  // ZSTD_d_windowLogMax
// zstd_errors.h; a function's error is its negative.
#define ZSTD_WINDOW_TOO_LARGE 16
#define ZSTD_NO_MEMORY 64

static struct {
  void *(*create)(void);
  size_t (*free)(void *);
  size_t (*set)(void *, int, int);
  size_t (*step)(void *, struct span *, struct span *);
  unsigned (*is_error)(size_t);
} zstd;

static bool has_zstd(void) {
  if (zstd.create != NULL) return true;
  void *library = dlopen("libzstd.so.1", RTLD_NOW);
  if (library == NULL) return false;
  *(void **)&zstd.free = dlsym(library, "ZSTD_freeDCtx");
  *(void **)&zstd.set = dlsym(library, "ZSTD_DCtx_setParameter");
  *(void **)&zstd.step = dlsym(library, "ZSTD_decompressStream");
  *(void **)&zstd.is_error = dlsym(library, "ZSTD_isError");
  bool is_whole = zstd.free && zstd.set && zstd.step && zstd.is_error;
  if (is_whole) *(void **)&zstd.create = dlsym(library, "ZSTD_createDCtx");
  return zstd.create != NULL;
}

static void drop_zstd(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  void **context = data;
  zstd.free(*context);
  free(context);
}

// openZstd(windowLog): a decompressor that takes windows of so many bits; -ENOSYS without libzstd. closeZstd gives its
// memory back, else the collector does.
static napi_value open_zstd(napi_env env, napi_callback_info info) {
  ARGS;
  if (!has_zstd()) return integer(env, -ENOSYS);
  void **context = malloc(sizeof *context);
  if (context == NULL) return integer(env, -ENOMEM);
  *context = zstd.create();
  napi_value result;
  int window_log = arg_int(env, argv[0]);
  if (*context == NULL || zstd.is_error(zstd.set(*context, ZSTD_WINDOW_LOG_MAX, window_log)) ||
      napi_create_external(env, context, drop_zstd, NULL, &result) != napi_ok) {
    drop_zstd(env, context, NULL);
    return integer(env, -ENOMEM);
  }
  return result;
}

// stepZstd(decompressor, in, out, counts: Uint32Array(2)): takes and makes as much as it can; counts say how much.
// 0 when what was taken ends a frame, 1 when it doesn't; -ERANGE: its window is too large; -ENOMEM; -EPROTO: no zstd.
static napi_value step_zstd(napi_env env, napi_callback_info info) {
  ARGS;
  void **context = NULL;
  struct bytes in = arg_bytes(env, argv[1]), out = arg_bytes(env, argv[2]);
  struct bytes counts = arg_bytes(env, argv[3]);
  napi_get_value_external(env, argv[0], (void **)&context);
  if (context == NULL || *context == NULL || counts.length < 8) return integer(env, -EINVAL);
  struct span from = {in.data, in.length, 0}, to = {out.data, out.length, 0};
  size_t left = 1, sum;
  do {
    sum = from.at + to.at;
    size_t result = zstd.step(*context, &to, &from);
    if (zstd.is_error(result)) {
      size_t error = -result;
      int known = error == ZSTD_NO_MEMORY ? -ENOMEM : -EPROTO;
      return integer(env, error == ZSTD_WINDOW_TOO_LARGE ? -ERANGE : known);
    }
    if (from.at + to.at > sum) left = result;
  } while (from.at + to.at > sum && to.at < to.size && from.at < from.size);
  ((uint32_t *)counts.data)[0] = (uint32_t)from.at;
  ((uint32_t *)counts.data)[1] = (uint32_t)to.at;
  return integer(env, left != 0);
}

// closeZstd(decompressor): 0.
static napi_value close_zstd(napi_env env, napi_callback_info info) {
  ARGS;
  void **context = NULL;
  napi_get_value_external(env, argv[0], (void **)&context);
  if (context == NULL) return integer(env, -EINVAL);
  zstd.free(*context);
  *context = NULL;
  return integer(env, 0);
}

void register_codec(napi_env env, napi_value exports) {
  export_function(env, exports, "packLz4", pack_lz4);
  export_function(env, exports, "openZstd", open_zstd);
  export_function(env, exports, "stepZstd", step_zstd);
  export_function(env, exports, "closeZstd", close_zstd);
}
