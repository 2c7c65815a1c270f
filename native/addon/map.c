// Mappings as ArrayBuffers: an index file read-only, a channel's window shared.
#include "addon.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct mapping {
  void *address;
  size_t length;
};

static void release(napi_env env, void *data, void *hint) {
  (void)env;
  (void)data;
  struct mapping *mapping = hint;
  if (mapping->address != NULL) munmap(mapping->address, mapping->length);
  free(mapping);
}

// map(fd, offset, length, writable): Uint8Array's ArrayBuffer over a MAP_SHARED mapping, or -errno.
// It is unmapped by unmap, else when the ArrayBuffer is collected.
static napi_value map(napi_env env, napi_callback_info info) {
  ARGS;
  size_t length = (size_t)arg_i64(env, argv[2]);
  bool writable = false;
  napi_get_value_bool(env, argv[3], &writable);
  void *address = mmap(NULL, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                       arg_int(env, argv[0]), arg_i64(env, argv[1]));
  if (address == MAP_FAILED) return integer(env, -errno);
  struct mapping *mapping = malloc(sizeof *mapping);
  if (mapping == NULL) {
    munmap(address, length);
    return integer(env, -ENOMEM);
  }
  *mapping = (struct mapping){address, length};
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, address, length, release, mapping, &buffer) != napi_ok) {
    release(env, NULL, mapping);
    return integer(env, -ENOMEM);
  }
  napi_wrap(env, buffer, mapping, NULL, NULL, NULL);
  return buffer;
}

// unmap(buffer): unmaps what map gave, now, and empties every view of it. The collector can't be relied on: it runs
// finalizers from the event loop, to which the data plane's thread never returns.
static napi_value unmap(napi_env env, napi_callback_info info) {
  ARGS;
  struct mapping *mapping = NULL;
  if (napi_unwrap(env, argv[0], (void **)&mapping) != napi_ok || mapping->address == NULL) {
    return integer(env, -EINVAL);
  }
  void *address = mapping->address;
  size_t length = mapping->length;
  mapping->address = NULL;  // `mapping` may be gone after the next call.
  napi_detach_arraybuffer(env, argv[0]);
  return outcome(env, munmap(address, length));
}

void register_map(napi_env env, napi_value exports) {
  export_function(env, exports, "map", map);
  export_function(env, exports, "unmap", unmap);
}
