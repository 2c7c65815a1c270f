// SHA-256 (FIPS 180-4) of many pieces of memory at once, each in one of 16 lanes of AVX-512: for CPUs without
// instructions for it, on which one after the other takes five times as long. docs/design/0012-sha256-lanes.md
#include "addon.h"
#include <cpuid.h>
#include <stdlib.h>

#define LANES 16
#define BLOCK 64

typedef uint32_t V __attribute__((vector_size(4 * LANES)));
typedef uint32_t Unaligned __attribute__((vector_size(4 * LANES), aligned(1)));

static const uint32_t START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
// A step of a transposition: in each square of 2 by 2 squares of SIDE words, those that lie across change places.
#define SWAP(SIDE, ...)                                                    \
  for (int i = 0; i < LANES; i++)                                          \
    if ((i & SIDE) == 0) {                                                 \
      V mask = {__VA_ARGS__}, left = __builtin_shuffle(w[i], w[i + SIDE], mask); \
      w[i + SIDE] = __builtin_shuffle(w[i], w[i + SIDE], mask + SIDE);     \
      w[i] = left;                                                         \
    }

// As many blocks of each lane, into its state.
__attribute__((target("avx512f")))
static void hash_blocks(V state[8], const uint8_t *const at[LANES], size_t blocks) {
  for (size_t n = 0; n < blocks; n++) {
    V w[LANES];
    for (int l = 0; l < LANES; l++) {
      V row = (V) * (const Unaligned *)(at[l] + BLOCK * n);
      w[l] = (ROR(row, 8) & 0xff00ff00) | (ROR(row, 24) & 0x00ff00ff);
    }
    SWAP(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
    SWAP(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    SWAP(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    SWAP(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
    V a = state[0], b = state[1], c = state[2], d = state[3];
    V e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 64
    for (int r = 0; r < 64; r++) {
      V x = w[r & 15];
      if (r >= 16) {
        V p = w[(r + 1) & 15], q = w[(r + 14) & 15];
        x += (ROR(p, 7) ^ ROR(p, 18) ^ (p >> 3)) + w[(r + 9) & 15] + (ROR(q, 17) ^ ROR(q, 19) ^ (q >> 10));
        w[r & 15] = x;
      }
      V t = h + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + (g ^ (e & (f ^ g))) + K[r] + x;
      V u = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & b) | (c & (a | b)));
      h = g, g = f, f = e, e = d + t, d = c, c = b, b = a, a = t + u;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
  }
}

// What is in a lane: blocks where they lie, then its last ones with the padding, then its digest is due.
struct lane {
  const uint8_t *at;
  size_t blocks, last_blocks;
  uint8_t last[2 * BLOCK], *digest;
};

static void begin(struct lane *lane, const uint8_t *data, size_t length, uint8_t *digest) {
  size_t rest = length % BLOCK;
  size_t last_blocks = rest < BLOCK - 8 ? 1 : 2;
  *lane = (struct lane){.at = data, .blocks = length / BLOCK, .last_blocks = last_blocks, .digest = digest};
  memcpy(lane->last, data + length - rest, rest);
  lane->last[rest] = 0x80;
  uint64_t bits = __builtin_bswap64(8 * (uint64_t)length);
  memcpy(lane->last + BLOCK * last_blocks - 8, &bits, 8);
}

bool has_lanes(void) {
  unsigned eax, ebx = 0, ecx, edx;
  __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
  return __builtin_cpu_supports("avx512f") && (ebx & bit_SHA) == 0;
}

void hash_in_lanes(const struct piece *pieces, size_t count) {
  struct lane lanes[LANES] = {0};
  V state[8];
  for (size_t next = 0;;) {
    size_t step = 0, active = 0;
    for (size_t l = 0; l < LANES; l++) {
      struct lane *lane = &lanes[l];
      if (lane->blocks == 0 && lane->last_blocks == 0 && lane->digest != NULL) {
        for (int i = 0; i < 8; i++) ((uint32_t *)lane->digest)[i] = __builtin_bswap32(state[i][l]);
        lane->digest = NULL;
      }
      if (lane->digest == NULL && next < count) {
        begin(lane, pieces[next].data, pieces[next].length, pieces[next].digest);
        next++;
        for (int i = 0; i < 8; i++) state[i][l] = START[i];
      }
      if (lane->blocks == 0 && lane->last_blocks > 0) {
        lane->at = lane->last;
        lane->blocks = lane->last_blocks;
        lane->last_blocks = 0;
      }
      if (lane->blocks == 0) continue;
      if (step == 0 || lane->blocks < step) step = lane->blocks;
      active = l;
    }
    if (step == 0) break;
    const uint8_t *at[LANES];
    // An idle lane goes along with another, for nobody.
    for (size_t l = 0; l < LANES; l++) at[l] = lanes[lanes[l].blocks > 0 ? l : active].at;
    hash_blocks(state, at, step);
    for (size_t l = 0; l < LANES; l++) {
      if (lanes[l].blocks == 0) continue;
      lanes[l].at += BLOCK * step;
      lanes[l].blocks -= step;
    }
  }
}

// hashLanes(bytes, ranges: Uint32Array of (start, length), digests: 32 bytes each): 0. It is fastest with the longest
// ranges first. -ENOSYS where this is no help.
static napi_value hash_lanes(napi_env env, napi_callback_info info) {
  ARGS;
  if (!has_lanes()) return integer(env, -ENOSYS);
  struct bytes in = arg_bytes(env, argv[0]), ranges = arg_bytes(env, argv[1]), out = arg_bytes(env, argv[2]);
  size_t count = ranges.length / 8;
  const uint32_t(*range)[2] = (const void *)ranges.data;
  if (out.length < 32 * count) return integer(env, -EINVAL);
  for (size_t i = 0; i < count; i++)
    if ((size_t)range[i][0] + range[i][1] > in.length) return integer(env, -EINVAL);
  struct piece *pieces = calloc(count + 1, sizeof *pieces);
  if (pieces == NULL) return integer(env, -ENOMEM);
  for (size_t i = 0; i < count; i++)
    pieces[i] = (struct piece){in.data + range[i][0], range[i][1], out.data + 32 * i};
  hash_in_lanes(pieces, count);
  free(pieces);
  return integer(env, 0);
}

void register_sha256(napi_env env, napi_value exports) {
  export_function(env, exports, "hashLanes", hash_lanes);
}
