/* SPDX-License-Identifier: Apache-2.0 */
/* Files of saved guests, whole and damaged, and the state of machines in them. */
#include "base/checked.h"
#include "base/sha256.h"
#include "engine/dbt/engine_dbt.h"
#include "machine/code_file.h"
#include "machine/snapshot_make.h"
#include "machine/snapshot_memory.h"
#include "machine/state.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/loop.h"
#include "virtio/balloon.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"
#include "vmm/boot.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#define RAM (4u << 20)	/* bytes */

/* As in snapshot_inside.h, so that fields can be damaged under a right checksum. */
struct header {
	char magic[8];
	uint32_t version, flags;
	uint64_t state_len, memory, notes_len, code;
	uint8_t id[16];
	char engine[16];
	uint8_t state_sum[32], notes_sum[32], code_seal[32];
	uint64_t stored;
	uint8_t base_sum[32];
	char base_path[SNAPSHOT_BASE_MAX];
	uint8_t sum[32];
};
_Static_assert(sizeof(struct header) == 1272, "as it is written");

/* --------------------------------------------------------------------- files */

static char path[] = "/tmp/roux-test-snapshot-XXXXXX";
static const char state_bytes[] = "what processors and devices remember";
static uint64_t kept_size;

static int ok_vm(struct vm *vm, struct err *err)
{
	return 0;
}

static void no_vm(struct vm *vm)
{
}

static int ok_vcpu(struct vcpu *vcpu, struct err *err)
{
	return 0;
}

static void no_vcpu(struct vcpu *vcpu)
{
}

static uint64_t keeps(struct vm *vm)
{
	return kept_size;
}

static void keep(struct vm *vm, uint8_t *to)
{
	memset(to, 'k', kept_size);
}

static int take(struct vm *own, int fd, uint64_t offset, uint64_t bytes, struct err *err);

static const struct engine_ops fake = { .name = "fake", .vm_create = ok_vm, .vm_destroy = no_vm, .vcpu_create = ok_vcpu,
					.vcpu_destroy = no_vcpu, .vcpu_kick = no_vcpu, .kept_bytes = keeps, .keep = keep,
					.take_kept = take };

static struct mem *mem;
static struct vm *vm;
static int file;
static struct snapshot_id id;

/* A snapshot of a guest with two pages that are not zero. */
static int setup(void **state)
{
	const struct blob blob = { .bytes = (uint8_t *)(uintptr_t)state_bytes, .len = sizeof(state_bytes) };

	(void)strcpy(path + sizeof(path) - 7, "XXXXXX");
	file = mkstemp(path);
	kept_size = 8192;
	if (file < 0 || ftruncate(file, (off_t)snapshot_size(RAM)) < 0 || mem_create(RAM, &mem, NULL) < 0 ||
	    vm_create(&fake, mem, 1, &vm, NULL) < 0)
		return -1;
	(void)mem_write(mem, 0x1ff0, "over the border of two pages", 28);
	(void)mem_write(mem, RAM - 4, "last", 4);
	return snapshot_write(file, &blob, vm, &id, NULL);
}

static int teardown(void **state)
{
	vm_destroy(vm);
	mem_destroy(mem);
	(void)close(file);
	return unlink(path);
}

static void expect_open(int want, const char *word)
{
	struct snapshot s;
	struct err err = { 0 };
	int r = snapshot_open(path, &s, &err);

	if (r != want || !strstr(err.msg, word))
		fail_msg("opening gave %d '%s', not %d and '%s'", r, err.msg, want, word);
	snapshot_close(&s);
}

static void test_a_snapshot_holds_what_the_guest_was(void **state)
{
	struct snapshot s;
	char bytes[28];

	assert_int_equal(snapshot_open(path, &s, NULL), 0);
	assert_string_equal(s.engine, "fake");
	assert_int_equal(s.memory, RAM);
	assert_int_equal(s.state_len, sizeof(state_bytes));
	assert_memory_equal(s.state, state_bytes, sizeof(state_bytes));
	assert_int_equal(pread(s.fd, bytes, 28, SNAPSHOT_MEMORY + 0x1ff0), 28);
	assert_memory_equal(bytes, "over the border of two pages", 28);
	assert_int_equal(pread(s.fd, bytes, 4, SNAPSHOT_MEMORY + RAM - 4), 4);
	assert_memory_equal(&s.id, &id, sizeof(id));
	assert_memory_equal(bytes, "last", 4);
	assert_true(fcntl(s.fd, F_GETFD) & FD_CLOEXEC);
	snapshot_close(&s);
	snapshot_close(&s);	/* which is harmless */
}

static void test_what_is_zero_costs_no_room(void **state)
{
	struct stat st;

	assert_int_equal(fstat(file, &st), 0);
	assert_int_equal(st.st_size, snapshot_size(RAM));
	assert_true(st.st_blocks * 512 <= 16 * 4096);	/* header, state, three pages, and the file system's own */
}

static void test_what_cannot_be_a_snapshot_is_not_written(void **state)
{
	struct blob blob = { .bytes = (uint8_t *)(uintptr_t)state_bytes, .len = sizeof(state_bytes), .failed = true };
	int read_only = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(snapshot_write(file, &blob, vm, &id, NULL), -ENOMEM);
	blob.failed = false;
	assert_int_equal(snapshot_write(read_only, &blob, vm, &id, NULL), -EACCES);
	assert_int_equal(close(read_only), 0);
	blob.len = SNAPSHOT_NOTES - SNAPSHOT_HEADER + 1;
	assert_int_equal(snapshot_write(file, &blob, vm, &id, NULL), -E2BIG);
	blob.len = sizeof(state_bytes);
	assert_int_equal(ftruncate(file, (off_t)snapshot_size(RAM) - 1), 0);
	assert_int_equal(snapshot_write(file, &blob, vm, &id, NULL), -EINVAL);
}

static void flip(off_t at, uint8_t bits)
{
	uint8_t byte;

	assert_int_equal(pread(file, &byte, 1, at), 1);
	byte ^= bits;
	assert_int_equal(pwrite(file, &byte, 1, at), 1);
}

static void test_no_bit_of_header_or_state_may_change(void **state)
{
	struct snapshot s;

	for (off_t at = 0; at < (off_t)(SNAPSHOT_HEADER + sizeof(state_bytes)); at++) {
		bool version = at >= 8 && at < 12;

		if (at == sizeof(struct header))
			at = SNAPSHOT_HEADER;	/* what is between them has no meaning */
		for (unsigned bit = 0; bit < 8; bit++) {
			flip(at, (uint8_t)(1u << bit));
			expect_open(version ? -ENOTSUP : -EBADMSG, version ? "version" : at < 8 ? "is not a snapshot" : "damaged");
			flip(at, (uint8_t)(1u << bit));
		}
	}
	assert_int_equal(snapshot_open(path, &s, NULL), 0);
	snapshot_close(&s);
}

static void seal_header(struct header *h)
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, h, offsetof(struct header, sum));
	sha256_finish(&hash, h->sum);
	assert_int_equal(pwrite(file, h, sizeof(*h), 0), sizeof(*h));
}

static void test_fields_are_checked_under_a_right_checksum(void **state)
{
	static const uint64_t hostile[] = { 0, 1, RAM - 1, RAM + 1, 2u * RAM, 1ull << 40, INT64_MAX / 2,
					    INT64_MAX, 1ull << 63, UINT64_MAX - SNAPSHOT_MEMORY, UINT64_MAX };
	struct header good, h;

	assert_int_equal(pread(file, &good, sizeof(good), 0), sizeof(good));
	seal_header(&good);
	expect_open(0, "");
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		h = good;
		h.memory = hostile[i];
		seal_header(&h);
		expect_open(-EBADMSG, "damaged");
		h.stored = hostile[i];
		seal_header(&h);
		expect_open(-EBADMSG, "damaged");
		h = good;
		h.code = hostile[i] ? hostile[i] : 2;
		seal_header(&h);
		expect_open(-EBADMSG, "damaged");
		h = good;
		h.state_len = hostile[i];
		seal_header(&h);
		expect_open(-EBADMSG, "damaged");
	}
	h = good;
	memset(h.engine, 'x', sizeof(h.engine));
	seal_header(&h);
	expect_open(-EBADMSG, "damaged");
	for (uint32_t flags = 1; flags; flags <<= 1) {	/* none means nothing */
		h = good;
		h.flags = flags;
		seal_header(&h);
		expect_open(-EBADMSG, "damaged");
	}
	h = good;
	memset(h.base_path, 'x', sizeof(h.base_path));
	seal_header(&h);
	expect_open(-EBADMSG, "damaged");
	h = good;
	h.version++;
	seal_header(&h);
	expect_open(-ENOTSUP, "version");
}

static void test_no_other_length_is_taken(void **state)
{
	const uint64_t size = snapshot_size(RAM);
	/* From long to short: what is cut off is gone. */
	const uint64_t lengths[] = { size + 4096, size + 1, size - 1, SNAPSHOT_MEMORY + 4096,
				     SNAPSHOT_MEMORY + 1, SNAPSHOT_MEMORY, SNAPSHOT_MEMORY - 1,
				     SNAPSHOT_HEADER + sizeof(state_bytes), SNAPSHOT_HEADER + sizeof(state_bytes) - 1,
				     SNAPSHOT_HEADER + 1, SNAPSHOT_HEADER, SNAPSHOT_HEADER - 1, sizeof(struct header) };

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		assert_int_equal(ftruncate(file, (off_t)lengths[i]), 0);
		expect_open(-EBADMSG, "damaged");
	}
	for (off_t len = sizeof(struct header) - 1; len >= 0; len--) {
		assert_int_equal(ftruncate(file, len), 0);
		expect_open(-EBADMSG, "is not a snapshot");
	}
	assert_int_equal(ftruncate(file, (off_t)size), 0);	/* all zero */
	expect_open(-EBADMSG, "is not a snapshot");
}

static int snapshot_has_code(const struct snapshot *s)
{
	uint64_t at;
	char byte;
	int fd;

	if (!s->code || snapshot_code(s, &fd, &at) < 0)
		return 0;
	assert_int_equal(pread(fd, &byte, 1, (off_t)(at + s->code - 1)), 1);
	assert_int_equal(close(fd), 0);
	return byte == 'c';
}

static void test_what_is_no_file_is_told(void **state)
{
	struct snapshot s;
	struct err err = { 0 };

	assert_int_equal(snapshot_open("/tmp/no/such/file", &s, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/tmp/no/such/file"));
	assert_int_equal(s.fd, -1);
	assert_int_equal(snapshot_open("/tmp", &s, &err), -EISDIR);
	assert_int_equal(s.fd, -1);
}

/* --------------------------------------------------------------- through a pipe */

static const char *const notes = "{\"of\": \"a VM\"}";
static const struct snapshot_plan plain = { .scratch = -1 };
static int pipe_in;

static void *sender(void *arg)
{
	const struct blob blob = { .bytes = (uint8_t *)(uintptr_t)state_bytes, .len = sizeof(state_bytes) };
	int *ret = arg;

	*ret = snapshot_send_start(pipe_in, vm, NULL);
	if (*ret == 0)
		*ret = snapshot_send_memory(pipe_in, vm, NULL, NULL);
	if (*ret == 0)
		*ret = snapshot_send_end(pipe_in, &blob, NULL);
	(void)close(pipe_in);
	return NULL;
}

/* Sends the guest, which has so many pages that are not zero, and makes a file of it at path, with @code bytes of code. */
static void build_with(unsigned pages, uint64_t code)
{
	struct snapshot_file f;
	pthread_t thread;
	int ends[2], sent = -1;

	assert_int_equal(pipe(ends), 0);
	pipe_in = ends[1];
	assert_int_equal(ftruncate(file, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, sender, &sent), 0);
	assert_int_equal(snapshot_build(ends[0], file, &id, &plain, &f, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(sent, 0);
	assert_int_equal(f.written, pages * 4096);
	expect_open(-EBADMSG, "not a snapshot");	/* yet */
	if (code) {
		FILE *own = tmpfile();

		for (uint64_t i = 0; i < code; i++)
			(void)fputc('c', own);
		(void)fflush(own);
		assert_int_equal(snapshot_add_code(&f, fileno(own), code, NULL), 0);
		(void)fclose(own);
	}
	assert_int_equal(snapshot_finish(&f, notes, NULL), 0);
	snapshot_file_free(&f);
	(void)close(ends[0]);
}

static void build(void)
{
	build_with(3, 0);
}

static int check_memory(void)
{
	struct snapshot s;
	struct err err = { 0 };
	int r = snapshot_open(path, &s, NULL);

	assert_int_equal(r, 0);
	assert_string_equal(s.notes, notes);
	assert_non_null(s.sums);
	r = snapshot_check_memory(&s, &err);
	if (r < 0)
		assert_non_null(strstr(err.msg, "damaged"));
	snapshot_close(&s);
	return r;
}

static void test_a_guest_goes_through_a_pipe(void **state)
{
	struct snapshot s;
	struct stat st;
	char bytes[28];

	build();
	assert_int_equal(check_memory(), 0);
	assert_int_equal(snapshot_open(path, &s, NULL), 0);
	assert_memory_equal(s.state, state_bytes, sizeof(state_bytes));
	assert_string_equal(s.engine, "fake");
	assert_int_equal(pread(s.fd, bytes, 28, SNAPSHOT_MEMORY + 0x1ff0), 28);
	assert_memory_equal(bytes, "over the border of two pages", 28);
	assert_int_equal(pread(s.fd, bytes, 4, SNAPSHOT_MEMORY + RAM - 4), 4);
	assert_memory_equal(bytes, "last", 4);
	snapshot_close(&s);
	assert_int_equal(fstat(file, &st), 0);
	assert_true(st.st_blocks * 512 <= 20 * 4096);
}

static void test_no_bit_of_memory_notes_or_checksums_may_change(void **state)
{
	static const off_t whole[] = { SNAPSHOT_MEMORY + 0x1000, SNAPSHOT_MEMORY + 0x1ff0, SNAPSHOT_MEMORY + 0x2fff,
				       SNAPSHOT_MEMORY + RAM - 1, SNAPSHOT_MEMORY + RAM - 4096 };

	const off_t sums = (off_t)((strlen(notes) + 8) & ~7ul);	/* two chunks of memory */

	build();
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		flip(whole[i], 1);
		assert_int_equal(check_memory(), -EBADMSG);
		flip(whole[i], 1);
	}
	for (off_t at = 0; at < sums + 2 * 8; at++) {
		bool padding = at > (off_t)strlen(notes) && at < sums;

		flip(SNAPSHOT_NOTES + at, 1);
		if (!padding)
			expect_open(-EBADMSG, "damaged");
		flip(SNAPSHOT_NOTES + at, 1);
	}
	assert_int_equal(check_memory(), 0);
}

/* A guest that is all zero but for a few pages has chunks without any: they must stay so. */
static void test_nothing_may_be_in_a_hole(void **state)
{
	static const char page[4096];

	assert_int_equal(mem_write(mem, 0x1ff0, page, 28), 0);
	build_with(1, 0);
	flip(SNAPSHOT_MEMORY + 0x5000, 1);
	assert_int_equal(check_memory(), -EBADMSG);
	flip(SNAPSHOT_MEMORY + 0x5000, 1);	/* zeros that are written are as good as a hole */
	assert_int_equal(check_memory(), 0);
}

static void test_code_goes_behind_the_memory(void **state)
{
	struct snapshot s;
	char byte;

	build_with(3, SNAPSHOT_CHUNK + 4096);
	assert_int_equal(check_memory(), 0);
	assert_int_equal(snapshot_open(path, &s, NULL), 0);
	assert_int_equal(s.code, SNAPSHOT_CHUNK + 4096);
	assert_int_equal(pread(s.fd, &byte, 1, (off_t)(SNAPSHOT_MEMORY + RAM + s.code - 1)), 1);
	assert_int_equal(byte, 'c');
	snapshot_close(&s);
	for (unsigned i = 0; i < 2; i++) {
		off_t at = (off_t)(SNAPSHOT_MEMORY + RAM + i * SNAPSHOT_CHUNK + 100);

		flip(at, 1);
		assert_int_equal(check_memory(), -EBADMSG);
		flip(at, 1);
	}
	assert_int_equal(ftruncate(file, (off_t)snapshot_size(RAM)), 0);
	expect_open(-EBADMSG, "damaged");
}

/* ------------------------------------------------------------------ with a base */

static char base_path[] = "/tmp/roux-test-base-XXXXXX";	/* beside the other */
static int base_file;

static void start_guest(pthread_t *thread, int ends[2], int *sent)
{
	assert_int_equal(pipe(ends), 0);
	pipe_in = ends[1];
	*sent = -1;
	assert_int_equal(pthread_create(thread, NULL, sender, sent), 0);
}

/* Makes a file of the guest as it is. */
static int make_snapshot(int to, const struct snapshot_plan *plan, uint64_t code, uint64_t *ret_written, struct err *err)
{
	struct snapshot_id own;
	struct snapshot_file f;
	pthread_t thread;
	int ends[2], sent, r;

	snapshot_draw(&own);
	assert_int_equal(ftruncate(to, 0), 0);
	start_guest(&thread, ends, &sent);
	r = snapshot_build(ends[0], to, &own, plan, &f, err);
	(void)close(ends[0]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	*ret_written = f.written;
	if (r == 0 && code) {
		FILE *from = tmpfile();

		for (uint64_t i = 0; i < code; i++)
			(void)fputc('c', from);
		(void)fflush(from);
		assert_int_equal(snapshot_add_code(&f, fileno(from), code, err), 0);
		(void)fclose(from);
	}
	if (r == 0)
		r = snapshot_finish(&f, notes, err);
	snapshot_file_free(&f);
	return r;
}

/* On top of the file at @base, NULL: none. */
static int make_on(int to, const char *base, bool compress, uint64_t *ret_written, struct err *err)
{
	FILE *scratch = compress ? tmpfile() : NULL;
	struct snapshot below = { .fd = -1 };
	struct snapshot_plan plan = { .scratch = scratch ? fileno(scratch) : -1 };
	int r = 0;

	if (base) {
		r = snapshot_open(base, &below, err);
		if (r == 0)
			r = snapshot_open_bases(&below, err);
		plan.base = &below;
		plan.base_path = strrchr(base, '/') + 1;
	}
	if (r == 0)
		r = make_snapshot(to, &plan, compress ? SNAPSHOT_CHUNK + 8192 : 0, ret_written, err);
	snapshot_close(&below);
	if (scratch)
		(void)fclose(scratch);
	return r;
}

static int open_chain(const char *of, struct snapshot *ret, struct err *err)
{
	int r = snapshot_open(of, ret, err);

	if (r == 0)
		r = snapshot_open_bases(ret, err);
	if (r == 0)
		r = snapshot_check_memory(ret, err);
	return r;
}

/* What the file has is the guest, as RAM and in one piece. */
static int holds_guest(const char *of, struct err *err)
{
	struct snapshot_view view;
	struct snapshot s;
	struct mem *ram;
	int r = open_chain(of, &s, err);

	if (r == 0)
		r = snapshot_memory(&s, &ram, err);
	if (r == 0) {
		assert_memory_equal(ram->bank[0].host, mem->bank[0].host, RAM);
		mem_destroy(ram);
		r = snapshot_view(&s, &view, err);
		assert_int_equal(r, 0);
		assert_memory_equal(view.memory, mem->bank[0].host, RAM);
		for (uint64_t page = 0; page < RAM / 4096; page++)
			assert_true(snapshot_view_there(&view, page) || view.memory[page * 4096 + 1] == 0);
		snapshot_view_finish(&view);
		r = s.code && !snapshot_has_code(&s) ? -EBADMSG : 0;
	}
	snapshot_close(&s);
	return r;
}

static int setup_base(void **state)
{
	(void)strcpy(base_path + sizeof(base_path) - 7, "XXXXXX");
	base_file = mkstemp(base_path);
	return base_file < 0 ? -1 : setup(state);
}

static int teardown_base(void **state)
{
	(void)close(base_file);
	(void)unlink(base_path);
	return teardown(state);
}

/* Some pages new, some other, one zero by now. */
static void guest_goes_on(void)
{
	static const uint8_t zeros[4096];
	uint8_t *much = malloc(SNAPSHOT_CHUNK);

	assert_non_null(much);
	for (size_t i = 0; i < SNAPSHOT_CHUNK; i++)
		much[i] = (uint8_t)(i * 7 + i / 4096);
	assert_int_equal(mem_write(mem, RAM - 4096, zeros, sizeof(zeros)), 0);
	assert_int_equal(mem_write(mem, 0x1000, "other", 5), 0);
	assert_int_equal(mem_write(mem, 0x9000, "new", 3), 0);
	assert_int_equal(mem_write(mem, 0x100000, much, 100 * 4096), 0);	/* worth a mapping */
	free(much);
}

static void test_only_what_differs_from_the_base_is_in_the_file(void **state)
{
	for (unsigned how = 0; how < 4; how++) {
		bool packed_base = how & 1, packed = how & 2;
		struct err err = { 0 };
		uint64_t written;
		struct snapshot s;

		assert_int_equal(make_on(base_file, NULL, packed_base, &written, NULL), 0);
		assert_int_equal(holds_guest(base_path, NULL), 0);
		guest_goes_on();
		if (make_on(file, base_path, packed, &written, &err) < 0)
			fail_msg("%u: %s", how, err.msg);
		assert_int_equal(written, 103 * 4096);
		if (holds_guest(path, &err) < 0)
			fail_msg("%u: %s", how, err.msg);
		assert_int_equal(snapshot_open(path, &s, NULL), 0);
		assert_string_equal(s.base_path, strrchr(base_path, '/') + 1);
		assert_int_equal(snapshot_has_code(&s), packed ? 1 : 0);
		snapshot_close(&s);
		/* As it was. */
		assert_int_equal(mem_discard(mem, 0, RAM), 0);
		(void)mem_write(mem, 0x1ff0, "over the border of two pages", 28);
		(void)mem_write(mem, RAM - 4, "last", 4);
	}
}

static void test_the_same_guest_once_more_costs_nothing(void **state)
{
	uint64_t written;

	assert_int_equal(make_on(base_file, NULL, false, &written, NULL), 0);
	for (unsigned packed = 0; packed < 2; packed++) {
		assert_int_equal(make_on(file, base_path, packed, &written, NULL), 0);
		assert_int_equal(written, 0);
		assert_int_equal(holds_guest(path, NULL), 0);
	}
}

static void test_no_bit_of_a_file_with_a_base_or_compressed_may_change(void **state)
{
	for (unsigned how = 0; how < 3; how++) {
		struct err err = { 0 };
		struct stat st;
		uint64_t written;
		struct snapshot s;
		off_t at = 0;
		unsigned flipped = 0;

		assert_int_equal(make_on(base_file, NULL, false, &written, NULL), 0);
		(void)mem_write(mem, 0x3000, &how, 4);
		(void)mem_write(mem, 0x8000, "x", 1);
		assert_int_equal(make_on(file, how < 2 ? base_path : NULL, how > 0, &written, NULL), 0);
		assert_int_equal(fstat(file, &st), 0);
		while ((at = lseek(file, at, SEEK_DATA)) >= 0) {	/* each byte with a meaning, and some without */
			int r;

			flip(at, 1);
			r = holds_guest(path, &err);
			if (r == 0)
				flipped++;
			else if (r != -EBADMSG && r != -ENOTSUP)
				fail_msg("%u: byte %lld gave %d %s", how, (long long)at, r, err.msg);
			flip(at, 1);
			at += at < SNAPSHOT_HEADER ? 31 : 997;
		}
		/* Padding of the header's page, of notes, and behind the last frame. */
		assert_true(flipped < 4096);
		for (off_t len = st.st_size - 1; len > 0; len -= len > (off_t)SNAPSHOT_MEMORY ? 509 * 4096 : 1 << 20) {
			assert_int_equal(ftruncate(file, len), 0);
			assert_true(snapshot_open(path, &s, &err) == -EBADMSG);
		}
	}
}

static void test_a_base_must_be_there_and_be_the_same(void **state)
{
	char moved[sizeof(base_path) + 8];
	struct err err = { 0 };
	uint64_t written;

	assert_int_equal(make_on(base_file, NULL, false, &written, NULL), 0);
	(void)mem_write(mem, 0x3000, "x", 1);
	assert_int_equal(make_on(file, base_path, false, &written, NULL), 0);
	(void)snprintf(moved, sizeof(moved), "%s.moved", base_path);
	assert_int_equal(rename(base_path, moved), 0);
	assert_int_equal(holds_guest(path, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "is not there"));
	assert_int_equal(rename(moved, base_path), 0);
	assert_int_equal(holds_guest(path, &err), 0);
	assert_int_equal(make_on(base_file, NULL, false, &written, NULL), 0);	/* the same guest, but another file */
	assert_int_equal(holds_guest(path, &err), -ESTALE);
	assert_non_null(strstr(err.msg, "another one by now"));
	assert_int_equal(ftruncate(base_file, 100), 0);
	assert_int_equal(holds_guest(path, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "needs its base"));
}

static void test_memory_of_a_base_is_checked_too(void **state)
{
	struct err err = { 0 };
	uint64_t written;

	assert_int_equal(make_on(base_file, NULL, false, &written, NULL), 0);
	(void)mem_write(mem, 0x3000, "x", 1);
	assert_int_equal(make_on(file, base_path, false, &written, NULL), 0);
	assert_int_equal(pwrite(base_file, "y", 1, SNAPSHOT_MEMORY + 0x1ff0), 1);
	assert_int_equal(holds_guest(path, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, base_path));
}

static void test_a_chain_has_an_end(void **state)
{
	char name[SNAPSHOT_CHAIN_MAX + 1][sizeof(path) + 8];
	struct err err = { 0 };
	uint64_t written;
	struct snapshot s;

	for (unsigned i = 0; i <= SNAPSHOT_CHAIN_MAX; i++) {
		int fd;

		(void)snprintf(name[i], sizeof(name[i]), "%s.%u", path, i);
		fd = open(name[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		(void)mem_write(mem, i * 4096, "changed", 7);
		assert_int_equal(make_on(fd, i ? name[i - 1] : NULL, false, &written, &err), i < SNAPSHOT_CHAIN_MAX ? 0 : -ELOOP);
		(void)close(fd);
		if (i == SNAPSHOT_CHAIN_MAX)
			break;
		assert_int_equal(holds_guest(name[i], &err), 0);
		assert_int_equal(open_chain(name[i], &s, NULL), 0);
		assert_int_equal(snapshot_depth(&s), i + 1);
		snapshot_close(&s);
	}
	for (unsigned i = 0; i <= SNAPSHOT_CHAIN_MAX; i++)
		(void)unlink(name[i]);
}

static void test_not_all_can_be_a_base(void **state)
{
	struct err err = { 0 };
	uint64_t written;
	struct mem *other;
	struct vm *own = vm;

	assert_int_equal(make_on(base_file, path, false, &written, &err), -EINVAL);	/* a template */
	assert_non_null(strstr(err.msg, "cannot be a base"));
	assert_int_equal(make_on(file, NULL, false, &written, NULL), 0);
	assert_int_equal(mem_create(2 * RAM, &other, NULL), 0);
	assert_int_equal(vm_create(&fake, other, 1, &vm, NULL), 0);
	assert_int_equal(make_on(base_file, path, false, &written, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "MiB of memory"));
	vm_destroy(vm);
	mem_destroy(other);
	vm = own;
}

static void test_what_does_not_send_a_guest_is_refused(void **state)
{
	struct start {
		char magic[8];
		uint64_t memory;
		char engine[16];
		struct {
			uint64_t offset, len;	/* of 0 bytes: state that follows */
		} run;
	} good = { "rouxsend", RAM, "fake", { 0, 0 } };
	struct start bad[] = { good, good, good, good, good, good, good };
	struct snapshot_file f;

	bad[1].magic[0] ^= 1;
	bad[2].run.offset = SNAPSHOT_NOTES;
	bad[3].memory = 1ull << 50;
	memset(bad[4].engine, 'x', sizeof(bad[4].engine));
	bad[5].run.offset = RAM + 1;
	bad[5].run.len = 1;
	bad[6].run.len = RAM + 1;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		for (size_t len = i ? sizeof(good) : 0; len <= sizeof(good); len++) {
			int ends[2];

			assert_int_equal(pipe(ends), 0);
			assert_int_equal(write(ends[1], &bad[i], len), len);
			(void)close(ends[1]);
			assert_int_equal(ftruncate(file, 0), 0);
			assert_int_equal(snapshot_build(ends[0], file, &id, &plain, &f, NULL), i ? -EPROTO : len < sizeof(good) ? -EPIPE : 0);
			snapshot_file_free(&f);
			(void)close(ends[0]);
		}
	}
}

/* ----------------------------------------------------------------------- code */

static char code_path[] = "/tmp/roux-test-code-XXXXXX";
static int took;	/* what take() gives */

static int take(struct vm *own, int fd, uint64_t offset, uint64_t bytes, struct err *err)
{
	char byte;

	assert_int_equal(bytes, kept_size);
	assert_int_equal(pread(fd, &byte, 1, (off_t)(offset + bytes - 1)), 1);
	assert_int_equal(byte, 'k');
	return took;
}

/* A file of it, as a template has one. */
static int write_code(uint64_t *ret_bytes)
{
	int fd, r;

	(void)strcpy(code_path + sizeof(code_path) - 7, "XXXXXX");
	fd = mkstemp(code_path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)CODE_FILE_MAX), 0);
	r = code_file_write(fd, &id, 3, vm, ret_bytes, NULL);
	assert_int_equal(ftruncate(fd, (off_t)*ret_bytes), 0);
	assert_int_equal(close(fd), 0);
	return r;
}

static int take_code(const struct snapshot_id *of, const char *word)
{
	struct err err = { 0 };
	uint32_t generation = 0;
	int r = code_file_take_path(code_path, of, vm, &generation, &err);

	if (r < 0 && !strstr(err.msg, word))
		fail_msg("taking gave %d '%s', not '%s'", r, err.msg, word);
	assert_int_equal(generation, r < 0 ? 0 : 3);
	return r;
}

static void test_code_is_for_one_snapshot_and_engine(void **state)
{
	struct snapshot_id other = id;
	struct engine_ops engine = fake;
	uint64_t bytes;

	assert_int_equal(write_code(&bytes), 0);
	assert_int_equal(bytes, CODE_FILE_HEADER + kept_size);
	took = 0;
	assert_int_equal(take_code(&id, ""), 0);
	took = -EINVAL;
	assert_int_equal(take_code(&id, ""), -EINVAL);
	other.bytes[15] ^= 1;
	assert_int_equal(take_code(&other, "no translated code for this guest"), -ESTALE);
	engine.name = "false";
	vm->engine = &engine;
	assert_int_equal(take_code(&id, "no translated code for this guest"), -ESTALE);
	vm->engine = &fake;
	assert_int_equal(unlink(code_path), 0);
	assert_int_equal(take_code(&id, "cannot open"), -ENOENT);
}

static void test_damaged_code_is_not_taken(void **state)
{
	uint64_t bytes;
	uint8_t byte;
	int fd;

	assert_int_equal(write_code(&bytes), 0);
	took = 0;
	fd = open(code_path, O_RDWR | O_CLOEXEC);
	for (off_t at = 0; at < 88; at++) {
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		assert_int_equal(take_code(&id, "no translated code"), -EBADMSG);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	assert_int_equal(take_code(&id, ""), 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes + 1), 0);
	assert_int_equal(take_code(&id, "no translated code"), -EBADMSG);
	for (uint64_t len = bytes - 1; len > 1; len /= 2) {
		assert_int_equal(ftruncate(fd, (off_t)len), 0);
		assert_int_equal(take_code(&id, "no translated code"), -EBADMSG);
	}
	assert_int_equal(close(fd), 0);
	assert_int_equal(unlink(code_path), 0);
}

static void test_an_engine_may_keep_nothing_or_too_much(void **state)
{
	struct engine_ops engine = fake;
	uint64_t bytes;

	kept_size = 0;
	assert_int_equal(write_code(&bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(unlink(code_path), 0);
	kept_size = CODE_FILE_MAX;
	assert_int_equal(write_code(&bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(unlink(code_path), 0);
	engine.kept_bytes = NULL;
	vm->engine = &engine;
	assert_int_equal(write_code(&bytes), 0);
	vm->engine = &fake;
	assert_int_equal(bytes, 0);
	assert_int_equal(unlink(code_path), 0);
}

/* ------------------------------------------------------------------- machines */

#define DEVICES 2u

/* On the binary translator, with a few devices; nothing of it runs. */
struct parts {
	struct mem *mem;
	struct vm *vm;
	struct loop *loop;
	struct platform *platform;
	struct serial *serial;
	struct virtio_device *dev[DEVICES];
	struct virtio_mmio *mmio[DEVICES];
};

static void no_irq(void *ctx)
{
}

/* The first processor in 64-bit mode, as a guest has it; the engine runs no other. */
static void boot(struct vm *machine)
{
	struct vcpu_state *cpu = malloc(sizeof(*cpu));

	assert_non_null(cpu);
	boot_long_mode_state(0, 0x100000, 0, cpu);
	assert_int_equal(machine->engine->set_state(&machine->vcpu[0], cpu, NULL), 0);
	free(cpu);
}

static void make(struct parts *p, unsigned ncpus)
{
	assert_int_equal(mem_create(RAM, &p->mem, NULL), 0);
	assert_int_equal(vm_create(&dbt_engine, p->mem, ncpus, &p->vm, NULL), 0);
	boot(p->vm);
	assert_int_equal(loop_create(&p->loop, NULL), 0);
	assert_int_equal(platform_create(p->vm, NULL, &p->platform, NULL), 0);
	assert_int_equal(serial_create(p->vm, SERIAL_COM1_BASE, SERIAL_COM1_IRQ, NULL, NULL, &p->serial, NULL), 0);
	assert_int_equal(virtio_rng_create(p->loop, &p->dev[0], NULL), 0);
	assert_int_equal(virtio_balloon_create(p->loop, false, &p->dev[1], NULL), 0);
	for (unsigned i = 0; i < DEVICES; i++)
		assert_int_equal(virtio_mmio_create(p->dev[i], p->mem, 0xd0000000u + i * 0x1000, no_irq, NULL, &p->mmio[i], NULL),
				 0);
}

static void unmake(struct parts *p)
{
	vm_destroy(p->vm);
	for (unsigned i = 0; i < DEVICES; i++) {
		virtio_mmio_destroy(p->mmio[i]);
		virtio_device_destroy(p->dev[i]);
	}
	serial_destroy(p->serial);
	platform_destroy(p->platform);
	loop_destroy(p->loop);
	mem_destroy(p->mem);
}

static struct state_parts all_of(const struct parts *p)
{
	return (struct state_parts){ .vm = p->vm, .platform = p->platform, .serial = p->serial, .mmio = p->mmio, .nmmio = DEVICES };
}

static void save(struct parts *p, struct blob *out)
{
	const struct state_parts parts = all_of(p);

	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_pause(p->mmio[i]);
	assert_int_equal(state_save(&parts, out, NULL), 0);
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_resume(p->mmio[i]);
	assert_false(out->failed);
}

static void expect_restore(const struct state_parts *parts, const uint8_t *bytes, size_t len, int want, const char *word)
{
	struct blob_reader in = { .at = bytes, .left = len };
	struct err err = { .msg = "of something before" };
	int r = state_restore(parts, &in, &err);

	if (r != want || !strstr(err.msg, word))
		fail_msg("%zu bytes gave %d '%s', not %d and '%s'", len, r, err.msg, want, word);
}

static void test_a_machine_goes_on_in_another(void **state)
{
	struct vcpu_state *cpu = calloc(2, sizeof(*cpu));
	struct blob bytes = { 0 };
	struct state_parts parts;
	struct parts from, to;
	uint64_t v;

	make(&from, 2);
	assert_int_equal(from.vm->engine->get_state(&from.vm->vcpu[1], cpu, NULL), 0);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		cpu->gpr[i] = 0x1111111111111111ull * i;
	cpu->cr2 = 0x1234567;
	assert_int_equal(from.vm->engine->set_state(&from.vm->vcpu[1], cpu, NULL), 0);
	assert_true(bus_write(&from.vm->pio, SERIAL_COM1_BASE + 7, 1, 0x5a));
	save(&from, &bytes);
	unmake(&from);

	make(&to, 2);
	parts = all_of(&to);
	expect_restore(&parts, bytes.bytes, bytes.len, 0, "");
	assert_int_equal(to.vm->engine->get_state(&to.vm->vcpu[1], cpu + 1, NULL), 0);
	assert_memory_equal(cpu[1].gpr, cpu[0].gpr, sizeof(cpu->gpr));
	assert_int_equal(cpu[1].cr2, 0x1234567);
	assert_int_equal(cpu[1].mp_state, cpu[0].mp_state);
	assert_memory_equal(cpu[1].xsave, cpu[0].xsave, 512);
	assert_true(bus_read(&to.vm->pio, SERIAL_COM1_BASE + 7, 1, &v));
	assert_int_equal(v, 0x5a);
	unmake(&to);
	blob_finish(&bytes);
	free(cpu);
}

static void test_state_of_another_machine_is_refused(void **state)
{
	struct blob bytes = { 0 };
	struct state_parts parts;
	struct parts one, two;

	make(&one, 1);
	make(&two, 2);
	save(&two, &bytes);
	parts = all_of(&one);
	expect_restore(&parts, bytes.bytes, bytes.len, -EINVAL, "not of a machine like this");
	parts = all_of(&two);
	parts.nmmio = 1;
	expect_restore(&parts, bytes.bytes, bytes.len, -EINVAL, "not of a machine like this");
	parts = all_of(&two);
	parts.mmio = (struct virtio_mmio *const[]){ two.mmio[1], two.mmio[0] };
	expect_restore(&parts, bytes.bytes, bytes.len, -EINVAL, "does not fit this device");
	parts = all_of(&two);
	two.vm->cpuid.entry[0].reg[1] ^= 1;
	expect_restore(&parts, bytes.bytes, bytes.len, -ENOTSUP, "another kind of processor");
	two.vm->cpuid.entry[0].reg[1] ^= 1;
	two.vm->tsc_khz += two.vm->tsc_khz / 100;
	expect_restore(&parts, bytes.bytes, bytes.len, -ENOTSUP, "where clocks count");
	unmake(&one);
	unmake(&two);
	blob_finish(&bytes);
}

static void test_the_rate_of_the_clock_may_differ_a_little(void **state)
{
	const int parts_of_10000[] = { 0, 9, -9, 20, -20 };
	struct blob bytes = { 0 };
	struct state_parts parts;
	struct parts p;
	uint32_t khz;

	make(&p, 1);
	khz = p.vm->tsc_khz;
	save(&p, &bytes);
	parts = all_of(&p);
	for (size_t i = 0; i < ARRAY_SIZE(parts_of_10000); i++) {
		bool fits = parts_of_10000[i] >= -9 && parts_of_10000[i] <= 9;

		p.vm->tsc_khz = (uint32_t)((int64_t)khz + (int64_t)khz * parts_of_10000[i] / 10000);
		expect_restore(&parts, bytes.bytes, bytes.len, fits ? 0 : -ENOTSUP, fits ? "" : "kHz");
	}
	unmake(&p);
	blob_finish(&bytes);
}

struct seen {
	char names[256];
	size_t bytes;
};

static void note_part(void *ctx, const char *name, const uint8_t *bytes, size_t len)
{
	struct seen *s = ctx;
	size_t n = strlen(s->names);

	(void)snprintf(s->names + n, sizeof(s->names) - n, "%s%s", n ? ", " : "", name);
	s->bytes += len;
}

static void test_the_parts_of_state_have_names(void **state)
{
	struct seen seen = { .bytes = 0 };
	struct cpuid_table table;
	struct blob bytes = { 0 };
	struct parts p;

	make(&p, 2);
	save(&p, &bytes);
	assert_int_equal(state_cpuid(bytes.bytes, bytes.len, &table), 0);
	assert_true(cpuid_same(&table, &p.vm->cpuid));
	assert_int_equal(state_each(bytes.bytes, bytes.len, note_part, &seen), 0);
	assert_string_equal(seen.names, "CPUID, IOAPIC and clock, vCPU 0, vCPU 1, platform, serial port, virtio-entropy 0, virtio-balloon 1");
	assert_int_equal(seen.bytes, bytes.len - 2 * 4 - 2 * 8 - 4 - 2 * 8);
	for (size_t len = 0; len < bytes.len; len += 3) {
		seen = (struct seen){ .bytes = 0 };
		assert_int_equal(state_each(bytes.bytes, len, note_part, &seen), -EINVAL);
	}
	unmake(&p);
	blob_finish(&bytes);
}

static void test_no_part_of_state_and_no_more_than_it_is_taken(void **state)
{
	struct blob bytes = { 0 };
	struct state_parts parts;
	struct parts p;
	size_t len;

	make(&p, 1);
	parts = all_of(&p);
	save(&p, &bytes);
	len = bytes.len;
	blob_put(&bytes, "", 1);
	expect_restore(&parts, bytes.bytes, len + 1, -EINVAL, "not of a machine like this");
	for (size_t cut = len; cut-- > 0; cut -= cut > 600 && cut < len - 600 ? 97 : 0) {
		/* In memory of its own: reading behind it shows. */
		uint8_t *part = malloc(cut ? cut : 1);

		assert_non_null(part);
		memcpy(part, bytes.bytes, cut);
		expect_restore(&parts, part, cut, -EINVAL, "");
		free(part);
	}
	expect_restore(&parts, bytes.bytes, len, 0, "");
	unmake(&p);
	blob_finish(&bytes);
}

#define B(f) cmocka_unit_test_setup_teardown(f, setup_base, teardown_base)
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_snapshot_holds_what_the_guest_was),
		T(test_what_is_zero_costs_no_room),
		T(test_what_cannot_be_a_snapshot_is_not_written),
		T(test_no_bit_of_header_or_state_may_change),
		T(test_fields_are_checked_under_a_right_checksum),
		T(test_no_other_length_is_taken),
		T(test_what_is_no_file_is_told),
		T(test_a_guest_goes_through_a_pipe),
		T(test_no_bit_of_memory_notes_or_checksums_may_change),
		T(test_nothing_may_be_in_a_hole),
		T(test_code_goes_behind_the_memory),
		B(test_only_what_differs_from_the_base_is_in_the_file),
		B(test_the_same_guest_once_more_costs_nothing),
		B(test_no_bit_of_a_file_with_a_base_or_compressed_may_change),
		B(test_a_base_must_be_there_and_be_the_same),
		B(test_memory_of_a_base_is_checked_too),
		B(test_a_chain_has_an_end),
		B(test_not_all_can_be_a_base),
		T(test_what_does_not_send_a_guest_is_refused),
		T(test_code_is_for_one_snapshot_and_engine),
		T(test_damaged_code_is_not_taken),
		T(test_an_engine_may_keep_nothing_or_too_much),
		cmocka_unit_test(test_a_machine_goes_on_in_another),
		cmocka_unit_test(test_state_of_another_machine_is_refused),
		cmocka_unit_test(test_the_rate_of_the_clock_may_differ_a_little),
		cmocka_unit_test(test_the_parts_of_state_have_names),
		cmocka_unit_test(test_no_part_of_state_and_no_more_than_it_is_taken),
	};

	(void)signal(SIGPIPE, SIG_IGN);	/* who builds a file may go before all is sent */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
