// read, write, lseek, truncate, fallocate, mmap, fsync. man pages of section 2.
#include "posix.h"
#include <setjmp.h>

static void checkWrite(void) {
  char text[64] = "";
  int fd = open("w", O_RDWR | O_CREAT, 0644), reader = open("w", O_RDONLY), writer = open("w", O_WRONLY);
  IS("write", write(fd, "0123456789", 10));
  IS("write of 0 bytes", write(fd, "", 0));
  IS("write by O_RDONLY", write(reader, "x", 1));
  IS("read by O_WRONLY", read(writer, text, 1));
  IS("read of a directory", read(open(".", O_RDONLY), text, 1));
  IS("pread", pread(reader, text, 5, 3));
  IS("  its bytes", memcmp(text, "34567", 5));
  IS("pread at the end", pread(reader, text, 5, 10));
  IS("pread past the end", pread(reader, text, 5, 1000));
  IS("pread over the end", pread(reader, text, 50, 8));
  IS("pread at -1", pread(reader, text, 5, -1));
  IS("pwrite at -1", pwrite(fd, "x", 1, -1));
  IS("pwrite past the end", pwrite(fd, "end", 3, 20));
  IS("  size", sizeOf("w"));
  IS("  zeros between", pread(reader, text, 10, 10) == 10 && text[0] == 0 && text[9] == 0);
  int appender = open("w", O_WRONLY | O_APPEND);
  IS("O_APPEND", write(appender, "tail", 4));
  IS("  size", sizeOf("w"));
  IS("  position", lseek(appender, 0, SEEK_CUR));
  pwrite(fd, "longer", 6, 40);
  IS("O_APPEND after another's write", write(appender, "tail", 4));
  IS("  size", sizeOf("w"));
  IS("O_APPEND after lseek", (lseek(appender, 0, SEEK_SET), write(appender, "T", 1)));
  IS("  size", sizeOf("w"));
  IS("pwrite with O_APPEND", pwrite(appender, "P", 1, 0));
  IS("  size", sizeOf("w"));
  truncate("w", 4);
  IS("O_APPEND after truncate", write(appender, "56", 2));
  IS("  content", sum("w"));
  IS("F_SETFL O_APPEND", fcntl(fd, F_SETFL, O_APPEND));
  IS("  F_GETFL", fcntl(fd, F_GETFL) & O_APPEND);
  IS("  write", (lseek(fd, 0, SEEK_SET), write(fd, "app", 3)));
  IS("  content", sum("w"));
  struct rlimit limit = {100, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &limit);
  fcntl(fd, F_SETFL, 0);
  IS("RLIMIT_FSIZE: write over it", pwrite(fd, text, 20, 90));
  IS("RLIMIT_FSIZE: write past it", pwrite(fd, text, 20, 100));
  IS("RLIMIT_FSIZE: ftruncate past it", ftruncate(fd, 200));
  setrlimit(RLIMIT_FSIZE, &none);
  close(fd), close(reader), close(writer), close(appender);
}

static void checkSeek(void) {
  int fd = open("s", O_RDWR | O_CREAT, 0644);
  pwrite(fd, "a", 1, 0), pwrite(fd, "b", 1, 1 << 20);
  IS("SEEK_END", lseek(fd, 0, SEEK_END));
  IS("SEEK_SET past the end", lseek(fd, 1 << 22, SEEK_SET));
  IS("SEEK_SET -1", lseek(fd, -1, SEEK_SET));
  IS("SEEK_CUR before 0", lseek(fd, -(1 << 23), SEEK_CUR));
  IS("SEEK of no kind", lseek(fd, 0, 99));
  IS("SEEK_HOLE", lseek(fd, 0, SEEK_HOLE));
  IS("SEEK_DATA", lseek(fd, 8192, SEEK_DATA));
  IS("SEEK_DATA past the end", lseek(fd, 1 << 21, SEEK_DATA));
  close(fd);
}

static void checkTruncate(void) {
  put("t", "truncated", 0644);
  IS("truncate", truncate("t", 4));
  IS("  content", sum("t"));
  IS("truncate to more", truncate("t", 100000));
  IS("  content", sum("t"));
  IS("truncate to 0", truncate("t", 0));
  IS("truncate to -1", truncate("t", -1));
  IS("truncate of nothing", truncate("nothing", 1));
  IS("truncate of a directory", truncate(".", 1));
  IS("truncate beneath a file", truncate("t/x", 1));
  IS("truncate to 2^62", truncate("t", 1ll << 62));
  int fd = open("t", O_RDONLY);
  IS("ftruncate by O_RDONLY", ftruncate(fd, 1));
  close(fd);
  fd = open("t", O_WRONLY);
  IS("ftruncate by O_WRONLY", ftruncate(fd, 1ll << 32));
  IS("  size", sizeOf("t"));
  IS("  ftruncate to -1", ftruncate(fd, -1));
  close(fd);
  truncate("t", 0);
}

static void checkFallocate(void) {
  int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0644), reader = open("f", O_RDONLY);
  char page[4096];
  memset(page, 'p', sizeof page);
  IS("fallocate", fallocate(fd, 0, 0, 10000));
  IS("  size", sizeOf("f"));
  IS("fallocate of less", fallocate(fd, 0, 0, 10));
  IS("  size", sizeOf("f"));
  for (int i = 0; i < 4; i++) pwrite(fd, page, sizeof page, i * 4096);
  IS("fallocate KEEP_SIZE", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100000));
  IS("  size", sizeOf("f"));
  IS("fallocate PUNCH_HOLE", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
  IS("  content", sum("f"));
  IS("fallocate PUNCH_HOLE of part of a page", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 20));
  IS("  content", sum("f"));
  IS("fallocate PUNCH_HOLE alone", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
  IS("fallocate ZERO_RANGE", fallocate(fd, FALLOC_FL_ZERO_RANGE, 8192, 4096));
  IS("fallocate COLLAPSE_RANGE", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
  IS("fallocate INSERT_RANGE", fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096));
  IS("fallocate UNSHARE_RANGE", fallocate(fd, FALLOC_FL_UNSHARE_RANGE, 0, 4096));
  IS("fallocate unknown mode", fallocate(fd, 0x8000, 0, 4096));
  IS("fallocate at -1", fallocate(fd, 0, -1, 10));
  IS("fallocate of 0", fallocate(fd, 0, 0, 0));
  IS("fallocate of -1", fallocate(fd, 0, 0, -1));
  IS("fallocate past 2^63", fallocate(fd, 0, INT64_MAX, 10));
  IS("fallocate by O_RDONLY", fallocate(reader, 0, 0, 10));
  IS("fallocate of a directory", fallocate(open(".", O_RDONLY), 0, 0, 10));
  IS("posix_fallocate", posix_fallocate(fd, 0, 50000));
  IS("  size", sizeOf("f"));
  close(fd), close(reader);
}

static sigjmp_buf faulted;
static void onBus(int signal) {
  (void)signal;
  siglongjmp(faulted, 1);
}

static void checkMmap(void) {
  int fd = open("m", O_RDWR | O_CREAT | O_TRUNC, 0644), reader = open("m", O_RDONLY);
  char text[8] = "";
  ftruncate(fd, 8192);
  char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  IS("mmap MAP_SHARED", map == MAP_FAILED ? -1 : 0);
  if (map == MAP_FAILED) return;
  memcpy(map + 4094, "mapped", 6);
  IS("  seen by pread", pread(reader, text, 6, 4094) == 6 && memcmp(text, "mapped", 6) == 0);
  pwrite(fd, "PWRITE", 6, 100);
  IS("  sees pwrite", memcmp(map + 100, "PWRITE", 6));
  IS("  msync", msync(map, 8192, MS_SYNC));
  IS("  content", sum("m"));
  signal(SIGBUS, onBus);
  ftruncate(fd, 4096);
  IS("  SIGBUS past the end", sigsetjmp(faulted, 1) ? 1 : ((volatile char *)map)[5000]);
  ftruncate(fd, 8192);
  IS("  zeros after growing again", ((volatile char *)map)[4098]);
  unlink("m");
  map[0] = 'u';
  IS("  of an unlinked file", pread(reader, text, 1, 0) == 1 && text[0] == 'u');
  munmap(map, 8192);
  IS("mmap MAP_SHARED, PROT_WRITE by O_RDONLY", mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED ? -1 : 0);
  char *own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, reader, 0);
  IS("mmap MAP_PRIVATE", own == MAP_FAILED ? -1 : 0);
  if (own != MAP_FAILED) {
    own[0] = 'x';
    IS("  is not written", pread(reader, text, 1, 0) == 1 && text[0] == 'u');
  }
  IS("mmap of a directory", mmap(NULL, 4096, PROT_READ, MAP_SHARED, open(".", O_RDONLY), 0) == MAP_FAILED ? -1 : 0);
  close(fd), close(reader);
}

void checkData(void) {
  checkWrite();
  checkSeek();
  checkTruncate();
  checkFallocate();
  checkMmap();
  int fd = open("y", O_RDWR | O_CREAT, 0644), from = open("w", O_RDONLY), directory = open(".", O_RDONLY);
  IS("fsync", fsync(fd));
  IS("fdatasync", fdatasync(fd));
  IS("fsync of a directory", fsync(directory));
  IS("fsync by O_RDONLY", fsync(from));
  IS("fsync of -1", fsync(-1));
  IS("syncfs", syncfs(fd));
  IS("sync_file_range", sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
  loff_t zero = 0;
  IS("sendfile", syscall(SYS_sendfile, fd, from, &zero, 5));
  IS("  size", sizeOf("y"));
  IS("flock", (int)syscall(SYS_flock, fd, 2));
  struct flock lock = {.l_type = F_WRLCK};
  IS("fcntl F_SETLK", fcntl(fd, F_SETLK, &lock));
  close(fd), close(from), close(directory);
}
