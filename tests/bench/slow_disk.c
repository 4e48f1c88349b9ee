/*
 * slow_disk: preloaded into a server (LD_PRELOAD), makes every fdatasync(2), and every pwrite(2) to a file opened with O_DSYNC, take
 * SLOW_DISK_US microseconds more: a disk whose speed is known, when the files lie in memory.
 */
#undef _FILE_OFFSET_BITS /* pwrite and pwrite64 are two names here */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void delay(void)
{
	const char *us = getenv("SLOW_DISK_US");
	long n = us ? atol(us) : 0;
	struct timespec t = {n / 1000000, n % 1000000 * 1000};

	while (nanosleep(&t, &t) != 0)
		;
}

static void *next(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p)
		abort();
	return p;
}

int fdatasync(int fd)
{
	static int (*real)(int fd);

	if (!real)
		*(void **)&real = next("fdatasync");
	delay();
	return real(fd);
}

/* The write-ahead log, and LMDB's meta pages. */
ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	static ssize_t (*real)(int fd, const void *p, size_t n, off_t at);

	if (!real)
		*(void **)&real = next("pwrite64");
	if (fcntl(fd, F_GETFL) & O_DSYNC)
		delay();
	return real(fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	return pwrite(fd, p, n, at);
}
