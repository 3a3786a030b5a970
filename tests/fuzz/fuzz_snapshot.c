/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved machines that somebody has changed.  The first byte says what the rest is:
 *
 *   0   the state of a machine with its processors and devices, with changes: a list of
 *       {place16 len8 bytes...} laid over a good one
 *   1   the same without what is behind the last place
 *   2   what a shared folder remembers; the rest of the state is good
 *   3   the header of a file, under a right checksum
 *   4   the beginning of a file
 *   5   a file of translated code behind a header that is right
 *   6   a file with a base, compressed, or both: {flags pages... lengths... memory...}, under right checksums of all
 *   7   a CPUID table, laid over a good one as in 0
 *
 * State that is taken must leave a machine that can run, be saved, and be put back; whatever
 * happens to one that is refused, good state must be taken after it.
 */
#include "tests/fuzz/guest_machine.h"

#include "base/sha256.h"
#include "machine/code_file.h"
#include "machine/snapshot_inside.h"
#include "machine/snapshot_memory.h"
#include "machine/state.h"
#include "os/blob.h"
#include "os/loop.h"
#include "tests/fuzz/check.h"
#include "virtio/balloon.h"
#include "virtio/fs/fs.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vmm/boot.h"
#include "vmm/serial.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zstd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CPUS 2u
#define DEVICES 4u	/* the last is the shared folder */
#define CODE_AT 0x180000u
#define CPUID_END (8 + sizeof(struct cpuid_table))	/* in state: what is before it only says whose state it is */
#define DEVICE_FIXED (8 + 48)	/* bytes of a device's state before its queues, with its length */
#define QUEUE_STATE 32u
#define HEADER_SUMMED offsetof(struct snapshot_header, sum)
#define LAYER_MEMORY (2 * SNAPSHOT_CHUNK)
#define LAYER_PAGES (LAYER_MEMORY / MEM_PAGE / 8)	/* bytes that say which are there */
#define LAYER_PATTERN 8u	/* bytes of the input that do, again and again */

enum what { CHANGES, CHANGES_AND_CUT, FOLDER, HEADER, FILE_START, CODE_FILE, LAYER, CPUID, WHAT_COUNT };

static struct machine *m;
static struct vcpu_state start[CPUS];	/* of its processors */
static struct serial *serial;
static struct loop *loop;
static struct virtio_device *dev[DEVICES];
static struct virtio_mmio *mmio[DEVICES];
static struct blob good;
static size_t folder_at;	/* what the shared folder remembers, in good */
static char folder[64], file_path[64];
static int file, base;
static uint8_t base_sum[32];

static struct state_parts parts(void)
{
	return (struct state_parts){ .vm = m->vm, .platform = m->platform, .serial = serial, .mmio = mmio, .nmmio = DEVICES };
}

/* --- The machine --- */

static void stop(void *ctx)
{
	loop_quit(ctx);
}

/* The devices do what there is to do. */
static void pump(void)
{
	want(loop_post(loop, stop, loop) == 0);
	(void)loop_run(loop, NULL);
}

static void interrupt(void *ctx)
{
}

/* Uses all of the vector state, then computes for ever. */
static void put_code(void)
{
	static const uint8_t code[] = {
		0x0f, 0x58, 0xc8,	/* addps %xmm0, %xmm1 */
		0xd8, 0xc1,	/* fadd %st(1), %st */
		0x0f, 0xae, 0x1c, 0x24,	/* stmxcsr (%rsp) */
		0xff, 0xc0,	/* inc %eax */
		0xeb, 0xf3,	/* jmp back */
	};

	want(boot_tables(m->mem, NULL) == 0);
	want(mem_write(m->mem, CODE_AT, code, sizeof(code)) == 0);
	memcpy(m->image, m->mem->bank[0].host, MACHINE_RAM);
}

static void make_folder(void)
{
	static const char *const names[] = { "a", "b", "d/c" };
	char name[80];

	(void)snprintf(folder, sizeof(folder), "/tmp/roux-fuzz-snapshot-XXXXXX");
	want(mkdtemp(folder));
	(void)snprintf(name, sizeof(name), "%s/d", folder);
	want(mkdir(name, 0700) == 0);
	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int fd;

		(void)snprintf(name, sizeof(name), "%s/%s", folder, names[i]);
		fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		want(fd >= 0 && write(fd, "text", 4) == 4 && close(fd) == 0);
	}
}

static void remove_folder(void)
{
	static const char *const names[] = { "a", "b", "d/c", "d", "" };
	char name[80];

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", folder, names[i]);
		(void)remove(name);
	}
}

static void add_devices(void)
{
	const struct virtio_fs_options options = { .tag = "fuzz", .path = folder, .read_only = true };

	want(loop_create(&loop, NULL) == 0);
	want(serial_create(m->vm, SERIAL_COM1_BASE, SERIAL_COM1_IRQ, NULL, NULL, &serial, NULL) == 0);
	want(virtio_rng_create(loop, &dev[0], NULL) == 0);
	want(virtio_vsock_create(loop, 3, &dev[1], NULL) == 0);
	want(virtio_balloon_create(loop, false, &dev[2], NULL) == 0);
	want(virtio_fs_create(loop, &options, &dev[3], NULL) == 0);
	for (unsigned i = 0; i < DEVICES; i++) {
		struct bus_range range;

		want(virtio_mmio_create(dev[i], m->mem, 0xd0010000u + i * 0x1000, interrupt, NULL, &mmio[i], NULL) == 0);
		range = virtio_mmio_range(mmio[i]);
		want(bus_add(&m->vm->mmio, &range, NULL) == 0);
	}
}

static void save(struct blob *out)
{
	const struct state_parts all = parts();

	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_pause(mmio[i]);
	want(state_save(&all, out, NULL) == 0 && !out->failed);
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_resume(mmio[i]);
}

static bool restore(const uint8_t *state, size_t len)
{
	struct blob_reader in = { .at = state, .left = len };
	const struct state_parts all = parts();
	struct err err;
	int r = state_restore(&all, &in, &err);

	want(r >= 0 || err.msg[0]);
	return r >= 0;	/* 1: with other files than it knew */
}

/* The lengths of devices' state are in front of them; the last begins where the others end. */
static size_t find_folder(void)
{
	struct blob without = { 0 };
	struct state_parts fewer = parts();
	size_t at;

	fewer.nmmio = DEVICES - 1;
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_pause(mmio[i]);
	want(state_save(&fewer, &without, NULL) == 0);
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_resume(mmio[i]);
	at = without.len;
	blob_finish(&without);
	return at;
}

/* Memory with something on each of its pages but the last. */
static void make_base(void)
{
	struct snapshot_header h = { .flags = HAS_SUMS, .memory = LAYER_MEMORY, .stored = LAYER_MEMORY, .engine = "dbt" };
	uint64_t sums[2];
	uint8_t *bytes = calloc(1, LAYER_MEMORY);

	base = memfd_create("base", MFD_CLOEXEC);
	want(base >= 0 && bytes);
	for (size_t i = 0; i + 1 < LAYER_MEMORY / MEM_PAGE; i++)
		bytes[i * MEM_PAGE] = (uint8_t)(i | 1);
	for (unsigned i = 0; i < 2; i++)
		sums[i] = snapshot_sum_chunk(bytes + i * SNAPSHOT_CHUNK, SNAPSHOT_CHUNK);
	snapshot_sum_bytes(NULL, 0, h.state_sum);
	snapshot_sum_bytes(sums, sizeof(sums), h.notes_sum);
	snapshot_seal(&h);
	memcpy(base_sum, h.sum, sizeof(base_sum));
	want(pwrite(base, &h, sizeof(h), 0) == sizeof(h) && pwrite(base, sums, sizeof(sums), SNAPSHOT_NOTES) == sizeof(sums));
	want(pwrite(base, bytes, LAYER_MEMORY, SNAPSHOT_MEMORY) == (ssize_t)LAYER_MEMORY);
	free(bytes);
}

static void setup(void)
{
	make_folder();
	(void)atexit(remove_folder);
	m = machine_create(CPUS);
	put_code();
	for (unsigned i = 0; i < CPUS; i++) {
		boot_long_mode_state(i, CODE_AT, 0, &start[i]);
		start[i].gpr[RSP] = 0x1f0000;
	}
	machine_reset(m, start, &m->vm_power_on);
	add_devices();
	save(&good);
	folder_at = find_folder();
	(void)snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file = memfd_create("snapshot", MFD_CLOEXEC));
	want(file >= 0);
	make_base();
}

/* --- Inputs --- */

static void count_part(void *ctx, const char *name, const uint8_t *bytes, size_t len)
{
	size_t *left = ctx;

	want(name[0] && len <= *left);
	*left -= len;
}

static void try_state(const uint8_t *state, size_t len)
{
	struct blob again = { 0 };
	struct machine_run run;

	(void)state_each(state, len, count_part, &(size_t){ len });

	if (restore(state, len)) {
		pump();
		machine_run(m, 1, &run);
		for (unsigned i = 0; i < CPUS; i++)
			want(run.exit[i] != VCPU_EXIT_ERROR || !strstr(run.err[i].msg, "translator itself"));
		pump();
		save(&again);
		blob_finish(&again);
	}
	machine_reset(m, start, &m->vm_power_on);
	want("good state is taken afterwards" && restore(good.bytes, good.len));
}

static void try_changes(const uint8_t *data, size_t len, bool cut)
{
	size_t size = good.len, place = size;
	uint8_t *state = malloc(size);

	want(state);
	memcpy(state, good.bytes, size);
	while (len >= 3) {
		size_t n = data[2];

		place = CPUID_END + (size_t)(data[0] | data[1] << 8) % (size - CPUID_END);
		data += 3;
		len -= 3;
		n = n < len ? n : len;
		n = n < size - place ? n : size - place;
		memcpy(state + place, data, n);
		data += n;
		len -= n;
	}
	if (cut && (state = realloc(state, place)))
		size = place;
	want(state);
	try_state(state, size);
	free(state);
}

static void try_folder(const uint8_t *data, size_t len)
{
	const size_t fixed = folder_at + DEVICE_FIXED + dev[DEVICES - 1]->nqueues * QUEUE_STATE;
	const uint64_t own = fixed - folder_at - 8 + len;
	uint8_t *state = malloc(fixed + len);

	want(state);
	memcpy(state, good.bytes, fixed);
	memcpy(state + folder_at, &own, sizeof(own));
	memcpy(state + fixed, data, len);
	try_state(state, fixed + len);
	free(state);
}

static void try_file(const uint8_t *data, size_t len, bool sum)
{
	struct snapshot_header header = { .flags = 0 };
	struct snapshot snapshot;

	want(ftruncate(file, 0) == 0 && pwrite(file, data, len, 0) == (ssize_t)len);
	if (sum) {
		memcpy(&header, data, len < HEADER_SUMMED ? len : HEADER_SUMMED);
		snapshot_seal(&header);
		want(pwrite(file, &header, sizeof(header), 0) == (ssize_t)sizeof(header));
		if (ftruncate(file, (off_t)(SNAPSHOT_MEMORY + header.stored + header.code +
					    (header.flags & HAS_PAGES && header.memory < 1ull << 40 ? snapshot_pages_len(header.memory) : 0))) < 0)
			return;	/* no file has that size */
	}
	if (snapshot_open(file_path, &snapshot, NULL) == 0) {
		want(snapshot.state_len <= SNAPSHOT_MEMORY && snapshot.memory > 0);
		want(memchr(snapshot.engine, '\0', sizeof(snapshot.engine)));
	}
	snapshot_close(&snapshot);
}

/* --- Files on top of others --- */

/* As it would be if nobody had changed it; where that cannot be said, anything. */
static uint64_t sum_layer(const uint64_t *pages, uint64_t chunk, const uint8_t *memory, const uint8_t *frame, size_t frame_len)
{
	static uint8_t buffer[SNAPSHOT_CHUNK];
	uint64_t len = frame ? (uint64_t)ZSTD_decompress(buffer, sizeof(buffer), frame, frame_len) :
		snapshot_gather(pages, LAYER_MEMORY, chunk, memory, buffer);

	return ZSTD_isError(len) || !len ? 0 : snapshot_sum_chunk(buffer, len);
}

static void use_layer(void)
{
	struct snapshot_view view;
	struct snapshot s;
	struct err err;
	int r = snapshot_open(file_path, &s, &err);

	if (r == 0)
		r = snapshot_open_bases(&s, &err);
	if (r == 0)
		r = snapshot_check_memory(&s, &err);
	if (r == 0)
		r = snapshot_view(&s, &view, &err);
	if (r == 0) {
		for (uint64_t page = 0; page < LAYER_MEMORY / MEM_PAGE; page++)
			want(snapshot_view_there(&view, page) || !view.memory[page * MEM_PAGE]);
		snapshot_view_finish(&view);
	}
	want(r == 0 || err.msg[0]);
	snapshot_close(&s);
}

static void try_layer(const uint8_t *data, size_t len)
{
	struct snapshot_header h = { .memory = LAYER_MEMORY, .stored = LAYER_MEMORY, .engine = "dbt" };
	uint8_t map[LAYER_PAGES + 2 * sizeof(uint32_t)];
	uint64_t pages[LAYER_PAGES / 8], sums[2];
	uint32_t packed[2] = { 0 };
	uint8_t *memory;
	struct sha256 hash;

	if (len < 1 + LAYER_PATTERN + sizeof(packed))
		return;
	h.flags = HAS_SUMS | HAS_PAGES | (data[0] & (IS_PACKED | HAS_BASE));
	for (size_t i = 0; i < LAYER_PAGES; i++)
		map[i] = data[1 + i % LAYER_PATTERN];
	memcpy(pages, map, sizeof(pages));
	memcpy(packed, data + 1 + LAYER_PATTERN, sizeof(packed));
	memcpy(map + LAYER_PAGES, packed, sizeof(packed));
	data += 1 + LAYER_PATTERN + sizeof(packed);
	len -= 1 + LAYER_PATTERN + sizeof(packed);
	len = len < LAYER_MEMORY ? len : LAYER_MEMORY;
	memory = calloc(1, LAYER_MEMORY);
	want(memory);
	memcpy(memory, data, len);
	if (h.flags & IS_PACKED)
		h.stored = (len + MEM_PAGE - 1) / MEM_PAGE * MEM_PAGE;
	for (uint64_t i = 0, at = 0; i < 2; at += packed[i++])
		sums[i] = sum_layer(pages, i, memory, h.flags & IS_PACKED ? memory + (at < len ? at : 0) : NULL,
				    at < len && packed[i] < len - at ? packed[i] : len - (at < len ? at : 0));
	if (h.flags & HAS_BASE) {
		(void)snprintf(h.base_path, sizeof(h.base_path), "/proc/self/fd/%d", base);
		memcpy(h.base_sum, base_sum, sizeof(h.base_sum));
	}
	snapshot_sum_bytes(NULL, 0, h.state_sum);
	sha256_init(&hash);
	sha256_add(&hash, sums, sizeof(sums));
	sha256_add(&hash, map, h.flags & IS_PACKED ? sizeof(map) : LAYER_PAGES);
	sha256_finish(&hash, h.notes_sum);
	snapshot_seal(&h);
	want(ftruncate(file, 0) == 0 && pwrite(file, &h, sizeof(h), 0) == sizeof(h));
	want(pwrite(file, sums, sizeof(sums), SNAPSHOT_NOTES) == sizeof(sums));
	want(pwrite(file, memory, len, SNAPSHOT_MEMORY) == (ssize_t)len);
	want(pwrite(file, map, h.flags & IS_PACKED ? sizeof(map) : LAYER_PAGES, (off_t)(SNAPSHOT_MEMORY + h.stored)) > 0);
	free(memory);
	use_layer();
}

/* What is taken must be no larger than what is there for it. */
static void try_cpuid(const uint8_t *data, size_t len)
{
	struct cpuid_table table = m->vm->cpuid, offered = m->vm->cpuid;
	uint8_t state[8 + sizeof(table)];
	char missing[64];

	while (len >= 3) {
		size_t place = (size_t)(data[0] | data[1] << 8) % sizeof(table), n = data[2];

		data += 3;
		len -= 3;
		n = n < len ? n : len;
		n = n < sizeof(table) - place ? n : sizeof(table) - place;
		memcpy((uint8_t *)&table + place, data, n);
		data += n;
		len -= n;
	}
	memcpy(state, good.bytes, 8);
	memcpy(state + 8, &table, sizeof(table));
	if (state_cpuid(state, sizeof(state), &table) < 0)
		return;
	if (!cpuid_offers(&offered, &table, missing, sizeof(missing))) {
		want(missing[0] && memchr(missing, '\0', sizeof(missing)));
		return;
	}
	cpuid_take(&offered, &table);
	want(cpuid_xsave_size(&offered, ~0ull) <= VCPU_XSAVE_MAX);
}

/* Where the header is right the engine looks whether the code is of this program; bytes of a fuzzer are not. */
static void try_code_file(const uint8_t *data, size_t len)
{
	struct {
		char magic[8];
		struct snapshot_id of;
		char engine[16];
		uint64_t bytes;
		uint32_t generation, zero;
		uint8_t sum[SHA256_SIZE];
	} h = { .magic = { 'r', 'o', 'u', 'x', 'c', 'o', 'd', '1' }, .engine = "dbt", .bytes = len };
	struct sha256 hash;
	uint32_t generation;

	sha256_init(&hash);
	sha256_add(&hash, &h, offsetof(__typeof__(h), sum));
	sha256_finish(&hash, h.sum);
	want(ftruncate(file, 0) == 0 && pwrite(file, &h, sizeof(h), 0) == sizeof(h));
	want(pwrite(file, data, len, CODE_FILE_HEADER) == (ssize_t)len);
	want(ftruncate(file, (off_t)(CODE_FILE_HEADER + len)) == 0);
	want(code_file_take_path(file_path, &h.of, m->vm, &generation, NULL) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum what what;

	if (!m)
		setup();
	if (!len)
		return 0;
	what = data[0] % WHAT_COUNT;
	data++;
	len--;
	if (what == FOLDER)
		try_folder(data, len);
	else if (what == CODE_FILE)
		try_code_file(data, len);
	else if (what == LAYER)
		try_layer(data, len);
	else if (what == CPUID)
		try_cpuid(data, len);
	else if (what == HEADER || what == FILE_START)
		try_file(data, len, what == HEADER);
	else
		try_changes(data, len, what == CHANGES_AND_CUT);
	return 0;
}
