// names DIR: times, in ns, in a sandbox: listing DIR/forty with a stat of none, the median of COUNT missing names in DIR/fifty and in DIR/few, and DIR/file
// read in order in pieces of 1 MiB. Each is done once before it is timed. One line each.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char piece[1 << 20];
static long names;

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void listing(const char *path) {
  DIR *dir = opendir(path);
  if (!dir) perror(path), exit(1);
  for (names = 0; readdir(dir);) names++;
  closedir(dir);
}

static int byValue(const void *a, const void *b) {
  long long x = *(const long long *)a, y = *(const long long *)b;
  return (x > y) - (x < y);
}

/* The median of one: others work on the machine. New names each time: what is known to be missing is asked of nobody. */
static long long missing(const char *path, int round, int count) {
  static long long took[100000];
  char name[256];
  struct stat st;
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "%s/missing-%d-%d", path, round, i);
    took[i] = now();
    if (stat(name, &st) == 0) exit(1);
    took[i] = now() - took[i];
  }
  qsort(took, count, sizeof *took, byValue);
  return took[count / 2];
}

static void reading(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) perror(path), exit(1);
  while (read(fd, piece, sizeof piece) > 0)
    ;
  close(fd);
}

int main(int argc, char **argv) {
  if (argc != 3 || chdir(argv[1]) < 0) return fprintf(stderr, "usage: names DIR COUNT\n"), 2;
  int count = atoi(argv[2]);
  if (count < 10 || count > 100000) return 2;
  long long start;
  start = now(), listing("forty"), printf("first %lld\n", now() - start);
  start = now(), listing("forty"), printf("listing %lld\n", now() - start);
  if (names < 3) return 1;
  const char *dirs[] = {"few", "fifty"};
  for (int d = 0; d < 2; d++) {
    missing(dirs[d], 0, count / 10);
    printf("%s %lld\n", dirs[d], missing(dirs[d], 1, count));
  }
  reading("file");
  start = now(), reading("file"), printf("read %lld\n", now() - start);
}
