/* A disk that is watched: preloaded into a server, it notes every change that the server makes to its files, and every sync.
 *
 * Notes the changes below DISK_DIR in the file DISK_TRACE, as disk/trace.rs reads them; without DISK_TRACE it notes nothing. While the file DISK_FULL is there, a write
 * that makes a file longer fails with ENOSPC; while DISK_BROKEN is there, every sync fails with EIO; while
 * DISK_HUNG is there, no sync ends. Files of shared memory (-shm)
 * and of no interest after a power cut (.log, .toml) are left out; of a disk that is not noted, nothing is.
 *
 * Changes and their notes are made under one lock, so the trace is in the order of the changes. A sync is two notes, since writes
 * may go on beside it: what it covers is what was written before the first, and it is durable from the second on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define FDS 65536
#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[FDS];
static int trace = -1;
static const char *dir, *full, *broken, *hung;
static size_t dir_length;
static uint64_t syncs;

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *to = getenv("DISK_TRACE");
    dir = getenv("DISK_DIR");
    full = getenv("DISK_FULL");
    broken = getenv("DISK_BROKEN");
    hung = getenv("DISK_HUNG");
    if (!dir)
        return;
    dir_length = strlen(dir);
    if (!to)
        return;
    trace = REAL(open)(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (trace < 0)
        abort();
}

static int ends_with(const char *path, const char *end)
{
    size_t a = strlen(path), b = strlen(end);
    return a >= b && !strcmp(path + a - b, end);
}

/* The path below DISK_DIR, "" for DISK_DIR itself, or NULL. A relative path is taken as one below it: servers run there. */
static const char *below(const char *path)
{
    if (!dir || !path)
        return NULL;
    if (trace >= 0 && (ends_with(path, "-shm") || ends_with(path, ".log") || ends_with(path, ".toml")))
        return NULL;
    if (path[0] != '/') {
        while (path[0] == '.' && path[1] == '/')
            path += 2;
        return strcmp(path, ".") ? path : "";
    }
    if (strncmp(path, dir, dir_length) || (path[dir_length] && path[dir_length] != '/'))
        return NULL;
    path += dir_length;
    while (*path == '/')
        path++;
    return path;
}

static void put(const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length) {
        ssize_t wrote = REAL(write)(trace, at, length);
        if (wrote < 0 && errno != EINTR)
            abort();
        if (wrote > 0)
            at += wrote, length -= wrote;
    }
}

/* One note: kind, time (ns since 1970), number, the path's length, the data's length, the path, the data. */
static void note(char kind, uint64_t number, const char *path, const void *data, uint64_t length)
{
    struct timespec now;
    int before = errno;
    if (trace < 0)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t head[5] = {kind, (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec, number, strlen(path), length};
    put(head, sizeof head);
    put(path, head[3]);
    put(data, length);
    errno = before;
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < FDS ? paths[fd] : NULL;
}

static int there(const char *path)
{
    int before = errno, is = path && !access(path, F_OK);
    errno = before;
    return is;
}

static int opened(int (*call)(const char *, int, ...), const char *path, int flags, mode_t mode)
{
    const char *name = below(path);
    if (!name)
        return call(path, flags, mode);
    pthread_mutex_lock(&lock);
    int was = there(path), fd = call(path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        free(paths[fd]);
        paths[fd] = strdup(name);
        if (!was)
            note('C', 0, name, NULL, 0);
        else if (flags & O_TRUNC)
            note('T', 0, name, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...)      \
    {                                               \
        va_list rest;                               \
        va_start(rest, flags);                      \
        mode_t mode = va_arg(rest, mode_t);         \
        va_end(rest);                               \
        return opened(REAL(name), path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (path_of(fd)) {
        pthread_mutex_lock(&lock);
        free(paths[fd]);
        paths[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return REAL(close)(fd);
}

/* A write of `length` bytes at `offset`, or where the file stands. */
static ssize_t wrote(int fd, const void *bytes, size_t length, off64_t offset, int positioned)
{
    struct stat now;
    pthread_mutex_lock(&lock);
    int known = !fstat(fd, &now);
    if (known && !positioned)
        offset = fcntl(fd, F_GETFL) & O_APPEND ? now.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t count;
    if (known && there(full) && offset + (off64_t)length > now.st_size) {
        errno = ENOSPC;
        count = -1;
    } else {
        count = positioned ? REAL(pwrite64)(fd, bytes, length, offset) : REAL(write)(fd, bytes, length);
        if (count > 0)
            note('W', offset, path_of(fd), bytes, count);
    }
    pthread_mutex_unlock(&lock);
    return count;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    return path_of(fd) ? wrote(fd, bytes, length, 0, 0) : REAL(write)(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    return path_of(fd) ? wrote(fd, bytes, length, offset, 1) : REAL(pwrite)(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    return path_of(fd) ? wrote(fd, bytes, length, offset, 1) : REAL(pwrite64)(fd, bytes, length, offset);
}

static int cut(int (*call)(int, off64_t), int fd, off64_t length)
{
    if (!path_of(fd))
        return call(fd, length);
    pthread_mutex_lock(&lock);
    int result = call(fd, length);
    if (!result)
        note('T', length, path_of(fd), NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length)
{
    return cut(REAL(ftruncate), fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return cut(REAL(ftruncate64), fd, length);
}

static int synced(int (*call)(int), int fd)
{
    if (!path_of(fd))
        return call(fd);
    while (there(hung))
        usleep(10000);
    if (there(broken)) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs;
    char *path = strdup(path_of(fd));
    note('S', number, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    int result = call(fd);
    pthread_mutex_lock(&lock);
    if (!result)
        note('E', number, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    free(path);
    return result;
}

int fsync(int fd)
{
    return synced(REAL(fsync), fd);
}

int fdatasync(int fd)
{
    return synced(REAL(fdatasync), fd);
}

int unlink(const char *path)
{
    const char *name = below(path);
    if (!name)
        return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    if (!result)
        note('U', 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to)
{
    const char *old = below(from), *new = below(to);
    if (!old || !new)
        return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = REAL(rename)(from, to);
    if (!result)
        note('R', 0, old, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    const char *old = below(from), *new = below(to);
    if (!old || !new)
        return REAL(linkat)(from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&lock);
    int result = REAL(linkat)(from_dir, from, to_dir, to, flags);
    if (!result)
        note('L', 0, old, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    const char *name = below(path);
    if (!name)
        return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&lock);
    int result = REAL(mkdir)(path, mode);
    if (!result)
        note('M', 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
