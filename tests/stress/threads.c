/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that must agree, and signals that must not be noticed by what they interrupt. */
#include "tests/stress/stress.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

/* --- threads --- */

#define THREADS 4u
#define STEPS 2000u
#define QUEUE 16u

static struct {
	pthread_mutex_t lock;
	pthread_cond_t not_empty, not_full;
	pthread_barrier_t barrier;
	uint64_t item[QUEUE];
	unsigned head, n;	/* of the queue */
	uint64_t plain;	/* counted under the lock */
	_Atomic uint64_t atomic, sent, received;
	uint64_t turn[THREADS];	/* between barriers, one writer each */
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER, .not_empty = PTHREAD_COND_INITIALIZER,
	     .not_full = PTHREAD_COND_INITIALIZER };

struct thread {
	pthread_t id;
	struct rng rng;
	unsigned index;
};

static void put(uint64_t value)
{
	must(pthread_mutex_lock(&shared.lock) == 0);
	while (shared.n == QUEUE)
		must(pthread_cond_wait(&shared.not_full, &shared.lock) == 0);
	shared.item[(shared.head + shared.n++) % QUEUE] = value;
	must(pthread_cond_signal(&shared.not_empty) == 0);
	must(pthread_mutex_unlock(&shared.lock) == 0);
}

static uint64_t get(void)
{
	uint64_t value;

	must(pthread_mutex_lock(&shared.lock) == 0);
	while (!shared.n)
		must(pthread_cond_wait(&shared.not_empty, &shared.lock) == 0);
	value = shared.item[shared.head++ % QUEUE];
	shared.n--;
	must(pthread_cond_signal(&shared.not_full) == 0);
	must(pthread_mutex_unlock(&shared.lock) == 0);
	return value;
}

static void count(struct thread *t)
{
	for (unsigned i = 0; i < STEPS; i++) {
		must(pthread_mutex_lock(&shared.lock) == 0);
		shared.plain++;
		must(pthread_mutex_unlock(&shared.lock) == 0);
		atomic_fetch_add(&shared.atomic, t->index + 1);
	}
}

/* Half of the threads send, the others receive as much. */
static void send_and_receive(struct thread *t)
{
	for (unsigned i = 0; i < STEPS / 4; i++)
		if (t->index & 1) {
			uint64_t v = rng_next(&t->rng);

			atomic_fetch_add(&shared.sent, v);
			put(v);
		} else {
			atomic_fetch_add(&shared.received, get());
		}
}

static void take_turns(struct thread *t)
{
	for (uint64_t i = 1; i < 50; i++) {
		shared.turn[t->index] = i;
		(void)pthread_barrier_wait(&shared.barrier);
		for (unsigned k = 0; k < THREADS; k++)
			must(shared.turn[k] == i);
		(void)pthread_barrier_wait(&shared.barrier);
	}
}

static void *thread_main(void *arg)
{
	count(arg);
	send_and_receive(arg);
	take_turns(arg);
	return NULL;
}

void piece_threads(struct work *w)
{
	struct thread threads[THREADS];

	must(pthread_barrier_init(&shared.barrier, NULL, THREADS) == 0);
	for (; !time_is_over(w); w->rounds++) {
		shared.plain = 0;
		atomic_store(&shared.atomic, 0);
		for (unsigned i = 0; i < THREADS; i++) {
			threads[i].index = i;
			threads[i].rng.s = rng_next(&w->rng);
			must(pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) == 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			must(pthread_join(threads[i].id, NULL) == 0);
		must(shared.plain == THREADS * STEPS && shared.n == 0);
		must(atomic_load(&shared.atomic) == STEPS * THREADS * (THREADS + 1) / 2);
		must(atomic_load(&shared.sent) == atomic_load(&shared.received));
	}
}

/* --- timers --- */

#define INTERVAL_NS 300000
#define LOOP 2000000u
#define TICK_LATE_NS 20000000000ull	/* a processor that is not run for a while is late; a lost tick never comes */

static volatile sig_atomic_t ticks;
static uint8_t other_stack[65536];

static void tick(int sig)
{
	volatile double noise = ticks;	/* the interrupted code's vector registers are not these */

	(void)sig;
	for (int i = 0; i < 10; i++)
		noise = noise * 1.5 + i;
	ticks++;
}

/* Integers and floating point; depends on every step. */
static uint64_t loop(uint64_t seed)
{
	uint64_t x = seed | 1;
	double y = 1;

	for (unsigned i = 0; i < LOOP; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		y = y * 0.999 + (double)(x >> 40);
	}
	return x + (uint64_t)y;
}

static void start_timer(timer_t *ret_timer)
{
	struct sigaction sa = { .sa_handler = tick, .sa_flags = SA_ONSTACK | SA_RESTART };
	stack_t stack = { .ss_sp = other_stack, .ss_size = sizeof(other_stack) };
	struct itimerspec every = { { 0, INTERVAL_NS }, { 0, INTERVAL_NS } };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };

	must(sigaltstack(&stack, NULL) == 0 && sigaction(SIGRTMIN, &sa, NULL) == 0);
	must(timer_create(CLOCK_MONOTONIC, &ev, ret_timer) == 0);
	must(timer_settime(*ret_timer, 0, &every, NULL) == 0);
}

/* Sleeps end late or on time, never early; clocks do not go back. */
static void check_clocks(struct rng *rng)
{
	struct timespec until;
	uint64_t before = now_ns(), end = before + rng_below(rng, 3000000), last = 0;

	until = (struct timespec){ .tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
		;
	must(now_ns() >= end);
	for (int i = 0; i < 1000; i++) {
		uint64_t now = now_ns();

		must(now >= last);
		last = now;
	}
}

void piece_timers(struct work *w)
{
	volatile uint64_t seed = rng_next(&w->rng);	/* or the compiler would know that loops are alike */
	uint64_t expected = loop(seed);
	timer_t timer;

	start_timer(&timer);
	for (; !time_is_over(w); w->rounds++) {
		sig_atomic_t before = ticks;
		uint64_t begin = now_ns();

		do {
			must(loop(seed) == expected);
			must(now_ns() - begin < TICK_LATE_NS);
		} while (ticks == before);
		check_clocks(&w->rng);
	}
	must(timer_delete(timer) == 0);
}
