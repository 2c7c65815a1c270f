// Threads for what would keep the loop: system calls on files, blocks, starts of programs. In place of libuv's pool,
// which takes work by a mutex and a condition variable: the loop waits there, 10 ms and more, for a thread that others
// keep from the CPUs (docs/design/0013-off-the-loop.md). Nothing that the loop does here waits for a worker: work goes
// to them through a ring of slots and a semaphore, and comes back in a list that is taken whole.
#include "addon.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define WORKERS_MAX 12  // Six may be the cache disk's (lib/cache/disk.ts), two the lazy mount's.
#define SLOTS 1024      // What finds none waits in a list of the loop's.
#define STACK_BYTES (512 * 1024)
#define TURN_MAX 32     // Ends that one turn of the loop tells of: each may be 0.1 ms of JavaScript.

// Of libuv, as uv.h has it, which Node.js exports. A handle has as many bytes as it says.
typedef struct uv_async bell;
struct uv_loop_s;
#define UV_ASYNC 1
int uv_async_init(struct uv_loop_s *, bell *, void (*)(bell *));
int uv_async_send(bell *);
size_t uv_handle_size(int);
void *uv_handle_get_data(const bell *);
void uv_handle_set_data(bell *, void *);
void uv_ref(bell *);
void uv_unref(bell *);
void uv_close(bell *, void (*)(bell *));

struct list {
  struct work *first, *last;
};

// Of one environment of Node.js, made with its first work.
struct workers {
  napi_env env;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  bell *bell;
  struct work *_Atomic slots[SLOTS];
  sem_t filled;             // Slots that nobody has taken yet.
  _Atomic uint32_t taken;   // So far, by workers.
  uint32_t given;           // So far, by the loop.
  struct work *_Atomic done;  // The last one first.
  struct list waiting, ended;  // For a slot; for the loop to tell of.
  uint32_t pending, count;
  pthread_t threads[WORKERS_MAX];
};

static void append(struct list *list, struct work *work) {
  work->next = NULL;
  if (list->first == NULL) list->first = work;
  else list->last->next = work;
  list->last = work;
}

static struct work *shift(struct list *list) {
  struct work *work = list->first;
  if (work != NULL) list->first = work->next;
  return work;
}

static void *serve(void *data) {
  struct workers *all = data;
  for (;;) {
    while (sem_wait(&all->filled) < 0) continue;
    // As many slots have been filled as have been taken with this one; or it is the end, behind all of them.
    struct work *work = atomic_exchange(&all->slots[atomic_fetch_add(&all->taken, 1) % SLOTS], NULL);
    if (work == NULL) return NULL;
    work->run(work);
    work->next = atomic_load(&all->done);
    while (!atomic_compare_exchange_weak(&all->done, &work->next, work)) continue;
    uv_async_send(all->bell);
  }
}

// Gives workers what waits, as far as there are slots. From then on a work is theirs, with its place in a list.
static void fill(struct workers *all) {
  struct work *_Atomic *slot;
  while (all->waiting.first != NULL && atomic_load(slot = &all->slots[all->given % SLOTS]) == NULL) {
    all->given++;
    atomic_store(slot, shift(&all->waiting));
    sem_post(&all->filled);
  }
}

static void tell(struct workers *all, struct work *work) {
  napi_env env = all->env;
  napi_handle_scope handles;
  napi_callback_scope scope;
  napi_value resource, error;
  bool is_thrown = false;
  napi_open_handle_scope(env, &handles);
  napi_create_object(env, &resource);
  bool is_scoped = napi_open_callback_scope(env, resource, all->context, &scope) == napi_ok;
  work->done(env, work);
  napi_is_exception_pending(env, &is_thrown);
  if (is_thrown && napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  if (is_scoped) napi_close_callback_scope(env, scope);
  napi_close_handle_scope(env, handles);
}

// What is done, the first one first, as ended.
static void collect(struct workers *all) {
  struct work *newest = atomic_exchange(&all->done, NULL), *oldest = NULL;
  while (newest != NULL) {
    struct work *next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  while (oldest != NULL) {
    struct work *next = oldest->next;
    append(&all->ended, oldest);
    oldest = next;
  }
}

static void ring(bell *bell) {
  struct workers *all = uv_handle_get_data(bell);
  collect(all);
  fill(all);
  for (int told = 0; told < TURN_MAX && all->ended.first != NULL; told++) {
    if (--all->pending == 0) uv_unref(bell);
    tell(all, shift(&all->ended));
  }
  if (all->ended.first != NULL) uv_async_send(bell);
}

static void forget(bell *bell) {
  struct workers *all = uv_handle_get_data(bell);
  napi_remove_async_cleanup_hook(all->cleanup);
  sem_destroy(&all->filled);
  free(bell);
  free(all);
}

// The environment ends: what workers have been given is waited for, as they may write to memory of JavaScript's. All of
// it is told, which frees it.
static void end(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  struct workers *all = data;
  struct work *work;
  for (uint32_t i = 0; i < all->count; i++) sem_post(&all->filled);
  for (uint32_t i = 0; i < all->count; i++) pthread_join(all->threads[i], NULL);
  collect(all);
  while ((work = shift(&all->ended)) != NULL || (work = shift(&all->waiting)) != NULL) tell(all, work);
  uv_close(all->bell, forget);
}

static struct workers *workers_of(napi_env env) {
  struct workers *all = NULL;
  struct uv_loop_s *loop;
  napi_value name;
  napi_get_instance_data(env, (void **)&all);
  if (all != NULL) return all;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok || (all = calloc(1, sizeof *all)) == NULL) return NULL;
  all->env = env;
  all->bell = malloc(uv_handle_size(UV_ASYNC));
  if (all->bell == NULL || uv_async_init(loop, all->bell, ring) < 0) return free(all->bell), free(all), NULL;
  uv_handle_set_data(all->bell, all);
  uv_unref(all->bell);
  sem_init(&all->filled, 0, 0);
  napi_create_string_latin1(env, "burrow", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &all->context);
  napi_add_async_cleanup_hook(env, end, all, &all->cleanup);
  napi_set_instance_data(env, all, NULL, NULL);
  return all;
}

// One more, which takes no signal: whether there is any.
static bool add_worker(struct workers *all) {
  pthread_attr_t attributes;
  sigset_t every, before;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  if (pthread_create(&all->threads[all->count], &attributes, serve, all) == 0) all->count++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return all->count > 0;
}

int begin_work(napi_env env, struct work *work) {
  struct workers *all = workers_of(env);
  if (all == NULL) return -ENOMEM;
  if (all->pending >= all->count && all->count < WORKERS_MAX && !add_worker(all)) return -EAGAIN;
  if (all->pending++ == 0) uv_ref(all->bell);
  append(&all->waiting, work);
  fill(all);
  return 0;
}
