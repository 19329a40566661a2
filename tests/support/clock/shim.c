/* A clock that jumps: preloaded into a process, it adds to the time of day what the file CLOCK_FILE says, in nanoseconds, as eight
 * bytes of this machine's order. Monotonic clocks are left alone, as the system leaves them. Waits until a time of day end by the
 * clock that jumps, as they do when it is the system's: a step back makes them longer. Those of threads.h and of pthread conditions are
 * meant here, which librdkafka's are; conditions that go by a monotonic clock are not told apart, and must not be used.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ll

static const volatile int64_t *offset;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CLOCK_FILE");
    real = (__typeof__(real))dlsym(RTLD_NEXT, "clock_gettime");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *there = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (!real || there == MAP_FAILED)
        abort();
    close(file);
    offset = there;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!real)
        real = (__typeof__(real))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_sec * SECOND + now->tv_nsec + *offset;
        now->tv_sec = ns / SECOND;
        now->tv_nsec = ns % SECOND;
    }
    return result;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

/* How long a wait goes on before it looks whether the clock has jumped. */
#define SLICE (20 * SECOND / 1000)

static int64_t ns_of(const struct timespec *time)
{
    return time->tv_sec * SECOND + time->tv_nsec;
}

/* The end of the next slice of a wait until `until`, by the system's clock; or, once `until` has come, a time that is over. */
static struct timespec slice(const struct timespec *until)
{
    struct timespec now;
    real(CLOCK_REALTIME, &now);
    int64_t left = ns_of(until) - (offset ? *offset : 0) - ns_of(&now);
    int64_t end = ns_of(&now) + (left < 0 ? 0 : left < SLICE ? left : SLICE);
    return (struct timespec){.tv_sec = end / SECOND, .tv_nsec = end % SECOND};
}

static int is_over(const struct timespec *until)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ns_of(&now) >= ns_of(until);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    if (!wait)
        wait = (__typeof__(wait))dlsym(RTLD_NEXT, "cnd_timedwait");
    for (;;) {
        struct timespec end = slice(until);
        int result = wait(condition, mutex, &end);
        if (result != thrd_timedout || is_over(until))
            return result;
    }
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!wait)
        wait = (__typeof__(wait))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    for (;;) {
        struct timespec end = slice(until);
        int result = wait(condition, mutex, &end);
        if (result != ETIMEDOUT || is_over(until))
            return result;
    }
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *now)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}
