/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mutex for code that runs while guest vector registers are live: no libc,
 * only the futex system call (which preserves them).  0 free, 1 held, 2 held
 * with waiters (Drepper, "Futexes Are Tricky", mutex 2).
 */
#ifndef ENGINE_DBT_LOCK_H
#define ENGINE_DBT_LOCK_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

struct lock {
	_Atomic uint32_t word;
};

/* A system call without errno or TLS; returns the raw result. */
static inline long raw_syscall4(long n, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

static inline long raw_syscall5(long n, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}

static inline void futex_wait(_Atomic uint32_t *word, uint32_t seen, const void *timeout)
{
	(void)raw_syscall4(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, seen, (long)timeout);
}

static inline void futex_wake(_Atomic uint32_t *word, int count)
{
	(void)raw_syscall4(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, count, 0);
}

static inline void lock_take(struct lock *l)
{
	uint32_t seen = 0;

	if (atomic_compare_exchange_strong(&l->word, &seen, 1))
		return;
	if (seen != 2)
		seen = atomic_exchange(&l->word, 2);
	while (seen != 0) {
		futex_wait(&l->word, 2, NULL);
		seen = atomic_exchange(&l->word, 2);
	}
}

static inline void lock_drop(struct lock *l)
{
	if (atomic_fetch_sub(&l->word, 1) != 1) {
		atomic_store(&l->word, 0);
		futex_wake(&l->word, 1);
	}
}

#endif /* ENGINE_DBT_LOCK_H */
