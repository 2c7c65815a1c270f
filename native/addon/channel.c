// Channels and the one wait over all of them. A channel is a flipcall window in memory shared with the
// client: {u32 connState, u32 dataLen, 8 zero bytes, datagram}. LISAFS: pkg/flipcall, lisafs-wire section 2.
//
// The data-plane thread sleeps in futex_waitv over every idle channel's connState and one doorbell word. Sockets
// are watched by one helper thread (epoll, one-shot), which rings the doorbell; it never reads them. So each
// connection's state has one owner, the data-plane thread, and any thread can wake it: waitRing.
//
// The client owns the window's memory as much as we do: each word is read once into a local and checked.
#include "addon.h"
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHANNELS_MAX 127
#define SOCKETS_MAX 128
#define WINDOW_HEADER 16
// In a channel's journal: u32 length of the request, u32 its serial number, 8 bytes unused, then what it says.
#define JOURNAL_HEADER 16
// dataLen while a request is handled and its reply overwrites it: no client sends so much. From then on the journal
// has what it said, and one store, that of the reply's length with the client's turn, ends it (docs/protocol/adopt.md).
#define UNDER_WAY 0xffffffffu
#define GIVE_TRIES 1000  // Only a client that writes to the words while it isn't its turn makes one fail.

// connState. flipcall_unsafe.go.
enum { CLIENT_ACTIVE = 0, SERVER_ACTIVE = 1, SHUTDOWN = 2 };
// What waitNext returns: a channel's slot, SOCKET_EVENT + slot, CLOSED_EVENT + channel slot, or RING_EVENT.
enum { SOCKET_EVENT = 1000, CLOSED_EVENT = 2000, RING_EVENT = 3000 };
enum slot_state { FREE, CONNECTING, IDLE, TAKEN, DEAD };

struct channel {
  uint8_t *window;
  uint32_t capacity;  // Bytes of datagram.
  enum slot_state state;
  uint8_t *journal;  // NULL: none.
  uint32_t journal_capacity;
  bool resumed;  // Another server had it: its first request may be one that was under way, or the handshake.
};

static struct {
  struct channel channels[CHANNELS_MAX];
  int channel_count;  // Highest used slot + 1.
  int next;           // Where the next scan starts, for fairness.
  int epoll;
  bool is_alone;  // No channels and no helper thread: waitNext watches the sockets itself.
  int sockets[SOCKETS_MAX];
  _Atomic uint8_t socket_ready[SOCKETS_MAX];
  _Atomic uint32_t doorbell;
  uint32_t doorbell_seen;
  _Atomic uint32_t rung;
  int32_t *events;  // JavaScript's Int32Array: [0] = dataLen of the channel just returned, [1]: it was under way.
  napi_ref events_ref;
} set = {.epoll = -1};

static _Atomic uint32_t *state_word(struct channel *c) { return (_Atomic uint32_t *)c->window; }
static _Atomic uint32_t *length_word(struct channel *c) { return (_Atomic uint32_t *)(c->window + 4); }

// Without FUTEX_PRIVATE_FLAG: the waiter is another process. futex_linux.go.
static void wake_peer(_Atomic uint32_t *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static void ring(void) {
  atomic_fetch_add(&set.doorbell, 1);
  syscall(SYS_futex, &set.doorbell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

// Notes the sockets that are ready within the timeout (ms, -1: none): how many.
static int note_ready(int timeout) {
  struct epoll_event events[16];
  int count = epoll_wait(set.epoll, events, 16, timeout);
  for (int i = 0; i < count; i++) atomic_store(&set.socket_ready[events[i].data.u32], 1);
  return count;
}

static void *watch_sockets(void *unused) {
  (void)unused;
  for (;;) {
    int count = note_ready(-1);
    if (count < 0 && errno != EINTR) return NULL;
    if (count > 0) ring();
  }
}

// waitCreate(events: Int32Array, isAlone): starts the helper thread, unless there will be no channels. Once a process.
static napi_value wait_create(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes events = arg_bytes(env, argv[0]);
  if (set.epoll >= 0 || events.length < 2 * sizeof(int32_t)) return integer(env, -EINVAL);
  // Without futex_waitv (Linux 5.16) every wait would return at once: refuse to start instead of spinning.
  bool is_alone = false;
  napi_get_value_bool(env, argv[1], &is_alone);
  if (!is_alone && syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno == ENOSYS) return outcome(env, -1);
  for (int i = 0; i < SOCKETS_MAX; i++) set.sockets[i] = -1;
  set.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (set.epoll < 0) return outcome(env, -1);
  set.events = (int32_t *)events.data;
  napi_create_reference(env, argv[0], 1, &set.events_ref);
  set.is_alone = is_alone;
  if (is_alone) return integer(env, 0);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 64 * 1024);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, watch_sockets, NULL);
  pthread_attr_destroy(&attributes);
  return integer(env, -error);
}

// waitAddChannel(window: Uint8Array, journal: Uint8Array, isResumed): a slot. The caller keeps both mapped until
// waitDropChannel. isResumed: another server had the channel before, and its client is woken, since that may have died
// between a reply and the waking.
static napi_value wait_add_channel(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes window = arg_bytes(env, argv[0]);
  struct bytes journal = arg_bytes(env, argv[1]);
  bool resumed = false;
  napi_get_value_bool(env, argv[2], &resumed);
  if (window.length <= WINDOW_HEADER) return integer(env, -EINVAL);
  bool has_journal = journal.length > JOURNAL_HEADER;
  for (int slot = 0; slot < CHANNELS_MAX; slot++) {
    struct channel *c = &set.channels[slot];
    if (c->state != FREE) continue;
    *c = (struct channel){window.data, (uint32_t)(window.length - WINDOW_HEADER), resumed ? IDLE : CONNECTING,
                          has_journal ? journal.data : NULL,
                          has_journal ? (uint32_t)(journal.length - JOURNAL_HEADER) : 0, resumed};
    if (slot >= set.channel_count) set.channel_count = slot + 1;
    if (resumed) wake_peer(state_word(c), INT_MAX);
    return integer(env, slot);
  }
  return integer(env, -ENOMEM);
}

// waitDropChannel(slot, isLeft): shuts the channel down, or leaves it to another server, and forgets its window.
// ctrl_futex.go:shutdownConn.
static napi_value wait_drop_channel(napi_env env, napi_callback_info info) {
  ARGS;
  int slot = arg_int(env, argv[0]);
  if (slot < 0 || slot >= CHANNELS_MAX || set.channels[slot].state == FREE) return integer(env, -EINVAL);
  struct channel *c = &set.channels[slot];
  bool is_left = false;
  napi_get_value_bool(env, argv[1], &is_left);
  if (!is_left) atomic_exchange(state_word(c), SHUTDOWN), wake_peer(state_word(c), INT_MAX);
  c->state = FREE;
  c->window = NULL;
  while (set.channel_count > 0 && set.channels[set.channel_count - 1].state == FREE) set.channel_count--;
  return integer(env, 0);
}

static int arm(int slot, uint32_t interest, int operation) {
  struct epoll_event event = {.events = interest | EPOLLRDHUP, .data.u32 = (uint32_t)slot};
  return epoll_ctl(set.epoll, operation, set.sockets[slot], &event);
}

// waitAddSocket(fd): a socket slot, armed for input. The caller owns the FD.
static napi_value wait_add_socket(napi_env env, napi_callback_info info) {
  ARGS;
  for (int slot = 0; slot < SOCKETS_MAX; slot++) {
    if (set.sockets[slot] >= 0) continue;
    set.sockets[slot] = arg_int(env, argv[0]);
    atomic_store(&set.socket_ready[slot], 0);
    if (arm(slot, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_ADD) == 0) return integer(env, slot);
    set.sockets[slot] = -1;
    return outcome(env, -1);
  }
  return integer(env, -ENOMEM);
}

// waitArmSocket(slot, interest): events of epoll(7), once with EPOLLONESHOT, without which the helper would spin.
static napi_value wait_arm_socket(napi_env env, napi_callback_info info) {
  ARGS;
  int slot = arg_int(env, argv[0]);
  if (slot < 0 || slot >= SOCKETS_MAX || set.sockets[slot] < 0) return integer(env, -EINVAL);
  return outcome(env, arm(slot, arg_uint(env, argv[1]), EPOLL_CTL_MOD));
}

// waitDropSocket(slot): before the caller closes the FD.
static napi_value wait_drop_socket(napi_env env, napi_callback_info info) {
  ARGS;
  int slot = arg_int(env, argv[0]);
  if (slot < 0 || slot >= SOCKETS_MAX || set.sockets[slot] < 0) return integer(env, -EINVAL);
  int result = epoll_ctl(set.epoll, EPOLL_CTL_DEL, set.sockets[slot], NULL);
  set.sockets[slot] = -1;
  atomic_store(&set.socket_ready[slot], 0);
  return outcome(env, result);
}

// Gives control to the client: 0, or -1 when it shut the channel down or broke the protocol.
static int give(struct channel *c, uint32_t length) {
  // Both words at once: whoever looks finds either the request under way or the client's turn.
  _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)c->window;
  uint64_t now = atomic_load(words), then = (uint64_t)length << 32 | CLIENT_ACTIVE;
  int tries = 0;
  while ((uint32_t)now == SERVER_ACTIVE && tries < GIVE_TRIES && !atomic_compare_exchange_strong(words, &now, then))
    tries++;
  if ((uint32_t)now != SERVER_ACTIVE || tries == GIVE_TRIES) {
    c->state = DEAD;
    return -1;
  }
  wake_peer(state_word(c), 1);
  c->state = IDLE;
  return 0;
}

// The first datagram of a channel is the client's "{}\n"; the answer is the same. ctrl_futex.go:ctrlConnect.
static void shake_hands(struct channel *c) {
  memcpy(c->window + WINDOW_HEADER, "{}\n", 3);
  give(c, 3);
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Keeps what the request says, since its reply will overwrite it: a successor runs it again.
static void note_request(struct channel *c, uint32_t length) {
  if (c->journal == NULL) return;
  memcpy(c->journal + JOURNAL_HEADER, c->window + WINDOW_HEADER, least(length, c->journal_capacity));
  memcpy(c->journal, &length, sizeof length);
  uint32_t serial;
  memcpy(&serial, c->journal + 4, sizeof serial);
  serial++;
  memcpy(c->journal + 4, &serial, sizeof serial);
  atomic_store(length_word(c), UNDER_WAY);
}

// The length of the first request that a successor finds: of one that was under way, put back into the window and said
// so in events[1]; 0 for the handshake. The journal is the client's memory too: it says no more than a request may.
static uint32_t resume(struct channel *c, uint32_t length) {
  c->resumed = false;
  if (length == UNDER_WAY && c->journal != NULL) {
    memcpy(&length, c->journal, sizeof length);
    if (length <= c->capacity)
      memcpy(c->window + WINDOW_HEADER, c->journal + JOURNAL_HEADER, least(length, c->journal_capacity));
    set.events[1] = 1;  // And so it keeps its number.
  } else if (length == 3 && memcmp(c->window + WINDOW_HEADER, "{}\n", 3) == 0)
    return 0;
  return length;
}

// The slot of a channel that has a request, CLOSED_EVENT + slot of one that ended, or -1.
static int scan_channels(void) {
  for (int i = 0; i < set.channel_count; i++) {
    int slot = (set.next + i) % set.channel_count;
    struct channel *c = &set.channels[slot];
    if (c->state == FREE || c->state == TAKEN) continue;
    uint32_t state = c->state == DEAD ? SHUTDOWN : atomic_load(state_word(c));
    if (state == CLIENT_ACTIVE) continue;
    if (state != SERVER_ACTIVE) {
      c->state = TAKEN;  // Reported once; the caller drops it.
      return CLOSED_EVENT + slot;
    }
    if (c->state == CONNECTING) {
      shake_hands(c);
      continue;
    }
    uint32_t length = atomic_load_explicit(length_word(c), memory_order_relaxed);
    set.events[1] = 0;
    if (c->resumed && (length = resume(c, length)) == 0) {
      shake_hands(c);
      continue;
    }
    c->state = TAKEN;
    set.next = slot + 1;
    set.events[0] = length <= c->capacity ? (int32_t)length : -1;
    if (length <= c->capacity && !set.events[1]) note_request(c, length);
    return slot;
  }
  return -1;
}

static int scan_sockets(void) {
  if (atomic_exchange(&set.rung, 0)) return RING_EVENT;
  for (int slot = 0; slot < SOCKETS_MAX; slot++) {
    if (atomic_load_explicit(&set.socket_ready[slot], memory_order_relaxed) == 0) continue;
    if (atomic_exchange(&set.socket_ready[slot], 0) && set.sockets[slot] >= 0) return SOCKET_EVENT + slot;
  }
  return -1;
}

// Sleeps until a word changes: 0, or -ETIMEDOUT. deadline NULL: no limit.
static int sleep_on_words(const struct timespec *deadline) {
  struct futex_waitv words[CHANNELS_MAX + 1];
  unsigned count = 0;
  words[count++] = (struct futex_waitv){set.doorbell_seen, (uintptr_t)&set.doorbell,
                                        FUTEX_32 | FUTEX_PRIVATE_FLAG, 0};
  for (int slot = 0; slot < set.channel_count; slot++) {
    struct channel *c = &set.channels[slot];
    if (c->state != IDLE && c->state != CONNECTING) continue;
    words[count++] = (struct futex_waitv){CLIENT_ACTIVE, (uintptr_t)c->window, FUTEX_32, 0};
  }
  long result = syscall(SYS_futex_waitv, words, count, 0, deadline, CLOCK_MONOTONIC);
  return result < 0 && errno == ETIMEDOUT ? -ETIMEDOUT : 0;
}

// waitReply(slot, bytes): gives the reply that stands in the window to the client.
static napi_value wait_reply(napi_env env, napi_callback_info info) {
  ARGS;
  int slot = arg_int(env, argv[0]);
  uint32_t length = arg_uint(env, argv[1]);
  if (slot < 0 || slot >= CHANNELS_MAX || set.channels[slot].state != TAKEN) return integer(env, -EINVAL);
  if (length > set.channels[slot].capacity) return integer(env, -EINVAL);
  return integer(env, give(&set.channels[slot], length) < 0 ? -EPIPE : 0);
}

// waitNext(replySlot or -1, replyBytes, timeoutMs or -1): answers one channel, then blocks until there is work:
// a slot with a request (its length in events[0], -1 when out of bounds), SOCKET_EVENT + slot,
// CLOSED_EVENT + slot, RING_EVENT, or -ETIMEDOUT. Woken by waitRing.
static napi_value wait_next(napi_env env, napi_callback_info info) {
  ARGS;
  int reply = arg_int(env, argv[0]);
  uint32_t length = arg_uint(env, argv[1]);
  int32_t timeout = arg_int(env, argv[2]);
  if (reply >= 0) {
    if (reply >= CHANNELS_MAX || set.channels[reply].state != TAKEN) return integer(env, -EINVAL);
    if (length > set.channels[reply].capacity) return integer(env, -EINVAL);
    give(&set.channels[reply], length);
  }
  while (set.is_alone) {
    int event = scan_sockets();
    if (event >= 0) return integer(env, event);
    int count = note_ready(timeout);
    if (count == 0) return integer(env, -ETIMEDOUT);
    if (count < 0) return outcome(env, -1);
  }
  struct timespec deadline;
  if (timeout >= 0) {
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout / 1000;
    deadline.tv_nsec += (long)(timeout % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
      deadline.tv_sec++;
      deadline.tv_nsec -= 1000000000;
    }
  }
  for (;;) {
    uint32_t bell = atomic_load(&set.doorbell);
    if (bell != set.doorbell_seen) {
      int event = scan_sockets();
      if (event >= 0) return integer(env, event);
      set.doorbell_seen = bell;
    }
    int slot = scan_channels();
    if (slot >= 0) return integer(env, slot);
    if (sleep_on_words(timeout >= 0 ? &deadline : NULL) < 0) return integer(env, -ETIMEDOUT);
  }
}

// waitRing(): wakes waitNext from any thread.
static napi_value wait_ring(napi_env env, napi_callback_info info) {
  (void)info;
  atomic_store(&set.rung, 1);
  ring();
  return integer(env, 0);
}

// channelDonate(socketFd, fd): one message without bytes and with one FD on the channel's FD socket. Never
// blocks: a client that does not take its FDs gets none. fdchannel_unsafe.go:SendFD.
static napi_value channel_donate(napi_env env, napi_callback_info info) {
  ARGS;
  int fd = arg_int(env, argv[1]);
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {.bytes = {0}};
  struct msghdr message = {.msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return outcome(env, sendmsg(arg_int(env, argv[0]), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

// channelCall(window, length, timeoutMs): the client's end, for tests, benches and doors of our own: gives control
// with a datagram of `length` bytes and blocks until it is back: the reply's dataLen, -EPIPE after shutdown, or
// -ETIMEDOUT. Woken by the server's reply or its shutdown.
static napi_value channel_call(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes window = arg_bytes(env, argv[0]);
  if (window.length <= WINDOW_HEADER) return integer(env, -EINVAL);
  struct channel c = {window.data, (uint32_t)(window.length - WINDOW_HEADER), IDLE, NULL, 0, false};
  int32_t timeout = arg_int(env, argv[2]);
  struct timespec limit = {timeout / 1000, (long)(timeout % 1000) * 1000000};
  atomic_store(length_word(&c), arg_uint(env, argv[1]));
  uint32_t expected = CLIENT_ACTIVE;
  if (!atomic_compare_exchange_strong(state_word(&c), &expected, SERVER_ACTIVE)) return integer(env, -EPIPE);
  wake_peer(state_word(&c), 1);
  for (;;) {
    uint32_t state = atomic_load(state_word(&c));
    if (state == CLIENT_ACTIVE) return number(env, atomic_load(length_word(&c)));
    if (state != SERVER_ACTIVE) return integer(env, -EPIPE);
    long result = syscall(SYS_futex, state_word(&c), FUTEX_WAIT, SERVER_ACTIVE, timeout >= 0 ? &limit : NULL);
    if (result < 0 && errno == ETIMEDOUT) return integer(env, -ETIMEDOUT);
  }
}

void register_channel(napi_env env, napi_value exports) {
  export_function(env, exports, "waitCreate", wait_create);
  export_function(env, exports, "waitAddChannel", wait_add_channel);
  export_function(env, exports, "waitDropChannel", wait_drop_channel);
  export_function(env, exports, "waitAddSocket", wait_add_socket);
  export_function(env, exports, "waitArmSocket", wait_arm_socket);
  export_function(env, exports, "waitDropSocket", wait_drop_socket);
  export_function(env, exports, "waitNext", wait_next);
  export_function(env, exports, "waitReply", wait_reply);
  export_function(env, exports, "waitRing", wait_ring);
  export_function(env, exports, "channelDonate", channel_donate);
  export_function(env, exports, "channelCall", channel_call);
}
