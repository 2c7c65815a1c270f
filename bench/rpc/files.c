// files DIR COUNT MIB: times, in ns, of making COUNT files of 4 KiB (create, write, close, unlink), of writing a file of MIB MiB
// in pieces of 64 KiB, and of reading it again. One line each.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char piece[64 * 1024];

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int must(long long result, const char *what) {
  if (result >= 0) return (int)result;
  perror(what);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 4 || chdir(argv[1]) < 0) return fprintf(stderr, "usage: files DIR COUNT MIB\n"), 2;
  long count = atol(argv[2]), pieces = atol(argv[3]) * 16;
  memset(piece, 'x', sizeof piece);
  long long start = now();
  for (long i = 0; i < count; i++) {
    char name[32];
    snprintf(name, sizeof name, "f%ld", i);
    int fd = must(open(name, O_CREAT | O_EXCL | O_WRONLY, 0644), "open");
    must(write(fd, piece, 4096) == 4096 ? 0 : -1, "write");
    close(fd);
    must(unlink(name), "unlink");
  }
  printf("files %lld\n", now() - start);
  start = now();
  int fd = must(open("stream", O_CREAT | O_EXCL | O_RDWR, 0644), "open");
  for (long i = 0; i < pieces; i++) must(write(fd, piece, sizeof piece) == sizeof piece ? 0 : -1, "write");
  must(fsync(fd), "fsync");
  printf("write %lld\n", now() - start);
  start = now();
  must(lseek(fd, 0, SEEK_SET), "lseek");
  for (long i = 0; i < pieces; i++) must(read(fd, piece, sizeof piece) == sizeof piece ? 0 : -1, "read");
  printf("read %lld\n", now() - start);
  close(fd);
  return must(unlink("stream"), "unlink");
}
