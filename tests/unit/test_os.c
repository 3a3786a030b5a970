/* SPDX-License-Identifier: Apache-2.0 */
/* The small modules of os/: reports, log, saved state, thread pool. */
#include "base/sha256.h"
#include "os/blob.h"
#include "os/context.h"
#include "os/err.h"
#include "os/lazy.h"
#include "os/log.h"
#include "os/memory.h"
#include "os/pool.h"
#include "os/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* ------------------------------------------------- libraries loaded when needed */

static const void *lazy_at[2];
static const char *const lazy_names[] = { "cos", "no_such_function" };

static void test_a_library_is_loaded_with_the_first_function(void **state)
{
	struct lazy_library lib = { .soname = "libm.so.6", .name = lazy_names, .at = lazy_at };
	const void *found = lazy_function(&lib, 0);
	double (*cosine)(double);

	assert_non_null(lib.handle);
	assert_ptr_equal(lazy_at[0], found);
	memcpy(&cosine, &found, sizeof(cosine));
	assert_true(cosine(0) == 1);
	assert_ptr_equal(lazy_function(&lib, 0), found);
}

static void test_a_library_that_is_not_there_ends_the_program(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct lazy_library lib = { .soname = i ? "libm.so.6" : "libno-such.so.1", .name = lazy_names, .at = lazy_at };
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			(void)close(STDERR_FILENO);
			(void)lazy_function(&lib, i);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 125);
	}
}

/* ------------------------------------------------------------------ reports */

static void test_a_report_has_code_and_sentence(void **state)
{
	struct err err = { 0 };

	assert_int_equal(err_set(&err, -ENOENT, "no %s number %d", "file", 7), -ENOENT);
	assert_int_equal(err.code, -ENOENT);
	assert_string_equal(err.msg, "no file number 7");
	assert_int_equal(err_prefix(&err, -EIO, "disk %d", 2), -ENOENT);
	assert_string_equal(err.msg, "disk 2: no file number 7");
	assert_int_equal(err_set(NULL, -EIO, "unheard"), -EIO);
	assert_int_equal(err_prefix(NULL, -EIO, "unheard"), -EIO);
}

static void test_a_failure_without_a_sentence_stays_one(void **state)
{
	struct err err = { 0 };

	assert_int_equal(err_prefix(&err, -ENOENT, "disk %d", 2), -ENOENT);
	assert_int_equal(err.code, -ENOENT);
	assert_string_equal(err.msg, "disk 2: No such file or directory");
}

static void test_long_reports_are_cut_inside_their_memory(void **state)
{
	struct { struct err err; char canary[8]; } s = { .canary = "canary" };
	char text[2 * sizeof(s.err.msg)], start[sizeof(s.err.msg)];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	(void)err_set(&s.err, -EIO, "%s", text);
	assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
	(void)err_prefix(&s.err, -EIO, "context");
	assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
	assert_memory_equal(s.err.msg, "context: xxx", 12);
	memcpy(start, s.err.msg, sizeof(start));
	(void)err_prefix(&s.err, -EIO, "%s", text);	/* a context without room is left out */
	assert_string_equal(s.err.msg, start);
	for (size_t n = sizeof(s.err.msg) - 6; n < sizeof(s.err.msg) + 1; n++) {
		(void)err_set(&s.err, -EIO, "why");
		(void)err_prefix(&s.err, -EIO, "%.*s", (int)n, text);
		assert_true(strlen(s.err.msg) < sizeof(s.err.msg));
	}
	assert_string_equal(s.canary, "canary");
}

/* ---------------------------------------------------------------------- log */

static char logged[1024];

static void note(void *ctx, enum log_level level, const char *module, const char *msg)
{
	assert_ptr_equal(ctx, logged);
	assert_string_equal(module, "test");
	(void)strncpy(logged, msg, sizeof(logged) - 1);
}

static void test_lines_reach_the_sink_by_level(void **state)
{
	char text[2000];

	log_msg(LOG_LEVEL_ERROR, "test", "to nobody");
	assert_false(log_enabled(LOG_LEVEL_ERROR));
	log_set_sink(note, logged, LOG_LEVEL_WARN);
	assert_true(log_enabled(LOG_LEVEL_WARN));
	assert_false(log_enabled(LOG_LEVEL_INFO));
	log_msg(LOG_LEVEL_INFO, "test", "too small");
	assert_string_equal(logged, "");
	log_msg(LOG_LEVEL_WARN, "test", "line %d", 1);
	assert_string_equal(logged, "line 1");
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_msg(LOG_LEVEL_ERROR, "test", "%s", text);
	assert_true(strlen(logged) > 100 && strlen(logged) < sizeof(text) - 1);
	log_set_sink(NULL, NULL, LOG_LEVEL_DEBUG);
	assert_false(log_enabled(LOG_LEVEL_ERROR));
}

/* -------------------------------------------------------------- saved state */

static void test_what_is_put_is_taken_in_little_endian(void **state)
{
	static const uint8_t want[] = { 2, 1, 6, 5, 4, 3, 14, 13, 12, 11, 10, 9, 8, 7, 'x', 'y' };
	struct blob blob = { 0 };
	struct blob_reader in;

	blob_put_u16(&blob, 0x0102);
	blob_put_u32(&blob, 0x03040506);
	blob_put_u64(&blob, 0x0708090a0b0c0d0eull);
	blob_put(&blob, "xy", 2);
	blob_put(&blob, NULL, 0);
	assert_false(blob.failed);
	assert_int_equal(blob.len, sizeof(want));
	assert_memory_equal(blob.bytes, want, sizeof(want));
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(blob_take_u16(&in), 0x0102);
	assert_int_equal(blob_take_u32(&in), 0x03040506);
	assert_int_equal(blob_take_u64(&in), 0x0708090a0b0c0d0eull);
	assert_memory_equal(blob_take(&in, 2), "xy", 2);
	assert_int_equal(in.left, 0);
	assert_false(in.failed);
	blob_finish(&blob);
	assert_null(blob.bytes);
}

static void test_a_reader_past_the_end_stays_failed(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 3 };
	struct blob_reader in = { .at = bytes, .left = sizeof(bytes) };

	assert_int_equal(blob_take_u16(&in), 0x0201);
	assert_int_equal(blob_take_u32(&in), 0);
	assert_true(in.failed);
	assert_null(blob_take(&in, 1));	/* there, but the record is broken */
	assert_int_equal(blob_take_u16(&in), 0);
	assert_int_equal(blob_take_u64(&in), 0);
	in = (struct blob_reader){ .at = bytes, .left = sizeof(bytes) };
	assert_null(blob_take(&in, SIZE_MAX));
	assert_true(in.failed);
}

static void test_blobs_grow_without_losing_bytes(void **state)
{
	struct blob blob = { 0 };
	uint8_t chunk[97];

	for (unsigned i = 0; i < 1000; i++) {
		memset(chunk, (int)(i & 0xff), sizeof(chunk));
		blob_put(&blob, chunk, sizeof(chunk));
	}
	assert_int_equal(blob.len, 1000 * sizeof(chunk));
	for (size_t i = 0; i < blob.len; i++)
		assert_int_equal(blob.bytes[i], i / sizeof(chunk) & 0xff);
	blob_finish(&blob);
}

/* -------------------------------------------------------------- thread pool */

struct job {
	struct pool_job job;	/* first */
	atomic_int *running, *most;
	unsigned number;
	unsigned *order;	/* shared index, used with one thread only */
	unsigned *seen;
};

static void work(struct pool_job *j)
{
	struct job *job = (struct job *)j;
	int now = atomic_fetch_add(job->running, 1) + 1, most = atomic_load(job->most);

	while (now > most && !atomic_compare_exchange_weak(job->most, &most, now))
		;
	(void)usleep(500);
	if (job->order)
		job->seen[(*job->order)++] = job->number;
	atomic_fetch_sub(job->running, 1);
	free(job);	/* a job may free itself */
}

static struct pool *make_pool(unsigned threads)
{
	struct pool *pool;

	assert_int_equal(pool_create(threads, &pool, NULL), 0);
	return pool;
}

static void test_one_thread_keeps_the_order_and_the_end_waits_for_all(void **state)
{
	atomic_int running = 0, most = 0;
	unsigned order = 0, seen[50];
	struct pool *pool = make_pool(1);

	for (unsigned i = 0; i < 50; i++) {
		struct job *j = calloc(1, sizeof(*j));

		*j = (struct job){ { NULL, work }, &running, &most, i, &order, seen };
		assert_int_equal(pool_submit(pool, &j->job), 0);
	}
	pool_destroy(pool);
	assert_int_equal(order, 50);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(seen[i], i);
	assert_int_equal(atomic_load(&most), 1);
}

static void test_no_more_threads_than_allowed_work_at_once(void **state)
{
	atomic_int running = 0, most = 0;
	struct pool *pool = make_pool(4);

	for (unsigned i = 0; i < 200; i++) {
		struct job *j = calloc(1, sizeof(*j));

		*j = (struct job){ { NULL, work }, &running, &most, i, NULL, NULL };
		assert_int_equal(pool_submit(pool, &j->job), 0);
	}
	pool_destroy(pool);
	assert_int_equal(atomic_load(&running), 0);
	assert_in_range(atomic_load(&most), 2, 4);
}

static sigset_t worker_mask;

static void note_mask(struct pool_job *j)
{
	(void)pthread_sigmask(SIG_BLOCK, NULL, &worker_mask);
}

static void test_workers_take_no_signals_and_the_caller_keeps_its_own(void **state)
{
	struct pool *pool = make_pool(2);
	struct pool_job job = { .run = note_mask };
	sigset_t before, after;

	(void)pthread_sigmask(SIG_BLOCK, NULL, &before);
	assert_int_equal(pool_submit(pool, &job), 0);
	(void)pthread_sigmask(SIG_BLOCK, NULL, &after);
	pool_destroy(pool);
	assert_int_equal(sigismember(&worker_mask, SIGINT), 1);
	assert_int_equal(sigismember(&worker_mask, SIGCHLD), 1);
	assert_int_equal(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
}

static void test_bad_pools_are_refused(void **state)
{
	struct err err = { 0 };
	struct pool *pool;

	assert_int_equal(pool_create(0, &pool, &err), -EINVAL);
	assert_int_equal(pool_create(33, &pool, &err), -EINVAL);
	assert_string_equal(err.msg, "a pool has 1 to 32 threads, not 33");
	pool_destroy(NULL);
	pool_destroy(make_pool(32));	/* never used */
}

static void test_published_ports_are_written_in_one_way(void **state)
{
	static const char *const same[][2] = {
		{ "8080:80", "8080:80/tcp" }, { "80", "0:80/tcp" }, { "127.0.0.1:53:5353/udp", "127.0.0.1:53:5353/udp" },
		{ "[::1]:1:2/tcp", "[::1]:1:2/tcp" }, { "192.0.2.1::80", "192.0.2.1:0:80/tcp" },
	};
	static const char *const bad[] = { "", ":", "80:", ":80", "a:80", "80:a", "80:0", "80:70000", "80:80/sctp",
					   "1:2:3:4", "::1:80:80", "[]:80:80", "80/", "-1:80" };
	struct publish p;
	char text[100];

	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_true(publish_parse(same[i][0], &p));
		(void)publish_format(&p, text, sizeof(text));
		assert_string_equal(text, same[i][1]);
		assert_true(publish_parse(text, &p));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (publish_parse(bad[i], &p))
			fail_msg("'%s' was taken", bad[i]);
}

static void digest_of_context(char ret_hex[SHA256_HEX_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	assert_int_equal(context_add(&hash), 0);
	sha256_finish_hex(&hash, ret_hex);
}

static void lower_limit(void)
{
	struct rlimit files = { .rlim_cur = 64, .rlim_max = 64 };

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
}

static void change_mask(void)
{
	(void)umask(umask(0) ^ 022);
}

static void change_priority(void)
{
	errno = 0;
	assert_true(nice(1) != -1 || errno == 0);
}

static void change_environment(void)
{
	assert_int_equal(setenv("https_proxy", "http://127.0.0.1:9", 1), 0);
}

/* What a shell changes from one command to the next. */
static void change_nothing_that_counts(void)
{
	assert_int_equal(setenv("SHLVL", "17", 1), 0);
	assert_int_equal(setenv("_", "/somewhere/else", 1), 0);
	assert_int_equal(chdir("/"), 0);
	(void)close(open("/dev/null", O_RDONLY));
	free(malloc(1u << 20));
}

static void test_processes_have_one_context_until_what_they_inherit_differs(void **state)
{
	static const struct {
		void (*change)(void);
		bool same;
	} cases[] = { { change_nothing_that_counts, true }, { lower_limit, false }, { change_mask, false },
		      { change_priority, false }, { change_environment, false } };
	char before[SHA256_HEX_SIZE], after[SHA256_HEX_SIZE];
	int status;

	(void)state;
	digest_of_context(before);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			cases[i].change();
			digest_of_context(after);
			_exit((strcmp(before, after) == 0) == cases[i].same ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
}

#define DEEP (192 << 10)
#define GIVEN_MIN (128 << 10)	/* to ask how much there is takes some of it, most under sanitizers */

static __attribute__((noinline)) void reach_deep(void)
{
	volatile char deep[DEEP];

	for (size_t i = 0; i < sizeof(deep); i += 1024)
		deep[i] = 1;
}

static uint64_t own_memory(void)
{
	struct process_memory have = { 0 };

	assert_int_equal(process_memory_add(getpid(), &have), 0);
	return have.own;
}

static void test_what_was_freed_is_given_back(void **state)
{
	enum { BLOCKS = 64, SIZE = 8192 };
	char *block[BLOCKS], text[] = "still here";
	uint64_t before;

	(void)state;
	reach_deep();
	for (size_t i = 0; i < BLOCKS; i++) {
		block[i] = malloc(SIZE);
		assert_non_null(block[i]);
		memset(block[i], 1, SIZE);
	}
	for (size_t i = 0; i + 1 < BLOCKS; i++)	/* the last one keeps the heap as long as it is */
		free(block[i]);
	before = own_memory();
	memory_give_back();
#ifdef __SANITIZE_ADDRESS__	/* which has a heap of its own */
	assert_true(own_memory() + GIVEN_MIN <= before);
#else
	assert_true(own_memory() + GIVEN_MIN + BLOCKS / 2 * SIZE <= before);
#endif
	assert_int_equal(block[BLOCKS - 1][SIZE - 1], 1);
	assert_string_equal(text, "still here");
	free(block[BLOCKS - 1]);
}

static void *reach_deep_and_back(void *ctx)
{
	uint64_t *given = ctx;

	reach_deep();
	*given = own_memory();
	memory_give_back_stack();
	*given -= own_memory();
	return NULL;
}

static void test_a_thread_gives_its_stack_back(void **state)
{
	uint64_t given;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, reach_deep_and_back, &given), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_in_range(given, GIVEN_MIN, 256 << 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_freed_is_given_back),
		cmocka_unit_test(test_a_thread_gives_its_stack_back),
		cmocka_unit_test(test_published_ports_are_written_in_one_way),
		cmocka_unit_test(test_a_library_is_loaded_with_the_first_function),
		cmocka_unit_test(test_a_library_that_is_not_there_ends_the_program),
		cmocka_unit_test(test_a_report_has_code_and_sentence),
		cmocka_unit_test(test_a_failure_without_a_sentence_stays_one),
		cmocka_unit_test(test_long_reports_are_cut_inside_their_memory),
		cmocka_unit_test(test_lines_reach_the_sink_by_level),
		cmocka_unit_test(test_what_is_put_is_taken_in_little_endian),
		cmocka_unit_test(test_a_reader_past_the_end_stays_failed),
		cmocka_unit_test(test_blobs_grow_without_losing_bytes),
		cmocka_unit_test(test_one_thread_keeps_the_order_and_the_end_waits_for_all),
		cmocka_unit_test(test_no_more_threads_than_allowed_work_at_once),
		cmocka_unit_test(test_workers_take_no_signals_and_the_caller_keeps_its_own),
		cmocka_unit_test(test_bad_pools_are_refused),
		cmocka_unit_test(test_processes_have_one_context_until_what_they_inherit_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
