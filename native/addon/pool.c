// What workers do: blocks are decompressed, compared with their digests and written, and files hashed,
// while the event loop goes on. SHA-256 of one piece is OpenSSL's, which Node.js has in it.
// docs/design/0013-off-the-loop.md
#include "addon.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

// OpenSSL's sha.h; a SHA256_CTX has 112 bytes.
typedef union {
  uint64_t aligned;
  uint8_t bytes[256];
} Context;
static struct {
  int (*init)(Context *);
  int (*update)(Context *, const void *, size_t);
  int (*final)(uint8_t *, Context *);
  // lz4.h; NULL where the system has no liblz4.
  int (*expand)(const void *, void *, int, int);
} lib;

static bool has_libraries(void) {
  if (lib.final != NULL) return true;
  *(void **)&lib.init = dlsym(RTLD_DEFAULT, "SHA256_Init");
  *(void **)&lib.update = dlsym(RTLD_DEFAULT, "SHA256_Update");
  void *final = dlsym(RTLD_DEFAULT, "SHA256_Final"), *lz4 = dlopen("liblz4.so.1", RTLD_NOW);
  if (lz4 != NULL) *(void **)&lib.expand = dlsym(lz4, "LZ4_decompress_safe");
  if (lib.init != NULL && lib.update != NULL) *(void **)&lib.final = final;
  return lib.final != NULL;
}

#define VALUES 3
struct job {
  struct work work;
  double (*run)(struct job *);
  napi_deferred promise;
  // What the thread reads and writes is held until it has ended; fd is a copy of the caller's.
  napi_ref held[VALUES];
  struct bytes bytes, plan, out;
  int fd;
  int64_t offset;
  size_t length;
  double result;
};

static void execute(struct work *work) {
  struct job *job = (struct job *)work;
  job->result = job->run(job);
  close(job->fd); // here, since the disk may hang
  job->fd = -1;
}

static void drop(napi_env env, struct job *job) {
  for (int i = 0; i < VALUES; i++)
    if (job->held[i] != NULL) napi_delete_reference(env, job->held[i]);
  if (job->fd >= 0) close(job->fd);
  free(job);
}

static void complete(napi_env env, struct work *work) {
  struct job *job = (struct job *)work;
  napi_resolve_deferred(env, job->promise, number(env, job->result));
  drop(env, job);
}

// A promise of what `job` comes to, or -errno. The job is taken.
static napi_value begin(napi_env env, struct job *job, int fd, const napi_value *values, int count) {
  napi_value promise;
  job->work = (struct work){execute, complete, NULL};
  job->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  int error = job->fd < 0 ? -errno : 0;
  for (int i = 0; i < count && error == 0; i++)
    if (napi_create_reference(env, values[i], 1, &job->held[i]) != napi_ok) error = -EINVAL;
  if (error == 0 && napi_create_promise(env, &job->promise, &promise) != napi_ok) error = -ENOMEM;
  if (error == 0) error = begin_work(env, &job->work);
  if (error == 0) return promise;
  drop(env, job);
  return integer(env, error);
}

static int write_all(int fd, const uint8_t *data, size_t length, int64_t offset) {
  for (size_t done = 0; done < length;) {
    ssize_t got = pwrite(fd, data + done, length - done, offset + (int64_t)done);
    if (got < 0 && errno != EINTR) return -errno;
    if (got > 0) done += (size_t)got;
  }
  return 0;
}

// A block as it is stored: where in the bytes, how (lib/store/codec.ts), how long its content is, and where that goes.
struct stored {
  uint32_t start, bytes, codec, length, block;
};
#define BLOCK_BYTES (256 * 1024)
// As many as there are lanes; their contents take 4 MiB.
#define BATCH 16
// Fewer are hashed as fast one after the other.
#define LANES_MIN 4
enum { RAW, LZ4 };
#define SHA256_BYTES 32

// The content of a block, in place or in `scratch`; NULL when that isn't what it should be.
static const uint8_t *expand(const struct stored *block, const uint8_t *bytes, uint8_t *scratch) {
  const uint8_t *data = bytes + block->start;
  if (block->codec == RAW) return block->bytes == block->length ? data : NULL;
  uint32_t claimed = 0;
  if (block->codec != LZ4 || scratch == NULL || lib.expand == NULL || block->bytes < sizeof claimed) return NULL;
  memcpy(&claimed, data, sizeof claimed);
  if (claimed != block->length) return NULL;
  int got = lib.expand(data + sizeof claimed, scratch, (int)(block->bytes - sizeof claimed), (int)claimed);
  return got == (int)claimed ? scratch : NULL;
}

static void keep_batch(struct job *job, size_t from, size_t count, uint8_t *scratch) {
  const struct stored *plan = (const struct stored *)job->plan.data + from;
  uint8_t *row = job->out.data + from * SHA256_BYTES, sums[BATCH][SHA256_BYTES];
  struct piece pieces[BATCH];
  size_t which[BATCH], good = 0;
  for (size_t i = 0; i < count; i++) {
    const uint8_t *data = expand(&plan[i], job->bytes.data, scratch ? scratch + i * BLOCK_BYTES : NULL);
    if (data == NULL) continue;
    pieces[good] = (struct piece){data, plan[i].length, sums[good]};
    which[good++] = i;
  }
  if (good >= LANES_MIN && has_lanes()) hash_in_lanes(pieces, good);
  else for (size_t k = 0; k < good; k++) {
    Context context;
    lib.init(&context);
    lib.update(&context, pieces[k].data, pieces[k].length);
    lib.final(sums[k], &context);
  }
  for (size_t k = 0; k < good; k++) {
    size_t i = which[k];
    uint8_t *digest = row + i * SHA256_BYTES;
    if (memcmp(sums[k], digest, SHA256_BYTES) != 0) continue;
    if (write_all(job->fd, pieces[k].data, pieces[k].length, (int64_t)plan[i].block * BLOCK_BYTES) == 0)
      memset(digest, 0, SHA256_BYTES);
  }
}

static double keep_all(struct job *job) {
  size_t count = job->plan.length / sizeof(struct stored);
  bool is_packed = false;
  for (size_t i = 0; i < count; i++) is_packed |= ((const struct stored *)job->plan.data)[i].codec != RAW;
  uint8_t *scratch = is_packed ? malloc((size_t)BATCH * BLOCK_BYTES) : NULL;
  for (size_t from = 0; from < count; from += BATCH)
    keep_batch(job, from, count - from < BATCH ? count - from : BATCH, scratch);
  free(scratch);
  return 0;
}

// keepBlocks(fd, bytes, plan: 5 u32 a block, digests: 32 bytes a block): a promise of 0, when each block that was right
// has been written to its place and its digest is zeros; whatever else is left to the caller. -EINVAL; -ENOSYS without
// OpenSSL's functions.
static napi_value keep_blocks(napi_env env, napi_callback_info info) {
  ARGS;
  if (!has_libraries()) return integer(env, -ENOSYS);
  struct bytes in = arg_bytes(env, argv[1]), plan = arg_bytes(env, argv[2]), out = arg_bytes(env, argv[3]);
  size_t count = plan.length / sizeof(struct stored);
  const struct stored *blocks = (const void *)plan.data;
  if (out.length < count * SHA256_BYTES) return integer(env, -EINVAL);
  for (size_t i = 0; i < count; i++)
    if ((uint64_t)blocks[i].start + blocks[i].bytes > in.length || blocks[i].length > BLOCK_BYTES)
      return integer(env, -EINVAL);
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL) return integer(env, -ENOMEM);
  *job = (struct job){.run = keep_all, .bytes = in, .plan = plan, .out = out};
  return begin(env, job, arg_int(env, argv[0]), argv + 1, 3);
}

#define READ_BYTES (256 * 1024)

static double hash_part(struct job *job) {
  Context context;
  memcpy(&context, job->out.data, sizeof context);
  uint8_t *piece = malloc(READ_BYTES);
  if (piece == NULL) return -ENOMEM;
  size_t done = 0;
  ssize_t got = 1;
  while (done < job->length && got > 0) {
    size_t most = job->length - done < READ_BYTES ? job->length - done : READ_BYTES;
    do got = pread(job->fd, piece, most, job->offset + (int64_t)done);
    while (got < 0 && errno == EINTR);
    if (got > 0) lib.update(&context, piece, (size_t)got);
    if (got > 0) done += (size_t)got;
  }
  int error = got < 0 ? errno : 0;
  free(piece);
  if (error != 0) return -error;
  memcpy(job->out.data, &context, sizeof context);
  if (got == 0) lib.final(job->out.data, &context);
  return (double)done;
}

// hashPart(fd, state: 256 bytes, offset, length): a promise of how many bytes from there were hashed into `state`, that
// starts anew at offset 0; fewer than `length` at the end of the file: then the state begins with the digest; -errno.
// -ENOSYS as above.
static napi_value hash_file_part(napi_env env, napi_callback_info info) {
  ARGS;
  if (!has_libraries()) return integer(env, -ENOSYS);
  struct bytes state = arg_bytes(env, argv[1]);
  int64_t offset = arg_i64(env, argv[2]), length = arg_i64(env, argv[3]);
  if (state.length < sizeof(Context) || offset < 0 || length < 0) return integer(env, -EINVAL);
  Context context;
  if (offset == 0 && lib.init(&context)) memcpy(state.data, &context, sizeof context);
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL) return integer(env, -ENOMEM);
  *job = (struct job){.run = hash_part, .out = state, .offset = offset, .length = (size_t)length};
  return begin(env, job, arg_int(env, argv[0]), argv + 1, 1);
}

static double spawn_there(struct job *job) {
  return spawn_words(job->bytes, job->plan);
}

// spawnLater(arguments, fds): a promise of what spawnProgram gives.
static napi_value spawn_later(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes text = arg_bytes(env, argv[0]), fds = arg_bytes(env, argv[1]);
  struct job *job = fds.length < sizeof(int) ? NULL : calloc(1, sizeof *job);
  if (job == NULL) return integer(env, -ENOMEM);
  *job = (struct job){.run = spawn_there, .bytes = text, .plan = fds};
  return begin(env, job, *(int *)fds.data, argv, 2);
}

void register_pool(napi_env env, napi_value exports) {
  export_function(env, exports, "spawnLater", spawn_later);
  export_function(env, exports, "keepBlocks", keep_blocks);
  export_function(env, exports, "hashPart", hash_file_part);
}
